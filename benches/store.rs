//! What `SqlStore` costs over a query written by hand, on the same row and the same connections.
//!
//! `query` is the statement alone, `query+codec` adds what any program has to do with the text, and
//! `store` is the whole operation: compare it with `query+codec`. `codec` alone tells the rest.
//! The lines that begin with `ratio` compare the two in turns, so that whatever else the machine is
//! doing slows both down; trust these where the machine is not idle.
//!
//! `cargo bench --features sqlite,postgres --bench store`; PostgreSQL takes part where
//! `TEST_POSTGRES_URL` is set.

#![allow(missing_docs, reason = "criterion's macro makes a public function")]
#![allow(clippy::print_stdout, reason = "it is what a benchmark is for")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing to tell")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use django_session::session::SessionRecord;
use django_session::store::sqlx::{self, AssertSqlSafe};
use django_session::store::{SqlPool, SqlStore};
use django_session::{
    SecretKey, SessionCodec, SessionData, SessionKey, SessionSettings, SessionStore,
};
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Runtime;

/// Others in the table, so that a key has to be looked for.
const ROWS: usize = 2000;

struct Bench {
    runtime: Runtime,
    codec: SessionCodec,
    store: SqlStore,
    settings: SessionSettings,
    record: SessionRecord,
}

impl Bench {
    fn new(url: &str, ddl: &str, table: &str) -> Self {
        let key = SecretKey::new("correct horse battery staple").unwrap();
        let settings = SessionSettings::default().with_secret_key(key);
        let runtime = Runtime::new().unwrap();
        let store = runtime.block_on(SqlStore::connect(url, &settings)).unwrap().with_table(table);
        let now = settings.datetime(Timestamp::now());
        let record = SessionRecord {
            session_key: SessionKey::generate(),
            data: session(),
            expire_date: now.checked_add(SignedDuration::from_hours(24)).unwrap(),
            revision: None,
        };
        runtime.block_on(async {
            match store.pool() {
                SqlPool::Sqlite(pool) => {
                    sqlx::raw_sql(AssertSqlSafe(ddl)).execute(pool).await.unwrap();
                }
                SqlPool::Postgres(pool) => {
                    sqlx::raw_sql(AssertSqlSafe(ddl)).execute(pool).await.unwrap();
                }
                _ => unreachable!(),
            }
            for _ in 0..ROWS {
                let other = SessionRecord { session_key: SessionKey::generate(), ..record.clone() };
                store.create(&other).await.unwrap();
            }
            store.create(&record).await.unwrap();
        });
        Self { runtime, codec: settings.codec().unwrap(), store, settings, record }
    }

    fn measure<Step: Future>(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        step: impl Fn() -> Step,
    ) {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                self.runtime.block_on(async {
                    let start = Instant::now();
                    for _ in 0..times {
                        std::hint::black_box(step().await);
                    }
                    start.elapsed()
                })
            });
        });
    }

    /// Runs two in turns and prints how the medians of short batches compare.
    fn ratio<Ours: Future, Theirs: Future>(
        &self,
        name: &str,
        ours: impl Fn() -> Ours,
        theirs: impl Fn() -> Theirs,
    ) {
        const ROUNDS: usize = 1000;
        const BATCH: u32 = 20;
        let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
        self.runtime.block_on(async {
            for _ in 0..ROUNDS {
                let start = Instant::now();
                for _ in 0..BATCH {
                    std::hint::black_box(ours().await);
                }
                let middle = Instant::now();
                for _ in 0..BATCH {
                    std::hint::black_box(theirs().await);
                }
                our_times.push((middle - start) / BATCH);
                their_times.push(middle.elapsed() / BATCH);
            }
        });
        our_times.sort();
        their_times.sort();
        for (label, at) in [("lower quartile", ROUNDS / 4), ("median", ROUNDS / 2)] {
            let (ours, theirs) = (our_times[at], their_times[at]);
            let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
            println!("ratio {name}, {label}: {ours:.1?} / {theirs:.1?} = {ratio:.3}");
        }
    }

    /// Measures the four, given the statements by hand: `load` returns the text, `save` takes it.
    fn compare<Loaded, Saved>(
        &self,
        criterion: &mut Criterion,
        name: &str,
        load: impl Fn() -> Loaded,
        save: impl Fn(String) -> Saved,
    ) where
        Loaded: Future<Output = String>,
        Saved: Future<Output = u64>,
    {
        let (key, data) = (&self.record.session_key, &self.record.data);
        let signed = self.codec.encode(data, 1_700_000_000).unwrap();

        let load_by_hand = async || self.codec.decode(&load().await).unwrap();
        let load_by_store = async || {
            let now = self.settings.datetime(Timestamp::now());
            self.store.load(key, now).await.unwrap().unwrap()
        };
        let mut group = group(criterion, &format!("{name}/load"));
        self.measure(&mut group, "codec", async || self.codec.decode(&signed).unwrap());
        self.measure(&mut group, "query", &load);
        self.measure(&mut group, "query+codec", load_by_hand);
        self.measure(&mut group, "store", load_by_store);
        group.finish();
        self.ratio(&format!("{name}/load"), load_by_store, load_by_hand);

        let save_by_hand = async || {
            let signed = self.codec.encode(data, Timestamp::now().as_second()).unwrap();
            assert_eq!(save(signed).await, 1);
        };
        let save_by_store = async || self.store.save(&self.record).await.unwrap();
        let mut group = self::group(criterion, &format!("{name}/save"));
        self.measure(&mut group, "codec", async || self.codec.encode(data, 1_700_000_000).unwrap());
        self.measure(&mut group, "query", async || assert_eq!(save(signed.clone()).await, 1));
        self.measure(&mut group, "query+codec", save_by_hand);
        self.measure(&mut group, "store", save_by_store);
        group.finish();
        self.ratio(&format!("{name}/save"), save_by_store, save_by_hand);
    }
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.measurement_time(Duration::from_secs(4)).sample_size(40);
    group
}

