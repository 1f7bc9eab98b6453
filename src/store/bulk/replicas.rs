//! How far the replicas of a database are behind it, for work that gives them time.
//!
//! PostgreSQL's primary knows where in its log each replica is, and so does a replica of itself. A mark is a
//! position of the primary's log at a time: as long as a replica has not come to it, it is behind by the age of
//! the mark. That holds for one that stands still too, whose own figures (`replay_lag`) do not change then.
//! MySQL's primary knows nothing of the kind; its replicas are asked for `Seconds_Behind_Source`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sqlx::mysql::{MySqlDatabaseError, MySqlRow};
use sqlx::{MySqlPool, PgPool, Row as _};
use thiserror::Error;
use tokio::sync::Mutex;

use super::sql::failed;
use crate::session::StoreError;
use crate::store::connect::ConnectError;
use crate::store::sql::SqlPool;
use crate::store::url::StoreUrl;

/// How far apart marks are at least.
const MARKS: Duration = Duration::from_millis(50);

/// Why it cannot be told how far replicas are behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum ReplicaError {
    /// There is no knowing a replica whose address was not given.
    #[error(
        "this server does not know how far its replicas are behind: give their addresses by --replica"
    )]
    Addresses,
    /// It is another kind of server than the one that it is to follow.
    #[error("the server at --replica is of another kind than the store")]
    Kind,
    /// It follows nobody.
    #[error("the server at --replica is no replica")]
    NoReplica,
    /// PostgreSQL shows replicas to those who may see them.
    #[error(
        "the user may not see how far replicas are behind: it takes the role pg_monitor, or their addresses by --replica"
    )]
    Role,
}

impl From<ReplicaError> for ConnectError {
    fn from(error: ReplicaError) -> Self {
        Self::Connect(StoreError::backend(error))
    }
}

/// The replicas that are watched.
#[derive(Debug)]
pub(crate) struct Replicas(Kind);

#[derive(Debug)]
enum Kind {
    /// Those that the primary knows, or those that were named, if any were.
    Postgres {
        primary: PgPool,
        named: Vec<PgPool>,
        marks: Mutex<Marks>,
    },
    MySql(Vec<MySqlPool>),
}

impl Replicas {
    /// Connects to the primary at an address, and to the replicas at others, all of which have to be there.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; within it `Unsupported` for what has no replicas, or a [`ReplicaError`].
    pub(crate) async fn connect(
        primary: &StoreUrl,
        named: &[StoreUrl],
    ) -> Result<Self, ConnectError> {
        if !primary.is_sql() || primary.scheme() == "sqlite" {
            return Err(ConnectError::Connect(StoreError::Unsupported {
                operation: "telling how far replicas are behind",
            }));
        }
        let mut pools = Vec::with_capacity(named.len());
        for url in named {
            if is_mysql(url) != is_mysql(primary) || !url.is_sql() || url.scheme() == "sqlite" {
                return Err(ReplicaError::Kind.into());
            }
            pools.push(SqlPool::connect_to(url).await?.0);
        }
        let (primary, _) = SqlPool::connect_to(primary).await?;
        let kind = match primary {
            SqlPool::Postgres(primary) => {
                let of_kind = |pool| match pool {
                    SqlPool::Postgres(pool) => Ok(pool),
                    _ => Err(ReplicaError::Kind),
                };
                let named = pools.into_iter().map(of_kind).collect::<Result<_, _>>()?;
                Kind::Postgres { primary, named, marks: Mutex::default() }
            }
            SqlPool::MySql(primary) => {
                primary.close().await;
                let of_kind = |pool| match pool {
                    SqlPool::MySql(pool) => Ok(pool),
                    _ => Err(ReplicaError::Kind),
                };
                let named = pools.into_iter().map(of_kind).collect::<Result<Vec<_>, _>>()?;
                if named.is_empty() {
                    return Err(ReplicaError::Addresses.into());
                }
                Kind::MySql(named)
            }
            SqlPool::Sqlite(_) => return Err(ReplicaError::Kind.into()),
        };
        let replicas = Self(kind);
        replicas.lag().await.map_err(ConnectError::Connect)?;
        Ok(replicas)
    }

    /// How long the one is behind that is furthest behind; `None` if that is not known, because one stands still
    /// or has not come yet to where the primary was at the first look.
    pub(crate) async fn lag(&self) -> Result<Option<Duration>, StoreError> {
        match &self.0 {
            Kind::Postgres { primary, named, marks } => {
                let (now, at, known) = (Instant::now(), position(primary).await?, named.is_empty());
                let replayed = if known {
                    known_to(primary).await?
                } else {
                    let mut least = None;
                    for replica in named {
                        let one = replayed(replica).await?;
                        least = Some(least.map_or(one, |least: i64| least.min(one)));
                    }
                    least
                };
                Ok(marks.lock().await.lag(now, at, replayed.unwrap_or(at)))
            }
            Kind::MySql(named) => {
                let mut most = Duration::ZERO;
                for replica in named {
                    let Some(behind) = behind(replica).await? else { return Ok(None) };
                    most = most.max(behind);
                }
                Ok(Some(most))
            }
        }
    }

    /// Ends the connections.
    pub(crate) async fn close(&self) {
        match &self.0 {
            Kind::Postgres { primary, named, .. } => {
                primary.close().await;
                for pool in named {
                    pool.close().await;
                }
            }
            Kind::MySql(named) => {
                for pool in named {
                    pool.close().await;
                }
            }
        }
    }
}

fn is_mysql(url: &StoreUrl) -> bool {
    matches!(url.scheme(), "mysql" | "mariadb")
}

