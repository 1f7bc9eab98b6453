//! A table with a cache before it: the contract, and what only the two together can get wrong.
//!
//! The database is each that there is; the cache is the reference, so that a test can stop a reader or a
//! writer between its two steps.

mod beside_django;
mod faults;
mod round_trips;
mod site;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
use django_session::session::{OnConflict, Revision, SessionRecord};
use django_session::store::testing::Terms;
use django_session::store::{
    Cache, CacheEntry, CacheStore, CachedDbStore, MemoryCache, SqlPool, Written, testing,
};
use django_session::{Session, SessionError, SessionKey, SessionStore, StoreError};
use jiff::SignedDuration;
use tokio::sync::{Notify, Semaphore};

use crate::lost_updates;
use crate::proxy::Mode;
use crate::stores::{Kind, PRECISION, Place, now, record, settings};

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

    django_session::store_contract!(empty, Terms::dropping(now(), PRECISION));
}

/// As for a table, except that a copy knows the time to its end, and not the date itself.
fn terms() -> Terms {
    let mut terms = Terms::from(now());
    terms.precision = PRECISION;
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

/// A cache that is not there.
#[derive(Debug)]
struct Away;

fn away() -> StoreError {
    StoreError::Unreachable("the cache is away".into())
}

#[async_trait]
impl Cache for Away {
    async fn get(&self, _: &str) -> Result<Option<CacheEntry>, StoreError> {
        Err(away())
    }

    async fn has_key(&self, _: &str) -> Result<bool, StoreError> {
        Err(away())
    }

    async fn add(&self, _: &str, _: &[u8], _: SignedDuration) -> Result<Written, StoreError> {
        Err(away())
    }

    async fn replace(
        &self,
        _: &str,
        _: &[u8],
        _: SignedDuration,
        _: Option<&Revision>,
    ) -> Result<Written, StoreError> {
        Err(away())
    }

    async fn touch(&self, _: &str, _: SignedDuration) -> Result<bool, StoreError> {
        Err(away())
    }

    async fn delete(&self, _: &str, _: Option<&Revision>) -> Result<Written, StoreError> {
        Err(away())
    }
}

async fn copy(cache: &MemoryCache, session_key: &SessionKey) -> bool {
    cache.has_key(&keys().server_key(session_key.as_str())).await.unwrap()
}

/// Somebody logs out, or gets another key, while a reader has read the row and not yet written the copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_races_a_logout_brings_nothing_back() {
    for (place, what) in
        Place::all().await.iter().flat_map(|place| [(place, "flush"), (place, "cycle_key")])
    {
        let cache = MemoryCache::default();
        let record = record(now());
        place.store().await.create(&record).await.unwrap();

        let stopping = Stopping::before("add", &cache);
        let reader = cached(place, stopping.clone()).await;
        let session_key = record.session_key.clone();
        let reading = tokio::spawn(async move { reader.load(&session_key, now()).await });
        stopping.reached.notified().await;

        let logout = cached(place, cache.clone()).await;
        let session_key = record.session_key.clone();
        let session = Session::new(Arc::new(logout), Arc::new(settings()), Some(session_key));
        let mut deleting = tokio::spawn(async move {
            if what == "flush" { session.flush().await } else { session.cycle_key().await }
        });
        // It has to wait for the reader.
        let early = tokio::time::timeout(Duration::from_millis(300), &mut deleting);
        assert!(early.await.is_err(), "{:?}: the row is not held", place.kind);
        stopping.go_on.add_permits(1);
        reading.await.unwrap().unwrap();
        deleting.await.unwrap().unwrap();

        assert!(!copy(&cache, &record.session_key).await, "{:?} {what}", place.kind);
        let other = cached(place, cache).await;
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

/// As [`a_save_of_a_copy_merges_with_the_row`], where the site wants to hear of a change.
#[tokio::test]
async fn a_save_of_a_copy_is_a_conflict_only_with_another_row() {
    for place in Place::all().await {
        let store = cached(&place, MemoryCache::default()).await;
        let created = record(now());
        store.create(&created).await.unwrap();
        let mut settings = settings();
        settings.on_conflict = OnConflict::Error;
        let settings = Arc::new(settings);
        let request = || {
            let key = Some(created.session_key.clone());
            Session::new(Arc::new(store.clone()), Arc::clone(&settings), key)
        };
        let session = request();
        for number in 0..3 {
            session.insert("mine", &number).await.unwrap();
            session.save().await.unwrap();
        }
        // Its expiry is moved, and it is saved by way of what was loaded before.
        let session = request();
        session.insert("mine", &3).await.unwrap();
        assert!(session.touch().await.unwrap());
        session.save().await.unwrap();
        session.insert("mine", &4).await.unwrap();
        assert!(session.touch().await.unwrap());
        session.save().await.unwrap();

        let late = request();
        late.insert("mine", &5).await.unwrap();
        let mut row = store.db().load(&created.session_key, now()).await.unwrap().unwrap();
        assert_eq!(row.data.get::<i32>("mine").unwrap(), Some(4));
        Arc::make_mut(&mut row.data).insert("theirs", &2).unwrap();
        store.db().save(&SessionRecord { revision: None, ..row }).await.unwrap();
        let error = late.save().await.unwrap_err();
        assert!(matches!(error, SessionError::Store(StoreError::Conflict)), "{error:?}");
    }
}

/// What a copy says of a user is what moves to a new key, together with what the row says.
#[tokio::test]
async fn a_copy_moves_to_a_new_key_with_its_row() {
    for on_conflict in [OnConflict::Merge, OnConflict::Error, OnConflict::Overwrite] {
        let place = Place::new(Kind::Sqlite).await.unwrap();
        let cache = MemoryCache::default();
        let store = cached(&place, cache.clone()).await;
        let mut settings = settings();
        settings.on_conflict = on_conflict.clone();
        let settings = Arc::new(settings);
        let request = |key: &SessionKey| {
            Session::new(Arc::new(store.clone()), Arc::clone(&settings), Some(key.clone()))
        };
        let mut created = record(now());
        Arc::make_mut(&mut created.data).insert("_auth_user_id", "1").unwrap();
        store.create(&created).await.unwrap();
        let old = &created.session_key;
        let session = request(old);
        session.cycle_key().await.unwrap();
        let new = session.session_key().await.unwrap();
        assert!(store.load(old, now()).await.unwrap().is_none() && !copy(&cache, old).await);
        assert!(copy(&cache, &new).await && request(&new).contains_key("secret").await.unwrap());

        // Somebody has logged out, and left the copy behind.
        let session = request(&new);
        session.data().await.unwrap();
        store.db().delete(&new).await.unwrap();
        let cycled = session.cycle_key().await;
        if !matches!(on_conflict, OnConflict::Overwrite) {
            assert!(cycled.unwrap_err().is_interrupted(), "{on_conflict:?}");
            let rows = place.select("SELECT session_key FROM {table}").await;
            assert_eq!(rows, [""; 0], "{on_conflict:?}");
        }
    }
}

/// A copy that stock Django, or somebody who was killed, left behind a session that is gone.
#[tokio::test]
async fn a_copy_that_has_outlived_its_row_goes_with_the_first_write() {
    for place in Place::all().await {
        let cache = MemoryCache::default();
        let store = cached(&place, cache.clone()).await;
        let settings = settings();
        for step in ["save", "touch", "overwrite", "cycle_key", "flush"] {
            let created = record(now());
            store.create(&created).await.unwrap();
            store.db().delete(&created.session_key).await.unwrap();
            let mut settings = settings.clone();
            if step == "overwrite" {
                settings.on_conflict = OnConflict::Overwrite;
            }
            let key = Some(created.session_key.clone());
            let session = Session::new(Arc::new(store.clone()), Arc::new(settings), key);
            session.insert("late", &1).await.unwrap();
            let interrupted = match step {
                "touch" => session.touch().await.unwrap_err().is_interrupted(),
                "cycle_key" => session.cycle_key().await.is_ok(),
                "flush" => session.flush().await.is_ok(),
                _ => session.save().await.unwrap_err().is_interrupted(),
            };
            assert!(interrupted, "{:?} {step}", place.kind);
            assert!(!copy(&cache, &created.session_key).await, "{:?} {step}", place.kind);
            assert!(store.load(&created.session_key, now()).await.unwrap().is_none());
        }
    }
}

/// Somebody logs out while the cache is away. If the row went and the copy came back with the cache, the
/// session would be there again.
#[tokio::test]
async fn a_logout_without_the_cache_fails_and_changes_nothing() {
    for place in Place::all().await {
        let cache = MemoryCache::default();
        let other = cached(&place, cache.clone()).await;
        let away = cached(&place, Away).await;
        let created = record(now());
        let saved = other.create(&created).await.unwrap();
        let key = &created.session_key;
        assert!(away.delete(key).await.unwrap_err().is_outage());
        let revision = saved.revision.unwrap();
        assert!(away.delete_revision(key, &revision).await.unwrap_err().is_outage());
        for store in [&other, &away] {
            assert!(store.load(key, now()).await.unwrap().is_some(), "{:?}", place.kind);
        }
        // A login whose second step fails leaves the old session to be tried again.
        let session = Session::new(Arc::new(away), Arc::new(settings()), Some(key.clone()));
        session.cycle_key().await.unwrap_err();
        assert!(other.load(key, now()).await.unwrap().is_some(), "{:?}", place.kind);
        other.delete(key).await.unwrap();
        assert!(!copy(&cache, key).await && other.load(key, now()).await.unwrap().is_none());
    }
}

/// How many connections are at rest.
fn idle(pool: &SqlPool) -> usize {
    match pool {
        SqlPool::MySql(pool) => pool.num_idle(),
        SqlPool::Postgres(pool) => pool.num_idle(),
        _ => unreachable!(),
    }
}

/// A connection to the table is broken at the first step of holding a row. The session is read all the
/// same, and no copy is made of what nobody holds.
#[tokio::test]
async fn a_connection_that_breaks_loses_no_session() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::new(kind).await else { continue };
        let (db, proxy) = crate::round_trips::proxied(&place).await;
        let cache = MemoryCache::default();
        let store = CachedDbStore::new(db, cache.clone(), keys(), codec());
        for mode in [Mode::CutRequest, Mode::CutAnswer(0), Mode::CutAnswer(7)] {
            let created = record(now());
            store.db().create(&created).await.unwrap();
            // The pool looks after a connection that it gets back.
            while idle(store.db().pool()) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            proxy.set(mode);
            let loaded = store.load(&created.session_key, now()).await.unwrap();
            assert!(loaded.is_some(), "{kind:?} {mode:?}");
            assert!(!copy(&cache, &created.session_key).await, "{kind:?} {mode:?}");
            // It can be saved, and the next one has its copy.
            let loaded = loaded.unwrap();
            store.save(&loaded).await.unwrap();
            assert!(store.load(&created.session_key, now()).await.unwrap().is_some());
            assert!(copy(&cache, &created.session_key).await, "{kind:?} {mode:?}");
        }
    }
}

