//! What a caller of `CachedDbStore` sees when its cache or its database, or the way to one of them, fails
//! at each of the requests of a step.
//!
//! Whatever happens: a session that is there is never "not there", a change that was acknowledged is what
//! everybody reads, a running Django too, and of a session that was deleted no copy is left. The table
//! that the tests print is the one in `docs/compatibility.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use django_session::store::{CachedDbStore, RedisAddress, RedisCache, SqlStore};
use django_session::{Session, SessionError, SessionKey, SessionStore as _, StoreError};
use serde_json::{Map, Value, json};

use super::site::{Before, Site};
use crate::proxy::{Mode, Proxy};
use crate::servers::{Servers, Stopped, signal};
use crate::sides::Django;
use crate::stores::{Kind, Place, ddl, execute, now, settings, until};

const STEPS: [&str; 7] = ["load", "load a row", "create", "save", "touch", "rotate", "delete"];
const SHORT: Duration = Duration::from_millis(250);
/// More than any step has.
const MOST_REQUESTS: usize = 12;

/// What came of each step, for the table.
#[derive(Default)]
struct Seen(BTreeMap<(String, &'static str), BTreeSet<String>>);

impl Seen {
    fn note(&mut self, fault: &str, step: &'static str, outcome: &str) {
        self.0.entry((fault.to_owned(), step)).or_default().insert(outcome.to_owned());
    }

    fn print(&self, name: &str) {
        let faults: BTreeSet<_> = self.0.keys().map(|(fault, _)| fault).collect();
        for fault in faults {
            let outcomes = STEPS.iter().filter_map(|&step| {
                let outcomes = self.0.get(&(fault.clone(), step))?;
                let outcomes: Vec<_> = outcomes.iter().map(String::as_str).collect();
                Some(format!("{step}: {}", outcomes.join(" or ")))
            });
            eprintln!("{name}, {fault}: {}", outcomes.collect::<Vec<_>>().join(", "));
        }
    }
}

fn outcome_of<T>(outcome: &Result<T, SessionError>) -> &'static str {
    match outcome {
        Ok(_) => "done",
        Err(SessionError::Store(error)) => {
            assert!(error.is_outage(), "an outage, not {error:?}");
            match error {
                StoreError::Busy(_) => "busy",
                StoreError::TimedOut(_) => "timed out",
                StoreError::Unreachable(_) => "unreachable",
                _ => "refused",
            }
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// A session that is there for everybody.
async fn make(store: &CachedDbStore) -> SessionKey {
    let session = request(store, None);
    session.insert("number", &1).await.unwrap();
    session.insert("_auth_user_id", &7).await.unwrap();
    session.save().await.unwrap();
    session.session_key().await.unwrap()
}

fn request(store: &CachedDbStore, key: Option<SessionKey>) -> Session {
    Session::new(Arc::new(store.clone()), Arc::new(settings()), key)
}

/// What of a step can be done before anything fails.
async fn prepare(step: &str, store: &CachedDbStore, key: &SessionKey) -> Session {
    let session = request(store, Some(key.clone()).filter(|_| step != "create"));
    if !step.starts_with("load") {
        session.data().await.unwrap();
    }
    if matches!(step, "create" | "save") {
        session.insert("number", &3).await.unwrap();
    }
    session
}

async fn act(step: &str, session: &Session, at: &str) -> Result<(), SessionError> {
    match step {
        "load" | "load a row" => session.get::<u64>("number").await.map(|number| {
            assert_eq!(number, Some(1), "{at}: nobody is logged out");
        }),
        "create" | "save" => session.save().await,
        "touch" => session.touch().await.map(|moved| assert!(moved, "{at}")),
        "rotate" => session.cycle_key().await,
        _ => session.flush().await,
    }
}

/// A table and a cache, each behind a proxy of its own.
struct Bench {
    site: Site,
    /// Past the proxies.
    direct: CachedDbStore,
    django: Option<Django>,
    to_cache: Proxy,
    to_table: Proxy,
}

impl Bench {
    async fn new(kind: Kind) -> Option<Self> {
        let site = Site::new(kind, Before::Redis).await?;
        let direct = site.store().await;
        let django = site.django().map(Django);
        let to_cache = Proxy::before(port_of(&site.location)).await;
        let to_table = Proxy::before(port_of(&site.place.url)).await;
        Some(Self { site, direct, django, to_cache, to_table })
    }

    /// A store whose way leads through the proxies.
    async fn store(&self) -> CachedDbStore {
        let url = with_port(&self.site.place.url, self.to_table.port());
        // One connection, so that each step has the same requests each time.
        let url = format!("{url}?acquire_timeout=1&timeout=0.25&max_connections=1");
        let db = SqlStore::connect(&url, &settings()).await.unwrap();
        let address = with_port(&self.site.location, self.to_cache.port());
        let cache = RedisCache::new(&address.parse::<RedisAddress>().unwrap()).unwrap();
        let cache = cache.with_timeout(SHORT).with_connect_timeout(SHORT);
        self.site.store_on(db.with_table(&self.site.place.table), cache)
    }

    /// What everybody reads who has nothing to do with the fault: they agree.
    async fn read(&mut self, key: &SessionKey, at: &str) -> Option<Map<String, Value>> {
        let found = self.direct.load(key, now()).await.unwrap();
        let found = found.map(|found| {
            serde_json::from_str::<Map<_, _>>(&found.data.to_json().unwrap()).unwrap()
        });
        if let Some(django) = &mut self.django {
            let load = json!({"step": "load", "key": key.as_str()});
            let of_django = django.step(&load);
            assert_eq!(of_django, found.clone().map_or(Value::Null, Value::Object), "{at}");
        }
        found
    }

    /// The row, past all copies.
    async fn row(&self, key: &SessionKey) -> Option<u64> {
        let row = self.direct.db().load(key, now()).await.unwrap()?;
        row.data.get("number").unwrap()
    }

    /// Takes a step, of which the request that `mode` says fails, and looks at what it left.
    async fn step(&mut self, step: &'static str, side: Side, mode: Mode) -> Option<String> {
        let at = &format!("{:?}, {step}, {side:?}, {mode:?}", self.site.place.kind);
        let store = self.store().await;
        let key = make(&self.direct).await;
        if step == "load a row" {
            self.site.drop_copy(key.as_str(), false).await;
        }
        let session = prepare(step, &store, &key).await;
        // The connections are there.
        store.load_latest(&SessionKey::generate(), now()).await.unwrap();
        let proxy = if side == Side::Cache { &self.to_cache } else { &self.to_table };
        proxy.set(mode);
        let outcome = act(step, &session, at).await;
        let is_beyond = proxy.mode() != Mode::Pass && proxy.mode() != Mode::Swallow;
        proxy.set(Mode::Pass);
        let remark = self.check(step, &session, &key, &outcome, at).await;
        (!is_beyond).then(|| format!("{}{remark}", outcome_of(&outcome)))
    }

    async fn check(
        &mut self,
        step: &str,
        session: &Session,
        key: &SessionKey,
        outcome: &Result<(), SessionError>,
        at: &str,
    ) -> &'static str {
        let row = self.row(key).await;
        let read = self.read(key, at).await.map(|data| data["number"].as_u64().unwrap());
        let done = outcome.is_ok();
        match step {
            "load" | "load a row" | "touch" | "create" => {
                assert_eq!((row, read), (Some(1), Some(1)), "{at}: it is left alone");
                if done && step == "create" {
                    let key = session.session_key().await.unwrap();
                    let read = self.read(&key, at).await.unwrap();
                    assert_eq!(read["number"], 3, "{at}: what was created is there");
                }
            }
            "save" if done => {
                assert_eq!((row, read), (Some(3), Some(3)), "{at}: what was acknowledged is there");
            }
            "save" => {
                // Nobody knows whether it took effect.
                assert!(
                    matches!((row, read), (Some(1 | 3), Some(1 | 3))),
                    "{at}: {row:?} {read:?}"
                );
                session.save().await.unwrap();
                let again = self.read(key, at).await.unwrap();
                assert_eq!(
                    (again["number"].as_u64(), self.row(key).await),
                    (Some(3), Some(3)),
                    "{at}"
                );
            }
            "rotate" => {
                let new = session.session_key().await.filter(|new| new != key);
                if done {
                    assert_eq!((row, read), (None, None), "{at}: the old one is gone");
                    let read = self.read(&new.unwrap(), at).await.unwrap();
                    assert_eq!(read["number"], 1, "{at}: the new one is there");
                } else if row.is_none() {
                    // It broke off behind the delete of the old one, or it is not known who deleted it.
                    assert_eq!(read, None, "{at}: no copy without a row");
                    return " (the old one is gone)";
                } else {
                    assert_eq!((row, read), (Some(1), Some(1)), "{at}: it can be tried again");
                }
            }
            _ => {
                assert_eq!(row, read, "{at}: no copy without a row");
                assert!(!done || row.is_none(), "{at}: what was deleted is gone");
                session.flush().await.unwrap();
                assert_eq!(self.read(key, at).await, None, "{at}");
                assert!(self.site.copy(key.as_str()).await.is_none(), "{at}");
            }
        }
        ""
    }
}

/// Which of the two fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Cache,
    Table,
}

pub(super) fn port_of(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.split_once('/').unwrap().0.parse().unwrap()
}

pub(super) fn with_port(url: &str, port: u16) -> String {
    let (head, rest) = url.rsplit_once(':').unwrap();
    format!("{head}:{port}/{}", rest.split_once('/').unwrap().1)
}

/// Each request of each step is the one that fails, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_request_of_any_step_loses_nothing() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(mut bench) = Bench::new(kind).await else { continue };
        let mut seen = Seen::default();
        let mut faults = 0;
        for side in [Side::Cache, Side::Table] {
            for (name, mode) in [
                ("reset before the request", (|after| Mode::CutLaterRequest(after)) as fn(_) -> _),
                ("reset before the answer", |after| Mode::CutLaterAnswer(after)),
                ("no answer", |after| Mode::SwallowLater(after)),
            ] {
                for step in STEPS {
                    for after in 0..MOST_REQUESTS {
                        let Some(outcome) = bench.step(step, side, mode(after)).await else {
                            break;
                        };
                        assert!(after + 1 < MOST_REQUESTS, "{step} has more requests");
                        faults += 1;
                        seen.note(&format!("{side:?}: {name}"), step, &outcome);
                    }
                }
            }
        }
        seen.print(&format!("CachedDbStore, {kind:?} and Redis, {faults} faults"));
        assert!(faults > 80, "{faults}");
    }
}

