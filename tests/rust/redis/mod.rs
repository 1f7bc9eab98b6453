//! Sessions in Redis: the contract and the bytes, on every kind of server.
//!
//! The servers are where `TEST_REDIS_URL`, `TEST_REDIS_TLS_URL` (with `TEST_REDIS_TLS_CA`),
//! `TEST_REDIS_CLUSTER_URL` and `TEST_REDIS_SENTINEL_URL` say; `tests/services.py run -- cargo test …`
//! starts them. Every test has keys of its own, which are left behind: the servers are thrown away.

mod failover;
mod faults;
mod shared;

use std::sync::Arc;

use django_session::codec::cache::{
    CacheBackend, CacheCodec, CacheEngine, CacheKeys, CacheSerializer, Compressor,
};
use django_session::session::{Revision, SessionRecord};
use django_session::store::testing::{Terms, check_contract};
use django_session::store::{Cache, CacheStore, RedisAddress, RedisCache, Written, redis};
use django_session::{
    DateTime, Session, SessionData, SessionKey, SessionSettings, SessionStore, StoreError,
};
use jiff::{SignedDuration, Timestamp};

use crate::lost_updates;
use crate::stores::{PRECISION, server};

const PLAIN: &str = "TEST_REDIS_URL";
const TLS: &str = "TEST_REDIS_TLS_URL";
const CLUSTER: &str = "TEST_REDIS_CLUSTER_URL";
const SENTINEL: &str = "TEST_REDIS_SENTINEL_URL";
const ALL: [&str; 4] = [PLAIN, TLS, CLUSTER, SENTINEL];

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// The server that a variable names, if there is one to test with.
fn cache(variable: &str) -> Option<RedisCache> {
    let address: RedisAddress = server(variable)?.parse().unwrap();
    Some(RedisCache::new(&if variable == TLS { address.with_ca(ca()) } else { address }).unwrap())
}

fn ca() -> Vec<u8> {
    std::fs::read(std::env::var_os("TEST_REDIS_TLS_CA").expect("it goes with the server")).unwrap()
}

/// A store without any session.
fn store_on(cache: RedisCache, backend: CacheBackend) -> Arc<CacheStore> {
    Arc::new(CacheStore::new(cache, keys(), CacheCodec::new(backend)))
}

/// Keys that nobody else has.
fn keys() -> CacheKeys {
    CacheKeys::new(CacheEngine::Cache).with_key_prefix(SessionKey::generate().as_str())
}

fn key() -> String {
    keys().server_key("key")
}

fn settings() -> SessionSettings {
    SessionSettings::default()
}

fn now() -> DateTime {
    settings().datetime(Timestamp::now())
}

fn record() -> SessionRecord {
    let mut data = SessionData::new();
    data.insert("secret", "in the session").unwrap();
    SessionRecord {
        session_key: SessionKey::generate(),
        data: Arc::new(data),
        expire_date: now().checked_add(HOUR).unwrap(),
        revision: None,
    }
}

/// A connection of the driver to the server of `TEST_REDIS_URL`.
async fn raw(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

async fn ask<T: redis::FromRedisValue>(
    connection: &mut redis::aio::MultiplexedConnection,
    words: &[&str],
) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(connection).await.unwrap()
}

async fn check_server(variable: &str, backend: CacheBackend) {
    let Some(cache) = cache(variable) else { return };
    let make = async || store_on(cache.clone(), backend);
    check_contract(make, Terms::dropping(now(), PRECISION)).await;
}

#[tokio::test]
async fn one_server_keeps_the_contract() {
    check_server(PLAIN, CacheBackend::Redis).await;
}

#[tokio::test]
async fn an_encrypted_server_keeps_the_contract() {
    check_server(TLS, CacheBackend::Redis).await;
}

#[tokio::test]
async fn a_cluster_keeps_the_contract() {
    check_server(CLUSTER, CacheBackend::Redis).await;
}

#[tokio::test]
async fn a_master_with_sentinels_keeps_the_contract() {
    check_server(SENTINEL, CacheBackend::Redis).await;
}

