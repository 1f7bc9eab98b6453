//! Stores: the contract, and what only a real database can show.
//!
//! SQLite is always there. The others are where `TEST_POSTGRES_URL` and `TEST_MYSQL_URL` say;
//! `tests/services.py run -- cargo test …` starts both. Every test has tables of its own, which are
//! left behind: the servers are thrown away.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use django_session::session::{ExpiryError, SessionRecord};
use django_session::store::sqlx::{self, AssertSqlSafe, Row};
use django_session::store::testing::{self, check_contract};
use django_session::store::{
    ConnectError, DatabaseCache, MemoryStore, SqlError, SqlPool, SqlStore,
};
use django_session::{
    DateTime, SecretKey, Session, SessionCodec, SessionData, SessionKey, SessionSettings,
    SessionStore, StoreError,
};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::differential::Engine;
use crate::lost_updates;
use crate::peer;
use crate::session::{self, FixedClock};
use crate::vectors::{self, text, to_python_json};

const NAIVE: &str = "America/New_York";

/// How far the expire date of an entry in a cache may be off: what a machine takes for two operations that
/// is busy with all other tests. What each cache rounds to has tests of its own.
pub(crate) const PRECISION: SignedDuration = SignedDuration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    MySql,
    Postgres,
    Sqlite,
}

/// A table of its own in a database.
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    pub(crate) table: String,
    _directory: Option<tempfile::TempDir>,
}

impl Place {
    /// Makes the table as Django makes it; `None` if there is no such server.
    pub(crate) async fn new(kind: Kind) -> Option<Self> {
        let place = Self::without_table(kind)?;
        let pool = place.pool().await;
        for statement in ddl(kind) {
            execute(&pool, &statement.replace("django_session", &place.table)).await;
        }
        Some(place)
    }

    pub(crate) fn without_table(kind: Kind) -> Option<Self> {
        let (url, directory) = match kind {
            Kind::MySql => (server("TEST_MYSQL_URL")?, None),
            Kind::Postgres => (server("TEST_POSTGRES_URL")?, None),
            Kind::Sqlite => {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("db.sqlite3");
                std::fs::write(&path, "").unwrap();
                (format!("sqlite:{}", path.display()), Some(directory))
            }
        };
        let name = SessionKey::generate();
        let table = format!("t_{}", &name.as_str()[..12]);
        Some(Self { kind, url, table, _directory: directory })
    }

    pub(crate) async fn all() -> Vec<Self> {
        let mut places = Vec::new();
        for kind in [Kind::Sqlite, Kind::Postgres, Kind::MySql] {
            places.extend(Self::new(kind).await);
        }
        places
    }

    pub(crate) async fn store(&self) -> SqlStore {
        self.store_for(&settings()).await
    }

    pub(crate) async fn store_for(&self, settings: &SessionSettings) -> SqlStore {
        // Who runs all tests at once on two cores may wait for a connection.
        let url = format!("{}?acquire_timeout=60", self.url);
        SqlStore::connect(&url, settings).await.unwrap().with_table(&self.table)
    }

    pub(crate) async fn pool(&self) -> SqlPool {
        self.store().await.pool().clone()
    }

    /// Holds a row in a transaction, until what is returned goes.
    pub(crate) async fn hold(&self, session_key: &SessionKey) -> Box<dyn std::any::Any> {
        let sql = format!(
            "UPDATE {} SET session_data = 'held' WHERE session_key = '{}'",
            self.table,
            session_key.as_str()
        );
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        match self.pool().await {
            SqlPool::MySql(pool) => {
                let mut transaction = pool.begin().await.unwrap();
                sql.execute(&mut *transaction).await.unwrap();
                Box::new(transaction)
            }
            SqlPool::Postgres(pool) => {
                let mut transaction = pool.begin().await.unwrap();
                sql.execute(&mut *transaction).await.unwrap();
                Box::new(transaction)
            }
            _ => unreachable!(),
        }
    }

    pub(crate) async fn execute(&self, sql: &str) {
        execute(&self.pool().await, &sql.replace("{table}", &self.table)).await;
    }

    pub(crate) async fn select(&self, sql: &str) -> Vec<String> {
        select(&self.pool().await, &sql.replace("{table}", &self.table)).await
    }
}

/// Waits until something is so. Whoever waits in vain fails, and does not hold up all tests for ever.
///
/// MariaDB tells `INNODB_LOCKS` and its like from a copy, which is made anew only if nobody has asked for a
/// tenth of a second: who looks more often sees for ever what was.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    for look in 0.. {
        if is_so().await {
            return;
        }
        assert!(begun.elapsed() < Duration::from_mins(2), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(if look < 10 { 10 } else { 250 })).await;
    }
}

/// The address of a server, if there is one to test with.
pub(crate) fn server(variable: &str) -> Option<String> {
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "{variable} must be set where CI=true");
        let mut told = TOLD.lock().unwrap();
        if !told.iter().any(|told| told == variable) {
            told.push(variable.to_owned());
            // Past the capture of output, which would hide it in a test that passes.
            let notice =
                format!("\n*** {variable} is not set: THIS DATABASE IS NOT TESTED ***\n\n");
            std::io::stderr().write_all(notice.as_bytes()).unwrap();
        }
    }
    url
}

/// What Django executes to create the table.
pub(crate) fn ddl(kind: Kind) -> Vec<String> {
    let engine = match kind {
        Kind::MySql => "mariadb",
        Kind::Postgres => "postgres",
        Kind::Sqlite => "sqlite",
    };
    let records = vectors::read("db_rows");
    let schema = records
        .iter()
        .find(|record| text(record, "engine") == engine && record.get("ddl_executed").is_some());
    let statements = schema.unwrap()["ddl_executed"].as_array().unwrap();
    statements.iter().map(|statement| statement.as_str().unwrap().to_owned()).collect()
}

