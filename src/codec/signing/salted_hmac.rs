//! The keyed hash under every signature of Django: `django.utils.crypto.salted_hmac`.
//!
//! The key of the HMAC is one digest of salt and secret, whatever their lengths, so a salt separates
//! one use of the secret from another. SHA-1 was the only algorithm before Django 3.1.

use std::fmt;

use hmac::{EagerHash, Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// The hash of a signature: in the HMAC, and in the key that it gets.
///
/// # Example
///
/// ```
/// use django_session::signing::Algorithm;
///
/// assert_eq!(Algorithm::default(), Algorithm::Sha256);
/// assert_eq!(Algorithm::from_name("sha1"), Some(Algorithm::Sha1));
/// assert_eq!(Algorithm::Sha1.name(), "sha1");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// What Django wrote before 3.1, and with `DEFAULT_HASHING_ALGORITHM = "sha1"` in 3.1 and 3.2.
    /// Django 4.0 no longer reads it.
    Sha1,
    /// What Django writes since 3.1.
    #[default]
    Sha256,
}

impl Algorithm {
    /// The name that Python's `hashlib` has for it, as in `Signer(algorithm="sha1")`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// The algorithm of that name; `None` for any that Django never chose by itself.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha1" => Some(Self::Sha1),
            "sha256" => Some(Self::Sha256),
            _ => None,
        }
    }
}

/// The hash of `value` under the key that `key_salt` and `secret` lead to.
pub(crate) fn salted_hmac(
    algorithm: Algorithm,
    key_salt: &str,
    secret: &[u8],
    value: &[u8],
) -> Digest {
    SaltedHmac::new(algorithm, &[key_salt], secret).digest(value)
}

/// [`salted_hmac`] up to the value: what the key schedule leads to, kept so that each value starts
/// there.
#[derive(Clone)]
pub(crate) enum SaltedHmac {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
}

impl SaltedHmac {
    /// The parts of the salt are read as one text.
    pub(crate) fn new(algorithm: Algorithm, key_salt: &[&str], secret: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha1 => Self::Sha1(keyed(key_salt, secret)),
            Algorithm::Sha256 => Self::Sha256(keyed(key_salt, secret)),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha1(_) => Algorithm::Sha1,
            Self::Sha256(_) => Algorithm::Sha256,
        }
    }

    pub(crate) fn digest(&self, value: &[u8]) -> Digest {
        let mut bytes = [0; Digest::MAX_LEN];
        let length = match self {
            Self::Sha1(key) => finish(key, value, &mut bytes),
            Self::Sha256(key) => finish(key, value, &mut bytes),
        };
        Digest { bytes, length }
    }

    /// The digest of `value` as a signature shows it.
    pub(crate) fn signature(&self, value: &str) -> Signature {
        let mut text = [0; Signature::MAX_LEN];
        let out = base64_simd::Out::from_slice(&mut text);
        let digest = self.digest(value.as_bytes());
        let length = base64_simd::URL_SAFE_NO_PAD.encode(digest.as_bytes(), out).len();
        Signature { text, length }
    }

    /// Whether `given` is the signature of `value`, in a time that does not tell where it differs.
    pub(crate) fn verify(&self, value: &str, given: &str) -> bool {
        // The length belongs to the algorithm and is no secret: no need to hash for another one.
        let length = match self {
            Self::Sha1(_) => 27,
            Self::Sha256(_) => 43,
        };
        given.len() == length
            && self.signature(value).as_str().as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl fmt::Debug for SaltedHmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaltedHmac").field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

fn keyed<D: EagerHash>(key_salt: &[&str], secret: &[u8]) -> Hmac<D> {
    let mut hash = D::new();
    for part in key_salt {
        hash.update(part.as_bytes());
    }
    hash.update(secret);
    let mut key = hash.finalize();
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let hmac = <Hmac<D> as KeyInit>::new_from_slice(&key).expect("any length is a key");
    key.as_mut_slice().zeroize();
    hmac
}

/// Writes the digest to the front of `out` and returns its length.
fn finish<D: EagerHash>(key: &Hmac<D>, value: &[u8], out: &mut [u8; Digest::MAX_LEN]) -> usize
where
    Hmac<D>: Clone,
{
    let digest = key.clone().chain_update(value).finalize().into_bytes();
    out[..digest.len()].copy_from_slice(&digest);
    digest.len()
}

/// What a [`salted_hmac`] came to; kept off the heap.
#[derive(Clone, Copy)]
pub(crate) struct Digest {
    bytes: [u8; Self::MAX_LEN],
    length: usize,
}

impl Digest {
    const MAX_LEN: usize = 32;

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Lower-case hexadecimal digits, as Python's `hexdigest`.
    pub(crate) fn to_hex(self) -> String {
        let digits = self.as_bytes().iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        digits.map(hex_digit).collect()
    }
}

pub(super) fn hex_digit(digit: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(digit & 0xf)])
}

/// A digest as url-safe base64 without padding: 27 or 43 characters, kept off the heap.
pub(crate) struct Signature {
    text: [u8; Self::MAX_LEN],
    length: usize,
}

impl Signature {
    const MAX_LEN: usize = 43;

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, SaltedHmac, salted_hmac};

    #[test]
    fn the_hash_is_django_s() {
        // Django 5.2: salted_hmac("salt", "value", "secret", algorithm=...).hexdigest().
        for (algorithm, hex) in [
            (Algorithm::Sha1, "a82be9ba6efe61405ee8d2e8a3781c37e103360a"),
            (Algorithm::Sha256, "debaddcd9ecbaab181289870baf8af49b0af0a7050d620d1a63f1e69bd87ceb8"),
        ] {
            assert_eq!(salted_hmac(algorithm, "salt", b"secret", b"value").to_hex(), hex);
        }
    }

    #[test]
    fn the_length_of_a_signature_is_that_of_its_algorithm() {
        for algorithm in [Algorithm::Sha1, Algorithm::Sha256] {
            let hmac = SaltedHmac::new(algorithm, &["sa", "lt"], b"secret");
            let signature = hmac.signature("value");
            assert!(hmac.verify("value", signature.as_str()));
            assert!(!hmac.verify("value", &format!("{}=", signature.as_str())));
            assert!(!hmac.verify("other", signature.as_str()));
        }
    }
}
