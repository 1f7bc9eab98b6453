//! The value to decode or encode, from standard input or a file.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};

use super::error::CliError;

/// Where the value comes from.
#[derive(Debug, clap::Args)]
pub(super) struct InputArguments {
    /// A file that holds the value; standard input if it is missing or "-"
    file: Option<PathBuf>,
}

impl InputArguments {
    pub(super) fn standard_input() -> Self {
        Self { file: None }
    }

    /// Reads all of it, up to a limit in bytes.
    pub(super) fn read(&self, limit: usize) -> Result<Vec<u8>, CliError> {
        match &self.file {
            Some(path) if path != Path::new("-") => {
                // The name is not repeated: who mistakes the argument for the value gives a secret here.
                let what = "the file that is named (the value itself goes to standard input)";
                let file = File::open(path).map_err(|source| CliError::Input { what, source })?;
                read(file, what, limit)
            }
            _ => read_stdin(limit),
        }
    }
}

/// Reads all of standard input, up to a limit in bytes.
pub(super) fn read_stdin(limit: usize) -> Result<Vec<u8>, CliError> {
    let stdin = io::stdin().lock();
    if stdin.is_terminal() {
        // Terminals cut longer lines by themselves.
        let _ = writeln!(
            io::stderr(),
            "Paste the value, then press Enter and Ctrl-D. If it is longer than 4,000 characters, give \
             it as a file instead."
        );
    }
    read(stdin, "standard input", limit)
}

/// Reads all of it, up to a limit in bytes.
pub(super) fn read(
    source: impl Read,
    what: &'static str,
    limit: usize,
) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    source.take(most).read_to_end(&mut bytes).map_err(|source| CliError::Input { what, source })?;
    if bytes.len() > limit { Err(CliError::InputTooLong { limit }) } else { Ok(bytes) }
}
