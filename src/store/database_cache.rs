//! The table of a `DatabaseCache` (`django.core.cache.backends.db`), as a cache for sessions.
//!
//! The table stays Django's: `manage.py createcachetable` makes it, and Django culls it, which is to say
//! that it drops expired rows and, beyond `MAX_ENTRIES`, others, whenever it writes. Nothing here
//! does. Different from Django: each step is one statement, a failed write is an error, and a row that
//! has expired is not there for any step, where Django's `touch` brings it back to life.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sqlx::{AssertSqlSafe, Row};

use super::cache::{Cache, CacheEntry, Written};
use super::connect::ConnectError;
use super::retry::{Failure, Tries};
use super::sql::{
    Dialect, Lease, Outcome, Spare, SqlError, SqlPool, StoredRow, TIMEOUT, Writer, Zone, is_taken,
    no_such_key, run, taken_is_no_row,
};
use super::url::StoreUrl;
use crate::codec::cache::database_expires;
use crate::session::{DateTime, ExpiryError, Revision, SessionSettings, StoreError};

/// The table of a `DatabaseCache` in SQLite, PostgreSQL, MySQL or MariaDB.
///
/// Clones share the connections. Every operation is one statement. A second one follows where a key to
/// add is taken, by what may have expired, where there is nothing to delete but what has expired, where
/// another revision was expected, to tell whether there is one, and where a connection broke and what was
/// sent again found nothing to do, to see whether that is its own work.
///
/// The revision of an entry is its value. Entries end at whole seconds, up to one before what was asked for.
///
/// A session may be gone at any time: Django culls the table when it has more than `MAX_ENTRIES`
/// rows, 300 unless it is told otherwise. That is little for sessions, so look at that option.
///
/// # Keys
///
/// Keys are compared to the letter when they are read, as in Django; a collation that ignores case finds
/// others when it writes. A key that the column cannot hold is one that is not there.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
/// use django_session::store::{CacheStore, DatabaseCache, sqlx};
/// use django_session::{Session, SessionSettings};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("db.sqlite3");
/// # let url = format!("sqlite:{}?mode=rwc", path.display());
/// # let pool = sqlx::SqlitePool::connect(&url).await?;
/// # sqlx::raw_sql(
/// #     "CREATE TABLE sessions_cache (cache_key varchar(255) NOT NULL PRIMARY KEY, \
/// #      value text NOT NULL, expires datetime NOT NULL)",
/// # ).execute(&pool).await?;
/// # let url = format!("sqlite:{}", path.display());
/// // CACHES = {"default": {
/// //     "BACKEND": "django.core.cache.backends.db.DatabaseCache",
/// //     "LOCATION": "sessions_cache",
/// // }}
/// let settings = SessionSettings::default();
/// let cache = DatabaseCache::connect(&url, "sessions_cache", &settings).await?;
/// let keys = CacheKeys::new(CacheEngine::Cache);
/// let codec = CacheCodec::new(CacheBackend::Database);
/// let store = CacheStore::new(cache, keys, codec).with_settings(&settings);
///
/// let session = Session::new(Arc::new(store), Arc::new(settings), None);
/// session.insert("cart", &["tea"]).await?;
/// session.save().await?;
///
/// let keys: Vec<String> =
///     sqlx::query_scalar("SELECT cache_key FROM sessions_cache").fetch_all(&pool).await?;
/// assert!(keys[0].starts_with(":1:django.contrib.sessions.cache"));
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct DatabaseCache {
    pool: SqlPool,
    table: Arc<str>,
    statements: Arc<Statements>,
    zone: Zone,
    persistent: bool,
    timeout: Duration,
    writer: Writer,
    spare: Spare,
}

impl DatabaseCache {
    /// A cache in the table that is the `LOCATION`, on connections of yours.
    ///
    /// It assumes `USE_TZ=True`, Django's default since 5.0; for a site without see
    /// [`DatabaseCache::with_use_tz`].
    pub fn new(pool: impl Into<SqlPool>, table: &str) -> Self {
        let pool = pool.into();
        Self {
            statements: Arc::new(Statements::new(pool.dialect(), table)),
            writer: Writer::new(pool.dialect()),
            spare: Spare::default(),
            pool,
            table: table.into(),
            zone: Zone { use_tz: true, time_zone: TimeZone::UTC },
            persistent: true,
            timeout: TIMEOUT,
        }
    }

