//! Some sessions on their way from a reader to whoever works on them.

use tokio::sync::mpsc;

use super::{Part, StoredSession};

/// How many sessions and bytes travel together at most, and how many such batches wait. It bounds the
/// memory: no more than a few megabytes, unless one session alone is larger.
const SESSIONS: usize = 1000;
const BYTES: usize = 512 * 1024;
const WAITING: usize = 4;

/// Sessions of one part.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) sessions: Vec<StoredSession>,
    /// Which part they are of, as the caller counts.
    pub(crate) part: usize,
    /// The how many-th batch of it they are, from one on.
    pub(crate) number: u64,
    /// What of the part is left after them, if that can be said before its end.
    pub(crate) rest: Option<Part>,
}

/// Where a reader puts what it has read.
pub(crate) struct Sink {
    sender: mpsc::Sender<Batch>,
    sessions: Vec<StoredSession>,
    bytes: usize,
    part: usize,
    sent: u64,
}

/// Where whoever works on them gets them.
pub(crate) type Batches = mpsc::Receiver<Batch>;

impl Sink {
    /// A way for batches. There may be several readers at its beginning: clone it.
    pub(crate) fn new() -> (Self, Batches) {
        let (sender, batches) = mpsc::channel(WAITING);
        (Self { sender, sessions: Vec::new(), bytes: 0, part: 0, sent: 0 }, batches)
    }

    /// The same way for another part.
    pub(crate) fn for_part(&self, part: usize) -> Self {
        Self { sender: self.sender.clone(), sessions: Vec::new(), bytes: 0, part, sent: 0 }
    }

    /// How many batches of the part there have been.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Adds a session; false if nobody is there any more.
    pub(crate) async fn push(&mut self, session: StoredSession) -> bool {
        self.bytes += session.value.len() + session.session_key.len();
        self.sessions.push(session);
        if self.sessions.len() < SESSIONS && self.bytes < BYTES {
            return true;
        }
        self.flush(None).await
    }

    /// Sends what there is; `rest` is what is left of the part after it.
    pub(crate) async fn flush(&mut self, rest: Option<Part>) -> bool {
        if self.sessions.is_empty() && rest.is_none() {
            return !self.sender.is_closed();
        }
        let sessions = std::mem::take(&mut self.sessions);
        self.bytes = 0;
        self.sent += 1;
        let batch = Batch { sessions, part: self.part, number: self.sent, rest };
        self.sender.send(batch).await.is_ok()
    }
}
