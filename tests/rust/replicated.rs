//! PostgreSQL where one server is outgrown: a replica that lags, and PgBouncer in front.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use django_session::session::SessionRecord;
use django_session::store::{ReplicatedStore, SqlStore, testing};
use django_session::{Session, SessionKey, SessionStore};

use crate::lost_updates;
use crate::proxy::{Mode, Proxy};
use crate::servers::Servers;
use crate::stores::{Kind, Place, now, record, server, settings, until};

/// A replica with the table, whose replay a test can hold. Tests that do so take turns.
struct Replica {
    place: Place,
    url: String,
    #[expect(dead_code, reason = "it is given back in the end")]
    turn: tokio::sync::MutexGuard<'static, ()>,
}

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Replica {
    async fn new() -> Option<Self> {
        let turn = TURN.lock().await;
        let url = server("TEST_POSTGRES_REPLICA_URL")?;
        let replica = Self { place: Place::new(Kind::Postgres).await?, url, turn };
        replica.resume().await;
        Some(replica)
    }

    async fn reader(&self) -> SqlStore {
        self.reader_at(&self.url).await
    }

    async fn reader_at(&self, url: &str) -> SqlStore {
        SqlStore::connect(url, &settings()).await.unwrap().with_table(&self.place.table)
    }

    /// As another process would have it.
    async fn store(&self) -> ReplicatedStore {
        ReplicatedStore::new(self.place.store().await, self.reader().await)
    }

    async fn execute(&self, sql: &str) {
        crate::stores::execute(self.reader().await.pool(), sql).await;
    }

    async fn select(&self, sql: &str) -> Vec<String> {
        crate::stores::select(self.reader().await.pool(), sql).await
    }

    async fn pause(&self) {
        self.execute("SELECT pg_wal_replay_pause()").await;
        let paused = "SELECT pg_get_wal_replay_pause_state()";
        until("the replica pauses", async || self.select(paused).await == ["paused"]).await;
    }

    /// Goes on, and waits until the replica has everything.
    async fn resume(&self) {
        self.execute("SELECT pg_wal_replay_resume()").await;
        let wanted = self.place.select("SELECT pg_current_wal_lsn()::text").await.remove(0);
        let reached = format!("SELECT (pg_last_wal_replay_lsn() >= '{wanted}')::text");
        until("the replica has it", async || self.select(&reached).await == ["true"]).await;
    }
}

#[tokio::test]
async fn the_contract_holds_however_the_replica_lags() {
    let Some(replica) = Replica::new().await else { return };
    for paused in [false, true] {
        if paused {
            replica.pause().await;
        }
        let make = async || {
            replica.place.execute("DELETE FROM {table}").await;
            Arc::new(replica.store().await)
        };
        testing::check_contract(make, now()).await;
    }
    replica.resume().await;
}

/// A store whose reads show by whom they are answered.
struct Watched {
    store: ReplicatedStore,
    primary: Proxy,
}

impl Watched {
    async fn new(replica: &Replica, reader: SqlStore, settle: Duration) -> Self {
        let primary = Proxy::before(port_of(&replica.place.url)).await;
        let url = through(&replica.place.url, &primary);
        let writer = replica.reader_at(&url).await;
        let store = ReplicatedStore::new(writer, reader).with_settle_time(settle);
        Self { store, primary }
    }

    /// Whether the replica answers, as far as the primary is not asked meanwhile how far it is.
    async fn reads_replica(&self, session_key: &SessionKey) -> bool {
        let before = self.primary.turns();
        assert!(self.store.load(session_key, now()).await.unwrap().is_some());
        self.primary.turns() == before
    }

