//! A value, the time and the signature of both.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::key::{KeyMatch, SecretKey};
use super::salted_hmac::Algorithm;
use super::signer::{Signer, UnsafeSeparator, Verified};
use crate::codec::error::{DecodeError, Part};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The age up to which a signed value is accepted, and the time it is measured at.
#[derive(Clone, Copy, Debug)]
pub struct MaxAge {
    /// The age still accepted.
    pub max_age: SignedDuration,
    /// The present; its fraction of a second counts.
    pub now: Timestamp,
}

/// What [`TimestampSigner::unsign`] found.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsigned<'a> {
    /// The text that was signed, without its time stamp.
    pub value: &'a str,
    /// The key that matched.
    pub key: KeyMatch,
    /// The algorithm of the signature.
    pub algorithm: Algorithm,
    /// Unix seconds at which it was signed; beyond `i64` it is the nearest `i64`.
    pub signed_at: i64,
}

/// Shows all but the value.
impl fmt::Debug for Unsigned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsigned")
            .field("key", &self.key)
            .field("algorithm", &self.algorithm)
            .field("signed_at", &self.signed_at)
            .finish_non_exhaustive()
    }
}

/// Signs text together with the time (`django.core.signing.TimestampSigner`).
///
/// # Example
///
/// Django 5.2 made this value with key `"secret"` and salt `"greeting"`, at 1,700,000,000 seconds:
///
/// ```
/// use django_session::{SecretKey, signing::TimestampSigner};
///
/// let signer = TimestampSigner::new(&SecretKey::new("secret")?, "greeting");
/// let signed = "hello:1r31eq:teV89CPRJD7FXAjxX_d6mlLTzEMsJyzL4bvOfEDy9iQ";
/// assert_eq!(signer.unsign(signed, None)?.value, "hello");
/// assert_eq!(signer.sign("hello", 1_700_000_000), signed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TimestampSigner(pub(super) Signer);

impl TimestampSigner {
    /// The salt of `TimestampSigner()` in Django, where none is given.
    pub const DEFAULT_SALT: &str = "django.core.signing.TimestampSigner";

    /// A signer for one key and one salt.
    pub fn new(key: &SecretKey, salt: impl Into<Box<str>>) -> Self {
        Self(Signer::new(key, salt))
    }

