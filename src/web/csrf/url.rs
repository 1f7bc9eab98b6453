//! What Python's `urllib.parse.urlsplit` makes of an origin or a referer.
//!
//! Python forgives more than a browser writes, and whether a site is trusted hangs on it, so this is its
//! rule and not that of a URL library. Only the two parts that CSRF rules look at are kept.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Scheme, in lower case, and what is between `//` and the path, as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SplitUrl<'a> {
    pub(super) scheme: String,
    pub(super) netloc: Cow<'a, str>,
}

/// Splits as Python 3.11 and later do; `None` where they raise `ValueError`.
///
/// That Unicode normalization may bring a `/` into the host is not looked at: headers are Latin-1 here,
/// as in Django, and no character of that does so.
pub(super) fn urlsplit(url: &str) -> Option<SplitUrl<'_>> {
    let url = url.trim_start_matches(|char| char <= ' ');
    let url = if url.contains(['\t', '\r', '\n']) {
        Cow::Owned(url.replace(['\t', '\r', '\n'], ""))
    } else {
        Cow::Borrowed(url)
    };
    let (scheme, start) = match url.split_once(':') {
        Some((scheme, _)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), scheme.len() + 1),
        _ => (String::new(), 0),
    };
    let Some(rest) = url[start..].strip_prefix("//") else {
        return Some(SplitUrl { scheme, netloc: Cow::Borrowed("") });
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if !is_netloc(&rest[..end]) {
        return None;
    }
    let range = start + 2..start + 2 + end;
    let netloc = match url {
        Cow::Borrowed(url) => Cow::Borrowed(&url[range]),
        Cow::Owned(url) => Cow::Owned(url[range].to_owned()),
    };
    Some(SplitUrl { scheme, netloc })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|char: char| char.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Whether brackets, if there are any, stand around an address; by the rule of the newest Python, which
/// lets nothing stand before them and nothing but a port behind.
fn is_netloc(netloc: &str) -> bool {
    if netloc.contains('[') != netloc.contains(']') {
        return false;
    }
    let host = netloc.rsplit_once('@').map_or(netloc, |(_, host)| host);
    if !netloc.contains('[') {
        return true;
    }
    let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return false;
    };
    (port.is_empty() || port.starts_with(':')) && is_bracketed_host(address)
}

/// `_check_bracketed_host`: an IPv6 address, perhaps with a zone, or an address of the future.
fn is_bracketed_host(host: &str) -> bool {
    if let Some(future) = host.strip_prefix('v') {
        return future.split_once('.').is_some_and(|(version, address)| {
            !version.is_empty()
                && version.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !address.is_empty()
                && !address.contains('\n')
        });
    }
    let (address, zone) = match host.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (host, None),
    };
    zone.is_none_or(|zone| !zone.is_empty() && !zone.contains('%'))
        && address.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right columns are what Python answers.
    #[test]
    fn urls_are_split_as_python_does() {
        for (url, scheme, netloc) in [
            ("https://example.com/a?b#c", "https", "example.com"),
            ("HTTPS://Example.com:443", "https", "Example.com:443"),
            ("\x00 \x1fhttps://a", "https", "a"),
            ("ht\ttps:/\n/a\r.b/", "https", "a.b"),
            ("https://user:pass@a/", "https", "user:pass@a"),
            ("https:a", "https", ""),
            ("https:/a", "https", ""),
            ("//a/b", "", "a"),
            ("null", "", ""),
            ("", "", ""),
            ("1a://b", "", ""),
            ("é://b", "", ""),
            (":", "", ""),
            ("://b", "", ""),
            ("a_b://c", "", ""),
            ("a+b-c.d://e", "a+b-c.d", "e"),
            ("https://a?b://c", "https", "a"),
            ("https://a\\b/c", "https", "a\\b"),
            ("https://[::1]:8000/", "https", "[::1]:8000"),
            ("https://u@[fe80::1%eth0]", "https", "u@[fe80::1%eth0]"),
            ("https://[v1.a]/", "https", "[v1.a]"),
            ("https://[::ffff:1.2.3.4]", "https", "[::ffff:1.2.3.4]"),
        ] {
            let split = urlsplit(url).unwrap_or_else(|| panic!("{url:?}"));
            assert_eq!((&*split.scheme, &*split.netloc), (scheme, netloc), "{url:?}");
        }
    }

    #[test]
    fn brackets_stand_around_addresses() {
        for url in [
            "https://[::1",
            "https://::1]",
            "https://[1.2.3.4]",
            "https://[example.com]",
            "https://[]",
            "https://[v1]",
            "https://[vx.a]",
            "https://[::1%]",
            "https://[::1%a%b]",
            "https://a[::1]",
            "https://[::1]a",
            "https://[::1].example.com",
            "https://[::1]@a",
        ] {
            assert_eq!(urlsplit(url), None, "{url}");
        }
    }
}
