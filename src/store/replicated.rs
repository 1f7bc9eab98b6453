//! A table with a read replica beside it.
//!
//! What is written goes to the primary, and so does every look that decides about a write. Reads go to
//! the replica, as long as it is known not to lag too far: a session that is not there, or that this
//! process has written a short while ago, is asked of the primary. What a replica shows too late is a session
//! of the past, never a loss: saving it replaces only the state that was read, so it finds the conflict at
//! the primary and merges.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::session::{
    DateTime, Revision, Saved, SessionKey, SessionRecord, SessionStore, StoreError,
};
use crate::store::SqlStore;
use crate::store::proof::{Decision, Proof};

/// How many sessions written a short while ago are kept apart.
const CAPACITY: usize = 65_536;
const SETTLE: Duration = Duration::from_secs(1);

/// A [`SqlStore`] that reads from a replica. Both are PostgreSQL.
///
/// # How old an answer can be
///
/// A read shows all that was written up to a [settle time](ReplicatedStore::with_settle_time) before it
/// began, a second at first, by whomever. What this process has created, saved, touched or deleted itself
/// it shows at once, since for so long the primary answers.
///
/// So if somebody has logged out through another process, a request may still see the session for a
/// second. It cannot be saved any more, and it is not brought back. Nor is a change lost that the
/// replica had not heard of, unless both have set the same name: the two requests count as having run at
/// the same time. Where that is too much, read from the primary.
///
/// The replica answers only with a proof: the primary has said how far its log goes, and the replica that it
/// has replayed as much. The question is put beside the reads, at most twice in a settle time, and
/// not where nobody reads; no read waits for it. Without proof the primary answers: at the beginning, after a
/// rest, while the replica lags by more than half the settle time, while its replay is paused, after it was
/// promoted, and after the primary has changed until the replica's next restart point, some minutes. A
/// warning tells when that begins. The time from the proof on is measured by the clock of this
/// process; those of the servers are of no account.
///
/// A replica that is away or refuses costs a warning and a round trip; the primary answers.
///
/// # One replica
///
/// Its address leads to one server. Behind a balancer over several a proof would be of one of them, and
/// the answer of another.
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
    proof: Arc<Proof>,
}

impl ReplicatedStore {
    /// A store that writes to the one and reads from the other. Where they are not PostgreSQL, the primary
    /// always answers.
    pub fn new(primary: SqlStore, replica: SqlStore) -> Self {
        let (recent, proof) = (Arc::new(Recent::new(SETTLE)), Arc::new(Proof::new(SETTLE)));
        Self { primary, replica, recent, proof }
    }

    /// Sets how old an answer of the replica may be, and how long the primary answers for what was written
    /// here: a second at first. More than twice what the replica usually lags makes sense; with zero the
    /// primary always answers.
    #[must_use]
    pub fn with_settle_time(mut self, settle: Duration) -> Self {
        self.recent = Arc::new(Recent::new(settle));
        self.proof = Arc::new(Proof::new(settle));
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

    /// Whether the replica may answer; begins a proof beside it if one is due.
    fn may_read_replica(&self, session_key: &SessionKey) -> bool {
        let now = Instant::now();
        let Decision { replica, attempt } = self.proof.decide(now);
        if attempt {
            let attempt = Attempt::begin(&self.proof);
            tokio::spawn(attempt.run(self.primary.clone(), self.replica.clone()));
        }
        replica && !self.recent.knows(session_key, now)
    }
}

/// An attempt to prove that the replica does not lag; over when this goes, whatever the reason.
struct Attempt {
    proof: Arc<Proof>,
    outcome: Result<Instant, Reason>,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("it was not asked to the end")]
    Interrupted,
    #[error("it lags, or does not answer")]
    Lags,
    #[error("it does not follow this primary")]
    OtherLog,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Attempt {
    fn begin(proof: &Arc<Proof>) -> Self {
        Self { proof: Arc::clone(proof), outcome: Err(Reason::Interrupted) }
    }

    async fn run(mut self, primary: SqlStore, replica: SqlStore) {
        let begun = Instant::now();
        let limit = self.proof.limit();
        let proved = tokio::time::timeout(limit / 2, prove(&primary, &replica, limit / 256)).await;
        self.outcome = proved.unwrap_or(Err(Reason::Lags)).map(|()| begun);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let is_news = self.proof.attempted(self.outcome.as_ref().ok().copied());
        match &self.outcome {
            Err(reason) if is_news => tracing::warn!(
                target: "django_session",
                reason = reason as &(dyn std::error::Error + 'static),
                "the replica may be too old, so the primary answers"
            ),
            Ok(_) if is_news => {
                tracing::info!(target: "django_session", "the replica answers again");
            }
            _ => {}
        }
    }
}

/// Waits until the replica has all that the primary has when it is asked.
async fn prove(primary: &SqlStore, replica: &SqlStore, mut pause: Duration) -> Result<(), Reason> {
    let wanted = primary.log_position().await?;
    loop {
        let found = replica.log_position().await?;
        if found.includes(&wanted) {
            return Ok(());
        }
        if !found.follows(&wanted) {
            return Err(Reason::OtherLog);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
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
        if self.may_read_replica(session_key) {
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

    async fn cycle_key(
        &self,
        session_key: &SessionKey,
        record: &SessionRecord,
    ) -> Result<Saved, StoreError> {
        // Only this process knows the new key, and it writes to the primary under it.
        let cycled = written!(self, session_key, self.primary.cycle_key(session_key, record));
        self.recent.note(&record.session_key, Instant::now());
        cycled
    }

    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        self.primary.clear_expired(now).await
    }

    async fn close(&self) {
        self.primary.close().await;
        self.replica.close().await;
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
