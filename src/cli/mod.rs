//! The command `django-session`: looks into stored sessions and cookies, and writes them.
//!
//! [`main`] parses the arguments, runs one subcommand and turns what went wrong into an exit code. Keys
//! come from the environment, files or a prompt, never from arguments, which other users of the machine
//! and the history of the shell see. `docs/command.md` is its manual.
#![cfg_attr(doc, doc = include_str!("../../docs/command.md"))]
#![expect(clippy::doc_markdown, reason = "some of it is help text, where backticks would show")]

/// The codes that [`CliError::exit_code`] gives, as every help text lists them.
macro_rules! exit_codes {
    () => {
        "\
Exit status:
  0  it worked
  1  reading the input or writing the output failed
  2  the arguments are wrong
  3  there is no usable key, or the settings cannot be used
  4  the value cannot be decoded; the reason is on standard error
  5  the session cannot be encoded
  6  the store cannot be reached, or failed
  7  it worked, but for some sessions; which and why is in the report
  8  it was stopped on the way, and can be gone on with"
    };
}

mod archive;
mod checkpoint;
mod clear_expired;
mod copy;
mod decode;
mod doctor;
mod document;
mod encode;
mod error;
mod handle;
mod input;
mod keys;
mod list;
mod migrate;
mod objects;
mod output;
mod progress;
mod rejects;
mod replicas;
mod revoke;
mod rotate;
mod select;
mod show;
mod site;
mod stats;
mod tagged;
mod work;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ColorChoice, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use self::error::CliError;
use self::output::Output;

/// Look into Django sessions, clean them up, change their key, move them
///
/// Reads what a Django site has stored in session_data, in a file of the file engine, or in a signed session
/// cookie: every form since Django 1.0, JSON and pickle, checked against the site's SECRET_KEY. Nothing in
/// a session is ever executed.
#[derive(Debug, Parser)]
#[command(name = "django-session", version, max_term_width = 100, after_long_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// When to use colours; without a terminal and with NO_COLOR set there are none
    #[arg(long, global = true, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what is in a stored session or session cookie
    Decode(Box<decode::Arguments>),
    /// Write a session as Django stores it
    Encode(Box<encode::Arguments>),
    /// Count the sessions of a store: live and expired, of whom, how old and how large
    Stats(Box<stats::Arguments>),
    /// Show what is in one session of a store
    Show(Box<show::Arguments>),
    /// List the sessions of a store: whose they are, how old, how large
    List(Box<list::Arguments>),
    /// Delete sessions: one, all of a user, all but one, all signed under an old key, all older than a time
    Revoke(Box<revoke::Arguments>),
    /// Delete sessions that have expired, in small steps
    ClearExpired(Box<clear_expired::Arguments>),
    /// Say what is wrong with the settings and the store, and how to put it right
    Doctor(Box<doctor::Arguments>),
    /// Copy the sessions of a store into another one
    Migrate(Box<migrate::Arguments>),
    /// Write the sessions of a store into a compressed archive
    Export(Box<archive::ExportArguments>),
    /// Add the sessions of an archive to a store
    Import(Box<archive::ImportArguments>),
    /// Sign every session with SECRET_KEY that one of SECRET_KEY_FALLBACKS signed, and renew its login
    Rotate(Box<rotate::Arguments>),
    /// Write every session in the form and by the serializer of the settings
    Convert(Box<rotate::ConvertArguments>),
    /// Print completions for a shell
    #[command(after_long_help = "\
Examples:
  $ source <(django-session completions bash)
  $ django-session completions zsh > ~/.zfunc/_django-session
  $ django-session completions fish | source")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write that of each command into a directory
    #[command(after_long_help = "\
Examples:
  $ django-session man | man -l -
  $ django-session man /usr/local/share/man/man1")]
    Man {
        /// The directory, which must be there
        directory: Option<PathBuf>,
    },
}

