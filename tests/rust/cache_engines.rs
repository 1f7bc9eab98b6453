//! What was recorded of Django's engines `cache` and `cached_db`, asked of the stores on real servers.
//!
//! Servers have a clock of their own, so each trace is moved to the present: its clock begins now, and
//! the dates in it are as far from it as they were.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
use django_session::session::{Revision, Saved, SessionRecord};
use django_session::store::{
    Cache, CacheStore, CachedDbStore, MemcachedCache, RedisAddress, RedisCache, SqlStore,
};
use django_session::{DateTime, SessionKey, SessionStore, StoreError};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::database_cache::Table;
use crate::middleware;
use crate::session;
use crate::stores::{Kind, Place, ddl, execute, now, server, settings};
use crate::vectors::{self, Tally, text};

/// Keys that lead nowhere, by which the store of a trace is told what happens behind its back: what is
/// no operation of a session.
const CACHE_CLEARED: &str = "the cache is cleared";
const ROW_DELETED: &str = "the row is deleted";

/// How long a session lives from now on whose end the trace waits for.
const SHORT: i64 = 6;

/// A cache, and a table if there is one behind it.
#[derive(Clone)]
struct Site {
    name: String,
    cache: Arc<dyn Cache>,
    backend: CacheBackend,
    db: Option<(Kind, SqlStore)>,
}

impl Site {
    fn redis() -> Option<Self> {
        let address: RedisAddress = server("TEST_REDIS_URL")?.parse().unwrap();
        Some(Self::of("Redis", RedisCache::new(&address).unwrap(), CacheBackend::Redis))
    }

    fn memcached() -> Option<Self> {
        let url = server("TEST_MEMCACHED_URL")?;
        let cache = MemcachedCache::new([url.strip_prefix("memcached://").unwrap()]).unwrap();
        Some(Self::of("memcached", cache, CacheBackend::Memcached))
    }

    fn of(name: &str, cache: impl Cache, backend: CacheBackend) -> Self {
        Self { name: name.to_owned(), cache: Arc::new(cache), backend, db: None }
    }

    async fn before(mut self, place: &Place) -> Self {
        self.name = format!("{} before {:?}", self.name, place.kind);
        self.db = Some((place.kind, place.store().await));
        self
    }
}

/// The store of one trace.
#[derive(Debug)]
struct Traced {
    store: Arc<dyn SessionStore>,
    db: Option<SqlStore>,
    cache: Arc<dyn Cache>,
    /// The session of the trace, and what the cache calls it.
    session_key: SessionKey,
    server_key: String,
}

impl Traced {
    async fn new(site: &Site, record: &Value) -> Self {
        let own = SessionKey::generate();
        let engine = if site.db.is_some() { CacheEngine::CachedDb } else { CacheEngine::Cache };
        let keys = CacheKeys::new(engine).with_key_prefix(own.as_str());
        let session_key = record["cookie_key"].as_str().and_then(SessionKey::parse);
        let session_key = session_key.unwrap_or_else(SessionKey::generate);
        let server_key = keys.server_key(session_key.as_str());
        let (codec, cache) = (CacheCodec::new(site.backend), Arc::clone(&site.cache));
        let mut db = None;
        let store: Arc<dyn SessionStore> = match &site.db {
            None => Arc::new(CacheStore::new(Arc::clone(&cache), keys, codec)),
            Some((kind, shared)) => {
                let table = format!("t_{}", &own.as_str()[..12]);
                for statement in ddl(*kind) {
                    execute(shared.pool(), &statement.replace("django_session", &table)).await;
                }
                let of_trace = shared.clone().with_table(&table);
                db = Some(of_trace.clone());
                Arc::new(CachedDbStore::new(of_trace, Arc::clone(&cache), keys, codec))
            }
        };
        Self { store, db, cache, session_key, server_key }
    }

    /// Waits for the end of a session if the trace's clock was moved beyond it.
    async fn wait(&self, trace: DateTime) {
        if trace.since(now()).unwrap() > SignedDuration::from_mins(5) {
            // Its own clock, and the seconds of memcached's.
            tokio::time::sleep(Duration::from_secs(SHORT.unsigned_abs() + 3)).await;
        }
    }
}

#[async_trait]
impl SessionStore for Traced {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        match session_key.as_str() {
            CACHE_CLEARED => {
                self.cache.delete(&self.server_key, None).await.unwrap();
                Ok(false)
            }
            ROW_DELETED => {
                self.db.as_ref().unwrap().delete(&self.session_key).await.unwrap();
                Ok(false)
            }
            _ => self.store.exists(session_key).await,
        }
    }

    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        match &self.db {
            // What the trace begins with is a row and nothing else.
            Some(db) if record.session_key == self.session_key => db.create(record).await,
            _ => self.store.create(record).await,
        }
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.wait(now).await;
        self.store.load(session_key, now).await
    }

    async fn load_latest(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.store.load_latest(session_key, now).await
    }

    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.store.save(record).await
    }

    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        self.store.touch(record).await
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        self.store.delete(session_key).await
    }

    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        self.store.delete_revision(session_key, revision).await
    }

    async fn cycle_key(
        &self,
        session_key: &SessionKey,
        record: &SessionRecord,
    ) -> Result<Saved, StoreError> {
        self.store.cycle_key(session_key, record).await
    }

    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        self.store.clear_expired(now).await
    }
}

/// Every date in a record that many seconds later.
fn shift(value: &mut Value, seconds: i64) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| shift(item, seconds)),
        Value::Object(members) => members.values_mut().for_each(|member| shift(member, seconds)),
        Value::String(text) if text.starts_with("2023-") => {
            let date = DateTime::fromisoformat(text).unwrap();
            *text = date.checked_add(SignedDuration::from_secs(seconds)).unwrap().isoformat();
        }
        _ => {}
    }
}

