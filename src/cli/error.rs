//! What can go wrong in the command, and the exit code that says so.

use std::error::Error;
use std::io;

use crate::codec::{Diagnosis, EncodeError};
use crate::session::{SettingsError, StoreError};
use crate::store::ConnectError;

/// Why a subcommand failed. No message repeats a key, the value or any part of a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The archive cannot be read.
    #[error("the archive cannot be read: {0}")]
    Archive(&'static str),
    /// The file of a checkpoint is not that of this command.
    #[error(
        "the checkpoint is of another command or of other stores, or is none; go on with the same \
         arguments, or remove the file to begin anew"
    )]
    Checkpoint,
    /// There is no store at the address.
    #[error("{}", with_source(.0))]
    Connect(#[from] ConnectError),
    /// A cookie stands where others see it.
    #[error(
        "a cookie must not be an argument, where other users and the history of the shell see it: give \
         it on standard input to --cookie -, or as a file to --cookie-file"
    )]
    CookieArgument,
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
    /// `doctor` has found something, and has said so.
    #[error("something was found")]
    Findings {
        /// Or warnings only.
        errors: bool,
    },
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
    /// Nothing says where the sessions are.
    #[error("there is no store: give its address by --{name}, or set {variable}")]
    NoStore {
        /// The option.
        name: &'static str,
        /// The environment variable.
        variable: &'static str,
    },
    /// There is no session of this handle or key.
    #[error("there is no such session")]
    NoSession,
    /// Nothing says which sessions are to end, or everything and something else too.
    #[error(
        "which sessions? name a user, a handle, an age or a key, or give --all and nothing else; \
         --except goes with any of them"
    )]
    NothingSelected,
    /// An option is not for such a store.
    #[error("{0} are for stores whose sessions can be listed: databases, Redis and files")]
    NotThere(&'static str),
    /// An option asks for what only signatures tell.
    #[error(
        "{0} are for stores whose sessions are signed, databases and files: a cache does not note when \
         a session was saved, nor a key"
    )]
    NotSigned(&'static str),
    /// Nothing says where the users are.
    #[error(
        "the users are not where the sessions are: give the address of their database by --users or \
         USERS_DATABASE_URL, or leave their logins alone by --without-users"
    )]
    NoUsers,
    /// Something would be changed for good, and nobody has said that it is meant.
    #[error("{what}; look first with --dry-run, and give --yes if that is meant")]
    NotConfirmed {
        /// What would be done.
        what: String,
    },
    /// A program that is given a password as an argument shows it to everybody on the machine.
    #[error(
        "the address of --{name} holds a password, and other users of the machine see arguments: use \
         the environment variable {variable}, or --{name}-file"
    )]
    PasswordInArgument {
        /// The option.
        name: &'static str,
        /// The environment variable.
        variable: &'static str,
    },
    /// A part of the command gave up; a defect of it.
    #[error("the command failed in a way that it should not; nothing that was reported is wrong")]
    Panicked,
    /// A part of what was asked for could not be done.
    #[error("{0}")]
    Partial(String),
    /// A file with the state of the command, or with what it rejects, cannot be written.
    #[error("the state of the command cannot be written: {0}")]
    State(#[source] io::Error),
    /// There are no threads to be had.
    #[error("no threads can be started: {0}")]
    Runtime(#[source] io::Error),
    /// The source is the target.
    #[error("the two addresses lead to the same store")]
    SameStore,
    /// It was stopped on the way.
    #[error("stopped; {0}")]
    Stopped(&'static str),
    /// A value of a cache is no session.
    #[error("the stored value cannot be read: {0}")]
    Unreadable(String),
    /// The store failed.
    #[error("{}", with_source(.0))]
    Store(#[from] StoreError),
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Output(#[source] io::Error),
    /// Settings from a file or the environment cannot be used.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// An archive cannot be written. What there was of it is gone.
    #[error("the archive cannot be written: {0}")]
    WriteArchive(#[source] io::Error),
}

impl CliError {
    /// The exit code for wrong arguments, which clap reports.
    pub(super) const USAGE: u8 = 2;

    /// As the help of the command lists them.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Archive(_)
            | Self::Input { .. }
            | Self::InputTooLong { .. }
            | Self::Output(_)
            | Self::Panicked
            | Self::Runtime(_)
            | Self::State(_)
            | Self::WriteArchive(_)
            | Self::TooLong => 1,
            Self::Findings { errors } => 1 + u8::from(*errors),
            Self::Checkpoint
            | Self::CookieArgument
            | Self::NoStore { .. }
            | Self::NotThere(_)
            | Self::NotSigned(_)
            | Self::NothingSelected
            | Self::NoUsers
            | Self::SameStore
            | Self::NotConfirmed { .. }
            | Self::PasswordInArgument { .. } => Self::USAGE,
            Self::Connect(_) | Self::Store(_) => 6,
            Self::Partial(_) => 7,
            Self::Stopped(_) => 8,
            Self::Key(_) | Self::Settings(_) => 3,
            Self::Decode(_) | Self::NoSession | Self::Unreadable(_) => 4,
            Self::Carry { .. } | Self::Encode(_) | Self::NotASession(_) => 5,
        }
    }

    /// Whether the reader of the output has gone away.
    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// An error and what is behind it. Those of stores name no values.
fn with_source(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
