//! Single rows of other tables of a site, over the connections of a session store.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Row};

use super::retry::{Failure, Tries};
use super::sql::{Lease, Spare, SqlError, SqlPool, SqlStore, Way, run};
use crate::session::StoreError;

/// The columns of a row, as texts; `None` is `NULL`.
pub(crate) type Texts = Vec<Option<String>>;

/// A database that is asked for rows.
#[derive(Clone)]
pub(crate) struct SqlRows {
    pool: SqlPool,
    persistent: bool,
    timeout: Duration,
    spare: Spare,
}

/// A question, as `run!` takes it.
struct Question<'a> {
    pool: &'a SqlPool,
    persistent: bool,
    timeout: Duration,
    spare: &'a Spare,
    statements: Statements,
}

struct Statements {
    find: Arc<str>,
}

impl SqlRows {
    /// Of the database of a store.
    pub(crate) fn beside(store: &SqlStore) -> Self {
        let Way { pool, persistent, timeout, spare, .. } = store.way();
        Self { pool, persistent, timeout, spare }
    }

    /// The first row that a statement finds, which has one parameter and texts as columns.
    pub(crate) async fn find(
        &self,
        statement: Arc<str>,
        key: &str,
    ) -> Result<Option<Texts>, StoreError> {
        if self.pool.cannot_have(key) {
            return Ok(None);
        }
        let question = Question {
            pool: &self.pool,
            persistent: self.persistent,
            timeout: self.timeout,
            spare: &self.spare,
            statements: Statements { find: statement },
        };
        let found = run!(question, find[key] fetch_optional, |row| match row {
            Some(row) => (0..row.len())
                .map(|index| Ok(row.try_get_unchecked(index)?))
                .collect::<Result<Texts, SqlError>>()
                .map(Some),
            None => Ok(None),
        });
        Ok(found?)
    }
}
