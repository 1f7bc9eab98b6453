use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::codec::error::{DecodeError, EmptySecretKey, Part};

const SEPARATOR: char = ':';
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A `SECRET_KEY`, or one of `SECRET_KEY_FALLBACKS`.
///
/// It is never empty, never printed and wiped from memory when dropped.
///
/// # Example
///
/// ```
/// use django_session::SecretKey;
///
/// let key = SecretKey::new("correct horse battery staple")?;
/// assert_eq!(format!("{key:?}"), "SecretKey(..)");
/// assert!(SecretKey::new("").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SecretKey(Zeroizing<Box<[u8]>>);

impl SecretKey {
    /// Takes the key as Django has it: the UTF-8 of a text, or the bytes of a bytes setting.
    ///
    /// # Errors
    ///
    /// [`EmptySecretKey`] if there is nothing in it: anybody could sign with that.
    pub fn new(key: impl AsRef<[u8]>) -> Result<Self, EmptySecretKey> {
        let key = key.as_ref();
        if key.is_empty() {
            return Err(EmptySecretKey);
        }
        Ok(Self(Zeroizing::new(key.into())))
    }

    /// The bytes of the key, for code that derives something else from it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// Which key a signature was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyMatch {
    /// The primary key, `SECRET_KEY`.
    Primary,
    /// The fallback key with this index in `SECRET_KEY_FALLBACKS`.
    Fallback(usize),
}

/// Signs and checks text with a salt, without a time stamp (`django.core.signing.Signer`).
///
/// # Example
///
/// ```
/// use django_session::{SecretKey, codec::Signer};
///
/// let signer = Signer::new(&SecretKey::new("secret")?, "greeting");
/// let signed = signer.sign("hello");
/// assert_eq!(signer.unsign(&signed)?.0, "hello");
/// assert!(signer.unsign("hello:forged").unwrap_err().is_bad_signature());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Signer {
    /// The primary key first. A key is kept as the HMAC state it leads to, so that signing starts
    /// where the key schedule ends.
    keys: Vec<Hmac<Sha256>>,
    salt: Box<str>,
}

impl Signer {
    /// A signer for one key and one salt.
    pub fn new(key: &SecretKey, salt: impl Into<Box<str>>) -> Self {
        let salt = salt.into();
        Self { keys: vec![derive(&salt, key)], salt }
    }

    /// Adds keys that are accepted, in this order, but never used to sign.
    #[must_use]
    pub fn with_fallbacks<'a>(mut self, keys: impl IntoIterator<Item = &'a SecretKey>) -> Self {
        self.keys.extend(keys.into_iter().map(|key| derive(&self.salt, key)));
        self
    }

    /// The salt given to [`Signer::new`].
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// Returns `value:signature`, signed with the primary key.
    pub fn sign(&self, value: &str) -> String {
        let mut signed = String::with_capacity(value.len() + 44);
        signed.push_str(value);
        self.append_signature(&mut signed);
        signed
    }

    /// Appends `:signature` of what `signed` holds.
    pub(crate) fn append_signature(&self, signed: &mut String) {
        let signature = signature(&self.keys[0], signed);
        signed.push(SEPARATOR);
        signed.push_str(signature.as_str());
    }

    /// Checks a signed value; returns the text that was signed and the key that matched.
    ///
    /// Every comparison takes the same time wherever the difference is.
    ///
    /// # Errors
    ///
    /// [`DecodeError::BadSignature`] if there is no separator or no key matches.
    pub fn unsign<'a>(&self, signed: &'a str) -> Result<(&'a str, KeyMatch), DecodeError> {
        let (value, given) = signed.rsplit_once(SEPARATOR).ok_or(DecodeError::BadSignature)?;
        let matched = self.keys.iter().position(|key| {
            bool::from(signature(key, value).as_str().as_bytes().ct_eq(given.as_bytes()))
        });
        match matched {
            Some(0) => Ok((value, KeyMatch::Primary)),
            Some(index) => Ok((value, KeyMatch::Fallback(index - 1))),
            None => Err(DecodeError::BadSignature),
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fallbacks = self.keys.len() - 1;
        f.debug_struct("Signer").field("salt", &self.salt).field("fallbacks", &fallbacks).finish()
    }
}

