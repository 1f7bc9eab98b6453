//! Addresses of stores: one grammar for the library, the engine and the command.
//!
//! | address | store |
//! |---|---|
//! | `postgres://user:password@host:5432/name`, `mysql://…`, `sqlite:db.sqlite3` | the table `django_session` |
//! | … with `cache_url=` | the same with that cache before it (`cached_db`) |
//! | … with `cache_table=` | a table of Django's `DatabaseCache` |
//! | `redis://user:password@host:6379/0`, `rediss://…`, `redis+cluster://…`, `redis+sentinel://…` | Redis |
//! | `memcached://host:11211,other:11211` | memcached |
//! | `file:///var/lib/site/sessions` | a file for each session |
//! | `moving:?from_url=…&to_url=…` | two stores, from one of which into the other sessions move |
//! | `signed_cookies:` | the cookie itself |
//! | `memory:` | the memory of this process |
//!
//! An address may hold a password, so no error repeats any part of it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use thiserror::Error;

/// The options of each kind of address, and what they are.
const KINDS: [Kind; 9] = [
    Kind {
        schemes: &["postgres", "postgresql"],
        options: &[TABLE, &["replica_settle", "replica_url"], POOL, POSTGRES],
    },
    Kind { schemes: &["mysql", "mariadb"], options: &[TABLE, POOL, MYSQL] },
    Kind { schemes: &["sqlite"], options: &[TABLE, POOL, SQLITE] },
    Kind {
        schemes: &[
            "redis",
            "rediss",
            "redis+cluster",
            "rediss+cluster",
            "redis+sentinel",
            "rediss+sentinel",
        ],
        options: &[
            CACHE,
            &["ca", "compressor", "connect_timeout", "layout", "serializer", "timeout", "wait"],
        ],
    },
    Kind {
        schemes: &["memcached"],
        options: &[CACHE, &["connect_timeout", "distribution", "max_connections", "timeout"]],
    },
    Kind { schemes: &["file"], options: &[&["cookie_name", "lock_timeout", "sync"]] },
    Kind { schemes: &["moving"], options: &[&["from_url", "to_url", "write"]] },
    Kind { schemes: &["signed_cookies"], options: &[] },
    Kind { schemes: &["memory"], options: &[] },
];

const TABLE: &[&str] =
    &["cache_key_prefix", "cache_table", "cache_url", "prefix", "table", "version"];
const POOL: &[&str] = &["acquire_timeout", "max_connections", "timeout"];
const CACHE: &[&str] = &["cache_key_prefix", "pickle_protocol", "prefix", "version"];
/// What the drivers know themselves.
const POSTGRES: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];
const MYSQL: &[&str] = &[
    "charset",
    "collation",
    "socket",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "sslca",
    "sslcert",
    "sslkey",
    "sslmode",
    "statement-cache-capacity",
    "time-zone",
    "timezone",
];
const SQLITE: &[&str] = &["cache", "immutable", "mode", "vfs"];

struct Kind {
    schemes: &'static [&'static str],
    options: &'static [&'static [&'static str]],
}

impl Kind {
    fn option(&self, name: &str) -> Option<&'static str> {
        self.options.iter().copied().flatten().copied().find(|known| *known == name)
    }

    /// The option that is most like a name.
    fn nearest(&self, name: &str) -> Option<&'static str> {
        nearest(name, self.options.iter().copied().flatten().copied())
    }
}

fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let near = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = near.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|&(likeness, _)| likeness > 0.7).map(|(_, known)| known)
}

/// The address of a store, whose options are all known.
///
/// `Debug` shows the scheme alone.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "postgres")] {
/// use django_session::store::{StoreUrl, UrlError};
///
/// let url: StoreUrl = "postgres://site:secret@localhost/site?table=my_session".parse().unwrap();
/// assert_eq!(url.scheme(), "postgres");
///
/// let error = "postgres://localhost/site?tabel=my_session".parse::<StoreUrl>().unwrap_err();
/// assert_eq!(error.to_string(), "an option of the address is unknown; did you mean `table`?");
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    scheme: &'static str,
    /// All before the options.
    address: String,
    options: Vec<(&'static str, String)>,
}

