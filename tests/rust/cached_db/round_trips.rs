//! How often a table with a cache before it is spoken to, each of the two, by this store and by Django.

use std::sync::Arc;
use std::time::Duration;

use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
use django_session::store::{
    CacheStore, CachedDbStore, MemcachedCache, RedisAddress, RedisCache, SqlStore,
};
use django_session::{Session, SessionKey};
use serde_json::json;

use super::faults::{port_of, with_port};
use super::idle;
use super::site::{Before, Site};
use crate::differential::Engine;
use crate::proxy::Proxy;
use crate::round_trips;
use crate::stores::{Kind, server, settings};

/// A table and a cache, and a proxy before each.
struct Counted {
    site: Site,
    to_cache: Proxy,
    to_table: Proxy,
}

impl Counted {
    async fn new(kind: Kind) -> Option<Self> {
        let site = Site::new(kind, Before::Redis).await?;
        let to_cache = Proxy::before(port_of(&site.location)).await;
        let to_table = Proxy::before(port_of(&site.place.url)).await;
        Some(Self { site, to_cache, to_table })
    }

    async fn store(&self) -> CachedDbStore {
        let url = with_port(&self.site.place.url, self.to_table.port());
        let url = format!("{url}?max_connections=1");
        let db = SqlStore::connect(&url, &settings()).await.unwrap();
        let address = with_port(&self.site.location, self.to_cache.port());
        let cache = RedisCache::new(&address.parse::<RedisAddress>().unwrap()).unwrap();
        self.site.store_on(db.with_table(&self.site.place.table), cache)
    }

    /// To the table, to the cache.
    fn turns(&self) -> [usize; 2] {
        [self.to_table.turns(), self.to_cache.turns()]
    }

    fn since(&self, before: [usize; 2]) -> [usize; 2] {
        let now = self.turns();
        [now[0] - before[0], now[1] - before[1]]
    }
}

#[tokio::test]
async fn each_step_of_a_cached_table_is_few() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(counted) = Counted::new(kind).await else { continue };
        let store = counted.store().await;
        let name = format!("CachedDbStore, {kind:?} and Redis");
        let shared = Arc::new(store.clone());
        let to_table = round_trips::count(shared.clone(), &counted.to_table).await;
        round_trips::print(&format!("{name}, to the table"), to_table);
        let to_cache = round_trips::count(shared, &counted.to_cache).await;
        round_trips::print(&format!("{name}, to the cache"), to_cache);
        assert_eq!(to_table, [1, 0, 1, 1, 1, 1, 3], "{kind:?}");
        assert_eq!(to_cache, [1, 1, 1, 1, 2, 3, 2], "{kind:?}");

        // What a request costs: of a session with a copy and of one without.
        for (case, has_copy) in [("a copy", true), ("no copy", false)] {
            let mut counts = [[0; 2]; 2];
            // The first time is for the statements.
            for _ in 0..2 {
                let request = |key: Option<SessionKey>| {
                    Session::new(Arc::new(store.clone()), Arc::new(settings()), key)
                };
                let session = request(None);
                session.insert("a", &1).await.unwrap();
                session.save().await.unwrap();
                let key = session.session_key().await.unwrap();
                if !has_copy {
                    counted.site.drop_copy(key.as_str(), false).await;
                }
                let session = request(Some(key));
                let before = counted.turns();
                session.data().await.unwrap();
                counts[0] = counted.since(before);
                // Nobody waits for the end of the transaction that held the row.
                while idle(store.db().pool()) == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                session.insert("b", &1).await.unwrap();
                let before = counted.turns();
                session.save().await.unwrap();
                counts[1] = counted.since(before);
            }
            let [[load_table, load_cache], [save_table, save_cache]] = counts;
            eprintln!(
                "round trips of {name}, a request with {case}: load {load_table} to the table and \
                 {load_cache} to the cache, save {save_table} and {save_cache}"
            );
            // Without a copy the row is held while one is made.
            let expected = if has_copy { [[0, 1], [2, 2]] } else { [[2, 2], [1, 1]] };
            assert_eq!(counts, expected, "{kind:?} {case}");
        }
    }
}

/// For comparison; nothing depends on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_same_costs_django() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(mut counted) = Counted::new(kind).await else { continue };
        counted.site.location = with_port(&counted.site.location, counted.to_cache.port());
        let mut settings = counted.site.django_settings();
        settings["DATABASES"]["default"]["PORT"] = counted.to_table.port().to_string().into();
        let Some(mut django) = Engine::start(&settings) else { return };
        let mut said = Vec::new();
        for _ in 0..2 {
            said.clear();
            let mut ask = |step: &str, command: serde_json::Value| {
                let before = counted.turns();
                let answer = django.ask(&command);
                assert!(answer.get("raised").is_none(), "{answer}");
                let [table, cache] = counted.since(before);
                said.push(format!("{step} {table} and {cache}"));
                answer
            };
            let created = ask("create", json!({"op": "create", "data": {"a": 1}}));
            let key = created["key"].clone();
            ask("load", json!({"op": "hold", "key": key}));
            ask("save", json!({"op": "late", "data": {"b": 1}}));
            counted.site.drop_copy(key.as_str().unwrap(), false).await;
            ask("load without a copy", json!({"op": "load", "key": key}));
            ask("rotate, with its load", json!({"op": "cycle_key", "key": key}));
            let other = ask("create", json!({"op": "create", "data": {"a": 1}}));
            ask("delete", json!({"op": "delete", "key": other["key"]}));
        }
        eprintln!(
            "round trips of Django's cached_db, {kind:?} and Redis, to the table and to the cache: {}",
            said.join(", ")
        );
    }
}

#[tokio::test]
async fn each_step_in_memcached_is_one() {
    let Some(url) = server("TEST_MEMCACHED_URL") else { return };
    let location = url.strip_prefix("memcached://").unwrap();
    let proxy = Proxy::before(location.rsplit_once(':').unwrap().1.parse().unwrap()).await;
    let cache = MemcachedCache::new([format!("127.0.0.1:{}", proxy.port())]).unwrap();
    let keys = CacheKeys::new(CacheEngine::Cache).with_key_prefix(SessionKey::generate().as_str());
    let store = CacheStore::new(cache, keys, CacheCodec::new(CacheBackend::Memcached));
    let counts = round_trips::count(Arc::new(store), &proxy).await;
    round_trips::print("CacheStore, memcached", counts);
    assert_eq!(counts, [1, 1, 1, 1, 1, 2, 3]);
}
