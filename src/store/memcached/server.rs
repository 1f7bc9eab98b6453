//! One server and the connections that are kept to it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::address::Address;
use super::connection::Connection;
use super::error::MemcachedError;

/// How long an unused connection is kept. Whatever stands between forgets them at some time.
const MAX_IDLE: Duration = Duration::from_mins(1);

pub(super) struct Server {
    pub(super) address: Address,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

/// A connection for one operation. Unless it is kept, it is closed.
pub(super) struct Lease<'a> {
    pub(super) connection: Connection,
    /// Whether it was there before, so that it may have broken meanwhile.
    pub(super) is_old: bool,
    server: &'a Server,
    _permit: SemaphorePermit<'a>,
}

impl Server {
    pub(super) fn new(address: Address, max_connections: usize) -> Self {
        let permits = Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS));
        Self { address, idle: Mutex::default(), permits }
    }

    pub(super) async fn connection(
        &self,
        wait: Duration,
        connect: Duration,
    ) -> Result<Lease<'_>, MemcachedError> {
        let Ok(Ok(permit)) = timeout(wait, self.permits.acquire()).await else {
            return Err(MemcachedError::NoConnection);
        };
        // The one used last, so that those which nobody needs grow old.
        while let Some(mut connection) = self.pop() {
            if connection.idle_since.elapsed() < MAX_IDLE && connection.is_open().await {
                return Ok(Lease { connection, is_old: true, server: self, _permit: permit });
            }
        }
        let connection = Connection::open(&self.address, connect).await?;
        Ok(Lease { connection, is_old: false, server: self, _permit: permit })
    }

    /// Where one connection broke, the others will have too.
    pub(super) fn close_idle(&self) {
        self.idle().clear();
    }

    fn pop(&self) -> Option<Connection> {
        self.idle().pop()
    }

    /// No code that holds the lock can panic half way through a change.
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease<'_> {
    /// Gives the connection back, after a whole reply.
    pub(super) fn keep(mut self) {
        self.connection.idle_since = Instant::now();
        let mut idle = self.server.idle();
        idle.retain(|connection| connection.idle_since.elapsed() < MAX_IDLE);
        idle.push(self.connection);
    }
}