pub(crate) async fn execute(pool: &SqlPool, sql: &str) {
    let sql = sqlx::raw_sql(AssertSqlSafe(sql));
    match pool {
        SqlPool::MySql(pool) => drop(sql.execute(pool).await.unwrap()),
        SqlPool::Postgres(pool) => drop(sql.execute(pool).await.unwrap()),
        SqlPool::Sqlite(pool) => drop(sql.execute(pool).await.unwrap()),
        _ => unreachable!(),
    }
}

/// The first column of each row as text.
pub(crate) async fn select(pool: &SqlPool, sql: &str) -> Vec<String> {
    try_select(pool, sql).await.unwrap()
}

async fn try_select(pool: &SqlPool, sql: &str) -> sqlx::Result<Vec<String>> {
    let sql = sqlx::raw_sql(AssertSqlSafe(sql));
    Ok(match pool {
        SqlPool::MySql(pool) => {
            sql.fetch_all(pool).await?.iter().map(|row| row.get_unchecked(0)).collect()
        }
        SqlPool::Postgres(pool) => {
            sql.fetch_all(pool).await?.iter().map(|row| row.get_unchecked(0)).collect()
        }
        SqlPool::Sqlite(pool) => {
            sql.fetch_all(pool).await?.iter().map(|row| row.get_unchecked(0)).collect()
        }
        _ => unreachable!(),
    })
}

pub(crate) fn settings() -> SessionSettings {
    SessionSettings::default()
        .with_secret_key(SecretKey::new("correct horse battery staple").unwrap())
}

pub(crate) fn naive_settings() -> SessionSettings {
    let mut settings = settings();
    settings.use_tz = false;
    settings.time_zone = TimeZone::get(NAIVE).unwrap();
    settings
}

pub(crate) fn now() -> DateTime {
    settings().datetime(Timestamp::now())
}

fn naive_now() -> DateTime {
    naive_settings().datetime(Timestamp::now())
}

pub(crate) fn record(now: DateTime) -> SessionRecord {
    let mut data = SessionData::new();
    data.insert("secret", "in the session").unwrap();
    SessionRecord {
        session_key: SessionKey::generate(),
        data: Arc::new(data),
        expire_date: now.checked_add(SignedDuration::from_hours(1)).unwrap(),
        revision: None,
    }
}

mod memory {
    use super::*;

    async fn empty() -> Arc<MemoryStore> {
        Arc::new(MemoryStore::new(settings().codec().unwrap()))
    }

    django_session::store_contract!(empty, now());

    #[tokio::test]
    async fn naive_times_keep_the_contract() {
        check_contract(empty, naive_now()).await;
    }
}

/// A store and the table that goes with it.
struct Empty {
    store: SqlStore,
    _place: Place,
}

impl Empty {
    async fn new(kind: Kind, settings: &SessionSettings) -> Self {
        let place = Place::new(kind).await.unwrap();
        Self { store: place.store_for(settings).await, _place: place }
    }
}

impl Deref for Empty {
    type Target = SqlStore;

    fn deref(&self) -> &SqlStore {
        &self.store
    }
}

mod sqlite_file {
    use super::*;

    async fn empty() -> Empty {
        Empty::new(Kind::Sqlite, &settings()).await
    }

    django_session::store_contract!(empty, now());

    #[tokio::test]
    async fn naive_times_keep_the_contract() {
        let make = async || Empty::new(Kind::Sqlite, &naive_settings()).await;
        check_contract(make, naive_now()).await;
    }
}

mod sqlite_in_memory {
    use super::*;

    async fn empty() -> Arc<SqlStore> {
        let store = SqlStore::connect("sqlite::memory:", &settings()).await.unwrap();
        for statement in ddl(Kind::Sqlite) {
            execute(store.pool(), &statement).await;
        }
        Arc::new(store)
    }

    django_session::store_contract!(empty, now());
}

/// The traces of Django's session object, each on a table that is empty but for its rows.
#[tokio::test]
async fn traces_of_django_are_followed_in_every_database() {
    for place in Place::all().await {
        let pool = place.pool().await;
        let new_store = async |record: &Value| {
            place.execute("DELETE FROM {table}").await;
            let store = SqlStore::new(pool.clone(), session::codec());
            let use_tz = !text(record, "id").ends_with("use_tz_False");
            Arc::new(store.with_table(&place.table).with_use_tz(use_tz)) as _
        };
        session::replay(new_store, place.kind != Kind::Postgres).await;
    }
}

async fn check_server(kind: Kind) {
    if Place::without_table(kind).is_none() {
        return;
    }
    check_contract(async || Empty::new(kind, &settings()).await, now()).await;
    check_contract(async || Empty::new(kind, &naive_settings()).await, naive_now()).await;
}

#[tokio::test]
async fn postgres_keeps_the_contract() {
    check_server(Kind::Postgres).await;
}

#[tokio::test]
async fn mysql_keeps_the_contract() {
    check_server(Kind::MySql).await;
}

#[tokio::test]
async fn statements_that_are_not_kept_work_too() {
    for place in Place::all().await {
        let store = place.store().await.with_persistent_statements(false);
        testing::save_replaces_data_and_expire_date(&store, now().into()).await;
    }
    if let Some(place) = Place::new(Kind::Postgres).await {
        let url = format!("{}?statement-cache-capacity=0", place.url);
        let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
        testing::what_is_created_is_loaded(&store.clone(), now().into()).await;
        let kept = select(store.pool(), "SELECT name FROM pg_prepared_statements").await;
        assert_eq!(kept, [""; 0]);
    }
}

