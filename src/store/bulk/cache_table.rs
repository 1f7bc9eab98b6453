//! The table of a `DatabaseCache` as a whole: its entries one after the other, and what of it has expired,
//! which Django drops too, whatever it was, when it culls the table.

use sqlx::{AssertSqlSafe, Row as _};

use super::Cleared;
use super::sql::failed;
use crate::session::{DateTime, SessionSettings, StoreError};
use crate::store::connect::ConnectError;
use crate::store::sql::{Dialect, SqlPool, StoredRow as _, Zone};
use crate::store::url::StoreUrl;

/// How many entries are read at a time. Between two reads the file of SQLite is free.
const ENTRIES: u32 = 500;

pub(super) struct CacheTable {
    pool: SqlPool,
    /// Quoted.
    table: String,
    zone: Zone,
}

/// An entry, which need not be a session.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    pub(super) expires: DateTime,
}

impl CacheTable {
    pub(super) async fn connect(
        url: &StoreUrl,
        table: &str,
        settings: &SessionSettings,
    ) -> Result<Self, ConnectError> {
        let (pool, _) = SqlPool::connect_to(url).await?;
        let table = pool.dialect().quoted(table);
        let zone = Zone { use_tz: settings.use_tz, time_zone: settings.time_zone.clone() };
        Ok(Self { pool, table, zone })
    }

    /// Some entries whose keys begin so, or about so to the collation of the column, after one of them.
    pub(super) async fn after(
        &self,
        prefix: &str,
        key: Option<&str>,
    ) -> Result<Vec<Entry>, StoreError> {
        let dialect = self.pool.dialect();
        let [first, second, ..] = dialect.parameters();
        let expires = dialect.read_time("expires");
        let table = &self.table;
        let after = key.map_or_else(String::new, |_| format!(" AND cache_key > {second}"));
        let sql = AssertSqlSafe(format!(
            "SELECT value, {expires}, cache_key FROM {table} \
             WHERE cache_key LIKE {first} ESCAPE '!'{after} ORDER BY cache_key LIMIT {ENTRIES}"
        ));
        let escaped = prefix.replace('!', "!!").replace('%', "!%").replace('_', "!_");
        let pattern = format!("{escaped}%");
        macro_rules! entries {
            ($pool:ident) => {{
                let mut query = sqlx::query(sql).bind(pattern);
                if let Some(key) = key {
                    query = query.bind(key);
                }
                let rows = query.fetch_all($pool).await.map_err(failed)?;
                let mut entries = Vec::with_capacity(rows.len());
                for row in &rows {
                    let key = row.try_get_unchecked(2).map_err(failed)?;
                    let value = row.text()?.as_bytes().to_vec();
                    entries.push(Entry { key, value, expires: row.time("expires", &self.zone)? });
                }
                Ok(entries)
            }};
        }
        match &self.pool {
            SqlPool::MySql(pool) => entries!(pool),
            SqlPool::Postgres(pool) => entries!(pool),
            SqlPool::Sqlite(pool) => entries!(pool),
        }
    }

    /// The condition under which an entry has expired.
    fn expired(&self, now: DateTime) -> Result<String, StoreError> {
        let dialect = self.pool.dialect();
        let now = dialect.encode_time(&self.zone, now).map_err(StoreError::ExpireDate)?;
        // Digits and punctuation of a date.
        Ok(format!("expires < {}", dialect.time(&format!("'{now}'"))))
    }

    pub(super) async fn count_expired(&self, now: DateTime) -> Result<u64, StoreError> {
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
    pub(super) async fn clear_expired(
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

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}