    /// Adds keys that are accepted, in this order, but never used to sign.
    #[must_use]
    pub fn with_fallbacks<'a>(self, keys: impl IntoIterator<Item = &'a SecretKey>) -> Self {
        Self(self.0.with_fallbacks(keys))
    }

    /// Signs with another algorithm; see [`Signer::with_algorithm`].
    #[must_use]
    pub fn with_algorithm(self, algorithm: Algorithm) -> Self {
        Self(self.0.with_algorithm(algorithm))
    }

    /// Accepts signatures of these algorithms too; see [`Signer::accept_algorithms`].
    #[must_use]
    pub fn accept_algorithms(self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        Self(self.0.accept_algorithms(algorithms))
    }

    /// Signs with another salt, and accepts only that; see [`Signer::with_salt`].
    #[must_use]
    pub fn with_salt(self, salt: impl Into<Box<str>>) -> Self {
        Self(self.0.with_salt(salt))
    }

    /// Puts another text between a value, its time stamp and its signature.
    ///
    /// # Errors
    ///
    /// [`UnsafeSeparator`] if it could be part of a signature or of a time stamp, by Django's rule.
    pub fn with_separator(self, separator: &str) -> Result<Self, UnsafeSeparator> {
        self.0.with_separator(separator).map(Self)
    }

    /// Sets the largest payload in bytes that is inflated; see [`Signer::with_max_size`].
    #[must_use]
    pub fn with_max_size(self, max_size: usize) -> Self {
        Self(self.0.with_max_size(max_size))
    }

    /// The salt given to [`TimestampSigner::new`].
    pub fn salt(&self) -> &str {
        self.0.salt()
    }

    /// The algorithm that signs.
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }

    /// The same without the stamp.
    #[cfg(feature = "python")]
    pub(crate) fn signer(&self) -> &Signer {
        &self.0
    }

    /// Returns `value:timestamp:signature`; `now` in Unix seconds.
    pub fn sign(&self, value: &str, now: i64) -> String {
        let mut signed = String::with_capacity(value.len() + 56);
        signed.push_str(value);
        self.finish(&mut signed, now);
        signed
    }

    /// Appends `:signature` to a value and its time stamp.
    #[cfg(feature = "cli")]
    pub(crate) fn append_signature(&self, stamped: &mut String) {
        self.0.append_signature(stamped);
    }

    /// Appends `:timestamp:signature` to a value that is in `signed` already.
    pub(crate) fn finish(&self, signed: &mut String, now: i64) {
        self.0.separator().push(signed);
        push_base62(signed, now);
        self.0.append_signature(signed);
    }

    /// Checks a signed value and returns the text that was signed.
    ///
    /// The primary key is tried first, then each fallback key in order, comparing in constant time.
    /// The stamp is read only after a signature has matched.
    ///
    /// # Errors
    ///
    /// * [`DecodeError::BadSignature`] if the separator is missing or no key matches.
    /// * [`DecodeError::Malformed`] if there is no time stamp or it is not base62.
    /// * [`DecodeError::SignatureExpired`] if a limit is given and the value is older at its `now`.
    pub fn unsign<'a>(
        &self,
        signed: &'a str,
        limit: Option<MaxAge>,
    ) -> Result<Unsigned<'a>, DecodeError> {
        const MALFORMED: DecodeError = DecodeError::Malformed { part: Part::Timestamp };
        let Verified { value: stamped, key, algorithm } = self.0.unsign(signed)?;
        let (value, stamp) = self.0.separator().split(stamped).ok_or(MALFORMED)?;
        let signed_at = parse_base62(stamp).ok_or(MALFORMED)?;
        if let Some(MaxAge { max_age, now }) = limit {
            let age = now.as_duration().saturating_sub(SignedDuration::from_secs(signed_at));
            if age > max_age {
                return Err(DecodeError::SignatureExpired {
                    age: age.as_secs(),
                    max_age: max_age.as_secs(),
                });
            }
        }
        Ok(Unsigned { value, key, algorithm, signed_at })
    }
}

fn push_base62(out: &mut String, number: i64) {
    let mut digits = [0; 11];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = ALPHABET[(rest % 62) as usize];
        rest /= 62;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push('-');
    }
    out.extend(digits[at..].iter().map(|&digit| char::from(digit)));
}

/// Reads base62 as `django.core.signing.b62_decode` does: a lone `-` is 0, any length goes. Numbers
/// beyond `i64` come back as the nearest `i64`, since only their order ever matters.
fn parse_base62(text: &str) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    digits.bytes().try_fold(0_i64, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return None,
        };
        Some(number.saturating_mul(62).saturating_add(sign * i64::from(digit)))
    })
}

#[cfg(test)]
mod tests {
    use super::{parse_base62, push_base62};

    #[test]
    fn base62_is_django_s() {
        for (number, text) in
            [(0, "0"), (61, "z"), (62, "10"), (1_700_000_000, "1r31eq"), (-1, "-1")]
        {
            let mut out = String::new();
            push_base62(&mut out, number);
            assert_eq!(out, text);
            assert_eq!(parse_base62(text), Some(number));
        }
        for number in [i64::MAX, i64::MIN] {
            let mut out = String::new();
            push_base62(&mut out, number);
            assert_eq!(parse_base62(&out), Some(number));
        }
        assert_eq!(parse_base62("-"), Some(0));
        assert_eq!(parse_base62("0001"), Some(1));
        assert_eq!(parse_base62(&"z".repeat(100)), Some(i64::MAX));
        for bad in ["", "+1", " 1", "1_", "--1", "é"] {
            assert_eq!(parse_base62(bad), None, "{bad}");
        }
    }
}