    /// Reads until the replica answers.
    async fn trust(&self, session_key: &SessionKey) {
        for _ in 0..1_000 {
            if self.reads_replica(session_key).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the replica never answers");
    }
}

fn port_of(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.split_once('/').unwrap().0.parse().unwrap()
}

fn through(url: &str, proxy: &Proxy) -> String {
    let (head, rest) = url.rsplit_once(':').unwrap();
    format!("{head}:{}/{}", proxy.port(), rest.split_once('/').unwrap().1)
}

/// Longer than any test.
const LONG: Duration = Duration::from_mins(10);
const SETTLE: Duration = Duration::from_millis(400);

fn request(store: &ReplicatedStore, record: &SessionRecord) -> Session {
    let key = Some(record.session_key.clone());
    Session::new(Arc::new(store.clone()), Arc::new(settings()), key)
}

/// Two processes, of which the second reads what the first one did before.
#[tokio::test]
async fn an_old_answer_neither_loses_a_change_nor_brings_a_session_back() {
    let Some(replica) = Replica::new().await else { return };
    let one = replica.store().await;
    let watched = Watched::new(&replica, replica.reader().await, LONG).await;
    let (kept, ended) = (record(now()), record(now()));
    for record in [&kept, &ended] {
        one.create(record).await.unwrap();
    }
    replica.resume().await;
    watched.trust(&kept.session_key).await;
    let other = &watched.store;
    replica.pause().await;

    // A session that is too new for the replica is not lost.
    let new = record(now());
    one.create(&new).await.unwrap();
    assert!(other.load(&new.session_key, now()).await.unwrap().is_some());

    let first = request(&one, &kept);
    first.insert("first", &1).await.unwrap();
    first.save().await.unwrap();
    one.delete(&ended.session_key).await.unwrap();
    // Who wrote it sees it at once.
    assert!(request(&one, &kept).contains_key("first").await.unwrap());
    assert!(one.load(&ended.session_key, now()).await.unwrap().is_none());

    // The other one sees the past, and changes only what it changes.
    let second = request(other, &kept);
    assert!(!second.contains_key("first").await.unwrap(), "the replica does not lag");
    second.insert("second", &2).await.unwrap();
    second.save().await.unwrap();
    assert!(second.contains_key("first").await.unwrap());
    let stored = one.load_latest(&kept.session_key, now()).await.unwrap().unwrap();
    assert!(stored.data.contains_key("first") && stored.data.contains_key("second"));

    let ghost = request(other, &ended);
    assert!(ghost.contains_key("secret").await.unwrap(), "the replica does not lag");
    ghost.insert("late", &1).await.unwrap();
    assert!(ghost.save().await.unwrap_err().is_interrupted());
    assert!(ghost.touch().await.unwrap_err().is_interrupted());
    assert!(other.load(&ended.session_key, now()).await.unwrap().is_none());
    replica.resume().await;
    assert!(!one.exists(&ended.session_key).await.unwrap());
}

/// What another process did is hidden for one settle time at most, however far the replica is behind.
#[tokio::test]
async fn a_replica_that_stands_still_is_not_believed_for_long() {
    let Some(replica) = Replica::new().await else { return };
    let one = replica.store().await;
    let watched = Watched::new(&replica, replica.reader().await, SETTLE).await;
    for _ in 0..3 {
        let (kept, ended, read) = (record(now()), record(now()), record(now()));
        for record in [&kept, &ended, &read] {
            one.create(record).await.unwrap();
        }
        replica.resume().await;
        watched.trust(&read.session_key).await;
        replica.pause().await;
        let first = request(&one, &kept);
        first.insert("first", &1).await.unwrap();
        first.save().await.unwrap();
        one.delete(&ended.session_key).await.unwrap();
        tokio::time::sleep(SETTLE).await;
        // Nor is it believed again, while others read and write.
        let begun = Instant::now();
        while begun.elapsed() < 3 * SETTLE {
            assert!(watched.store.load(&ended.session_key, now()).await.unwrap().is_none());
            let seen = watched.store.load(&kept.session_key, now()).await.unwrap().unwrap();
            assert!(seen.data.contains_key("first"));
            assert!(!watched.reads_replica(&read.session_key).await);
            one.save(&kept_with_first(&kept)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // It comes back by itself.
        replica.resume().await;
        watched.trust(&read.session_key).await;
        let seen = watched.store.load(&kept.session_key, now()).await.unwrap().unwrap();
        assert!(seen.data.contains_key("first"));
        assert!(watched.store.load(&ended.session_key, now()).await.unwrap().is_none());
    }
}

fn kept_with_first(kept: &SessionRecord) -> SessionRecord {
    let mut record = kept.clone();
    Arc::make_mut(&mut record.data).insert("first", &1).unwrap();
    record
}

/// Behind the header of a file there is nothing to be replayed yet.
#[tokio::test]
async fn a_log_that_has_begun_a_new_file_is_reached() {
    let Some(replica) = Replica::new().await else { return };
    let record = record(now());
    replica.place.store().await.create(&record).await.unwrap();
    replica.resume().await;
    replica.place.execute("SELECT pg_switch_wal()").await;
    let watched = Watched::new(&replica, replica.reader().await, SETTLE).await;
    watched.trust(&record.session_key).await;
}

/// With nobody who reads nothing is asked.
#[tokio::test]
async fn a_store_at_rest_asks_nothing() {
    let Some(replica) = Replica::new().await else { return };
    let reader = Proxy::before(port_of(&replica.url)).await;
    let store = replica.reader_at(&through(&replica.url, &reader)).await;
    let watched = Watched::new(&replica, store, SETTLE).await;
    let record = record(now());
    replica.place.store().await.create(&record).await.unwrap();
    replica.resume().await;
    watched.trust(&record.session_key).await;
    // The last proof may be under way.
    tokio::time::sleep(SETTLE).await;
    let before = (watched.primary.turns(), reader.turns());
    tokio::time::sleep(3 * SETTLE).await;
    assert_eq!((watched.primary.turns(), reader.turns()), before);
}

/// What other processes do under load is seen in time, and the replica does answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_keeps_up_answers_and_is_never_too_old() {
    let Some(replica) = Replica::new().await else { return };
    let one = replica.store().await;
    let watched = Watched::new(&replica, replica.reader().await, SETTLE).await;
    let shown = record(now());
    one.create(&shown).await.unwrap();
    replica.resume().await;
    watched.trust(&shown.session_key).await;
    // What was acknowledged, and when.
    let written = Arc::new(Mutex::new(Vec::from([(Instant::now(), 0_u32)])));
    let writer = {
        let (one, shown, written) = (one.clone(), shown.clone(), Arc::clone(&written));
        tokio::spawn(async move {
            for number in 1..=600_u32 {
                let mut record = shown.clone();
                Arc::make_mut(&mut record.data).insert("number", &number).unwrap();
                one.save(&record).await.unwrap();
                written.lock().unwrap().push((Instant::now(), number));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    };
    let (mut reads, mut by_replica) = (0, 0);
    while !writer.is_finished() {
        let begun = Instant::now();
        let before = watched.primary.turns();
        let seen = watched.store.load(&shown.session_key, now()).await.unwrap().unwrap();
        by_replica += u32::from(watched.primary.turns() == before);
        reads += 1;
        let seen = seen.data.get::<u32>("number").unwrap().unwrap_or(0);
        let due = written.lock().unwrap().iter().rev().find_map(|&(at, number)| {
            (begun.saturating_duration_since(at) >= SETTLE).then_some(number)
        });
        assert!(due.is_none_or(|due| seen >= due), "{seen} is older than {due:?}");
    }
    writer.await.unwrap();
    eprintln!("the replica answered {by_replica} of {reads} reads beside 600 writes");
    assert!(by_replica * 2 > reads, "{by_replica} of {reads}");
}

/// Two addresses of one server, and a replica that has become a server of its own.
#[tokio::test]
async fn only_a_replica_of_the_primary_is_believed() {
    if server("TEST_POSTGRES_REPLICA_URL").is_none() {
        return;
    }
    let servers = Servers::start("postgres-replica", "TEST_POSTGRES_REPLICA_URL").unwrap();
    let mut place = Place::without_table(Kind::Postgres).unwrap();
    servers.url("TEST_POSTGRES_URL").clone_into(&mut place.url);
    for statement in crate::stores::ddl(Kind::Postgres) {
        place.execute(&statement.replace("django_session", &place.table)).await;
    }
    let turn = TURN.lock().await;
    let url = servers.url("TEST_POSTGRES_REPLICA_URL").to_owned();
    let replica = Replica { place, url, turn };
    let one = replica.store().await;
    let record = record(now());
    one.create(&record).await.unwrap();
    replica.resume().await;

    let same = Watched::new(&replica, replica.place.store().await, SETTLE).await;
    same.trust(&record.session_key).await;

    let watched = Watched::new(&replica, replica.reader().await, SETTLE).await;
    watched.trust(&record.session_key).await;
    replica.execute("SELECT pg_promote()").await;
    // It may be ahead of the primary by now.
    for _ in 0..5 {
        replica.execute("SELECT pg_switch_wal()").await;
        replica.execute("CREATE TABLE promoted (); DROP TABLE promoted").await;
    }
    tokio::time::sleep(SETTLE).await;
    one.delete(&record.session_key).await.unwrap();
    let still_there = replica.reader().await.load(&record.session_key, now()).await.unwrap();
    assert!(still_there.is_some(), "it follows the primary no more");
    let begun = Instant::now();
    while begun.elapsed() < 3 * SETTLE {
        let found = watched.store.load(&record.session_key, now()).await.unwrap();
        assert!(found.is_none(), "it is believed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What other databases have is no log that can be compared.
#[tokio::test]
async fn where_nothing_can_be_proved_the_primary_answers() {
    for place in Place::all().await {
        if place.kind == Kind::Postgres {
            continue;
        }
        let (primary, replica) = (place.store().await, place.store().await);
        let elsewhere = Place::new(place.kind).await.unwrap();
        let store = ReplicatedStore::new(primary, replica.with_table(&elsewhere.table));
        let record = record(now());
        place.store().await.create(&record).await.unwrap();
        elsewhere.store().await.create(&record).await.unwrap();
        place.store().await.delete(&record.session_key).await.unwrap();
        for _ in 0..20 {
            assert!(store.load(&record.session_key, now()).await.unwrap().is_none());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_requests_lose_nothing() {
    let Some(replica) = Replica::new().await else { return };
    let store = Arc::new(replica.store().await);
    lost_updates::check("ReplicatedStore", store, &settings()).await;
}

#[tokio::test]
async fn a_replica_that_is_away_is_made_up_for() {
    let Some(replica) = Replica::new().await else { return };
    let proxy = Proxy::before(port_of(&replica.url)).await;
    let reader = replica.reader_at(&through(&replica.url, &proxy)).await;
    let reader = reader.with_timeout(Duration::from_millis(300));
    let watched = Watched::new(&replica, reader, LONG).await;
    let record = record(now());
    replica.place.store().await.create(&record).await.unwrap();
    replica.resume().await;
    watched.trust(&record.session_key).await;
    let asked = proxy.turns();
    for mode in [Mode::Pass, Mode::CutRequest, Mode::CutAnswer(3), Mode::Swallow, Mode::Pass] {
        proxy.set(mode);
        let loaded = watched.store.load(&record.session_key, now()).await.unwrap();
        assert!(loaded.is_some(), "{mode:?}");
    }
    assert!(proxy.turns() > asked, "the replica was asked");
    // It is no reason to fail either if the proof cannot be had.
    let watched = Watched::new(&replica, watched.store.replica().clone(), SETTLE).await;
    for mode in [Mode::CutRequest, Mode::CutAnswer(3), Mode::Swallow, Mode::Pass] {
        proxy.set(mode);
        for _ in 0..20 {
            let loaded = watched.store.load(&record.session_key, now()).await.unwrap();
            assert!(loaded.is_some(), "{mode:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    watched.trust(&record.session_key).await;
}

/// In transaction mode, without prepared statements: any version of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_may_stand_in_front() {
    let (Some(url), Some(place)) = (server("TEST_PGBOUNCER_URL"), Place::new(Kind::Postgres).await)
    else {
        return;
    };
    let url = format!("{url}?statement-cache-capacity=0&max_connections=20");
    let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
    let make = async || {
        place.execute("DELETE FROM {table}").await;
        Arc::new(store.clone())
    };
    testing::check_contract(make, now()).await;
    lost_updates::check("SqlStore behind PgBouncer", Arc::new(store), &settings()).await;
}
