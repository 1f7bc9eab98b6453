//! How a connection comes out of its pool, and back.
//!
//! A pool of sqlx asks each connection that it gets back whether it is alive, and waits for the answer as
//! long as it takes, while the connection still counts: where answers are lost, so is one place after
//! the other. And a connection whose answer nobody has read, because who asked has gone, need not come
//! to rest: the driver for MySQL forgets that it was preparing a statement. So a connection goes back
//! only after a whole answer, and has as long for the pool's question as a statement has.
//!
//! That question is one more for each statement. So the connections of a pool that nobody else has made
//! rest a moment beside it for whoever comes next: under load they are asked for nothing but sessions.

use std::any::Any;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::SqlPool;
use super::error::SqlError;

/// How long connections rest beside the pool that nobody uses: hardly longer than who has to wait for
/// one would mind.
const REST: Duration = Duration::from_millis(10);
/// How often they are looked at in use before the pool may say whether they have become too old.
const LOOKS: u32 = 1000;

/// A connection for one operation.
pub(in crate::store) struct Lease<DB: Database> {
    /// None once it is given back.
    held: Option<Held<DB>>,
    spare: Spare,
    is_at_rest: bool,
}

impl<DB: Database> Lease<DB> {
    /// Takes a connection that rests, or one out of the pool, which has so much time to say that it is
    /// well when it comes back.
    pub(in crate::store) async fn take(
        pool: &Pool<DB>,
        spare: &Spare,
        limit: Duration,
    ) -> Result<Self, SqlError> {
        let held = spare.next(pool, limit).await?;
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

impl<DB: Database> Held<DB> {
    /// One that comes out of the pool.
    fn new(connection: PoolConnection<DB>, limit: Duration) -> Self {
        // SQLite works through what it is asked in a thread of its own, and without network; a
        // database in memory would end with its connection.
        Self { connection, limit, keep: DB::NAME == "SQLite" }
    }
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

/// The place beside a pool; nothing rests there unless it is [`Spare::beside`].
#[derive(Clone, Default)]
pub(in crate::store) struct Spare(Option<Arc<Place>>);

struct Place {
    resting: Mutex<Resting>,
    /// How many may rest.
    room: usize,
}

#[derive(Default)]
struct Resting {
    held: Vec<Box<dyn Any + Send>>,
    /// Those who wait at the pool, in the order in which they came: what comes to rest is handed to the
    /// first. Whoever comes later and took it past them would wake them for nothing.
    waiting: VecDeque<oneshot::Sender<Box<dyn Any + Send>>>,
    /// Whether somebody has used one since they were last looked at.
    was_used: bool,
    is_watched: bool,
}

impl Place {
    fn resting(&self) -> MutexGuard<'_, Resting> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection, or a place in the queue for one.
    fn take(&self) -> Result<Box<dyn Any + Send>, oneshot::Receiver<Box<dyn Any + Send>>> {
        let mut resting = self.resting();
        // They have got one of the pool, or have gone.
        while resting.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            resting.waiting.pop_front();
        }
        if resting.waiting.is_empty()
            && let Some(held) = resting.held.pop()
        {
            resting.was_used = true;
            return Ok(held);
        }
        let (sender, receiver) = oneshot::channel();
        resting.waiting.push_back(sender);
        Err(receiver)
    }
}

impl Spare {
    /// A place beside a pool that nobody else has made, for all its connections but one: whoever takes
    /// one out of the pool gets that.
    pub(in crate::store) fn beside(pool: &SqlPool) -> Self {
        let room = usize::try_from(pool.max_connections()).unwrap_or(usize::MAX);
        Self(Some(Arc::new(Place {
            resting: Mutex::default(),
            room: room.saturating_sub(1).max(1),
        })))
    }

    /// The connection that came to rest last, or one of the pool: whatever there is first.
    async fn next<DB: Database>(
        &self,
        pool: &Pool<DB>,
        limit: Duration,
    ) -> Result<Held<DB>, SqlError> {
        let most = pool.options().get_max_connections();
        let failed = |error| SqlError::not_acquired(error, pool.size() >= most);
        let Some(place) = &self.0 else {
            let acquired = pool.acquire().await.map_err(failed)?;
            return Ok(Held::new(acquired, limit));
        };
        // A place is beside one pool, so it is of this database.
        let rested = |held: Box<dyn Any + Send>| match held.downcast::<Held<DB>>() {
            Ok(held) => Ok(*held),
            Err(_) => Err(SqlError::unknown()),
        };
        let mut arrival = match place.take() {
            Ok(held) => return rested(held),
            Err(arrival) => arrival,
        };
        let may_connect = pool.size() < most;
        let mut acquired = Box::pin(pool.acquire());
        let first = poll_fn(|context| {
            if let Poll::Ready(Ok(held)) = Pin::new(&mut arrival).poll(context) {
                return Poll::Ready(Err(held));
            }
            acquired.as_mut().poll(context).map(Ok)
        });
        match first.await {
            Ok(acquired) => Ok(Held::new(acquired.map_err(failed)?, limit)),
            Err(held) => {
                if may_connect && let Ok(runtime) = Handle::try_current() {
                    // A connection was being made, which the next one will be glad of. Whoever has to
                    // wait meets an error of it too.
                    let spare = self.clone();
                    runtime.spawn(async move {
                        if let Ok(connection) = acquired.await {
                            let held = Held { connection, limit, keep: true };
                            spare.keep(held, &Handle::current());
                        }
                    });
                }
                rested(held)
            }
        }
    }

    /// Lets a connection rest here, if there is room.
    fn keep<DB: Database>(&self, held: Held<DB>, runtime: &Handle) {
        let Some(place) = &self.0 else { return };
        let mut held: Box<dyn Any + Send> = Box::new(held);
        let mut resting = place.resting();
        while let Some(next) = resting.waiting.pop_front() {
            resting.was_used = true;
            match next.send(held) {
                Ok(()) => return,
                Err(back) => held = back,
            }
        }
        if resting.held.len() >= place.room {
            // It goes back to the pool, which may take its time for that.
            drop(resting);
            drop(held);
            return;
        }
        resting.held.push(held);
        let is_watched = std::mem::replace(&mut resting.is_watched, true);
        drop(resting);
        if !is_watched {
            runtime.spawn(watch(Watch { place: Arc::downgrade(place), has_left: false }));
        }
    }
}

/// Whoever looks after the place.
struct Watch {
    place: Weak<Place>,
    has_left: bool,
}

impl Watch {
    /// Gives the connections back, and leaves.
    fn leave(&mut self) {
        if let Some(place) = self.place.upgrade() {
            let mut resting = place.resting();
            resting.is_watched = false;
            self.has_left = true;
            let held = std::mem::take(&mut resting.held);
            drop(resting);
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

/// Gives the connections back to their pool once nobody has used one for a while.
async fn watch(mut watch: Watch) {
    for _ in 0..LOOKS {
        tokio::time::sleep(REST).await;
        let Some(place) = watch.place.upgrade() else { return };
        if !std::mem::take(&mut place.resting().was_used) {
            break;
        }
    }
    watch.leave();
}
