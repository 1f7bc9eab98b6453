//! Sessions in the table `django_session`, as `django.contrib.sessions.backends.db` keeps them.
//!
//! The table stays Django's: nothing is created or migrated, and rows are what Django writes, to the
//! microsecond and, where the column is text, to the letter. Different: each step is one statement
//! that commits by itself, where Django wraps a write in a transaction and reads before it deletes,
//! and a failure during an update is an error of its own, where Django calls each of them a deleted
//! session. The fixture `db_rows` proves the representation on all three databases.

mod connect;
mod dialect;
mod error;
mod lease;
#[cfg(feature = "postgres")]
mod log_position;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sqlx::{AssertSqlSafe, Row};
use tokio::sync::{Mutex, MutexGuard};

use self::dialect::Statements;
pub(super) use self::dialect::{Dialect, Zone};
#[cfg(feature = "cli")]
pub(super) use self::dialect::{decode_micros, decode_text};
pub use self::error::SqlError;
pub(super) use self::lease::{Lease, Spare};
use crate::codec::SessionCodec;
use crate::session::{
    DateTime, Revision, Saved, SessionKey, SessionRecord, SessionStore, StoreError,
};
use crate::store::retry::{Failure, Tries};

/// The table of `django.contrib.sessions.models.Session`.
const TABLE: &str = "django_session";
/// How many sessions one statement of `clear_expired` removes, unless told otherwise.
const CLEAR_BATCH: NonZeroU32 = NonZeroU32::new(1000).expect("it is not zero");
/// How long to wait for a connection, for an answer, and on SQLite for a lock: as long as Django there.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// The table `django_session` in SQLite, PostgreSQL, MySQL or MariaDB.
///
/// Clones share the connections. Every operation is one statement, `clear_expired` one per
/// [batch](SqlStore::with_clear_batch). A second one follows where a connection broke and what was sent
/// again found nothing to do, to see whether that is its own work.
///
/// # Keys that no row can have
///
/// A client chooses the key it sends. One that the column cannot hold, because of a NUL character on
/// PostgreSQL or a character that the table's encoding lacks, is a key that does not exist, though
/// Django answers it by a server error. Where the collation of the column ignores case, as MySQL's do
/// by default, a key finds its row in any spelling, as in Django.
///
/// # PgBouncer
///
/// In transaction mode before version 1.21, prepared statements cannot be used: add
/// `?statement-cache-capacity=0` to the address given to [`SqlStore::connect`], or give a pool so made
/// and [`with_persistent_statements(false)`](SqlStore::with_persistent_statements).
///
/// # Example
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use django_session::store::{SqlStore, sqlx};
/// use django_session::{SecretKey, Session, SessionSettings};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("db.sqlite3");
/// # let url = format!("sqlite:{}?mode=rwc", path.display());
/// # let pool = sqlx::SqlitePool::connect(&url).await?;
/// # sqlx::raw_sql(
/// #     "CREATE TABLE django_session (session_key varchar(40) NOT NULL PRIMARY KEY, \
/// #      session_data text NOT NULL, expire_date datetime NOT NULL)",
/// # ).execute(&pool).await?;
/// # let url = format!("sqlite:{}", path.display());
/// let settings = SessionSettings::default().with_secret_key(SecretKey::new("the site's SECRET_KEY")?);
/// // For example "sqlite:db.sqlite3" or "postgres://user:password@localhost/site".
/// let store = Arc::new(SqlStore::connect(&url, &settings).await?);
///
/// let session = Session::new(store, Arc::new(settings), None);
/// session.insert("cart", &["tea"]).await?;
/// session.save().await?;
///
/// // What `manage.py shell` would find:
/// let keys: Vec<String> =
///     sqlx::query_scalar("SELECT session_key FROM django_session").fetch_all(&pool).await?;
/// assert_eq!(keys, [session.session_key().await.unwrap().as_str()]);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct SqlStore {
    pool: SqlPool,
    codec: SessionCodec,
    table: Arc<str>,
    statements: Arc<Statements>,
    zone: Zone,
    persistent: bool,
    timeout: Duration,
    clear_batch: NonZeroU32,
    writer: Writer,
    spare: Spare,
}

/// The way of a store to its database, for others to go.
#[cfg(feature = "auth")]
pub(super) struct Way {
    pub(super) pool: SqlPool,
    pub(super) zone: Zone,
    pub(super) persistent: bool,
    pub(super) timeout: Duration,
    pub(super) writer: Writer,
    pub(super) spare: Spare,
}