#[tokio::test]
async fn a_table_may_have_any_name() {
    for mut place in Place::all().await {
        let odd = format!("{}'s \"odd\" `table`; -- %s ?", place.table);
        let quoted = match place.kind {
            Kind::MySql => format!("`{}`", odd.replace('`', "``")),
            _ => format!("\"{}\"", odd.replace('"', "\"\"")),
        };
        place.execute(&format!("ALTER TABLE {{table}} RENAME TO {quoted}")).await;
        place.table = odd;
        testing::what_is_created_is_loaded(&place.store().await, now().into()).await;
        testing::clear_expired_is_strict(&place.store().await, now().into()).await;
    }
}

/// Every statement that sqlx runs in this process.
pub(crate) mod statements {
    use super::*;

    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    static START: Once = Once::new();

    pub(crate) fn watch() {
        START.call_once(|| tracing::subscriber::set_global_default(Watch).unwrap());
    }

    /// Those that name a table.
    pub(crate) fn of(table: &str) -> Vec<String> {
        let seen = SEEN.lock().unwrap();
        seen.iter().filter(|statement| statement.contains(table)).cloned().collect()
    }

    struct Watch;

    impl tracing::Subscriber for Watch {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target() == "sqlx::query"
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut text = Text(String::new());
            event.record(&mut text);
            if text.0.len() < 2000 {
                SEEN.lock().unwrap().push(text.0);
            }
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    struct Text(String);

    impl tracing::field::Visit for Text {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            if matches!(field.name(), "summary" | "db.statement") {
                let _ = write!(self.0, "{value:?} ");
            }
        }
    }
}

/// Counts what `store` does in a table whose connections are `pool`.
pub(crate) async fn count(place: &Place, pool: &SqlPool, step: impl Future<Output = ()>) -> usize {
    // The log of SQLite comes from another thread; a statement behind the last makes sure of it.
    select(pool, "SELECT '1'").await;
    let before = statements::of(&place.table).len();
    step.await;
    select(pool, "SELECT '1'").await;
    statements::of(&place.table).len() - before
}

/// A store with a single connection.
async fn narrow(place: &Place) -> SqlStore {
    let codec = settings().codec().unwrap();
    let store = match place.kind {
        Kind::MySql => {
            let pool = sqlx::mysql::MySqlPoolOptions::new().max_connections(1);
            SqlStore::new(pool.connect(&place.url).await.unwrap(), codec)
        }
        Kind::Postgres => {
            let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1);
            SqlStore::new(pool.connect(&place.url).await.unwrap(), codec)
        }
        Kind::Sqlite => {
            let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
            SqlStore::new(pool.connect(&place.url).await.unwrap(), codec)
        }
    };
    store.with_table(&place.table)
}

#[tokio::test]
async fn each_step_is_one_statement() {
    statements::watch();
    for place in Place::all().await {
        let store = narrow(&place).await;
        let record = record(now());
        let key = &record.session_key;
        for (step, name) in [
            "exists",
            "load",
            "save",
            "delete",
            "create",
            "create",
            "exists",
            "load",
            "save",
            "delete",
            "clear_expired",
        ]
        .into_iter()
        .enumerate()
        {
            let counted = count(&place, store.pool(), async {
                match name {
                    "exists" => drop(store.exists(key).await.unwrap()),
                    "load" => drop(store.load(key, now()).await.unwrap()),
                    "save" => drop(store.save(&record).await),
                    "delete" => store.delete(key).await.unwrap(),
                    "create" => drop(store.create(&record).await),
                    _ => assert_eq!(store.clear_expired(now()).await.unwrap(), 0),
                }
            })
            .await;
            assert_eq!(counted, 1, "{:?}: step {step}, {name}", place.kind);
        }
        let all = statements::of(&place.table);
        assert!(!all.iter().any(|statement| statement.contains("BEGIN")), "{all:?}");
    }
}

#[tokio::test]
async fn many_expired_sessions_are_cleared_in_batches() {
    statements::watch();
    for place in Place::all().await {
        let store = narrow(&place).await;
        let rows: Vec<_> = (0..2500)
            .map(|n| format!("('expired{n:08}', 'x', '2020-01-01 00:00:{:02}')", n % 60))
            .collect();
        let rows = rows.join(",");
        let insert = "INSERT INTO {table} (session_key, session_data, expire_date) VALUES";
        place.execute(&format!("{insert} {rows}")).await;
        let kept = record(now());
        store.create(&kept).await.unwrap();

        let counted = count(&place, store.pool(), async {
            assert_eq!(store.clear_expired(now()).await.unwrap(), 2500, "{:?}", place.kind);
        });
        assert_eq!(counted.await, 3, "{:?}", place.kind);
        assert_eq!(
            place.select("SELECT session_key FROM {table}").await,
            [kept.session_key.as_str()]
        );

        place.execute(&format!("{insert} {rows}")).await;
        let store = store.with_clear_batch(NonZeroU32::new(1250).unwrap());
        let counted = count(&place, store.pool(), async {
            assert_eq!(store.clear_expired(now()).await.unwrap(), 2500, "{:?}", place.kind);
        });
        // After two full batches a third has to find that there are no more.
        assert_eq!(counted.await, 3, "{:?}", place.kind);
    }
}

