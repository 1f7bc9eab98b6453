//! What a caller sees when a Redis server is not there, does not answer, or says no.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
use django_session::session::Revision;
use django_session::store::{
    Cache, CacheStore, RedisAddress, RedisCache, RedisConnectError, RedisError, Written,
};
use django_session::{Session, SessionSettings, SessionStore as _, StoreError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{
    ALL, CLUSTER, HOUR, PLAIN, SENTINEL, TLS, ask, ca, cache, key, now, raw, record, store_on,
};
use crate::proxy::{Mode, Proxy};
use crate::round_trips;
use crate::servers::{Servers, Stopped, signal};
use crate::stores::{server, until};

const SHORT: Duration = Duration::from_millis(200);

/// `Display` and `Debug` of an error and of all that is behind it.
pub(super) fn whole(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let _ = write!(text, "{error}\n{error:?}\n{error:#?}\n");
        next = error.source();
    }
    text
}

fn at(url: &str) -> RedisCache {
    RedisCache::new(&url.parse::<RedisAddress>().unwrap()).unwrap()
}

/// The same address with another port.
fn with_port(url: &str, port: u16) -> String {
    let (login, rest) = url.rsplit_once('@').unwrap();
    let (place, database) = rest.split_once('/').unwrap();
    let (host, _) = place.rsplit_once(':').unwrap();
    format!("{login}@{host}:{port}/{database}")
}

fn port(url: &str) -> u16 {
    let (_, place) = url.rsplit_once('@').unwrap();
    place.split(['/', ':']).nth(1).unwrap().parse().unwrap()
}

/// A port on which nobody listens.
fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The errors of all operations, none of which may succeed.
async fn errors(cache: &RedisCache) -> Vec<StoreError> {
    let (key, revision) = (&*key(), Revision::new(&b"value"[..]));
    let mut errors = vec![cache.get(key).await.unwrap_err(), cache.has_key(key).await.unwrap_err()];
    errors.extend(write_errors(cache, key).await);
    errors.push(cache.touch(key, HOUR).await.unwrap_err());
    errors.push(cache.delete(key, None).await.unwrap_err());
    errors.push(cache.delete(key, Some(&revision)).await.unwrap_err());
    errors
}

/// The errors of the operations that need room, with a key under which there is `value`.
async fn write_errors(cache: &RedisCache, key: &str) -> [StoreError; 3] {
    let revision = Revision::new(&b"value"[..]);
    [
        cache.add(&self::key(), b"value", HOUR).await.unwrap_err(),
        cache.replace(key, b"other", HOUR, None).await.unwrap_err(),
        cache.replace(key, b"other", HOUR, Some(&revision)).await.unwrap_err(),
    ]
}

