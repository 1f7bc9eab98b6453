//! A cache in memory: the reference for every other one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::cache::{Cache, CacheEntry, Written};
use crate::session::{Revision, StoreError};

/// Keeps entries in the memory of this process, as Django's `LocMemCache` does in its own: nobody else
/// sees them. For tests and for trying things out.
///
/// Clones share their entries. Nothing is ever evicted.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
/// use django_session::store::{CacheStore, MemoryCache};
/// use django_session::{Session, SessionSettings};
/// use std::sync::Arc;
///
/// let (keys, codec) = (CacheKeys::new(CacheEngine::Cache), CacheCodec::new(CacheBackend::Redis));
/// let store = Arc::new(CacheStore::new(MemoryCache::default(), keys, codec));
/// let settings = Arc::new(SessionSettings::default());
/// let session = Session::new(store.clone(), settings.clone(), None);
/// session.insert("cart", &["tea"]).await?;
/// session.save().await?;
///
/// let later = Session::new(store, settings, session.session_key().await);
/// assert_eq!(later.get::<Vec<String>>("cart").await?.unwrap(), ["tea"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct MemoryCache {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<String, Kept>,
    /// How many were ever written.
    written: u64,
}

#[derive(Clone)]
struct Kept {
    value: Vec<u8>,
    end: Timestamp,
    number: u64,
}

impl Kept {
    fn revision(&self) -> Revision {
        Revision::new(self.number.to_le_bytes())
    }
}

impl MemoryCache {
    /// The entries, without those whose time is over.
    fn entries(&self, key: &str) -> MutexGuard<'_, Entries> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.by_key.get(key).is_some_and(|kept| kept.end <= Timestamp::now()) {
            entries.by_key.remove(key);
        }
        entries
    }
}

impl Entries {
    fn keep(&mut self, value: &[u8], timeout: SignedDuration) -> Kept {
        self.written += 1;
        Kept { value: value.to_vec(), end: end(timeout), number: self.written }
    }
}

fn end(timeout: SignedDuration) -> Timestamp {
    Timestamp::now().checked_add(timeout).unwrap_or(Timestamp::MAX)
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache").finish_non_exhaustive()
    }
}

#[async_trait]
impl Cache for MemoryCache {
    async fn get(&self, key: &str) -> Result<Option<CacheEntry>, StoreError> {
        let kept = self.entries(key).by_key.get(key).cloned();
        Ok(kept.map(|kept| CacheEntry {
            timeout: Some(kept.end.duration_since(Timestamp::now())),
            revision: kept.revision(),
            ..CacheEntry::new(kept.value)
        }))
    }

    async fn has_key(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.entries(key).by_key.contains_key(key))
    }

    async fn add(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
    ) -> Result<Written, StoreError> {
        let mut entries = self.entries(key);
        let kept = entries.keep(value, timeout);
        match entries.by_key.entry(key.to_owned()) {
            Entry::Occupied(_) => Ok(Written::Changed),
            Entry::Vacant(place) => Ok(Written::Done(place.insert(kept).revision())),
        }
    }

    async fn replace(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
        revision: Option<&Revision>,
    ) -> Result<Written, StoreError> {
        let mut entries = self.entries(key);
        let new = entries.keep(value, timeout);
        let Some(kept) = entries.by_key.get_mut(key) else { return Ok(Written::Missing) };
        if revision.is_some_and(|revision| *revision != kept.revision()) {
            return Ok(Written::Changed);
        }
        *kept = new;
        Ok(Written::Done(kept.revision()))
    }

    async fn touch(&self, key: &str, timeout: SignedDuration) -> Result<bool, StoreError> {
        let mut entries = self.entries(key);
        let Some(kept) = entries.by_key.get_mut(key) else { return Ok(false) };
        kept.end = end(timeout);
        Ok(true)
    }

    async fn delete(&self, key: &str, revision: Option<&Revision>) -> Result<Written, StoreError> {
        let mut entries = self.entries(key);
        let Some(kept) = entries.by_key.get(key) else { return Ok(Written::Missing) };
        let found = kept.revision();
        if revision.is_some_and(|revision| *revision != found) {
            return Ok(Written::Changed);
        }
        entries.by_key.remove(key);
        Ok(Written::Done(found))
    }
}
