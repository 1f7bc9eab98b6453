//! `PASSWORD_HASHERS`, as Django's releases have it and as a site says.

use std::path::Path;

use serde_json::{Map, Value};

use super::argon2::Argon2;
use super::bcrypt::Bcrypt;
use super::check::PasswordHashers;
use super::digest::Salted;
use super::hasher::{CustomHasher, PasswordHasher};
use super::pbkdf2::Pbkdf2;
use super::scrypt::Scrypt;
use crate::session::SettingsError;

const MODULE: &str = "django.contrib.auth.hashers.";

/// What differs between the releases.
#[derive(Clone, Copy)]
struct Release {
    version: (u32, u32),
    pbkdf2_iterations: u32,
    scrypt_parallelism: u32,
}

const fn release(major: u32, minor: u32, iterations: u32, parallelism: u32) -> Release {
    Release {
        version: (major, minor),
        pbkdf2_iterations: iterations,
        scrypt_parallelism: parallelism,
    }
}

const NEWEST_LTS: Release = release(5, 2, 1_000_000, 5);
const RELEASES: [Release; 6] = [
    release(4, 2, 600_000, 1),
    release(5, 0, 720_000, 1),
    release(5, 1, 870_000, 5),
    NEWEST_LTS,
    release(6, 0, 1_200_000, 5),
    release(6, 1, 1_500_000, 5),
];

/// The same in all of these releases.
const DEFAULT: [&str; 5] = [
    "PBKDF2PasswordHasher",
    "PBKDF2SHA1PasswordHasher",
    "Argon2PasswordHasher",
    "BCryptSHA256PasswordHasher",
    "ScryptPasswordHasher",
];

impl Release {
    fn find(version: (u32, u32)) -> Option<Self> {
        RELEASES.into_iter().find(|release| release.version == version)
    }

    /// A class of `django.contrib.auth.hashers` with the parameters that it has there.
    fn hasher(self, class: &str) -> Option<PasswordHasher> {
        let pbkdf2 = Pbkdf2::new(self.pbkdf2_iterations);
        Some(match class {
            "Argon2PasswordHasher" => PasswordHasher::Argon2(Argon2::default()),
            "BCryptPasswordHasher" => PasswordHasher::Bcrypt(Bcrypt::default()),
            "BCryptSHA256PasswordHasher" => PasswordHasher::BcryptSha256(Bcrypt::default()),
            "MD5PasswordHasher" => PasswordHasher::Md5(Salted::default()),
            "PBKDF2PasswordHasher" => PasswordHasher::Pbkdf2Sha256(pbkdf2),
            "PBKDF2SHA1PasswordHasher" => PasswordHasher::Pbkdf2Sha1(pbkdf2),
            "SHA1PasswordHasher" => PasswordHasher::Sha1(Salted::default()),
            "ScryptPasswordHasher" => PasswordHasher::Scrypt(Scrypt::new(self.scrypt_parallelism)),
            "UnsaltedMD5PasswordHasher" => PasswordHasher::UnsaltedMd5,
            "UnsaltedSHA1PasswordHasher" => PasswordHasher::UnsaltedSha1,
            _ => return None,
        })
    }

    fn default_hashers(self) -> Vec<PasswordHasher> {
        DEFAULT.iter().filter_map(|class| self.hasher(class)).collect()
    }
}

pub(super) fn newest_lts() -> Vec<PasswordHasher> {
    NEWEST_LTS.default_hashers()
}

impl PasswordHashers {
    /// The hashers that a release of Django has where `PASSWORD_HASHERS` says nothing, from 4.2 to 6.1;
    /// `None` for others.
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::auth::hashers::PasswordHashers;
    ///
    /// assert_eq!(PasswordHashers::of_django(5, 2), Some(PasswordHashers::default()));
    /// assert_ne!(PasswordHashers::of_django(6, 1), Some(PasswordHashers::default()));
    /// assert_eq!(PasswordHashers::of_django(1, 0), None);
    /// ```
    pub fn of_django(major: u32, minor: u32) -> Option<Self> {
        Release::find((major, minor)).map(|release| Self::trusted(release.default_hashers()))
    }

