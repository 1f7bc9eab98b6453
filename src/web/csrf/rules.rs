//! The settings, made ready for requests: names of headers, trusted origins, all checked once.

use std::collections::HashSet;
use std::fmt;

use http::header::HeaderName;

use super::host::{is_same_domain, meta};
use super::settings::CsrfSettings;
use super::url::urlsplit;
use crate::session::SettingsError;
use crate::web::cookie;
use crate::web::head::Head;

pub(super) const HEADER: &str =
    "the name of a header as Django spells it, such as \"HTTP_X_CSRFTOKEN\"";
pub(super) const INVALID_PROXY_HEADER: SettingsError = SettingsError::Invalid {
    name: "SECURE_PROXY_SSL_HEADER",
    expected: "None, or the name of a header as Django spells it and a value, such as \
               (\"HTTP_X_FORWARDED_PROTO\", \"https\")",
};
const INVALID_ORIGIN: SettingsError = SettingsError::Invalid {
    name: "CSRF_TRUSTED_ORIGINS",
    expected: "a list of origins that begin with a scheme, such as \"https://example.com\" (Django's \
               check 4_0.E001)",
};

/// The settings of one layer.
#[derive(Debug)]
pub(super) struct Rules {
    settings: CsrfSettings,
    token_header: MetaName,
    proxy_header: Option<(MetaName, String)>,
    /// `csrf_trusted_origins_hosts`
    trusted_hosts: Vec<String>,
    /// `allowed_origins_exact`
    trusted_origins: HashSet<String>,
    /// `allowed_origin_subdomains`: scheme, and the end of the host.
    trusted_subdomains: Vec<(String, String)>,
}

impl Rules {
    /// Takes the settings.
    ///
    /// # Errors
    ///
    /// [`SettingsError::Invalid`] for what Django's checks refuse, what makes Django fail at the first
    /// request, or what no request could ever match.
    pub(super) fn new(settings: CsrfSettings) -> Result<Self, SettingsError> {
        let invalid = SettingsError::Invalid { name: "CSRF_HEADER_NAME", expected: HEADER };
        let token_header = MetaName::parse(&settings.csrf_header_name).ok_or(invalid)?;
        let proxy_header = settings.secure_proxy_ssl_header.as_ref();
        let proxy_header = proxy_header.map(|(name, value)| {
            Ok((MetaName::parse(name).ok_or(INVALID_PROXY_HEADER)?, value.clone()))
        });
        let proxy_header = proxy_header.transpose()?;
        check_cookie(&settings)?;
        let mut rules = Self {
            token_header,
            proxy_header,
            trusted_hosts: Vec::new(),
            trusted_origins: HashSet::new(),
            trusted_subdomains: Vec::new(),
            settings,
        };
        for origin in &rules.settings.csrf_trusted_origins {
            let split =
                urlsplit(origin).filter(|_| origin.contains("://")).ok_or(INVALID_ORIGIN)?;
            let host = split.netloc.trim_start_matches('*').to_owned();
            rules.trusted_hosts.push(host.clone());
            if origin.contains('*') {
                rules.trusted_subdomains.push((split.scheme, host));
            } else {
                rules.trusted_origins.insert(origin.clone());
            }
        }
        Ok(rules)
    }

    pub(super) fn settings(&self) -> &CsrfSettings {
        &self.settings
    }

    /// `ALLOWED_HOSTS`, or the names of this machine while debugging.
    pub(super) fn allowed_hosts(&self) -> impl Iterator<Item = &str> {
        const LOCAL: [&str; 3] = [".localhost", "127.0.0.1", "[::1]"];
        let hosts = &self.settings.allowed_hosts;
        let local = if self.settings.debug && hosts.is_empty() { &LOCAL[..] } else { &[] };
        hosts.iter().map(String::as_str).chain(local.iter().copied())
    }

    /// The header by which a proxy speaks of TLS, and what it says then.
    pub(super) fn proxy_header(&self) -> Option<(&HeaderName, &str)> {
        self.proxy_header.as_ref().map(|(name, value)| (&name.header, &**value))
    }

    /// The token in the header.
    pub(super) fn header_token(&self, request: &impl Head) -> Option<String> {
        meta(request, &self.token_header.header)
    }

    /// The name of that header as Django shows it.
    pub(super) fn token_header(&self) -> &str {
        &self.token_header.shown
    }