/// Two that clear at the same time do not get in each other's way, and count each session once.
#[tokio::test]
async fn clearing_twice_at_once_clears_each_session_once() {
    for place in Place::all().await {
        let store = place.store().await.with_clear_batch(NonZeroU32::new(50).unwrap());
        let rows: Vec<_> =
            (0..1000).map(|n| format!("('expired{n:08}', 'x', '2020-01-01 00:00:00')")).collect();
        place.execute(&format!("INSERT INTO {{table}} VALUES {}", rows.join(","))).await;
        let (one, other) = tokio::join!(store.clear_expired(now()), store.clear_expired(now()));
        // MySQL may end one of them as the victim of a deadlock; what it cleared is cleared.
        if place.kind == Kind::MySql && (one.is_err() || other.is_err()) {
            store.clear_expired(now()).await.unwrap();
        } else {
            assert_eq!(one.unwrap() + other.unwrap(), 1000, "{:?}", place.kind);
        }
        assert_eq!(place.select("SELECT session_key FROM {table}").await, [""; 0]);
    }
}

/// MySQL counts changed rows unless it is asked for found ones.
#[tokio::test]
async fn a_save_that_changes_nothing_finds_its_row() {
    for place in Place::all().await {
        let store = place.store().await;
        let record = record(now());
        store.create(&record).await.unwrap();
        let mut last = place.select("SELECT session_data FROM {table}").await;
        let mut unchanged = 0;
        // The stored text changes once per second, with its time stamp.
        while unchanged < 3 {
            store.save(&record).await.unwrap();
            let stored = place.select("SELECT session_data FROM {table}").await;
            unchanged += i32::from(stored == last);
            last = stored;
        }
    }
}

/// Ends a connection that `pool` has, and tells whether the pool still believes in it.
async fn kill(place: &Place, pool: &SqlPool) -> bool {
    let (ask, end) = match place.kind {
        Kind::MySql => ("SELECT CAST(CONNECTION_ID() AS CHAR)", "KILL {id}"),
        _ => ("SELECT pg_backend_pid()::text", "SELECT pg_terminate_backend({id})"),
    };
    // Others may have been ended before.
    let mut id = None;
    until("a connection that lives", async || {
        id = try_select(pool, ask).await.ok();
        id.is_some()
    })
    .await;
    let id = id.unwrap();
    place.execute(&end.replace("{id}", &id[0])).await;
    // Until the server has done it.
    tokio::time::sleep(Duration::from_millis(100)).await;
    pool_size(pool) > 0
}

fn pool_size(pool: &SqlPool) -> usize {
    match pool {
        SqlPool::MySql(pool) => pool.num_idle(),
        SqlPool::Postgres(pool) => pool.num_idle(),
        SqlPool::Sqlite(pool) => pool.num_idle(),
        _ => unreachable!(),
    }
}

