//! How a connection comes back to its pool.
//!
//! A pool of sqlx asks each connection that it gets back whether it is alive, and waits for the answer as
//! long as it takes, while the connection still counts: where answers are lost, so is one place after
//! the other. And a connection whose answer nobody has read, because who asked has gone, need not come
//! to rest: the driver for MySQL forgets that it was preparing a statement. So a connection goes back
//! only after a whole answer, and has as long for the pool's question as a statement has.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};
use tokio::runtime::Handle;

use super::error::SqlError;

/// A connection for one operation.
pub(in crate::store) struct Lease<DB: Database> {
    connection: PoolConnection<DB>,
    limit: Duration,
    keep: bool,
}

impl<DB: Database> Lease<DB> {
    /// Takes a connection out of the pool, which has so much time to say that it is well when it comes
    /// back.
    pub(in crate::store) async fn take(pool: &Pool<DB>, limit: Duration) -> Result<Self, SqlError> {
        let connection = pool.acquire().await.map_err(|error| {
            let most = pool.options().get_max_connections();
            SqlError::not_acquired(error, pool.size() >= most)
        })?;
        // SQLite works through what it is asked in a thread of its own, and without network; a database in
        // memory would end with its connection.
        let keep = DB::NAME == "SQLite";
        Ok(Self { connection, limit, keep })
    }

    pub(in crate::store) fn connection(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }

    /// Whoever comes next will not read what was meant for somebody else. Without, it is closed.
    pub(in crate::store) fn answered(&mut self) {
        self.keep = true;
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else {
            // Nothing can be sent any more: it is just closed.
            drop(self.connection.return_to_pool());
            return;
        };
        if self.keep {
            let back = self.connection.return_to_pool();
            runtime.spawn(tokio::time::timeout(self.limit, back));
        } else {
            self.connection.close_on_drop();
        }
    }
}
