//! From an address to a pool of connections.

use std::time::Duration;

#[cfg(any(feature = "mysql", feature = "postgres"))]
use sqlx::Connection;
use sqlx::Database;
use sqlx::pool::PoolOptions;

use super::error::SqlError;
use super::{Spare, SqlPool, SqlStore, TIMEOUT};
use crate::session::{SessionSettings, StoreError};
use crate::store::connect::ConnectError;
use crate::store::url::{StoreUrl, UrlError};

const MAX_CONNECTIONS: u32 = 10;

impl SqlStore {
    /// Connects to a database and makes a store for the site with these settings.
    ///
    /// The address is `sqlite:db.sqlite3`, `sqlite:///srv/site/db.sqlite3`,
    /// `postgres://user:password@host/name` or `mysql://…` (also `postgresql://`, `mariadb://`), with
    /// the parameters that [sqlx](https://docs.rs/sqlx) has for them and these:
    ///
    /// | option | at first | |
    /// |---|---|---|
    /// | `table` | `django_session` | the name of the table |
    /// | `max_connections` | 10 | how many there are at most |
    /// | `acquire_timeout` | 5 | seconds to wait for one of them |
    /// | `timeout` | 5 | seconds that a statement may take |
    ///
    /// A root certificate (`sslrootcert`, `ssl-ca`) is asked for: with one the server has to have a
    /// certificate of that authority (`verify-ca`), and with `sslmode=verify-full` the right name too.
    ///
    /// All connections but one rest for ten milliseconds beside the pool after each use, for the next
    /// one. Whoever takes connections out of [`SqlStore::pool`] may wait as long.
    ///
    /// A file of SQLite must exist, is waited for if locked, as long as a statement may take, and keeps its
    /// journal mode. A database in memory has one connection.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; see there.
    pub async fn connect(url: &str, settings: &SessionSettings) -> Result<Self, ConnectError> {
        Self::connect_to(&url.parse()?, settings).await
    }

    pub(in crate::store) async fn connect_to(
        url: &StoreUrl,
        settings: &SessionSettings,
    ) -> Result<Self, ConnectError> {
        let codec = settings.codec()?;
        let (pool, persistent) = SqlPool::connect_to(url).await?;
        let spare = Spare::beside(&pool);
        let mut store = Self::new(pool, codec)
            .with_use_tz(settings.use_tz)
            .with_time_zone(settings.time_zone.clone())
            .with_persistent_statements(persistent);
        store.spare = spare;
        if let Some(table) = url.text("table") {
            store = store.with_table(table);
        }
        if let Some(timeout) = url.seconds("timeout")? {
            store = store.with_timeout(timeout);
        }
        Ok(store)
    }
}

impl SqlPool {
    /// Connects to a database, and says whether statements may be prepared once per connection.
    pub(in crate::store) async fn connect_to(url: &StoreUrl) -> Result<(Self, bool), ConnectError> {
        let pool = match url.scheme() {
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => mysql(url).await,
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => postgres(url).await,
            #[cfg(feature = "sqlite")]
            "sqlite" => sqlite(url).await,
            scheme if url.is_sql() => return Err(ConnectError::no_driver(scheme)),
            // Another kind of store.
            _ => return Err(UrlError::UnknownScheme { nearest: None }.into()),
        }?;
        // A driver told to keep no statements still names them, which is what PgBouncer stumbles
        // over, unless each statement says that it need not be kept.
        Ok((pool, url.text("statement-cache-capacity") != Some("0")))
    }
}

fn pool<DB: Database>(url: &StoreUrl) -> Result<PoolOptions<DB>, ConnectError> {
    let connections = url.number("max_connections", "a whole number, from 1 on")?;
    Ok(PoolOptions::new()
        .acquire_timeout(acquire_timeout(url)?)
        .max_connections(connections.unwrap_or(MAX_CONNECTIONS).max(1))
        .test_before_acquire(false))
}

fn acquire_timeout(url: &StoreUrl) -> Result<Duration, ConnectError> {
    Ok(url.seconds("acquire_timeout")?.unwrap_or(TIMEOUT))
}

