//! Django's session settings, with Django's defaults.
//!
//! They come from code, from environment variables of the same names, or from the file that
//! `manage.py export_session_settings` writes, so that both sides read one source.

use std::fmt;
use std::path::Path;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use thiserror::Error;

use super::datetime::DateTime;
use super::merge::OnConflict;
use crate::codec::{Compression, Format, SESSION_SALT, SecretKey, Serializer, SessionCodec};

/// The settings of `django.contrib.sessions`, and what else a session depends on.
///
/// # Example
///
/// ```
/// use django_session::{SecretKey, SessionSettings};
///
/// let mut settings = SessionSettings::default();
/// settings.secret_key = Some(SecretKey::new("correct horse battery staple")?);
/// settings.cookie_secure = true;
/// assert_eq!(settings.cookie_name, "sessionid");
/// assert_eq!(settings.cookie_age, 1_209_600);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "they are Django's")]
pub struct SessionSettings {
    /// The key that signs. There is no default: without it no codec can be made.
    #[doc(alias = "SECRET_KEY")]
    pub secret_key: Option<SecretKey>,
    /// Keys still accepted (Django 4.1).
    #[doc(alias = "SECRET_KEY_FALLBACKS")]
    pub secret_key_fallbacks: Vec<SecretKey>,
    /// The salt of the store class that the site uses, not a Django setting:
    /// `django.contrib.sessions.SessionStore` unless the site has a class of its own.
    #[doc(alias = "SESSION_SALT")]
    pub salt: String,
    /// How sessions are written.
    #[doc(alias = "SESSION_SERIALIZER")]
    pub serializer: Serializer,
    /// The form in which sessions are stored, not a Django setting: [`Format::Legacy`] for a table that
    /// Django 3.0 or older shares, or 3.2 with `DEFAULT_HASHING_ALGORITHM = "sha1"`.
    #[doc(alias = "SESSION_FORMAT")]
    pub format: Format,
    /// Weaker forms that are read too, not a Django setting. None at first: Django 4.0 and later read
    /// today's form only.
    #[doc(alias = "SESSION_ACCEPT")]
    pub accept: Vec<Format>,
    /// How short stored texts are made, not a Django setting.
    #[doc(alias = "SESSION_COMPRESSION")]
    pub compression: Compression,
    /// The name of the session cookie.
    #[doc(alias = "SESSION_COOKIE_NAME")]
    pub cookie_name: String,
    /// The age of session and cookie in seconds.
    #[doc(alias = "SESSION_COOKIE_AGE")]
    pub cookie_age: i64,
    /// The domain of the cookie; none for the host alone.
    #[doc(alias = "SESSION_COOKIE_DOMAIN")]
    pub cookie_domain: Option<String>,
    /// The path of the cookie.
    #[doc(alias = "SESSION_COOKIE_PATH")]
    pub cookie_path: String,
    /// Whether the cookie goes over HTTPS only.
    #[doc(alias = "SESSION_COOKIE_SECURE")]
    pub cookie_secure: bool,
    /// Whether scripts are kept from the cookie.
    #[doc(alias = "SESSION_COOKIE_HTTPONLY")]
    pub cookie_httponly: bool,
    /// `SameSite` of the cookie; no attribute for `None`, as for Django's `False` and `None`.
    #[doc(alias = "SESSION_COOKIE_SAMESITE")]
    pub cookie_samesite: Option<SameSite>,
    /// Whether every request saves the session.
    #[doc(alias = "SESSION_SAVE_EVERY_REQUEST")]
    pub save_every_request: bool,
    /// What happens when two requests save one session, not a Django setting. At first both keep what
    /// they changed.
    #[doc(alias = "SESSION_ON_CONFLICT")]
    pub on_conflict: OnConflict,
    /// Whether requests that look at the session move its expiry on, and how far it has to move for
    /// that to be worth a write; not a Django setting. With
    /// [`save_every_request`](Self::save_every_request) every request does, and what is not changed is
    /// not written again.
    #[doc(alias = "SESSION_TOUCH_INTERVAL")]
    pub touch_interval: Option<SignedDuration>,
    /// Whether the cookie ends with the browser.
    #[doc(alias = "SESSION_EXPIRE_AT_BROWSER_CLOSE")]
    pub expire_at_browser_close: bool,
    /// Whether Django computes with instants; without, tables hold local time.
    #[doc(alias = "USE_TZ")]
    pub use_tz: bool,
    /// The zone of naive times. Only consulted for those.
    #[doc(alias = "TIME_ZONE")]
    pub time_zone: TimeZone,
}

