//! The session auth hash: how a login ends when the password changes.
//!
//! `django.contrib.auth.login` puts a hash of the user's password field into the session, and
//! `get_user` compares it at every request (Django 1.7; SHA-256 since 3.1). Proved by
//! `tests/fixtures/vectors/auth_hash`.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::settings::SessionSettings;
use crate::codec::{KeyMatch, SecretKey};

/// The entry with the user's primary key as text.
pub const USER_ID_KEY: &str = "_auth_user_id";

/// The entry with the dotted path of the backend that let the user in.
pub const BACKEND_KEY: &str = "_auth_user_backend";

/// The entry with the hash that [`verify_session_auth_hash`] checks.
pub const HASH_KEY: &str = "_auth_user_hash";

/// No separator and no `signer` behind it, unlike the salts of the signed texts.
const SALT: &str = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash";

/// What Django stores at login for a user with this password field (`auth_user.password`, which is
/// itself a hash): 64 hexadecimal digits.
///
/// # Example
///
/// ```
/// use django_session::{SecretKey, session::session_auth_hash};
///
/// let key = SecretKey::new("correct horse battery staple")?;
/// assert_eq!(
///     session_auth_hash(&key, "pbkdf2_sha256$1$x$y"),
///     "1ac81677f15a2b3f9b352ea8bc9dbe02110d2805919aa217df55b4ddabdad772",
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "get_session_auth_hash")]
pub fn session_auth_hash(key: &SecretKey, password: &str) -> String {
    let key = Sha256::new().chain_update(SALT).chain_update(key.as_bytes()).finalize();
    #[expect(clippy::missing_panics_doc, reason = "HMAC takes keys of any length")]
    let hmac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key).expect("any length is a key");
    let hash = hmac.chain_update(password).finalize().into_bytes();
    let digits = hash.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

/// Tells whether a session was made by a login with the password that the user still has, and by
/// which key. `None` means that it was not: Django flushes such a session.
///
/// `stored` is the session's [`HASH_KEY`], `password` the user's password field as the table has it
/// now. The keys are those of the settings, compared in constant time. A match with a fallback key
/// is a login too; Django then cycles the key of the session and stores the hash anew.
///
/// # Example
///
/// ```
/// use django_session::session::{session_auth_hash, verify_session_auth_hash};
/// use django_session::{SecretKey, SessionSettings};
///
/// let key = SecretKey::new("secret")?;
/// let stored = session_auth_hash(&key, "pbkdf2_sha256$…old");
/// let settings = SessionSettings::default().with_secret_key(key);
/// assert!(verify_session_auth_hash(&stored, "pbkdf2_sha256$…old", &settings).is_some());
/// assert!(verify_session_auth_hash(&stored, "pbkdf2_sha256$…new", &settings).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify_session_auth_hash(
    stored: &str,
    password: &str,
    settings: &SessionSettings,
) -> Option<KeyMatch> {
    let matches =
        |key| bool::from(session_auth_hash(key, password).as_bytes().ct_eq(stored.as_bytes()));
    if matches(settings.secret_key.as_ref()?) {
        return Some(KeyMatch::Primary);
    }
    settings.secret_key_fallbacks.iter().position(matches).map(KeyMatch::Fallback)
}
