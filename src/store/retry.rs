//! When an operation is tried again by itself.

use std::time::{Duration, Instant};

/// What a failure means for another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A connection that was kept turned out to be broken, as all are after the server was restarted.
    Broken,
    /// The server rolled the operation back in favour of somebody else's.
    #[cfg_attr(not(feature = "_sql"), allow(dead_code, reason = "only databases do"))]
    RolledBack,
    /// Anything else. Another try would fail too, or has been waited for already.
    Final,
}

/// As many connections as a pool may have kept, and one.
const MAX_BROKEN: u32 = 16;
/// That a connection is broken shows at once, but for new ones to a server that is away.
const MAX_TIME: Duration = Duration::from_secs(5);
const MAX_ROLLED_BACK: u32 = 8;
/// The longest wait before the first try after a deadlock; it grows with their number.
const WAIT: Duration = Duration::from_millis(4);

/// The tries of one operation, which can be repeated without harm: a write of the same value, or of a
/// value in place of a certain other one.
#[derive(Debug)]
pub(super) struct Tries {
    broken: u32,
    rolled_back: u32,
    begun: Instant,
}

impl Default for Tries {
    fn default() -> Self {
        Self { broken: 0, rolled_back: 0, begun: Instant::now() }
    }
}

impl Tries {
    /// Whether there is to be another one; waits until it may begin.
    pub(super) async fn again(&mut self, failure: Failure) -> bool {
        match failure {
            Failure::Broken => {
                self.broken += 1;
                let is_in_time = self.broken == 1 || self.begun.elapsed() < MAX_TIME;
                self.broken <= MAX_BROKEN && is_in_time
            }
            Failure::RolledBack => {
                self.rolled_back += 1;
                if self.rolled_back > MAX_ROLLED_BACK {
                    return false;
                }
                tokio::time::sleep(random_part(WAIT * self.rolled_back)).await;
                true
            }
            Failure::Final => false,
        }
    }
}

/// Those who met each other once should not meet again at once.
fn random_part(limit: Duration) -> Duration {
    // Without randomness all wait alike, which still ends.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    limit.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tries_end() {
        for failure in [Failure::Broken, Failure::RolledBack, Failure::Final] {
            let mut tries = Tries::default();
            let mut count = 0;
            while tries.again(failure).await {
                count += 1;
            }
            assert_eq!(count == 0, failure == Failure::Final);
            assert!(count <= MAX_BROKEN.max(MAX_ROLLED_BACK), "{failure:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_tried_once_more() {
        let begun = Instant::now().checked_sub(MAX_TIME).unwrap();
        let mut tries = Tries { begun, ..Tries::default() };
        assert!(tries.again(Failure::Broken).await);
        assert!(!tries.again(Failure::Broken).await);
    }
}