#[tokio::test]
async fn nobody_there_is_an_unreachable_store() {
    let port = free_port();
    for url in [
        format!("redis://u:hunter2@127.0.0.1:{port}"),
        format!("rediss://u:hunter2@127.0.0.1:{port}"),
        format!("redis+cluster://u:hunter2@127.0.0.1:{port},127.0.0.1:{port}"),
        format!("redis+sentinel://u:hunter2@127.0.0.1:{port},127.0.0.1:{port}/service"),
        "redis://u:hunter2@host.invalid".to_owned(),
        "unix://u:hunter2@/nowhere/redis.sock".to_owned(),
    ] {
        for error in errors(&at(&url)).await {
            assert!(matches!(error, StoreError::Unreachable(_)), "{url}: {error:?}");
            assert!(error.is_retryable());
            assert!(!whole(&error).contains("hunter2"), "{}", whole(&error));
        }
        let error = RedisCache::connect(&url).await.unwrap_err();
        assert!(matches!(error, RedisConnectError::Connect(StoreError::Unreachable(_))));
        assert!(!whole(&error).contains("hunter2"), "{}", whole(&error));
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told_from_one_that_is_not_there() {
    let Some(servers) = Servers::start("redis", PLAIN) else { return };
    let url = servers.url(PLAIN);
    let pid = servers.processes(PLAIN)[0].0;
    let cache = at(url).with_timeout(SHORT).with_connect_timeout(SHORT);
    let store = store_on(cache.clone(), CacheBackend::Redis);
    let kept = record();
    store.create(&kept).await.unwrap();
    {
        let _stopped = Stopped::new(pid);
        // Of the first the connection is there, and accepts the request.
        for cache in [&cache, &at(url).with_timeout(SHORT).with_connect_timeout(SHORT)] {
            for error in errors(cache).await {
                assert!(matches!(error, StoreError::TimedOut(_)), "{error:?}");
            }
        }
        // Many at once wait no longer than one.
        let all: Vec<_> = (0..50)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.has_key(&key()).await.unwrap_err() })
            })
            .collect();
        for error in all {
            assert!(matches!(error.await.unwrap(), StoreError::TimedOut(_)));
        }
    }
    // By itself.
    assert!(store.load(&kept.session_key, now()).await.unwrap().is_some());

    signal("KILL", pid);
    let error = store.load(&kept.session_key, now()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    for error in errors(&cache).await {
        assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_network_that_swallows_everything_is_left_for_a_new_connection() {
    let Some(url) = server(PLAIN) else { return };
    let proxy = Proxy::before(port(&url)).await;
    let cache = at(&with_port(&url, proxy.port())).with_timeout(SHORT).with_connect_timeout(SHORT);
    cache.ping().await.unwrap();
    proxy.set(Mode::Swallow);
    let error = cache.get(&key()).await.unwrap_err();
    assert!(matches!(error, StoreError::TimedOut(_)), "{error:?}");
    let error = cache.get(&key()).await.unwrap_err();
    assert!(matches!(error, StoreError::TimedOut(_)), "{error:?}");
    proxy.set(Mode::Pass);
    assert!(cache.get(&key()).await.unwrap().is_none());
}

/// Every operation, with the connection cut before it, in the middle of its request, and in the middle
/// of its answer, when it has been carried out already.
#[tokio::test]
async fn a_broken_connection_is_made_up_for_at_once() {
    let Some(url) = server(PLAIN) else { return };
    let proxy = Proxy::before(port(&url)).await;
    let cache = at(&with_port(&url, proxy.port()));
    let (one, other) = (Revision::new(&b"one"[..]), Revision::new(&b"other"[..]));
    for (cut, done) in [
        (None, false),
        (Some(Mode::CutRequest), false),
        (Some(Mode::CutAnswer(0)), true),
        (Some(Mode::CutAnswer(1)), true),
        (Some(Mode::CutAnswer(3)), true),
    ] {
        let key = &*key();
        let break_it = async || {
            // There is a connection to be broken.
            cache.ping().await.unwrap();
            if let Some(mode) = cut {
                proxy.set(mode);
            } else {
                proxy.cut();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        break_it().await;
        assert!(!cache.has_key(key).await.unwrap(), "{cut:?}");
        break_it().await;
        let added = cache.add(key, b"one", HOUR).await.unwrap();
        assert_eq!(added, Written::Done(one.clone()), "{cut:?}");
        // Somebody else's is not taken for one's own.
        break_it().await;
        assert_eq!(cache.add(key, b"other", HOUR).await.unwrap(), Written::Changed, "{cut:?}");
        break_it().await;
        assert_eq!(cache.get(key).await.unwrap().unwrap().value, b"one", "{cut:?}");
        break_it().await;
        let replaced = cache.replace(key, b"other", HOUR, Some(&one)).await.unwrap();
        assert_eq!(replaced, Written::Done(other.clone()), "{cut:?}");
        break_it().await;
        let replaced = cache.replace(key, b"new", HOUR, Some(&one)).await.unwrap();
        assert_eq!(replaced, Written::Changed, "{cut:?}");
        break_it().await;
        let replaced = cache.replace(key, b"one", HOUR, None).await.unwrap();
        assert_eq!(replaced, Written::Done(one.clone()), "{cut:?}");
        break_it().await;
        assert!(cache.touch(key, HOUR).await.unwrap(), "{cut:?}");
        break_it().await;
        let deleted = cache.delete(key, Some(&other)).await.unwrap();
        assert_eq!(deleted, Written::Changed, "{cut:?}");
        break_it().await;
        // Who has deleted it cannot be seen any more. Whoever logs out by this must not be told that
        // somebody else has, nor that nobody has.
        match cache.delete(key, Some(&one)).await {
            Ok(deleted) => assert!(!done && matches!(deleted, Written::Done(_)), "{cut:?}"),
            Err(error) => {
                assert!(done && matches!(error, StoreError::Unreachable(_)), "{cut:?}: {error:?}");
            }
        }
        assert!(!cache.has_key(key).await.unwrap(), "{cut:?}");
        cache.add(key, b"one", HOUR).await.unwrap();
        break_it().await;
        cache.delete(key, None).await.unwrap();
        assert!(!cache.has_key(key).await.unwrap(), "{cut:?}");
    }
}

#[tokio::test]
async fn each_operation_is_one_round_trip() {
    let Some(url) = server(PLAIN) else { return };
    let proxy = Proxy::before(port(&url)).await;
    let cache = at(&with_port(&url, proxy.port()));
    let waiting = cache.clone().with_wait(1, Duration::from_millis(1));
    let key = &*key();
    let revision = Revision::new(&b"one"[..]);
    // The server learns the scripts, and the connections are there.
    cache.replace(key, b"", HOUR, Some(&revision)).await.unwrap();
    cache.delete(key, Some(&revision)).await.unwrap();
    waiting.delete(key, None).await.unwrap_err();
    let connections = proxy.connections();
    let mut table = String::new();
    for name in [
        "get", "has_key", "add", "add", "get", "replace", "save", "touch", "remove", "delete",
        "wait",
    ] {
        let before = proxy.turns();
        match name {
            "get" => drop(cache.get(key).await.unwrap()),
            "has_key" => drop(cache.has_key(key).await.unwrap()),
            "add" => drop(cache.add(key, b"one", HOUR).await.unwrap()),
            "replace" => drop(cache.replace(key, b"one", HOUR, None).await.unwrap()),
            "save" => drop(cache.replace(key, b"one", HOUR, Some(&revision)).await.unwrap()),
            "touch" => drop(cache.touch(key, HOUR).await.unwrap()),
            "remove" => drop(cache.delete(key, Some(&revision)).await.unwrap()),
            "delete" => drop(cache.delete(key, None).await.unwrap()),
            _ => drop(waiting.add(key, b"one", HOUR).await.unwrap_err()),
        }
        let turns = proxy.turns() - before;
        let _ = write!(table, " {name} {turns}");
        assert_eq!(turns, 1, "{name}");
    }
    assert_eq!(proxy.connections(), connections);
    eprintln!("round trips to Redis:{table}");
}

#[tokio::test]
async fn each_step_of_a_session_is_one_round_trip() {
    let Some(url) = server(PLAIN) else { return };
    let proxy = Proxy::before(port(&url)).await;
    let store = store_on(at(&with_port(&url, proxy.port())), CacheBackend::Redis);
    let counts = round_trips::count(store, &proxy).await;
    round_trips::print("CacheStore, Redis", counts);
    // A conflict is noticed, read and tried again.
    assert_eq!(counts, [1, 1, 1, 1, 1, 1, 3]);
}

#[tokio::test]
async fn a_rotation_whose_answers_are_lost_loses_no_session() {
    let Some(url) = server(PLAIN) else { return };
    let proxy = Proxy::before(port(&url)).await;
    let store = |url: &str| {
        let keys = CacheKeys::new(CacheEngine::Cache);
        CacheStore::new(at(url), keys, CacheCodec::new(CacheBackend::Redis))
    };
    let through = store(&with_port(&url, proxy.port()));
    let expected = ["done", "done"];
    crate::faults::rotate_without_answers("Redis", through, store(&url), &proxy, None, &expected)
        .await;
}

#[tokio::test]
async fn many_operations_share_a_connection_and_a_lane() {
    let Some(url) = server(PLAIN) else { return };
    let proxy = Proxy::before(port(&url)).await;
    let cache = at(&with_port(&url, proxy.port()));
    let all: Vec<_> = (0..200)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.has_key(&key()).await.unwrap() })
        })
        .collect();
    for one in all {
        assert!(!one.await.unwrap());
    }
    assert_eq!(proxy.connections(), 2);
    // Even when they break for all of them at once, there is one new one of each.
    proxy.cut();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let all: Vec<_> = (0..200)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.has_key(&key()).await.unwrap() })
        })
        .collect();
    for one in all {
        assert!(!one.await.unwrap());
    }
    assert_eq!(proxy.connections(), 4);
}

