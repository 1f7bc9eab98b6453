//! The table in MySQL or MariaDB, whose rows lie in the order of their keys.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Connection as _, MySql, MySqlPool, QueryBuilder, Row as _};
use tokio::sync::OnceCell;

use super::columns::MoreColumns;
use super::part;
use super::sql::{conditions, failed, of_keys, stored_session, which};
use super::{
    BulkStore, Change, Cleared, Coding, Estimate, Filter, Part, Place, Scan, Sink, StoredSession,
};
use crate::codec::{SessionCodec, SessionData};
use crate::session::{DateTime, SessionStore, StoreError};
use crate::store::sql::{Dialect, SqlError, Zone, decode_text, is_taken};

/// About how many sessions a part has at most.
const SESSIONS: u64 = 10_000;
/// How long a part may take to be read.
const PATIENCE: Duration = Duration::from_hours(24);
/// How long expired ones are counted at most.
const COUNTED: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct MySqlBulk {
    pool: MySqlPool,
    /// Quoted.
    table: String,
    name: String,
    zone: Zone,
    coding: Coding,
    sessions: Arc<dyn SessionStore>,
    more: OnceCell<MoreColumns>,
}

impl MySqlBulk {
    pub(super) fn new(
        pool: MySqlPool,
        table: &str,
        zone: Zone,
        codec: SessionCodec,
        sessions: Arc<dyn SessionStore>,
    ) -> Self {
        let (name, table) = (table.to_owned(), Dialect::MySql.quoted(table));
        let (coding, more) = (Coding::Signed(Box::new(codec)), OnceCell::new());
        Self { pool, table, name, zone, coding, sessions, more }
    }

    async fn more(&self) -> Result<&MoreColumns, StoreError> {
        let of = || MoreColumns::of(self.pool.clone().into(), &self.name, &self.zone);
        self.more.get_or_try_init(of).await
    }