impl Default for SessionSettings {
    /// Django's defaults, and no key.
    fn default() -> Self {
        Self {
            secret_key: None,
            secret_key_fallbacks: Vec::new(),
            salt: SESSION_SALT.to_owned(),
            serializer: Serializer::default(),
            format: Format::default(),
            accept: Vec::new(),
            compression: Compression::default(),
            cookie_name: "sessionid".to_owned(),
            cookie_age: 60 * 60 * 24 * 7 * 2,
            cookie_domain: None,
            cookie_path: "/".to_owned(),
            cookie_secure: false,
            cookie_httponly: true,
            cookie_samesite: Some(SameSite::Lax),
            save_every_request: false,
            on_conflict: OnConflict::default(),
            touch_interval: None,
            expire_at_browser_close: false,
            use_tz: true,
            time_zone: TimeZone::UTC,
        }
    }
}

/// Values of the cookie attribute `SameSite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SameSite {
    /// Sent with requests from the same site and with links that lead here.
    Lax,
    /// Sent with every request; browsers insist on `Secure` then.
    None,
    /// Sent with requests from the same site only.
    Strict,
}

impl fmt::Display for SameSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lax => "Lax",
            Self::None => "None",
            Self::Strict => "Strict",
        })
    }
}

/// Settings that cannot be used. Values are not repeated: some of them are secrets.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Two settings, or a setting and what is given here, cannot both be true.
    #[error("{names} contradict each other: {why}")]
    Contradiction {
        /// The settings.
        names: &'static str,
        /// The reason, and what to do about it.
        why: &'static str,
    },
    /// The file could not be read.
    #[error("the settings file cannot be read")]
    File(#[source] std::io::Error),
    /// The file is not the JSON that `manage.py export_session_settings` writes.
    #[error(
        "the settings file is not a JSON object; write it by `manage.py export_session_settings`"
    )]
    Format,
    /// A setting has a value that Django would not take.
    #[error("{name} must be {expected}")]
    Invalid {
        /// The setting.
        name: &'static str,
        /// What is allowed.
        expected: &'static str,
    },
    /// There is no secret key.
    #[error(
        "SECRET_KEY is not set; set the environment variable of that name, or export it by \
         `manage.py export_session_settings --include-secret`"
    )]
    MissingSecretKey,
    /// The site uses something that cannot be shared.
    #[error("{name} is set to something this crate cannot read: {why}")]
    Unsupported {
        /// The setting.
        name: &'static str,
        /// The reason.
        why: &'static str,
    },
}

