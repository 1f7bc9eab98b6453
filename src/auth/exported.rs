//! [`AuthSettings`] from the file that `manage.py export_session_settings` writes.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::hashers::PasswordHashers;
use super::primary_key::PrimaryKeyType;
use super::settings::{AuthBackend, AuthSettings};
use super::user_model::{PermissionTables, UserModel};
use crate::codec::signing::Algorithm;
use crate::session::{Exported, SessionSettings, SettingsError};

const BACKENDS: SettingsError = SettingsError::Invalid {
    name: "AUTHENTICATION_BACKENDS",
    expected: "a list of dotted paths that is not empty",
};
const CLASSES: SettingsError = SettingsError::Invalid {
    name: "AUTHENTICATION_BACKENDS_CLASSES",
    expected: "what `manage.py export_session_settings` writes",
};
const TABLES: SettingsError = SettingsError::Invalid {
    name: "AUTH_USER_MODEL_TABLES",
    expected: "what `manage.py export_session_settings` writes",
};
const VERSION: SettingsError =
    SettingsError::Invalid { name: "DJANGO_VERSION", expected: "a text such as \"5.2.19\"" };

impl AuthSettings {
    /// Reads the file that `manage.py export_session_settings` wrote.
    ///
    /// # Errors
    ///
    /// As [`AuthSettings::from_json`], and [`SettingsError::File`].
    pub fn from_file(
        path: impl AsRef<Path>,
        session: impl Into<Arc<SessionSettings>>,
    ) -> Result<Self, SettingsError> {
        Self::from_json(&std::fs::read_to_string(path).map_err(SettingsError::File)?, session)
    }

    /// Reads the content of such a file: `AUTHENTICATION_BACKENDS` and what each of them does,
    /// `AUTH_USER_MODEL` and its tables, `PASSWORD_HASHERS`, `LOGIN_URL`, and by `DJANGO_VERSION` which
    /// session auth hashes count. `session` has the keys.
    ///
    /// # Errors
    ///
    /// * [`SettingsError::Format`] if it is not a JSON object.
    /// * [`SettingsError::Invalid`] for a value that Django would not take.
    /// * [`SettingsError::MissingSecretKey`] if `session` has no key.
    /// * [`SettingsError::Contradiction`] if `session` has more or fewer fallback keys than the site, or
    ///   `DJANGO_VERSION` has no `DEFAULT_HASHING_ALGORITHM` and there is one.
    /// * [`SettingsError::Unsupported`] if the user model has code of its own that decides who is let
    ///   in. [`AuthSettings::new`] makes settings that pass over it.
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::auth::{AuthBackendKind, AuthSettings};
    /// use django_session::{SecretKey, SessionSettings};
    ///
    /// let session = SessionSettings::default().with_secret_key(SecretKey::new("secret")?);
    /// let settings = AuthSettings::from_json(
    ///     r#"{
    ///         "DJANGO_VERSION": "5.2.19",
    ///         "AUTHENTICATION_BACKENDS": ["shop.auth.EmailBackend"],
    ///         "AUTHENTICATION_BACKENDS_CLASSES": {
    ///             "shop.auth.EmailBackend": {
    ///                 "class": "django.contrib.auth.backends.ModelBackend",
    ///                 "authenticate": false
    ///             }
    ///         },
    ///         "LOGIN_URL": "/login/"
    ///     }"#,
    ///     session,
    /// )?;
    /// assert_eq!(settings.backends[0].kind, AuthBackendKind::Model);
    /// assert!(settings.backends[0].has_own_authenticate);
    /// assert_eq!(settings.login_url, "/login/");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_json(
        text: &str,
        session: impl Into<Arc<SessionSettings>>,
    ) -> Result<Self, SettingsError> {
        let values: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| SettingsError::Format)?;
        let mut settings = Self::new(session);
        let file = Exported::new(&values);
        check_keys(&file, &settings.session)?;
        (settings.hash_algorithms, settings.accept_fallback_hashes) = hashes(&file)?;
        if let Some(backends) = backends(&file)? {
            settings.backends = backends;
        }
        if let Some(user_model) = user_model(&file)? {
            settings.user_model = user_model;
        }
        settings.hashers = PasswordHashers::from_values(&values)?;
        file.text("LOGIN_URL", "a path or an address", &mut settings.login_url)?;
        Ok(settings)
    }
}

