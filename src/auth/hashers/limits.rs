//! How much work a stored password may ask for.

use super::error::HasherError;

/// Bounds on what is hashed, so that no row of the table and no request keeps a server busy.
///
/// Django has none of them. What the settings say themselves is always allowed: with
/// [`Pbkdf2::iterations`](super::Pbkdf2::iterations) above [`Limits::pbkdf2_iterations`] the former
/// counts.
///
/// # Example
///
/// ```
/// use django_session::auth::hashers::{HasherError, Limits, PasswordHashers};
///
/// let hashers = PasswordHashers::default();
/// let stored = "pbkdf2_sha256$1000000000000$salt$hash";
/// assert_eq!(
///     hashers.check_password("secret", stored),
///     Err(HasherError::LimitExceeded { parameter: "iterations", limit: 10_000_000 }),
/// );
///
/// let mut limits = Limits::default();
/// limits.password_length = 4096;
/// let hashers = hashers.with_limits(limits);
/// assert_eq!(
///     hashers.check_password(&"x".repeat(4097), stored),
///     Err(HasherError::PasswordTooLong { limit: 4096 }),
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The memory of an Argon2 password in KiB: at first 524,288, which is 512 MiB.
    pub argon2_memory_cost: u32,
    /// Memory in KiB times passes of an Argon2 password: at first 4,194,304, some 20 times Django's
    /// own.
    pub argon2_work: u64,
    /// The rounds of a bcrypt password, of which each more doubles the work: at first 16, 16 times
    /// Django's own work.
    pub bcrypt_rounds: u32,
    /// The bytes of an encoded password: at first 1,024. Django's column holds 128 characters.
    pub encoded_length: usize,
    /// The bytes of a password: at first 2,621,440, which is what Django takes of a whole form
    /// (`DATA_UPLOAD_MAX_MEMORY_SIZE`).
    pub password_length: usize,
    /// The iterations of a PBKDF2 password: at first 10,000,000.
    pub pbkdf2_iterations: u32,
    /// Work factor times block size times parallelism of a scrypt password: at first 16,777,216, some
    /// 25 times Django's own. Its memory is bounded by [`Scrypt::maxmem`](super::Scrypt::maxmem), as
    /// in Django.
    pub scrypt_work: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            argon2_memory_cost: 512 << 10,
            argon2_work: 4 << 20,
            bcrypt_rounds: 16,
            encoded_length: 1024,
            password_length: 2_621_440,
            pbkdf2_iterations: 10_000_000,
            scrypt_work: 16 << 20,
        }
    }
}

impl Limits {
    pub(super) fn check_password(&self, password: &str) -> Result<(), HasherError> {
        let limit = self.password_length;
        if password.len() > limit { Err(HasherError::PasswordTooLong { limit }) } else { Ok(()) }
    }

    pub(super) fn check_encoded(&self, encoded: &str) -> Result<(), HasherError> {
        within("length", encoded.len() as u64, self.encoded_length as u64, 0)
    }
}

/// Refuses a value above its limit, unless the settings have it themselves.
pub(super) fn within(
    parameter: &'static str,
    value: u64,
    limit: u64,
    own: u64,
) -> Result<(), HasherError> {
    let limit = limit.max(own);
    if value > limit { Err(HasherError::LimitExceeded { parameter, limit }) } else { Ok(()) }
}