/// Connections to a database of one of the kinds that were compiled in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SqlPool {
    /// Connections to MySQL or MariaDB.
    #[cfg(feature = "mysql")]
    MySql(sqlx::MySqlPool),
    /// Connections to PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
    /// Connections to a file of SQLite.
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::SqlitePool),
}

#[cfg(feature = "mysql")]
impl From<sqlx::MySqlPool> for SqlPool {
    fn from(pool: sqlx::MySqlPool) -> Self {
        Self::MySql(pool)
    }
}

#[cfg(feature = "postgres")]
impl From<sqlx::PgPool> for SqlPool {
    fn from(pool: sqlx::PgPool) -> Self {
        Self::Postgres(pool)
    }
}

#[cfg(feature = "sqlite")]
impl From<sqlx::SqlitePool> for SqlPool {
    fn from(pool: sqlx::SqlitePool) -> Self {
        Self::Sqlite(pool)
    }
}

impl SqlPool {
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            #[cfg(feature = "mysql")]
            Self::MySql(_) => Dialect::MySql,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Dialect::Postgres,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    fn max_connections(&self) -> u32 {
        match self {
            #[cfg(feature = "mysql")]
            Self::MySql(pool) => pool.options().get_max_connections(),
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.options().get_max_connections(),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pool) => pool.options().get_max_connections(),
        }
    }

    pub(in crate::store) async fn close(&self) {
        match self {
            #[cfg(feature = "mysql")]
            Self::MySql(pool) => pool.close().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.close().await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pool) => pool.close().await,
        }
    }

    /// Whether it is certain without asking that no row has this key. PostgreSQL would fail, and log
    /// it.
    pub(super) fn cannot_have(&self, key: &str) -> bool {
        self.dialect() == Dialect::Postgres && key.contains('\0')
    }
}

/// Taken by who writes, where only one can at a time.
#[derive(Clone)]
pub(super) struct Writer(Option<Arc<Mutex<()>>>);

impl Writer {
    /// SQLite lets those who wait for its lock sleep, and some of them oversleep.
    pub(super) fn new(dialect: Dialect) -> Self {
        Self((dialect == Dialect::Sqlite).then(Arc::default))
    }

    /// Waits until it is this task's turn to write.
    pub(super) async fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match &self.0 {
            Some(writer) => Some(writer.lock().await),
            None => None,
        }
    }
}

/// What came of a statement that writes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// How many rows it met.
    pub(super) rows: u64,
    /// Whether it was sent before by a connection that broke, so that what it met may be its own work.
    pub(super) repeated: bool,
}

/// Runs a statement on whatever database it is: `execute` for its [`Outcome`], `insert` too, where a key
/// that is taken is no row, `fetch_optional` for a row, of which the last argument makes something.
macro_rules! run {
    ($store:expr, $statement:ident [$($parameter:expr),+] execute) => {{
        let _turn = $store.writer.turn().await;
        let (done, repeated) =
            run!(@ $store, $statement [$($parameter),+] execute, |done| Ok(done.rows_affected()));
        Outcome::new(done, repeated)
    }};
    ($store:expr, $statement:ident [$($parameter:expr),+] insert) => {{
        let _turn = $store.writer.turn().await;
        let (done, repeated) =
            run!(@ $store, $statement [$($parameter),+] execute, |done| Ok(done.rows_affected()));
        Outcome::new(done.or_else(taken_is_no_row), repeated)
    }};
    ($store:expr, $statement:ident [$($parameter:expr),+] fetch_optional, $read:expr) => {
        run!(@ $store, $statement [$($parameter),+] fetch_optional, $read).0
    };
    ($store:expr, $statement:ident [$($parameter:expr),+] fetch_all, $read:expr) => {
        run!(@ $store, $statement [$($parameter),+] fetch_all, $read).0
    };
    (@ $store:expr, $statement:ident [$($parameter:expr),+] $how:ident, $read:expr) => {
        match &$store.pool {
            #[cfg(feature = "mysql")]
            SqlPool::MySql(pool) => run!(@ pool, $store, $statement [$($parameter),+] $how, $read),
            #[cfg(feature = "postgres")]
            SqlPool::Postgres(pool) => run!(@ pool, $store, $statement [$($parameter),+] $how, $read),
            #[cfg(feature = "sqlite")]
            SqlPool::Sqlite(pool) => run!(@ pool, $store, $statement [$($parameter),+] $how, $read),
        }
    };
    (@ $pool:ident, $store:expr, $statement:ident [$($parameter:expr),+] $how:ident, $read:expr) => {{
        let mut tries = Tries::default();
        let mut repeated = false;
        loop {
            let query = || {
                sqlx::query(AssertSqlSafe(Arc::clone(&$store.statements.$statement)))
                    .persistent($store.persistent)
                    $(.bind($parameter))+
            };
            let mut sent = false;
            let attempt = async {
                let mut lease = Lease::take($pool, &$store.spare, $store.timeout).await?;
                sent = true;
                let answer = async {
                    if $store.persistent {
                        return Ok::<_, SqlError>(query().$how(lease.connection()?).await?);
                    }
                    // Preparing and executing are two steps, and a pooler in transaction mode may send
                    // them to two servers.
                    let mut transaction = sqlx::Connection::begin(lease.connection()?).await?;
                    let done = query().$how(&mut *transaction).await?;
                    transaction.commit().await?;
                    Ok(done)
                };
                let answer = tokio::time::timeout($store.timeout, answer).await;
                let answer = answer.map_err(|_| SqlError::timed_out())?;
                match &answer {
                    Ok(_) => lease.at_rest(),
                    // Another one may lead to the server that has taken over.
                    Err(error) if error.is_of_reader() => {}
                    Err(_) => lease.answered(),
                }
                answer
            };
            match attempt.await.and_then($read) {
                Err(error) if tries.again(error.failure()).await => {
                    repeated = repeated || sent && error.failure() == Failure::Broken;
                }
                done => break (done, repeated),
            }
        }
    }};
}