/// A logged-in visitor with a cart: 1.7 kB of JSON.
fn session() -> Arc<SessionData> {
    let mut data = SessionData::new();
    data.insert("_auth_user_id", "1017").unwrap();
    data.insert("_auth_user_backend", "django.contrib.auth.backends.ModelBackend").unwrap();
    data.insert("_auth_user_hash", &"4f".repeat(32)).unwrap();
    let item =
        |n: u32| format!("Artikel {n}: Käse, 250 g, Preis {}.{:02} EUR, lieferbar", n * 3, n);
    let cart: Vec<_> = (0..24).map(item).collect();
    data.insert("cart", &cart).unwrap();
    Arc::new(data)
}

fn sqlite(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db.sqlite3");
    let bench = Bench::new(
        &format!("sqlite:{}?mode=rwc", path.display()),
        "PRAGMA journal_mode = wal; CREATE TABLE django_session (session_key varchar(40) NOT NULL \
         PRIMARY KEY, session_data text NOT NULL, expire_date datetime NOT NULL)",
        "django_session",
    );
    let SqlPool::Sqlite(pool) = bench.store.pool() else { unreachable!() };
    let key = bench.record.session_key.as_str();
    bench.compare(
        criterion,
        "sqlite",
        async || {
            let now = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
            let row: (String, String) = sqlx::query_as(
                "SELECT session_data, CAST(expire_date AS TEXT) FROM django_session \
                 WHERE session_key = ? AND expire_date > ?",
            )
            .bind(key)
            .bind(now)
            .fetch_one(pool)
            .await
            .unwrap();
            row.0
        },
        async |signed| {
            let date = "2050-01-01 00:00:00";
            let update =
                "UPDATE django_session SET session_data = ?, expire_date = ? WHERE session_key = ?";
            let update = sqlx::query(update).bind(signed).bind(date).bind(key);
            update.execute(pool).await.unwrap().rows_affected()
        },
    );
}

const POSTGRES_DDL: &str = "DROP TABLE IF EXISTS bench_session; CREATE TABLE bench_session \
    (session_key varchar(40) NOT NULL PRIMARY KEY, session_data text NOT NULL, \
    expire_date timestamp with time zone NOT NULL)";

fn postgres(criterion: &mut Criterion) {
    let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
        eprintln!("TEST_POSTGRES_URL is not set: PostgreSQL is not measured");
        return;
    };
    let bench = Bench::new(&url, POSTGRES_DDL, "bench_session");
    let SqlPool::Postgres(pool) = bench.store.pool() else { unreachable!() };
    let key = bench.record.session_key.as_str();
    bench.compare(
        criterion,
        "postgres",
        async || {
            // The cheapest way to write it: the server's clock, and a number for the date.
            let row: (String, i64) = sqlx::query_as(
                "SELECT session_data, (extract(epoch FROM expire_date) * 1000000)::int8 \
                 FROM bench_session WHERE session_key = $1 AND expire_date > now()",
            )
            .bind(key)
            .fetch_one(pool)
            .await
            .unwrap();
            row.0
        },
        async |signed| {
            let update = "UPDATE bench_session SET session_data = $1, expire_date = \
                          '2050-01-01Z'::timestamptz WHERE session_key = $2";
            let update = sqlx::query(update).bind(signed).bind(key);
            update.execute(pool).await.unwrap().rows_affected()
        },
    );
}

criterion_group!(benches, sqlite, postgres);
criterion_main!(benches);
