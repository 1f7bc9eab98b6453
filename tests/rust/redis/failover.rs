//! A master is lost while sessions are read and written, or hands them on.
//!
//! Writes wait for the replica, so what is acknowledged is not lost with the master. Everything else is
//! told by an error.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use django_session::codec::cache::{CacheBackend, CacheCodec};
use django_session::session::{Revision, SessionRecord};
use django_session::store::{Cache as _, CacheStore, RedisAddress, RedisCache, Written};
use django_session::{SessionData, SessionKey, SessionStore as _, StoreError};

use super::{CLUSTER, HOUR, SENTINEL, ask, keys, now, raw, record};
use crate::servers::{Servers, signal};

const WORKERS: usize = 8;
/// How long servers may take until there is a new master, and the client to find it.
const PATIENCE: Duration = Duration::from_secs(90);

/// A session whose last save was acknowledged.
struct Known {
    record: SessionRecord,
    /// What it may hold instead, since a save has failed.
    possible: Vec<Arc<SessionData>>,
}

impl Known {
    fn may_hold(&self, data: &SessionData) -> bool {
        *self.record.data == *data || self.possible.iter().any(|possible| **possible == *data)
    }

    fn is(&mut self, record: SessionRecord) {
        self.record = record;
        self.possible.clear();
    }
}

/// What the callers saw, counted.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, usize>>>);

impl Seen {
    fn outcome(&self, step: &str, outcome: &str) {
        *self.0.lock().unwrap().entry(format!("{step}: {outcome}")).or_default() += 1;
    }

    fn error(&self, step: &str, error: &StoreError) {
        assert!(error.is_outage(), "{step}: {error:?}");
        let error = format!("{error:?}");
        self.outcome(step, error.split('(').next().unwrap());
    }
}

/// What is known of the sessions of a worker in the end.
#[derive(Default)]
struct Ledger {
    kept: Vec<Known>,
    deleted: Vec<SessionKey>,
}

/// Creates, loads, saves and deletes until it is told to stop.
async fn work(store: CacheStore, stop: Arc<AtomicBool>, seen: Seen) -> Ledger {
    let mut ledger = Ledger::default();
    let mut round = 0_usize;
    while !stop.load(Ordering::SeqCst) {
        round += 1;
        let mut new = record();
        match store.create(&new).await {
            Ok(saved) => {
                new.revision = saved.revision;
                ledger.kept.push(Known { record: new, possible: Vec::new() });
                seen.outcome("create", "done");
            }
            // The driver of a cluster has sent it twice.
            Err(StoreError::Create) => seen.outcome("create", "exists"),
            Err(error) => seen.error("create", &error),
        }
        if ledger.kept.is_empty() {
            continue;
        }
        let index = round.wrapping_mul(7919) % ledger.kept.len();
        let known = &mut ledger.kept[index];
        match store.load(&known.record.session_key, now()).await {
            Ok(Some(loaded)) => {
                assert!(known.may_hold(&loaded.data), "it holds what nobody has saved");
                known.is(loaded);
                seen.outcome("load", "done");
            }
            Ok(None) => panic!("an acknowledged session is gone"),
            Err(error) => seen.error("load", &error),
        }
        let mut data = (*known.record.data).clone();
        data.insert("round", &round).unwrap();
        let mut next = SessionRecord { data: Arc::new(data), ..known.record.clone() };
        match store.save(&next).await {
            Ok(saved) => {
                next.revision = saved.revision;
                known.is(next);
                seen.outcome("save", "done");
            }
            // What was there is what a save that failed before has left, or this one in its first try.
            Err(StoreError::Conflict) => {
                known.possible.push(next.data);
                seen.outcome("save", "conflict");
            }
            Err(error) => {
                known.possible.push(next.data);
                seen.error("save", &error);
            }
        }
        if round.is_multiple_of(5) {
            let gone = ledger.kept.swap_remove(index).record.session_key;
            match store.delete(&gone).await {
                Ok(()) => {
                    ledger.deleted.push(gone);
                    seen.outcome("delete", "done");
                }
                // It may be there or not.
                Err(error) => seen.error("delete", &error),
            }
        }
    }
    ledger
}

