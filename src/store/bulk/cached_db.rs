//! The table of a `cached_db`: whatever is changed there goes from the cache, so that nobody is answered from
//! a copy of before.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{BulkStore, Change, Cleared, Coding, Estimate, Filter, Place, Scan, StoredSession};
use crate::codec::SessionData;
use crate::codec::cache::CacheKeys;
use crate::session::{DateTime, SessionRecord, SessionStore, StoreError};
use crate::store::Cache;

/// How many copies are forgotten side by side.
const AT_A_TIME: usize = 64;

pub(super) struct CachedBulk {
    table: Box<dyn BulkStore>,
    cache: Arc<dyn Cache>,
    keys: CacheKeys,
}

impl CachedBulk {
    pub(super) fn new(table: Box<dyn BulkStore>, cache: Arc<dyn Cache>, keys: CacheKeys) -> Self {
        Self { table, cache, keys }
    }

    async fn forget(&self, session_keys: Vec<&str>) -> Result<(), StoreError> {
        let keys: Vec<String> =
            session_keys.into_iter().map(|it| self.keys.server_key(it)).collect();
        let forgotten = keys
            .into_iter()
            .map(|key| async move { self.cache.delete(&key, None).await.map(drop) });
        futures_util::stream::iter(forgotten).buffer_unordered(AT_A_TIME).try_collect().await
    }
}

impl fmt::Debug for CachedBulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedBulk").field("table", &self.table).finish_non_exhaustive()
    }
}

#[async_trait]
impl BulkStore for CachedBulk {
    fn coding(&self) -> &Coding {
        self.table.coding()
    }

    fn name(&self) -> &'static str {
        self.table.name()
    }

    fn sessions(&self) -> &dyn SessionStore {
        self.table.sessions()
    }

    async fn estimate(&self) -> Result<Estimate, StoreError> {
        self.table.estimate().await
    }

    async fn scan(&self, filter: Filter) -> Result<Box<dyn Scan>, StoreError> {
        self.table.scan(filter).await
    }

    async fn bulk_create(&self, sessions: &[StoredSession]) -> Result<Vec<usize>, StoreError> {
        self.table.bulk_create(sessions).await
    }

    /// Before and after, as of what is deleted: a row that has been changed is not met again, so nobody would
    /// forget a copy of before. Copies are forgotten of all of them: one that was missed is another session by
    /// now, or none.
    async fn bulk_update(&self, changes: &[Change<'_>]) -> Result<Vec<usize>, StoreError> {
        let keys = || changes.iter().map(|it| it.stored.session_key.as_str()).collect();
        self.forget(keys()).await?;
        let missed = self.table.bulk_update(changes).await?;
        self.forget(keys()).await?;
        Ok(missed)
    }

    /// Before and after: whoever is stopped in between has not ended a session whose copy goes on, and who
    /// reads in between leaves none.
    async fn bulk_delete(
        &self,
        sessions: &[&StoredSession],
        unchanged: bool,
    ) -> Result<u64, StoreError> {
        let keys = || sessions.iter().map(|it| it.session_key.as_str()).collect();
        self.forget(keys()).await?;
        let deleted = self.table.bulk_delete(sessions, unchanged).await?;
        self.forget(keys()).await?;
        Ok(deleted)
    }

    async fn bulk_get(&self, keys: &[&str]) -> Result<Vec<Option<StoredSession>>, StoreError> {
        self.table.bulk_get(keys).await
    }

    async fn bulk_exists(&self, sessions: &[(&str, Place)]) -> Result<Vec<bool>, StoreError> {
        self.table.bulk_exists(sessions).await
    }

    /// Copies are forgotten before and after, as of what is deleted, whatever came of it.
    async fn save(&self, found: &StoredSession, record: SessionRecord) -> Result<(), StoreError> {
        self.forget(vec![&found.session_key]).await?;
        let saved = self.table.save(found, record).await;
        self.forget(vec![&found.session_key]).await?;
        saved
    }

    async fn note_user(&self, session_key: &str, data: &SessionData) -> Result<(), StoreError> {
        self.table.note_user(session_key, data).await
    }

    async fn count_expired(&self, now: DateTime) -> Result<Option<u64>, StoreError> {
        self.table.count_expired(now).await
    }

    /// What has expired has no copy.
    async fn clear_expired(
        &self,
        now: DateTime,
        sessions: u32,
        from: Option<DateTime>,
    ) -> Result<Cleared, StoreError> {
        self.table.clear_expired(now, sessions, from).await
    }

    async fn close(&self) {
        self.table.close().await;
        self.cache.close().await;
    }
}
