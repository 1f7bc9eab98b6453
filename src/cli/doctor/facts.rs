//! What is known of a site before anybody judges it: its settings as they are, and how strong its keys
//! are, without the keys.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use crate::cli::error::CliError;
use crate::codec::SecretKey;
use crate::session::{SessionSettings, SettingsError};

/// The settings of a site, with all that could be read of them.
#[derive(Debug)]
pub(super) struct SiteFacts {
    /// As they were exported; nothing if there is no file. Keys are not among them.
    pub(super) values: Map<String, Value>,
    /// Those that Django and this program can use, Django's defaults for the others.
    pub(super) settings: SessionSettings,
    /// Why a setting cannot be used.
    pub(super) invalid: Vec<String>,
    /// Whether there is an empty key among the fallbacks.
    pub(super) empty_fallback: bool,
    pub(super) has_file: bool,
    /// Whether there are keys in a file that others may read.
    pub(super) file_readable: bool,
}

/// How strong a key is, as `security.W009` of Django asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyFacts {
    pub(super) characters: usize,
    pub(super) distinct: usize,
    pub(super) is_generated_by_startproject: bool,
}

/// The keys of a site.
#[derive(Debug, Default)]
pub(super) struct KeysFacts {
    pub(super) primary: Option<KeyFacts>,
    pub(super) fallbacks: Vec<KeyFacts>,
    /// The places of fallbacks that are the primary key, or an earlier fallback.
    pub(super) same_as_primary: Vec<usize>,
    pub(super) duplicates: Vec<usize>,
    /// How many the site has, if the file says so.
    pub(super) expected: Option<u64>,
}

impl KeyFacts {
    fn of(key: &SecretKey) -> Self {
        let text = String::from_utf8_lossy(key.as_bytes());
        Self {
            characters: text.chars().count(),
            distinct: text.chars().collect::<BTreeSet<_>>().len(),
            is_generated_by_startproject: text.starts_with("django-insecure-"),
        }
    }

    pub(super) fn is_short(self) -> bool {
        self.characters < 50 || self.distinct < 5
    }
}

impl KeysFacts {
    pub(super) fn of(site: &SiteFacts) -> Self {
        let settings = &site.settings;
        let keys = &settings.secret_key_fallbacks;
        let is_same = |one: &SecretKey, other: &SecretKey| one.as_bytes() == other.as_bytes();
        let places = |is: &dyn Fn(usize, &SecretKey) -> bool| {
            let keys = keys.iter().enumerate();
            keys.filter(|(at, key)| is(*at, key)).map(|(at, _)| at).collect()
        };
        let primary = settings.secret_key.as_ref();
        Self {
            primary: primary.map(KeyFacts::of),
            fallbacks: keys.iter().map(KeyFacts::of).collect(),
            same_as_primary: places(&|_, key| primary.is_some_and(|primary| is_same(primary, key))),
            duplicates: places(&|at, key| keys[..at].iter().any(|other| is_same(other, key))),
            expected: site.values.get("SECRET_KEY_FALLBACKS_COUNT").and_then(Value::as_u64),
        }
    }
}

impl SiteFacts {
    /// Reads a file of `manage.py export_session_settings`, or the environment if there is none.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = path else {
            let (settings, invalid) = match SessionSettings::from_env() {
                Ok(settings) => (settings, Vec::new()),
                Err(error) => (SessionSettings::default(), vec![error.to_string()]),
            };
            return Ok(Self {
                values: Map::new(),
                settings,
                invalid,
                empty_fallback: false,
                has_file: false,
                file_readable: false,
            });
        };
        let text = std::fs::read_to_string(path).map_err(SettingsError::File)?;
        let values: Map<String, Value> =
            serde_json::from_str(&text).map_err(|_| SettingsError::Format)?;
        let has_key = values.contains_key("SECRET_KEY");
        let mut facts = Self::of(values);
        facts.file_readable = has_key && is_readable_by_others(path);
        Ok(facts)
    }

    /// Takes each setting that can be used, and says which cannot.
    pub(super) fn of(mut values: Map<String, Value>) -> Self {
        let fallbacks = values.get("SECRET_KEY_FALLBACKS").and_then(Value::as_array);
        let empty_fallback =
            fallbacks.is_some_and(|keys| keys.iter().any(|key| key.as_str() == Some("")));
        let mut invalid = Vec::new();
        let settings = loop {
            let text = Value::Object(values.clone()).to_string();
            match SessionSettings::from_json(&text) {
                Ok(settings) => break settings,
                Err(error) => {
                    let name = match &error {
                        SettingsError::Invalid { name, .. }
                        | SettingsError::Unsupported { name, .. } => Some(*name),
                        _ => None,
                    };
                    invalid.push(error.to_string());
                    if name.and_then(|name| values.remove(name)).is_none() {
                        break SessionSettings::default();
                    }
                }
            }
        };
        values.retain(|name, _| !matches!(&**name, "SECRET_KEY" | "SECRET_KEY_FALLBACKS"));
        Self { values, settings, invalid, empty_fallback, has_file: true, file_readable: false }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_str()
    }

    pub(super) fn texts(&self, name: &str) -> Option<Vec<&str>> {
        self.values.get(name)?.as_array()?.iter().map(Value::as_str).collect()
    }

    /// Whether it is known that `DEBUG` is on.
    pub(super) fn debug(&self) -> bool {
        self.values.get("DEBUG") == Some(&Value::Bool(true))
    }

    /// The engine by the last part of its path, as `db`, if it is Django's or ours.
    pub(super) fn engine(&self) -> Option<&str> {
        let (package, name) = self.text("SESSION_ENGINE")?.rsplit_once('.')?;
        let known = ["django.contrib.sessions.backends", "django_session_rs.backends"];
        known.contains(&package).then_some(name)
    }

    /// First and second number of Django's version.
    pub(super) fn django(&self) -> Option<(u32, u32)> {
        let mut numbers = self.text("DJANGO_VERSION")?.split('.').map(|part| part.parse().ok());
        numbers.next().flatten().zip(numbers.next().flatten())
    }
}

#[cfg(unix)]
fn is_readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o044 != 0)
}

#[cfg(not(unix))]
fn is_readable_by_others(_: &Path) -> bool {
    false
}