async fn check(name: &str, variable: &str, how: &str) {
    let Some(servers) = Servers::start(name, variable) else { return };
    let address: RedisAddress = servers.url(variable).parse().unwrap();
    let cache = RedisCache::new(&address).unwrap();
    let cache = cache
        .with_timeout(Duration::from_millis(500))
        .with_connect_timeout(Duration::from_millis(500));
    let keys = keys();
    let store = |cache| CacheStore::new(cache, keys.clone(), CacheCodec::new(CacheBackend::Redis));
    let waiting = store(cache.clone().with_wait(1, Duration::from_millis(300)));
    let store = store(cache);

    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Seen::default());
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| tokio::spawn(work(waiting.clone(), Arc::clone(&stop), seen.clone())))
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;

    let master = servers.processes(variable)[0].0;
    signal(how, master);
    let lost = Instant::now();
    // A failure may take a moment to be seen. Then, that all is well again, for keys in all places.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut failures = 0;
    'again: loop {
        assert!(
            lost.elapsed() < PATIENCE,
            "{name}: the client finds no master; {failures} failures"
        );
        for _ in 0..60 {
            if let Err(error) = store.create(&record()).await {
                assert!(error.is_outage() || error.is_create(), "{error:?}");
                failures += 1;
                continue 'again;
            }
        }
        break;
    }
    let recovered = lost.elapsed();
    if how == "STOP" {
        // It comes back, and has to learn that it is no master any more.
        signal("CONT", master);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    stop.store(true, Ordering::SeqCst);

    let (mut kept, mut deleted) = (0, 0);
    for worker in workers {
        let ledger = worker.await.unwrap();
        for known in ledger.kept {
            let loaded = store.load(&known.record.session_key, now()).await.unwrap();
            let loaded = loaded.expect("an acknowledged session is there");
            assert!(known.may_hold(&loaded.data), "it holds what nobody has saved");
            kept += 1;
        }
        for gone in ledger.deleted {
            assert!(store.load(&gone, now()).await.unwrap().is_none(), "what is deleted stays so");
            deleted += 1;
        }
    }
    assert!(failures > 0, "{name}: nobody noticed, so nothing is shown");
    eprintln!(
        "{name}, master lost by SIG{how}: again after {recovered:.1?}; {kept} acknowledged sessions all \
         there, {deleted} deleted ones all gone; the callers saw {:?}",
        seen.0.lock().unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_replace_a_master_that_is_killed() {
    check("redis-sentinel", SENTINEL, "KILL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_replace_a_master_that_hangs() {
    check("redis-sentinel", SENTINEL, "STOP").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_replaces_a_master_that_is_killed() {
    check("redis-cluster", CLUSTER, "KILL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_replaces_a_master_that_hangs() {
    check("redis-cluster", CLUSTER, "STOP").await;
}

/// Half of the keys of a slot are at one node already, half still at the other.
#[tokio::test]
async fn keys_that_move_between_nodes_are_followed() {
    let Some(servers) = Servers::start("redis-cluster", CLUSTER) else { return };
    let url = servers.url(CLUSTER);
    let (login, _) = url.strip_prefix("redis+cluster://").unwrap().rsplit_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let cache = RedisCache::new(&url.parse::<RedisAddress>().unwrap()).unwrap();
    let keys: Vec<_> = (0..20).map(|number| format!("{{tag}}{number}")).collect();
    for key in &keys[..10] {
        cache.add(key, b"one", HOUR).await.unwrap();
    }

    let mut masters = Vec::new();
    for (_, port) in &servers.processes(CLUSTER)[..3] {
        let mut master = raw(&format!("redis://{login}@127.0.0.1:{port}")).await;
        let id: String = ask(&mut master, &["CLUSTER", "MYID"]).await;
        masters.push((master, id, port.to_string()));
    }
    let slot: u16 = ask(&mut masters[0].0, &["CLUSTER", "KEYSLOT", &keys[0]]).await;
    // A third of the 16384 slots each, in the order of their start.
    let from = masters.remove(usize::from(slot) * 3 / 16384);
    let (mut from, from_id, _) = from;
    let (mut to, to_id, port) = masters.remove(0);
    let slot = slot.to_string();
    ask::<()>(&mut to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
    ask::<()>(&mut from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
    for key in &keys[..5] {
        let moved = ["MIGRATE", "127.0.0.1", &port, key, "0", "5000", "AUTH2", user, password];
        ask::<()>(&mut from, &moved).await;
    }

    let (one, other) = (Revision::new(&b"one"[..]), Revision::new(&b"other"[..]));
    for (number, key) in keys.iter().enumerate() {
        if number < 10 {
            assert_eq!(cache.get(key).await.unwrap().unwrap().value, b"one", "{number}");
            assert_eq!(cache.add(key, b"new", HOUR).await.unwrap(), Written::Changed, "{number}");
        } else {
            assert!(cache.get(key).await.unwrap().is_none(), "{number}");
            cache.add(key, b"one", HOUR).await.unwrap();
        }
        assert!(cache.has_key(key).await.unwrap(), "{number}");
        assert!(cache.touch(key, HOUR).await.unwrap(), "{number}");
        let replaced = cache.replace(key, b"other", HOUR, Some(&one)).await.unwrap();
        assert_eq!(replaced, Written::Done(other.clone()), "{number}");
        assert_eq!(cache.delete(key, Some(&one)).await.unwrap(), Written::Changed, "{number}");
    }
    for key in &keys[5..10] {
        let moved = ["MIGRATE", "127.0.0.1", &port, key, "0", "5000", "AUTH2", user, password];
        ask::<()>(&mut from, &moved).await;
    }
    for node in [&mut to, &mut from] {
        ask::<()>(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
    }
    for key in &keys {
        assert_eq!(cache.get(key).await.unwrap().unwrap().value, b"other");
        assert!(matches!(cache.delete(key, Some(&other)).await.unwrap(), Written::Done(_)));
    }
}
