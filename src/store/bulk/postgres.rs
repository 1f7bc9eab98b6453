//! The table in PostgreSQL: read by `COPY` from one snapshot, block by block, and written by arrays.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, PgPool, Row as _};
use tokio::sync::{Mutex, OnceCell};

use super::columns::MoreColumns;
use super::sql::{conditions, failed, not_in, which};
use super::{
    BulkStore, Change, Cleared, Coding, Estimate, Filter, Part, Place, Scan, Sink, StoredSession,
};
use crate::codec::{SessionCodec, SessionData};
use crate::session::{DateTime, SessionStore, StoreError};
use crate::store::sql::{Dialect, SqlError, Zone, decode_micros, is_taken};

/// How many blocks of 8 kB are read at a time: enough to read ahead, and often enough to note how far.
const BLOCKS: u32 = 2048;
/// From this version on a range of blocks is read without the rest (`TID Range Scan`).
const RANGES_SINCE: i32 = 140_000;

#[derive(Debug)]
pub(super) struct PostgresBulk {
    pool: PgPool,
    /// Quoted.
    table: String,
    name: String,
    zone: Zone,
    coding: Coding,
    sessions: Arc<dyn SessionStore>,
    more: OnceCell<MoreColumns>,
}

impl PostgresBulk {
    pub(super) fn new(
        pool: PgPool,
        table: &str,
        zone: Zone,
        codec: SessionCodec,
        sessions: Arc<dyn SessionStore>,
    ) -> Self {
        let (name, table) = (table.to_owned(), Dialect::Postgres.quoted(table));
        let (coding, more) = (Coding::Signed(Box::new(codec)), OnceCell::new());
        Self { pool, table, name, zone, coding, sessions, more }
    }

    async fn more(&self) -> Result<&MoreColumns, StoreError> {
        let of = || MoreColumns::of(self.pool.clone().into(), &self.name, &self.zone);
        self.more.get_or_try_init(of).await
    }

    fn time(&self, session: &StoredSession) -> Result<String, StoreError> {
        let time = Dialect::Postgres.encode_time(&self.zone, session.expire_date);
        time.map_err(StoreError::ExpireDate)
    }

    /// Adds all or none; false if a key is taken.
    async fn copy_in(&self, sessions: &[StoredSession]) -> Result<bool, StoreError> {
        let more = self.more().await?;
        let mut text = Vec::new();
        for session in sessions {
            push_copied(&mut text, session.session_key.as_bytes());
            text.push(b'\t');
            push_copied(&mut text, &session.value);
            text.push(b'\t');
            text.extend_from_slice(self.time(session)?.as_bytes());
            for value in more.values(session, &self.coding)? {
                text.push(b'\t');
                match value {
                    Some(value) => push_copied(&mut text, value.as_bytes()),
                    None => text.extend_from_slice(b"\\N"),
                }
            }
            text.push(b'\n');
        }
        let (table, names) = (&self.table, more.names());
        let sql =
            format!("COPY {table} (session_key, session_data, expire_date{names}) FROM STDIN");
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let copied = async {
            let mut copy = connection.copy_in_raw(&sql).await?;
            copy.send(text).await?;
            copy.finish().await
        };
        match copied.await {
            Ok(_) => Ok(true),
            Err(error) => {
                let error = SqlError::from(error);
                if is_taken(&error) { Ok(false) } else { Err(error.into()) }
            }
        }
    }
}

/// A value as `COPY` takes it in its text format.
fn push_copied(out: &mut Vec<u8>, value: &[u8]) {
    for &byte in value {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => out.push(byte),
        }
    }
}

fn text(session: &StoredSession) -> Result<&str, StoreError> {
    std::str::from_utf8(&session.value).map_err(|_| SqlError::unreadable("session_data").into())
}

#[async_trait]
impl BulkStore for PostgresBulk {
    fn coding(&self) -> &Coding {
        &self.coding
    }