/// Somebody else writes the row for longer than a reader waits; on PostgreSQL it does not wait at all.
#[tokio::test]
async fn a_row_that_is_written_is_read_without_being_held() {
    let waits =
        [(Kind::Postgres, Duration::from_hours(1)), (Kind::MySql, Duration::from_millis(300))];
    for (kind, timeout) in waits {
        let Some(place) = Place::new(kind).await else { continue };
        let cache = MemoryCache::default();
        let db = place.store().await.with_timeout(timeout);
        let store = CachedDbStore::new(db, cache.clone(), keys(), codec());
        let created = record(now());
        store.db().create(&created).await.unwrap();
        let writer = place.hold(&created.session_key).await;
        let reading = store.load(&created.session_key, now());
        let read = tokio::time::timeout(Duration::from_mins(1), reading).await;
        let loaded = read.expect("it waits").unwrap().unwrap();
        assert!(loaded.data.contains_key("secret"), "{kind:?}");
        assert!(!copy(&cache, &created.session_key).await, "{kind:?}");
        drop(writer);
    }
}

/// MySQL finds a row in any spelling of its key, and the cache does not: nobody would take such a copy away.
#[tokio::test]
async fn no_copy_is_made_under_another_spelling_of_the_key() {
    for place in Place::all().await {
        let cache = MemoryCache::default();
        let store = cached(&place, cache.clone()).await;
        let mut created = record(now());
        created.session_key = SessionKey::parse("spellingofakeythatisnotitsown").unwrap();
        store.db().create(&created).await.unwrap();
        let other = SessionKey::parse("SPELLINGofakeythatisnotitsown").unwrap();
        let found = store.load(&other, now()).await.unwrap();
        assert_eq!(found.is_some(), place.kind == Kind::MySql);
        assert!(!copy(&cache, &other).await);
        store.delete(&created.session_key).await.unwrap();
        assert!(store.load(&other, now()).await.unwrap().is_none());
    }
}