fn check_keys(file: &Exported<'_>, session: &SessionSettings) -> Result<(), SettingsError> {
    if session.secret_key.is_none() {
        return Err(SettingsError::MissingSecretKey);
    }
    let count = match file.get("SECRET_KEY_FALLBACKS_COUNT") {
        None => return Ok(()),
        Some(count) => count.as_u64().ok_or(SettingsError::Invalid {
            name: "SECRET_KEY_FALLBACKS_COUNT",
            expected: "a number",
        })?,
    };
    if session.secret_key_fallbacks.len() as u64 == count {
        return Ok(());
    }
    Err(SettingsError::Contradiction {
        names: "SECRET_KEY_FALLBACKS and SECRET_KEY_FALLBACKS_COUNT",
        why: "the site has another number of fallback keys than are given here, so its users would \
              be taken for strangers; set the environment variable SECRET_KEY_FALLBACKS to all of them",
    })
}

/// Which hashes are written and accepted, and whether fallback keys count for them.
fn hashes(file: &Exported<'_>) -> Result<(Vec<Algorithm>, bool), SettingsError> {
    let version = match file.get("DJANGO_VERSION") {
        None => (4, 2, 0),
        Some(version) => django_version(version)?,
    };
    let default = match file.get("DEFAULT_HASHING_ALGORITHM") {
        None => Algorithm::Sha256,
        Some(Value::String(name)) if name == "sha256" => Algorithm::Sha256,
        Some(Value::String(name)) if name == "sha1" => Algorithm::Sha1,
        Some(_) => {
            return Err(SettingsError::Invalid {
                name: "DEFAULT_HASHING_ALGORITHM",
                expected: "\"sha1\" or \"sha256\"",
            });
        }
    };
    if version >= (4, 0, 0) && default != Algorithm::Sha256 {
        return Err(SettingsError::Contradiction {
            names: "DEFAULT_HASHING_ALGORITHM and DJANGO_VERSION",
            why: "Django 4.0 and later have no such setting and make SHA-256 hashes; remove it",
        });
    }
    let algorithms = match version {
        version if version >= (4, 0, 0) => vec![Algorithm::Sha256],
        version if version < (3, 1, 0) => vec![Algorithm::Sha1],
        _ if default == Algorithm::Sha1 => vec![Algorithm::Sha1],
        _ => vec![Algorithm::Sha256, Algorithm::Sha1],
    };
    Ok((algorithms, version >= (4, 1, 8)))
}

fn django_version(version: &Value) -> Result<(u32, u32, u32), SettingsError> {
    let mut numbers = version.as_str().ok_or(VERSION)?.split('.').map(|part| {
        let end = part.bytes().take_while(u8::is_ascii_digit).count();
        part[..end].parse::<u32>().ok()
    });
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => {
            Ok((major, minor, numbers.next().flatten().unwrap_or_default()))
        }
        _ => Err(VERSION),
    }
}

fn backends(file: &Exported<'_>) -> Result<Option<Vec<AuthBackend>>, SettingsError> {
    let Some(paths) = file.get("AUTHENTICATION_BACKENDS") else { return Ok(None) };
    let empty = Map::new();
    let classes = match file.get("AUTHENTICATION_BACKENDS_CLASSES") {
        None => &empty,
        Some(classes) => classes.as_object().ok_or(CLASSES)?,
    };
    let mut found = Vec::new();
    for path in paths.as_array().ok_or(BACKENDS)? {
        let path = path.as_str().ok_or(BACKENDS)?;
        found.push(match classes.get(path) {
            None => AuthBackend::new(path),
            Some(class) => backend(path, class.as_object().ok_or(CLASSES)?)?,
        });
    }
    if found.is_empty() { Err(BACKENDS) } else { Ok(Some(found)) }
}

