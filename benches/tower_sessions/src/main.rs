//! Each step of a store here beside the same step of tower-sessions' own store, on the same server, in
//! turns; medians in microseconds. `TEST_POSTGRES_URL`, `TEST_MYSQL_URL` and `TEST_REDIS_URL` say where;
//! SQLite is a file of its own for each.
//!
//! What is stored is a cart of 14 things. Ours is signed, compressed, and merged if somebody else was
//! first; theirs is MessagePack, and the last one wins.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
use django_session::session::SessionRecord;
use django_session::store::{CacheStore, RedisCache, SqlPool, SqlStore, sqlx as our_sqlx};
use django_session::{DateTime, SecretKey, SessionData, SessionKey, SessionSettings, SessionStore};
use fred::prelude::{Builder, ClientLike, Config, Pool};
use serde_json::{Value, json};
use tower_sessions_core::SessionStore as TheirStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_redis_store::RedisStore;
use tower_sessions_sqlx_store::{MySqlStore, PostgresStore, SqliteStore};

const ROUNDS: usize = 2000;
const STEPS: [&str; 4] = ["create", "load", "save", "delete"];

/// Django's table, whose columns are of other types in each database.
async fn create_table(store: &SqlStore) -> Result<(), our_sqlx::Error> {
    let ddl = |text: &str, time: &str| {
        our_sqlx::AssertSqlSafe(format!(
            "CREATE TABLE IF NOT EXISTS django_session (session_key varchar(40) NOT NULL PRIMARY KEY, \
             session_data {text} NOT NULL, expire_date {time} NOT NULL)"
        ))
    };
    match store.pool() {
        SqlPool::MySql(pool) => {
            our_sqlx::raw_sql(ddl("longtext", "datetime(6)")).execute(pool).await?;
        }
        SqlPool::Postgres(pool) => {
            our_sqlx::raw_sql(ddl("text", "timestamp with time zone")).execute(pool).await?;
        }
        SqlPool::Sqlite(pool) => {
            our_sqlx::raw_sql(ddl("text", "datetime")).execute(pool).await?;
        }
        _ => {}
    }
    Ok(())
}

fn cart() -> Value {
    let things: Vec<_> = (0..14)
        .map(|index| {
            json!({
                "product": 1000 + index,
                "name": format!("Thing number {index}"),
                "price": format!("{}.90", 10 + index),
                "quantity": index % 3 + 1,
                "options": {"colour": "green", "gift": index % 2 == 0},
            })
        })
        .collect();
    json!({"_auth_user_id": "42", "_auth_user_hash": "f".repeat(64), "cart": things})
}

type Times = [Vec<Duration>; 4];

struct Ours {
    store: Arc<dyn SessionStore>,
    data: Arc<SessionData>,
    times: Times,
}

impl Ours {
    fn new(store: impl SessionStore) -> Result<Self, Box<dyn Error>> {
        let data = Arc::new(SessionData::from_json(&cart().to_string())?);
        Ok(Self { store: Arc::new(store), data, times: Times::default() })
    }

    async fn round(&mut self) -> Result<(), Box<dyn Error>> {
        let now = DateTime::Aware(jiff::Timestamp::now());
        let expire_date = now.checked_add(jiff::SignedDuration::from_hours(24)).ok_or("no date")?;
        let record = SessionRecord {
            session_key: SessionKey::generate(),
            data: Arc::clone(&self.data),
            expire_date,
            revision: None,
        };
        let start = Instant::now();
        self.store.create(&record).await?;
        self.times[0].push(start.elapsed());
        let start = Instant::now();
        let mut loaded = self.store.load(&record.session_key, now).await?.ok_or("it is lost")?;
        self.times[1].push(start.elapsed());
        Arc::make_mut(&mut loaded.data).insert("seen", &1)?;
        let start = Instant::now();
        self.store.save(&loaded).await?;
        self.times[2].push(start.elapsed());
        let start = Instant::now();
        self.store.delete(&record.session_key).await?;
        self.times[3].push(start.elapsed());
        Ok(())
    }
}