    /// Which of these keys are taken, and by what.
    async fn stored(
        &self,
        connection: &mut MySqlConnection,
        keys: &[&str],
        lock: &str,
    ) -> Result<HashMap<String, StoredSession>, StoreError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let select = format!("SELECT {COLUMNS} FROM {}", self.table);
        let mut query = of_keys::<MySql>(&select, keys.iter().copied());
        let rows = query.push(lock).build().fetch_all(connection).await.map_err(failed)?;
        let stored = rows.iter().map(|row| read(row, &self.zone));
        stored.map(|it| it.map(|it| (it.session_key.clone(), it))).collect()
    }

    /// False if a key is taken.
    async fn insert(
        &self,
        connection: &mut MySqlConnection,
        sessions: &[&StoredSession],
        suffix: &str,
    ) -> Result<bool, StoreError> {
        let more = self.more().await?;
        let (table, names) = (&self.table, more.names());
        let insert =
            format!("INSERT INTO {table} (session_key, session_data, expire_date{names}) ");
        let mut query = QueryBuilder::<MySql>::new(insert);
        let mut rows = Vec::with_capacity(sessions.len());
        for session in sessions {
            let text = std::str::from_utf8(&session.value);
            let text = text.map_err(|_| SqlError::unreadable("session_data"))?;
            let date = Dialect::MySql.encode_time(&self.zone, session.expire_date);
            let date = date.map_err(StoreError::ExpireDate)?;
            let values = more.values(session, &self.coding)?;
            rows.push((session.session_key.as_str(), text, date, values));
        }
        query.push_values(rows, |mut row, (key, text, date, values)| {
            row.push_bind(key).push_bind(text).push_bind(date);
            for value in values {
                row.push_bind(value);
            }
        });
        query.push(suffix);
        match query.build().persistent(false).execute(connection).await.map_err(SqlError::from) {
            Ok(_) => Ok(true),
            Err(error) if is_taken(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The columns in the order in which [`read`] expects them.
const COLUMNS: &str = "session_key, session_data, CAST(expire_date AS CHAR)";

fn read(row: &MySqlRow, zone: &Zone) -> Result<StoredSession, StoreError> {
    let key: &[u8] = row.try_get_unchecked(0).map_err(failed)?;
    let value: &[u8] = row.try_get_unchecked(1).map_err(failed)?;
    let date: &str = row.try_get_unchecked(2).map_err(failed)?;
    Ok(stored_session(zone, key, value, date, Place::Key))
}

#[async_trait]
impl BulkStore for MySqlBulk {
    fn coding(&self) -> &Coding {
        &self.coding
    }

    fn name(&self) -> &'static str {
        "MySQL"
    }

    fn sessions(&self) -> &dyn SessionStore {
        &*self.sessions
    }

    async fn estimate(&self) -> Result<Estimate, StoreError> {
        let sql = "SELECT CAST(table_rows AS SIGNED), CAST(data_length + index_length AS SIGNED) \
                   FROM information_schema.tables \
                   WHERE table_schema = DATABASE() AND table_name = ?";
        let row = sqlx::query(sql).bind(&self.name).fetch_optional(&self.pool).await;
        let Some(row) = row.map_err(failed)? else { return Ok(Estimate::default()) };
        let (rows, bytes): (Option<i64>, Option<i64>) = (row.get(0), row.get(1));
        let positive = |number: Option<i64>| number.and_then(|it| u64::try_from(it).ok());
        Ok(Estimate { sessions: positive(rows), bytes: positive(bytes) })
    }

    async fn scan(&self, filter: Filter) -> Result<Box<dyn Scan>, StoreError> {
        let sessions = self.estimate().await?.sessions.unwrap_or_default();
        Ok(Box::new(MySqlScan {
            pool: self.pool.clone(),
            table: self.table.clone(),
            zone: self.zone.clone(),
            conditions: conditions(Dialect::MySql, &self.zone, filter)?,
            parts: part::keys(sessions, SESSIONS),
        }))
    }

    async fn bulk_create(&self, sessions: &[StoredSession]) -> Result<Vec<usize>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let mut left: Vec<(usize, &StoredSession)> = sessions.iter().enumerate().collect();
        let mut taken = Vec::new();
        while !left.is_empty() {
            let rows: Vec<&StoredSession> = left.iter().map(|(_, it)| *it).collect();
            if self.insert(&mut connection, &rows, "").await? {
                break;
            }
            let keys: Vec<&str> = rows.iter().map(|it| it.session_key.as_str()).collect();
            let stored = self.stored(&mut connection, &keys, "").await?;
            // Two spellings of one key, to a collation that ignores case, are found one by one.
            let found = left.len();
            left.retain(|(index, it)| {
                let is_taken = stored.contains_key(&it.session_key);
                if is_taken {
                    taken.push(*index);
                }
                !is_taken
            });
            if left.len() == found {
                for (index, session) in std::mem::take(&mut left) {
                    if !self.insert(&mut connection, &[session], "").await? {
                        taken.push(index);
                    }
                }
            }
        }
        taken.sort_unstable();
        Ok(taken)
    }

    /// Locks the rows for a moment, as no statement compares and replaces so many in one step that is
    /// right under every collation.
    async fn bulk_update(&self, changes: &[Change<'_>]) -> Result<Vec<usize>, StoreError> {
        let keys: Vec<&str> = changes.iter().map(|it| it.stored.session_key.as_str()).collect();
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let mut transaction = connection.begin().await.map_err(failed)?;
        let stored = self.stored(&mut transaction, &keys, " FOR UPDATE").await?;
        let mut missed = Vec::new();
        let mut rows = Vec::with_capacity(changes.len());
        for (index, change) in changes.iter().enumerate() {
            match stored.get(&change.stored.session_key) {
                Some(now) if now.value == change.stored.value => rows.push(StoredSession {
                    value: change.value.clone(),
                    session_key: now.session_key.clone(),
                    expire_date: now.expire_date,
                    is_dated: now.is_dated,
                    place: Place::Key,
                }),
                _ => missed.push(index),
            }
        }
        if matches!(self.more().await, Err(StoreError::Unsupported { .. })) {
            // One statement for all would name every column, and some are nobody's business here.
            let sql = format!("UPDATE {} SET session_data = ? WHERE session_key = ?", self.table);
            for row in std::mem::take(&mut rows) {
                let text = String::from_utf8(row.value);
                let text = text.map_err(|_| SqlError::unreadable("session_data"))?;
                let update = sqlx::query(AssertSqlSafe(sql.as_str())).bind(text);
                let update = update.bind(row.session_key).execute(&mut *transaction);
                update.await.map_err(failed)?;
            }
        }
        if !rows.is_empty() {
            let rows: Vec<&StoredSession> = rows.iter().collect();
            let suffix = " ON DUPLICATE KEY UPDATE session_data = VALUES(session_data)";
            self.insert(&mut transaction, &rows, suffix).await?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(missed)
    }

    async fn bulk_delete(
        &self,
        sessions: &[&StoredSession],
        unchanged: bool,
    ) -> Result<u64, StoreError> {
        if sessions.is_empty() {
            return Ok(0);
        }
        let delete = format!("DELETE FROM {}", self.table);
        let mut query = if unchanged {
            let mut query = QueryBuilder::new(delete + " WHERE ");
            let mut list = query.separated(" OR ");
            for session in sessions {
                let text = String::from_utf8_lossy(&session.value).into_owned();
                list.push("(session_key = ").push_bind_unseparated(&session.session_key);
                list.push_unseparated(" AND CAST(session_data AS BINARY) = CAST(");
                list.push_bind_unseparated(text).push_unseparated(" AS BINARY))");
            }
            query
        } else {
            of_keys::<MySql>(&delete, sessions.iter().map(|it| it.session_key.as_str()))
        };
        let done = query.build().persistent(false).execute(&self.pool).await;
        Ok(done.map_err(failed)?.rows_affected())
    }

    async fn bulk_get(&self, keys: &[&str]) -> Result<Vec<Option<StoredSession>>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let mut stored = self.stored(&mut connection, keys, "").await?;
        Ok(keys.iter().map(|key| stored.remove(*key)).collect())
    }

    async fn bulk_exists(&self, sessions: &[(&str, Place)]) -> Result<Vec<bool>, StoreError> {
        let keys: Vec<&str> = sessions.iter().map(|(key, _)| *key).collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let select = format!("SELECT session_key FROM {}", self.table);
        let mut query = of_keys::<MySql>(&select, keys.iter().copied());
        let found = query.build().fetch_all(&self.pool).await.map_err(failed)?;
        let found = found.iter().map(|row| row.try_get_unchecked(0).map_err(failed));
        Ok(which(&keys, found.collect::<Result<_, _>>()?))
    }

    async fn note_user(&self, session_key: &str, data: &SessionData) -> Result<(), StoreError> {
        self.more().await?.note_user(session_key, data).await
    }

    async fn count_expired(&self, now: DateTime) -> Result<Option<u64>, StoreError> {
        let now = Dialect::MySql.encode_time(&self.zone, now).map_err(StoreError::ExpireDate)?;
        let sql = format!(
            "SELECT count(*) FROM {} WHERE expire_date < {}",
            self.table,
            Dialect::MySql.time("?")
        );
        let count = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql)).bind(now);
        let counted = tokio::time::timeout(COUNTED, count.fetch_one(&self.pool)).await;
        let Ok(counted) = counted else { return Ok(None) };
        Ok(u64::try_from(counted.map_err(failed)?).ok())
    }

    /// In two steps, the first of which finds the bound: a range is deleted along its index, and what is
    /// locked ends there.
    async fn clear_expired(
        &self,
        now: DateTime,
        sessions: u32,
        from: Option<DateTime>,
    ) -> Result<Cleared, StoreError> {
        let encode =
            |time| Dialect::MySql.encode_time(&self.zone, time).map_err(StoreError::ExpireDate);
        let (table, time) = (&self.table, Dialect::MySql.time("?"));
        let from = from.map_or_else(|| Ok("1000-01-01 00:00:00".to_owned()), encode)?;
        let now = encode(now)?;
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let sql = format!(
            "SELECT CAST(expire_date AS CHAR) FROM {table} \
             WHERE expire_date >= {time} AND expire_date < {time} \
             ORDER BY expire_date LIMIT 1 OFFSET {}",
            sessions - 1
        );
        let bound = sqlx::query(AssertSqlSafe(sql)).bind(&from).bind(&now);
        let bound = bound.fetch_optional(&mut *connection).await.map_err(failed)?;
        let bound: Option<String> =
            bound.map(|row| row.try_get_unchecked(0)).transpose().map_err(failed)?;
        // Otherwise the gap up to the first live session would be locked, too.
        let level = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED";
        sqlx::raw_sql(level).execute(&mut *connection).await.map_err(failed)?;
        let limit = u64::from(sessions) * 2;
        let sql = format!(
            "DELETE FROM {table} WHERE expire_date >= {time} AND expire_date <= {time} \
             AND expire_date < {time} LIMIT {limit}"
        );
        let delete = sqlx::query(AssertSqlSafe(sql));
        let delete = delete.bind(&from).bind(bound.as_ref().unwrap_or(&now)).bind(&now);
        let done = delete.execute(&mut *connection).await.map_err(failed)?;
        Ok(Cleared {
            sessions: done.rows_affected(),
            reached: bound.and_then(|bound| decode_text(&self.zone, &bound)),
        })
    }

    async fn close(&self) {
        self.pool.close().await;
        self.sessions.close().await;
    }
}

