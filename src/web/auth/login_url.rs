//! Where somebody is sent who has to log in: `django.contrib.auth.views.redirect_to_login`.

use std::fmt::Write as _;

use http::HeaderValue;

/// `REDIRECT_FIELD_NAME`
const NEXT: &str = "next";

/// `login_url` with the way back in `next`; `None` if it cannot stand in a header.
pub(super) fn redirect_to_login(login_url: &str, path: &str) -> Option<HeaderValue> {
    // An empty query is none to Django.
    let next = path.strip_suffix('?').unwrap_or(path);
    let (address, fragment) = match login_url.split_once('#') {
        Some((address, fragment)) => (address, Some(fragment)),
        None => (login_url, None),
    };
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let mut location = format!("{path}?");
    // A `next` that is there is replaced.
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if pair.split('=').next() != Some(NEXT) {
            location.push_str(pair);
            location.push('&');
        }
    }
    location.push_str(NEXT);
    location.push('=');
    quote(next, &mut location);
    if let Some(fragment) = fragment {
        location.push('#');
        location.push_str(fragment);
    }
    HeaderValue::try_from(location).ok()
}

/// `QueryDict.urlencode(safe="/")`
fn quote(text: &str, into: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' | b'/' => {
                into.push(char::from(byte));
            }
            b' ' => into.push('+'),
            // Nothing that is written to a `String` fails.
            _ => drop(write!(into, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_is_quoted_as_django_does() {
        for (login_url, request, expected) in [
            ("/accounts/login/", "/", "/accounts/login/?next=/"),
            ("/login/", "/a/b?c=d&e=%20", "/login/?next=/a/b%3Fc%3Dd%26e%3D%2520"),
            ("/login/?theme=dark", "/x", "/login/?theme=dark&next=/x"),
            ("/login/?next=/old&a=b#top", "/x", "/login/?a=b&next=/x#top"),
            ("https://id.example.com/login", "/x", "https://id.example.com/login?next=/x"),
            ("/login/", "/x?", "/login/?next=/x"),
            ("/login/", "//evil.example/x", "/login/?next=//evil.example/x"),
        ] {
            assert_eq!(redirect_to_login(login_url, request).unwrap(), expected);
        }
        assert_eq!(redirect_to_login("/log\nin", "/"), None);
    }
}