/// A cache of its own, which is stopped for a while, with everything in it, and then killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_stops_or_dies_loses_nothing() {
    let variable = "TEST_REDIS_URL";
    let Some(servers) = Servers::start("redis", variable) else { return };
    let [(pid, _)] = servers.processes(variable)[..] else { panic!() };
    let Some(place) = Place::new(Kind::Postgres).await else { return };
    let cache = RedisCache::new(&servers.url(variable).parse::<RedisAddress>().unwrap()).unwrap();
    let cache = cache.with_timeout(SHORT).with_connect_timeout(SHORT);
    let store = CachedDbStore::new(place.store().await, cache, super::keys(), super::codec());
    let mut seen = Seen::default();
    for (fault, expected) in [("stopped", "timed out"), ("killed", "unreachable")] {
        let mut sessions = Vec::new();
        for step in STEPS {
            let key = make(&store).await;
            sessions.push((step, prepare(step, &store, &key).await, key));
        }
        let stopped = (fault == "stopped").then(|| Stopped::new(pid));
        if stopped.is_none() {
            signal("KILL", pid);
        }
        let mut outcomes = Vec::new();
        for (step, session, _) in &sessions {
            outcomes.push(act(step, session, fault).await);
        }
        drop(stopped);
        for ((step, session, key), outcome) in sessions.iter().zip(outcomes) {
            let at = format!("{fault}, {step}");
            seen.note(&format!("cache {fault}"), step, outcome_of(&outcome));
            let needs_cache = matches!(*step, "save" | "rotate" | "delete");
            assert_eq!(outcome_of(&outcome), if needs_cache { expected } else { "done" }, "{at}");
            // What was in the cache is there again, or the row alone is read.
            let found = store.load(key, now()).await.unwrap().expect("nobody is logged out");
            let number = found.data.get::<u64>("number").unwrap();
            assert!(number == Some(1) || *step == "save" && number == Some(3), "{at}: {number:?}");
            if fault == "stopped" && *step == "delete" {
                session.flush().await.unwrap();
                assert!(store.load(key, now()).await.unwrap().is_none(), "{at}");
            }
        }
    }
    seen.print("CachedDbStore, Postgres and Redis");
}

