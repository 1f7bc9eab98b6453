//! The session auth hash: how a login ends when the password changes.
//!
//! `django.contrib.auth.login` puts a hash of the user's password field into the session, and
//! `get_user` compares it at every request: since Django 1.7 with SHA-1, since 3.1 with SHA-256. 3.1
//! and 3.2 accept the older hash and leave it as it is; 4.0 does not. Hashes under fallback keys are
//! accepted since 4.1.8. Proved by `tests/fixtures/vectors/auth_hash`.

use subtle::ConstantTimeEq;

use super::settings::SessionSettings;
use crate::codec::signing::salted_hmac::salted_hmac;
use crate::codec::signing::{Algorithm, KeyMatch, SecretKey};

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
    session_auth_hash_with(Algorithm::Sha256, key, password)
}

/// As [`session_auth_hash`], with another algorithm. Up to 3.0, and in 3.1 and 3.2 with
/// `DEFAULT_HASHING_ALGORITHM = "sha1"`, Django stores that of [`Algorithm::Sha1`]: 40 digits.
pub fn session_auth_hash_with(algorithm: Algorithm, key: &SecretKey, password: &str) -> String {
    salted_hmac(algorithm, SALT, key.as_bytes(), password.as_bytes()).to_hex()
}

/// Tells whether a session was made by a login with the password that the user still has, and how
/// its hash was made. `None` means that it was not: Django flushes such a session.
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
) -> Option<AuthHashMatch> {
    verify_session_auth_hash_with([Algorithm::Sha256], stored, password, settings)
}

/// As [`verify_session_auth_hash`], for a site that stores or accepts hashes of another algorithm.
///
/// The first algorithm is the one that the site's Django stores, the others are accepted: SHA-256
/// and SHA-1 in 3.1 and 3.2, SHA-1 alone before.
///
/// # Example
///
/// ```
/// use django_session::session::{session_auth_hash_with, verify_session_auth_hash_with};
/// use django_session::signing::Algorithm::{Sha1, Sha256};
/// use django_session::{SecretKey, SessionSettings};
///
/// let key = SecretKey::new("secret")?;
/// let stored = session_auth_hash_with(Sha1, &key, "pbkdf2_sha256$…");
/// let settings = SessionSettings::default().with_secret_key(key);
/// let verify = |algorithms: &[_]| {
///     verify_session_auth_hash_with(
///         algorithms.iter().copied(),
///         &stored,
///         "pbkdf2_sha256$…",
///         &settings,
///     )
/// };
/// assert!(verify(&[Sha256]).is_none());
/// assert!(verify(&[Sha256, Sha1]).unwrap().needs_upgrade);
/// assert!(!verify(&[Sha1]).unwrap().needs_upgrade);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify_session_auth_hash_with(
    algorithms: impl IntoIterator<Item = Algorithm>,
    stored: &str,
    password: &str,
    settings: &SessionSettings,
) -> Option<AuthHashMatch> {
    let primary = settings.secret_key.as_ref()?;
    for (place, algorithm) in algorithms.into_iter().enumerate() {
        let keys = std::iter::once(primary).chain(&settings.secret_key_fallbacks);
        for (index, key) in keys.enumerate() {
            let hash = session_auth_hash_with(algorithm, key, password);
            if bool::from(hash.as_bytes().ct_eq(stored.as_bytes())) {
                let needs_upgrade = place > 0 || index > 0;
                return Some(AuthHashMatch { key: KeyMatch::at(index), algorithm, needs_upgrade });
            }
        }
    }
    None
}

/// How the hash in a session was made, as [`verify_session_auth_hash`] found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthHashMatch {
    /// The key that matched.
    pub key: KeyMatch,
    /// The algorithm of the hash.
    pub algorithm: Algorithm,
    /// Whether Django would store another hash for the same login now.
    pub needs_upgrade: bool,
}
