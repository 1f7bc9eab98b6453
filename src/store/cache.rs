//! Sessions in a cache, as `django.contrib.sessions.backends.cache` keeps them.
//!
//! The cache is the only store: what it drops is gone. Nothing is signed, so whoever can write to the
//! cache can write sessions. [`CacheStore`] has the rules, and a [`Cache`] is the way to a server.
//! Different from Django: a failure of the cache is an error, where Django answers with an empty session
//! and takes the cookie away, and a save looks and writes in one step.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::codec::cache::{CacheCodec, CacheKeys};
use crate::session::{
    DateTime, ExpiryError, Revision, Saved, SessionKey, SessionRecord, SessionSettings,
    SessionStore, StoreError,
};

/// A value in a cache.
#[derive(Clone)]
#[non_exhaustive]
pub struct CacheEntry {
    /// The bytes.
    pub value: Vec<u8>,
    /// What memcached keeps beside them.
    pub flags: Option<u32>,
    /// How long the entry lives from now on; `None` for ever.
    pub timeout: Option<SignedDuration>,
    /// Which state of the entry it is.
    pub revision: Revision,
}

impl CacheEntry {
    /// An entry of these bytes, which are what tells it from others, and which lives for ever.
    pub fn new(value: Vec<u8>) -> Self {
        let revision = Revision::new(&*value);
        Self { value, flags: None, timeout: None, revision }
    }
}

impl fmt::Debug for CacheEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheEntry").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What came of a write that depends on what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a fourth outcome would have to be handled everywhere")]
pub enum Written {
    /// It is written, and this is its state.
    Done(Revision),
    /// There is an entry, and it is not the one that was expected.
    Changed,
    /// There is no entry.
    Missing,
}

/// A server of one of Django's cache backends, or of django-redis.
///
/// Keys are what reaches the server ([`CacheKeys::server_key`]), values what it keeps
/// ([`CacheCodec`]). Each operation is one round trip. A key that the server cannot have is one that is
/// not there. Timeouts are positive.
#[async_trait]
pub trait Cache: fmt::Debug + Send + Sync + 'static {
    /// The entry under a key.
    ///
    /// # Errors
    ///
    /// [`StoreError::is_outage`], here and below.
    async fn get(&self, key: &str) -> Result<Option<CacheEntry>, StoreError>;

    /// Whether there is an entry.
    async fn has_key(&self, key: &str) -> Result<bool, StoreError>;

    /// Adds an entry where there is none; [`Written::Changed`] if there is one.
    async fn add(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
    ) -> Result<Written, StoreError>;

    /// Replaces an entry: any, or the one of this revision.
    async fn replace(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
        revision: Option<&Revision>,
    ) -> Result<Written, StoreError>;

    /// Moves the end of an entry, and tells whether there is one.
    async fn touch(&self, key: &str, timeout: SignedDuration) -> Result<bool, StoreError>;

    /// Removes an entry: any, or the one of this revision. Of [`Written::Done`] the revision is of no
    /// account.
    async fn delete(&self, key: &str, revision: Option<&Revision>) -> Result<Written, StoreError>;

    /// Removes an entry, any or the one of this revision, and adds one under another key where there is
    /// none: in one step, which is wholly done or not at all.
    ///
    /// # Errors
    ///
    /// [`StoreError::Create`] if there is an entry under the new key, [`StoreError::Unsupported`] if that
    /// takes two steps here, as it does at first.
    #[expect(unused_variables, reason = "it is not supported")]
    async fn cycle_key(
        &self,
        key: &str,
        new_key: &str,
        value: &[u8],
        timeout: SignedDuration,
        revision: Option<&Revision>,
    ) -> Result<Written, StoreError> {
        Err(StoreError::Unsupported { operation: "cycle_key" })
    }

    /// Ends the connections, as [`SessionStore::close`].
    async fn close(&self) {}
}

/// A shared cache is a cache.
#[async_trait]
impl<C: Cache + ?Sized> Cache for Arc<C> {
    async fn get(&self, key: &str) -> Result<Option<CacheEntry>, StoreError> {
        (**self).get(key).await
    }

    async fn has_key(&self, key: &str) -> Result<bool, StoreError> {
        (**self).has_key(key).await
    }

    async fn add(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
    ) -> Result<Written, StoreError> {
        (**self).add(key, value, timeout).await
    }

    async fn replace(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
        revision: Option<&Revision>,
    ) -> Result<Written, StoreError> {
        (**self).replace(key, value, timeout, revision).await
    }

    async fn touch(&self, key: &str, timeout: SignedDuration) -> Result<bool, StoreError> {
        (**self).touch(key, timeout).await
    }

    async fn delete(&self, key: &str, revision: Option<&Revision>) -> Result<Written, StoreError> {
        (**self).delete(key, revision).await
    }

    async fn cycle_key(
        &self,
        key: &str,
        new_key: &str,
        value: &[u8],
        timeout: SignedDuration,
        revision: Option<&Revision>,
    ) -> Result<Written, StoreError> {
        (**self).cycle_key(key, new_key, value, timeout, revision).await
    }

    async fn close(&self) {
        (**self).close().await;
    }
}

/// Sessions in a cache that Django shares.
///
/// Clones share the connections.
#[derive(Clone, Debug)]
pub struct CacheStore {
    cache: Arc<dyn Cache>,
    keys: CacheKeys,
    codec: CacheCodec,
    use_tz: bool,
    time_zone: TimeZone,
}