impl SessionSettings {
    /// Reads the environment over Django's defaults; see [`SessionSettings::with_env`].
    ///
    /// # Errors
    ///
    /// [`SettingsError::Invalid`] if a variable is there but no such value.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::default().with_env()
    }

    /// Reads the file that `manage.py export_session_settings` wrote.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] if it cannot be read or the site's sessions cannot be shared.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(SettingsError::File)?;
        Self::from_json(&text)
    }

    /// Reads the content of such a file.
    ///
    /// # Errors
    ///
    /// As [`SessionSettings::from_file`].
    pub fn from_json(text: &str) -> Result<Self, SettingsError> {
        let values: serde_json::Map<String, Value> =
            serde_json::from_str(text).map_err(|_| SettingsError::Format)?;
        let mut settings = Self::default();
        settings.overlay(|name| values.get(name).cloned())?;
        Ok(settings)
    }

    /// Reads environment variables of the settings' names over what is there.
    ///
    /// Booleans are `True` or `False` in any case, or `1` or `0`. `SECRET_KEY_FALLBACKS` is a JSON
    /// list of texts. An empty variable counts as not set.
    ///
    /// # Errors
    ///
    /// [`SettingsError::Invalid`] if a variable is there but no such value.
    pub fn with_env(mut self) -> Result<Self, SettingsError> {
        self.overlay(|name| {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
            Some(from_text(name, value))
        })?;
        Ok(self)
    }

    /// Sets the secret key.
    #[must_use]
    pub fn with_secret_key(mut self, key: SecretKey) -> Self {
        self.secret_key = Some(key);
        self
    }

    /// The codec of the site's store class.
    ///
    /// # Errors
    ///
    /// [`SettingsError::MissingSecretKey`].
    pub fn codec(&self) -> Result<SessionCodec, SettingsError> {
        let key = self.secret_key.as_ref().ok_or(SettingsError::MissingSecretKey)?;
        Ok(SessionCodec::with_salt(key, &self.salt)
            .with_fallbacks(&self.secret_key_fallbacks)
            .with_serializer(self.serializer)
            .with_format(self.format)
            .accept(self.accept.iter().copied())
            .with_compression(self.compression))
    }

    /// The present as Django would have it.
    pub fn datetime(&self, now: Timestamp) -> DateTime {
        DateTime::now(now, self.use_tz, &self.time_zone)
    }

    /// Reads a setting that says `SameSite` of a cookie.
    pub(crate) fn samesite(
        name: &'static str,
        value: &Value,
    ) -> Result<Option<SameSite>, SettingsError> {
        match value {
            Value::Null | Value::Bool(false) => Ok(None),
            Value::String(text) if text.eq_ignore_ascii_case("lax") => Ok(Some(SameSite::Lax)),
            Value::String(text) if text.eq_ignore_ascii_case("none") => Ok(Some(SameSite::None)),
            Value::String(text) if text.eq_ignore_ascii_case("strict") => {
                Ok(Some(SameSite::Strict))
            }
            _ => Err(SettingsError::Invalid { name, expected: "Lax, Strict, None or False" }),
        }
    }

    /// Takes every setting that `find` knows.
    fn overlay(&mut self, find: impl Fn(&str) -> Option<Value>) -> Result<(), SettingsError> {
        let text = |name, expected| text(&find, name, expected);
        let boolean = |name| match find(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(SettingsError::Invalid { name, expected: "True or False" }),
        };

        if let Some(value) = find("SECRET_KEY") {
            self.secret_key =
                Some(secret_key("SECRET_KEY", &value)?.ok_or(SettingsError::Invalid {
                    name: "SECRET_KEY",
                    expected: "a text that is not empty",
                })?);
        }
        if let Some(value) = find("SECRET_KEY_FALLBACKS") {
            const NAME: &str = "SECRET_KEY_FALLBACKS";
            let keys = value
                .as_array()
                .ok_or(SettingsError::Invalid { name: NAME, expected: "a list of texts" })?;
            let keys = keys.iter().map(|key| secret_key(NAME, key));
            // An empty fallback is the primary key again in Django, never an empty secret.
            self.secret_key_fallbacks =
                keys.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        }
        if let Some(salt) = text("SESSION_SALT", "a text that is not empty")? {
            self.salt = salt;
        }
        self.overlay_form(&find)?;
        if let Some(name) = text("SESSION_COMPRESSION", "\"fast\" or \"small\"")? {
            self.compression = match &*name {
                "fast" => Compression::Fast,
                "small" => Compression::Small,
                _ => {
                    return Err(SettingsError::Invalid {
                        name: "SESSION_COMPRESSION",
                        expected: "\"fast\" or \"small\"",
                    });
                }
            };
        }
        if let Some(name) = text("SESSION_COOKIE_NAME", "the name of a cookie")? {
            self.cookie_name = name;
        }
        if let Some(value) = find("SESSION_COOKIE_AGE") {
            self.cookie_age = value.as_i64().ok_or(SettingsError::Invalid {
                name: "SESSION_COOKIE_AGE",
                expected: "a whole number of seconds",
            })?;
        }
        self.overlay_saving(&find)?;
        match find("SESSION_COOKIE_DOMAIN") {
            None => {}
            Some(Value::Null) => self.cookie_domain = None,
            Some(_) => {
                self.cookie_domain = text("SESSION_COOKIE_DOMAIN", "a domain, or None")?;
            }
        }
        if let Some(path) = text("SESSION_COOKIE_PATH", "a path")? {
            self.cookie_path = path;
        }
        if let Some(value) = find("SESSION_COOKIE_SAMESITE") {
            self.cookie_samesite = Self::samesite("SESSION_COOKIE_SAMESITE", &value)?;
        }
        for (name, place) in [
            ("SESSION_COOKIE_SECURE", &mut self.cookie_secure),
            ("SESSION_COOKIE_HTTPONLY", &mut self.cookie_httponly),
            ("SESSION_SAVE_EVERY_REQUEST", &mut self.save_every_request),
            ("SESSION_EXPIRE_AT_BROWSER_CLOSE", &mut self.expire_at_browser_close),
            ("USE_TZ", &mut self.use_tz),
        ] {
            if let Some(value) = boolean(name)? {
                *place = value;
            }
        }
        if let Some(name) = text("TIME_ZONE", "the name of a time zone")? {
            self.time_zone = TimeZone::get(&name).map_err(|_| SettingsError::Invalid {
                name: "TIME_ZONE",
                expected: "the name of a time zone, such as \"Europe/Berlin\"",
            })?;
        }
        Ok(())
    }

    /// What happens when sessions are saved at once, and when they are only looked at.
    fn overlay_saving(
        &mut self,
        find: impl Fn(&str) -> Option<Value>,
    ) -> Result<(), SettingsError> {
        const NAMES: &str = "\"merge\", \"overwrite\" or \"error\"";
        if let Some(name) = text(&find, "SESSION_ON_CONFLICT", NAMES)? {
            self.on_conflict = match &*name {
                "error" => OnConflict::Error,
                "merge" => OnConflict::Merge,
                "overwrite" => OnConflict::Overwrite,
                _ => {
                    return Err(SettingsError::Invalid {
                        name: "SESSION_ON_CONFLICT",
                        expected: NAMES,
                    });
                }
            };
        }
        if let Some(value) = find("SESSION_TOUCH_INTERVAL") {
            let seconds = value.as_u64().and_then(|seconds| i64::try_from(seconds).ok());
            self.touch_interval = match (&value, seconds) {
                (Value::Null, _) => None,
                (_, Some(seconds)) => Some(SignedDuration::from_secs(seconds)),
                (_, None) => {
                    return Err(SettingsError::Invalid {
                        name: "SESSION_TOUCH_INTERVAL",
                        expected: "a whole number of seconds, or None",
                    });
                }
            };
        }
        Ok(())
    }

    /// How sessions are stored: serializer, form, and the forms that are read.
    fn overlay_form(&mut self, find: impl Fn(&str) -> Option<Value>) -> Result<(), SettingsError> {
        if let Some(name) = find("SESSION_SERIALIZER") {
            self.serializer = serializer(&name)?;
        }
        if let Some(name) = text(&find, "DEFAULT_HASHING_ALGORITHM", "\"sha1\" or \"sha256\"")? {
            // Django 3.1 and 3.2: what it writes then, and what it reads in any case.
            self.format = if name == "sha1" { Format::Legacy } else { Format::Signed };
            self.accept = vec![Format::Legacy, Format::SignedSha1];
        }
        if let Some(name) = text(&find, "SESSION_FORMAT", FORMATS)? {
            self.format = Format::from_name(&name)
                .ok_or(SettingsError::Invalid { name: "SESSION_FORMAT", expected: FORMATS })?;
        }
        if let Some(names) = find("SESSION_ACCEPT") {
            self.accept = formats(&names).ok_or(SettingsError::Invalid {
                name: "SESSION_ACCEPT",
                expected: "a list of \"antique\", \"legacy\", \"signed\" and \"signed_sha1\"",
            })?;
        }
        Ok(())
    }
}

