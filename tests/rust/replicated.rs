//! PostgreSQL where one server is outgrown: a replica that lags, and PgBouncer in front.

use std::sync::Arc;
use std::time::Duration;

use django_session::store::{ReplicatedStore, SqlStore, testing};
use django_session::{Session, SessionStore};

use crate::lost_updates;
use crate::proxy::{Mode, Proxy};
use crate::stores::{Kind, Place, now, record, server, settings};

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

    async fn pause(&self) {
        self.execute("SELECT pg_wal_replay_pause()").await;
        let paused = "SELECT pg_get_wal_replay_pause_state()";
        while crate::stores::select(self.reader().await.pool(), paused).await != ["paused"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Goes on, and waits until the replica has everything.
    async fn resume(&self) {
        self.execute("SELECT pg_wal_replay_resume()").await;
        let wanted = self.place.select("SELECT pg_current_wal_lsn()::text").await.remove(0);
        let reached = format!("SELECT (pg_last_wal_replay_lsn() >= '{wanted}')::text");
        while crate::stores::select(self.reader().await.pool(), &reached).await != ["true"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
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

/// Two processes, of which the second reads what the first one did before.
#[tokio::test]
async fn an_old_answer_neither_loses_a_change_nor_brings_a_session_back() {
    let Some(replica) = Replica::new().await else { return };
    let (one, other) = (replica.store().await, replica.store().await);
    let (kept, ended) = (record(now()), record(now()));
    for record in [&kept, &ended] {
        one.create(record).await.unwrap();
    }
    replica.resume().await;
    replica.pause().await;

    // A session that is too new for the replica is not lost.
    let new = record(now());
    one.create(&new).await.unwrap();
    assert!(other.load(&new.session_key, now()).await.unwrap().is_some());

    let request = |store: &ReplicatedStore, record: &django_session::session::SessionRecord| {
        let key = Some(record.session_key.clone());
        Session::new(Arc::new(store.clone()), Arc::new(settings()), key)
    };
    let first = request(&one, &kept);
    first.insert("first", &1).await.unwrap();
    first.save().await.unwrap();
    one.delete(&ended.session_key).await.unwrap();
    // Who wrote it sees it at once.
    assert!(request(&one, &kept).contains_key("first").await.unwrap());
    assert!(one.load(&ended.session_key, now()).await.unwrap().is_none());

    // The other one sees the past, and changes only what it changes.
    let second = request(&other, &kept);
    assert!(!second.contains_key("first").await.unwrap(), "the replica does not lag");
    second.insert("second", &2).await.unwrap();
    second.save().await.unwrap();
    assert!(second.contains_key("first").await.unwrap());
    let stored = one.load_latest(&kept.session_key, now()).await.unwrap().unwrap();
    assert!(stored.data.contains_key("first") && stored.data.contains_key("second"));

    let ghost = request(&other, &ended);
    assert!(ghost.contains_key("secret").await.unwrap(), "the replica does not lag");
    ghost.insert("late", &1).await.unwrap();
    assert!(ghost.save().await.unwrap_err().is_interrupted());
    assert!(ghost.touch().await.unwrap_err().is_interrupted());
    assert!(other.load(&ended.session_key, now()).await.unwrap().is_none());
    replica.resume().await;
    assert!(!one.exists(&ended.session_key).await.unwrap());
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
    let (head, port) = replica.url.rsplit_once(':').unwrap();
    let (port, database) = port.split_once('/').unwrap();
    let proxy = Proxy::before(port.parse().unwrap()).await;
    let url = format!("{head}:{}/{database}", proxy.port());
    let reader = replica.reader_at(&url).await.with_timeout(Duration::from_millis(300));
    let store = ReplicatedStore::new(replica.place.store().await, reader);
    let record = record(now());
    replica.place.store().await.create(&record).await.unwrap();
    replica.resume().await;
    for mode in [Mode::Pass, Mode::CutRequest, Mode::CutAnswer(3), Mode::Swallow, Mode::Pass] {
        proxy.set(mode);
        let loaded = store.load(&record.session_key, now()).await.unwrap();
        assert!(loaded.is_some(), "{mode:?}");
    }
    assert!(proxy.turns() > 0, "the replica was asked");
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
