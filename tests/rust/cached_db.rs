//! A table with a cache before it: the contract, and what only the two together can get wrong.
//!
//! The database is each that there is; the cache is the reference, so that a test can stop a reader or a
//! writer between its two steps.

use std::sync::Arc;

use async_trait::async_trait;
use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
use django_session::session::{Revision, SessionRecord};
use django_session::store::testing::Terms;
use django_session::store::{
    Cache, CacheEntry, CacheStore, CachedDbStore, MemoryCache, Written, testing,
};
use django_session::{Session, SessionKey, SessionStore, StoreError};
use jiff::SignedDuration;
use tokio::sync::{Notify, Semaphore};

use crate::lost_updates;
use crate::stores::{Kind, Place, now, record, settings};

fn keys() -> CacheKeys {
    CacheKeys::new(CacheEngine::CachedDb)
}

fn codec() -> CacheCodec {
    CacheCodec::new(CacheBackend::Redis)
}

async fn cached(place: &Place, cache: impl Cache) -> CachedDbStore {
    CachedDbStore::new(place.store().await, cache, keys(), codec()).with_settings(&settings())
}

mod sqlite {
    use super::*;

    struct Alone(CachedDbStore, #[expect(dead_code, reason = "it removes the file")] Place);

    impl std::ops::Deref for Alone {
        type Target = CachedDbStore;

        fn deref(&self) -> &CachedDbStore {
            &self.0
        }
    }

    async fn empty() -> Alone {
        let place = Place::new(Kind::Sqlite).await.unwrap();
        Alone(cached(&place, MemoryCache::default()).await, place)
    }

    django_session::store_contract!(empty, terms());
}

mod memory_cache {
    use super::*;

    async fn empty() -> Arc<CacheStore> {
        Arc::new(CacheStore::new(MemoryCache::default(), keys(), codec()))
    }

    django_session::store_contract!(
        empty,
        Terms::dropping(now(), SignedDuration::from_millis(500))
    );
}

/// As for a table, except that a copy knows the time to its end, and not the date itself.
fn terms() -> Terms {
    let mut terms = Terms::from(now());
    terms.precision = SignedDuration::from_millis(500);
    terms
}

#[tokio::test]
async fn the_contract_holds_on_servers() {
    for place in Place::all().await {
        let make = async || {
            place.execute("DELETE FROM {table}").await;
            Arc::new(cached(&place, MemoryCache::default()).await)
        };
        testing::check_contract(make, terms()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_requests_lose_nothing() {
    for place in Place::all().await {
        let store = cached(&place, MemoryCache::default()).await;
        let name = format!("CachedDbStore, {:?}", place.kind);
        lost_updates::check(&name, Arc::new(store), &settings()).await;
    }
}

/// A cache that stops before one of its steps, for as long as the test likes.
#[derive(Clone, Debug)]
struct Stopping {
    cache: MemoryCache,
    before: &'static str,
    reached: Arc<Notify>,
    go_on: Arc<Semaphore>,
}

impl Stopping {
    fn before(step: &'static str, cache: &MemoryCache) -> Self {
        Self {
            cache: cache.clone(),
            before: step,
            reached: Arc::default(),
            go_on: Arc::new(Semaphore::new(0)),
        }
    }

    async fn step(&self, step: &str) {
        if step == self.before {
            self.reached.notify_one();
            self.go_on.acquire().await.unwrap().forget();
        }
    }
}

#[async_trait]
impl Cache for Stopping {
    async fn get(&self, key: &str) -> Result<Option<CacheEntry>, StoreError> {
        self.step("get").await;
        self.cache.get(key).await
    }

    async fn has_key(&self, key: &str) -> Result<bool, StoreError> {
        self.cache.has_key(key).await
    }

    async fn add(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
    ) -> Result<Written, StoreError> {
        self.step("add").await;
        self.cache.add(key, value, timeout).await
    }

    async fn replace(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
        revision: Option<&Revision>,
    ) -> Result<Written, StoreError> {
        self.step("replace").await;
        self.cache.replace(key, value, timeout, revision).await
    }

    async fn touch(&self, key: &str, timeout: SignedDuration) -> Result<bool, StoreError> {
        self.cache.touch(key, timeout).await
    }

    async fn delete(&self, key: &str, revision: Option<&Revision>) -> Result<Written, StoreError> {
        self.step("delete").await;
        self.cache.delete(key, revision).await
    }
}

async fn copy(cache: &MemoryCache, session_key: &SessionKey) -> bool {
    cache.has_key(&keys().server_key(session_key.as_str())).await.unwrap()
}

/// Somebody logs out while a reader has read the row and not yet written the copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_races_a_logout_brings_nothing_back() {
    for place in Place::all().await {
        let cache = MemoryCache::default();
        let record = record(now());
        place.store().await.create(&record).await.unwrap();

        let stopping = Stopping::before("add", &cache);
        let reader = cached(&place, stopping.clone()).await;
        let session_key = record.session_key.clone();
        let reading = tokio::spawn(async move { reader.load(&session_key, now()).await });
        stopping.reached.notified().await;

        let logout = cached(&place, cache.clone()).await;
        let session_key = record.session_key.clone();
        let mut deleting = tokio::spawn(async move { logout.delete(&session_key).await });
        // It has to wait for the reader.
        let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut deleting);
        assert!(early.await.is_err(), "{:?}: the row is not held", place.kind);
        stopping.go_on.add_permits(1);
        reading.await.unwrap().unwrap();
        deleting.await.unwrap().unwrap();

        assert!(!copy(&cache, &record.session_key).await, "{:?}", place.kind);
        let other = cached(&place, cache).await;
        assert!(other.load(&record.session_key, now()).await.unwrap().is_none());
    }
}

/// Somebody logs out while a writer has changed the row and not yet renewed the copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_races_a_logout_brings_nothing_back() {
    for place in Place::all().await {
        for step in ["replace", "delete"] {
            let cache = MemoryCache::default();
            let record = record(now());
            let other = cached(&place, cache.clone()).await;
            other.create(&record).await.unwrap();
            if step == "delete" {
                // Without a copy to be renewed, whatever is there is taken away.
                cache.delete(&keys().server_key(record.session_key.as_str()), None).await.unwrap();
            }
            let loaded = other.load_latest(&record.session_key, now()).await.unwrap().unwrap();

            let stopping = Stopping::before(step, &cache);
            let writer = cached(&place, stopping.clone()).await;
            let writing = tokio::spawn(async move { writer.save(&loaded).await });
            stopping.reached.notified().await;
            other.delete(&record.session_key).await.unwrap();
            stopping.go_on.add_permits(1);
            writing.await.unwrap().unwrap();

            assert!(!copy(&cache, &record.session_key).await, "{:?} {step}", place.kind);
            assert!(other.load(&record.session_key, now()).await.unwrap().is_none());
        }
    }
}

/// Two writers, of which the first is stopped before it has renewed the copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_writer_leaves_no_old_copy() {
    for place in Place::all().await {
        let cache = MemoryCache::default();
        let other = cached(&place, cache.clone()).await;
        let record = record(now());
        other.create(&record).await.unwrap();

        let stopping = Stopping::before("replace", &cache);
        let writer = cached(&place, stopping.clone()).await;
        let mut loaded = writer.load_latest(&record.session_key, now()).await.unwrap().unwrap();
        Arc::make_mut(&mut loaded.data).insert("by", "first").unwrap();
        let writing = tokio::spawn(async move { writer.save(&loaded).await });
        stopping.reached.notified().await;

        let mut loaded = other.load_latest(&record.session_key, now()).await.unwrap().unwrap();
        assert_eq!(loaded.data.get::<String>("by").unwrap().unwrap(), "first");
        Arc::make_mut(&mut loaded.data).insert("by", "second").unwrap();
        other.save(&loaded).await.unwrap();
        stopping.go_on.add_permits(1);
        writing.await.unwrap().unwrap();

        for _ in 0..2 {
            let found = other.load(&record.session_key, now()).await.unwrap().unwrap();
            assert_eq!(found.data.get::<String>("by").unwrap().unwrap(), "second");
        }
    }
}

