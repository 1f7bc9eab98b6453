//! Session text from before Django 3.1: a hash beside the data, all of it in base64.
//!
//! `base64(hex(HMAC-SHA1(data)) + ":" + data)` since 1.3, under a key whose salt is
//! `django.contrib.sessions` and the bare name of the store's class, without the dot of later salts;
//! `base64(pickle + hex(MD5(pickle + secret)))` before. Up to 1.4 the base64 comes in lines, which Python
//! reads over. Proved by `tests/fixtures/vectors/{legacy,antique,legacy_sha1_transitional}`.

use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::armor;
use super::error::{DecodeError, Part};
use super::signing::salted_hmac::SaltedHmac;
use super::signing::{Algorithm, KeyMatch, SecretKey};

const SEPARATOR: u8 = b':';
/// Hexadecimal digits of an MD5.
const MD5_LENGTH: usize = 32;

/// The salt of a store class, given the salt of its signed form: the last part of the class's name
/// behind Django's prefix. A `key_salt` of the project's own plays no part in the old form, whose class
/// name cannot be told from it; it is taken as if the class were `SessionStore`.
pub(super) fn salt_of(salt: &str) -> String {
    let class = salt.strip_prefix("django.contrib.sessions.").unwrap_or("SessionStore");
    // `backends.signed_cookies` is the salt of that engine, whatever its class.
    let class = if class.starts_with("backends.") { "SessionStore" } else { class };
    format!("django.contrib.sessions{}", class.rsplit('.').next().unwrap_or(class))
}

/// The HMAC of a key under such a salt.
pub(super) fn key(salt: &str, secret: &SecretKey) -> SaltedHmac {
    SaltedHmac::new(Algorithm::Sha1, &[salt], secret.as_bytes())
}

pub(super) fn encode(key: &SaltedHmac, payload: &[u8]) -> String {
    let mut plain = key.digest(payload).to_hex().into_bytes();
    plain.push(SEPARATOR);
    plain.extend_from_slice(payload);
    armor::encode_standard(&plain)
}

/// Undoes [`encode`] with the first key that matches.
pub(super) fn decode(keys: &[SaltedHmac], text: &str) -> Result<(Vec<u8>, KeyMatch), DecodeError> {
    let mut plain = unwrap(text)?;
    let colon =
        plain.iter().position(|&byte| byte == SEPARATOR).ok_or(DecodeError::BadSignature)?;
    let (hash, payload) = (&plain[..colon], &plain[colon + 1..]);
    let matched =
        keys.iter().position(|key| bool::from(key.digest(payload).to_hex().as_bytes().ct_eq(hash)));
    let key = key_match(matched)?;
    plain.drain(..=colon);
    Ok((plain, key))
}

pub(super) fn encode_antique(secret: &SecretKey, payload: &[u8]) -> String {
    let mut plain = payload.to_vec();
    plain.extend_from_slice(&md5_hex(secret, payload));
    armor::encode_standard(&plain)
}

/// Undoes [`encode_antique`] with the first key that matches.
pub(super) fn decode_antique(
    secrets: &[SecretKey],
    text: &str,
) -> Result<(Vec<u8>, KeyMatch), DecodeError> {
    let mut plain = unwrap(text)?;
    let length = plain.len().checked_sub(MD5_LENGTH).ok_or(DecodeError::BadSignature)?;
    let (payload, hash) = plain.split_at(length);
    let matched =
        secrets.iter().position(|secret| bool::from(md5_hex(secret, payload).ct_eq(hash)));
    let key = key_match(matched)?;
    plain.truncate(length);
    Ok((plain, key))
}

fn unwrap(text: &str) -> Result<Vec<u8>, DecodeError> {
    armor::decode_standard(text.as_bytes()).ok_or(DecodeError::Malformed { part: Part::Base64 })
}

fn key_match(position: Option<usize>) -> Result<KeyMatch, DecodeError> {
    match position {
        None => Err(DecodeError::BadSignature),
        Some(0) => Ok(KeyMatch::Primary),
        Some(index) => Ok(KeyMatch::Fallback(index - 1)),
    }
}

fn md5_hex(secret: &SecretKey, payload: &[u8]) -> [u8; MD5_LENGTH] {
    let mut hash = Md5::new();
    hash.update(payload);
    hash.update(secret.as_bytes());
    let digest = Zeroizing::new(<[u8; 16]>::from(hash.finalize()));
    let digits = b"0123456789abcdef";
    std::array::from_fn(|at| {
        let byte = digest[at / 2];
        digits[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 0xf })]
    })
}

#[cfg(test)]
mod tests {
    use super::salt_of;

    #[test]
    fn the_salt_has_the_bare_name_of_the_class() {
        for (salt, legacy) in [
            ("django.contrib.sessions.SessionStore", "django.contrib.sessionsSessionStore"),
            ("django.contrib.sessions.Outer.Mine", "django.contrib.sessionsMine"),
            ("django.contrib.sessions.mk.<locals>.Local", "django.contrib.sessionsLocal"),
            ("a salt of one's own", "django.contrib.sessionsSessionStore"),
            (
                "django.contrib.sessions.backends.signed_cookies",
                "django.contrib.sessionsSessionStore",
            ),
        ] {
            assert_eq!(salt_of(salt), legacy);
        }
    }
}
