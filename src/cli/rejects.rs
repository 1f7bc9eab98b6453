//! What could not be done, with the reason: counted, and written to a file if somebody wants it.

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

/// Sessions that a command passed over.
#[derive(Debug)]
pub(super) struct Rejects(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Without a buffer, so that a checkpoint is never ahead of it.
    file: Option<File>,
    reasons: BTreeMap<String, u64>,
}

impl Rejects {
    /// Writes them to this file, after what another run has written if that is gone on with.
    pub(super) fn new(path: Option<&Path>, is_resumed: bool) -> Result<Self, CliError> {
        let open = |path| {
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            if !is_resumed {
                file.set_len(0)?;
            }
            Ok(file)
        };
        let file = path.map(open).transpose().map_err(CliError::State)?;
        Ok(Self(Mutex::new(State { file, reasons: BTreeMap::new() })))
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
        *state.reasons.entry(reason).or_default() += 1;
        Ok(())
    }

    pub(super) fn reasons(&self) -> BTreeMap<String, u64> {
        self.state().reasons.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
