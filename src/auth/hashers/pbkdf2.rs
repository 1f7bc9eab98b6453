//! `PBKDF2PasswordHasher` and `PBKDF2SHA1PasswordHasher`.

use pbkdf2::pbkdf2_hmac;
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::error::HasherError;
use super::limits::{Limits, within};
use super::number::int;
use super::salt;

/// The parameters of PBKDF2: encoded as `pbkdf2_sha256$iterations$salt$hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pbkdf2 {
    /// How often is hashed. Passwords with another number are renewed.
    pub iterations: u32,
    /// The bits of entropy that a salt has to have: 128 in Django. Passwords with less are renewed.
    pub salt_entropy: u32,
}

impl Pbkdf2 {
    /// With this many iterations, and Django's salts.
    pub fn new(iterations: u32) -> Self {
        Self { iterations, salt_entropy: super::hasher::SALT_ENTROPY }
    }
}

/// The hash inside, as it is named.
#[derive(Clone, Copy, Debug)]
pub(super) enum Prf {
    Sha1,
    Sha256,
}

impl Prf {
    pub(super) fn algorithm(self) -> &'static str {
        match self {
            Self::Sha1 => "pbkdf2_sha1",
            Self::Sha256 => "pbkdf2_sha256",
        }
    }

    fn hash(self, password: &str, salt: &str, iterations: u32) -> Zeroizing<Vec<u8>> {
        let (password, salt) = (password.as_bytes(), salt.as_bytes());
        match self {
            Self::Sha1 => {
                let mut hash = Zeroizing::new(vec![0; 20]);
                pbkdf2_hmac::<Sha1>(password, salt, iterations, &mut hash);
                hash
            }
            Self::Sha256 => {
                let mut hash = Zeroizing::new(vec![0; 32]);
                pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut hash);
                hash
            }
        }
    }
}

struct Decoded<'a> {
    iterations: i64,
    salt: &'a str,
}

fn decode(prf: Prf, encoded: &str) -> Result<Decoded<'_>, HasherError> {
    let malformed = HasherError::Malformed { algorithm: prf.algorithm() };
    let mut parts = encoded.splitn(4, '$').skip(1);
    let (Some(iterations), Some(salt), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(malformed);
    };
    Ok(Decoded { iterations: int(iterations).ok_or(malformed)?, salt })
}

impl Pbkdf2 {
    pub(super) fn make(self, prf: Prf, password: &str) -> String {
        let salt = salt::salt(self.salt_entropy);
        std::mem::take(&mut *encode(prf, password, &salt, self.iterations))
    }

    pub(super) fn verify(
        self,
        prf: Prf,
        password: &str,
        encoded: &str,
        limits: &Limits,
    ) -> Result<bool, HasherError> {
        let Decoded { iterations, salt } = decode(prf, encoded)?;
        if salt.is_empty() || iterations < 0 {
            return Err(HasherError::Malformed { algorithm: prf.algorithm() });
        }
        let (limit, own) = (limits.pbkdf2_iterations, self.iterations);
        within("iterations", iterations.unsigned_abs(), limit.into(), own.into())?;
        // None is a default for Django, with which no stored text agrees.
        let iterations = match u32::try_from(iterations) {
            Ok(0) | Err(_) => self.iterations,
            Ok(iterations) => iterations,
        };
        // The whole text, as in Django: a number that is written otherwise is no match.
        let again = encode(prf, password, salt, iterations);
        Ok(again.as_bytes().ct_eq(encoded.as_bytes()).into())
    }

    pub(super) fn must_update(self, prf: Prf, encoded: &str) -> Result<bool, HasherError> {
        let Decoded { iterations, salt } = decode(prf, encoded)?;
        let is_weak = salt::is_weak(salt.chars().count(), self.salt_entropy);
        Ok(iterations != i64::from(self.iterations) || is_weak)
    }

    /// Runs the iterations by which the stored password falls short.
    pub(super) fn harden_runtime(self, prf: Prf, password: &str, encoded: &str) {
        let Ok(Decoded { iterations, salt }) = decode(prf, encoded) else { return };
        let extra = i64::from(self.iterations).saturating_sub(iterations);
        if let Ok(extra @ 1..) = u32::try_from(extra) {
            std::hint::black_box(prf.hash(password, salt, extra.min(self.iterations)));
        }
    }
}

fn encode(prf: Prf, password: &str, salt: &str, iterations: u32) -> Zeroizing<String> {
    let hash = prf.hash(password, salt, iterations);
    let hash = Zeroizing::new(base64_simd::STANDARD.encode_to_string(&*hash));
    Zeroizing::new(format!("{}${iterations}${salt}${}", prf.algorithm(), *hash))
}