/// Whoever has a copy does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_table_a_session_can_be_read() {
    let variable = "TEST_POSTGRES_URL";
    let Some(servers) = Servers::start("postgres", variable) else { return };
    let [(pid, _)] = servers.processes(variable)[..] else { panic!() };
    let url = format!("{}?acquire_timeout=1&timeout=0.25&max_connections=3", servers.url(variable));
    let db = SqlStore::connect(&url, &settings()).await.unwrap();
    for statement in ddl(Kind::Postgres) {
        execute(db.pool(), &statement).await;
    }
    let Some(site) = Site::new(Kind::Sqlite, Before::Redis).await else { return };
    let store = site.store_on(db, Arc::clone(&site.cache));
    let mut sessions = Vec::new();
    for step in STEPS {
        let key = make(&store).await;
        if step == "load a row" {
            site.drop_copy(key.as_str(), false).await;
        }
        sessions.push((step, prepare(step, &store, &key).await));
    }
    signal("KILL", pid);
    // Until all of its processes have ended.
    until("the server ends", async || store.db().exists(&SessionKey::generate()).await.is_err())
        .await;
    let mut seen = Seen::default();
    for (step, session) in &sessions {
        let outcome = act(step, session, step).await;
        seen.note("table killed", step, outcome_of(&outcome));
        let expected = if *step == "load" { "done" } else { "unreachable" };
        assert_eq!(outcome_of(&outcome), expected, "{step}");
    }
    seen.print("CachedDbStore, Postgres and Redis");
}