/// An operation that was given up half way leaves no answer behind for the next one.
#[tokio::test]
async fn who_gives_up_takes_the_lane_along() {
    let Some(url) = server(PLAIN) else { return };
    let proxy = Proxy::before(port(&url)).await;
    let cache = at(&with_port(&url, proxy.port()));
    let (one, other) = (key(), key());
    cache.add(&one, b"one", HOUR).await.unwrap();
    cache.add(&other, b"other", HOUR).await.unwrap();
    for round in 0..200 {
        tokio::select! {
            biased;
            _ = cache.get(&one) => panic!("it was not given up"),
            () = std::future::ready(()) => {}
        }
        for _ in 0..round % 4 {
            let found = cache.get(&other).await.unwrap().unwrap();
            assert_eq!(found.value, b"other", "round {round}");
        }
    }
    assert!(proxy.connections() > 2, "a lane that was lost is made again");
}

#[tokio::test]
async fn a_refused_login_is_an_error_of_the_backend() {
    for variable in ALL {
        let Some(url) = server(variable) else { continue };
        let (scheme, rest) = url.split_once("://").unwrap();
        let (login, places) = rest.rsplit_once('@').unwrap();
        let user = login.split(':').next().unwrap();
        for url in [
            format!("{scheme}://{user}:hunter2@{places}"),
            format!("{scheme}://hunter2:hunter2@{places}"),
            format!("{scheme}://{places}"),
        ] {
            let address = url.parse::<RedisAddress>().unwrap();
            let address = if variable == TLS { address.with_ca(ca()) } else { address };
            let cache = RedisCache::new(&address).unwrap();
            for error in errors(&cache).await {
                assert!(matches!(error, StoreError::Backend(_)), "{variable} {url}: {error:?}");
                let text = whole(&error);
                assert!(text.contains("refused the login") || text.contains("NOAUTH"), "{text}");
                assert!(!text.contains("hunter2"), "{text}");
            }
            assert!(cache.ping().await.is_err());
        }
    }
}

