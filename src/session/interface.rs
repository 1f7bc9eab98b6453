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
    /// Which state of the stored session this is, or is to replace. Without, a save replaces whatever
    /// is there.
    pub revision: Option<Revision>,
}

/// A state of a stored session: two are equal only if nobody has saved in between, or what was saved
/// is the same.
///
/// What is in it is the store's own affair: the stored value, a number that the server counts. It may
/// hold the session, so nothing shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Revision(Arc<[u8]>);

impl Revision {
    /// A revision that the store tells from others by these bytes.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes it was made of.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text it was made of, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revision(..)")
    }
}

/// What a store says when it has written a session.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Saved {
    /// The state that was written; none if the store cannot tell states apart.
    pub revision: Option<Revision>,
    /// The key under which it is now, where that follows from the data, as in a signed cookie.
    pub session_key: Option<SessionKey>,
}

impl Saved {
    /// Written, as this revision.
    pub fn as_revision(revision: Revision) -> Self {
        Self { revision: Some(revision), ..Self::default() }
    }
}

/// A place where sessions are kept.
///
/// The rules are Django's since 1.10, and `store::testing` (feature `testing`) checks them:
///
/// * `create` never overwrites, not even an expired session.
/// * `save` never brings back a deleted session, and replaces only the revision that it is told.
/// * A failure of the backend is an error, never "no such session".
/// * An expired session is not loaded, but keeps its key taken until it is cleared.
#[async_trait]
pub trait SessionStore: fmt::Debug + Send + Sync + 'static {
    /// Whether the key is taken, by an expired session too.
    ///
    /// # Errors
    ///
    /// [`StoreError::is_outage`].
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError>;

    /// Adds a session. Its revision is of no account.
    ///
    /// # Errors
    ///
    /// [`StoreError::Create`] if the key is taken; nothing is changed then.
    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError>;

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

    /// As [`SessionStore::load`], from where sessions are written: past replicas and caches. The
    /// revision is one that can be replaced; that of `load` need not be, and is a conflict then.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::load`].
    async fn load_latest(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.load(session_key, now).await
    }

    /// Replaces data and expire date of a session that is there, if it still is what the record's
    /// revision says. A record without one replaces whatever is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] if it is another revision by now, or with a revision if it is gone;
    /// [`StoreError::Update`] if it is not there. Nothing is added or changed then.
    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError>;

    /// Moves the expire date of a session that is there, and leaves its data alone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Update`] if it is not there.
    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError>;

    /// Removes a session; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// [`StoreError::is_outage`].
    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError>;

    /// Removes a session if it still is this revision.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] if it is another one by now or gone.
    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError>;

    /// Moves a session to another key, that of the record, and replaces its data and expire date: in one
    /// step, which is wholly done or not at all. It has to be the record's revision, if there is one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] and [`StoreError::Update`] as [`SessionStore::save`], of the session under
    /// the key that is left; [`StoreError::Create`] if the new key is taken. Nothing is changed then.
    /// [`StoreError::Unsupported`] if that takes two steps here: a [`Session`](crate::Session) takes them.
    #[expect(unused_variables, reason = "it is not supported")]
    async fn cycle_key(
        &self,
        session_key: &SessionKey,
        record: &SessionRecord,
    ) -> Result<Saved, StoreError> {
        Err(StoreError::Unsupported { operation: "cycle_key" })
    }

    /// Removes every session whose expire date is before `now` and returns their number.
    ///
    /// # Errors
    ///
    /// [`StoreError::is_outage`], or [`StoreError::Unsupported`] where entries expire by themselves.
    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError>;

    /// Ends the connections, once what is under way is done; whoever uses the store afterwards gets an
    /// error. Without, they end when the last clone is dropped, and the server may take it for a crash.
    async fn close(&self) {}

    /// Whether the key is the session, as in a signed cookie. A [`Session`](crate::Session) then keeps
    /// to the rules of Django's `signed_cookies` engine: each save makes another key, which the client
    /// has to get; so it does in place of one that cannot be read; and deleting is forgetting.
    fn is_in_key(&self) -> bool {
        false
    }
}

/// A shared store is a store.
#[async_trait]
impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        (**self).exists(session_key).await
    }

    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        (**self).create(record).await
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        (**self).load(session_key, now).await
    }

    async fn load_latest(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        (**self).load_latest(session_key, now).await
    }

    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        (**self).save(record).await
    }

    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        (**self).touch(record).await
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        (**self).delete(session_key).await
    }

    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        (**self).delete_revision(session_key, revision).await
    }

    async fn cycle_key(
        &self,
        session_key: &SessionKey,
        record: &SessionRecord,
    ) -> Result<Saved, StoreError> {
        (**self).cycle_key(session_key, record).await
    }

    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        (**self).clear_expired(now).await
    }

    async fn close(&self) {
        (**self).close().await;
    }

    fn is_in_key(&self) -> bool {
        (**self).is_in_key()
    }
}
