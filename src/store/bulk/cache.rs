//! Sessions in a cache that is asked key by key: memcached, which tells nobody what it has, and the table of a
//! `DatabaseCache`, which does.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};

use super::cache_table::CacheTable;
use super::{
    BulkStore, Change, Cleared, Coding, Estimate, Filter, Part, Place, Scan, Sink, StoredSession,
    is_of_cached_db,
};
use crate::codec::cache::{CacheCodec, CacheKeys};
use crate::session::{DateTime, SessionSettings, SessionStore, StoreError};
use crate::store::{Cache, CacheEntry, Written};

/// How many keys are asked for side by side.
const AT_A_TIME: usize = 32;

#[derive(Clone)]
pub(super) struct CacheBulk {
    cache: Arc<dyn Cache>,
    keys: CacheKeys,
    coding: Coding,
    settings: SessionSettings,
    sessions: Arc<dyn SessionStore>,
    /// Where the cache is one.
    table: Option<Arc<CacheTable>>,
}

impl CacheBulk {
    pub(super) fn new(
        cache: Arc<dyn Cache>,
        keys: CacheKeys,
        codec: CacheCodec,
        settings: &SessionSettings,
        sessions: Arc<dyn SessionStore>,
        table: Option<CacheTable>,
    ) -> Self {
        let (coding, table) = (Coding::Cached(Box::new(codec)), table.map(Arc::new));
        Self { cache, keys, coding, settings: settings.clone(), sessions, table }
    }

    /// How long a session lives from now on.
    fn timeout(&self, session: &StoredSession) -> SignedDuration {
        let end = session.expire_date.to_timestamp(&self.settings.time_zone);
        end.unwrap_or(Timestamp::MAX).duration_since(Timestamp::now())
    }

    fn stored(&self, session_key: &str, entry: CacheEntry) -> StoredSession {
        let counted = entry.revision.as_bytes().try_into().ok().filter(|_| self.table.is_none());
        let end = entry.timeout.and_then(|left| Timestamp::now().checked_add(left).ok());
        StoredSession {
            session_key: session_key.to_owned(),
            value: entry.value,
            expire_date: self.settings.datetime(end.unwrap_or(Timestamp::MAX)),
            is_dated: true,
            place: counted.map_or(Place::Key, Place::Counted),
        }
    }

    /// The entry of a session, if it still is what was read.
    async fn unchanged(&self, session: &StoredSession) -> Result<Option<CacheEntry>, StoreError> {
        let entry = self.cache.get(&self.keys.server_key(&session.session_key)).await?;
        Ok(entry.filter(|entry| entry.value == session.value))
    }

    async fn get(&self, session_key: &str) -> Result<Option<StoredSession>, StoreError> {
        let entry = self.cache.get(&self.keys.server_key(session_key)).await?;
        Ok(entry.map(|entry| self.stored(session_key, entry)))
    }

    async fn has(&self, session_key: &str) -> Result<bool, StoreError> {
        self.cache.has_key(&self.keys.server_key(session_key)).await
    }

    async fn add(&self, session: &StoredSession) -> Result<bool, StoreError> {
        let timeout = self.timeout(session);
        if !timeout.is_positive() {
            // It would be gone at once.
            return Ok(true);
        }
        let key = self.keys.server_key(&session.session_key);
        Ok(matches!(self.cache.add(&key, &session.value, timeout).await?, Written::Done(_)))
    }

    async fn update(&self, change: &Change<'_>) -> Result<bool, StoreError> {
        let Some(entry) = self.unchanged(change.stored).await? else { return Ok(false) };
        let key = self.keys.server_key(&change.stored.session_key);
        let timeout = entry.timeout.unwrap_or_else(|| self.timeout(change.stored));
        let done = self.cache.replace(&key, &change.value, timeout, Some(&entry.revision)).await?;
        Ok(matches!(done, Written::Done(_)))
    }

    async fn delete(&self, session: &StoredSession, unchanged: bool) -> Result<bool, StoreError> {
        let mut revision = None;
        if unchanged {
            let Some(entry) = self.unchanged(session).await? else { return Ok(false) };
            revision = Some(entry.revision);
        }
        let key = self.keys.server_key(&session.session_key);
        Ok(matches!(self.cache.delete(&key, revision.as_ref()).await?, Written::Done(_)))
    }
}

/// Some at a time, in their order.
async fn each<T>(work: Vec<BoxFuture<'_, Result<T, StoreError>>>) -> Result<Vec<T>, StoreError> {
    futures_util::stream::iter(work).buffered(AT_A_TIME).try_collect().await
}

