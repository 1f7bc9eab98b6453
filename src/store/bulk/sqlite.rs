//! The table in SQLite, read in the order of its row numbers, in which the rows lie.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, QueryBuilder, Row as _, Sqlite, SqlitePool};
use tokio::sync::{Mutex, OnceCell};

use super::columns::MoreColumns;
use super::sql::{conditions, failed, not_in, of_keys, stored_session, which};
use super::{
    BulkStore, Change, Cleared, Coding, Estimate, Filter, Part, Place, Scan, Sink, StoredSession,
};
use crate::codec::{SessionCodec, SessionData};
use crate::session::{DateTime, SessionStore, StoreError};
use crate::store::sql::{Dialect, SqlError, Zone};

/// How many row numbers a part has.
const ROWIDS: i64 = 20_000;
/// How many rows are read at a time. Between two of them the file is free: in a file without a
/// write-ahead log nobody can write while somebody reads.
const ROWS: usize = 500;

#[derive(Debug)]
pub(super) struct SqliteBulk {
    pool: SqlitePool,
    /// Quoted.
    table: String,
    name: String,
    zone: Zone,
    coding: Coding,
    sessions: Arc<dyn SessionStore>,
    /// One writes at a time.
    writer: Mutex<()>,
    more: OnceCell<MoreColumns>,
}

impl SqliteBulk {
    pub(super) fn new(
        pool: SqlitePool,
        table: &str,
        zone: Zone,
        codec: SessionCodec,
        sessions: Arc<dyn SessionStore>,
    ) -> Self {
        let (name, table) = (table.to_owned(), Dialect::Sqlite.quoted(table));
        let (coding, more) = (Coding::Signed(Box::new(codec)), OnceCell::new());
        Self { pool, table, name, zone, coding, sessions, writer: Mutex::default(), more }
    }

    async fn more(&self) -> Result<&MoreColumns, StoreError> {
        let of = || MoreColumns::of(self.pool.clone().into(), &self.name, &self.zone);
        self.more.get_or_try_init(of).await
    }
}

/// The columns in the order in which [`read`] expects them.
const COLUMNS: &str = "rowid, session_key, session_data, CAST(expire_date AS TEXT)";

fn read(row: &SqliteRow, zone: &Zone) -> Result<StoredSession, StoreError> {
    let rowid: i64 = row.try_get_unchecked(0).map_err(failed)?;
    let key: &[u8] = row.try_get_unchecked(1).map_err(failed)?;
    let value: &[u8] = row.try_get_unchecked(2).map_err(failed)?;
    let date: &str = row.try_get_unchecked(3).map_err(failed)?;
    Ok(stored_session(zone, key, value, date, Place::Sqlite(rowid)))
}

fn text(value: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(value).map_err(|_| SqlError::unreadable("session_data").into())
}

#[async_trait]
impl BulkStore for SqliteBulk {
    fn coding(&self) -> &Coding {
        &self.coding
    }