impl FromStr for StoreUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let (scheme, _) = address.split_once(':').ok_or(UrlError::NoScheme)?;
        let scheme = scheme.to_ascii_lowercase();
        let schemes = KINDS.iter().flat_map(|kind| kind.schemes.iter().map(move |it| (kind, *it)));
        let Some((kind, scheme)) = schemes.clone().find(|(_, known)| *known == scheme) else {
            let nearest = nearest(&scheme, schemes.map(|(_, scheme)| scheme));
            return Err(UrlError::UnknownScheme { nearest });
        };
        let mut options: Vec<(&'static str, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // A plus is a plus, as in `redis+cluster`.
            let decoded = |text: &str| {
                let decoded = percent_decode_str(text).decode_utf8();
                decoded.map(std::borrow::Cow::into_owned).map_err(|_| UrlError::NotText)
            };
            let name = decoded(name)?;
            let Some(name) = kind.option(&name) else {
                return Err(UrlError::UnknownOption { nearest: kind.nearest(&name) });
            };
            if options.iter().any(|(known, _)| *known == name) {
                return Err(UrlError::TwiceAnOption { name });
            }
            options.push((name, decoded(value)?));
        }
        Ok(Self { scheme, address: address.to_owned(), options })
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreUrl").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

#[cfg_attr(
    not(all(feature = "_sql", feature = "memcached", feature = "redis")),
    allow(dead_code, reason = "each kind of store takes what it needs")
)]
impl StoreUrl {
    /// What it begins with, in small letters.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// All of it, as it may be hashed and must not be shown.
    #[cfg(feature = "cli")]
    pub(crate) fn in_full(&self) -> String {
        format!("{}?{:?}", self.address, self.options)
    }

    /// Whether it has an option.
    #[cfg(feature = "cli")]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// Whether it leads to a server of a cache.
    #[cfg(any(feature = "memcached", feature = "python", feature = "redis"))]
    pub(super) fn is_cache(&self) -> bool {
        self.scheme == "memcached" || self.scheme.starts_with("redis")
    }

    /// Whether it leads to a database.
    pub(crate) fn is_sql(&self) -> bool {
        matches!(self.scheme, "mariadb" | "mysql" | "postgres" | "postgresql" | "sqlite")
    }

    /// All before the options. It may hold a password.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let option = self.options.iter().find(|(known, _)| *known == name);
        option.map(|(_, value)| &**value)
    }

    /// A time in seconds, with a fraction or without.
    pub(super) fn seconds(&self, name: &'static str) -> Result<Option<Duration>, UrlError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let seconds = text.parse().ok().filter(|&seconds: &f64| seconds > 0.0);
        let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let expected = "a number of seconds, such as 2.5";
        duration.map(Some).ok_or(UrlError::InvalidOption { name, expected })
    }

    /// A whole number of the type that is asked for.
    pub(super) fn number<T: FromStr>(
        &self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, UrlError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| UrlError::InvalidOption { name, expected })
    }

    /// One of several words.
    pub(super) fn word<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, UrlError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        read(text).map(Some).ok_or(UrlError::InvalidOption { name, expected })
    }

    /// The address with those of the options that `keep` names: what a driver gets to see.
    pub(super) fn with_options(&self, keep: &[&str]) -> String {
        let mut url = self.address.clone();
        let mut separator = '?';
        for (name, value) in &self.options {
            if keep.contains(name) {
                url.push(separator);
                url.push_str(name);
                url.push('=');
                let value = percent_encoding::utf8_percent_encode(
                    value,
                    percent_encoding::NON_ALPHANUMERIC,
                );
                url.extend(value);
                separator = '&';
            }
        }
        url
    }

    /// The address as sqlx takes it.
    pub(super) fn for_driver(&self) -> String {
        self.with_options(match self.scheme {
            "postgres" | "postgresql" => POSTGRES,
            "mysql" | "mariadb" => MYSQL,
            "sqlite" => SQLITE,
            _ => &[],
        })
    }
}

