//! Reading and writing the cookies of sessions and of CSRF protection, byte for byte as Django does.
//!
//! Reading is `django.http.cookie.parse_cookie` with the unquoting of Python's `http.cookies`; writing
//! is `HttpResponse.set_cookie` and `delete_cookie` with its quoting. Bytes that are not UTF-8 become
//! U+FFFD, as in Django under WSGI (under ASGI it reads Latin-1). A key is sent back as the client
//! wrote it, so quoting matters: a control character leaves as `\` and three octal digits, never as
//! itself. Characters beyond U+00FF go out in UTF-8, where Django fails to encode the response.
//!
//! Proved by `tests/fixtures/cookies`, which Django and Python wrote.

use std::borrow::Cow;

use http::header::{self, HeaderValue};
use jiff::{SignedDuration, Timestamp};

use super::SessionRejection;
use super::head::Head;
use crate::session::{DateTime, SameSite, SessionKey, SessionSettings};

/// What Python's `http.cookies` sends without quotes, letters and digits apart.
const LEGAL: &[u8] = b"!#$%&'*+-.^_`|~:";
/// What it needs quotes for, but no escape.
const UNESCAPED: &[u8] = b" ()/<=>?@[]{}";

/// The value that a request has for this name: of several the last. Headers of several lines, as
/// HTTP/2 allows, are read as one that is joined by `; `.
pub(super) fn read(request: &impl Head, name: &str) -> Option<String> {
    let mut found = None;
    for line in request.lines(&header::COOKIE) {
        for part in String::from_utf8_lossy(line).split(';') {
            // A part without `=` is a value without a name, and no session cookie has none.
            if let Some((key, value)) = part.split_once('=')
                && strip(key) == name
            {
                found = Some(unquote(strip(value)).into_owned());
            }
        }
    }
    found
}

/// The header that gives the client this key. `expiry` is `Max-Age` and the date; without it the
/// cookie ends with the browser.
pub(super) fn set(
    settings: &SessionSettings,
    session_key: &SessionKey,
    expiry: Option<(i64, DateTime)>,
) -> Result<HeaderValue, SessionRejection> {
    SetCookie {
        value: session_key.as_str(),
        expires: expiry.map(|(_, date)| http_date(date)),
        max_age: expiry.map(|(age, _)| age),
        http_only: settings.cookie_httponly,
        secure: settings.cookie_secure,
        ..SetCookie::of_session(settings)
    }
    .header()
}

/// The header that makes the client forget the cookie.
///
/// Whether it says `Secure` follows from the name and from `SameSite`, not from
/// `SESSION_COOKIE_SECURE`: browsers would ignore the header otherwise.
pub(super) fn delete(settings: &SessionSettings) -> Result<HeaderValue, SessionRejection> {
    let name = &settings.cookie_name;
    SetCookie {
        expires: Some("Thu, 01 Jan 1970 00:00:00 GMT".to_owned()),
        max_age: Some(0),
        secure: name.starts_with("__Secure-")
            || name.starts_with("__Host-")
            || settings.cookie_samesite == Some(SameSite::None),
        ..SetCookie::of_session(settings)
    }
    .header()
}

/// The setting that cannot stand in a `Set-Cookie` header, if there is one. Django notices with the
/// first cookie it sends.
pub(super) fn unusable_setting(settings: &SessionSettings) -> Option<&'static str> {
    Some(match SetCookie::of_session(settings).unusable_part()? {
        Part::Name => "SESSION_COOKIE_NAME",
        Part::Domain => "SESSION_COOKIE_DOMAIN",
        Part::Path => "SESSION_COOKIE_PATH",
    })
}

/// The date in `expires` of a cookie that lives so many seconds; none if there is no such date.
pub(super) fn expires(now: Timestamp, age: i64) -> Option<String> {
    let date = now.checked_add(SignedDuration::from_secs(age)).ok()?;
    Some(http_date(DateTime::Aware(date)))
}

/// A cookie to set: the arguments of `HttpResponse.set_cookie`.
#[derive(Default)]
pub(super) struct SetCookie<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
    pub(super) domain: Option<&'a str>,
    pub(super) expires: Option<String>,
    pub(super) http_only: bool,
    pub(super) max_age: Option<i64>,
    pub(super) path: &'a str,
    pub(super) same_site: Option<SameSite>,
    pub(super) secure: bool,
}

/// What of a cookie is a setting and text.
pub(super) enum Part {
    Domain,
    Name,
    Path,
}

impl<'a> SetCookie<'a> {
    /// What setting and deleting the session cookie have in common.
    fn of_session(settings: &'a SessionSettings) -> Self {
        Self {
            name: &settings.cookie_name,
            domain: settings.cookie_domain.as_deref(),
            path: &settings.cookie_path,
            same_site: settings.cookie_samesite,
            ..Self::default()
        }
    }