/// A setting that is text and not empty.
fn text(
    find: impl Fn(&str) -> Option<Value>,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<String>, SettingsError> {
    match find(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(SettingsError::Invalid { name, expected }),
    }
}

/// A key as text, or as `{"base64": "…"}` if it is bytes that are no text; none if it is empty.
fn secret_key(name: &'static str, value: &Value) -> Result<Option<SecretKey>, SettingsError> {
    let invalid = SettingsError::Invalid { name, expected: "text, or an object with base64" };
    let bytes = match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Object(object) => object
            .get("base64")
            .and_then(Value::as_str)
            .and_then(|text| base64_simd::STANDARD.decode_to_vec(text).ok())
            .ok_or(invalid)?,
        _ => return Err(invalid),
    };
    Ok(SecretKey::new(zeroize::Zeroizing::new(bytes)).ok())
}

const FORMATS: &str = "\"antique\", \"legacy\", \"signed\" or \"signed_sha1\"";

/// A serializer by its dotted path. One of the site's own writes what only that site reads.
fn serializer(path: &Value) -> Result<Serializer, SettingsError> {
    match path.as_str() {
        Some(
            "django.contrib.sessions.serializers.JSONSerializer"
            | "django.core.signing.JSONSerializer",
        ) => Ok(Serializer::Json),
        Some(
            "django.contrib.sessions.serializers.PickleSerializer"
            | "django_session_rs.pickle.PickleSerializer",
        ) => Ok(Serializer::Pickle),
        _ => Err(SettingsError::Unsupported {
            name: "SESSION_SERIALIZER",
            why: "only the JSONSerializer and the PickleSerializer of Django are known",
        }),
    }
}