struct Theirs<S> {
    store: S,
    data: HashMap<String, Value>,
    times: Times,
}

impl<S: TheirStore> Theirs<S> {
    fn new(store: S) -> Result<Self, Box<dyn Error>> {
        let data = serde_json::from_value(cart())?;
        Ok(Self { store, data, times: Times::default() })
    }

    async fn round(&mut self) -> Result<(), Box<dyn Error>> {
        let expiry_date = time::OffsetDateTime::now_utc() + time::Duration::hours(24);
        let mut record = Record { id: Id::default(), data: self.data.clone(), expiry_date };
        let start = Instant::now();
        self.store.create(&mut record).await?;
        self.times[0].push(start.elapsed());
        let start = Instant::now();
        let mut loaded = self.store.load(&record.id).await?.ok_or("it is lost")?;
        self.times[1].push(start.elapsed());
        loaded.data.insert("seen".to_owned(), json!(1));
        let start = Instant::now();
        self.store.save(&loaded).await?;
        self.times[2].push(start.elapsed());
        let start = Instant::now();
        self.store.delete(&record.id).await?;
        self.times[3].push(start.elapsed());
        Ok(())
    }
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

async fn compare<S: TheirStore>(
    name: &str,
    mut ours: Ours,
    mut theirs: Theirs<S>,
) -> Result<(), Box<dyn Error>> {
    for _ in 0..50 {
        ours.round().await?;
        theirs.round().await?;
    }
    (ours.times, theirs.times) = Default::default();
    for _ in 0..ROUNDS {
        ours.round().await?;
        theirs.round().await?;
    }
    println!("{name:<12}{:>16}{:>10}{:>8}", "tower-sessions", "ours", "times");
    for (index, step) in STEPS.iter().enumerate() {
        let (theirs, ours) = (median(&mut theirs.times[index]), median(&mut ours.times[index]));
        let ratio = theirs / ours;
        let verdict = if ratio < 1.0 { "   slower" } else { "" };
        println!("  {step:<10}{theirs:>16.1}{ours:>10.1}{ratio:>7.2}x{verdict}");
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = SessionSettings::default().with_secret_key(SecretKey::new("a secret key")?);
    let directory = tempfile::tempdir()?;
    let file = |name: &str| format!("sqlite:{}?mode=rwc", directory.path().join(name).display());
    let theirs = SqliteStore::new(sqlx::SqlitePool::connect(&file("theirs")).await?);
    theirs.migrate().await?;
    let ours = SqlStore::connect(&file("ours"), &settings).await?;
    create_table(&ours).await?;
    compare("SQLite", Ours::new(ours)?, Theirs::new(theirs)?).await?;
    if let Ok(url) = std::env::var("TEST_POSTGRES_URL") {
        let theirs = PostgresStore::new(sqlx::PgPool::connect(&url).await?);
        theirs.migrate().await?;
        let ours = SqlStore::connect(&url, &settings).await?;
        create_table(&ours).await?;
        compare("PostgreSQL", Ours::new(ours)?, Theirs::new(theirs)?).await?;
    }
    if let Ok(url) = std::env::var("TEST_MYSQL_URL") {
        let theirs = MySqlStore::new(sqlx::MySqlPool::connect(&url).await?);
        theirs.migrate().await?;
        let ours = SqlStore::connect(&url, &settings).await?;
        create_table(&ours).await?;
        compare("MariaDB", Ours::new(ours)?, Theirs::new(theirs)?).await?;
    }
    if let Ok(url) = std::env::var("TEST_REDIS_URL") {
        let client: Pool = Builder::from_config(Config::from_url(&url)?).build_pool(1)?;
        client.init().await?;
        let theirs = RedisStore::new(client);
        let codec = CacheCodec::new(CacheBackend::Redis);
        let cache = RedisCache::connect(&url).await?;
        let ours = CacheStore::new(cache, CacheKeys::new(CacheEngine::Cache), codec);
        compare("Redis", Ours::new(ours)?, Theirs::new(theirs)?).await?;
    }
    Ok(())
}