const AFTER_HELP: &str = concat!(
    "\
Keys:
  SECRET_KEY is taken from the first of these that has one: --secret-key-file,
  the file that --settings names, the environment variable SECRET_KEY (with
  SECRET_KEY_FALLBACKS, a JSON list), a prompt on the terminal. It is never an
  argument: other users and the history of the shell see those.

Examples:
  $ psql -Atc \"select session_data from django_session limit 1\" |
      SECRET_KEY=… django-session decode
  $ django-session decode --cookie --settings settings.json cookie.txt
  $ django-session decode --json row.txt | jq .data

",
    exit_codes!()
);

/// Runs the command with the arguments and streams of this process.
pub fn main() -> ExitCode {
    main_from(std::env::args_os()).into()
}

/// As [`main`], with other arguments, the first of which is the name of the program; returns the exit code.
pub fn main_from(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let error = without_value(error);
            // Help that was asked for goes to standard output; a closed pipe is no failure.
            let _ = error.print();
            return if error.use_stderr() { CliError::USAGE } else { 0 };
        }
    };
    let mut output = Output::new(arguments.color);
    let result = match arguments.command {
        Command::Decode(arguments) => arguments.run(&mut output),
        Command::Encode(arguments) => arguments.run(&mut output),
        Command::ClearExpired(arguments) => run(arguments.run(&mut output)),
        Command::List(arguments) => run(arguments.run(&mut output)),
        Command::Revoke(arguments) => run(arguments.run(&mut output)),
        Command::Show(arguments) => run(arguments.run(&mut output)),
        Command::Export(arguments) => run(arguments.run(&mut output)),
        Command::Import(arguments) => run(arguments.run(&mut output)),
        Command::Doctor(arguments) => run(arguments.run(&mut output)),
        Command::Migrate(arguments) => run(arguments.run(&mut output)),
        Command::Rotate(arguments) => run(arguments.run(&mut output)),
        Command::Convert(arguments) => run(arguments.run(&mut output)),
        Command::Stats(arguments) => run(arguments.run(&mut output)),
        Command::Completions { shell } => completions(shell, &mut output),
        Command::Man { directory } => manual(directory.as_deref(), &mut output),
    };
    let result = result.and_then(|()| output.flush());
    match result {
        Ok(()) => 0,
        // Whoever read has read enough. What has more to tell than its output writes a report.
        Err(error) if error.is_broken_pipe() => 0,
        Err(error) => {
            // What was found has been said.
            if !matches!(error, CliError::Findings { .. }) {
                output.error(&error);
            }
            error.exit_code()
        }
    }
}

/// Waits for what a command does, on threads of its own.
fn run(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(CliError::Runtime)?;
    let result = runtime.block_on(command);
    // A connection that hangs keeps nobody from leaving.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

/// The error without a repetition of what may be a key or a cookie that was given in a wrong place.
fn without_value(error: clap::Error) -> clap::Error {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.as_str(),
        _ => "",
    };
    let message = match error.kind() {
        ErrorKind::InvalidSubcommand => "there is no such subcommand; --help lists them",
        ErrorKind::UnknownArgument if argument == "--secret-key" => {
            "a key must not be an argument, where other users and the history of the shell see it: use \
             the environment variable SECRET_KEY, or --secret-key-file"
        }
        ErrorKind::UnknownArgument if !argument.starts_with("--") => {
            "there is an argument too many; the value goes to standard input or is in one file"
        }
        _ => return error,
    };
    Arguments::command().error(error.kind(), message)
}

fn completions(shell: Shell, output: &mut Output) -> Result<(), CliError> {
    // The generator panics where writing fails, so it writes to memory.
    let mut script = Vec::new();
    let mut command = Arguments::command();
    clap_complete::generate(shell, &mut command, "django-session", &mut script);
    output.stdout().write_all(&script).map_err(CliError::Output)
}

fn manual(directory: Option<&Path>, output: &mut Output) -> Result<(), CliError> {
    // What the terminal of whoever writes the pages has room for is not that of who reads them.
    let command = Arguments::command().term_width(0);
    if let Some(directory) = directory {
        return clap_mangen::generate_to(command, directory).map_err(CliError::Output);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(CliError::Output)?;
    output.stdout().write_all(&page).map_err(CliError::Output)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        super::Arguments::command().debug_assert();
    }
}
