//! The table of a `DatabaseCache`: the contract, and Django on the same table.
//!
//! SQLite is always there, the others where `TEST_POSTGRES_URL` and `TEST_MYSQL_URL` say.

use std::ops::Deref;
use std::sync::Arc;

use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
use django_session::session::{Revision, SessionRecord};
use django_session::store::testing::{Terms, check_contract};
use django_session::store::{Cache, CacheStore, DatabaseCache, SqlError, SqlPool, Written, sqlx};
use django_session::{
    DateTime, Session, SessionData, SessionKey, SessionSettings, SessionStore, StoreError,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::differential::Engine;
use crate::faults;
use crate::lost_updates;
use crate::peer;
use crate::proxy::{Mode, Proxy};
use crate::stores::{Kind, PRECISION, Place, count, naive_settings, settings, statements, whole};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const KINDS: [Kind; 3] = [Kind::Sqlite, Kind::Postgres, Kind::MySql];

/// A cache and the table that goes with it.
pub(crate) struct Table {
    pub(crate) cache: DatabaseCache,
    store: CacheStore,
    settings: SessionSettings,
    place: Place,
}

impl Table {
    /// Makes the table as `createcachetable` makes it; `None` if there is no such server.
    pub(crate) async fn new(kind: Kind, settings: SessionSettings) -> Option<Self> {
        let table = Self::without_table(kind, settings).await?;
        let columns = match kind {
            Kind::MySql => "value longtext NOT NULL, expires datetime(6) NOT NULL",
            Kind::Postgres => "value text NOT NULL, expires timestamp with time zone NOT NULL",
            Kind::Sqlite => "value text NOT NULL, expires datetime NOT NULL",
        };
        let key = "cache_key varchar(255) NOT NULL PRIMARY KEY";
        table.place.execute(&format!("CREATE TABLE {{table}} ({key}, {columns})")).await;
        table.place.execute("CREATE INDEX {table}_expires ON {table} (expires)").await;
        Some(table)
    }

    async fn without_table(kind: Kind, settings: SessionSettings) -> Option<Self> {
        let place = Place::without_table(kind)?;
        let cache = DatabaseCache::connect(&place.url, &place.table, &settings).await.unwrap();
        let store = store(cache.clone(), &settings);
        Some(Self { cache, store, settings, place })
    }

    async fn all() -> Vec<Self> {
        let mut tables = Vec::new();
        for kind in KINDS {
            for settings in [settings(), naive_settings()] {
                tables.extend(Self::new(kind, settings).await);
            }
        }
        tables
    }

    fn now(&self) -> DateTime {
        self.settings.datetime(Timestamp::now())
    }

    fn record(&self) -> SessionRecord {
        let mut data = SessionData::new();
        data.insert("secret", "in the session").unwrap();
        SessionRecord {
            session_key: SessionKey::generate(),
            data: Arc::new(data),
            expire_date: self.now().checked_add(HOUR).unwrap(),
            revision: None,
        }
    }

    /// Moves the end of all entries to a time of long ago, in whatever zone.
    async fn expire(&self) {
        self.place.execute("UPDATE {table} SET expires = '2020-01-01 00:00:00'").await;
    }

    /// A Django whose default cache is this table.
    fn django(&self) -> Option<Engine> {
        let (engine, database) = match self.place.kind {
            Kind::MySql => ("mysql", parts(&self.place.url)),
            Kind::Postgres => ("postgresql", parts(&self.place.url)),
            Kind::Sqlite => {
                ("sqlite3", json!({"NAME": self.place.url.strip_prefix("sqlite:").unwrap()}))
            }
        };
        let mut database = database;
        database["ENGINE"] = format!("django.db.backends.{engine}").into();
        Engine::start(&json!({
            "USE_TZ": self.settings.use_tz,
            "TIME_ZONE": self.settings.time_zone.iana_name().unwrap(),
            "DATABASES": {"default": database},
            "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
            "CACHES": {"default": {
                "BACKEND": "django.core.cache.backends.db.DatabaseCache",
                "LOCATION": self.place.table,
                // Rows that are dropped because there are many are no difference to be found.
                "OPTIONS": {"MAX_ENTRIES": 1_000_000},
            }},
        }))
    }
}

impl Deref for Table {
    type Target = CacheStore;

    fn deref(&self) -> &CacheStore {
        &self.store
    }
}

fn store(cache: DatabaseCache, settings: &SessionSettings) -> CacheStore {
    let (keys, codec) =
        (CacheKeys::new(CacheEngine::Cache), CacheCodec::new(CacheBackend::Database));
    CacheStore::new(cache, keys, codec).with_settings(settings)
}

/// `…://user:password@host:port/name` as Django has it.
fn parts(url: &str) -> Value {
    let (_, rest) = url.split_once("://").unwrap();
    let (user, place) = rest.split_once('@').unwrap();
    let (user, password) = user.split_once(':').unwrap();
    let (host, name) = place.split_once('/').unwrap();
    let (host, port) = host.split_once(':').unwrap();
    json!({"NAME": name, "USER": user, "PASSWORD": password, "HOST": host, "PORT": port})
}

async fn check(kind: Kind) {
    for settings in [settings(), naive_settings()] {
        if Place::without_table(kind).is_none() {
            return;
        }
        let now = settings.datetime(Timestamp::now());
        let make = async || Table::new(kind, settings.clone()).await.unwrap();
        check_contract(make, Terms::dropping(now, PRECISION)).await;
    }
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    check(Kind::Sqlite).await;
}

#[tokio::test]
async fn postgres_keeps_the_contract() {
    check(Kind::Postgres).await;
}

#[tokio::test]
async fn mysql_keeps_the_contract() {
    check(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_requests_lose_nothing() {
    for kind in KINDS {
        let Some(table) = Table::new(kind, settings()).await else { continue };
        let name = format!("DatabaseCache, {kind:?}");
        lost_updates::check(&name, Arc::new(table.store.clone()), &table.settings).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_django_beside_us_loses_changes() {
    for kind in KINDS {
        let Some(table) = Table::new(kind, settings()).await else { continue };
        // Writers of SQLite do not queue: whoever asks at the right moment is next.
        let url = format!("{}?timeout=60&acquire_timeout=60", table.place.url);
        let cache = DatabaseCache::connect(&url, &table.place.table, &table.settings).await;
        let name = format!("DatabaseCache, {kind:?}");
        let (store, django) = (Arc::new(store(cache.unwrap(), &table.settings)), || table.django());
        lost_updates::show_beside_django(&name, store, &table.settings, django).await;
    }
}

#[tokio::test]
async fn django_sees_the_same() {
    for kind in KINDS {
        for settings in [settings(), naive_settings()] {
            let Some(table) = Table::without_table(kind, settings).await else { continue };
            let Some(mut django) = table.django() else { return };
            assert_eq!(django.ask(&json!({"op": "createcachetable"})), json!({}));
            peer::interleave(&table.store, &mut django, &|| table.now(), false, 1_500).await;
        }
    }
}

/// Rust and Django count in one session, at the same time. Ours never overwrites what it has not seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn django_beside_us_keeps_what_it_sees() {
    for kind in KINDS {
        let Some(table) = Table::new(kind, settings()).await else { continue };
        let Some(mut django) = table.django() else { return };
        let key = django.ask(&json!({"op": "create", "data": {"start": 0}}));
        let key = SessionKey::parse(key["key"].as_str().unwrap()).unwrap();
        let request =
            json!({"op": "increment", "key": key.as_str(), "name": "django", "times": 100});
        django.tell(&request);
        let (store, settings) = (Arc::new(table.store.clone()), Arc::new(settings()));
        for _ in 0..100 {
            let session = Session::new(store.clone(), settings.clone(), Some(key.clone()));
            let count = session.get::<u32>("rust").await.unwrap().unwrap_or(0);
            session.insert("rust", &(count + 1)).await.unwrap();
            session.save().await.unwrap();
        }
        assert_eq!(tokio::task::block_in_place(|| django.answer()), json!({}));
        let loaded = store.load(&key, table.now()).await.unwrap().unwrap();
        let counted = loaded.data.get::<u32>("django").unwrap();
        // On SQLite Django's own writes may fail, silently, while ours hold the lock.
        assert!(counted == Some(100) || kind == Kind::Sqlite, "{kind:?}: {counted:?}");
    }
}

/// A row of ours is one that Django could have written.
#[tokio::test]
async fn rows_are_those_of_django() {
    for table in Table::all().await {
        let Some(mut django) = table.django() else { return };
        let data = json!({"secret": "in the session", "_session_expiry": 3600});
        let theirs = django.ask(&json!({"op": "create", "data": data}));
        let ours = table.record();
        let mut data = (*ours.data).clone();
        data.insert("_session_expiry", &3600).unwrap();
        let ours = SessionRecord { data: Arc::new(data), ..ours };
        table.create(&ours).await.unwrap();
        let row = async |key: &str| {
            let (text, kind) = match table.place.kind {
                Kind::MySql => ("CAST(expires AS CHAR)", "'datetime'"),
                Kind::Postgres => ("extract(epoch FROM expires)::text", "'timestamptz'"),
                Kind::Sqlite => ("expires", "typeof(expires)"),
            };
            let select = async |column: &str| {
                let sql = format!("SELECT {column} FROM {{table}} WHERE cache_key LIKE '%{key}'");
                table.place.select(&sql).await.remove(0)
            };
            (select(text).await, select(kind).await)
        };
        let theirs = row(theirs["key"].as_str().unwrap()).await;
        let ours = row(ours.session_key.as_str()).await;
        let context = format!("{:?}, {:?} and {:?}", table.place.kind, theirs.0, ours.0);
        assert_eq!((theirs.0.len(), theirs.1), (ours.0.len(), ours.1), "{context}");
        // The same day; that the values are read by both is shown above.
        assert_eq!(theirs.0[..10], ours.0[..10], "{context}");
    }
}

#[tokio::test]
async fn each_step_is_one_statement() {
    statements::watch();
    for table in Table::all().await {
        let cache = &table.cache;
        let Written::Done(value) = cache.add("key", b"MQ==", HOUR).await.unwrap() else { panic!() };
        for step in [
            "get",
            "has_key",
            "touch",
            "replace",
            "replace a revision",
            "delete",
            "add",
            "delete a revision",
        ] {
            let counted = count(&table.place, cache.pool(), async {
                match step {
                    "get" => assert!(cache.get("key").await.unwrap().is_some()),
                    "has_key" => assert!(cache.has_key("key").await.unwrap()),
                    "touch" => assert!(cache.touch("key", HOUR).await.unwrap()),
                    "replace" => drop(cache.replace("key", b"MQ==", HOUR, None).await.unwrap()),
                    "replace a revision" => {
                        let replaced = cache.replace("key", b"MQ==", HOUR, Some(&value)).await;
                        assert_eq!(replaced.unwrap(), Written::Done(value.clone()));
                    }
                    "delete a revision" => {
                        let deleted = cache.delete("key", Some(&value)).await.unwrap();
                        assert!(matches!(deleted, Written::Done(_)));
                    }
                    "delete" => {
                        let deleted = cache.delete("key", None).await.unwrap();
                        assert!(matches!(deleted, Written::Done(_)));
                    }
                    _ => assert_eq!(
                        cache.add("key", b"MQ==", HOUR).await.unwrap(),
                        Written::Done(value.clone())
                    ),
                }
            });
            assert_eq!(counted.await, 1, "{step}");
        }
        let all = statements::of(&table.place.table);
        assert!(!all.iter().any(|statement| statement.contains("BEGIN")), "{all:?}");
    }
}

#[tokio::test]
async fn an_expired_row_is_not_there() {
    for table in Table::all().await {
        let cache = &table.cache;
        cache.add("key", b"MQ==", HOUR).await.unwrap();
        let revision = cache.get("key").await.unwrap().unwrap().revision;
        assert_eq!(cache.add("key", b"Mg==", HOUR).await.unwrap(), Written::Changed);
        table.expire().await;
        assert!(cache.get("key").await.unwrap().is_none());
        assert!(!cache.has_key("key").await.unwrap());
        assert!(!cache.touch("key", HOUR).await.unwrap());
        for revision in [None, Some(&revision)] {
            let replaced = cache.replace("key", b"Mg==", HOUR, revision).await.unwrap();
            assert_eq!(replaced, Written::Missing);
        }
        // Its place is free.
        assert!(matches!(cache.add("key", b"Mw==", HOUR).await.unwrap(), Written::Done(_)));
        assert_eq!(cache.get("key").await.unwrap().unwrap().value, b"Mw==");
        assert_eq!(cache.add("key", b"NA==", HOUR).await.unwrap(), Written::Changed);
        // Whoever logs out does not leave it to clocks whether the row is used again.
        table.expire().await;
        cache.delete("key", None).await.unwrap();
        assert_eq!(table.place.select("SELECT cache_key FROM {table}").await, [""; 0]);
    }
}

#[tokio::test]
async fn values_and_keys_are_compared_to_the_letter() {
    for table in Table::all().await {
        let cache = &table.cache;
        cache.add("key", b"QUJD", HOUR).await.unwrap();
        for other in ["qujd", "QUJD ", "QUJ\u{c4}", "", "MQ=="] {
            let other = Revision::new(other.as_bytes());
            let replaced = cache.replace("key", b"Mg==", HOUR, Some(&other)).await.unwrap();
            assert_eq!(replaced, Written::Changed);
            assert_eq!(cache.delete("key", Some(&other)).await.unwrap(), Written::Changed);
        }
        let bytes = Revision::new([0xff, 0xfe]);
        let replaced = cache.replace("key", b"Mg==", HOUR, Some(&bytes)).await.unwrap();
        assert_eq!(replaced, Written::Changed);
        assert_eq!(cache.delete("none", Some(&bytes)).await.unwrap(), Written::Missing);
        assert!(cache.get("KEY").await.unwrap().is_none());
        assert!(!cache.has_key("KEY").await.unwrap());
        assert_eq!(cache.get("key").await.unwrap().unwrap().value, b"QUJD");
    }
}

#[tokio::test]
async fn a_failure_is_an_error_of_the_backend_and_shows_nothing() {
    for table in Table::all().await {
        let record = table.record();
        table.create(&record).await.unwrap();
        table.place.execute("DROP TABLE {table}").await;
        let key = &record.session_key;
        let with_revision =
            SessionRecord { revision: Some(Revision::new(*b"MQ==")), ..record.clone() };
        for error in [
            table.exists(key).await.unwrap_err(),
            table.create(&record).await.unwrap_err(),
            table.load(key, table.now()).await.unwrap_err(),
            table.save(&record).await.unwrap_err(),
            table.save(&with_revision).await.unwrap_err(),
            table.touch(&record).await.unwrap_err(),
            table.delete(key).await.unwrap_err(),
        ] {
            let StoreError::Backend(source) = &error else { panic!("{error:?}") };
            assert!(source.is::<SqlError>());
            let text = whole(&error);
            assert!(text.contains(&table.place.table) && !text.contains(key.as_str()), "{text}");
        }
        let shown = format!("{:?}", table.cache);
        assert!(shown.contains(&table.place.table) && !shown.contains('@'), "{shown}");
    }
    let nowhere = sqlx::postgres::PgPoolOptions::new()
        .acquire_timeout(std::time::Duration::from_millis(300))
        .connect_lazy("postgres://user:hunter2@127.0.0.1:1/none")
        .unwrap();
    let error = DatabaseCache::new(nowhere, "t").get("key").await.unwrap_err();
    assert!(error.is_outage() && error.is_retryable(), "{error:?}");
    assert!(!whole(&error).contains("hunter2"));
}

#[tokio::test]
async fn an_unreadable_row_is_no_missing_row() {
    let table = Table::new(Kind::Sqlite, settings()).await.unwrap();
    let record = table.record();
    table.create(&record).await.unwrap();
    for corrupt in ["", "nonsense", "gASVAAA="] {
        table.place.execute(&format!("UPDATE {{table}} SET value = '{corrupt}'")).await;
        let error = table.load(&record.session_key, table.now()).await.unwrap_err();
        assert!(matches!(error, StoreError::CacheDecode(_)), "{error:?}");
    }
    table.place.execute("UPDATE {table} SET expires = 'never'").await;
    let error = table.load(&record.session_key, table.now()).await.unwrap_err();
    assert!(whole(&error).contains("unreadable expires"), "{error:?}");
    // Bytes are no value of this table.
    let error = table.cache.add("key", &[0xff], HOUR).await.unwrap_err();
    assert!(matches!(error, StoreError::Backend(_)), "{error:?}");
}

#[test]
fn caches_can_be_shared() {
    fn assert_shared<T: Clone + Send + Sync + 'static>() {}
    assert_shared::<DatabaseCache>();
    assert_shared::<SqlPool>();
}

/// The cache of a table behind a proxy.
async fn behind_proxy(table: &Table) -> (DatabaseCache, Proxy) {
    let (head, rest) = table.place.url.rsplit_once(':').unwrap();
    let (port, database) = rest.split_once('/').unwrap();
    let proxy = Proxy::before(port.parse().unwrap()).await;
    let url = format!("{head}:{}/{database}?max_connections=1", proxy.port());
    let cache = DatabaseCache::connect(&url, &table.place.table, &table.settings).await.unwrap();
    (cache, proxy)
}

#[tokio::test]
async fn a_rotation_whose_answers_are_lost_loses_no_session() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(table) = Table::new(kind, settings()).await else { continue };
        let (cache, proxy) = behind_proxy(&table).await;
        let name = format!("DatabaseCache, {kind:?}");
        let through = store(cache, &table.settings);
        faults::rotate_without_answers(
            &name,
            through,
            table.store.clone(),
            &proxy,
            None,
            &["done", "done"],
        )
        .await;
    }
}

/// What its first try has written is no row of somebody else's.
#[tokio::test]
async fn a_write_whose_answer_is_lost_knows_its_own_work() {
    for kind in [Kind::Postgres, Kind::MySql] {
        let Some(table) = Table::new(kind, settings()).await else { continue };
        let (cache, proxy) = behind_proxy(&table).await;
        let (first, second) = (Revision::new(*b"one"), Revision::new(*b"two"));
        // The first time is for the statements, which are prepared again after the connection broke.
        for mode in [Mode::Pass, Mode::CutRequest, Mode::CutAnswer(0), Mode::CutLaterAnswer(1)] {
            let what = format!("{kind:?} {mode:?}");
            let written = cache.add("k", b"one", HOUR).await.unwrap();
            assert_eq!(written, Written::Done(first.clone()), "{what}");
            cache.replace("k", b"one", HOUR, Some(&first)).await.unwrap();
            cache.delete("k", None).await.unwrap();

            proxy.set(mode);
            let written = cache.add("k", b"one", HOUR).await.unwrap();
            assert_eq!(written, Written::Done(first.clone()), "{what}");
            cache.replace("k", b"one", HOUR, Some(&first)).await.unwrap();
            proxy.set(mode);
            let written = cache.replace("k", b"two", HOUR, Some(&first)).await.unwrap();
            assert_eq!(written, Written::Done(second.clone()), "{what}");
            // What is not its own is somebody else's as before.
            proxy.set(mode);
            assert_eq!(cache.add("k", b"three", HOUR).await.unwrap(), Written::Changed, "{what}");
            proxy.set(mode);
            let written = cache.replace("k", b"three", HOUR, Some(&first)).await.unwrap();
            assert_eq!(written, Written::Changed, "{what}");
            proxy.set(mode);
            let deleted = cache.delete("k", Some(&first)).await.unwrap();
            assert_eq!(deleted, Written::Changed, "{what}");
            proxy.set(Mode::Pass);
            cache.delete("k", None).await.unwrap();
        }
    }
}