#[tokio::test]
async fn the_layouts_of_django_redis_keep_the_contract() {
    for (serializer, compressor) in [
        (CacheSerializer::Pickle, Compressor::Identity),
        (CacheSerializer::Pickle, Compressor::Zlib),
        (CacheSerializer::Json, Compressor::Zstd),
        (CacheSerializer::Json, Compressor::Gzip),
        (CacheSerializer::MsgPack, Compressor::Lz4),
        (CacheSerializer::MsgPack, Compressor::Lzma),
    ] {
        check_server(PLAIN, CacheBackend::DjangoRedis { serializer, compressor }).await;
    }
}

#[tokio::test]
async fn the_contract_is_kept_while_replicas_are_waited_for() {
    let Some(cache) = cache(SENTINEL) else { return };
    let cache = cache.with_wait(1, std::time::Duration::from_secs(2));
    let make = async || store_on(cache.clone(), CacheBackend::Redis);
    check_contract(make, Terms::dropping(now(), PRECISION)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_requests_lose_nothing() {
    for variable in ALL {
        let Some(cache) = cache(variable) else { continue };
        let store = store_on(cache, CacheBackend::Redis);
        lost_updates::check(variable, store, &settings()).await;
    }
}

/// Every answer of every operation, and what is in the server afterwards.
#[tokio::test]
async fn an_entry_is_written_only_in_place_of_the_one_that_is_meant() {
    for variable in ALL {
        let Some(cache) = cache(variable) else { continue };
        let key = &*key();
        // Not text, with the longest and the shortest of what a script has to compare.
        let long = [&b"\0\r\n\xff\x80"[..], &vec![0xa5; 300_000]].concat();
        let (one, other) = (&*long, &b""[..]);
        let revision = |value: &[u8]| Revision::new(value);
        let value = async || cache.get(key).await.unwrap().map(|entry| entry.value);

        assert!(cache.get(key).await.unwrap().is_none());
        assert!(!cache.has_key(key).await.unwrap());
        assert!(!cache.touch(key, HOUR).await.unwrap());
        for revision in [None, Some(&revision(one))] {
            assert_eq!(cache.replace(key, one, HOUR, revision).await.unwrap(), Written::Missing);
            assert_eq!(cache.delete(key, revision).await.unwrap(), Written::Missing);
        }
        assert_eq!(value().await, None);

        assert_eq!(cache.add(key, one, HOUR).await.unwrap(), Written::Done(revision(one)));
        assert_eq!(cache.add(key, other, HOUR).await.unwrap(), Written::Changed);
        assert_eq!(value().await.as_deref(), Some(one));
        assert!(cache.has_key(key).await.unwrap());

        let almost = revision(&one[..one.len() - 1]);
        assert_eq!(cache.replace(key, other, HOUR, Some(&almost)).await.unwrap(), Written::Changed);
        assert_eq!(cache.delete(key, Some(&almost)).await.unwrap(), Written::Changed);
        assert_eq!(value().await.as_deref(), Some(one));
        let replaced = cache.replace(key, other, HOUR, Some(&revision(one))).await.unwrap();
        assert_eq!(replaced, Written::Done(revision(other)));
        assert_eq!(value().await.as_deref(), Some(other));
        assert_eq!(cache.get(key).await.unwrap().unwrap().revision, revision(other));
        let replaced = cache.replace(key, one, HOUR, None).await.unwrap();
        assert_eq!(replaced, Written::Done(revision(one)));
        assert_eq!(value().await.as_deref(), Some(one));

        let deleted = cache.delete(key, Some(&revision(one))).await.unwrap();
        assert!(matches!(deleted, Written::Done(_)));
        assert_eq!(value().await, None);
        cache.add(key, one, HOUR).await.unwrap();
        assert!(matches!(cache.delete(key, None).await.unwrap(), Written::Done(_)));
        assert_eq!(value().await, None);
    }
}

#[tokio::test]
async fn timeouts_are_kept_in_milliseconds() {
    let (Some(url), Some(cache)) = (server(PLAIN), cache(PLAIN)) else { return };
    let mut raw = raw(&url).await;
    let key = &*key();
    let close = |millis: i64| (3_600_000..=3_600_444).contains(&millis);
    let timeout = SignedDuration::new(3600, 443_000_001);
    let revision = Revision::new(&b"value"[..]);
    let mut stored = Vec::new();
    cache.add(key, b"value", timeout).await.unwrap();
    stored.push(ask::<i64>(&mut raw, &["PTTL", key]).await);
    cache.replace(key, b"value", HOUR, None).await.unwrap();
    cache.touch(key, timeout).await.unwrap();
    stored.push(ask::<i64>(&mut raw, &["PTTL", key]).await);
    cache.replace(key, b"value", HOUR, None).await.unwrap();
    cache.replace(key, b"value", timeout, Some(&revision)).await.unwrap();
    stored.push(ask::<i64>(&mut raw, &["PTTL", key]).await);
    cache.touch(key, HOUR).await.unwrap();
    cache.replace(key, b"value", timeout, None).await.unwrap();
    stored.push(ask::<i64>(&mut raw, &["PTTL", key]).await);
    // A slow machine may be past them, but not ahead of them.
    assert!(stored.iter().all(|&millis| millis <= 3_600_444), "{stored:?}");
    assert!(stored.iter().any(|&millis| close(millis)), "{stored:?}");

    // Less than a millisecond is not nothing, which the server would refuse.
    cache.add(&self::key(), b"value", SignedDuration::from_nanos(1)).await.unwrap();
    cache.touch(key, SignedDuration::from_nanos(1)).await.unwrap();
    // As far as a date goes.
    cache.add(&self::key(), b"value", SignedDuration::from_hours(24 * 366 * 8000)).await.unwrap();

    // What lives for ever, as `cache.set(…, timeout=None)` of Django writes it.
    let key = &*self::key();
    ask::<()>(&mut raw, &["SET", key, "value"]).await;
    assert_eq!(cache.get(key).await.unwrap().unwrap().timeout, None);
}

#[tokio::test]
async fn a_database_of_a_server_is_one_of_its_own() {
    let Some(url) = server(PLAIN) else { return };
    let (server, _) = url.rsplit_once('/').unwrap();
    let caches = [0, 3].map(|number| {
        RedisCache::new(&format!("{server}/{number}").parse::<RedisAddress>().unwrap()).unwrap()
    });
    let key = &*key();
    caches[1].add(key, b"value", HOUR).await.unwrap();
    assert!(caches[1].has_key(key).await.unwrap());
    assert!(!caches[0].has_key(key).await.unwrap());
    let address = url.parse::<RedisAddress>().unwrap().with_database(3);
    assert!(RedisCache::new(&address).unwrap().has_key(key).await.unwrap());
}

#[tokio::test]
async fn clients_of_the_driver_lead_there_too() {
    let Some(url) = server(PLAIN) else { return };
    // In the newer form of the protocol as well.
    for url in [url.clone(), format!("{url}?protocol=resp3")] {
        let client = redis::Client::open(url).unwrap();
        let make = async || store_on(RedisCache::with_client(client.clone()), CacheBackend::Redis);
        check_contract(make, Terms::dropping(now(), PRECISION)).await;
    }
    if let Some(url) = server(CLUSTER) {
        let (login, nodes) = url.rsplit_once('@').unwrap();
        let login = login.replace("redis+cluster", "redis");
        let nodes = nodes.split(',').map(|node| format!("{login}@{node}"));
        let client = redis::cluster::ClusterClient::new(nodes.collect::<Vec<_>>()).unwrap();
        let cache = RedisCache::with_client(client);
        assert!(!cache.has_key(&key()).await.unwrap());
    }
    if let Some(url) = server(SENTINEL) {
        let (login, rest) = url.rsplit_once('@').unwrap();
        let (user, password) =
            login.strip_prefix("redis+sentinel://").unwrap().split_once(':').unwrap();
        let sentinels = rest.split('/').next().unwrap().split(',').map(|place| {
            let (host, port) = place.split_once(':').unwrap();
            redis::ConnectionAddr::Tcp(host.to_owned(), port.parse().unwrap())
        });
        let client = redis::sentinel::SentinelClientBuilder::new(
            sentinels,
            "sessions",
            redis::sentinel::SentinelServerType::Master,
        );
        let client = client
            .unwrap()
            .set_client_to_redis_username(user)
            .set_client_to_redis_password(password)
            .build()
            .unwrap();
        let cache = RedisCache::with_client(client);
        cache.add(&key(), b"value", HOUR).await.unwrap();
    }
}

/// By way of a socket that leads to the server.
#[tokio::test]
async fn a_socket_of_this_machine_is_an_address() {
    let Some(url) = server(PLAIN) else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis one.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (login, place) = url.strip_prefix("redis://").unwrap().rsplit_once('@').unwrap();
    let place = place.split('/').next().unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = tokio::net::TcpStream::connect(&place).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let path = path.to_str().unwrap().replace(' ', "%20");
    let cache = RedisCache::connect(&format!("unix://{login}@{path}")).await.unwrap();
    let key = &*key();
    cache.add(key, b"value", HOUR).await.unwrap();
    assert_eq!(cache.get(key).await.unwrap().unwrap().value, b"value");
}

/// As in tests that share a store, and in programs that embed one.
#[test]
fn a_store_outlives_the_runtime_it_was_first_used_in() {
    let Some(cache) = cache(PLAIN) else { return };
    let key = &*key();
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            cache.add(key, b"value", HOUR).await.unwrap();
            assert_eq!(cache.get(key).await.unwrap().unwrap().value, b"value");
        });
    }
}