/// How much the primary has written to its log, in bytes.
async fn position(primary: &PgPool) -> Result<i64, StoreError> {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::int8";
    sqlx::query_scalar(sql).fetch_one(primary).await.map_err(failed)
}

/// How much of that the last of the replicas has done that are connected; `None` if there are none.
async fn known_to(primary: &PgPool) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT count(*) FILTER (WHERE state IS NULL), \
               min(pg_wal_lsn_diff(replay_lsn, '0/0')::int8) \
               FROM pg_stat_replication WHERE state IS NULL OR state IN ('streaming', 'catchup')";
    let row = sqlx::query(sql).fetch_one(primary).await.map_err(failed)?;
    let hidden: i64 = row.try_get(0).map_err(failed)?;
    if hidden > 0 {
        return Err(StoreError::backend(ReplicaError::Role));
    }
    row.try_get(1).map_err(failed)
}

/// How much of the primary's log a replica has done.
async fn replayed(replica: &PgPool) -> Result<i64, StoreError> {
    let sql = "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::int8 \
               WHERE pg_is_in_recovery()";
    let found: Option<Option<i64>> =
        sqlx::query_scalar(sql).fetch_optional(replica).await.map_err(failed)?;
    Ok(found.ok_or_else(|| StoreError::backend(ReplicaError::NoReplica))?.unwrap_or_default())
}

/// How far a replica of MySQL or MariaDB is behind; `None` if it stands still.
async fn behind(replica: &MySqlPool) -> Result<Option<Duration>, StoreError> {
    // MariaDB's; MySQL's since 8.0.22; MySQL's until 8.4.
    let [mariadb, mysql, older] =
        ["SHOW ALL SLAVES STATUS", "SHOW REPLICA STATUS", "SHOW SLAVE STATUS"];
    let mut rows = sqlx::raw_sql(mariadb).fetch_all(replica).await;
    for statement in [mysql, older] {
        if rows.as_ref().is_err_and(is_unknown_statement) {
            rows = sqlx::raw_sql(statement).fetch_all(replica).await;
        }
    }
    // One that follows several primaries has a row for each.
    let mut most = None;
    for row in &rows.map_err(failed)? {
        let Some(behind) = seconds_behind(row)? else { return Ok(None) };
        most = most.max(Some(Duration::from_secs(behind)));
    }
    most.map(Some).ok_or_else(|| StoreError::backend(ReplicaError::NoReplica))
}

fn is_unknown_statement(error: &sqlx::Error) -> bool {
    const ER_PARSE_ERROR: u16 = 1064;
    let error =
        error.as_database_error().and_then(|it| it.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| error.number() == ER_PARSE_ERROR)
}

fn seconds_behind(row: &MySqlRow) -> Result<Option<u64>, StoreError> {
    let found = ["Seconds_Behind_Source", "Seconds_Behind_Master"]
        .into_iter()
        .find_map(|name| row.try_get_unchecked::<Option<u64>, _>(name).ok());
    found.ok_or_else(|| StoreError::backend(ReplicaError::NoReplica))
}

/// Where the primary was at some times that the last of the replicas has not come to yet.
#[derive(Debug, Default)]
struct Marks {
    waiting: VecDeque<(Instant, i64)>,
    /// Whether a mark has been come to, so that it is known how long that takes.
    is_known: bool,
}

impl Marks {
    /// Makes a mark of where the primary is now; tells how long ago the oldest was made that the replica has
    /// not come to.
    fn lag(&mut self, now: Instant, primary: i64, replayed: i64) -> Option<Duration> {
        while self.waiting.front().is_some_and(|&(_, mark)| mark <= replayed) {
            self.waiting.pop_front();
            self.is_known = true;
        }
        if replayed >= primary {
            self.is_known = true;
        } else if self.waiting.back().is_none_or(|&(at, _)| now.duration_since(at) >= MARKS) {
            self.waiting.push_back((now, primary));
        }
        let oldest = self.waiting.front().map(|&(at, _)| now.duration_since(at));
        self.is_known.then(|| oldest.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Marks;

    #[test]
    fn a_replica_is_behind_by_the_age_of_the_mark_that_it_has_not_come_to() {
        let (mut marks, begun) = (Marks::default(), Instant::now());
        let mut lag = |seconds, primary, replayed| {
            let now = begun + Duration::from_secs(seconds);
            marks.lag(now, primary, replayed).map(|lag| lag.as_secs())
        };
        // Nobody knows yet when it will come there.
        assert_eq!(lag(0, 100, 40), None);
        assert_eq!(lag(1, 200, 90), None);
        // It has come past the first one, and not to that of the first second.
        assert_eq!(lag(2, 300, 150), Some(1));
        // It stands still.
        assert_eq!(lag(7, 300, 150), Some(6));
        assert_eq!(lag(8, 300, 299), Some(6));
        // It has all, and some more is written.
        assert_eq!(lag(9, 300, 300), Some(0));
        assert_eq!(lag(10, 400, 300), Some(0));
        assert_eq!(lag(12, 400, 399), Some(2));
        assert_eq!(lag(13, 400, 400), Some(0));
    }

    #[test]
    fn a_replica_that_has_all_is_known_at_once() {
        assert_eq!(Marks::default().lag(Instant::now(), 5, 5), Some(Duration::ZERO));
    }

    #[test]
    fn marks_are_few_however_often_somebody_looks() {
        let (mut marks, begun) = (Marks::default(), Instant::now());
        for millisecond in 0..10_000 {
            let now = begun + Duration::from_millis(millisecond);
            marks.lag(now, 1_000 + i64::try_from(millisecond).unwrap(), 0);
        }
        assert_eq!(marks.waiting.len(), 200);
    }
}
