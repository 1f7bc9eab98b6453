//! How current a replica is known to be.
//!
//! A proof says that the replica has, by now, all that the primary had at a moment of the past. From then on
//! nothing it shows is older than that moment, because a replica never goes back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The last proof, and when there is to be another one.
#[derive(Debug)]
pub(super) struct Proof {
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The moment that the replica is not behind of.
    current: Option<Instant>,
    /// When the last attempt began.
    tried: Option<Instant>,
    is_trying: bool,
    /// Whether the last attempt failed, so that it need not be said again.
    has_failed: bool,
}

/// What is to be done with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Whether the replica may answer.
    pub(super) replica: bool,
    /// Whether somebody should begin an attempt.
    pub(super) attempt: bool,
}

impl State {
    /// A replica answers with a proof that is not older than the limit. Another one is due when half of the
    /// limit has gone by; so often is it tried.
    fn decide(&self, now: Instant, limit: Duration) -> Decision {
        let age = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let is_due = |age: Option<Duration>| age.is_none_or(|age| age >= limit / 2);
        Decision {
            replica: age(self.current).is_some_and(|age| age < limit),
            attempt: !self.is_trying && is_due(age(self.current)) && is_due(age(self.tried)),
        }
    }
}

impl Proof {
    /// None yet; it is to be no older than `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// How old it may be.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// What is to be done with a read. Who is told to attempt a proof calls [`Proof::attempted`].
    pub(super) fn decide(&self, now: Instant) -> Decision {
        let mut state = self.state();
        let decision = state.decide(now, self.limit);
        if decision.attempt {
            (state.tried, state.is_trying) = (Some(now), true);
        }
        decision
    }

    /// Takes what came of an attempt, a moment that the replica is not behind of, and says whether that is
    /// another outcome than the last time.
    pub(super) fn attempted(&self, current: Option<Instant>) -> bool {
        let mut state = self.state();
        state.is_trying = false;
        state.current = state.current.max(current);
        let failed = current.is_none();
        std::mem::replace(&mut state.has_failed, failed) != failed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);
    const PRIMARY: Decision = Decision { replica: false, attempt: false };
    const REPLICA: Decision = Decision { replica: true, attempt: false };

    #[test]
    fn without_proof_the_primary_answers_and_one_asks() {
        let (proof, start) = (Proof::new(LIMIT), Instant::now());
        assert_eq!(proof.decide(start), Decision { attempt: true, ..PRIMARY });
        assert_eq!(proof.decide(start), PRIMARY);
        assert_eq!(proof.decide(start + 100 * SECOND), PRIMARY, "there is an attempt");
    }

    #[test]
    fn a_proof_is_good_until_it_is_too_old() {
        let (proof, start) = (Proof::new(LIMIT), Instant::now());
        proof.decide(start);
        proof.attempted(Some(start));
        assert_eq!(proof.decide(start + 4 * SECOND), REPLICA);
        assert_eq!(proof.decide(start + 5 * SECOND), Decision { attempt: true, ..REPLICA });
        assert_eq!(proof.decide(start + 9 * SECOND), REPLICA);
        assert_eq!(proof.decide(start + 10 * SECOND), PRIMARY);
        proof.attempted(Some(start + 5 * SECOND));
        assert_eq!(proof.decide(start + 10 * SECOND), Decision { attempt: true, ..REPLICA });
        assert_eq!(proof.decide(start + 14 * SECOND), REPLICA);
        assert_eq!(proof.decide(start + 15 * SECOND), PRIMARY);
    }

    #[test]
    fn a_failure_ends_no_proof_and_is_not_tried_again_at_once() {
        let (proof, start) = (Proof::new(LIMIT), Instant::now());
        proof.decide(start);
        assert!(!proof.attempted(Some(start)));
        assert!(proof.decide(start + 5 * SECOND).attempt);
        assert!(proof.attempted(None), "it is said once");
        assert_eq!(proof.decide(start + 9 * SECOND), REPLICA);
        assert_eq!(proof.decide(start + 10 * SECOND), Decision { attempt: true, ..PRIMARY });
        assert!(!proof.attempted(None));
        assert_eq!(proof.decide(start + 14 * SECOND), PRIMARY);
        assert_eq!(proof.decide(start + 15 * SECOND), Decision { attempt: true, ..PRIMARY });
        assert!(proof.attempted(Some(start + 15 * SECOND)));
        assert_eq!(proof.decide(start + 16 * SECOND), REPLICA);
    }

    #[test]
    fn an_older_proof_takes_nothing_back() {
        let (proof, start) = (Proof::new(LIMIT), Instant::now());
        proof.attempted(Some(start + SECOND));
        proof.attempted(Some(start));
        assert!(proof.decide(start + 10 * SECOND + SECOND / 2).replica);
    }

    #[test]
    fn no_time_at_all_is_always_the_primary() {
        let (proof, start) = (Proof::new(Duration::ZERO), Instant::now());
        proof.attempted(Some(start));
        assert!(!proof.decide(start).replica);
    }
}
