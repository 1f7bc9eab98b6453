//! The table of a `DatabaseCache`, of which only what has expired is of interest: whatever it was, Django drops
//! it too when it culls the table.

use std::fmt;

use sqlx::{AssertSqlSafe, Row as _};

use super::Cleared;
use super::sql::failed;
use crate::session::{DateTime, SessionSettings, StoreError};
use crate::store::connect::ConnectError;
use crate::store::sql::{Dialect, SqlPool, Zone};
use crate::store::url::StoreUrl;

pub(crate) struct CacheTable {
    pool: SqlPool,
    /// Quoted.
    table: String,
    zone: Zone,
}

impl fmt::Debug for CacheTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheTable").field("table", &self.table).finish_non_exhaustive()
    }
}

impl CacheTable {
    /// Connects, if the address is of such a table.
    pub(crate) async fn connect(
        url: &StoreUrl,
        settings: &SessionSettings,
    ) -> Result<Option<Self>, ConnectError> {
        let Some(table) = url.text("cache_table").filter(|_| url.is_sql()) else { return Ok(None) };
        let (pool, _) = SqlPool::connect_to(url).await?;
        let table = pool.dialect().quoted(table);
        let zone = Zone { use_tz: settings.use_tz, time_zone: settings.time_zone.clone() };
        Ok(Some(Self { pool, table, zone }))
    }

    /// The condition under which an entry has expired.
    fn expired(&self, now: DateTime) -> Result<String, StoreError> {
        let dialect = self.pool.dialect();
        let now = dialect.encode_time(&self.zone, now).map_err(StoreError::ExpireDate)?;
        // Digits and punctuation of a date.
        Ok(format!("expires < {}", dialect.time(&format!("'{now}'"))))
    }

    pub(crate) async fn count_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        let sql = format!("SELECT count(*) FROM {} WHERE {}", self.table, self.expired(now)?);
        let query = sqlx::raw_sql(AssertSqlSafe(sql));
        let count: i64 = match &self.pool {
            SqlPool::MySql(pool) => query.fetch_one(pool).await.and_then(|row| row.try_get(0)),
            SqlPool::Postgres(pool) => query.fetch_one(pool).await.and_then(|row| row.try_get(0)),
            SqlPool::Sqlite(pool) => query.fetch_one(pool).await.and_then(|row| row.try_get(0)),
        }
        .map_err(failed)?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Removes some of those that expired before `now`, the oldest first. One that somebody renews at that
    /// moment stays.
    pub(crate) async fn clear_expired(
        &self,
        now: DateTime,
        entries: u32,
    ) -> Result<Cleared, StoreError> {
        let (table, expired) = (&self.table, self.expired(now)?);
        let oldest = format!("WHERE {expired} ORDER BY expires LIMIT {entries}");
        let sql = match self.pool.dialect() {
            Dialect::MySql => format!("DELETE FROM {table} {oldest}"),
            Dialect::Postgres => format!(
                "DELETE FROM {table} WHERE cache_key IN \
                 (SELECT cache_key FROM {table} {oldest} FOR UPDATE SKIP LOCKED)"
            ),
            Dialect::Sqlite => format!(
                "DELETE FROM {table} WHERE cache_key IN (SELECT cache_key FROM {table} {oldest})"
            ),
        };
        let query = sqlx::raw_sql(AssertSqlSafe(sql));
        let sessions = match &self.pool {
            SqlPool::MySql(pool) => query.execute(pool).await.map(|done| done.rows_affected()),
            SqlPool::Postgres(pool) => query.execute(pool).await.map(|done| done.rows_affected()),
            SqlPool::Sqlite(pool) => query.execute(pool).await.map(|done| done.rows_affected()),
        };
        Ok(Cleared { sessions: sessions.map_err(failed)?, reached: None })
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}
