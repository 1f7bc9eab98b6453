//! How often a store speaks to its server for each step, counted by a proxy between the two.
//!
//! A round trip begins when the client speaks after the server. Connections are there already, and
//! statements prepared. sqlx's pool asks a connection once more when it gets it back, which does not count:
//! nobody waits for it.

use std::sync::Arc;

use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
use django_session::session::SessionRecord;
use django_session::store::{CachedDbStore, MemoryCache, SqlStore};
use django_session::{Session, SessionStore};

use crate::proxy::Proxy;
use crate::stores::{Kind, Place, now, record, settings};

/// What each step costs, in this order: create, load, save, touch, delete, rotate, and a save that somebody
/// else has overtaken.
pub(crate) const STEPS: [&str; 7] =
    ["create", "load", "save", "touch", "delete", "rotate", "save after a conflict"];

/// Counts the round trips of each step.
pub(crate) async fn count(store: Arc<dyn SessionStore>, proxy: &Proxy) -> [usize; 7] {
    let settings = Arc::new(settings());
    let mut counts = [0; 7];
    // The first time is for the connection and its statements.
    for _ in 0..2 {
        let created = record(now());
        let mut trips = Trips { proxy, begun: 0, counts: Vec::new() };
        trips.begin();
        let saved = store.create(&created).await.unwrap();
        trips.end();
        store.load(&created.session_key, now()).await.unwrap().unwrap();
        trips.end();
        let loaded = SessionRecord { revision: saved.revision, ..created };
        let saved = store.save(&loaded).await.unwrap();
        trips.end();
        let loaded = SessionRecord { revision: saved.revision, ..loaded };
        store.touch(&loaded).await.unwrap();
        trips.end();
        store.delete(&loaded.session_key).await.unwrap();
        trips.end();

        let session = Session::new(Arc::clone(&store), Arc::clone(&settings), None);
        session.insert("a", &1).await.unwrap();
        session.save().await.unwrap();
        trips.begin();
        session.cycle_key().await.unwrap();
        trips.end();

        let key = session.session_key().await;
        let other = Session::new(Arc::clone(&store), Arc::clone(&settings), key);
        other.insert("b", &1).await.unwrap();
        other.save().await.unwrap();
        session.insert("c", &1).await.unwrap();
        trips.begin();
        session.save().await.unwrap();
        trips.end();
        counts = trips.counts.try_into().unwrap();
    }
    counts
}

struct Trips<'a> {
    proxy: &'a Proxy,
    begun: usize,
    counts: Vec<usize>,
}

impl Trips<'_> {
    fn begin(&mut self) {
        self.begun = self.proxy.turns();
    }

    fn end(&mut self) {
        self.counts.push(self.proxy.turns() - self.begun);
        self.begin();
    }
}

pub(crate) fn print(store: &str, counts: [usize; 7]) {
    let steps = STEPS.iter().zip(counts).map(|(step, count)| format!("{step} {count}"));
    eprintln!("round trips of {store}: {}", steps.collect::<Vec<_>>().join(", "));
}

/// A store with one connection, and the proxy that it leads through.
pub(crate) async fn proxied(place: &Place) -> (SqlStore, Proxy) {
    let (head, rest) = place.url.rsplit_once(':').unwrap();
    let (port, database) = rest.split_once('/').unwrap();
    let proxy = Proxy::before(port.parse().unwrap()).await;
    let url = format!("{head}:{}/{database}?max_connections=1", proxy.port());
    let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
    (store, proxy)
}

#[tokio::test]
async fn each_step_in_a_table_is_one() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::new(kind).await else { continue };
        let (store, proxy) = proxied(&place).await;
        let counts = count(Arc::new(store), &proxy).await;
        print(&format!("SqlStore, {kind:?}"), counts);
        // A conflict is noticed, read and tried again.
        assert_eq!(counts, [1, 1, 1, 1, 1, 1, 3], "{kind:?}");
    }
}

/// The pool would ask the connection after each statement.
#[tokio::test]
async fn under_load_a_connection_is_asked_for_sessions_alone() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::new(kind).await else { continue };
        let (store, proxy) = proxied(&place).await;
        let record = record(now());
        store.create(&record).await.unwrap();
        store.load(&record.session_key, now()).await.unwrap().unwrap();
        let (turns, pings) = (proxy.turns(), proxy.pings());
        for _ in 0..500 {
            store.load(&record.session_key, now()).await.unwrap().unwrap();
        }
        let (turns, pings) = (proxy.turns() - turns, proxy.pings() - pings);
        eprintln!("SqlStore, {kind:?}: {turns} round trips and {pings} questions of the pool");
        assert_eq!(turns, 500);
        assert!(pings < 100, "{pings}");
    }
}

/// One connection is enough for many, and for who takes it out of the pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_connection_is_shared() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::new(kind).await else { continue };
        let (store, _proxy) = proxied(&place).await;
        let record = record(now());
        store.create(&record).await.unwrap();
        let loads: Vec<_> = (0..20)
            .map(|_| {
                let (store, key) = (store.clone(), record.session_key.clone());
                tokio::spawn(async move {
                    for _ in 0..50 {
                        assert!(store.load(&key, now()).await.unwrap().is_some());
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            let sql = format!("SELECT session_key FROM {}", place.table);
            let keys = crate::stores::select(store.pool(), &sql).await;
            assert_eq!(keys, [record.session_key.as_str()]);
        }
        for load in loads {
            load.await.unwrap();
        }
    }
}

/// Of the table alone; those to the cache are its own, see `docs/adr/0012`.
#[tokio::test]
async fn a_cache_before_the_table_saves_the_load() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::new(kind).await else { continue };
        let (store, proxy) = proxied(&place).await;
        let keys = CacheKeys::new(CacheEngine::CachedDb);
        let codec = CacheCodec::new(CacheBackend::Redis);
        let store = CachedDbStore::new(store, MemoryCache::default(), keys, codec);
        let counts = count(Arc::new(store), &proxy).await;
        print(&format!("CachedDbStore, {kind:?}, to the table"), counts);
        assert_eq!(counts[..6], [1, 0, 1, 1, 1, 1], "{kind:?}");
    }
}