fn backend(path: &str, class: &Map<String, Value>) -> Result<AuthBackend, SettingsError> {
    let inherited = class.get("authenticate").and_then(Value::as_bool).ok_or(CLASSES)?;
    let kind = match class.get("class") {
        Some(Value::Null) => return Ok(AuthBackend::like(path, super::AuthBackendKind::Unknown)),
        Some(Value::String(name)) => AuthBackend::new(name).kind,
        _ => return Err(CLASSES),
    };
    let mut backend = AuthBackend::like(path, kind);
    backend.has_own_authenticate = !inherited;
    Ok(backend)
}

fn user_model(file: &Exported<'_>) -> Result<Option<UserModel>, SettingsError> {
    let tables = match file.get("AUTH_USER_MODEL_TABLES") {
        None => return Ok(None),
        Some(Value::Null) => {
            return Err(SettingsError::Unsupported {
                name: "AUTH_USER_MODEL",
                why: "its rows are in more than one table, or its primary key is of a type that is \
                      not known here",
            });
        }
        Some(tables) => tables.as_object().ok_or(TABLES)?,
    };
    if tables.get("overrides").and_then(Value::as_array).is_none_or(|found| !found.is_empty()) {
        return Err(SettingsError::Unsupported {
            name: "AUTH_USER_MODEL",
            why: "the model or its manager has code of its own that decides who a user is \
                  (AUTH_USER_MODEL_TABLES lists it under \"overrides\")",
        });
    }
    let text =
        |name: &str| tables.get(name).and_then(Value::as_str).map(str::to_owned).ok_or(TABLES);
    let optional = |name: &str| match tables.get(name) {
        Some(Value::Null) => Ok(None),
        Some(Value::String(column)) => Ok(Some(column.clone())),
        _ => Err(TABLES),
    };
    Ok(Some(UserModel {
        table: text("table")?,
        primary_key: text("primary_key")?,
        primary_key_type: primary_key_type(tables.get("primary_key_type").ok_or(TABLES)?)?,
        username: text("username")?,
        password: optional("password")?,
        is_active: optional("is_active")?,
        is_staff: optional("is_staff")?,
        is_superuser: optional("is_superuser")?,
        last_login: optional("last_login")?,
        permissions: permissions(tables.get("permissions").ok_or(TABLES)?)?,
    }))
}

fn primary_key_type(value: &Value) -> Result<PrimaryKeyType, SettingsError> {
    match value {
        Value::String(name) if name == "text" => Ok(PrimaryKeyType::Text),
        Value::String(name) if name == "uuid" => Ok(PrimaryKeyType::Uuid),
        Value::Array(range) => match range[..] {
            [ref min, ref max] => Ok(PrimaryKeyType::Integer {
                min: min.as_i64().ok_or(TABLES)?,
                // Unsigned columns go beyond what sessions of users have been seen to hold.
                max: max.as_i64().or(max.as_u64().map(|_| i64::MAX)).ok_or(TABLES)?,
            }),
            _ => Err(TABLES),
        },
        _ => Err(TABLES),
    }
}

fn permissions(value: &Value) -> Result<Option<PermissionTables>, SettingsError> {
    if value.is_null() {
        return Ok(None);
    }
    let text =
        |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned).ok_or(TABLES);
    Ok(Some(PermissionTables {
        user_groups: text("user_groups")?,
        user_groups_user: text("user_groups_user")?,
        user_permissions: text("user_permissions")?,
        user_permissions_user: text("user_permissions_user")?,
    }))
}