    /// Whether an origin is trusted besides our own.
    pub(super) fn trusts_origin(&self, origin: &str) -> bool {
        self.trusted_origins.contains(origin)
            || urlsplit(origin).is_some_and(|origin| {
                self.trusted_subdomains.iter().any(|(scheme, host)| {
                    *scheme == origin.scheme && is_same_domain(&origin.netloc, host)
                })
            })
    }

    /// Whether a referer's host is trusted; schemes do not count here.
    pub(super) fn trusts_host(&self, netloc: &str) -> bool {
        self.trusted_hosts.iter().any(|host| is_same_domain(netloc, host))
    }
}

/// The name of a header, which the settings have as a key of `META`.
struct MetaName {
    header: HeaderName,
    shown: String,
}

impl MetaName {
    /// Takes none that a request could not have: Django keeps only headers under `HTTP_…`.
    fn parse(name: &str) -> Option<Self> {
        let name = name.strip_prefix("HTTP_")?;
        let is_meta = |byte: u8| byte.is_ascii() && !byte.is_ascii_lowercase() && byte != b'-';
        if !name.bytes().all(is_meta) {
            return None;
        }
        let header = HeaderName::try_from(name.replace('_', "-").to_ascii_lowercase()).ok()?;
        // `str.title`: a letter that follows none is a capital.
        let mut follows = false;
        let shown = header.as_str().chars().map(|char| {
            let is_first = !std::mem::replace(&mut follows, char.is_ascii_alphabetic());
            if is_first { char.to_ascii_uppercase() } else { char }
        });
        let shown = shown.collect();
        Some(Self { header, shown })
    }
}

impl fmt::Debug for MetaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header.fmt(f)
    }
}

fn check_cookie(settings: &CsrfSettings) -> Result<(), SettingsError> {
    let cookie = cookie::SetCookie {
        name: &settings.csrf_cookie_name,
        domain: settings.csrf_cookie_domain.as_deref(),
        path: &settings.csrf_cookie_path,
        ..cookie::SetCookie::default()
    };
    let name = match cookie.unusable_part() {
        None => return Ok(()),
        Some(cookie::Part::Name) => "CSRF_COOKIE_NAME",
        Some(cookie::Part::Domain) => "CSRF_COOKIE_DOMAIN",
        Some(cookie::Part::Path) => "CSRF_COOKIE_PATH",
    };
    Err(SettingsError::Invalid { name, expected: "a text that can stand in a Set-Cookie header" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_spelt_as_django_does() {
        for (name, header, shown) in [
            ("HTTP_X_CSRFTOKEN", "x-csrftoken", "X-Csrftoken"),
            ("HTTP_X_2FA_TOKEN", "x-2fa-token", "X-2Fa-Token"),
            ("HTTP_A", "a", "A"),
        ] {
            let parsed = MetaName::parse(name).unwrap();
            assert_eq!((parsed.header.as_str(), &*parsed.shown), (header, shown));
        }
        for name in ["X-CSRFToken", "X_CSRFTOKEN", "HTTP_X-A", "HTTP_x", "HTTP_", "HTTP_A B", ""] {
            assert!(MetaName::parse(name).is_none(), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let with = |change: fn(&mut CsrfSettings)| {
            let mut settings = CsrfSettings::default();
            change(&mut settings);
            Rules::new(settings).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(with(|_| ()), Ok(()));
        for (name, result) in [
            ("CSRF_TRUSTED_ORIGINS", with(|s| s.csrf_trusted_origins = vec!["a.com".into()])),
            ("CSRF_TRUSTED_ORIGINS", with(|s| s.csrf_trusted_origins = vec!["https://[".into()])),
            ("CSRF_HEADER_NAME", with(|s| s.csrf_header_name = "X-CSRFToken".into())),
            ("CSRF_COOKIE_NAME", with(|s| s.csrf_cookie_name = "a b".into())),
            ("CSRF_COOKIE_NAME", with(|s| s.csrf_cookie_name = String::new())),
            ("CSRF_COOKIE_PATH", with(|s| s.csrf_cookie_path = "/;a".into())),
            ("CSRF_COOKIE_DOMAIN", with(|s| s.csrf_cookie_domain = Some("a\n".into()))),
            (
                "SECURE_PROXY_SSL_HEADER",
                with(|s| s.secure_proxy_ssl_header = Some(("X-A".into(), "https".into()))),
            ),
        ] {
            let message = result.unwrap_err();
            assert!(message.starts_with(&format!("{name} must be ")), "{message}");
        }
    }
}