#[tokio::test]
async fn a_script_that_the_server_has_forgotten_is_sent_again() {
    let (Some(url), Some(cache)) = (server(PLAIN), cache(PLAIN)) else { return };
    let mut raw = raw(&url).await;
    let key = &*key();
    cache.add(key, b"0", HOUR).await.unwrap();
    for number in 1..=3_u8 {
        ask::<()>(&mut raw, &["SCRIPT", "FLUSH"]).await;
        let (before, after) = ([b'0' + number - 1], [b'0' + number]);
        let revision = Revision::new(&before[..]);
        let written = cache.replace(key, &after, HOUR, Some(&revision)).await.unwrap();
        assert!(matches!(written, Written::Done(_)), "{written:?}");
    }
    ask::<()>(&mut raw, &["SCRIPT", "FLUSH"]).await;
    let written = cache.delete(key, Some(&Revision::new(&b"3"[..]))).await.unwrap();
    assert!(matches!(written, Written::Done(_)), "{written:?}");
}

#[tokio::test]
async fn a_session_is_one_key_whatever_is_in_it() {
    for variable in ALL {
        let Some(cache) = cache(variable) else { continue };
        let store = store_on(cache, CacheBackend::Redis);
        let settings = Arc::new(settings());
        let session = Session::new(store.clone(), Arc::clone(&settings), None);
        let large = "\u{1F36A}".repeat(200_000);
        session.insert("large", &large).await.unwrap();
        session.save().await.unwrap();
        session.insert("small", &1).await.unwrap();
        session.save().await.unwrap();
        let key = session.session_key().await;
        let session = Session::new(store, settings, key);
        assert!(session.get::<String>("large").await.unwrap().unwrap() == large, "{variable}");
        session.flush().await.unwrap();
    }
}