/// The age up to which a signed value is accepted, and the time it is measured at.
#[derive(Clone, Copy, Debug)]
pub struct MaxAge {
    /// The age still accepted.
    pub max_age: SignedDuration,
    /// The present; its fraction of a second counts.
    pub now: Timestamp,
}

/// What [`TimestampSigner::unsign`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsigned<'a> {
    /// The text that was signed, without its time stamp.
    pub value: &'a str,
    /// The key that matched.
    pub key: KeyMatch,
    /// Unix seconds at which it was signed; beyond `i64` it is the nearest `i64`.
    pub signed_at: i64,
}

/// Signs text together with the time (`django.core.signing.TimestampSigner`).
///
/// # Example
///
/// Django 5.2 made this value with key `"secret"` and salt `"greeting"`, at 1,700,000,000 seconds:
///
/// ```
/// use django_session::{SecretKey, codec::TimestampSigner};
///
/// let signer = TimestampSigner::new(&SecretKey::new("secret")?, "greeting");
/// let signed = "hello:1r31eq:teV89CPRJD7FXAjxX_d6mlLTzEMsJyzL4bvOfEDy9iQ";
/// assert_eq!(signer.unsign(signed, None)?.value, "hello");
/// assert_eq!(signer.sign("hello", 1_700_000_000), signed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TimestampSigner(Signer);

impl TimestampSigner {
    /// A signer for one key and one salt.
    pub fn new(key: &SecretKey, salt: impl Into<Box<str>>) -> Self {
        Self(Signer::new(key, salt))
    }

    /// Adds keys that are accepted, in this order, but never used to sign.
    #[must_use]
    pub fn with_fallbacks<'a>(self, keys: impl IntoIterator<Item = &'a SecretKey>) -> Self {
        Self(self.0.with_fallbacks(keys))
    }

    /// The salt given to [`TimestampSigner::new`].
    pub fn salt(&self) -> &str {
        self.0.salt()
    }

    /// Returns `value:timestamp:signature`; `now` in Unix seconds.
    pub fn sign(&self, value: &str, now: i64) -> String {
        let mut signed = String::with_capacity(value.len() + 56);
        signed.push_str(value);
        self.finish(&mut signed, now);
        signed
    }

    /// Appends `:timestamp:signature` to a value that is in `signed` already.
    pub(crate) fn finish(&self, signed: &mut String, now: i64) {
        signed.push(SEPARATOR);
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
        let (stamped, key) = self.0.unsign(signed)?;
        let (value, stamp) = stamped.rsplit_once(SEPARATOR).ok_or(MALFORMED)?;
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
        Ok(Unsigned { value, key, signed_at })
    }
}

fn derive(salt: &str, key: &SecretKey) -> Hmac<Sha256> {
    let digest = Zeroizing::new(<[u8; 32]>::from(
        Sha256::new()
            .chain_update(salt.as_bytes())
            .chain_update(b"signer")
            .chain_update(key.as_bytes())
            .finalize(),
    ));
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    <Hmac<Sha256> as KeyInit>::new_from_slice(digest.as_slice()).expect("any length is a key")
}

/// 32 bytes as url-safe base64 without padding: always 43 characters, kept off the heap.
struct SignatureText([u8; 43]);

impl SignatureText {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

fn signature(key: &Hmac<Sha256>, value: &str) -> SignatureText {
    let digest: [u8; 32] =
        key.clone().chain_update(value.as_bytes()).finalize().into_bytes().into();
    let mut text = [0; 43];
    let out = base64_simd::Out::from_slice(&mut text);
    let _ = base64_simd::URL_SAFE_NO_PAD.encode(&digest, out);
    SignatureText(text)
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