impl CacheStore {
    /// A store on a cache, whose values are what `codec` writes.
    pub fn new(cache: impl Cache, keys: CacheKeys, codec: CacheCodec) -> Self {
        Self { cache: Arc::new(cache), keys, codec, use_tz: true, time_zone: TimeZone::UTC }
    }

    /// Takes `USE_TZ` and `TIME_ZONE` of the site, in whose kind of time sessions expire.
    #[must_use]
    pub fn with_settings(mut self, settings: &SessionSettings) -> Self {
        self.use_tz = settings.use_tz;
        self.time_zone = settings.time_zone.clone();
        self
    }

    #[cfg(feature = "_sql")]
    pub(super) fn cache(&self) -> &dyn Cache {
        &*self.cache
    }

    pub(super) fn key(&self, session_key: &SessionKey) -> String {
        self.keys.server_key(session_key.as_str())
    }

    /// The value, and how long it is to live from now on.
    pub(super) fn encode(
        &self,
        record: &SessionRecord,
    ) -> Result<(Vec<u8>, SignedDuration), StoreError> {
        let end = self.instant(record.expire_date)?;
        #[expect(clippy::cast_precision_loss, reason = "a fraction of a microsecond")]
        let expiry = end.as_microsecond() as f64 / 1e6;
        let value =
            self.codec.encode(&record.data, Some(expiry)).map_err(StoreError::CacheEncode)?;
        // Encoding takes its time too.
        Ok((value, end.duration_since(Timestamp::now())))
    }

    fn instant(&self, date: DateTime) -> Result<Timestamp, StoreError> {
        let instant = date.to_timestamp(&self.time_zone);
        instant.ok_or(StoreError::ExpireDate(ExpiryError::OutOfRange))
    }

    /// When an entry ends.
    fn expire_date(&self, timeout: Option<SignedDuration>) -> DateTime {
        let end = timeout.and_then(|timeout| Timestamp::now().checked_add(timeout).ok());
        DateTime::now(end.unwrap_or(Timestamp::MAX), self.use_tz, &self.time_zone)
    }
}

#[async_trait]
impl SessionStore for CacheStore {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        self.cache.has_key(&self.key(session_key)).await
    }

    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let key = self.key(&record.session_key);
        let (value, timeout) = self.encode(record)?;
        if !timeout.is_positive() {
            // It would be gone at once.
            let taken = self.cache.has_key(&key).await?;
            return if taken { Err(StoreError::Create) } else { Ok(Saved::default()) };
        }
        match self.cache.add(&key, &value, timeout).await? {
            Written::Done(revision) => Ok(Saved::as_revision(revision)),
            Written::Changed | Written::Missing => Err(StoreError::Create),
        }
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        _now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let Some(entry) = self.cache.get(&self.key(session_key)).await? else { return Ok(None) };
        // Decoding takes its time.
        let expire_date = self.expire_date(entry.timeout);
        let found = match entry.flags {
            Some(flags) => self.codec.decode_flagged(&entry.value, flags),
            None => self.codec.decode(&entry.value),
        };
        Ok(Some(SessionRecord {
            session_key: session_key.clone(),
            data: Arc::new(found.map_err(StoreError::CacheDecode)?.data),
            expire_date,
            revision: Some(entry.revision),
        }))
    }

    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let key = self.key(&record.session_key);
        let revision = record.revision.as_ref();
        let (value, timeout) = self.encode(record)?;
        let written = if timeout.is_positive() {
            self.cache.replace(&key, &value, timeout, revision).await?
        } else {
            self.cache.delete(&key, revision).await?
        };
        match written {
            Written::Done(revision) => Ok(Saved::as_revision(revision)),
            Written::Missing if revision.is_none() => Err(StoreError::Update),
            Written::Changed | Written::Missing => Err(StoreError::Conflict),
        }
    }

    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let key = self.key(&record.session_key);
        let timeout = self.instant(record.expire_date)?.duration_since(Timestamp::now());
        let there = if timeout.is_positive() {
            self.cache.touch(&key, timeout).await?
        } else {
            self.cache.delete(&key, None).await? != Written::Missing
        };
        if !there {
            return Err(StoreError::Update);
        }
        Ok(Saved { revision: record.revision.clone(), ..Saved::default() })
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        self.cache.delete(&self.key(session_key), None).await.map(drop)
    }

    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        match self.cache.delete(&self.key(session_key), Some(revision)).await? {
            Written::Done(_) => Ok(()),
            Written::Changed | Written::Missing => Err(StoreError::Conflict),
        }
    }

    async fn cycle_key(
        &self,
        session_key: &SessionKey,
        record: &SessionRecord,
    ) -> Result<Saved, StoreError> {
        let (key, new_key) = (self.key(session_key), self.key(&record.session_key));
        let revision = record.revision.as_ref();
        let (value, timeout) = self.encode(record)?;
        if !timeout.is_positive() {
            // It would be gone at once, which `create` knows how to say.
            return Err(StoreError::Unsupported { operation: "cycle_key" });
        }
        match self.cache.cycle_key(&key, &new_key, &value, timeout, revision).await? {
            Written::Done(revision) => Ok(Saved::as_revision(revision)),
            Written::Missing if revision.is_none() => Err(StoreError::Update),
            Written::Changed | Written::Missing => Err(StoreError::Conflict),
        }
    }

    async fn clear_expired(&self, _now: DateTime) -> Result<u64, StoreError> {
        Err(StoreError::Unsupported { operation: "clear_expired" })
    }

    async fn close(&self) {
        self.cache.close().await;
    }
}
