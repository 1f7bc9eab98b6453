//! One entry of `PASSWORD_HASHERS`.

use super::argon2::{self, Argon2};
use super::bcrypt::{Bcrypt, Prehash};
use super::digest::{self, Digest, Salted};
use super::error::HasherError;
use super::limits::Limits;
use super::pbkdf2::{Pbkdf2, Prf};
use super::scrypt::{self, Scrypt};

/// `BasePasswordHasher.salt_entropy`, in bits.
pub(super) const SALT_ENTROPY: u32 = 128;

/// A hasher and its parameters: one entry of `PASSWORD_HASHERS`.
///
/// # Example
///
/// ```
/// use django_session::auth::hashers::{Pbkdf2, PasswordHasher, PasswordHashers};
///
/// // As a subclass of PBKDF2PasswordHasher with `iterations = 2000`.
/// let hasher = PasswordHasher::Pbkdf2Sha256(Pbkdf2::new(2000));
/// assert_eq!(hasher.algorithm(), Some("pbkdf2_sha256"));
/// let hashers = PasswordHashers::new([hasher])?;
/// assert!(hashers.make_password("secret")?.starts_with("pbkdf2_sha256$2000$"));
/// # Ok::<(), django_session::auth::hashers::HasherError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PasswordHasher {
    /// `Argon2PasswordHasher`.
    Argon2(Argon2),
    /// `BCryptPasswordHasher`.
    Bcrypt(Bcrypt),
    /// `BCryptSHA256PasswordHasher`.
    BcryptSha256(Bcrypt),
    /// A class that is not known here.
    Custom(CustomHasher),
    /// `MD5PasswordHasher`, for tests.
    Md5(Salted),
    /// `PBKDF2SHA1PasswordHasher`.
    Pbkdf2Sha1(Pbkdf2),
    /// `PBKDF2PasswordHasher`.
    Pbkdf2Sha256(Pbkdf2),
    /// `ScryptPasswordHasher`.
    Scrypt(Scrypt),
    /// `SHA1PasswordHasher` of Django up to 5.0: checked, never made.
    Sha1(Salted),
    /// `UnsaltedMD5PasswordHasher` of Django up to 5.0: checked, never made.
    UnsaltedMd5,
    /// `UnsaltedSHA1PasswordHasher` of Django up to 5.0: checked, never made.
    UnsaltedSha1,
}

/// A hasher of the site's own. It takes its place in the list, and is an error where it would have to
/// run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CustomHasher {
    /// The dotted path of the class.
    pub path: String,
    /// Its algorithm, if known. Without, every password of an unknown algorithm may be one of its own.
    pub algorithm: Option<String>,
}

impl CustomHasher {
    /// A hasher class by its dotted path.
    pub fn new(path: impl Into<String>, algorithm: Option<String>) -> Self {
        Self { path: path.into(), algorithm }
    }

    pub(super) fn unsupported(&self) -> HasherError {
        HasherError::Unsupported { hasher: self.path.clone() }
    }
}

impl PasswordHasher {
    /// What passwords of this hasher begin with, before the first `$`; `None` for a class that is not
    /// known.
    pub fn algorithm(&self) -> Option<&str> {
        Some(match self {
            Self::Argon2(_) => argon2::ALGORITHM,
            Self::Bcrypt(_) => Prehash::None.algorithm(),
            Self::BcryptSha256(_) => Prehash::Sha256.algorithm(),
            Self::Custom(hasher) => return hasher.algorithm.as_deref(),
            Self::Md5(_) => Digest::Md5.algorithm(),
            Self::Pbkdf2Sha1(_) => Prf::Sha1.algorithm(),
            Self::Pbkdf2Sha256(_) => Prf::Sha256.algorithm(),
            Self::Scrypt(_) => scrypt::ALGORITHM,
            Self::Sha1(_) => Digest::Sha1.algorithm(),
            Self::UnsaltedMd5 => UNSALTED_MD5,
            Self::UnsaltedSha1 => UNSALTED_SHA1,
        })
    }