/// The places in a list of those of whom it is not so.
fn not_so(are: &[bool]) -> Vec<usize> {
    are.iter().enumerate().filter(|(_, is_so)| !**is_so).map(|(index, _)| index).collect()
}

impl fmt::Debug for CacheBulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBulk").field("cache", &self.cache).finish_non_exhaustive()
    }
}

#[async_trait]
impl BulkStore for CacheBulk {
    fn coding(&self) -> &Coding {
        &self.coding
    }

    fn name(&self) -> &'static str {
        if self.table.is_some() { "DatabaseCache" } else { "memcached" }
    }

    fn sessions(&self) -> &dyn SessionStore {
        &*self.sessions
    }

    async fn estimate(&self) -> Result<Estimate, StoreError> {
        Ok(Estimate::default())
    }

    async fn scan(&self, filter: Filter) -> Result<Box<dyn Scan>, StoreError> {
        match &self.table {
            Some(table) => {
                let (table, store) = (Arc::clone(table), self.clone());
                Ok(Box::new(CacheScan { table, store, filter }))
            }
            None => Err(StoreError::Unsupported { operation: "listing sessions" }),
        }
    }

    async fn bulk_create(&self, sessions: &[StoredSession]) -> Result<Vec<usize>, StoreError> {
        let added = each(sessions.iter().map(|it| self.add(it).boxed()).collect()).await?;
        Ok(not_so(&added))
    }

    async fn bulk_update(&self, changes: &[Change<'_>]) -> Result<Vec<usize>, StoreError> {
        let updated = each(changes.iter().map(|it| self.update(it).boxed()).collect()).await?;
        Ok(not_so(&updated))
    }

    async fn bulk_delete(
        &self,
        sessions: &[&StoredSession],
        unchanged: bool,
    ) -> Result<u64, StoreError> {
        let deleted = sessions.iter().map(|it| self.delete(it, unchanged).boxed());
        let deleted = each(deleted.collect()).await?;
        Ok(deleted.into_iter().filter(|is_gone| *is_gone).count() as u64)
    }

    async fn bulk_get(&self, keys: &[&str]) -> Result<Vec<Option<StoredSession>>, StoreError> {
        each(keys.iter().map(|key| self.get(key).boxed()).collect()).await
    }

    async fn bulk_exists(&self, sessions: &[(&str, Place)]) -> Result<Vec<bool>, StoreError> {
        each(sessions.iter().map(|(key, _)| self.has(key).boxed()).collect()).await
    }

    async fn count_expired(&self, now: DateTime) -> Result<Option<u64>, StoreError> {
        match &self.table {
            Some(table) => table.count_expired(now).await.map(Some),
            None => Ok(Some(0)),
        }
    }

    /// memcached does it by itself.
    async fn clear_expired(
        &self,
        now: DateTime,
        sessions: u32,
        _from: Option<DateTime>,
    ) -> Result<Cleared, StoreError> {
        match &self.table {
            Some(table) => table.clear_expired(now, sessions).await,
            None => Ok(Cleared::default()),
        }
    }

    async fn close(&self) {
        if let Some(table) = &self.table {
            table.close().await;
        }
        self.cache.close().await;
        self.sessions.close().await;
    }
}

/// Entry by entry in the order of their keys; the table has no other.
struct CacheScan {
    table: Arc<CacheTable>,
    store: CacheBulk,
    filter: Filter,
}

#[async_trait]
impl Scan for CacheScan {
    fn parts(&self) -> Vec<Part> {
        vec![Part::Whole]
    }

    async fn read(&self, _part: &Part, sink: &mut Sink) -> Result<(), StoreError> {
        let prefix = self.store.keys.server_key("");
        let mut after = None;
        loop {
            let entries = self.table.after(&prefix, after.as_deref()).await?;
            let Some(last) = entries.last() else { break };
            after = Some(last.key.clone());
            for entry in entries {
                // The database may take other letters for the same.
                let Some(session_key) = entry.key.strip_prefix(&prefix) else { continue };
                let zone = &self.store.settings.time_zone;
                if !self.filter.takes(session_key, entry.expires, zone)
                    || is_of_cached_db(&prefix, session_key)
                {
                    continue;
                }
                let session = StoredSession {
                    session_key: session_key.to_owned(),
                    value: entry.value,
                    expire_date: entry.expires,
                    is_dated: true,
                    place: Place::Key,
                };
                if !sink.push(session).await {
                    return Ok(());
                }
            }
        }
        sink.flush(None).await;
        Ok(())
    }
}
