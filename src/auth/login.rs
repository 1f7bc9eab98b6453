//! What logging in and out does to a session: `login`, `logout` and `update_session_auth_hash` of
//! `django.contrib.auth`.

use serde_json::Value;
use subtle::ConstantTimeEq;

use super::Auth;
use super::error::AuthError;
use super::get_user::auth_hash;
use super::primary_key::PrimaryKey;
use super::user::User;
use crate::codec::SessionData;
use crate::session::{BACKEND_KEY, HASH_KEY, Session, USER_ID_KEY};

impl Auth {
    /// Makes a session that of a user, and notes in the user's row that it was now.
    ///
    /// What an anonymous visitor has put into the session stays, under another key; what another user has,
    /// or the same one before the password changed, is gone. In Rust too a login has to change the
    /// CSRF token.
    ///
    /// # Errors
    ///
    /// [`AuthError`]. The session may have been flushed.
    #[doc(alias = "user_logged_in")]
    pub async fn login(&self, session: &Session, user: &User) -> Result<(), AuthError> {
        let hash = match &user.record.password {
            Some(password) => auth_hash(password, &self.settings)?,
            None => String::new(),
        };
        self.forget(session).await;
        let data = session.data().await?;
        if data.contains_key(USER_ID_KEY) {
            let before = self.user_id(&data)?;
            let stored = entry(&data, HASH_KEY);
            let stored = stored.as_str().unwrap_or_default().as_bytes();
            let same_hash = hash.is_empty() || bool::from(stored.ct_eq(hash.as_bytes()));
            // Hashes under fallback keys do not count here.
            if before.as_ref() != Some(user.pk()) || !same_hash {
                session.flush().await?;
            }
        } else {
            session.cycle_key().await?;
        }
        session.insert(USER_ID_KEY, user.pk().as_str()).await?;
        session.insert(BACKEND_KEY, user.backend()).await?;
        session.insert(HASH_KEY, &hash).await?;
        let now = session.now();
        self.users.set_last_login(user.pk(), now).await.map_err(AuthError::Users)
    }

    /// Ends the session, whoever's it is.
    ///
    /// # Errors
    ///
    /// [`AuthError::Session`]; the session is still there then.
    pub async fn logout(&self, session: &Session) -> Result<(), AuthError> {
        self.forget(session).await;
        Ok(session.flush().await?)
    }

    /// Keeps a session logged in whose user has changed the password: it gets another key, and the hash
    /// of the password that `user` has by now. All other sessions of the user end; those that are
    /// [remembered](Auth::with_user_cache) when that is over. The session of somebody else, such as of who
    /// sets the password of another user, gets another key and stays what it is.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn update_session_auth_hash(
        &self,
        session: &Session,
        user: &User,
    ) -> Result<(), AuthError> {
        self.forget(session).await;
        session.cycle_key().await?;
        let data = session.data().await?;
        let is_theirs = self.user_id(&data)?.as_ref() == Some(user.pk());
        if is_theirs && let Some(password) = &user.record.password {
            session.insert(HASH_KEY, &auth_hash(password, &self.settings)?).await?;
        }
        Ok(())
    }

    /// The primary key of the user whose session it says it is.
    fn user_id(&self, data: &SessionData) -> Result<Option<PrimaryKey>, AuthError> {
        Ok(self.settings.user_model.primary_key_type.parse_value(&entry(data, USER_ID_KEY))?)
    }

    /// Forgets whose session it was.
    pub(super) async fn forget(&self, session: &Session) {
        if let Some(cache) = &self.cache
            && let Some(session_key) = session.session_key().await
        {
            cache.forget(&session_key);
        }
    }
}

fn entry(data: &SessionData, name: &str) -> Value {
    data.get(name).ok().flatten().unwrap_or_default()
}
