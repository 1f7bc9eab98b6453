//! A table with a read replica beside it.
//!
//! What is written goes to the primary, and so does every look that decides about a write. Reads go to
//! the replica, which may lag: a session that is not there, or that this process has written a short
//! while ago, is asked of the primary. What a replica shows too late is a session of the past, never a
//! loss: saving it replaces only the state that was read, so it finds the conflict at the primary and
//! merges.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::session::{
    DateTime, Revision, Saved, SessionKey, SessionRecord, SessionStore, StoreError,
};
use crate::store::SqlStore;

/// How many sessions written a short while ago are kept apart.
const CAPACITY: usize = 65_536;
const SETTLE: Duration = Duration::from_secs(5);

/// A [`SqlStore`] that reads from a replica.
///
/// # How old an answer can be
///
/// Of what this process has written, saved, touched or deleted, never: for
/// [`with_settle_time`](ReplicatedStore::with_settle_time) the primary answers. Of what others have
/// written, as old as the replica: if somebody has logged out through another process, a request that is
/// read from a replica which has not heard of it yet still sees the session. It cannot be saved any
/// more, and it is not brought back. Nor is a change lost that the replica had not heard of, unless both
/// have set the same name: the two requests count as having run at the same time. Where that is too
/// much, read from the primary.
///
/// A replica that is away or refuses costs a warning and a round trip; the primary answers.
///
/// # Example
///
/// ```no_run
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// use django_session::{SecretKey, SessionSettings};
/// use django_session::store::{ReplicatedStore, SqlStore};
///
/// let settings = SessionSettings::default().with_secret_key(SecretKey::new("SECRET_KEY")?);
/// let primary = SqlStore::connect("postgres://site@primary/site", &settings).await?;
/// let replica = SqlStore::connect("postgres://site@replica/site", &settings).await?;
/// let store = ReplicatedStore::new(primary, replica);
/// # let _ = store;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ReplicatedStore {
    primary: SqlStore,
    replica: SqlStore,
    recent: Arc<Recent>,
}

impl ReplicatedStore {
    /// A store that writes to the one and reads from the other.
    pub fn new(primary: SqlStore, replica: SqlStore) -> Self {
        Self { primary, replica, recent: Arc::new(Recent::new(SETTLE)) }
    }

    /// Sets how long the primary answers for what was written here, five seconds at first: longer than
    /// the replica ever lags.
    #[must_use]
    pub fn with_settle_time(mut self, settle: Duration) -> Self {
        self.recent = Arc::new(Recent::new(settle));
        self
    }

    /// Where sessions are written.
    pub fn primary(&self) -> &SqlStore {
        &self.primary
    }

    /// Where sessions are read.
    pub fn replica(&self) -> &SqlStore {
        &self.replica
    }
}

/// Sessions that were written here a short while ago.
struct Recent {
    settle: Duration,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    last: HashMap<SessionKey, Instant>,
    order: VecDeque<(Instant, SessionKey)>,
    /// There were too many to remember: until then, all are taken for written.
    all_until: Option<Instant>,
}

impl Recent {
    fn new(settle: Duration) -> Self {
        Self { settle, written: Mutex::default() }
    }

    fn note(&self, session_key: &SessionKey, now: Instant) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.forget(now, self.settle);
        if written.order.len() >= CAPACITY {
            *written = Written { all_until: now.checked_add(self.settle), ..Written::default() };
        }
        written.last.insert(session_key.clone(), now);
        written.order.push_back((now, session_key.clone()));
    }

    fn knows(&self, session_key: &SessionKey, now: Instant) -> bool {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.forget(now, self.settle);
        written.all_until.is_some_and(|until| now <= until)
            || written.last.contains_key(session_key)
    }
}

impl Written {
    fn forget(&mut self, now: Instant, settle: Duration) {
        while let Some((at, session_key)) =
            self.order.pop_front_if(|(at, _)| now.duration_since(*at) > settle)
        {
            if self.last.get(&session_key) == Some(&at) {
                self.last.remove(&session_key);
            }
        }
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").field("settle", &self.settle).finish_non_exhaustive()
    }
}

/// Runs a write at the primary. It counts as written before and after: whatever the answer, it may have
/// taken effect, and at any time in between.
macro_rules! written {
    ($store:ident, $session_key:expr, $write:expr) => {{
        $store.recent.note($session_key, Instant::now());
        let outcome = $write.await;
        $store.recent.note($session_key, Instant::now());
        outcome
    }};
}

#[async_trait]
impl SessionStore for ReplicatedStore {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        self.primary.exists(session_key).await
    }

    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        written!(self, &record.session_key, self.primary.create(record))
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        if !self.recent.knows(session_key, Instant::now()) {
            match self.replica.load(session_key, now).await {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(target: "django_session", %error, "the replica failed");
                }
            }
        }
        self.primary.load(session_key, now).await
    }

    async fn load_latest(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.primary.load(session_key, now).await
    }

    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        written!(self, &record.session_key, self.primary.save(record))
    }

    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        written!(self, &record.session_key, self.primary.touch(record))
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        written!(self, session_key, self.primary.delete(session_key))
    }

    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        written!(self, session_key, self.primary.delete_revision(session_key, revision))
    }

    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        self.primary.clear_expired(now).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_was_written_is_known_for_a_while() {
        let recent = Recent::new(5 * SECOND);
        let (one, other) = (SessionKey::generate(), SessionKey::generate());
        let start = Instant::now();
        recent.note(&one, start);
        recent.note(&one, start + 3 * SECOND);
        assert!(recent.knows(&one, start + 7 * SECOND), "the last time counts");
        assert!(!recent.knows(&other, start + 7 * SECOND));
        assert!(!recent.knows(&one, start + 9 * SECOND));
        let written = recent.written.lock().unwrap();
        assert!(written.last.is_empty() && written.order.is_empty(), "nothing is left behind");
    }

    #[test]
    fn too_many_are_all_of_them() {
        let recent = Recent::new(5 * SECOND);
        let start = Instant::now();
        for _ in 0..=CAPACITY {
            recent.note(&SessionKey::generate(), start);
        }
        assert!(recent.knows(&SessionKey::generate(), start + 4 * SECOND));
        assert!(recent.written.lock().unwrap().order.len() <= CAPACITY);
        assert!(!recent.knows(&SessionKey::generate(), start + 6 * SECOND));
    }
}