fn formats(names: &Value) -> Option<Vec<Format>> {
    names.as_array()?.iter().map(|name| Format::from_name(name.as_str()?)).collect()
}

/// An environment variable as the value that a settings file would hold.
fn from_text(name: &str, text: String) -> Value {
    let lower = text.to_ascii_lowercase();
    match (name, &*lower) {
        ("SECRET_KEY_FALLBACKS" | "SESSION_ACCEPT", _) => {
            serde_json::from_str(&text).unwrap_or(Value::Null)
        }
        ("SESSION_COOKIE_AGE" | "SESSION_TOUCH_INTERVAL", _) => {
            text.trim().parse::<i64>().map_or(Value::Null, Value::from)
        }
        ("SESSION_COOKIE_SAMESITE", "false") => Value::Bool(false),
        (
            "SESSION_COOKIE_SECURE"
            | "SESSION_COOKIE_HTTPONLY"
            | "SESSION_SAVE_EVERY_REQUEST"
            | "SESSION_EXPIRE_AT_BROWSER_CLOSE"
            | "USE_TZ",
            flag,
        ) => match flag {
            "true" | "1" | "yes" | "on" => Value::Bool(true),
            "false" | "0" | "no" | "off" => Value::Bool(false),
            _ => Value::Null,
        },
        _ => Value::String(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole() {
        let settings = SessionSettings::from_json(
            r#"{
                "DJANGO_VERSION": "5.2.19",
                "SECRET_KEY": {"base64": "/wA="},
                "SECRET_KEY_FALLBACKS": ["old", ""],
                "SESSION_SALT": "django.contrib.sessions.Mine",
                "SESSION_SERIALIZER": "django.contrib.sessions.serializers.JSONSerializer",
                "SESSION_COOKIE_NAME": "sid",
                "SESSION_COOKIE_AGE": 60,
                "SESSION_COOKIE_DOMAIN": null,
                "SESSION_COOKIE_SAMESITE": false,
                "SESSION_COOKIE_SECURE": true,
                "USE_TZ": false,
                "TIME_ZONE": "America/New_York"
            }"#,
        )
        .unwrap();
        assert_eq!(settings.secret_key.as_ref().unwrap().as_bytes(), [0xff, 0]);
        assert_eq!(settings.secret_key_fallbacks.len(), 1);
        assert_eq!(settings.codec().unwrap().salt(), "django.contrib.sessions.Mine");
        assert_eq!((&*settings.cookie_name, settings.cookie_age), ("sid", 60));
        assert_eq!(settings.cookie_samesite, None);
        assert!(settings.cookie_secure && settings.cookie_httponly && !settings.use_tz);
        assert_eq!(settings.time_zone.iana_name(), Some("America/New_York"));
    }

    #[test]
    fn sites_of_old_keep_their_form() {
        for (text, serializer, format, accept) in [
            ("{}", Serializer::Json, Format::Signed, &[][..]),
            (
                r#"{"SESSION_SERIALIZER": "django.contrib.sessions.serializers.PickleSerializer",
                    "SESSION_FORMAT": "legacy"}"#,
                Serializer::Pickle,
                Format::Legacy,
                &[],
            ),
            (
                r#"{"DEFAULT_HASHING_ALGORITHM": "sha1"}"#,
                Serializer::Json,
                Format::Legacy,
                &[Format::Legacy, Format::SignedSha1],
            ),
            (
                r#"{"SESSION_ACCEPT": ["legacy"]}"#,
                Serializer::Json,
                Format::Signed,
                &[Format::Legacy],
            ),
        ] {
            let settings = SessionSettings::from_json(text).unwrap();
            assert_eq!((settings.serializer, settings.format), (serializer, format), "{text}");
            assert_eq!(settings.accept, accept, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, message) in [
            ("[]", "the settings file is not a JSON object"),
            (r#"{"SECRET_KEY": ""}"#, "SECRET_KEY must be"),
            (r#"{"SECRET_KEY": 5}"#, "SECRET_KEY must be"),
            (r#"{"SESSION_COOKIE_AGE": "hunter2"}"#, "SESSION_COOKIE_AGE must be"),
            (r#"{"SESSION_COOKIE_SAMESITE": "hunter2"}"#, "SESSION_COOKIE_SAMESITE must be"),
            (r#"{"TIME_ZONE": "Mars/hunter2"}"#, "TIME_ZONE must be"),
            (r#"{"SESSION_SERIALIZER": "hunter2"}"#, "SESSION_SERIALIZER is set"),
            (r#"{"SESSION_FORMAT": "hunter2"}"#, "SESSION_FORMAT must be"),
            (r#"{"SESSION_ON_CONFLICT": "hunter2"}"#, "SESSION_ON_CONFLICT must be"),
            (r#"{"SESSION_TOUCH_INTERVAL": -5}"#, "SESSION_TOUCH_INTERVAL must be"),
            (r#"{"SESSION_ACCEPT": ["hunter2"]}"#, "SESSION_ACCEPT must be"),
        ] {
            let error = SessionSettings::from_json(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
            assert!(!error.contains("hunter2"));
        }
        assert!(matches!(SessionSettings::default().codec(), Err(SettingsError::MissingSecretKey)));
    }

    #[test]
    fn the_environment_speaks_text() {
        let mut settings = SessionSettings::default();
        let variables = [
            ("SECRET_KEY", "[not json]"),
            ("SECRET_KEY_FALLBACKS", r#"["a,b"]"#),
            ("SESSION_COOKIE_SECURE", "TRUE"),
            ("SESSION_COOKIE_AGE", "5"),
            ("SESSION_COOKIE_SAMESITE", "None"),
        ];
        let find = |name: &str| {
            let (_, text) = variables.iter().find(|(known, _)| *known == name)?;
            Some(from_text(name, (*text).to_owned()))
        };
        settings.overlay(find).unwrap();
        assert_eq!(settings.secret_key.unwrap().as_bytes(), b"[not json]");
        assert_eq!(settings.secret_key_fallbacks[0].as_bytes(), b"a,b");
        assert!(settings.cookie_secure);
        assert_eq!(settings.cookie_samesite, Some(SameSite::None));
    }
}
