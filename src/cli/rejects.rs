//! What could not be done, with the reason: counted, and written to a file if somebody wants it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::error::CliError;
use super::handle::handle;
use crate::store::bulk::StoredSession;

/// How many sessions, by what is wrong with them.
pub(super) type Reasons = BTreeMap<String, u64>;

tokio::task_local! {
    /// What is noted while a batch is worked on.
    static OF_BATCH: RefCell<Reasons>;
}

/// Does something, and tells what was noted meanwhile.
pub(super) async fn counted<T>(work: impl Future<Output = T>) -> (T, Reasons) {
    let counted = async move {
        let done = work.await;
        (done, OF_BATCH.with(RefCell::take))
    };
    OF_BATCH.scope(RefCell::default(), counted).await
}

/// Adds what was noted elsewhere.
pub(super) fn merge(reasons: &mut Reasons, more: &Reasons) {
    for (reason, number) in more {
        *reasons.entry(reason.clone()).or_default() += number;
    }
}

/// Sessions that a command passed over.
#[derive(Debug)]
pub(super) struct Rejects(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Without a buffer, so that a checkpoint is never ahead of it.
    file: Option<File>,
    reasons: Reasons,
}

impl Rejects {
    /// Writes them to this file, after what another run has written and counted if that is gone on with.
    pub(super) fn new(path: Option<&Path>, resumed: Option<Reasons>) -> Result<Self, CliError> {
        let open = |path| {
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            if resumed.is_none() {
                file.set_len(0)?;
            }
            Ok(file)
        };
        let file = path.map(open).transpose().map_err(CliError::State)?;
        let reasons = resumed.unwrap_or_default();
        Ok(Self(Mutex::new(State { file, reasons })))
    }

    /// Forgets them, before everything is looked at again.
    pub(super) fn begin(&self) -> Result<(), CliError> {
        let mut state = self.state();
        state.reasons.clear();
        state.file.as_ref().map_or(Ok(()), |file| file.set_len(0)).map_err(CliError::State)
    }

    /// Notes one. Neither its key nor anything that is in it is written.
    pub(super) fn add(
        &self,
        session: &StoredSession,
        reason: &dyn Display,
    ) -> Result<(), CliError> {
        let reason = reason.to_string();
        let mut state = self.state();
        if let Some(file) = &mut state.file {
            let line = json!({
                "session": handle(&session.session_key),
                "bytes": session.value.len(),
                "reason": reason,
            });
            file.write_all(format!("{line}\n").as_bytes()).map_err(CliError::State)?;
        }
        // Some have no batches.
        let _ = OF_BATCH.try_with(|it| *it.borrow_mut().entry(reason.clone()).or_default() += 1);
        *state.reasons.entry(reason).or_default() += 1;
        Ok(())
    }

    pub(super) fn reasons(&self) -> Reasons {
        self.state().reasons.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
