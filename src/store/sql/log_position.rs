//! How much of PostgreSQL's log a server has, and of which log.

use sqlx::Row;

use super::error::SqlError;
use super::{Lease, SqlPool, SqlStore};
use crate::session::StoreError;

/// Where a primary will write next, or what a replica has replayed.
///
/// * Not the position that is written, but the one that is next: what was committed with
///   `synchronous_commit = off` is behind the former.
/// * A replica tells the timeline of its last restart point, so that it takes until the next one for a
///   change of the primary to show.
const POSITION: &str = "\
    SELECT pg_is_in_recovery(), pg_postmaster_start_time()::text, \
    CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint()) \
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int4 END, \
    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
    ELSE pg_current_wal_insert_lsn() END - '0/0'::pg_lsn)::int8, \
    current_setting('wal_block_size')::int8, pg_size_bytes(current_setting('wal_segment_size'))";

/// The bytes before the first record of a page, and of the first page of a file.
const PAGE_HEADER: i64 = 24;
const FILE_HEADER: i64 = 40;

/// What a server says of its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct LogPosition {
    /// Whether it follows another server.
    in_recovery: bool,
    /// When the server process began.
    started: String,
    /// Counted up when a replica becomes a primary.
    timeline: i32,
    /// In bytes since the beginning; none if a replica has replayed nothing.
    bytes: Option<i64>,
}

impl LogPosition {
    /// Whether both have one log, so that what is not here yet may come.
    pub(in crate::store) fn follows(&self, primary: &Self) -> bool {
        if primary.in_recovery {
            // Nobody knows what its own primary has.
            return false;
        }
        // What follows nobody has a log of its own, unless it is the very same server.
        self.timeline == primary.timeline && (self.in_recovery || self.started == primary.started)
    }

    /// Whether what can be read here includes all that could be read at the primary when it said that.
    pub(in crate::store) fn includes(&self, primary: &Self) -> bool {
        self.follows(primary)
            && (!self.in_recovery
                || self.bytes.is_some_and(|here| primary.bytes.is_some_and(|there| here >= there)))
    }
}

/// Where the last record before this position ends: behind a header there is none yet.
fn end_of_records(position: i64, page: i64, file: i64) -> i64 {
    match (position.checked_rem(file), position.checked_rem(page)) {
        (Some(FILE_HEADER), _) => position - FILE_HEADER,
        (_, Some(PAGE_HEADER)) => position - PAGE_HEADER,
        _ => position,
    }
}

impl SqlStore {
    /// What the server says of its log, which only PostgreSQL has.
    pub(in crate::store) async fn log_position(&self) -> Result<LogPosition, StoreError> {
        match &self.pool {
            SqlPool::Postgres(pool) => {
                let mut lease = Lease::take(pool, &self.spare, self.timeout).await?;
                // Without parameters it is one step, which any pooler lets pass.
                let query = sqlx::raw_sql(POSITION).fetch_one(lease.connection()?);
                let row = tokio::time::timeout(self.timeout, query).await;
                let row = row.map_err(|_| SqlError::timed_out())?;
                lease.answered();
                Ok(read(&row.map_err(SqlError::from)?).map_err(SqlError::from)?)
            }
            #[cfg(any(feature = "mysql", feature = "sqlite"))]
            _ => Err(StoreError::Unsupported { operation: "reading from a replica" }),
        }
    }
}

fn read(row: &sqlx::postgres::PgRow) -> Result<LogPosition, sqlx::Error> {
    let position: Option<i64> = row.try_get(3)?;
    let (page, file) = (row.try_get(4)?, row.try_get(5)?);
    Ok(LogPosition {
        in_recovery: row.try_get(0)?,
        started: row.try_get(1)?,
        timeline: row.try_get(2)?,
        bytes: position.map(|position| end_of_records(position, page, file)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(in_recovery: bool, started: &str, timeline: i32, bytes: i64) -> LogPosition {
        LogPosition { in_recovery, started: started.to_owned(), timeline, bytes: Some(bytes) }
    }

    #[test]
    fn a_replica_includes_what_it_has_replayed() {
        let primary = position(false, "monday", 3, 1000);
        assert!(position(true, "sunday", 3, 1000).includes(&primary));
        assert!(position(true, "sunday", 3, 1001).includes(&primary));
        let behind = position(true, "sunday", 3, 999);
        assert!(!behind.includes(&primary) && behind.follows(&primary));
        let empty = LogPosition { bytes: None, ..behind };
        assert!(!empty.includes(&primary) && empty.follows(&primary));
    }

    #[test]
    fn another_log_includes_nothing_however_long_it_is() {
        let primary = position(false, "monday", 3, 1000);
        for other in [
            // It follows a primary of before, or of after.
            position(true, "sunday", 2, 9999),
            position(true, "sunday", 4, 9999),
            // It has been promoted, or has never been a replica.
            position(false, "sunday", 4, 9999),
            position(false, "sunday", 3, 9999),
        ] {
            assert!(!other.includes(&primary) && !other.follows(&primary), "{other:?}");
        }
        // The same server under two addresses, even if its position is an older one.
        assert!(position(false, "monday", 3, 900).includes(&primary));
        // What is called the primary is a replica itself.
        let replica = position(true, "monday", 3, 1000);
        assert!(!replica.includes(&replica));
    }

    #[test]
    fn behind_a_header_there_is_no_record_yet() {
        let (page, file) = (8192, 16 << 20);
        for (position, end) in [
            (file + 40, file),
            (file + 24, file + 24 - PAGE_HEADER),
            (file + page + 24, file + page),
            (file + page + 40, file + page + 40),
            (file + page, file + page),
            (file + 48, file + 48),
        ] {
            assert_eq!(end_of_records(position, page, file), end, "{position}");
        }
        assert_eq!(end_of_records(40, 0, 0), 40);
    }
}