    /// What cannot stand in a header.
    pub(super) fn unusable_part(&self) -> Option<Part> {
        let is_plain =
            |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~' if byte != b';'));
        if self.name.is_empty() || !self.name.bytes().all(is_legal) {
            Some(Part::Name)
        } else if !self.domain.is_none_or(is_plain) {
            Some(Part::Domain)
        } else if !is_plain(self.path) {
            Some(Part::Path)
        } else {
            None
        }
    }

    /// Python sorts the attributes by their names in lower case and leaves empty ones out.
    pub(super) fn header(&self) -> Result<HeaderValue, SessionRejection> {
        let mut line = format!("{}={}", self.name, quote(self.value));
        if let Some(domain) = self.domain {
            push(&mut line, "Domain", domain);
        }
        if let Some(expires) = &self.expires {
            push(&mut line, "expires", expires);
        }
        if self.http_only {
            line.push_str("; HttpOnly");
        }
        if let Some(max_age) = self.max_age {
            push(&mut line, "Max-Age", &max_age.to_string());
        }
        push(&mut line, "Path", self.path);
        if let Some(same_site) = self.same_site {
            push(&mut line, "SameSite", &same_site.to_string());
        }
        if self.secure {
            line.push_str("; Secure");
        }
        HeaderValue::try_from(line).map_err(|_| {
            tracing::error!(target: "django_session", "a cookie setting cannot stand in a header");
            SessionRejection::Invalid
        })
    }
}

fn push(line: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        line.extend(["; ", name, "=", value]);
    }
}

fn http_date(date: DateTime) -> String {
    date.to_civil().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn is_legal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || LEGAL.contains(&byte)
}

/// `http.cookies._quote`.
fn quote(value: &str) -> Cow<'_, str> {
    if !value.is_empty() && value.bytes().all(is_legal) {
        return Cow::Borrowed(value);
    }
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for char in value.chars() {
        match u8::try_from(u32::from(char)) {
            Ok(b'"') => quoted.push_str("\\\""),
            Ok(b'\\') => quoted.push_str("\\\\"),
            Ok(byte) if !is_legal(byte) && !UNESCAPED.contains(&byte) => {
                quoted.push('\\');
                quoted.extend(
                    [byte >> 6, byte >> 3 & 7, byte & 7].map(|digit| char::from(b'0' + digit)),
                );
            }
            _ => quoted.push(char),
        }
    }
    quoted.push('"');
    Cow::Owned(quoted)
}

/// `http.cookies._unquote`: `\` and three octal digits of at most `\377` are a character, `\` and
/// anything but a line feed is that.
fn unquote(value: &str) -> Cow<'_, str> {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(mut rest) = inner else { return Cow::Borrowed(value) };
    let mut unquoted = String::with_capacity(rest.len());
    while let Some((before, escaped)) = rest.split_once('\\') {
        unquoted.push_str(before);
        rest = escaped;
        match *escaped.as_bytes() {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                unquoted.push(char::from((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')));
                rest = &escaped[3..];
            }
            [] | [b'\n', ..] => unquoted.push('\\'),
            _ => {
                let mut chars = escaped.chars();
                unquoted.extend(chars.next());
                rest = chars.as_str();
            }
        }
    }
    unquoted.push_str(rest);
    Cow::Owned(unquoted)
}

/// Python's `str.strip`, which takes four separators for white space that Unicode does not.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(|char: char| char.is_whitespace() || matches!(char, '\x1c'..='\x1f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right column is what Python's `http.cookies` answers.
    #[test]
    fn quotes_are_those_of_python() {
        for (value, quoted) in [
            ("", "\"\""),
            ("plain-1_2.3", "plain-1_2.3"),
            ("a b", "\"a b\""),
            ("a;b,c", "\"a\\073b\\054c\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("a\r\nSet-Cookie: b=c", "\"a\\015\\012Set-Cookie: b=c\""),
            ("\0\x7fé", "\"\\000\\177\\351\""),
            ("€", "\"€\""),
        ] {
            assert_eq!(quote(value), quoted);
            assert_eq!(unquote(quoted), value);
        }
        for (quoted, value) in [
            ("\"", "\""),
            ("\"open", "\"open"),
            ("\"\\", "\"\\"),
            ("\"\\\"", "\\"),
            ("\"\\400\\1\\18\"", "400118"),
            ("\"\\3777\"", "ÿ7"),
            ("\"\\\\101\"", "\\101"),
            ("\"\\é\"", "é"),
        ] {
            assert_eq!(unquote(quoted), value, "{quoted}");
        }
    }
}
