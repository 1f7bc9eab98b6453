//! What a backend must do: the trait [`SessionStore`].
//!
//! It is the part of Django's `SessionBase` that touches storage. Everything else, the lazy loading
//! and the flags included, is [`Session`](crate::Session), the same for every store.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::datetime::DateTime;
use super::error::StoreError;
use super::key::SessionKey;
use crate::codec::SessionData;

/// A session as a store keeps it: the columns of `django_session`, decoded.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// The key; unique in a store.
    pub session_key: SessionKey,
    /// The decoded session. Shared, so that keeping a copy of what was loaded costs nothing.
    pub data: Arc<SessionData>,
    /// From when on the session does not exist any more.
    pub expire_date: DateTime,
}

/// A place where sessions are kept.
///
/// The rules are Django's since 1.10, and `store::testing` (feature `testing`) checks them:
///
/// * `create` never overwrites, not even an expired session.
/// * `save` never brings back a deleted session.
/// * A failure of the backend is an error, never "no such session".
/// * An expired session is not loaded, but keeps its key taken until it is cleared.
#[async_trait]
pub trait SessionStore: fmt::Debug + Send + Sync + 'static {
    /// Whether the key is taken, by an expired session too.
    ///
    /// # Errors
    ///
    /// [`StoreError::Backend`].
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError>;

    /// Adds a session.
    ///
    /// # Errors
    ///
    /// [`StoreError::Create`] if the key is taken; nothing is changed then.
    async fn create(&self, record: &SessionRecord) -> Result<(), StoreError>;

    /// Returns the session that expires after `now`, if there is one with this key.
    ///
    /// # Errors
    ///
    /// [`StoreError::Decode`] if it is there but cannot be read.
    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError>;

    /// Replaces data and expire date of a session that is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Update`] if it is not there; nothing is added then.
    async fn save(&self, record: &SessionRecord) -> Result<(), StoreError>;

    /// Removes a session; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// [`StoreError::Backend`].
    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError>;

    /// Removes every session whose expire date is before `now` and returns their number.
    ///
    /// # Errors
    ///
    /// [`StoreError::Backend`], or [`StoreError::Unsupported`] where entries expire by themselves.
    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError>;
}

/// A shared store is a store.
#[async_trait]
impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        (**self).exists(session_key).await
    }

    async fn create(&self, record: &SessionRecord) -> Result<(), StoreError> {
        (**self).create(record).await
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        (**self).load(session_key, now).await
    }

    async fn save(&self, record: &SessionRecord) -> Result<(), StoreError> {
        (**self).save(record).await
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        (**self).delete(session_key).await
    }

    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        (**self).clear_expired(now).await
    }
}