    /// Reads the file that `manage.py export_session_settings` wrote.
    ///
    /// # Errors
    ///
    /// As [`PasswordHashers::from_json`], and [`SettingsError::File`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SettingsError> {
        Self::from_json(&std::fs::read_to_string(path).map_err(SettingsError::File)?)
    }

    /// Reads the content of such a file: `DJANGO_VERSION`, `PASSWORD_HASHERS`, and in
    /// `PASSWORD_HASHERS_PARAMETERS` what each class is and its parameters.
    ///
    /// Only the first is needed where the list is Django's own. A class of the site's own is taken, and
    /// is an error when a password of its algorithm comes up.
    ///
    /// # Errors
    ///
    /// * [`SettingsError::Format`] if it is not a JSON object.
    /// * [`SettingsError::Invalid`] if a setting has a value that Django would not take, or the release
    ///   is none from 4.2 to 6.1 and there is a class without its parameters.
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::auth::hashers::{HasherError, PasswordHashers};
    ///
    /// let hashers = PasswordHashers::from_json(
    ///     r#"{
    ///         "DJANGO_VERSION": "4.2.30",
    ///         "PASSWORD_HASHERS": [
    ///             "django.contrib.auth.hashers.PBKDF2PasswordHasher",
    ///             "site.hashers.Rot13PasswordHasher"
    ///         ],
    ///         "PASSWORD_HASHERS_PARAMETERS": {
    ///             "site.hashers.Rot13PasswordHasher": {"algorithm": "rot13"}
    ///         }
    ///     }"#,
    /// )?;
    /// assert!(hashers.make_password("secret")?.starts_with("pbkdf2_sha256$600000$"));
    /// let refused = hashers.check_password("secret", "rot13$frperg").unwrap_err();
    /// assert!(refused.to_string().contains("site.hashers.Rot13PasswordHasher"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_json(text: &str) -> Result<Self, SettingsError> {
        let values: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| SettingsError::Format)?;
        Self::from_values(&values)
    }

    /// As [`PasswordHashers::from_json`], of what is read already.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn from_values(values: &Map<String, Value>) -> Result<Self, SettingsError> {
        const LIST: SettingsError = SettingsError::Invalid {
            name: "PASSWORD_HASHERS",
            expected: "a list of dotted paths that is not empty",
        };
        let release = values.get("DJANGO_VERSION").map_or(Ok(Some(NEWEST_LTS)), django_version)?;
        let Some(paths) = values.get("PASSWORD_HASHERS") else {
            let release = release.ok_or(UNKNOWN_RELEASE)?;
            return Ok(Self::trusted(release.default_hashers()));
        };
        let empty = Map::new();
        let parameters = match values.get("PASSWORD_HASHERS_PARAMETERS") {
            None => &empty,
            Some(parameters) => parameters.as_object().ok_or(PARAMETERS)?,
        };
        let mut hashers = Vec::new();
        for path in paths.as_array().ok_or(LIST)? {
            let path = path.as_str().ok_or(LIST)?;
            let known = parameters.get(path).map(|known| known.as_object().ok_or(PARAMETERS));
            hashers.push(hasher(path, known.transpose()?, release)?);
        }
        if hashers.is_empty() { Err(LIST) } else { Ok(Self::trusted(hashers)) }
    }
}

const PARAMETERS: SettingsError = SettingsError::Invalid {
    name: "PASSWORD_HASHERS_PARAMETERS",
    expected: "what `manage.py export_session_settings` writes",
};

const UNKNOWN_RELEASE: SettingsError = SettingsError::Invalid {
    name: "DJANGO_VERSION",
    expected: "a release from 4.2 to 6.1, or PASSWORD_HASHERS_PARAMETERS be there for each hasher",
};