    /// Connects to a database, whose address is as that of [`SqlStore::connect`](super::SqlStore::connect),
    /// with `USE_TZ` and `TIME_ZONE` of the site.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; see there.
    pub async fn connect(
        url: &str,
        table: &str,
        settings: &SessionSettings,
    ) -> Result<Self, ConnectError> {
        Self::connect_to(&url.parse()?, table, settings).await
    }

    pub(super) async fn connect_to(
        url: &StoreUrl,
        table: &str,
        settings: &SessionSettings,
    ) -> Result<Self, ConnectError> {
        let (pool, persistent) = SqlPool::connect_to(url).await?;
        let spare = Spare::beside(&pool);
        let mut cache = Self::new(pool, table)
            .with_use_tz(settings.use_tz)
            .with_time_zone(settings.time_zone.clone())
            .with_persistent_statements(persistent);
        cache.spare = spare;
        if let Some(timeout) = url.seconds("timeout")? {
            cache = cache.with_timeout(timeout);
        }
        Ok(cache)
    }

    /// Sets whether the site has `USE_TZ`. Without, SQLite and MySQL hold local time.
    #[must_use]
    pub fn with_use_tz(mut self, use_tz: bool) -> Self {
        self.zone.use_tz = use_tz;
        self
    }

    /// Sets the site's `TIME_ZONE`, UTC at first, in which local time is.
    #[must_use]
    pub fn with_time_zone(mut self, time_zone: TimeZone) -> Self {
        self.zone.time_zone = time_zone;
        self
    }

    /// Sets whether statements are prepared once per connection, as they are at first. Without, each
    /// is prepared anew, which is slower and which old poolers need.
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

    /// The connections.
    pub fn pool(&self) -> &SqlPool {
        &self.pool
    }

    fn now(&self) -> Result<String, StoreError> {
        self.encode_time(Timestamp::now())
    }

    /// The column `expires` of an entry.
    fn expires(&self, timeout: SignedDuration) -> Result<String, StoreError> {
        #[expect(clippy::cast_precision_loss, reason = "less than a microsecond")]
        let now = Timestamp::now().as_microsecond() as f64 / 1e6;
        let second = Timestamp::from_second(database_expires(timeout.as_secs_f64(), now));
        self.encode_time(second.map_err(|_| StoreError::ExpireDate(ExpiryError::OutOfRange))?)
    }

    fn encode_time(&self, instant: Timestamp) -> Result<String, StoreError> {
        let time = DateTime::now(instant, self.zone.use_tz, &self.zone.time_zone);
        self.pool.dialect().encode_time(&self.zone, time).map_err(StoreError::ExpireDate)
    }

    /// Whether a write whose answer was lost has been carried out.
    async fn holds(&self, key: &str, value: &[u8]) -> Result<bool, StoreError> {
        Ok(self.get(key).await?.is_some_and(|entry| entry.value == value))
    }

    /// What came of a write that met so many rows of those it expected.
    async fn written(
        &self,
        outcome: Outcome,
        written: Revision,
        key: &str,
        expected: Option<&Revision>,
    ) -> Result<Written, StoreError> {
        if outcome.rows > 0 {
            return Ok(Written::Done(written));
        }
        Ok(match expected {
            Some(_) if self.has_key(key).await? => Written::Changed,
            _ => Written::Missing,
        })
    }
}

/// The value as the column has it, which is text: base64.
fn text(value: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(value).map_err(StoreError::backend)
}