    fn name(&self) -> &'static str {
        "SQLite"
    }

    fn sessions(&self) -> &dyn SessionStore {
        &*self.sessions
    }

    /// The largest row number, for rows are seldom counted and this is found at once.
    async fn estimate(&self) -> Result<Estimate, StoreError> {
        let sql = format!("SELECT max(rowid) - min(rowid) + 1 FROM {}", self.table);
        let rows: Option<i64> =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await.map_err(failed)?;
        let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        let bytes: i64 = sqlx::query_scalar(sql).fetch_one(&self.pool).await.map_err(failed)?;
        Ok(Estimate {
            sessions: u64::try_from(rows.unwrap_or_default()).ok(),
            bytes: u64::try_from(bytes).ok(),
        })
    }

    async fn scan(&self, filter: Filter) -> Result<Box<dyn Scan>, StoreError> {
        let ends = format!("SELECT min(rowid), max(rowid) FROM {}", self.table);
        let row = sqlx::query(AssertSqlSafe(ends)).fetch_one(&self.pool).await.map_err(failed)?;
        let (first, last): (Option<i64>, Option<i64>) = (row.get(0), row.get(1));
        let mut parts = Vec::new();
        let mut from = None;
        let (mut next, last) = (first.unwrap_or_default(), last.unwrap_or_default());
        while last.saturating_sub(next) > ROWIDS {
            next += ROWIDS;
            parts.push(Part::Rowids { from, to: Some(next) });
            from = Some(next);
        }
        parts.push(Part::Rowids { from, to: None });
        Ok(Box::new(SqliteScan {
            pool: self.pool.clone(),
            table: self.table.clone(),
            zone: self.zone.clone(),
            conditions: conditions(Dialect::Sqlite, &self.zone, filter)?,
            parts,
        }))
    }

    async fn bulk_create(&self, sessions: &[StoredSession]) -> Result<Vec<usize>, StoreError> {
        if sessions.is_empty() {
            return Ok(Vec::new());
        }
        let more = self.more().await?;
        let (table, names) = (&self.table, more.names());
        let insert =
            format!("INSERT INTO {table} (session_key, session_data, expire_date{names}) ");
        let mut query = QueryBuilder::<Sqlite>::new(insert);
        let mut rows = Vec::with_capacity(sessions.len());
        for session in sessions {
            let date = Dialect::Sqlite.encode_time(&self.zone, session.expire_date);
            let date = date.map_err(StoreError::ExpireDate)?;
            let values = more.values(session, &self.coding)?;
            rows.push((session.session_key.as_str(), text(&session.value)?, date, values));
        }
        query.push_values(rows, |mut row, (key, text, date, values)| {
            row.push_bind(key).push_bind(text).push_bind(date);
            for value in values {
                row.push_bind(value);
            }
        });
        query.push(" ON CONFLICT (session_key) DO NOTHING RETURNING session_key");
        let _turn = self.writer.lock().await;
        let added = query.build().fetch_all(&self.pool).await.map_err(failed)?;
        Ok(not_in(&added.iter().map(|row| row.get(0)).collect(), sessions))
    }

    async fn bulk_update(&self, changes: &[Change<'_>]) -> Result<Vec<usize>, StoreError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let update = format!("UPDATE {} AS t SET session_data = v.column4 FROM (", self.table);
        let mut query = QueryBuilder::<Sqlite>::new(update);
        let mut rows = Vec::with_capacity(changes.len());
        for change in changes {
            let Place::Sqlite(rowid) = change.stored.place else { continue };
            let (before, after) = (text(&change.stored.value)?, text(&change.value)?);
            rows.push((rowid, change.stored.session_key.as_str(), before, after));
        }
        query.push_values(rows, |mut row, (rowid, key, before, after)| {
            row.push_bind(rowid).push_bind(key).push_bind(before).push_bind(after);
        });
        query.push(
            ") AS v WHERE t.rowid = v.column1 AND t.session_key = v.column2 \
             AND t.session_data COLLATE BINARY = v.column3 RETURNING rowid",
        );
        let _turn = self.writer.lock().await;
        let updated = query.build().fetch_all(&self.pool).await.map_err(failed)?;
        let updated: HashSet<i64> = updated.iter().map(|row| row.get(0)).collect();
        let missed = changes.iter().enumerate().filter(|(_, change)| match change.stored.place {
            Place::Sqlite(rowid) => !updated.contains(&rowid),
            _ => true,
        });
        Ok(missed.map(|(index, _)| index).collect())
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
            let mut query = QueryBuilder::new(delete + " WHERE (session_key, session_data) IN (");
            let mut rows = Vec::with_capacity(sessions.len());
            for session in sessions {
                rows.push((session.session_key.as_str(), text(&session.value)?));
            }
            query.push_values(rows, |mut row, (key, text)| {
                row.push_bind(key).push_bind(text);
            });
            query.push(")");
            query
        } else {
            of_keys::<Sqlite>(&delete, sessions.iter().map(|it| it.session_key.as_str()))
        };
        let _turn = self.writer.lock().await;
        Ok(query.build().execute(&self.pool).await.map_err(failed)?.rows_affected())
    }

    async fn bulk_get(&self, keys: &[&str]) -> Result<Vec<Option<StoredSession>>, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM {}", self.table);
        let mut query = of_keys::<Sqlite>(&select, keys.iter().copied());
        let mut found = HashMap::with_capacity(keys.len());
        for row in query.build().fetch_all(&self.pool).await.map_err(failed)? {
            let stored = read(&row, &self.zone)?;
            found.insert(stored.session_key.clone(), stored);
        }
        Ok(keys.iter().map(|key| found.remove(*key)).collect())
    }

    async fn bulk_exists(&self, sessions: &[(&str, Place)]) -> Result<Vec<bool>, StoreError> {
        let keys: Vec<&str> = sessions.iter().map(|(key, _)| *key).collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let select = format!("SELECT session_key FROM {}", self.table);
        let mut query = of_keys::<Sqlite>(&select, keys.iter().copied());
        let found = query.build().fetch_all(&self.pool).await.map_err(failed)?;
        let found = found.iter().map(|row| row.try_get_unchecked(0).map_err(failed));
        Ok(which(&keys, found.collect::<Result<_, _>>()?))
    }

    async fn note_user(&self, session_key: &str, data: &SessionData) -> Result<(), StoreError> {
        self.more().await?.note_user(session_key, data).await
    }

    async fn count_expired(&self, now: DateTime) -> Result<Option<u64>, StoreError> {
        let now = Dialect::Sqlite.encode_time(&self.zone, now).map_err(StoreError::ExpireDate)?;
        let sql = format!("SELECT count(*) FROM {} WHERE expire_date < ?1", self.table);
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(now)
            .fetch_one(&self.pool)
            .await
            .map_err(failed)?;
        Ok(u64::try_from(count).ok())
    }

    async fn clear_expired(
        &self,
        now: DateTime,
        sessions: u32,
        _from: Option<DateTime>,
    ) -> Result<Cleared, StoreError> {
        let now = Dialect::Sqlite.encode_time(&self.zone, now).map_err(StoreError::ExpireDate)?;
        let table = &self.table;
        let sql = format!(
            "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE expire_date < ?1 \
             ORDER BY expire_date LIMIT ?2)"
        );
        let _turn = self.writer.lock().await;
        let done =
            sqlx::query(AssertSqlSafe(sql)).bind(now).bind(sessions).execute(&self.pool).await;
        Ok(Cleared { sessions: done.map_err(failed)?.rows_affected(), reached: None })
    }

    async fn close(&self) {
        self.pool.close().await;
        self.sessions.close().await;
    }
}