/// The release that a text such as `5.2.19` or `6.1rc1` names; `None` if it is not known.
fn django_version(version: &Value) -> Result<Option<Release>, SettingsError> {
    const INVALID: SettingsError =
        SettingsError::Invalid { name: "DJANGO_VERSION", expected: "a text such as \"5.2.19\"" };
    let mut numbers = version.as_str().ok_or(INVALID)?.split('.').map(|part| {
        let end = part.bytes().take_while(u8::is_ascii_digit).count();
        part[..end].parse().ok()
    });
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => Ok(Release::find((major, minor))),
        _ => Err(INVALID),
    }
}

/// A class by its path, with the parameters that were exported for it.
fn hasher(
    path: &str,
    parameters: Option<&Map<String, Value>>,
    release: Option<Release>,
) -> Result<PasswordHasher, SettingsError> {
    let Some(parameters) = parameters else {
        return match path.strip_prefix(MODULE) {
            None => Ok(PasswordHasher::Custom(CustomHasher::new(path, None))),
            Some(class) => {
                let found = release.ok_or(UNKNOWN_RELEASE)?.hasher(class);
                Ok(found.unwrap_or_else(|| {
                    // `CryptPasswordHasher`.
                    PasswordHasher::Custom(CustomHasher::new(path, None))
                }))
            }
        };
    };
    let text = |name| match parameters.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or(PARAMETERS),
    };
    let class = text("class")?.and_then(|path| path.strip_prefix(MODULE));
    let algorithm = text("algorithm")?;
    let found = class.and_then(|class| release.unwrap_or(NEWEST_LTS).hasher(class));
    let Some(mut hasher) = found else {
        return Ok(PasswordHasher::Custom(CustomHasher::new(path, algorithm.map(str::to_owned))));
    };
    set_parameters(&mut hasher, parameters)?;
    Ok(hasher)
}

/// Numbers that are there take the place of a release's.
fn set_parameters(
    hasher: &mut PasswordHasher,
    parameters: &Map<String, Value>,
) -> Result<(), SettingsError> {
    let number = |name: &str, place: &mut u32, least: u64| match parameters.get(name) {
        None => Ok(()),
        Some(value) => {
            let number = value.as_u64().filter(|&number| number >= least);
            *place = number.and_then(|number| number.try_into().ok()).ok_or(PARAMETERS)?;
            Ok(())
        }
    };
    match hasher {
        PasswordHasher::Argon2(argon2) => {
            number("time_cost", &mut argon2.time_cost, 1)?;
            number("memory_cost", &mut argon2.memory_cost, 8)?;
            number("parallelism", &mut argon2.parallelism, 1)?;
            number("salt_entropy", &mut argon2.salt_entropy, 1)
        }
        PasswordHasher::Bcrypt(bcrypt) | PasswordHasher::BcryptSha256(bcrypt) => {
            if let Some(truncate) = parameters.get("truncate") {
                bcrypt.truncate = truncate.as_bool().ok_or(PARAMETERS)?;
            }
            number("rounds", &mut bcrypt.rounds, 4)
        }
        PasswordHasher::Md5(salted) | PasswordHasher::Sha1(salted) => {
            number("salt_entropy", &mut salted.salt_entropy, 1)
        }
        PasswordHasher::Pbkdf2Sha1(pbkdf2) | PasswordHasher::Pbkdf2Sha256(pbkdf2) => {
            number("iterations", &mut pbkdf2.iterations, 1)?;
            number("salt_entropy", &mut pbkdf2.salt_entropy, 1)
        }
        PasswordHasher::Scrypt(scrypt) => {
            if let Some(maxmem) = parameters.get("maxmem") {
                scrypt.maxmem = maxmem.as_u64().ok_or(PARAMETERS)?;
            }
            number("work_factor", &mut scrypt.work_factor, 2)?;
            number("block_size", &mut scrypt.block_size, 1)?;
            number("parallelism", &mut scrypt.parallelism, 1)?;
            number("salt_entropy", &mut scrypt.salt_entropy, 1)
        }
        PasswordHasher::Custom(_) | PasswordHasher::UnsaltedMd5 | PasswordHasher::UnsaltedSha1 => {
            Ok(())
        }
    }
}
