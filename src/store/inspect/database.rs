//! A database and the table of the sessions.

use sqlx::{AssertSqlSafe, Row as _};

use super::directory::PathFacts;
use super::{Clock, mysql, postgres, sqlite};
use crate::session::StoreError;
use crate::store::connect::ConnectError;
use crate::store::sql::{SqlError, SqlPool};
use crate::store::url::StoreUrl;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    MySql,
    Postgres,
    #[default]
    Sqlite,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct DatabaseFacts {
    pub(crate) kind: Kind,
    /// None where the clock is that of this machine.
    pub(crate) clock: Option<Clock>,
    /// None if there is no such table.
    pub(crate) table: Option<TableFacts>,
    /// Whether it takes no writes.
    pub(crate) read_only: Option<bool>,
    pub(crate) connections: Option<Connections>,
    /// Whether another port answers than the one that was asked, and statements are prepared nevertheless.
    pub(crate) pooled: Option<bool>,
    pub(crate) prepares: bool,
    pub(crate) autovacuum: Option<bool>,
    /// Seconds that the longest transaction has been open.
    pub(crate) longest_transaction: Option<i64>,
    /// Whether MySQL refuses what does not fit a column.
    pub(crate) strict: Option<bool>,
    /// Of SQLite.
    pub(crate) journal_mode: Option<String>,
    pub(crate) file: Option<PathFacts>,
    pub(crate) replica: Option<ReplicaFacts>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TableFacts {
    pub(crate) columns: Vec<Column>,
    pub(crate) primary_key: Vec<String>,
    /// The first column of each index that can be used.
    pub(crate) indexed: Vec<String>,
    /// Of MySQL.
    pub(crate) engine: Option<String>,
    pub(crate) live_rows: Option<i64>,
    pub(crate) dead_rows: Option<i64>,
    /// Whether the table itself has autovacuum switched off.
    pub(crate) autovacuum: Option<bool>,
    /// Transactions since the oldest that is not frozen.
    pub(crate) frozen_age: Option<i64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// In small letters, as the database calls it.
    pub(crate) data_type: String,
    /// In characters.
    pub(crate) length: Option<u64>,
    pub(crate) nullable: bool,
    pub(crate) collation: Option<String>,
    pub(crate) charset: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Connections {
    /// Of those the server allows, those that are not kept for its owner.
    pub(crate) allowed: i64,
    pub(crate) used: i64,
    /// How many one process of ours may have.
    pub(crate) wanted: i64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReplicaFacts {
    /// Whether it follows another server.
    pub(crate) follows: Option<bool>,
    pub(crate) bytes_behind: Option<i64>,
    /// Seconds since the last transaction that it has.
    pub(crate) seconds_behind: Option<f64>,
    /// How old its answers may be.
    pub(crate) settle: f64,
}

pub(super) async fn inspect(url: &StoreUrl) -> Result<DatabaseFacts, ConnectError> {
    let (pool, prepares) = SqlPool::connect_to(url).await?;
    let table = url.text("cache_table").or(url.text("table")).unwrap_or("django_session");
    let wanted = url.number("max_connections", "a whole number, from 1 on")?.unwrap_or(10);
    let found = match &pool {
        SqlPool::MySql(_) => mysql::inspect(&pool, table, wanted).await,
        SqlPool::Postgres(_) => postgres::inspect(&pool, table, url, wanted).await,
        SqlPool::Sqlite(_) => sqlite::inspect(&pool, table).await,
    };
    let mut facts = found.map_err(ConnectError::Connect)?;
    facts.prepares = prepares;
    if let (Kind::Postgres, Some(replica)) = (facts.kind, url.text("replica_url")) {
        let settle = url.seconds("replica_settle")?.map_or(1.0, |settle| settle.as_secs_f64());
        let (replica, _) = SqlPool::connect_to(&replica.parse()?).await?;
        let found = postgres::inspect_replica(&pool, &replica, settle).await;
        replica.close().await;
        facts.replica = Some(found.map_err(ConnectError::Connect)?);
    }
    pool.close().await;
    Ok(facts)
}

/// The rows of a statement, every column of which is text.
pub(super) async fn rows(pool: &SqlPool, sql: &str) -> Result<Vec<Cells>, StoreError> {
    macro_rules! rows {
        ($pool:ident) => {{
            let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all($pool).await;
            let rows = rows.map_err(SqlError::from)?;
            let cells = rows.iter().map(|row| {
                let cells = (0..row.len()).map(|at| row.try_get_unchecked::<Option<String>, _>(at));
                cells.collect::<Result<Vec<_>, _>>().map(Cells)
            });
            cells.collect::<Result<Vec<_>, _>>().map_err(SqlError::from)?
        }};
    }
    Ok(match pool {
        SqlPool::MySql(pool) => rows!(pool),
        SqlPool::Postgres(pool) => rows!(pool),
        SqlPool::Sqlite(pool) => rows!(pool),
    })
}

/// The first row, if the database gives it to us.
pub(super) async fn row(pool: &SqlPool, sql: &str) -> Cells {
    let rows = rows(pool, sql).await.unwrap_or_default();
    rows.into_iter().next().unwrap_or_default()
}

/// The columns of a row.
#[derive(Default)]
pub(super) struct Cells(Vec<Option<String>>);

impl Cells {
    pub(super) fn text(&self, at: usize) -> Option<String> {
        self.0.get(at).cloned().flatten()
    }

    pub(super) fn number<T: std::str::FromStr>(&self, at: usize) -> Option<T> {
        self.0.get(at)?.as_ref()?.parse().ok()
    }

    /// In any of the ways in which databases spell it.
    pub(super) fn truth(&self, at: usize) -> Option<bool> {
        let text = self.text(at)?.to_ascii_lowercase();
        Some(matches!(&*text, "1" | "on" | "t" | "true" | "yes"))
    }

    /// A time in Unix seconds with a fraction, as milliseconds.
    #[expect(clippy::cast_possible_truncation, reason = "a time of this century")]
    pub(super) fn millis(&self, at: usize) -> Option<i64> {
        self.number::<f64>(at).map(|seconds| (seconds * 1000.0).round() as i64)
    }
}

/// A text as SQL has it.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
