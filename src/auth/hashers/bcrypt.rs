//! `BCryptSHA256PasswordHasher` and `BCryptPasswordHasher`.

use bcrypt::{HashParts, Version};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::digest::hex;
use super::error::HasherError;
use super::limits::{Limits, within};
use super::number::int;
use super::salt::random_bytes;

/// How much of a password bcrypt hashes.
const MAX_LENGTH: usize = 72;
const SALT_LENGTH: usize = 22;
/// How far behind the algorithm the salt's `$` is, as in `$$2b$12$`.
const SALT_PLACE: usize = 7;

/// The parameters of bcrypt: encoded as `bcrypt_sha256$$2b$12$salt-and-hash`.
///
/// The hasher `bcrypt` hashes the first 72 bytes of a password alone, NUL bytes included. What becomes
/// of a longer one is up to Python's package `bcrypt`: since 5.0 it raises an exception, here
/// [`HasherError::PasswordTooLong`]; before, the rest did not count. `bcrypt_sha256` hashes a digest of
/// the password, of whatever length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bcrypt {
    /// The binary logarithm of the work, 4 to 31: 12 in Django. Passwords with another one are renewed.
    pub rounds: u32,
    /// Whether the rest of a long password counts for nothing, as with Python's `bcrypt` before 5.0. At
    /// first it does not.
    pub truncate: bool,
}

impl Default for Bcrypt {
    fn default() -> Self {
        Self { rounds: 12, truncate: false }
    }
}

/// Whether the password is hashed once before.
#[derive(Clone, Copy, Debug)]
pub(super) enum Prehash {
    None,
    Sha256,
}

impl Prehash {
    pub(super) fn algorithm(self) -> &'static str {
        match self {
            Self::None => "bcrypt",
            Self::Sha256 => "bcrypt_sha256",
        }
    }

    fn malformed(self) -> HasherError {
        HasherError::Malformed { algorithm: self.algorithm() }
    }
}

/// What Python's `bcrypt` makes of a stored password.
struct Stored {
    version: Version,
    cost: u32,
    salt: [u8; 16],
}

impl Stored {
    fn parse(prehash: Prehash, encoded: &str) -> Result<Self, HasherError> {
        let malformed = prehash.malformed();
        let (_, data) = encoded.split_once('$').ok_or_else(|| malformed.clone())?;
        if !data.is_ascii() {
            return Err(malformed);
        }
        let parts: Vec<&str> = data.split('$').filter(|part| !part.is_empty()).collect();
        let [version, cost, rest] = parts[..] else { return Err(malformed) };
        let version = match version {
            "2a" => Version::TwoA,
            "2b" => Version::TwoB,
            "2x" => Version::TwoX,
            "2y" => Version::TwoY,
            _ => return Err(malformed),
        };
        let Ok(cost) = cost.parse() else { return Err(malformed) };
        let Some(salt) = rest.get(..SALT_LENGTH) else { return Err(malformed) };
        // The crate reads a salt only as a part of the whole.
        let whole = format!("$2b$04${salt}{}", ".".repeat(31));
        let Ok(whole) = whole.parse::<HashParts>() else { return Err(malformed) };
        Ok(Self { version, cost, salt: whole.get_salt_raw() })
    }
}

impl Bcrypt {
    pub(super) fn make(self, prehash: Prehash, password: &str) -> Result<String, HasherError> {
        let stored = Stored { version: Version::TwoB, cost: self.rounds, salt: random_bytes() };
        Ok(std::mem::take(&mut *self.encode(prehash, password, &stored)?))
    }

    pub(super) fn verify(
        self,
        prehash: Prehash,
        password: &str,
        encoded: &str,
        limits: &Limits,
    ) -> Result<bool, HasherError> {
        let stored = Stored::parse(prehash, encoded)?;
        let (limit, own) = (limits.bcrypt_rounds, self.rounds);
        within("rounds", stored.cost.into(), limit.into(), own.into())?;
        // The whole text, as in Django: rounds that are written otherwise are no match.
        let again = self.encode(prehash, password, &stored)?;
        Ok(again.as_bytes().ct_eq(encoded.as_bytes()).into())
    }

    pub(super) fn must_update(self, prehash: Prehash, encoded: &str) -> Result<bool, HasherError> {
        let parts: Vec<&str> = encoded.splitn(5, '$').collect();
        let [_, _, _, rounds, _] = parts[..] else { return Err(prehash.malformed()) };
        let rounds = int(rounds).ok_or_else(|| prehash.malformed())?;
        Ok(rounds != i64::from(self.rounds))
    }

    /// Hashes as often as the stored password falls short.
    pub(super) fn harden_runtime(
        self,
        prehash: Prehash,
        password: &str,
        encoded: &str,
    ) -> Result<(), HasherError> {
        let stored = Stored::parse(prehash, encoded)?;
        let doublings = self.rounds.saturating_sub(stored.cost);
        // Django cuts the salt off by its place, and raises an exception if that is not all of it.
        if doublings > 0 && encoded.rfind('$') > Some(prehash.algorithm().len() + SALT_PLACE) {
            return Err(prehash.malformed());
        }
        for _ in 1..1_u64.checked_shl(doublings).unwrap_or(1) {
            std::hint::black_box(self.encode(prehash, password, &stored)?);
        }
        Ok(())
    }

    fn encode(
        self,
        prehash: Prehash,
        password: &str,
        stored: &Stored,
    ) -> Result<Zeroizing<String>, HasherError> {
        let digest;
        let password = match prehash {
            Prehash::None if password.len() > MAX_LENGTH && !self.truncate => {
                return Err(HasherError::PasswordTooLong { limit: MAX_LENGTH });
            }
            Prehash::None => password.as_bytes(),
            Prehash::Sha256 => {
                digest = hex(&Sha256::digest(password));
                digest.as_bytes()
            }
        };
        let parts = bcrypt::hash_with_salt(password, stored.cost, stored.salt)
            .map_err(|_| prehash.malformed())?;
        let data = Zeroizing::new(parts.format_for_version(stored.version.clone()));
        Ok(Zeroizing::new(format!("{}${}", prehash.algorithm(), *data)))
    }
}
