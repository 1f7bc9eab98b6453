//! What can go wrong in the command, and the exit code that says so.

use std::io;

use thiserror::Error;

use crate::codec::{Diagnosis, EncodeError};
use crate::session::SettingsError;

/// Why a subcommand failed. No message repeats a key, the value or any part of a session.
#[derive(Debug, Error)]
pub(super) enum CliError {
    /// The value is no session for these keys.
    #[error("{0}")]
    Decode(Diagnosis),
    /// A document holds a Python object that only Python can make.
    #[error("{what} cannot be carried by JSON: change such sessions in Python")]
    Carry {
        /// What it is.
        what: &'static str,
    },
    /// The session has no stored form.
    #[error("{0}")]
    Encode(#[source] EncodeError),
    /// What was given to `encode` is no session.
    #[error("the input is not a session: {0}")]
    NotASession(&'static str),
    /// The session is shown in more text than anybody can read.
    #[error("the session is too long to be shown whole: leave out --json or --full")]
    TooLong,
    /// A file or standard input cannot be read.
    #[error("{what} cannot be read: {source}")]
    Input {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There is more input than any session has.
    #[error("the input is longer than {limit} bytes: no session is, unless --max-size says so")]
    InputTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A file with a key holds none.
    #[error("{0}")]
    Key(&'static str),
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Output(#[source] io::Error),
    /// Settings from a file or the environment cannot be used.
    #[error("{0}")]
    Settings(#[from] SettingsError),
}

impl CliError {
    /// The exit code for wrong arguments, which clap reports.
    pub(super) const USAGE: u8 = 2;

    /// As the help of the command lists them.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Input { .. } | Self::InputTooLong { .. } | Self::Output(_) | Self::TooLong => 1,
            Self::Key(_) | Self::Settings(_) => 3,
            Self::Decode(_) => 4,
            Self::Carry { .. } | Self::Encode(_) | Self::NotASession(_) => 5,
        }
    }

    /// Whether the reader of the output has gone away.
    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
