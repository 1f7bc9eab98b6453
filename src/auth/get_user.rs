//! From a session to its user: `django.contrib.auth.get_user`, in its order.
//!
//! What a session claims, and whether its hash is right, are pure decisions; around them are the
//! lookup of the user and what becomes of the session.

use serde_json::Value;

use super::Auth;
use super::error::AuthError;
use super::interface::UserRecord;
use super::primary_key::PrimaryKey;
use super::settings::{AuthBackend, AuthBackendKind, AuthSettings};
use super::user::User;
use crate::codec::SessionData;
use crate::codec::signing::KeyMatch;
use crate::session::{
    BACKEND_KEY, HASH_KEY, Session, SessionSettings, USER_ID_KEY, session_auth_hash_with,
    verify_session_auth_hash_with,
};

/// Who the user of a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authentication {
    /// Nobody has logged in.
    Anonymous,
    /// Somebody has logged in, and it does not count any more. To Django that is an anonymous user too.
    Refused(Refusal),
    /// A user whom Django would let in.
    User(User),
}

impl Authentication {
    /// The user, or nobody: what `request.user.is_authenticated` tells apart.
    pub fn user(&self) -> Option<&User> {
        match self {
            Self::User(user) => Some(user),
            Self::Anonymous | Self::Refused(_) => None,
        }
    }
}

/// Why a login does not count any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The backend of the login is not in `AUTHENTICATION_BACKENDS` any more. The session stays.
    Backend,
    /// The user is not active. The session stays.
    Inactive,
    /// The user is gone. The session stays.
    NoSuchUser,
    /// The password has changed since, or the secret key. The session was flushed.
    SessionAuthHash,
}

/// What a session says of its user.
#[derive(Debug, PartialEq, Eq)]
enum Claim<'a> {
    Anonymous,
    BackendNotListed,
    User { pk: Option<PrimaryKey>, backend: &'a AuthBackend, hash: String },
}

/// Reads what a session says of its user.
fn claim<'a>(data: &SessionData, settings: &'a AuthSettings) -> Result<Claim<'a>, AuthError> {
    // Entries of a type that nothing is made of here, as in a pickle, are none that Django wrote.
    let entry = |name| data.get::<Value>(name).ok().flatten();
    if !data.contains_key(USER_ID_KEY) {
        return Ok(Claim::Anonymous);
    }
    let value = entry(USER_ID_KEY).unwrap_or(Value::Bool(false));
    // Before anything else, as Django: it fails even if the backend is not listed.
    let pk = settings.user_model.primary_key_type.parse_value(&value)?;
    if !data.contains_key(BACKEND_KEY) {
        return Ok(Claim::Anonymous);
    }
    let path = entry(BACKEND_KEY);
    let Some(backend) = path.as_ref().and_then(Value::as_str).and_then(|it| settings.backend(it))
    else {
        return Ok(Claim::BackendNotListed);
    };
    let hash = match entry(HASH_KEY) {
        Some(Value::String(hash)) => hash,
        _ => String::new(),
    };
    Ok(Claim::User { pk, backend, hash })
}

/// What becomes of a session whose user is there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Flush,
    Keep,
    /// It gets another key, and this hash.
    Upgrade(String),
}

/// Compares the hash in a session with that of the user's password.
fn verify(
    hash: &str,
    user: &UserRecord,
    settings: &AuthSettings,
    keys: &SessionSettings,
) -> Result<Verdict, AuthError> {
    let Some(password) = &user.password else { return Ok(Verdict::Keep) };
    let algorithms = || settings.hash_algorithms.iter().copied();
    let found = verify_session_auth_hash_with(algorithms(), hash, password, keys);
    match found.map(|found| found.key) {
        Some(KeyMatch::Primary) => Ok(Verdict::Keep),
        Some(KeyMatch::Fallback(_)) if settings.accept_fallback_hashes => {
            Ok(Verdict::Upgrade(auth_hash(password, settings)?))
        }
        _ => Ok(Verdict::Flush),
    }
}

/// The hash that a login with this password leaves in the session.
pub(super) fn auth_hash(password: &str, settings: &AuthSettings) -> Result<String, AuthError> {
    let key = settings.session.secret_key.as_ref();
    let key = key.ok_or(crate::session::SettingsError::MissingSecretKey)?;
    let algorithm = settings.hash_algorithms.first().copied().unwrap_or_default();
    Ok(session_auth_hash_with(algorithm, key, password))
}