impl fmt::Debug for DatabaseCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseCache")
            .field("dialect", &self.pool.dialect())
            .field("table", &self.table)
            .field("use_tz", &self.zone.use_tz)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Cache for DatabaseCache {
    async fn get(&self, key: &str) -> Result<Option<CacheEntry>, StoreError> {
        if self.pool.cannot_have(key) {
            return Ok(None);
        }
        let now = self.now()?;
        let found = run!(self, get[key, &*now] fetch_optional, |row| {
            let Some(row) = row else { return Ok(None) };
            let found: &str = row.try_get_unchecked(2)?;
            if found != key {
                return Ok(None);
            }
            let expires = row.time("expires", &self.zone)?;
            Ok(Some((CacheEntry::new(row.text()?.into()), expires)))
        });
        let Some((mut entry, expires)) = found.or_else(|error| no_such_key(error, key))? else {
            return Ok(None);
        };
        let end = expires.to_timestamp(&self.zone.time_zone);
        entry.timeout = end.map(|end| end.duration_since(Timestamp::now()));
        Ok(Some(entry))
    }

    async fn has_key(&self, key: &str) -> Result<bool, StoreError> {
        if self.pool.cannot_have(key) {
            return Ok(false);
        }
        let now = self.now()?;
        let found = run!(self, has_key[key, &*now] fetch_optional, |row| {
            let Some(row) = row else { return Ok(false) };
            let found: &str = row.try_get_unchecked(0)?;
            Ok(found == key)
        });
        found.or_else(|error| no_such_key(error, key))
    }

    async fn add(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
    ) -> Result<Written, StoreError> {
        let (text, expires) = (text(value)?, self.expires(timeout)?);
        let mut added = run!(self, add[key, text, &*expires] insert)?;
        let mut repeated = added.repeated;
        if added.rows == 0 {
            let now = self.now()?;
            added = run!(self, renew[text, &*expires, key, &*now] execute)?;
            repeated |= added.repeated;
        }
        match added.rows {
            0 if repeated && self.holds(key, value).await? => {
                Ok(Written::Done(Revision::new(value)))
            }
            0 => Ok(Written::Changed),
            _ => Ok(Written::Done(Revision::new(value))),
        }
    }

    async fn replace(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
        revision: Option<&Revision>,
    ) -> Result<Written, StoreError> {
        if self.pool.cannot_have(key) {
            return Ok(Written::Missing);
        }
        let (text, expires, now) = (text(value)?, self.expires(timeout)?, self.now()?);
        let replaced = match revision.map(Revision::as_text) {
            None => run!(self, replace[text, &*expires, key, &*now] execute),
            Some(Some(before)) => {
                run!(self, replace_revision[text, &*expires, key, &*now, before] execute)
            }
            // No value of this table.
            Some(None) => Ok(Outcome::default()),
        };
        let replaced = replaced.or_else(|error| no_such_key(error, key))?;
        match self.written(replaced, Revision::new(value), key, revision).await? {
            Written::Changed if replaced.repeated && self.holds(key, value).await? => {
                Ok(Written::Done(Revision::new(value)))
            }
            written => Ok(written),
        }
    }

    async fn touch(&self, key: &str, timeout: SignedDuration) -> Result<bool, StoreError> {
        if self.pool.cannot_have(key) {
            return Ok(false);
        }
        let (expires, now) = (self.expires(timeout)?, self.now()?);
        let touched = run!(self, touch[&*expires, key, &*now] execute);
        Ok(touched.or_else(|error| no_such_key(error, key))?.rows > 0)
    }

    async fn delete(&self, key: &str, revision: Option<&Revision>) -> Result<Written, StoreError> {
        if self.pool.cannot_have(key) {
            return Ok(Written::Missing);
        }
        let now = self.now()?;
        let deleted = match revision.map(Revision::as_text) {
            None => match run!(self, delete[key, &*now] execute) {
                // To others, by whose clock it has not expired yet, it should be gone too.
                Ok(Outcome { rows: 0, .. }) => {
                    run!(self, delete_expired[key] execute).map(|_| Outcome::default())
                }
                deleted => deleted,
            },
            Some(Some(before)) => run!(self, delete_revision[key, &*now, before] execute),
            Some(None) => Ok(Outcome::default()),
        };
        let deleted = deleted.or_else(|error| no_such_key(error, key))?;
        match self.written(deleted, Revision::new([]), key, revision).await? {
            // By us or by somebody else, which is not the same to whoever asks for a revision.
            Written::Missing if deleted.repeated && revision.is_some() => {
                Err(SqlError::unknown().into())
            }
            written => Ok(written),
        }
    }

    async fn cycle_key(
        &self,
        key: &str,
        new_key: &str,
        value: &[u8],
        timeout: SignedDuration,
        revision: Option<&Revision>,
    ) -> Result<Written, StoreError> {
        if self.pool.cannot_have(key) {
            return Ok(Written::Missing);
        }
        let (text, expires, now) = (text(value)?, self.expires(timeout)?, self.now()?);
        let cycled = match revision.map(Revision::as_text) {
            None => run!(self, cycle_key[new_key, text, &*expires, key, &*now] execute),
            Some(Some(before)) => {
                run!(self, cycle_key_revision[new_key, text, &*expires, key, &*now, before] execute)
            }
            Some(None) => Ok(Outcome::default()),
        };
        let cycled = match cycled {
            Err(error) if is_taken(&error) => return Err(StoreError::Create),
            cycled => cycled.or_else(|error| no_such_key(error, key))?,
        };
        if cycled.rows == 0 && cycled.repeated && self.holds(new_key, value).await? {
            return Ok(Written::Done(Revision::new(value)));
        }
        self.written(cycled, Revision::new(value), key, revision).await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

/// SQL, made once per cache so that the driver finds it in its cache of prepared statements.
struct Statements {
    /// Key, now.
    get: Arc<str>,
    /// Key, now.
    has_key: Arc<str>,
    /// Key, value, expires.
    add: Arc<str>,
    /// In place of an expired entry: value, expires, key, now.
    renew: Arc<str>,
    /// Value, expires, key, now.
    replace: Arc<str>,
    /// Value, expires, key, now, value that is to be replaced.
    replace_revision: Arc<str>,
    /// New key, value, expires, key, now.
    cycle_key: Arc<str>,
    /// New key, value, expires, key, now, value that is to be replaced.
    cycle_key_revision: Arc<str>,
    /// Expires, key, now.
    touch: Arc<str>,
    /// Key, now.
    delete: Arc<str>,
    /// Key.
    delete_expired: Arc<str>,
    /// Key, now, value.
    delete_revision: Arc<str>,
}

impl Statements {
    fn new(dialect: Dialect, table: &str) -> Self {
        let table = dialect.quoted(table);
        let [first, second, third, fourth, fifth, sixth] = dialect.parameters();
        let time = |parameter| dialect.time(parameter);
        let is_value = |parameter| dialect.is_same_text("value", parameter);
        // Not an error, so that a server's log does not fill with keys that were drawn twice.
        let or_nothing = match dialect {
            Dialect::MySql => "",
            Dialect::Postgres | Dialect::Sqlite => " ON CONFLICT (cache_key) DO NOTHING",
        };
        let set = format!(
            "UPDATE {table} SET value = {first}, expires = {} WHERE cache_key = {third} AND expires",
            time(second),
        );
        let cycle_key = format!(
            "UPDATE {table} SET cache_key = {first}, value = {second}, expires = {} \
             WHERE cache_key = {fourth} AND expires >= {}",
            time(third),
            time(fifth),
        );
        let of_key = format!("FROM {table} WHERE cache_key = {first}");
        let expires = dialect.read_time("expires");
        Self {
            get: format!(
                "SELECT value, {expires}, cache_key {of_key} AND expires >= {}",
                time(second)
            )
            .into(),
            has_key: format!("SELECT cache_key {of_key} AND expires >= {}", time(second)).into(),
            add: format!(
                "INSERT INTO {table} (cache_key, value, expires) \
                 VALUES ({first}, {second}, {}){or_nothing}",
                time(third),
            )
            .into(),
            renew: format!("{set} < {}", time(fourth)).into(),
            replace: format!("{set} >= {}", time(fourth)).into(),
            replace_revision: format!("{set} >= {} AND {}", time(fourth), is_value(fifth)).into(),
            cycle_key_revision: format!("{cycle_key} AND {}", is_value(sixth)).into(),
            cycle_key: cycle_key.into(),
            touch: format!(
                "UPDATE {table} SET expires = {} WHERE cache_key = {second} AND expires >= {}",
                time(first),
                time(third),
            )
            .into(),
            delete: format!("DELETE {of_key} AND expires >= {}", time(second)).into(),
            delete_expired: format!("DELETE {of_key}").into(),
            delete_revision: format!(
                "DELETE {of_key} AND expires >= {} AND {}",
                time(second),
                is_value(third),
            )
            .into(),
        }
    }
}