/// A pool that asks a connection whether it is alive only after a rest, and so not once per
/// operation.
#[cfg(any(feature = "mysql", feature = "postgres"))]
fn server_pool<DB: Database>(url: &StoreUrl) -> Result<PoolOptions<DB>, ConnectError> {
    const TRUSTED_FOR: Duration = Duration::from_secs(1);
    // So that there is time for a new one in place of one that a firewall has forgotten.
    let limit = acquire_timeout(url)? / 2;
    Ok(pool(url)?.before_acquire(move |connection: &mut DB::Connection, rest| {
        Box::pin(async move {
            if rest.idle_for > TRUSTED_FOR {
                let alive = tokio::time::timeout(limit, connection.ping()).await;
                alive.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
            }
            Ok(true)
        })
    }))
}

#[cfg(feature = "sqlite")]
async fn sqlite(url: &StoreUrl) -> Result<SqlPool, ConnectError> {
    let options: sqlx::sqlite::SqliteConnectOptions = parse(url)?;
    let in_memory = url.address().contains(":memory:") || url.text("mode") == Some("memory");
    let mut pool = pool(url)?.idle_timeout(None).max_lifetime(None);
    if in_memory {
        // Each would have a database of its own, which lives as long as it does.
        pool = pool.max_connections(1);
    }
    let wait = url.seconds("timeout")?.unwrap_or(TIMEOUT);
    let pool = pool.connect_with(options.busy_timeout(wait)).await;
    Ok(SqlPool::Sqlite(pool.map_err(failed)?))
}

#[cfg(feature = "postgres")]
async fn postgres(url: &StoreUrl) -> Result<SqlPool, ConnectError> {
    let options: sqlx::postgres::PgConnectOptions = parse(url)?;
    // PgBouncer refuses this parameter, and no floating-point number is ever read.
    let mut options = options.extra_float_digits(None);
    if has_root_certificate(url) {
        use sqlx::postgres::PgSslMode as Mode;
        options = match options.get_ssl_mode() {
            Mode::Disable | Mode::Allow => return Err(unused_certificate("sslmode")),
            Mode::Prefer | Mode::Require => options.ssl_mode(Mode::VerifyCa),
            Mode::VerifyCa | Mode::VerifyFull => options,
        };
    }
    let pool = server_pool(url)?.connect_with(options).await;
    Ok(SqlPool::Postgres(pool.map_err(failed)?))
}

#[cfg(feature = "mysql")]
async fn mysql(url: &StoreUrl) -> Result<SqlPool, ConnectError> {
    let mut options: sqlx::mysql::MySqlConnectOptions = parse(url)?;
    if has_root_certificate(url) {
        use sqlx::mysql::MySqlSslMode as Mode;
        options = match options.get_ssl_mode() {
            Mode::Disabled => return Err(unused_certificate("ssl-mode")),
            Mode::Preferred | Mode::Required => options.ssl_mode(Mode::VerifyCa),
            Mode::VerifyCa | Mode::VerifyIdentity => options,
        };
    }
    let pool = server_pool(url)?.connect_with(options).await;
    Ok(SqlPool::MySql(pool.map_err(failed)?))
}

/// Whether it is said who vouches for the server. To the drivers that means nothing unless the mode asks for
/// it, and libpq and the clients of MySQL take it for a wish to know.
#[cfg(any(feature = "mysql", feature = "postgres"))]
fn has_root_certificate(url: &StoreUrl) -> bool {
    ["sslrootcert", "ssl-root-cert", "sslca", "ssl-ca"].iter().any(|name| url.text(name).is_some())
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
fn unused_certificate(name: &'static str) -> ConnectError {
    let expected = "one that asks for TLS, as there is a root certificate";
    UrlError::InvalidOption { name, expected }.into()
}

fn parse<Options: std::str::FromStr<Err = sqlx::Error>>(
    url: &StoreUrl,
) -> Result<Options, ConnectError> {
    url.for_driver().parse().map_err(failed)
}

fn failed(error: sqlx::Error) -> ConnectError {
    // As long as there is no connection, nobody else has them all.
    ConnectError::Connect(StoreError::from(SqlError::not_acquired(error, false)))
}