struct MySqlScan {
    pool: MySqlPool,
    table: String,
    zone: Zone,
    conditions: String,
    parts: Vec<Part>,
}

#[async_trait]
impl Scan for MySqlScan {
    fn parts(&self) -> Vec<Part> {
        self.parts.clone()
    }

    async fn read(&self, part: &Part, sink: &mut Sink) -> Result<(), StoreError> {
        let select = format!("SELECT {COLUMNS} FROM {} WHERE true", self.table);
        let mut query = QueryBuilder::<MySql>::new(select);
        if let Part::Keys { from, to } = part {
            if let Some(from) = from {
                query.push(" AND session_key >= ").push_bind(from);
            }
            if let Some(to) = to {
                query.push(" AND session_key < ").push_bind(to);
            }
        }
        query.push(&self.conditions);
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        // While whoever reads rests, the server waits to send, at first for a minute.
        let patience = format!("SET SESSION net_write_timeout = {}", PATIENCE.as_secs());
        sqlx::raw_sql(AssertSqlSafe(patience)).execute(&mut *connection).await.map_err(failed)?;
        {
            let query = query.build();
            let mut rows = query.fetch(&mut *connection);
            while let Some(row) = rows.try_next().await.map_err(failed)? {
                if !sink.push(read(&row, &self.zone)?).await {
                    drop(rows);
                    connection.close_on_drop();
                    return Ok(());
                }
            }
        }
        sink.flush(None).await;
        Ok(())
    }
}
