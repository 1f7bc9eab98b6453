//! A value and its signature, without a time stamp.

use std::fmt;

use thiserror::Error;

use super::key::{KeyMatch, SecretKey};
use super::salted_hmac::{Algorithm, SaltedHmac};
use crate::codec::DEFAULT_MAX_SIZE;
use crate::codec::error::DecodeError;

/// Signs and checks text with a salt, without a time stamp (`django.core.signing.Signer`).
///
/// # Example
///
/// ```
/// use django_session::{SecretKey, signing::Signer};
///
/// let signer = Signer::new(&SecretKey::new("secret")?, "greeting");
/// let signed = signer.sign("hello");
/// assert_eq!(signer.unsign(&signed)?.value, "hello");
/// assert!(signer.unsign("hello:forged").unwrap_err().is_bad_signature());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Signer {
    /// For every accepted algorithm and every secret, the state that they lead to, so that signing
    /// starts where the key schedule ends. The one that signs is first.
    keys: Vec<Key>,
    /// The primary key first.
    secrets: Vec<SecretKey>,
    /// The one that signs is first.
    algorithms: Vec<Algorithm>,
    salt: Box<str>,
    separator: Separator,
    pub(super) max_size: usize,
}

#[derive(Clone)]
struct Key {
    hmac: SaltedHmac,
    /// Index of its secret.
    secret: usize,
}

impl Signer {
    /// The salt of `Signer()` in Django, where none is given.
    pub const DEFAULT_SALT: &str = "django.core.signing.Signer";

    /// A signer for one key and one salt, with SHA-256 and the separator `:`.
    pub fn new(key: &SecretKey, salt: impl Into<Box<str>>) -> Self {
        let mut signer = Self {
            keys: Vec::with_capacity(1),
            secrets: vec![key.clone()],
            algorithms: vec![Algorithm::default()],
            salt: salt.into(),
            separator: Separator::Char(':'),
            max_size: DEFAULT_MAX_SIZE,
        };
        signer.derive(Algorithm::default(), 0);
        signer
    }

    /// Adds keys that are accepted, in this order, but never used to sign.
    #[must_use]
    pub fn with_fallbacks<'a>(mut self, keys: impl IntoIterator<Item = &'a SecretKey>) -> Self {
        for key in keys {
            self.secrets.push(key.clone());
            for index in 0..self.algorithms.len() {
                self.derive(self.algorithms[index], self.secrets.len() - 1);
            }
        }
        self
    }

    /// Signs with another algorithm, and accepts no longer what was signed with the one before.
    ///
    /// Django before 3.1 reads and writes [`Algorithm::Sha1`] only.
    #[must_use]
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithms.remove(0);
        self.algorithms.retain(|other| *other != algorithm);
        self.algorithms.insert(0, algorithm);
        self.derive_all();
        self
    }

    /// Signs with another salt, and accepts only that. Keys and options stay.
    #[must_use]
    pub fn with_salt(mut self, salt: impl Into<Box<str>>) -> Self {
        self.salt = salt.into();
        self.derive_all();
        self
    }

    /// Accepts signatures of these algorithms too, but never signs with them.
    ///
    /// Django 3.1 and 3.2 accept [`Algorithm::Sha1`]; whoever can sign with it can then forge
    /// whatever this signer reads.
    #[must_use]
    pub fn accept_algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        for algorithm in algorithms {
            if !self.algorithms.contains(&algorithm) {
                self.algorithms.push(algorithm);
                (0..self.secrets.len()).for_each(|secret| self.derive(algorithm, secret));
            }
        }
        self
    }

    /// Puts another text between a value, its time stamp and its signature.
    ///
    /// # Errors
    ///
    /// [`UnsafeSeparator`] if it could be part of a signature or of a time stamp, by Django's rule.
    pub fn with_separator(mut self, separator: &str) -> Result<Self, UnsafeSeparator> {
        self.separator = Separator::parse(separator)?;
        Ok(self)
    }

    /// Sets the largest payload in bytes that [`Signer::unsign_object`] and
    /// [`Signer::unsign_payload`] inflate, [`DEFAULT_MAX_SIZE`] at first.
    #[must_use]
    pub fn with_max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// The salt given to [`Signer::new`].
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// The algorithm that signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithms[0]
    }

    /// Returns `value:signature`, signed with the primary key.
    pub fn sign(&self, value: &str) -> String {
        let mut signed = String::with_capacity(value.len() + 44);
        signed.push_str(value);
        self.append_signature(&mut signed);
        signed
    }

    /// The signature alone (`Signer.signature`), for values that are kept elsewhere.
    pub fn signature(&self, value: &str) -> String {
        self.keys[0].hmac.signature(value).as_str().to_owned()
    }

    /// Appends `:signature` of what `signed` holds.
    pub(crate) fn append_signature(&self, signed: &mut String) {
        let signature = self.keys[0].hmac.signature(signed);
        self.separator.push(signed);
        signed.push_str(signature.as_str());
    }

    pub(super) fn separator(&self) -> &Separator {
        &self.separator
    }

    /// Checks a signed value; returns the text that was signed, and how.
    ///
    /// Every comparison takes the same time wherever the difference is.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadSignature`] if there is no separator or no key matches.
    pub fn unsign<'a>(&self, signed: &'a str) -> Result<Verified<'a>, DecodeError> {
        let (value, given) = self.separator.split(signed).ok_or(DecodeError::BadSignature)?;
        let matched = self.keys.iter().find(|key| key.hmac.verify(value, given));
        let Key { hmac, secret } = matched.ok_or(DecodeError::BadSignature)?;
        Ok(Verified { value, key: KeyMatch::at(*secret), algorithm: hmac.algorithm() })
    }

    fn derive_all(&mut self) {
        self.keys.clear();
        for algorithm in self.algorithms.clone() {
            (0..self.secrets.len()).for_each(|secret| self.derive(algorithm, secret));
        }
    }

    fn derive(&mut self, algorithm: Algorithm, secret: usize) {
        // The word keeps signatures apart from other hashes under the same salt.
        let salt = [&*self.salt, "signer"];
        let hmac = SaltedHmac::new(algorithm, &salt, self.secrets[secret].as_bytes());
        self.keys.push(Key { hmac, secret });
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("salt", &self.salt)
            .field("algorithms", &self.algorithms)
            .field("fallbacks", &(self.secrets.len() - 1))
            .finish_non_exhaustive()
    }
}