/// An address that is none. No part of it is repeated: it may hold a password.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// What follows the scheme is not what stands there.
    #[error("the address must be {expected}")]
    InvalidAddress {
        /// What is allowed.
        expected: &'static str,
    },
    /// An option has a value that it cannot have.
    #[error("the option `{name}` of the address must be {expected}")]
    InvalidOption {
        /// The option.
        name: &'static str,
        /// What is allowed.
        expected: &'static str,
    },
    /// It does not begin with a scheme and a colon.
    #[error("the address must begin with a scheme, such as `postgres:` or `redis:`")]
    NoScheme,
    /// An option is not UTF-8.
    #[error("an option of the address is no text")]
    NotText,
    /// An option is there twice.
    #[error("the option `{name}` is in the address twice")]
    TwiceAnOption {
        /// The option.
        name: &'static str,
    },
    /// An option is unknown.
    #[error("an option of the address is unknown{}", did_you_mean(*.nearest))]
    UnknownOption {
        /// The one that is most like it.
        nearest: Option<&'static str>,
    },
    /// The scheme is unknown.
    #[error("the scheme of the address is unknown{}", did_you_mean(*.nearest))]
    UnknownScheme {
        /// The one that is most like it.
        nearest: Option<&'static str>,
    },
}

fn did_you_mean(nearest: Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<StoreUrl, UrlError> {
        url.parse()
    }

    #[test]
    fn every_shape_is_read() {
        for (url, scheme, address) in [
            ("sqlite:db.sqlite3", "sqlite", "sqlite:db.sqlite3"),
            ("POSTGRES://u:p%40ss@h:5/n?sslmode=require", "postgres", "POSTGRES://u:p%40ss@h:5/n"),
            (
                "redis+cluster://h:1,h:2?prefix=a%20b&version=2",
                "redis+cluster",
                "redis+cluster://h:1,h:2",
            ),
            ("memcached://a:1,b:2", "memcached", "memcached://a:1,b:2"),
            ("file:///srv/x", "file", "file:///srv/x"),
            ("signed_cookies:", "signed_cookies", "signed_cookies:"),
            ("memory:", "memory", "memory:"),
        ] {
            let read = parse(url).unwrap();
            assert_eq!((read.scheme(), read.address()), (scheme, address));
            assert_eq!(format!("{read:?}"), format!("StoreUrl {{ scheme: \"{scheme}\", .. }}"));
        }
        let redis = parse("redis://h?prefix=a+b%20c&timeout=2.5&version=3").unwrap();
        assert_eq!(redis.text("prefix"), Some("a+b c"));
        assert_eq!(redis.seconds("timeout"), Ok(Some(Duration::from_millis(2500))));
        assert_eq!(redis.number("version", "a number"), Ok(Some(3)));
        assert_eq!(redis.number::<u8>("wait", "a number"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_said_and_nothing_repeated() {
        for (url, message) in [
            ("hunter2", "the address must begin with a scheme, such as `postgres:` or `redis:`"),
            (
                "postgress://hunter2@h",
                "the scheme of the address is unknown; did you mean `postgres`?",
            ),
            ("hunter2:", "the scheme of the address is unknown"),
            (
                "redis://h?serialiser=json",
                "an option of the address is unknown; did you mean `serializer`?",
            ),
            ("redis://h?sslmode=x", "an option of the address is unknown"),
            ("postgres://u:pa?hunter2@h/n", "an option of the address is unknown"),
            ("mysql://h?table=a&table=b", "the option `table` is in the address twice"),
            ("redis://h?prefix=%ff", "an option of the address is no text"),
        ] {
            assert_eq!(parse(url).unwrap_err().to_string(), message, "{url}");
        }
        for value in ["0", "-1", "nan", "inf", "hunter2", ""] {
            let error = parse(&format!("redis://h?timeout={value}")).unwrap().seconds("timeout");
            let message = error.unwrap_err().to_string();
            assert!(message.starts_with("the option `timeout` of the address must be a number"));
        }
    }

    #[test]
    fn a_driver_sees_its_own_options() {
        let url =
            parse("postgres://u:p@h/n?table=t&sslmode=require&application_name=a%26b").unwrap();
        assert_eq!(url.for_driver(), "postgres://u:p@h/n?sslmode=require&application_name=a%26b");
    }
}