struct SqliteScan {
    pool: SqlitePool,
    table: String,
    zone: Zone,
    conditions: String,
    parts: Vec<Part>,
}

#[async_trait]
impl Scan for SqliteScan {
    fn parts(&self) -> Vec<Part> {
        self.parts.clone()
    }

    async fn read(&self, part: &Part, sink: &mut Sink) -> Result<(), StoreError> {
        let (from, to) = match part {
            Part::Rowids { from, to } => (from.unwrap_or(i64::MIN), *to),
            _ => (i64::MIN, None),
        };
        let sql: Arc<str> = format!(
            "SELECT {COLUMNS} FROM {} WHERE rowid >= ?1 AND rowid <= ?2{} ORDER BY rowid LIMIT {ROWS}",
            self.table, self.conditions,
        )
        .into();
        let mut next = Some(from);
        while let Some(from) = next.take() {
            let rows = sqlx::query(AssertSqlSafe(Arc::clone(&sql)))
                .bind(from)
                .bind(to.map_or(i64::MAX, |to| to - 1))
                .fetch_all(&self.pool)
                .await
                .map_err(failed)?;
            if rows.len() == ROWS {
                let last: i64 = rows[rows.len() - 1].get(0);
                next = last.checked_add(1);
            }
            for row in rows {
                if !sink.push(read(&row, &self.zone)?).await {
                    return Ok(());
                }
            }
        }
        sink.flush(None).await;
        Ok(())
    }
}
