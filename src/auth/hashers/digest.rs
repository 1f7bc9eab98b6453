//! One round of MD5 or SHA-1: `MD5PasswordHasher`, and those that Django 5.1 took away.

use md5::Md5;
use sha1::Sha1;
use sha2::Digest as _;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::error::HasherError;
use super::salt;

/// The parameters of a single hash with a salt: encoded as `md5$salt$hash`. Fit for tests and for
/// passwords of long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salted {
    /// The bits of entropy that a salt has to have: 128 in Django. Passwords with less are renewed.
    pub salt_entropy: u32,
}

impl Default for Salted {
    fn default() -> Self {
        Self { salt_entropy: super::hasher::SALT_ENTROPY }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Digest {
    Md5,
    Sha1,
}

impl Digest {
    pub(super) fn algorithm(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
        }
    }

    /// Sixteen or twenty bytes, in hexadecimal.
    fn hex(self, salt: &str, password: &str) -> Zeroizing<String> {
        match self {
            Self::Md5 => {
                let digest = Md5::new().chain_update(salt).chain_update(password).finalize();
                hex(&digest)
            }
            Self::Sha1 => {
                let digest = Sha1::new().chain_update(salt).chain_update(password).finalize();
                hex(&digest)
            }
        }
    }
}

/// The digits of these bytes.
pub(super) fn hex(bytes: &[u8]) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // The capacity is exact, so nothing is copied and left behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn salt_of(digest: Digest, encoded: &str) -> Result<&str, HasherError> {
    let mut parts = encoded.splitn(3, '$').skip(1);
    match (parts.next(), parts.next()) {
        (Some(salt), Some(_)) => Ok(salt),
        _ => Err(HasherError::Malformed { algorithm: digest.algorithm() }),
    }
}

fn encode(digest: Digest, password: &str, salt: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("{}${salt}${}", digest.algorithm(), *digest.hex(salt, password)))
}

impl Salted {
    pub(super) fn make(self, digest: Digest, password: &str) -> String {
        std::mem::take(&mut *encode(digest, password, &salt::salt(self.salt_entropy)))
    }

    pub(super) fn must_update(self, digest: Digest, encoded: &str) -> Result<bool, HasherError> {
        let salt = salt_of(digest, encoded)?;
        Ok(salt::is_weak(salt.chars().count(), self.salt_entropy))
    }
}

pub(super) fn verify(digest: Digest, password: &str, encoded: &str) -> Result<bool, HasherError> {
    let salt = salt_of(digest, encoded)?;
    if salt.is_empty() {
        return Err(HasherError::Malformed { algorithm: digest.algorithm() });
    }
    Ok(encode(digest, password, salt).as_bytes().ct_eq(encoded.as_bytes()).into())
}

/// What Django stored before it had salts: `sha1$$hash`, `md5$$hash`, or an MD5 alone.
pub(super) fn verify_unsalted(digest: Digest, password: &str, encoded: &str) -> bool {
    let hash = match digest {
        Digest::Md5 => encoded.strip_prefix("md5$$"),
        Digest::Sha1 => encoded.strip_prefix("sha1$$"),
    };
    digest.hex("", password).as_bytes().ct_eq(hash.unwrap_or(encoded).as_bytes()).into()
}