#[tokio::test]
async fn a_lost_connection_is_made_up_for_at_once() {
    for place in Place::all().await.into_iter().filter(|place| place.kind != Kind::Sqlite) {
        let codec = settings().codec().unwrap();
        // A pool that hands the dead connection out.
        let trusting = match place.kind {
            Kind::MySql => SqlStore::new(
                sqlx::mysql::MySqlPoolOptions::new()
                    .max_connections(1)
                    .test_before_acquire(false)
                    .connect(&place.url)
                    .await
                    .unwrap(),
                codec,
            ),
            _ => SqlStore::new(
                sqlx::postgres::PgPoolOptions::new()
                    .max_connections(1)
                    .test_before_acquire(false)
                    .connect(&place.url)
                    .await
                    .unwrap(),
                codec,
            ),
        };
        let narrow = narrow(&place).await;
        let mut dead = 0;
        for store in [trusting.with_table(&place.table), narrow, place.store().await] {
            let record = record(now());
            store.create(&record).await.unwrap();
            for step in ["load", "exists", "save", "touch", "create", "delete", "clear_expired"] {
                dead += i32::from(kill(&place, store.pool()).await);
                match step {
                    "load" => {
                        let loaded = store.load(&record.session_key, now()).await.unwrap();
                        assert!(loaded.is_some(), "{step} after a reconnect");
                    }
                    "exists" => assert!(store.exists(&record.session_key).await.unwrap()),
                    "save" => drop(store.save(&record).await.unwrap()),
                    "touch" => drop(store.touch(&record).await.unwrap()),
                    "create" => drop(store.create(&self::record(now())).await.unwrap()),
                    "delete" => store.delete(&SessionKey::generate()).await.unwrap(),
                    _ => drop(store.clear_expired(now()).await.unwrap()),
                }
            }
        }
        assert_ne!(dead, 0, "{:?}: no dead connection was handed out", place.kind);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_requests_lose_nothing() {
    let memory = MemoryStore::new(settings().codec().unwrap());
    lost_updates::check("MemoryStore", Arc::new(memory), &settings()).await;
    for place in Place::all().await {
        let name = format!("SqlStore, {:?}", place.kind);
        lost_updates::check(&name, Arc::new(place.store().await), &settings()).await;
    }
}

/// A Django that reads and writes the table of a place.
fn django(place: &Place) -> Option<Engine> {
    Engine::start(&django_settings(place))
}

/// The settings of that Django.
pub(crate) fn django_settings(place: &Place) -> Value {
    let (user, host) = match place.kind {
        Kind::Sqlite => ("", place.url.split_once(':').unwrap().1.split('?').next().unwrap()),
        _ => place.url.split_once("://").unwrap().1.split_once('@').unwrap(),
    };
    let (user, password) = user.split_once(':').unwrap_or_default();
    let database = if place.kind == Kind::Sqlite {
        json!({"ENGINE": "django.db.backends.sqlite3", "NAME": host, "OPTIONS": {"timeout": 30}})
    } else {
        let (host, name) = host.split_once('/').unwrap();
        let (host, port) = host.split_once(':').unwrap();
        let engine = if place.kind == Kind::MySql { "mysql" } else { "postgresql" };
        json!({
            "ENGINE": format!("django.db.backends.{engine}"),
            "NAME": name, "USER": user, "PASSWORD": password, "HOST": host, "PORT": port,
        })
    };
    json!({
        "SECRET_KEY": "correct horse battery staple",
        "DATABASES": {"default": database},
        "INSTALLED_APPS": ["django.contrib.sessions"],
        "SESSION_ENGINE": "django.contrib.sessions.backends.db",
        "SESSION_TABLE": place.table,
        "USE_TZ": true,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_walk_beside_django_ends_where_the_model_does() {
    const STEPS: usize = 3000;
    for place in Place::all().await {
        let Some(mut django) = django(&place) else { return };
        let store = place.store().await;
        peer::interleave(&store, &mut django, &now, true, STEPS).await;
    }
}

/// Django's engine overwrites what others did, ours among it. This counts what is missing in the end on either
/// side; it cannot tell who overwrote whom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_django_beside_us_loses_changes() {
    for place in Place::all().await {
        let (name, store) = (format!("SqlStore, {:?}", place.kind), place.store().await);
        let django = || django(&place);
        lost_updates::show_beside_django(&name, Arc::new(store), &settings(), django).await;
    }
}

#[tokio::test]
async fn an_outage_is_an_error_of_the_backend() {
    for place in Place::all().await {
        let store = place.store().await;
        let record = record(now());
        store.create(&record).await.unwrap();
        place.execute("DROP TABLE {table}").await;
        assert_all_fail(&store, &record, &place.table).await;
    }
}

#[tokio::test]
async fn a_locked_file_is_an_error_of_the_backend() {
    let place = Place::new(Kind::Sqlite).await.unwrap();
    let options: sqlx::sqlite::SqliteConnectOptions = place.url.parse().unwrap();
    let options = options.busy_timeout(Duration::from_millis(50));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let store = SqlStore::new(pool.clone(), settings().codec().unwrap()).with_table(&place.table);
    let record = record(now());
    store.create(&record).await.unwrap();

    let mut other = pool.acquire().await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut *other).await.unwrap();
    assert_all_fail(&store, &record, "database is locked").await;
    sqlx::query("ROLLBACK").execute(&mut *other).await.unwrap();
    assert!(store.load(&record.session_key, now()).await.unwrap().is_some());
}

/// Every operation fails as a failure of the backend, whose text says why.
async fn assert_all_fail(store: &SqlStore, record: &SessionRecord, why: &str) {
    let key = &record.session_key;
    for error in [
        store.exists(key).await.unwrap_err(),
        store.create(record).await.unwrap_err(),
        store.load(key, now()).await.unwrap_err(),
        store.save(record).await.unwrap_err(),
        store.delete(key).await.unwrap_err(),
        store.clear_expired(now()).await.unwrap_err(),
    ] {
        assert!(error.is_outage(), "{error:?}");
        assert!(whole(&error).contains(why), "{error:?}");
    }
}

#[tokio::test]
async fn a_corrupt_row_is_no_missing_row() {
    for place in Place::all().await {
        let store = place.store().await;
        let record = record(now());
        store.create(&record).await.unwrap();
        for corrupt in ["", "nonsense", "e30:1r31eq:forged"] {
            place.execute(&format!("UPDATE {{table}} SET session_data = '{corrupt}'")).await;
            let error = store.load(&record.session_key, now()).await.unwrap_err();
            assert!(matches!(error, StoreError::Decode(_)), "{error:?}");
        }
        // It can be saved over.
        store.save(&record).await.unwrap();
        assert!(store.load(&record.session_key, now()).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_row_of_sqlite_with_an_unreadable_date_is_an_error() {
    let place = Place::new(Kind::Sqlite).await.unwrap();
    let store = place.store().await;
    let record = record(now());
    store.create(&record).await.unwrap();
    place.execute("UPDATE {table} SET expire_date = 'never'").await;
    let error = store.load(&record.session_key, now()).await.unwrap_err();
    assert!(whole(&error).contains("unreadable expire_date"), "{error:?}");
}

#[tokio::test]
async fn a_row_that_never_expires_is_loaded() {
    let Some(place) = Place::new(Kind::Postgres).await else { return };
    for settings in [settings(), naive_settings()] {
        let now = settings.datetime(Timestamp::now());
        let store = place.store_for(&settings).await;
        let record = record(now);
        store.create(&record).await.unwrap();
        for date in ["infinity", "200000-01-01"] {
            place.execute(&format!("UPDATE {{table}} SET expire_date = '{date}'")).await;
            let loaded = store.load(&record.session_key, now).await.unwrap().unwrap();
            assert_eq!(loaded.expire_date.to_civil().year(), 9999, "{date}");
        }
        place.execute("UPDATE {table} SET expire_date = '-infinity'").await;
        assert!(store.load(&record.session_key, now).await.unwrap().is_none());
        assert_eq!(store.clear_expired(now).await.unwrap(), 1);
    }
}

/// `Display` and `Debug` of an error and of all that is behind it.
pub(crate) fn whole(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let _ = write!(text, "{error}\n{error:?}\n{error:#?}\n");
        next = error.source();
    }
    text
}

/// What the database said, which only those see who ask for it.
fn unredacted(error: &StoreError) -> String {
    let StoreError::Backend(source) = error else { panic!("{error:?}") };
    format!("{:?}", source.downcast_ref::<SqlError>().unwrap().as_sqlx().unwrap())
}

#[tokio::test]
async fn no_error_shows_a_key_or_a_payload() {
    for place in Place::all().await {
        let store = place.store().await;
        let record = record(now());
        let key = record.session_key.as_str();
        store.create(&record).await.unwrap();
        let payload = &settings().codec().unwrap().encode(&record.data, 0).unwrap()[..20];
        assert!(place.select("SELECT session_data FROM {table}").await[0].starts_with(payload));

        let mut errors = Vec::new();
        // A key that is too long, where that is an error.
        if place.kind != Kind::Sqlite {
            let long = SessionKey::parse(&key.repeat(2)).unwrap();
            let long = SessionRecord { session_key: long, ..record.clone() };
            errors.push(store.create(&long).await.unwrap_err());
        }
        // A trigger, a check or another unique index, which say what broke them.
        match place.kind {
            Kind::Sqlite => {
                place
                    .execute(
                        "CREATE TRIGGER talk BEFORE UPDATE ON {table} BEGIN SELECT RAISE(ABORT, \
                         NEW.session_key || NEW.session_data); END",
                    )
                    .await;
            }
            Kind::Postgres => {
                place
                    .execute("ALTER TABLE {table} ADD CHECK (expire_date < '2000-01-01') NOT VALID")
                    .await;
            }
            Kind::MySql => {
                place
                    .execute(
                        "CREATE TRIGGER talk_{table} BEFORE UPDATE ON {table} FOR EACH ROW \
                         SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = NEW.session_data",
                    )
                    .await;
            }
        }
        let error = store.save(&record).await.unwrap_err();
        assert!(unredacted(&error).contains(payload), "{:?}", place.kind);
        errors.push(error);
        for error in &errors {
            assert!(error.is_outage());
            let text = whole(error);
            assert!(!text.contains(&key[..20]) && !text.contains(payload), "{text}");
        }
        let shown = format!("{store:?} {:?} {record:?}", store.pool());
        assert!(!shown.contains(&key[..20]) && !shown.contains("battery"), "{shown}");
    }
}

#[tokio::test]
async fn no_error_shows_a_password() {
    for url in [
        "hunter2",
        "hunter2://user:hunter2@localhost/x",
        "postgres://user:hunter2@local host:hunter2/x",
        "postgres://user:hunter2@localhost/x?sslmode=hunter2",
        "mysql://user:hunter2@localhost:notaport/x",
        "mysql://user:hunter2@localhost/x?ssl-mode=hunter2",
        "sqlite:nowhere?mode=hunter2",
    ] {
        let error = SqlStore::connect(url, &settings()).await.unwrap_err();
        assert!(!whole(&error).contains("hunter2"), "{}", whole(&error));
    }
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(place) = Place::without_table(kind) else { continue };
        let (scheme, rest) = place.url.split_once("://").unwrap();
        let (user, host) = rest.split_once('@').unwrap();
        let user = user.split(':').next().unwrap();
        let url = format!("{scheme}://{user}:hunter2@{host}");
        let error = SqlStore::connect(&url, &settings()).await.unwrap_err();
        assert!(!whole(&error).contains("hunter2"), "{}", whole(&error));
        assert!(matches!(error, ConnectError::Connect(_)));
        let store = place.store().await;
        let password = rest.split([':', '@']).nth(1).unwrap();
        assert!(!format!("{store:?} {:?}", store.pool()).contains(password));
    }
}

/// These servers have no TLS, so whoever wants to know whom it speaks to cannot speak to them.
#[tokio::test]
async fn a_root_certificate_is_asked_for() {
    let refused = |error: ConnectError| matches!(error, ConnectError::Url(_));
    for (kind, option, none) in [
        (Kind::Postgres, "sslrootcert", "sslmode=disable"),
        (Kind::MySql, "ssl-ca", "ssl-mode=disabled"),
    ] {
        let Some(place) = Place::without_table(kind) else { continue };
        let connect = async |options: String| {
            let url = format!("{}?acquire_timeout=60&{options}", place.url);
            SqlStore::connect(&url, &settings()).await
        };
        assert!(connect(String::from(none)).await.is_ok(), "{kind:?}");
        let error = connect(format!("{option}=/nowhere.pem")).await.unwrap_err();
        assert!(matches!(error, ConnectError::Connect(_)), "{kind:?}");
        let error = connect(format!("{option}=/nowhere.pem&{none}")).await.unwrap_err();
        assert!(refused(error), "{kind:?}");
    }
    for scheme in ["redis", "redis+cluster"] {
        let url = format!("{scheme}://localhost?ca=/nowhere.pem");
        assert!(
            refused(django_session::store::connect(&url, &settings()).await.err().unwrap()),
            "{scheme}"
        );
    }
}

#[tokio::test]
async fn a_file_of_sqlite_is_taken_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing.sqlite3");
    let error = SqlStore::connect(&format!("sqlite:{}", path.display()), &settings()).await;
    assert!(matches!(error, Err(ConnectError::Connect(_))));
    assert!(!path.exists(), "it is not created");

    for mode in ["delete", "wal"] {
        let place = Place::new(Kind::Sqlite).await.unwrap();
        let pragma = "PRAGMA journal_mode";
        place.execute(&format!("{pragma} = {mode}")).await;
        // With two slashes too.
        let url = place.url.replace("sqlite:", "sqlite://");
        let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
        store.create(&record(now())).await.unwrap();
        assert_eq!(select(store.pool(), pragma).await, [mode]);
        // The waiting time of Django, or of the address.
        for (options, milliseconds) in [("", "5000"), ("?timeout=20.5", "20500")] {
            let url = format!("{url}{options}");
            let timeout = "SELECT CAST(timeout AS TEXT) FROM pragma_busy_timeout";
            let store = SqlStore::connect(&url, &settings()).await.unwrap();
            assert_eq!(select(store.pool(), timeout).await, [milliseconds]);
            let cache = DatabaseCache::connect(&url, "sessions_cache", &settings()).await.unwrap();
            assert_eq!(select(cache.pool(), timeout).await, [milliseconds]);
        }
    }
}

#[tokio::test]
async fn addresses_are_told_apart_by_their_scheme() {
    for unknown in ["", "db.sqlite3", "oracle://localhost/x", "://"] {
        let error = SqlStore::connect(unknown, &settings()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Url(_)), "{unknown}");
    }
    let error =
        SqlStore::connect("sqlite::memory:", &SessionSettings::default()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Settings(_)));
    for (kind, scheme, other) in
        [(Kind::MySql, "mysql:", "mariadb:"), (Kind::Postgres, "postgres:", "postgresql:")]
    {
        let Some(place) = Place::new(kind).await else { continue };
        let url = place.url.replacen(scheme, other, 1);
        let store = SqlStore::connect(&url, &settings()).await.unwrap().with_table(&place.table);
        assert!(!store.exists(&SessionKey::generate()).await.unwrap());
    }
}

/// A key with characters that the database cannot even compare.
#[tokio::test]
async fn keys_outside_the_encoding_find_nothing() {
    if let Some(place) = Place::new(Kind::MySql).await {
        for charset in ["latin1", "utf8mb3", "ascii", "utf8mb4"] {
            place
                .execute(&format!("ALTER TABLE {{table}} CONVERT TO CHARACTER SET {charset}"))
                .await;
            testing::weird_keys_find_nothing(&place.store().await, now().into()).await;
            place.execute("DELETE FROM {table}").await;
        }
    }
    if let Some(mut place) = Place::without_table(Kind::Postgres) {
        let database = format!("{}_latin1", place.table);
        place
            .execute(&format!(
                "CREATE DATABASE {database} ENCODING 'LATIN1' TEMPLATE template0 \
                 LC_COLLATE 'C' LC_CTYPE 'C'"
            ))
            .await;
        let (server, _) = place.url.rsplit_once('/').unwrap();
        place.url = format!("{server}/{database}");
        for statement in ddl(Kind::Postgres) {
            place.execute(&statement.replace("django_session", &place.table)).await;
        }
        testing::weird_keys_find_nothing(&place.store().await, now().into()).await;
    }
}

/// As in Django, where the object keeps the key it was asked for.
#[tokio::test]
async fn mysql_finds_a_key_in_any_spelling() {
    let Some(place) = Place::new(Kind::MySql).await else { return };
    let store = place.store().await;
    let record = record(now());
    store.create(&record).await.unwrap();
    let loud = SessionKey::parse(&record.session_key.as_str().to_uppercase()).unwrap();
    let loaded = store.load(&loud, now()).await.unwrap().unwrap();
    assert!(loaded.session_key == loud);
    assert!(
        store.create(&SessionRecord { session_key: loud, ..record }).await.unwrap_err().is_create()
    );
}

#[tokio::test]
async fn an_aware_date_has_no_place_where_local_time_is_stored() {
    for place in Place::all().await {
        let store = place.store_for(&naive_settings()).await;
        let record = record(now());
        let created = store.create(&record).await;
        if place.kind == Kind::Postgres {
            created.unwrap();
            let loaded = store.load(&record.session_key, naive_now()).await.unwrap().unwrap();
            let DateTime::Naive(civil) = loaded.expire_date else { panic!("it is aware") };
            let instant = TimeZone::get(NAIVE).unwrap().to_timestamp(civil).unwrap();
            assert_eq!(DateTime::Aware(instant), record.expire_date);
        } else {
            let error = created.unwrap_err();
            assert!(
                matches!(error, StoreError::ExpireDate(ExpiryError::MixedTimeZones)),
                "{error:?}"
            );
        }
    }
}

/// The instant that a wall clock means is computed here by the rule that the server has.
#[tokio::test]
async fn postgres_agrees_on_every_wall_clock() {
    let Some(place) = Place::new(Kind::Postgres).await else { return };
    let pool = place.pool().await;
    for (zone, around) in [
        ("America/New_York", "2023-11-05T00:30:00"),
        ("America/New_York", "2023-03-12T00:30:00"),
        ("Europe/Berlin", "2023-10-29T01:30:00"),
        ("Europe/Dublin", "2023-10-29T00:30:00"),
        ("Europe/Dublin", "2023-03-26T00:30:00"),
        ("Europe/Moscow", "2014-10-26T00:30:00"),
        ("Australia/Lord_Howe", "2023-04-02T00:45:00"),
        ("Australia/Lord_Howe", "2023-10-01T00:45:00"),
        ("CET", "2023-07-01T00:30:00"),
        ("Asia/Kolkata", "2023-07-01T00:30:00"),
    ] {
        let mut settings = naive_settings();
        settings.time_zone = TimeZone::get(zone).unwrap();
        let store = place.store_for(&settings).await;
        let start: jiff::civil::DateTime = around.parse().unwrap();
        for quarter in 0..12 {
            let civil = start.checked_add(SignedDuration::from_mins(15 * quarter)).unwrap();
            let expire_date = DateTime::Naive(civil);
            let record = SessionRecord { expire_date, ..record(now()) };
            store.create(&record).await.unwrap();
            let key = record.session_key.as_str();
            let same = format!(
                "SET TIME ZONE '{zone}'; SELECT (expire_date = '{civil}'::timestamp)::text \
                 FROM {} WHERE session_key = '{key}'; SET TIME ZONE 'UTC'",
                place.table
            );
            assert_eq!(select(&pool, &same).await, ["true"], "{civil} in {zone}");
        }
    }
}

/// Rows as Django stored them, on the database it stored them in.
#[tokio::test]
async fn rows_of_django_are_read_and_written_alike() {
    let records = vectors::read("db_rows");
    let mut places = HashMap::new();
    for place in Place::all().await {
        let store = place.store().await;
        places.insert(place.kind, (place, store));
    }
    let (mut checked, mut refused) = (0, 0);
    for vector in records.iter().filter(|vector| vector.get("session").is_some()) {
        let kind = match text(vector, "engine") {
            "mariadb" => Kind::MySql,
            "postgres" => Kind::Postgres,
            _ => Kind::Sqlite,
        };
        let Some((place, connected)) = places.get(&kind) else { continue };
        let settings = settings_of(vector);
        let codec = settings.codec().unwrap();
        let pool = connected.pool().clone();
        let store = SqlStore::new(pool, codec)
            .with_table(&place.table)
            .with_use_tz(settings.use_tz)
            .with_time_zone(settings.time_zone.clone());
        if vector.get("raises").is_some() {
            refused += usize::from(check_refused(vector, &store, &settings).await);
        } else {
            check_row(vector, place, store, settings).await;
            checked += 1;
        }
    }
    if places.len() == 3 {
        assert_eq!((checked, refused), (99, 4));
    }
}

fn settings_of(vector: &Value) -> SessionSettings {
    let key = SecretKey::new(vectors::secret(&vector["secret_key"])).unwrap();
    let mut settings = SessionSettings::default().with_secret_key(key);
    text(vector, "salt").clone_into(&mut settings.salt);
    settings.use_tz = vector["use_tz"].as_bool().unwrap();
    settings.time_zone = TimeZone::get(text(vector, "time_zone")).unwrap();
    settings
}

async fn check_row(vector: &Value, place: &Place, store: SqlStore, settings: SessionSettings) {
    let id = text(vector, "id");
    let (key, row) = (text(vector, "session_key"), &vector["row"]);
    let pool = store.pool().clone();
    let (date, signed) = (text(row, "expire_date_text"), text(row, "session_data"));
    let insert = format!("INSERT INTO {} VALUES ('{key}', '{signed}', '{date}')", place.table);
    execute(&pool, &insert).await;

    let clock = FixedClock::at(vector["time"].as_f64().unwrap());
    let now = settings.datetime(django_session::session::Clock::now(&clock));
    let session_key = SessionKey::parse(key).unwrap();
    let loaded = store.load(&session_key, now).await.unwrap().unwrap_or_else(|| panic!("{id}"));
    assert_eq!(loaded.data.to_json().unwrap(), to_python_json(&vector["session"]), "{id}");
    let read_back = &vector["expire_date_read_back"];
    assert_eq!(loaded.expire_date.isoformat(), text(read_back, "repr"), "{id}");
    let aware = matches!(loaded.expire_date, DateTime::Aware(_));
    assert_eq!(aware, read_back["aware"].as_bool().unwrap(), "{id}");

    // Moved away first, so that what is found is what was written.
    execute(&pool, &format!("UPDATE {} SET expire_date = '2050-01-01 00:00:00'", place.table))
        .await;
    let session = Session::with_clock(
        Arc::new(store.clone()),
        Arc::new(settings),
        Some(session_key.clone()),
        Arc::new(clock),
    );
    session.save().await.unwrap();
    let (stored, expected) = match place.kind {
        Kind::Sqlite => (
            "typeof(expire_date) || ' ' || expire_date",
            format!("{} {date}", text(row, "expire_date_storage")),
        ),
        Kind::MySql => ("CAST(expire_date AS CHAR)", date.to_owned()),
        Kind::Postgres => ("extract(epoch FROM expire_date)::text", text(row, "epoch").to_owned()),
    };
    let stored = select(&pool, &format!("SELECT {stored} FROM {}", place.table)).await;
    assert_eq!(stored, [expected], "{id}");
    store.delete(&session_key).await.unwrap();
}

/// Whether Django refused the session for a reason that still holds: releases before 4.1 take no
/// date at all.
async fn check_refused(vector: &Value, store: &SqlStore, settings: &SessionSettings) -> bool {
    if text(&vector["raises"], "type") != "ValueError" {
        return false;
    }
    let session = Session::with_clock(
        Arc::new(store.clone()),
        Arc::new(settings.clone()),
        None,
        Arc::new(FixedClock::at(vector["time"].as_f64().unwrap())),
    );
    let data = SessionData::from_json(&to_python_json(&vector["session"])).unwrap();
    session.update(&data).await.unwrap();
    let error = session.save().await.unwrap_err();
    assert!(whole(&error).contains("aware"), "{}: {error:?}", vector["id"]);
    true
}

/// A codec is all that a store of one's own needs to share a pool.
#[test]
fn stores_can_be_shared() {
    fn assert_shared<T: Clone + Send + Sync + 'static>() {}
    assert_shared::<SqlStore>();
    assert_shared::<SqlPool>();
    assert_shared::<MemoryStore>();
    assert_shared::<SessionCodec>();
}