/// A session's user, and what has to become of the session.
pub(crate) struct Examined {
    pub(crate) authentication: Authentication,
    verdict: Verdict,
}

impl Examined {
    fn unchanged(authentication: Authentication) -> Self {
        Self { authentication, verdict: Verdict::Keep }
    }
}

impl Auth {
    /// Returns the user of a session as `django.contrib.auth.get_user` does: the backend is listed, the
    /// row is there, the backend lets the user in, and the password is that of the login.
    ///
    /// A session whose hash is wrong is flushed; one whose hash was made under a fallback key gets
    /// another key and the hash of today. Two round trips at most, the session's own included; none for
    /// a session that is not loaded and whose user is in the [cache](Auth::with_user_cache).
    ///
    /// # Errors
    ///
    /// [`AuthError`]; whoever it is remains unknown then.
    pub async fn get_user(&self, session: &Session) -> Result<Authentication, AuthError> {
        let Some(cache) = &self.cache else {
            let examined = self.examine(session).await?;
            return self.apply(session, examined).await;
        };
        let before = session.unloaded_key().await;
        if let Some(user) = before.as_ref().and_then(|key| cache.user(key)) {
            session.set_accessed().await;
            return Ok(Authentication::User(user));
        }
        let examined = self.examine(session).await?;
        if let (Some(key), Authentication::User(user), Verdict::Keep) =
            (before, &examined.authentication, &examined.verdict)
        {
            cache.insert_user(&key, user.clone());
        }
        if let Authentication::Refused(_) = &examined.authentication {
            // Somebody may have come in by the same session a moment ago.
            self.forget(session).await;
        }
        self.apply(session, examined).await
    }

    /// Returns the user of a session by what store and users say now, whatever was loaded before or is
    /// in the cache. Neither this session nor the stored one is changed.
    ///
    /// It is for connections that outlive a request, such as WebSockets, where no cookie can be sent
    /// any more that names another session.
    ///
    /// # Errors
    ///
    /// [`AuthError`]. In an outage nothing is known; ask again later.
    pub async fn revalidate(&self, session: &Session) -> Result<Authentication, AuthError> {
        Ok(self.examine(&session.reopen().await).await?.authentication)
    }

    /// As [`Auth::get_user`], where the browser cannot be told of another key.
    #[cfg(feature = "tower")]
    pub(crate) async fn get_user_keeping_key(
        &self,
        session: &Session,
    ) -> Result<Authentication, AuthError> {
        let mut examined = self.examine(session).await?;
        if let Verdict::Upgrade(_) = examined.verdict {
            examined.verdict = Verdict::Keep;
        }
        self.apply(session, examined).await
    }

    /// Looks, and changes nothing.
    pub(crate) async fn examine(&self, session: &Session) -> Result<Examined, AuthError> {
        let refused = |refusal| Ok(Examined::unchanged(Authentication::Refused(refusal)));
        let data = session.data().await?;
        let (pk, backend, hash) = match claim(&data, &self.settings)? {
            Claim::Anonymous => return Ok(Examined::unchanged(Authentication::Anonymous)),
            Claim::BackendNotListed => return refused(Refusal::Backend),
            Claim::User { pk, backend, hash } => (pk, backend, hash),
        };
        if backend.kind == AuthBackendKind::Unknown {
            return Err(AuthError::UnknownBackend);
        }
        let record = match pk {
            Some(pk) => self.users.get(&pk).await.map_err(AuthError::Users)?,
            None => None,
        };
        let Some(record) = record else { return refused(Refusal::NoSuchUser) };
        if !record.is_active && !backend.kind.allows_all_users() {
            return refused(Refusal::Inactive);
        }
        let verdict = verify(&hash, &record, &self.settings, &self.settings.session)?;
        let authentication = match verdict {
            Verdict::Flush => Authentication::Refused(Refusal::SessionAuthHash),
            Verdict::Keep | Verdict::Upgrade(_) => {
                Authentication::User(User { record: record.into(), backend: backend.path.clone() })
            }
        };
        Ok(Examined { authentication, verdict })
    }

    async fn apply(
        &self,
        session: &Session,
        examined: Examined,
    ) -> Result<Authentication, AuthError> {
        match examined.verdict {
            Verdict::Keep => {}
            Verdict::Flush => session.flush().await?,
            Verdict::Upgrade(hash) => {
                // Of two requests at the same time the other one has done it, or the user has just left.
                if session.cycle_key_if_there().await? {
                    session.insert(HASH_KEY, &hash).await?;
                }
            }
        }
        Ok(examined.authentication)
    }
}