/// The trace as if it began now, or so long ago that its session is about to end.
fn in_the_present(record: &mut Value) {
    let advanced = record["steps"]
        .as_array()
        .unwrap()
        .iter()
        .any(|step| step["op"] == "advance" && step["args"][0].as_i64().unwrap() > 600);
    let mut begin = Timestamp::now().as_second();
    if advanced {
        begin -= record["rows"][0]["expires_in"].as_i64().unwrap() - SHORT;
    }
    shift(record, begin - record["now"].as_i64().unwrap());
    record["now"] = begin.into();
    for step in record["steps"].as_array_mut().unwrap() {
        let told = match text(step, "op") {
            "cache_cleared" => CACHE_CLEARED,
            "other_request_deletes_row" => ROW_DELETED,
            _ => continue,
        };
        step["op"] = "exists".into();
        step["args"] = json!([told]);
        step["returns"] = false.into();
    }
}

/// Replays the traces of an engine, some at the same time, since some of them wait.
async fn replay(backend: &str, sites: &[Site]) -> usize {
    let turns = Arc::new(Semaphore::new(16));
    let mut all = JoinSet::new();
    let mut tally = Tally::new("session_ops_engines");
    for record in vectors::read("session_ops_engines") {
        let (case, old) = (vectors::case(&record).to_owned(), vectors::release(&record));
        if record["backend"] != backend {
            continue;
        }
        // Python's `bool()` of a session changed in 6.1, dates as text came in 4.1; 1.11 says `None` of
        // the key that is `None`.
        if (case.ends_with("bool_new") && old < (6, 1))
            || (case.ends_with("set_expiry_forms") && old < (4, 1))
            || (case == "cache/exists" && old < (2, 0))
        {
            continue;
        }
        let mut record = record;
        if case == "cache/save_without_load_unknown" {
            // This engine looks for the session without loading it; here, as in the others, it is loaded,
            // which is an access, and the object is left with another key. It fails all the same.
            let state = &mut record["steps"][1]["state"];
            assert_eq!(state["accessed"], false);
            state["accessed"] = true.into();
            state["cache"] = json!({});
            state["session_key"] = "a-key-that-leads-nowhere".into();
        }
        for site in sites {
            let (site, mut record, turns) = (site.clone(), record.clone(), Arc::clone(&turns));
            all.spawn(async move {
                let _turn = turns.acquire().await.unwrap();
                record["id"] = format!("{} on {}", text(&record, "id"), site.name).into();
                // Before the clock of the trace begins.
                let store = Traced::new(&site, &record).await;
                in_the_present(&mut record);
                let refuses = site.db.is_none_or(|(kind, _)| kind != Kind::Postgres);
                session::follow(&record, Arc::new(store), refuses).await;
            });
        }
        tally.passed(&record);
    }
    // The first that panics ends it.
    all.join_all().await;
    let names: Vec<_> = sites.iter().map(|site| &*site.name).collect();
    eprintln!("{} traces of {backend} on each of {}", tally.passed, names.join(", "));
    tally.passed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_of_the_cache_engine_are_followed() {
    let mut tables = Vec::new();
    for kind in [Kind::Sqlite, Kind::Postgres, Kind::MySql] {
        tables.extend(Table::new(kind, settings()).await.map(|table| (kind, table)));
    }
    let of_tables = tables.iter().map(|(kind, table)| {
        Site::of(&format!("DatabaseCache in {kind:?}"), table.cache.clone(), CacheBackend::Database)
    });
    let sites = Site::redis().into_iter().chain(Site::memcached()).chain(of_tables);
    let passed = replay("cache", &sites.collect::<Vec<_>>()).await;
    assert_eq!(passed, 29 * 6 - 5 - 3 - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_of_the_cached_db_engine_are_followed() {
    let mut sites = Vec::new();
    let places = Place::all().await;
    for place in &places {
        if let Some(site) = Site::redis() {
            sites.push(site.before(place).await);
        }
        if place.kind == Kind::Postgres
            && let Some(site) = Site::memcached()
        {
            sites.push(site.before(place).await);
        }
    }
    assert_eq!(replay("cached_db", &sites).await, 32 * 6 - 5 - 3);
}

/// What the client reads, whatever the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_of_the_cache_engine_are_those_of_django() {
    let table = Table::new(Kind::Sqlite, settings()).await.unwrap();
    let in_table = Site::of("DatabaseCache", table.cache.clone(), CacheBackend::Database);
    let sites: Vec<_> =
        Site::redis().into_iter().chain(Site::memcached()).chain([in_table]).collect();
    let mut passed = 0;
    for record in vectors::read("middleware_engines") {
        // What older releases answered otherwise has nothing to do with the engine.
        if record["backend"] != "cache" || vectors::release(&record) < (3, 1) {
            continue;
        }
        for site in &sites {
            let mut record = record.clone();
            let now = Timestamp::now();
            record["now"] = now.as_second().into();
            if let Some(line) = record["set_cookie"].get_mut(0) {
                let end = now + SignedDuration::from_secs(1_209_600);
                let end = end.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
                let moved = line.as_str().unwrap().replace("Tue, 28 Nov 2023 22:13:20 GMT", &end);
                *line = moved.into();
            }
            let prefix = SessionKey::generate();
            let keys = CacheKeys::new(CacheEngine::Cache).with_key_prefix(prefix.as_str());
            let codec = CacheCodec::new(site.backend);
            let store = CacheStore::new(Arc::clone(&site.cache), keys, codec);
            middleware::check_without_rows(&record, store, settings()).await;
        }
        passed += 1;
    }
    assert_eq!(passed, 10 * 4);
}
