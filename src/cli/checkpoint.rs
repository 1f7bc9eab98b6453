//! Which parts of a store are done, in a file that another run goes on from.
//!
//! It says no more than what has been carried out wholly; what was under way is done again, which changes
//! nothing. The file is replaced in one step, and holds neither keys nor addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::CliError;
use super::rejects::{Reasons, merge};
use crate::store::bulk::Part;

/// How often the file is written at most.
const SAVED: Duration = Duration::from_secs(1);

/// The state of a walk.
#[derive(Debug)]
pub(super) struct Checkpoint {
    path: Option<PathBuf>,
    /// What the walk is, so that nobody goes on with another one.
    subject: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    parts: Vec<PartState>,
    /// What a run before this one has left.
    left: Option<Vec<Part>>,
    /// What it has rejected.
    rejected: Reasons,
    saved: Option<Instant>,
}

#[derive(Debug)]
struct PartState {
    /// What is left of it, none if nothing is.
    left: Option<Part>,
    /// How many batches it had, once all of it has been read.
    batches: Option<u64>,
    done: BTreeSet<u64>,
    /// Up to which number all are done.
    passed: u64,
    rests: BTreeMap<u64, Part>,
    /// What was rejected: in what is not left any more, in batches after it, and in those that are done before
    /// their turn. Batches of the latter two may be worked on again, and are counted then.
    rejected: Reasons,
    rejected_since: Reasons,
    rejected_ahead: BTreeMap<u64, Reasons>,
}

/// The file.
#[derive(Deserialize, Serialize)]
struct Saved {
    django_session_checkpoint: u8,
    subject: String,
    left: Vec<String>,
    /// By reason; nothing is known of it in files of before.
    #[serde(default, skip_serializing_if = "Reasons::is_empty")]
    rejected: Reasons,
}

impl Checkpoint {
    /// One that is nowhere noted.
    pub(super) fn unsaved() -> Self {
        Self { path: None, subject: String::new(), state: Mutex::default() }
    }