#[cfg(any(feature = "auth", feature = "cache"))]
pub(super) use run;

impl Outcome {
    pub(super) fn new(done: Result<u64, SqlError>, repeated: bool) -> Result<Self, SqlError> {
        match done {
            Ok(rows) => Ok(Self { rows, repeated }),
            Err(error) if repeated => Err(error.after_broken()),
            Err(error) => Err(error),
        }
    }
}

pub(super) fn taken_is_no_row(error: SqlError) -> Result<u64, SqlError> {
    if is_taken(&error) { Ok(0) } else { Err(error) }
}

/// Whether a key is taken.
pub(super) fn is_taken(error: &SqlError) -> bool {
    let error = error.as_sqlx().and_then(sqlx::Error::as_database_error);
    error.is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

impl SqlStore {
    /// A store on connections of yours, for sessions that this codec signs.
    ///
    /// It assumes `USE_TZ=True`, Django's default since 5.0; for a site without see
    /// [`SqlStore::with_use_tz`].
    pub fn new(pool: impl Into<SqlPool>, codec: SessionCodec) -> Self {
        let pool = pool.into();
        let statements = Arc::new(pool.dialect().statements(TABLE));
        let writer = Writer::new(pool.dialect());
        let zone = Zone { use_tz: true, time_zone: TimeZone::UTC };
        Self {
            pool,
            codec,
            table: TABLE.into(),
            statements,
            zone,
            persistent: true,
            timeout: TIMEOUT,
            clear_batch: CLEAR_BATCH,
            writer,
            spare: Spare::default(),
        }
    }

    /// Sets the name of the table, for a site whose model has a `db_table` of its own. It is quoted
    /// as one name; a schema cannot be part of it.
    #[must_use]
    pub fn with_table(mut self, table: &str) -> Self {
        self.table = table.into();
        self.statements = Arc::new(self.pool.dialect().statements(table));
        self
    }

    /// Sets whether the site has `USE_TZ`. Without, SQLite and MySQL hold local time, and aware times
    /// are refused there with
    /// [`MixedTimeZones`](crate::session::ExpiryError::MixedTimeZones).
    #[must_use]
    pub fn with_use_tz(mut self, use_tz: bool) -> Self {
        self.zone.use_tz = use_tz;
        self
    }

    /// Sets the site's `TIME_ZONE`, UTC at first: the zone of naive times wherever an instant is
    /// needed.
    #[must_use]
    pub fn with_time_zone(mut self, time_zone: TimeZone) -> Self {
        self.zone.time_zone = time_zone;
        self
    }

    /// Sets whether statements are prepared once per connection, as they are at first. Without, each
    /// is prepared anew, in a transaction of its own: five round trips in place of one, which old poolers
    /// need.
    #[must_use]
    pub fn with_persistent_statements(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Sets how long a statement may take before it counts as failed, five seconds at first.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many sessions one statement of `clear_expired` removes, 1000 at first. Locks are held
    /// for one statement.
    #[must_use]
    pub fn with_clear_batch(mut self, sessions: NonZeroU32) -> Self {
        self.clear_batch = sessions;
        self
    }

    /// How statements get to the database.
    #[cfg(feature = "auth")]
    pub(super) fn way(&self) -> Way {
        Way {
            pool: self.pool.clone(),
            zone: self.zone.clone(),
            persistent: self.persistent,
            timeout: self.timeout,
            writer: self.writer.clone(),
            spare: self.spare.clone(),
        }
    }

    /// The connections.
    pub fn pool(&self) -> &SqlPool {
        &self.pool
    }

    fn encode(&self, record: &SessionRecord) -> Result<(String, String), StoreError> {
        let expire_date = self.encode_time(record.expire_date)?;
        let now = Timestamp::now().as_second();
        let session_data = self.codec.encode(&record.data, now).map_err(StoreError::Encode)?;
        Ok((session_data, expire_date))
    }

    fn encode_time(&self, time: DateTime) -> Result<String, StoreError> {
        self.pool.dialect().encode_time(&self.zone, time).map_err(StoreError::ExpireDate)
    }

    /// A row of `load`: the session, or why it is none.
    fn read<R: StoredRow>(
        &self,
        session_key: &SessionKey,
        row: &R,
    ) -> Result<Result<SessionRecord, StoreError>, SqlError> {
        let session_data = row.text()?;
        let expire_date = row.time("expire_date", &self.zone)?;
        let decoded = self.codec.decode(session_data).map_err(StoreError::Decode);
        Ok(decoded.map(|decoded| SessionRecord {
            session_key: session_key.clone(),
            data: Arc::new(decoded.data),
            expire_date,
            revision: Some(Revision::new(session_data.as_bytes())),
        }))
    }

    /// Whether `load_held` may find no session where there is one: somebody is saving or deleting it, or to
    /// the collation of MySQL this is another spelling of its key.
    #[cfg(feature = "cache")]
    pub(super) fn may_pass_over(&self) -> bool {
        !matches!(self.pool.dialect(), Dialect::Sqlite)
    }

    /// As `load`, and lets `hold` run while nobody can save or delete the session.
    #[cfg(feature = "cache")]
    pub(super) async fn load_held<T, F: Future<Output = T> + Send>(
        &self,
        session_key: &SessionKey,
        now: DateTime,
        hold: impl FnOnce(SessionRecord) -> F + Send,
    ) -> Result<Option<T>, StoreError> {
        if self.cannot_exist(session_key) {
            return Ok(None);
        }
        let now = self.encode_time(now)?;
        let (key, now) = (session_key.as_str(), &*now);
        let statement = AssertSqlSafe(Arc::clone(&self.statements.load_held));
        macro_rules! held {
            ($pool:ident, $begin:literal) => {
                async {
                    let mut lease = Lease::take($pool, &self.spare, self.timeout).await?;
                    let connection = lease.connection()?;
                    let mut transaction = sqlx::Connection::begin_with(connection, $begin).await?;
                    let query = sqlx::query(statement).persistent(self.persistent);
                    let row = query.bind(key).bind(now).fetch_optional(&mut *transaction).await?;
                    let found = match row {
                        Some(row) if row.try_get_unchecked::<&str, _>(2)? == key => {
                            match self.read(session_key, &row)? {
                                Ok(record) => Ok(Some(hold(record).await)),
                                Err(error) => Err(error),
                            }
                        }
                        _ => Ok(None),
                    };
                    // There is nothing to be committed, and the caller need not wait for the end.
                    drop(transaction);
                    lease.answered();
                    Ok::<_, SqlError>(found)
                }
            };
        }
        let transaction = async {
            match &self.pool {
                #[cfg(feature = "mysql")]
                SqlPool::MySql(pool) => held!(pool, "START TRANSACTION").await,
                #[cfg(feature = "postgres")]
                SqlPool::Postgres(pool) => held!(pool, "BEGIN").await,
                #[cfg(feature = "sqlite")]
                SqlPool::Sqlite(pool) => {
                    let _turn = self.writer.turn().await;
                    held!(pool, "BEGIN IMMEDIATE").await
                }
            }
        };
        let found = match tokio::time::timeout(self.timeout, transaction).await {
            Ok(found) => found,
            Err(_) => Err(SqlError::timed_out()),
        };
        found.or_else(|error| no_such_key(error, session_key.as_str()).map(Ok))?
    }

    /// Whether a write whose answer was lost has been carried out: what is stored is signed with the
    /// time, so that it is nobody else's.
    async fn holds(&self, key: &str, session_data: &str) -> Result<bool, SqlError> {
        run!(self, holds[key, session_data] fetch_optional, |row| Ok(row.is_some()))
    }

    /// Whether it is certain without asking that no row has this key.
    fn cannot_exist(&self, session_key: &SessionKey) -> bool {
        self.pool.cannot_have(session_key.as_str())
    }
}

impl fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore")
            .field("dialect", &self.pool.dialect())
            .field("table", &self.table)
            .field("use_tz", &self.zone.use_tz)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for SqlStore {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        if self.cannot_exist(session_key) {
            return Ok(false);
        }
        let found =
            run!(self, exists[session_key.as_str()] fetch_optional, |row| Ok(row.is_some()));
        found.or_else(|error| no_such_key(error, session_key.as_str()))
    }

    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let (session_data, expire_date) = self.encode(record)?;
        let key = record.session_key.as_str();
        let Outcome { rows, repeated } =
            run!(self, create[key, &*session_data, &*expire_date] insert)?;
        match rows {
            0 if repeated && self.holds(key, &session_data).await? => {
                Ok(Saved::as_revision(Revision::new(session_data.into_bytes())))
            }
            0 => Err(StoreError::Create),
            _ => Ok(Saved::as_revision(Revision::new(session_data.into_bytes()))),
        }
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        if self.cannot_exist(session_key) {
            return Ok(None);
        }
        let now = self.encode_time(now)?;
        let found = run!(self, load[session_key.as_str(), &*now] fetch_optional, |row| match row {
            Some(row) => self.read(session_key, &row).map(Some),
            None => Ok(None),
        });
        found.or_else(|error| no_such_key(error, session_key.as_str()))?.transpose()
    }

    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let gone =
            if record.revision.is_some() { StoreError::Conflict } else { StoreError::Update };
        if self.cannot_exist(&record.session_key) {
            return Err(gone);
        }
        let (session_data, expire_date) = self.encode(record)?;
        let (data, key) = (&*session_data, record.session_key.as_str());
        let saved = match &record.revision {
            None => run!(self, save[data, &*expire_date, key] execute),
            Some(revision) => {
                let before = revision.as_text().ok_or(StoreError::Conflict)?;
                run!(self, save_revision[data, &*expire_date, key, before] execute)
            }
        };
        // MySQL counts the rows it found, not those it changed: sqlx asks it to.
        let Outcome { rows, repeated } =
            saved.or_else(|error| no_such_key(error, record.session_key.as_str()))?;
        let is_own = repeated && record.revision.is_some();
        match rows {
            0 if is_own && self.holds(key, data).await? => {
                Ok(Saved::as_revision(Revision::new(session_data.into_bytes())))
            }
            0 => Err(gone),
            _ => Ok(Saved::as_revision(Revision::new(session_data.into_bytes()))),
        }
    }

    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        if self.cannot_exist(&record.session_key) {
            return Err(StoreError::Update);
        }
        let expire_date = self.encode_time(record.expire_date)?;
        let touched = run!(self, touch[&*expire_date, record.session_key.as_str()] execute);
        match touched.or_else(|error| no_such_key(error, record.session_key.as_str()))?.rows {
            0 => Err(StoreError::Update),
            _ => Ok(Saved { revision: record.revision.clone(), ..Saved::default() }),
        }
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        if self.cannot_exist(session_key) {
            return Ok(());
        }
        let deleted = run!(self, delete[session_key.as_str()] execute);
        deleted.or_else(|error| no_such_key(error, session_key.as_str()))?;
        Ok(())
    }

    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        let data = revision.as_text().ok_or(StoreError::Conflict)?;
        if self.cannot_exist(session_key) {
            return Err(StoreError::Conflict);
        }
        let deleted = run!(self, delete_revision[session_key.as_str(), data] execute);
        let Outcome { rows, repeated } =
            deleted.or_else(|error| no_such_key(error, session_key.as_str()))?;
        match rows {
            // Deleted by us or by somebody else, which is not the same to whoever asks for a revision.
            0 if repeated && !self.exists(session_key).await? => Err(SqlError::unknown().into()),
            0 => Err(StoreError::Conflict),
            _ => Ok(()),
        }
    }

    async fn cycle_key(
        &self,
        session_key: &SessionKey,
        record: &SessionRecord,
    ) -> Result<Saved, StoreError> {
        let gone =
            if record.revision.is_some() { StoreError::Conflict } else { StoreError::Update };
        if self.cannot_exist(session_key) {
            return Err(gone);
        }
        let (session_data, expire_date) = self.encode(record)?;
        let (new, data, expire_date) = (record.session_key.as_str(), &*session_data, &*expire_date);
        let key = session_key.as_str();
        let cycled = match &record.revision {
            None => run!(self, cycle_key[new, data, expire_date, key] execute),
            Some(revision) => {
                let before = revision.as_text().ok_or(StoreError::Conflict)?;
                run!(self, cycle_key_revision[new, data, expire_date, key, before] execute)
            }
        };
        let Outcome { rows, repeated } = match cycled {
            Err(error) if is_taken(&error) => return Err(StoreError::Create),
            cycled => cycled.or_else(|error| no_such_key(error, key))?,
        };
        match rows {
            0 if repeated && self.holds(new, data).await? => {
                Ok(Saved::as_revision(Revision::new(session_data.into_bytes())))
            }
            0 => Err(gone),
            _ => Ok(Saved::as_revision(Revision::new(session_data.into_bytes()))),
        }
    }

    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        let now = self.encode_time(now)?;
        let batch = self.clear_batch.get();
        let mut cleared = 0;
        loop {
            let batch_cleared = run!(self, clear_expired[&*now, i64::from(batch)] execute)
                .map_err(StoreError::from)?
                .rows;
            cleared += batch_cleared;
            if batch_cleared < u64::from(batch) {
                return Ok(cleared);
            }
        }
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