    fn name(&self) -> &'static str {
        "PostgreSQL"
    }

    fn sessions(&self) -> &dyn SessionStore {
        &*self.sessions
    }

    async fn estimate(&self) -> Result<Estimate, StoreError> {
        let sql = "SELECT reltuples::bigint, pg_total_relation_size(oid) FROM pg_class \
                   WHERE oid = $1::text::regclass";
        let row = sqlx::query(sql).bind(&self.table).fetch_one(&self.pool).await.map_err(failed)?;
        let (rows, bytes): (i64, i64) = (row.get(0), row.get(1));
        // Negative until the first ANALYZE.
        Ok(Estimate { sessions: u64::try_from(rows).ok(), bytes: u64::try_from(bytes).ok() })
    }

    async fn scan(&self, filter: Filter) -> Result<Box<dyn Scan>, StoreError> {
        let conditions = conditions(Dialect::Postgres, &self.zone, filter)?;
        let mut connection = self.pool.acquire().await.map_err(failed)?.detach();
        begin(&mut connection).await.map_err(failed)?;
        // A server that recovers has no snapshots to give.
        let snapshot: Option<String> = sqlx::query_scalar("SELECT pg_export_snapshot()")
            .fetch_one(&mut connection)
            .await
            .map_err(failed)?;
        let sql = "SELECT current_setting('server_version_num')::int, \
                   pg_relation_size($1::text::regclass) / current_setting('block_size')::bigint, \
                   relkind::text FROM pg_class WHERE oid = $1::text::regclass";
        let row = sqlx::query(sql).bind(&self.table).fetch_one(&mut connection).await;
        let row = row.map_err(failed)?;
        let (version, blocks, kind): (i32, i64, String) = (row.get(0), row.get(1), row.get(2));
        let parts = if version < RANGES_SINCE || kind != "r" {
            vec![Part::Whole]
        } else {
            let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
            let mut parts = Vec::new();
            let mut from = 0;
            while blocks - from > BLOCKS {
                parts.push(Part::Blocks { from, to: Some(from + BLOCKS) });
                from += BLOCKS;
            }
            parts.push(Part::Blocks { from, to: None });
            parts
        };
        Ok(Box::new(PostgresScan {
            pool: self.pool.clone(),
            table: self.table.clone(),
            zone: self.zone.clone(),
            conditions,
            parts,
            snapshot,
            _holder: Mutex::new(connection),
        }))
    }

    async fn bulk_create(&self, sessions: &[StoredSession]) -> Result<Vec<usize>, StoreError> {
        if sessions.is_empty() || self.copy_in(sessions).await? {
            return Ok(Vec::new());
        }
        let keys: Vec<&str> = sessions.iter().map(|it| it.session_key.as_str()).collect();
        let data = sessions.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let dates = sessions.iter().map(|it| self.time(it)).collect::<Result<Vec<_>, _>>()?;
        let more = self.more().await?;
        let rows = sessions.iter().map(|it| more.values(it, &self.coding));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let (mut arrays, mut names, mut values) = (String::new(), String::new(), String::new());
        for (index, of_type) in more.types().enumerate() {
            let _ = write!(arrays, ", ${}::text[]", index + 4);
            let _ = write!(names, ", c{index}");
            let _ = write!(values, ", c{index}::{of_type}");
        }
        let (table, columns) = (&self.table, more.names());
        let sql = format!(
            "INSERT INTO {table} (session_key, session_data, expire_date{columns}) \
             SELECT k, d, e::timestamptz{values} \
             FROM unnest($1::text[], $2::text[], $3::text[]{arrays}) AS v(k, d, e{names}) \
             ON CONFLICT (session_key) DO NOTHING RETURNING session_key"
        );
        let mut query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(keys).bind(data).bind(dates);
        for index in 0..more.types().count() {
            query = query.bind(rows.iter().map(|row| row[index].clone()).collect::<Vec<_>>());
        }
        let added: Vec<String> = query.fetch_all(&self.pool).await.map_err(failed)?;
        Ok(not_in(&added.into_iter().collect(), sessions))
    }

    async fn bulk_update(&self, changes: &[Change<'_>]) -> Result<Vec<usize>, StoreError> {
        let (mut keys, mut data) = (Vec::new(), Vec::new());
        let (mut places, mut versions) = (Vec::new(), Vec::new());
        for change in changes {
            let Place::Postgres { block, offset, xmin } = change.stored.place else { continue };
            keys.push(change.stored.session_key.as_str());
            let text = std::str::from_utf8(&change.value);
            data.push(text.map_err(|_| StoreError::from(SqlError::unreadable("session_data")))?);
            places.push(format!("({block},{offset})"));
            versions.push(xmin.to_string());
        }
        let sql = format!(
            "UPDATE {} AS t SET session_data = v.d \
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS v(k, d, p, x) \
             WHERE t.ctid = v.p::tid AND t.session_key = v.k AND t.xmin = v.x::xid \
             RETURNING t.session_key",
            self.table
        );
        let updated: HashSet<String> = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(keys)
            .bind(data)
            .bind(places)
            .bind(versions)
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?
            .into_iter()
            .collect();
        let indices = changes.iter().enumerate();
        let missed = indices.filter(|(_, it)| !updated.contains(&it.stored.session_key));
        Ok(missed.map(|(index, _)| index).collect())
    }

    async fn bulk_delete(
        &self,
        sessions: &[&StoredSession],
        unchanged: bool,
    ) -> Result<u64, StoreError> {
        let keys: Vec<&str> = sessions.iter().map(|it| it.session_key.as_str()).collect();
        let table = &self.table;
        let done = if unchanged {
            let sql = format!(
                "DELETE FROM {table} AS t USING unnest($1::text[], $2::text[]) AS v(k, d) \
                 WHERE t.session_key = v.k AND t.session_data COLLATE \"C\" = v.d"
            );
            let data = sessions.iter().map(|it| text(it)).collect::<Result<Vec<_>, _>>()?;
            sqlx::query(AssertSqlSafe(sql)).bind(keys).bind(data).execute(&self.pool).await
        } else {
            let sql = format!("DELETE FROM {table} WHERE session_key = ANY($1::text[])");
            sqlx::query(AssertSqlSafe(sql)).bind(keys).execute(&self.pool).await
        };
        Ok(done.map_err(failed)?.rows_affected())
    }

    async fn bulk_get(&self, keys: &[&str]) -> Result<Vec<Option<StoredSession>>, StoreError> {
        let sql = format!(
            "COPY (SELECT {COLUMNS} FROM {} AS t WHERE session_key = ANY('{{{}}}'::text[])) \
             TO STDOUT (FORMAT binary)",
            self.table,
            array(keys),
        );
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let mut found = HashMap::with_capacity(keys.len());
        let mut rows = connection.copy_out_raw(&sql).await.map_err(failed)?;
        let mut begun = false;
        while let Some(message) = rows.next().await {
            read_message(&message.map_err(failed)?, &mut begun, &self.zone, |stored| {
                found.insert(stored.session_key.clone(), stored);
            })?;
        }
        Ok(keys.iter().map(|key| found.remove(*key)).collect())
    }

    /// Where they were first, which takes no index; only what has been saved meanwhile is elsewhere.
    async fn bulk_exists(&self, sessions: &[(&str, Place)]) -> Result<Vec<bool>, StoreError> {
        let of = async |condition: &str, values: Vec<String>| {
            let sql = format!("SELECT session_key FROM {} WHERE {condition}", self.table);
            let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(values);
            query.fetch_all(&self.pool).await.map_err(failed)
        };
        let places = sessions.iter().filter_map(|(_, place)| match place {
            Place::Postgres { block, offset, .. } => Some(format!("({block},{offset})")),
            _ => None,
        });
        let places: Vec<String> = places.collect();
        let keys: Vec<&str> = sessions.iter().map(|(key, _)| *key).collect();
        let mut exists = vec![false; keys.len()];
        if !places.is_empty() {
            exists = which(&keys, of("ctid = ANY($1::text[]::tid[])", places).await?);
        }
        let elsewhere = keys.iter().zip(&exists).filter(|(_, is_there)| !**is_there);
        let elsewhere: Vec<String> = elsewhere.map(|(key, _)| (*key).to_owned()).collect();
        if !elsewhere.is_empty() {
            let found = which(&keys, of("session_key = ANY($1::text[])", elsewhere).await?);
            for (exists, found) in exists.iter_mut().zip(found) {
                *exists |= found;
            }
        }
        Ok(exists)
    }

    async fn note_user(&self, session_key: &str, data: &SessionData) -> Result<(), StoreError> {
        self.more().await?.note_user(session_key, data).await
    }

    async fn count_expired(&self, now: DateTime) -> Result<Option<u64>, StoreError> {
        let now = Dialect::Postgres.encode_time(&self.zone, now).map_err(StoreError::ExpireDate)?;
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let mut transaction = connection.begin().await.map_err(failed)?;
        let limit = sqlx::query("SET LOCAL statement_timeout = 5000").execute(&mut *transaction);
        limit.await.map_err(failed)?;
        let sql = format!(
            "SELECT count(*) FROM {} WHERE expire_date < $1::text::timestamptz",
            self.table
        );
        let counted: Result<i64, _> =
            sqlx::query_scalar(AssertSqlSafe(sql)).bind(now).fetch_one(&mut *transaction).await;
        match counted.map_err(failed) {
            Ok(count) => Ok(u64::try_from(count).ok()),
            Err(StoreError::TimedOut(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn clear_expired(
        &self,
        now: DateTime,
        sessions: u32,
        from: Option<DateTime>,
    ) -> Result<Cleared, StoreError> {
        let encode =
            |time| Dialect::Postgres.encode_time(&self.zone, time).map_err(StoreError::ExpireDate);
        let table = &self.table;
        // Locked before they are deleted: a session that is saved meanwhile is neither deleted nor waited
        // for.
        let sql = format!(
            "WITH expired AS (SELECT session_key FROM {table} \
             WHERE expire_date < $1::text::timestamptz AND expire_date >= $2::text::timestamptz \
             ORDER BY expire_date LIMIT $3 FOR UPDATE SKIP LOCKED), \
             gone AS (DELETE FROM {table} AS t USING expired WHERE t.session_key = expired.session_key \
             RETURNING t.expire_date) SELECT count(*), max(expire_date) FROM gone"
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(encode(now)?)
            .bind(from.map_or_else(|| Ok("-infinity".to_owned()), encode)?)
            .bind(i64::from(sessions))
            .fetch_one(&self.pool)
            .await
            .map_err(failed)?;
        let reached: Option<i64> = row.try_get_unchecked(1).map_err(failed)?;
        Ok(Cleared {
            sessions: u64::try_from(row.get::<i64, _>(0)).unwrap_or_default(),
            reached: reached.map(|micros| decode_micros(&self.zone, micros)),
        })
    }

    async fn close(&self) {
        self.pool.close().await;
        self.sessions.close().await;
    }
}

/// Texts as the inside of an array within quotes.
fn array(texts: &[&str]) -> String {
    let mut out = String::new();
    for text in texts {
        if !out.is_empty() {
            out.push(',');
        }
        out.push('"');
        for char in text.chars() {
            match char {
                '"' | '\\' => out.extend(['\\', char]),
                '\'' => out.push_str("''"),
                char => out.push(char),
            }
        }
        out.push('"');
    }
    out
}

async fn begin(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
        SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
        SET LOCAL standard_conforming_strings = on";
    sqlx::raw_sql(BEGIN).execute(connection).await.map(drop)
}

/// The columns in the order in which [`read_message`] expects them.
const COLUMNS: &str = "t.session_key::text, t.session_data::text, t.expire_date, t.ctid, t.xmin";

struct PostgresScan {
    pool: PgPool,
    table: String,
    zone: Zone,
    conditions: String,
    parts: Vec<Part>,
    snapshot: Option<String>,
    /// The snapshot is there as long as this connection.
    _holder: Mutex<PgConnection>,
}

#[async_trait]
impl Scan for PostgresScan {
    fn parts(&self) -> Vec<Part> {
        self.parts.clone()
    }

    async fn read(&self, part: &Part, sink: &mut Sink) -> Result<(), StoreError> {
        let mut sql = format!("COPY (SELECT {COLUMNS} FROM {} AS t WHERE true", self.table);
        if let Part::Blocks { from, to } = part {
            let _ = write!(sql, " AND t.ctid >= '({from},0)'");
            if let Some(to) = to {
                let _ = write!(sql, " AND t.ctid < '({to},0)'");
            }
        }
        sql.push_str(&self.conditions);
        sql.push_str(") TO STDOUT (FORMAT binary)");
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        begin(&mut connection).await.map_err(failed)?;
        if let Some(snapshot) = &self.snapshot {
            let sql = format!("SET TRANSACTION SNAPSHOT '{snapshot}'");
            let set = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await;
            set.map_err(failed)?;
        }
        let mut rows = connection.copy_out_raw(&sql).await.map_err(failed)?;
        let mut begun = false;
        while let Some(message) = rows.next().await {
            let mut read = None;
            read_message(&message.map_err(failed)?, &mut begun, &self.zone, |stored| {
                read = Some(stored);
            })?;
            if let Some(stored) = read
                && !sink.push(stored).await
            {
                drop(rows);
                // What is still to come is not waited for.
                connection.close_on_drop();
                return Ok(());
            }
        }
        drop(rows);
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map_err(failed)?;
        sink.flush(None).await;
        Ok(())
    }
}

/// Reads a message of a `COPY` in its binary format: each holds whole rows, as servers send them.
fn read_message(
    message: &[u8],
    begun: &mut bool,
    zone: &Zone,
    mut take: impl FnMut(StoredSession),
) -> Result<(), StoreError> {
    const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
    let unreadable = || StoreError::from(SqlError::unreadable("session_data"));
    let mut rest = message;
    if !*begun {
        rest =
            rest.strip_prefix(SIGNATURE).and_then(|rest| rest.get(8..)).ok_or_else(unreadable)?;
        *begun = true;
    }
    while !rest.is_empty() {
        let (count, tail) = rest.split_at_checked(2).ok_or_else(unreadable)?;
        rest = tail;
        if count == [0xff, 0xff] {
            break;
        }
        let mut field = || -> Option<&[u8]> {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
            let (field, tail) = tail.split_at_checked(length)?;
            rest = tail;
            Some(field)
        };
        let mut fields = || Some([field()?, field()?, field()?, field()?, field()?]);
        let [key, value, end, place, version] = fields().ok_or_else(unreadable)?;
        let read = || {
            Some(StoredSession {
                session_key: String::from_utf8_lossy(key).into_owned(),
                value: value.to_vec(),
                expire_date: decode_micros(zone, i64::from_be_bytes(end.try_into().ok()?)),
                is_dated: true,
                place: Place::Postgres {
                    block: u32::from_be_bytes(place.get(..4)?.try_into().ok()?),
                    offset: u16::from_be_bytes(place.get(4..)?.try_into().ok()?),
                    xmin: u32::from_be_bytes(version.try_into().ok()?),
                },
            })
        };
        take(read().ok_or_else(unreadable)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{array, push_copied};

    #[test]
    fn texts_stay_within_their_quotes() {
        assert_eq!(array(&["a", "b'c", "d\"e\\f"]), r#""a","b''c","d\"e\\f""#);
        let mut out = Vec::new();
        push_copied(&mut out, b"a\\b\tc\nd\re");
        assert_eq!(out, br"a\\b\tc\nd\re");
    }
}
