//! How a connection comes out of its pool, and back.
//!
//! A pool of sqlx asks each connection that it gets back whether it is alive, and waits for the answer as
//! long as it takes, while the connection still counts: where answers are lost, so is one place after
//! the other. And a connection whose answer nobody has read, because who asked has gone, need not come
//! to rest: the driver for MySQL forgets that it was preparing a statement. So a connection goes back
//! only after a whole answer, and has as long for the pool's question as a statement has.
//!
//! That question is one more for each statement. So one connection, of a pool that nobody else has made,
//! rests a moment beside it for whoever comes next: under load it is asked for nothing but sessions.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};
use tokio::runtime::Handle;

use super::error::SqlError;

/// How long a connection rests beside the pool that nobody uses: hardly longer than who has to wait for
/// one would mind.
const REST: Duration = Duration::from_millis(10);
/// How often it is looked at in use before the pool may say whether it has become too old.
const LOOKS: u32 = 1000;

/// A connection for one operation.
pub(in crate::store) struct Lease<DB: Database> {
    /// None once it is given back.
    held: Option<Held<DB>>,
    spare: Spare,
    is_at_rest: bool,
}

impl<DB: Database> Lease<DB> {
    /// Takes the spare connection, or one out of the pool, which has so much time to say that it is well
    /// when it comes back.
    pub(in crate::store) async fn take(
        pool: &Pool<DB>,
        spare: &Spare,
        limit: Duration,
    ) -> Result<Self, SqlError> {
        let waiting = spare.wait();
        let held = if let Some(held) = waiting.take() {
            held
        } else {
            let connection = pool.acquire().await.map_err(|error| {
                let most = pool.options().get_max_connections();
                SqlError::not_acquired(error, pool.size() >= most)
            })?;
            // SQLite works through what it is asked in a thread of its own, and without network; a
            // database in memory would end with its connection.
            Held { connection, limit, keep: DB::NAME == "SQLite" }
        };
        Ok(Self { held: Some(held), spare: spare.clone(), is_at_rest: false })
    }

    pub(in crate::store) fn connection(&mut self) -> Result<&mut DB::Connection, SqlError> {
        // It is there until the end.
        let held = self.held.as_mut().ok_or_else(SqlError::unknown)?;
        held.keep = DB::NAME == "SQLite";
        Ok(&mut held.connection)
    }

    /// Whoever comes next will not read what was meant for somebody else. Without, it is closed.
    pub(in crate::store) fn answered(&mut self) {
        if let Some(held) = &mut self.held {
            held.keep = true;
        }
    }

    /// As [`Lease::answered`], and nothing is left to be done on it, as after a transaction.
    pub(in crate::store) fn at_rest(&mut self) {
        self.answered();
        self.is_at_rest = true;
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take()
            && self.is_at_rest
            && let Ok(runtime) = Handle::try_current()
        {
            self.spare.keep(held, &runtime);
        }
    }
}

/// A connection of a pool that nobody has lost sight of.
struct Held<DB: Database> {
    connection: PoolConnection<DB>,
    limit: Duration,
    keep: bool,
}

impl<DB: Database> Drop for Held<DB> {
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

/// The place beside a pool; nothing rests there unless it is [`Spare::one`].
#[derive(Clone, Default)]
pub(in crate::store) struct Spare(Option<Arc<Mutex<Place>>>);

#[derive(Default)]
struct Place {
    held: Option<Box<dyn Any + Send>>,
    /// How many wait for a connection.
    waiting: usize,
    /// Whether somebody has used it since it was last looked at.
    was_used: bool,
    is_watched: bool,
}

/// Somebody who waits for a connection.
struct Waiting<'a>(&'a Spare);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(mut place) = self.0.place() {
            place.waiting = place.waiting.saturating_sub(1);
        }
    }
}

impl Waiting<'_> {
    fn take<DB: Database>(&self) -> Option<Held<DB>> {
        let mut place = self.0.place()?;
        let held = place.held.take()?.downcast::<Held<DB>>().ok()?;
        place.was_used = true;
        Some(*held)
    }
}

impl Spare {
    /// A place for one connection.
    pub(in crate::store) fn one() -> Self {
        Self(Some(Arc::default()))
    }

    fn place(&self) -> Option<MutexGuard<'_, Place>> {
        self.0.as_ref().map(|place| place.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wait(&self) -> Waiting<'_> {
        if let Some(mut place) = self.place() {
            place.waiting += 1;
        }
        Waiting(self)
    }

    /// Lets a connection rest here, unless somebody waits for it at the pool.
    fn keep<DB: Database>(&self, held: Held<DB>, runtime: &Handle) {
        let Some(mut place) = self.place() else { return };
        if place.held.is_some() || place.waiting > 0 {
            return;
        }
        place.held = Some(Box::new(held));
        if !std::mem::replace(&mut place.is_watched, true)
            && let Some(place) = &self.0
        {
            runtime.spawn(watch(Watch { place: Arc::downgrade(place), has_left: false }));
        }
    }
}

/// Whoever looks after the place.
struct Watch {
    place: Weak<Mutex<Place>>,
    has_left: bool,
}

impl Watch {
    /// Gives the connection back, and leaves.
    fn leave(&mut self) {
        if let Some(place) = self.place.upgrade() {
            let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
            place.is_watched = false;
            self.has_left = true;
            let held = place.held.take();
            drop(place);
            drop(held);
        }
    }
}

impl Drop for Watch {
    /// The runtime has ended, and another one may go on.
    fn drop(&mut self) {
        if !self.has_left {
            self.leave();
        }
    }
}

/// Gives the connection back to its pool once nobody has used it for a while.
async fn watch(mut watch: Watch) {
    for _ in 0..LOOKS {
        tokio::time::sleep(REST).await;
        let Some(place) = watch.place.upgrade() else { return };
        let was_used = &mut place.lock().unwrap_or_else(PoisonError::into_inner).was_used;
        if !std::mem::take(was_used) {
            break;
        }
    }
    watch.leave();
}