#[tokio::test]
async fn an_unknown_authority_is_no_way_to_the_server() {
    let Some(url) = server(TLS) else { return };
    // Nobody has vouched for it; the other protocol, both ways.
    for url in [url.clone(), url.replacen("rediss", "redis", 1)] {
        let cache = at(&url).with_timeout(SHORT).with_connect_timeout(SHORT);
        for error in errors(&cache).await {
            assert!(error.is_outage() && !matches!(error, StoreError::Busy(_)), "{error:?}");
        }
    }
    let error = at(&url).get(&key()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    assert!(whole(&error).contains("certificate"), "{error:?}");
    if let Some(plain) = server(PLAIN) {
        let address = plain.replacen("redis", "rediss", 1).parse::<RedisAddress>().unwrap();
        let cache = RedisCache::new(&address.with_ca(ca())).unwrap();
        let error = cache.get(&key()).await.unwrap_err();
        assert!(error.is_outage(), "{error:?}");
    }
}

#[tokio::test]
async fn a_replica_takes_no_writes() {
    let Some(servers) = Servers::start("redis-sentinel", SENTINEL) else { return };
    let (_, rest) = servers.url(SENTINEL).split_once("://").unwrap();
    let (login, _) = rest.rsplit_once('@').unwrap();
    let [(_, master), (_, replica), ..] = servers.processes(SENTINEL)[..] else { panic!() };
    let urls = [master, replica].map(|port| format!("redis://{login}@127.0.0.1:{port}/0"));
    let [master, replica] = [at(&urls[0]).with_wait(1, HOUR.unsigned_abs()), at(&urls[1])];

    let key = &*key();
    let revision = Revision::new(&b"value"[..]);
    master.add(key, b"value", HOUR).await.unwrap();
    for _ in 0..2 {
        assert_eq!(replica.get(key).await.unwrap().unwrap().value, b"value");
        for error in [
            replica.add(&self::key(), b"value", HOUR).await.unwrap_err(),
            replica.replace(key, b"other", HOUR, None).await.unwrap_err(),
            replica.replace(key, b"other", HOUR, Some(&revision)).await.unwrap_err(),
            replica.touch(key, HOUR).await.unwrap_err(),
            replica.delete(key, None).await.unwrap_err(),
            replica.delete(key, Some(&revision)).await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
            assert!(whole(&error).contains("READONLY"), "{error:?}");
        }
    }
    // It becomes the master of its own, and the same client writes.
    ask::<()>(&mut raw(&urls[1]).await, &["REPLICAOF", "NO", "ONE"]).await;
    replica.replace(key, b"other", HOUR, Some(&revision)).await.unwrap();
}

/// A server that lacks memory, rights or time, or replicas that it is to have.
#[tokio::test]
async fn what_the_server_says_no_to_is_told() {
    let Some(servers) = Servers::start("redis", PLAIN) else { return };
    let url = servers.url(PLAIN);
    let mut raw = raw(url).await;
    let cache = at(url);
    let key = &*key();
    cache.add(key, b"value", HOUR).await.unwrap();

    ask::<()>(&mut raw, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let revision = Revision::new(&b"value"[..]);
    for error in write_errors(&cache, key).await {
        assert!(matches!(error, StoreError::Backend(_)), "{error:?}");
        assert!(whole(&error).contains("OOM"), "{error:?}");
    }
    // Those who have a session keep it, and can log out.
    assert_eq!(cache.get(key).await.unwrap().unwrap().value, b"value");
    cache.touch(key, HOUR).await.unwrap();
    cache.delete(key, Some(&revision)).await.unwrap();
    ask::<()>(&mut raw, &["CONFIG", "SET", "maxmemory", "0"]).await;

    cache.add(key, b"value", HOUR).await.unwrap();
    ask::<()>(&mut raw, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    for error in write_errors(&cache, key).await {
        assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
        assert!(whole(&error).contains("NOREPLICAS"), "{error:?}");
    }
    ask::<()>(&mut raw, &["CONFIG", "SET", "min-replicas-to-write", "0"]).await;

    let rights = ["ACL", "SETUSER", "few", "on", ">secret", "~*", "+get", "+pttl"];
    ask::<()>(&mut raw, &rights).await;
    let (_, place) = url.rsplit_once('@').unwrap();
    let few = at(&format!("redis://few:secret@{place}"));
    few.ping().await.unwrap();
    assert_eq!(few.get(key).await.unwrap().unwrap().value, b"value");
    for error in
        [few.add(key, b"value", HOUR).await.unwrap_err(), few.delete(key, None).await.unwrap_err()]
    {
        assert!(matches!(error, StoreError::Backend(_)), "{error:?}");
        assert!(whole(&error).contains("NOPERM"), "{error:?}");
        assert!(!whole(&error).contains(key), "{error:?}");
    }

    // Somebody else's script, which is in the way until it is ended.
    ask::<()>(&mut raw, &["CONFIG", "SET", "lua-time-limit", "1"]).await;
    let mut other = super::raw(url).await;
    let running = tokio::spawn(async move {
        redis_script(&mut other, "while true do end").await;
    });
    let mut error = None;
    until("the script runs", async || {
        error = cache.get(key).await.err();
        error.is_some()
    })
    .await;
    let error = error.unwrap();
    assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
    assert!(whole(&error).contains("BUSY"), "{error:?}");
    ask::<()>(&mut raw, &["SCRIPT", "KILL"]).await;
    running.await.unwrap();
    assert_eq!(cache.get(key).await.unwrap().unwrap().value, b"value");

    ask::<()>(&mut raw, &["CONFIG", "SET", "maxclients", "1"]).await;
    let error = at(url).get(key).await.unwrap_err();
    assert!(error.is_outage(), "{error:?}");
}

async fn redis_script(
    connection: &mut django_session::store::redis::aio::MultiplexedConnection,
    text: &str,
) {
    let mut command = django_session::store::redis::cmd("EVAL");
    let _: Result<(), _> = command.arg(text).arg(0).query_async(connection).await;
}

#[tokio::test]
async fn a_write_that_no_replica_confirms_is_not_acknowledged() {
    if let Some(cache) = cache(PLAIN) {
        // There is none.
        let waiting = cache.clone().with_wait(1, Duration::from_millis(10));
        let key = &*key();
        let revision = Revision::new(&b"value"[..]);
        for error in [
            waiting.add(key, b"value", HOUR).await.unwrap_err(),
            waiting.replace(key, b"value", HOUR, None).await.unwrap_err(),
            waiting.replace(key, b"value", HOUR, Some(&revision)).await.unwrap_err(),
            waiting.touch(key, HOUR).await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::TimedOut(_)), "{error:?}");
            assert!(whole(&error).contains("replicas"), "{error:?}");
        }
        // Nothing is undone, and what is read or not written waits for nobody.
        assert_eq!(waiting.get(key).await.unwrap().unwrap().value, b"value");
        assert_eq!(waiting.add(key, b"other", HOUR).await.unwrap(), Written::Changed);
        // A second try finds nothing to delete, and that is not confirmed either.
        for _ in 0..2 {
            let error = waiting.delete(key, None).await.unwrap_err();
            assert!(matches!(error, StoreError::TimedOut(_)), "{error:?}");
        }
        assert!(waiting.get(key).await.unwrap().is_none());

        // A rotation that is not confirmed leaves the old session to who has its key.
        let record = record();
        let store_on = |cache| {
            let keys = CacheKeys::new(CacheEngine::Cache);
            Arc::new(CacheStore::new(cache, keys, CacheCodec::new(CacheBackend::Redis)))
        };
        let direct = store_on(cache.clone());
        let store = store_on(cache.with_wait(1, Duration::from_millis(10)));
        direct.create(&record).await.unwrap();
        let settings = Arc::new(SessionSettings::default());
        let session = Session::new(store, settings, Some(record.session_key.clone()));
        assert!(session.cycle_key().await.is_err());
        assert_eq!(session.session_key().await.as_ref(), Some(&record.session_key));
        assert!(direct.load(&record.session_key, now()).await.unwrap().is_some());
    }
    for variable in [SENTINEL, CLUSTER] {
        let Some(cache) = cache(variable) else { continue };
        let waiting = cache.with_wait(1, Duration::from_secs(10));
        for _ in 0..20 {
            let key = &*key();
            let Written::Done(one) = waiting.add(key, b"one", HOUR).await.unwrap() else {
                panic!()
            };
            waiting.replace(key, b"other", HOUR, Some(&one)).await.unwrap();
            waiting.delete(key, None).await.unwrap();
        }
    }
}

/// Reads go on beside writes that wait for a replica in vain.
#[tokio::test]
async fn a_lost_replica_stops_no_reader() {
    let Some(servers) = Servers::start("redis-sentinel", SENTINEL) else { return };
    let cache = at(servers.url(SENTINEL)).with_timeout(Duration::from_millis(500));
    let cache = cache.with_wait(1, Duration::from_secs(3));
    let key = &*key();
    cache.add(key, b"value", HOUR).await.unwrap();
    let _stopped = Stopped::new(servers.processes(SENTINEL)[1].0);
    let writes: Vec<_> = (0..3)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.add(&self::key(), b"value", HOUR).await })
        })
        .collect();
    let mut reads = 0;
    while !writes.iter().all(tokio::task::JoinHandle::is_finished) {
        assert!(cache.has_key(key).await.unwrap());
        reads += 1;
    }
    assert!(reads > 100, "{reads}");
    for write in writes {
        let error = write.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::TimedOut(_)), "{error:?}");
    }
}