    /// Encodes a password under a new salt.
    pub(super) fn make(&self, password: &str) -> Result<String, HasherError> {
        match self {
            Self::Argon2(hasher) => hasher.make(password),
            Self::Bcrypt(hasher) => hasher.make(Prehash::None, password),
            Self::BcryptSha256(hasher) => hasher.make(Prehash::Sha256, password),
            Self::Custom(hasher) => Err(hasher.unsupported()),
            Self::Md5(hasher) => Ok(hasher.make(Digest::Md5, password)),
            Self::Pbkdf2Sha1(hasher) => Ok(hasher.make(Prf::Sha1, password)),
            Self::Pbkdf2Sha256(hasher) => Ok(hasher.make(Prf::Sha256, password)),
            Self::Scrypt(hasher) => hasher.make(password),
            Self::Sha1(_) => Err(HasherError::ReadOnly { algorithm: Digest::Sha1.algorithm() }),
            Self::UnsaltedMd5 => Err(HasherError::ReadOnly { algorithm: UNSALTED_MD5 }),
            Self::UnsaltedSha1 => Err(HasherError::ReadOnly { algorithm: UNSALTED_SHA1 }),
        }
    }

    /// Whether an encoded password of this algorithm is one of the password.
    pub(super) fn verify(
        &self,
        password: &str,
        encoded: &str,
        limits: &Limits,
    ) -> Result<bool, HasherError> {
        match self {
            Self::Argon2(hasher) => hasher.verify(password, encoded, limits),
            Self::Bcrypt(hasher) => hasher.verify(Prehash::None, password, encoded, limits),
            Self::BcryptSha256(hasher) => hasher.verify(Prehash::Sha256, password, encoded, limits),
            Self::Custom(hasher) => Err(hasher.unsupported()),
            Self::Md5(_) => digest::verify(Digest::Md5, password, encoded),
            Self::Pbkdf2Sha1(hasher) => hasher.verify(Prf::Sha1, password, encoded, limits),
            Self::Pbkdf2Sha256(hasher) => hasher.verify(Prf::Sha256, password, encoded, limits),
            Self::Scrypt(hasher) => hasher.verify(password, encoded, limits),
            Self::Sha1(_) => digest::verify(Digest::Sha1, password, encoded),
            Self::UnsaltedMd5 => Ok(digest::verify_unsalted(Digest::Md5, password, encoded)),
            Self::UnsaltedSha1 => Ok(digest::verify_unsalted(Digest::Sha1, password, encoded)),
        }
    }

    /// Whether this hasher would make another encoded password of the same algorithm now.
    pub(super) fn must_update(&self, encoded: &str) -> Result<bool, HasherError> {
        match self {
            Self::Argon2(hasher) => hasher.must_update(encoded),
            Self::Bcrypt(hasher) => hasher.must_update(Prehash::None, encoded),
            Self::BcryptSha256(hasher) => hasher.must_update(Prehash::Sha256, encoded),
            Self::Custom(hasher) => Err(hasher.unsupported()),
            Self::Md5(hasher) => hasher.must_update(Digest::Md5, encoded),
            Self::Pbkdf2Sha1(hasher) => hasher.must_update(Prf::Sha1, encoded),
            Self::Pbkdf2Sha256(hasher) => hasher.must_update(Prf::Sha256, encoded),
            Self::Scrypt(hasher) => hasher.must_update(encoded),
            Self::Sha1(hasher) => hasher.must_update(Digest::Sha1, encoded),
            Self::UnsaltedMd5 | Self::UnsaltedSha1 => Ok(false),
        }
    }

    /// Takes the time by which checking this password was faster than one that is made now.
    pub(super) fn harden_runtime(&self, password: &str, encoded: &str) -> Result<(), HasherError> {
        match self {
            Self::Bcrypt(hasher) => hasher.harden_runtime(Prehash::None, password, encoded),
            Self::BcryptSha256(hasher) => hasher.harden_runtime(Prehash::Sha256, password, encoded),
            Self::Pbkdf2Sha1(hasher) => {
                hasher.harden_runtime(Prf::Sha1, password, encoded);
                Ok(())
            }
            Self::Pbkdf2Sha256(hasher) => {
                hasher.harden_runtime(Prf::Sha256, password, encoded);
                Ok(())
            }
            // As Django: too complicated, or without a factor.
            _ => Ok(()),
        }
    }
}

/// Names that are in no encoded password.
pub(super) const UNSALTED_MD5: &str = "unsalted_md5";
pub(super) const UNSALTED_SHA1: &str = "unsalted_sha1";