    /// The checkpoint in a file, which is gone on from if it is there.
    ///
    /// # Errors
    ///
    /// If the file is of another walk, or is none.
    pub(super) fn open(path: &Path, subject: String) -> Result<Self, CliError> {
        let what = "the checkpoint";
        let mut rejected = Reasons::new();
        let left = match fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(CliError::Input { what, source }),
            Ok(bytes) => {
                let saved: Saved =
                    serde_json::from_slice(&bytes).map_err(|_| CliError::Checkpoint)?;
                if saved.django_session_checkpoint != 1 || saved.subject != subject {
                    return Err(CliError::Checkpoint);
                }
                rejected = saved.rejected;
                let parts = saved.left.iter().map(|text| text.parse::<Part>());
                Some(parts.collect::<Result<_, _>>().map_err(|_| CliError::Checkpoint)?)
            }
        };
        let state = State { left, rejected, ..State::default() };
        Ok(Self { path: Some(path.to_owned()), subject, state: Mutex::new(state) })
    }

    /// Whether another run has begun.
    pub(super) fn is_resumed(&self) -> bool {
        self.state().left.is_some()
    }

    /// What that run has rejected, none if there was none.
    pub(super) fn rejected(&self) -> Option<Reasons> {
        let state = self.state();
        state.left.is_some().then(|| state.rejected.clone())
    }

    /// The parts that are to be read.
    pub(super) fn begin(&self, parts: Vec<Part>) -> Vec<Part> {
        let mut state = self.state();
        let parts = state.left.clone().unwrap_or(parts);
        state.parts = parts
            .iter()
            .map(|part| PartState {
                left: Some(part.clone()),
                batches: None,
                done: BTreeSet::new(),
                passed: 0,
                rests: BTreeMap::new(),
                rejected: Reasons::new(),
                rejected_since: Reasons::new(),
                rejected_ahead: BTreeMap::new(),
            })
            .collect();
        parts
    }

    /// A part has been read to its end, and so many batches are on their way or worked on.
    pub(super) fn read(&self, part: usize, batches: u64) {
        if let Some(part) = self.state().parts.get_mut(part) {
            part.batches = Some(batches);
        }
    }

    /// A batch has been worked on, with so many rejected.
    pub(super) fn done(
        &self,
        part: usize,
        number: u64,
        rest: Option<Part>,
        rejected: Reasons,
    ) -> Result<(), CliError> {
        let mut state = self.state();
        if let Some(part) = state.parts.get_mut(part) {
            part.done.insert(number);
            part.rejected_ahead.insert(number, rejected);
            if let Some(rest) = rest {
                part.rests.insert(number, rest);
            }
            while part.done.remove(&(part.passed + 1)) {
                part.passed += 1;
                if let Some(rejected) = part.rejected_ahead.remove(&part.passed) {
                    merge(&mut part.rejected_since, &rejected);
                }
                if let Some(rest) = part.rests.remove(&part.passed) {
                    part.left = Some(rest);
                    merge(&mut part.rejected, &std::mem::take(&mut part.rejected_since));
                }
            }
        }
        if self.path.is_some() && state.saved.is_none_or(|saved| saved.elapsed() > SAVED) {
            self.write(&mut state)?;
        }
        Ok(())
    }

    /// Writes the file.
    pub(super) fn save(&self) -> Result<(), CliError> {
        self.write(&mut self.state())
    }

    /// Nothing is left: the file goes.
    pub(super) fn finish(&self) -> Result<(), CliError> {
        match &self.path {
            None => Ok(()),
            Some(path) => match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(CliError::State(error))
                }
                _ => Ok(()),
            },
        }
    }

    fn write(&self, state: &mut State) -> Result<(), CliError> {
        let Some(path) = &self.path else { return Ok(()) };
        let left = state.parts.iter().filter(|part| !part.is_done());
        let mut rejected = state.rejected.clone();
        for part in &state.parts {
            merge(&mut rejected, &part.rejected);
            if part.is_done() {
                merge(&mut rejected, &part.rejected_since);
            }
        }
        let saved = Saved {
            django_session_checkpoint: 1,
            subject: self.subject.clone(),
            left: left.filter_map(|part| part.left.as_ref().map(ToString::to_string)).collect(),
            rejected,
        };
        let mut name = path.clone().into_os_string();
        name.push(".new");
        let written = || {
            let mut file = File::create(&name)?;
            file.write_all(&serde_json::to_vec(&saved)?)?;
            file.sync_all()?;
            fs::rename(&name, path)
        };
        written().map_err(CliError::State)?;
        state.saved = Some(Instant::now());
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartState {
    fn is_done(&self) -> bool {
        self.batches == Some(self.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::{Checkpoint, Reasons};
    use crate::store::bulk::Part;

    fn of(number: u64) -> Reasons {
        Reasons::from([("bad".to_owned(), number)])
    }

    #[test]
    fn what_is_worked_on_again_is_not_counted_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        let open = || Checkpoint::open(&path, "it".to_owned()).unwrap();
        let counted = || open().rejected().unwrap().get("bad").copied();
        let checkpoint = open();
        assert_eq!(checkpoint.rejected(), None);
        checkpoint.begin(vec![Part::Whole]);
        let (rest, bad) = (Some(Part::Whole), of(1));
        // The first one is not done, so the second one will be done again.
        checkpoint.done(0, 2, None, of(10)).unwrap();
        checkpoint.save().unwrap();
        assert_eq!(counted(), None);
        checkpoint.done(0, 1, rest, bad).unwrap();
        checkpoint.save().unwrap();
        assert_eq!(counted(), Some(1));
        checkpoint.read(0, 2);
        checkpoint.save().unwrap();
        assert_eq!(counted(), Some(11));
        // The next run adds to it.
        let checkpoint = open();
        checkpoint.begin(vec![]);
        checkpoint.save().unwrap();
        assert_eq!(counted(), Some(11));
    }
}