/// What [`Signer::unsign`] found.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified<'a> {
    /// The text that was signed.
    pub value: &'a str,
    /// The key that matched.
    pub key: KeyMatch,
    /// The algorithm of the signature.
    pub algorithm: Algorithm,
}

/// Shows all but the value.
impl fmt::Debug for Verified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("key", &self.key)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// A separator that could be part of a signature or of a time stamp.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a separator must not be empty or consist of only A-z0-9-_=")]
pub struct UnsafeSeparator;

/// What stands before a signature.
#[derive(Clone)]
pub(super) enum Separator {
    /// Splitting at one character needs no search tables.
    Char(char),
    Text(Box<str>),
}

impl Separator {
    /// Django's rule, `^[A-z0-9-_=]*$`: from `A` to `z` there are six more characters than letters,
    /// and Python's `$` also matches before a final newline.
    fn parse(text: &str) -> Result<Self, UnsafeSeparator> {
        let is_unsafe = |byte| matches!(byte, b'A'..=b'z' | b'0'..=b'9' | b'-' | b'=');
        if text.strip_suffix('\n').unwrap_or(text).bytes().all(is_unsafe) {
            return Err(UnsafeSeparator);
        }
        let mut chars = text.chars();
        Ok(match (chars.next(), chars.next()) {
            (Some(char), None) => Self::Char(char),
            _ => Self::Text(text.into()),
        })
    }

    pub(super) fn push(&self, out: &mut String) {
        match self {
            Self::Char(char) => out.push(*char),
            Self::Text(text) => out.push_str(text),
        }
    }

    /// Splits at the last separator.
    pub(super) fn split<'a>(&self, text: &'a str) -> Option<(&'a str, &'a str)> {
        match self {
            Self::Char(char) => text.rsplit_once(*char),
            Self::Text(separator) => text.rsplit_once(&**separator),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Separator;

    #[test]
    fn a_separator_is_refused_where_django_refuses_it() {
        for text in ["", "\n", "A", "z", "[", "\\", "]", "^", "_", "`", "-", "=", "aZ9", "a\n"] {
            assert!(Separator::parse(text).is_err(), "{text:?}");
        }
        for text in [":", ".", "/", "@", "{", " ", "::", "a:", "\n\n", "\na", "é", "\u{2028}"] {
            assert!(Separator::parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn the_last_separator_counts() {
        for (separator, text, parts) in [
            (":", "a:b:c", ("a:b", "c")),
            ("::", "a:::b", ("a:", "b")),
            ("é", "aébéc", ("aéb", "c")),
        ] {
            assert_eq!(Separator::parse(separator).unwrap().split(text), Some(parts));
        }
        assert_eq!(Separator::parse("::").unwrap().split("a:b"), None);
    }
}