#[tokio::test]
async fn what_is_in_the_cache_is_not_read_from_the_row() {
    let place = Place::new(Kind::Sqlite).await.unwrap();
    let cache = MemoryCache::default();
    let store = cached(&place, cache.clone()).await;
    let created = record(now());
    store.create(&created).await.unwrap();
    place.execute("UPDATE {table} SET session_data = 'broken'").await;
    let loaded = store.load(&created.session_key, now()).await.unwrap().unwrap();
    assert!(loaded.data.contains_key("secret"));

    // Nor is a copy written that nobody can read.
    let key = keys().server_key(created.session_key.as_str());
    cache.delete(&key, None).await.unwrap();
    assert!(store.load(&created.session_key, now()).await.unwrap_err().is_corrupt());
    assert!(!cache.has_key(&key).await.unwrap());

    // A broken copy does not hide the row.
    let created = record(now());
    store.create(&created).await.unwrap();
    let key = keys().server_key(created.session_key.as_str());
    cache.replace(&key, b"broken", SignedDuration::from_secs(60), None).await.unwrap();
    let session =
        Session::new(Arc::new(store), Arc::new(settings()), Some(created.session_key.clone()));
    session.insert("more", &1).await.unwrap();
    session.save().await.unwrap();
    assert!(session.contains_key("secret").await.unwrap());
    assert!(!cache.has_key(&key).await.unwrap(), "it is taken away by the next save");
}

/// Django's rows and copies are ours: a session read from the cache is merged with its row.
#[tokio::test]
async fn a_save_of_a_copy_merges_with_the_row() {
    let place = Place::new(Kind::Sqlite).await.unwrap();
    let store = cached(&place, MemoryCache::default()).await;
    let created = record(now());
    store.create(&created).await.unwrap();
    let settings = Arc::new(settings());
    let key = Some(created.session_key.clone());
    let session = Session::new(Arc::new(store.clone()), settings, key);
    session.insert("mine", &1).await.unwrap();

    let mut row = store.db().load(&created.session_key, now()).await.unwrap().unwrap();
    Arc::make_mut(&mut row.data).insert("theirs", &2).unwrap();
    store.db().save(&SessionRecord { revision: None, ..row }).await.unwrap();

    session.save().await.unwrap();
    let row = store.db().load(&created.session_key, now()).await.unwrap().unwrap();
    let copy = store.load(&created.session_key, now()).await.unwrap().unwrap();
    for found in [row, copy] {
        assert_eq!(found.data.get::<i32>("mine").unwrap(), Some(1));
        assert_eq!(found.data.get::<i32>("theirs").unwrap(), Some(2));
    }
}