/// Whatever comes back, it is an error, and no task ends in a panic.
#[tokio::test]
async fn answers_that_make_no_sense_are_errors() {
    let answers: [&[u8]; 24] = [
        b"",
        b"\r\n",
        b"hunter2\r\n",
        b"+OK\r\n+OK\r\n+OK\r\n",
        b"+hunter2\r\n+hunter2\r\n",
        b":7\r\n:7\r\n",
        b":99999999999999999999\r\n",
        b":-1\r\n$-1\r\n",
        b"$-1\r\n$-1\r\n:-2\r\n:-2\r\n+\r\n",
        b"$-2\r\n",
        b"$7\r\nhunter2\r\n$7\r\nhunter2\r\n",
        b"$9223372036854775807\r\nhunter2",
        b"*-5\r\n",
        b"*2\r\n$7\r\nhunter2\r\n:1\r\n*0\r\n",
        b"*2147483647\r\n",
        b"%1\r\n+a\r\n+b\r\n_\r\n",
        b"-\r\n-\r\n",
        b"-hunter2\r\n-hunter2\r\n",
        b"-ERR hunter2\r\n-MOVED hunter2 hunter2\r\n",
        b"-MOVED\r\n-ASK\r\n-NOSCRIPT\r\n-NOSCRIPT\r\n",
        b">2\r\n+invalidate\r\n*0\r\n",
        b"|1\r\n+a\r\n+b\r\n:1\r\n",
        b"\xff\xfe\xfd\r\n\0\0\0\r\n+\xff\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ];
    let deep = [&b"*1\r\n".repeat(10_000)[..], b":1\r\n"].concat();
    for answer in answers.into_iter().chain([&deep[..]]) {
        for with_end in [true, false] {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let answer = answer.to_vec();
            let server = tokio::spawn(async move {
                while let Ok((mut client, _)) = listener.accept().await {
                    let answer = answer.clone();
                    tokio::spawn(async move {
                        let mut request = vec![0; 65536];
                        while let Ok(1..) = client.read(&mut request).await {
                            if client.write_all(&answer).await.is_err() || with_end {
                                break;
                            }
                        }
                    });
                }
            });
            for url in [
                format!("redis://127.0.0.1:{port}"),
                format!("redis://u:p@127.0.0.1:{port}/1"),
                format!("redis+cluster://127.0.0.1:{port}"),
                format!("redis+sentinel://127.0.0.1:{port}/service"),
            ] {
                let short = Duration::from_millis(30);
                let cache = at(&url).with_timeout(short).with_connect_timeout(short);
                let (key, revision) = (&*key(), Revision::new(&b"value"[..]));
                let results = [
                    cache.get(key).await.err(),
                    cache.has_key(key).await.err(),
                    cache.add(key, b"value", HOUR).await.err(),
                    cache.replace(key, b"value", HOUR, None).await.err(),
                    cache.replace(key, b"value", HOUR, Some(&revision)).await.err(),
                    cache.touch(key, HOUR).await.err(),
                    cache.delete(key, None).await.err(),
                    cache.delete(key, Some(&revision)).await.err(),
                ];
                for error in results.into_iter().flatten() {
                    assert!(error.is_outage(), "{error:?}");
                    assert!(!whole(&error).contains("hunter2"), "{}", whole(&error));
                }
            }
            server.abort();
        }
    }
}

#[tokio::test]
async fn no_error_shows_a_key_or_a_payload() {
    let Some(servers) = Servers::start("redis", PLAIN) else { return };
    let url = servers.url(PLAIN);
    let mut raw = raw(url).await;
    let cache = at(url);
    let key = &*key();
    let payload = "the payload of the session";
    // A server that does not know a command repeats what it was given.
    drop(cache.clone());
    let error = {
        let mut command = django_session::store::redis::cmd("GTE");
        let answer: Result<(), _> = command.arg(key).arg(payload).query_async(&mut raw).await;
        format!("{}", answer.unwrap_err())
    };
    assert!(error.contains(key), "the driver's error shows it: {error}");
    ask::<()>(&mut raw, &["CONFIG", "SET", "proto-max-bulk-len", "1mb"]).await;
    let large = payload.repeat(100_000);
    let errors = [
        cache.add(key, large.as_bytes(), HOUR).await.unwrap_err(),
        cache
            .replace(key, large.as_bytes(), HOUR, Some(&Revision::new(payload.as_bytes())))
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_outage(), "{error:?}");
        let text = whole(&error);
        assert!(!text.contains(key) && !text.contains(payload), "{text}");
    }
    let shown = format!("{cache:?} {cache:#?}");
    let password = url.split([':', '@']).nth(2).unwrap();
    assert!(!shown.contains(password) && !shown.contains("tester"), "{shown}");
}

#[tokio::test]
async fn the_error_of_the_driver_can_be_asked_for() {
    let Some(cache) = cache(PLAIN) else { return };
    let Some(url) = server(PLAIN) else { return };
    let key = &*key();
    ask::<()>(&mut raw(&url).await, &["HSET", key, "field", "value"]).await;
    let error = cache.get(key).await.unwrap_err();
    let StoreError::Backend(source) = &error else { panic!("{error:?}") };
    let error = source.downcast_ref::<RedisError>().unwrap().as_redis().unwrap();
    assert_eq!(error.code(), Some("WRONGTYPE"));
}