/// A key that Django's cache uses for something else.
#[tokio::test]
async fn what_is_no_session_is_no_missing_session() {
    let (Some(url), Some(cache)) = (server(PLAIN), cache(PLAIN)) else { return };
    let mut raw = raw(&url).await;
    let keys = keys();
    let store = CacheStore::new(cache, keys.clone(), CacheCodec::new(CacheBackend::Redis));
    let record = record();
    let key = &*keys.server_key(record.session_key.as_str());

    ask::<()>(&mut raw, &["SET", key, "nonsense"]).await;
    let error = store.load(&record.session_key, now()).await.unwrap_err();
    assert!(error.is_corrupt(), "{error:?}");
    store.save(&record).await.unwrap();
    let loaded = store.load(&record.session_key, now()).await.unwrap().unwrap();

    ask::<()>(&mut raw, &["DEL", key]).await;
    ask::<()>(&mut raw, &["HSET", key, "field", "value"]).await;
    let again = SessionRecord { revision: loaded.revision.clone(), ..record.clone() };
    for error in [
        store.load(&record.session_key, now()).await.unwrap_err(),
        store.save(&again).await.unwrap_err(),
        store.delete_revision(&record.session_key, &loaded.revision.unwrap()).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Backend(_)), "{error:?}");
        assert!(faults::whole(&error).contains("WRONGTYPE"), "{error:?}");
    }
    assert!(store.create(&record).await.unwrap_err().is_create());
}

#[test]
fn caches_can_be_shared() {
    fn assert_shared<T: Clone + Send + Sync + 'static>() {}
    assert_shared::<RedisCache>();
    assert_shared::<RedisAddress>();
}