/// A row whose first column is a text and whose second is a time.
pub(super) trait StoredRow {
    /// Some servers give text columns out as bytes; the type that is declared says little.
    fn text(&self) -> Result<&str, SqlError>;
    /// The column is named for the error alone.
    fn time(&self, column: &'static str, zone: &Zone) -> Result<DateTime, SqlError>;
}

#[cfg(feature = "mysql")]
impl StoredRow for sqlx::mysql::MySqlRow {
    fn text(&self) -> Result<&str, SqlError> {
        Ok(self.try_get_unchecked(0)?)
    }

    fn time(&self, column: &'static str, zone: &Zone) -> Result<DateTime, SqlError> {
        let text: &str = self.try_get_unchecked(1)?;
        dialect::decode_text(zone, text).ok_or(SqlError::unreadable(column))
    }
}

#[cfg(feature = "postgres")]
impl StoredRow for sqlx::postgres::PgRow {
    fn text(&self) -> Result<&str, SqlError> {
        Ok(self.try_get_unchecked(0)?)
    }

    /// Not by a type of sqlx: those panic at `infinity`.
    fn time(&self, column: &'static str, zone: &Zone) -> Result<DateTime, SqlError> {
        let value = self.try_get_raw(1)?;
        let bytes = value.as_bytes().ok().and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.ok_or(SqlError::unreadable(column))?;
        Ok(dialect::decode_micros(zone, i64::from_be_bytes(bytes)))
    }
}

#[cfg(feature = "sqlite")]
impl StoredRow for sqlx::sqlite::SqliteRow {
    fn text(&self) -> Result<&str, SqlError> {
        Ok(self.try_get_unchecked(0)?)
    }

    fn time(&self, column: &'static str, zone: &Zone) -> Result<DateTime, SqlError> {
        let text: &str = self.try_get_unchecked(1)?;
        dialect::decode_text(zone, text).ok_or(SqlError::unreadable(column))
    }
}

/// What a lookup finds (nothing) if the database failed only because its encoding lacks a character
/// of the key.
pub(super) fn no_such_key<T: Default>(error: SqlError, key: &str) -> Result<T, StoreError> {
    if !key.is_ascii() && lacks_character(&error) {
        return Ok(T::default());
    }
    Err(error.into())
}

fn lacks_character(error: &SqlError) -> bool {
    let Some(error) = error.as_sqlx().and_then(sqlx::Error::as_database_error) else {
        return false;
    };
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        // Illegal mix of collations; cannot convert a string, or a parameter.
        return matches!(error.number(), 1267 | 3854 | 3988);
    }
    // PostgreSQL's untranslatable_character.
    error.code().is_some_and(|code| code == "22P05")
}