/// Between the two steps of a logout, at the worst moment there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_fails_within_a_logout_leaves_no_copy() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(mut bench) = Bench::new(kind).await else { continue };
        let store = bench.store().await;
        let key = make(&bench.direct).await;
        let holder = bench.site.place.hold(&key).await;
        let session = request(&store, Some(key.clone()));
        let logout = tokio::spawn(async move { (session.flush().await, session) });
        // It takes the copy away, and waits for the row.
        for _ in 0..400 {
            if bench.site.copy(key.as_str()).await.is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(bench.site.copy(key.as_str()).await.is_none(), "{kind:?}: before the row");
        bench.to_cache.set(Mode::Swallow);
        drop(holder);
        let (outcome, session) = logout.await.unwrap();
        bench.to_cache.set(Mode::Pass);
        let outcome = outcome_of(&outcome);
        assert!(matches!(outcome, "timed out" | "unreachable"), "{outcome}");
        let at = format!("{kind:?}");
        let (row, read) = (bench.row(&key).await, bench.read(&key, &at).await);
        assert_eq!(row.is_some(), read.is_some(), "{at}: no copy without a row");
        session.flush().await.unwrap();
        assert_eq!(bench.read(&key, &at).await, None, "{at}");
    }
}

/// What the rules above are for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn django_hides_a_change_and_brings_a_session_back_when_its_cache_does_not_answer() {
    let Some(mut site) = Site::new(Kind::Postgres, Before::Redis).await else { return };
    let proxy = Proxy::before(port_of(&site.location)).await;
    site.location = with_port(&site.location, proxy.port());
    let mut settings = site.django_settings();
    let limits = json!({"socket_timeout": 0.3, "socket_connect_timeout": 0.3});
    settings["CACHES"]["default"]["OPTIONS"] = limits;
    let Some(engine) = crate::differential::Engine::start(&settings) else { return };
    let mut django = Django(engine);
    let created = django.step(&json!({"step": "create", "data": {"number": 1}}));
    let key = created.as_str().unwrap();
    let load = json!({"step": "load", "key": key});

    assert_eq!(django.step(&json!({"step": "hold", "key": key})), json!(true));
    proxy.set(Mode::Swallow);
    let saved = django.step(&json!({"step": "late", "data": {"number": 2}}));
    assert_eq!(saved, json!(true), "it is acknowledged");
    proxy.set(Mode::Pass);
    assert_eq!(django.step(&load), json!({"number": 1}), "and not to be seen");

    proxy.set(Mode::Swallow);
    let deleted = django.0.ask(&json!({"op": "flush", "key": key}));
    assert!(deleted["raised"].is_string(), "{deleted}");
    proxy.set(Mode::Pass);
    assert!(site.place.select("SELECT session_key FROM {table}").await.is_empty());
    assert_eq!(django.step(&load), json!({"number": 1}), "it is back");
}
