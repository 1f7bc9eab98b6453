//! `django-session encode`: a session as Django stores it.

use jiff::Timestamp;

use super::decode::{parse_format, parse_serializer};
use super::document::{self, Given};
use super::error::CliError;
use super::input::InputArguments;
use super::keys::KeyArguments;
use super::output::Output;
use super::tagged;
use crate::codec::{
    Compression, DEFAULT_MAX_SIZE, DecodeError, Format, Serializer, SessionData, pickle,
};

const AFTER_HELP: &str = concat!(
    "\
Examples:
  $ echo '{\"cart\": [\"tea\"]}' | SECRET_KEY=… django-session encode
  $ django-session decode --json row.txt | jq '.data.cart = []' |
      django-session encode
  $ django-session encode --format legacy --serializer pickle session.json

",
    exit_codes!()
);

/// The heading of the options that say how it is written.
const WRITTEN: &str = "What is written";

/// Write a session as Django stores it
///
/// The input is a JSON object, the session; or a document of `decode --json`, whose form, serializer, salt
/// and time are kept, so that both commands undo each other. The output is what belongs into session_data,
/// or into the cookie of the signed_cookies engine.
///
/// Documents of pickled sessions carry dates, decimals, sets and the like. Objects of the site's own
/// classes they only describe: a document with such an object is refused.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    input: InputArguments,
    #[command(flatten)]
    keys: KeyArguments,
    /// The form to write: antique, legacy, signed, signed_sha1
    ///
    /// If it is missing, that of the document, or else that of the settings.
    /// Django 3.1 and later read "signed". The others are weaker, for sites that read nothing else.
    #[arg(long, value_name = "FORM", value_parser = parse_format, help_heading = WRITTEN)]
    format: Option<Format>,
    /// The serializer: json, pickle
    ///
    /// If it is missing, that of the document, or else that of the settings.
    #[arg(long, value_name = "SERIALIZER", value_parser = parse_serializer, help_heading = WRITTEN)]
    serializer: Option<Serializer>,
    /// The protocol of a pickle, 2 to 5; Python 2 reads 2
    ///
    /// If it is missing, that of the document, or else 4.
    #[arg(
        long,
        help_heading = WRITTEN,
        value_name = "PROTOCOL",
        value_parser = clap::value_parser!(u8).range(2..=i64::from(pickle::HIGHEST_PROTOCOL))
    )]
    pickle_protocol: Option<u8>,
    /// How short to make it: fast, small
    #[arg(long, value_name = "HOW", value_parser = parse_compression, help_heading = WRITTEN)]
    compression: Option<Compression>,
    /// The time to sign, in Unix seconds, or "now"
    ///
    /// If it is missing, that of the document, or else now.
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = parse_time,
        allow_negative_numbers = true,
        help_heading = WRITTEN
    )]
    now: Option<Time>,
}

/// A time to sign.
#[derive(Clone, Copy, Debug)]
enum Time {
    Now,
    Seconds(i64),
}

fn parse_time(text: &str) -> Result<Time, &'static str> {
    match text {
        "now" => Ok(Time::Now),
        _ => text.parse().map(Time::Seconds).map_err(|_| "a whole number of seconds, or now"),
    }
}

fn parse_compression(name: &str) -> Result<Compression, &'static str> {
    match name {
        "fast" => Ok(Compression::Fast),
        "small" => Ok(Compression::Small),
        _ => Err("fast or small"),
    }
}

impl Arguments {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let mut settings = self.keys.settings()?;
        let given = document::read(&self.input.read(DEFAULT_MAX_SIZE)?)?;
        if let (None, Some(salt)) = (&self.keys.salt, &given.salt) {
            settings.salt.clone_from(salt);
        }
        let protocol =
            self.pickle_protocol.or(given.pickle_protocol).unwrap_or(pickle::DEFAULT_PROTOCOL);
        let data = session(&given, protocol)?;
        let now = match (self.now, given.signed_at) {
            (Some(Time::Seconds(seconds)), _) | (None, Some(seconds)) => seconds,
            (Some(Time::Now), _) | (None, None) => Timestamp::now().as_second(),
        };
        let mut codec = settings
            .codec()?
            .with_pickle_protocol(protocol)
            .with_format(self.format.or(given.format).unwrap_or(settings.format))
            .with_serializer(self.serializer.or(given.serializer).unwrap_or(settings.serializer))
            .with_compression(self.compression.unwrap_or(settings.compression));
        if let Some(salt) = &self.keys.legacy_salt {
            codec = codec.with_legacy_salt(salt);
        }
        let mut stored = codec.encode(&data, now).map_err(CliError::Encode)?;
        stored.push('\n');
        output.write(&stored)
    }
}

/// The session that the input describes.
fn session(given: &Given, protocol: u8) -> Result<SessionData, CliError> {
    const NOT_AN_OBJECT: CliError = CliError::NotASession("its data is not an object");
    if given.is_document && given.serializer == Some(Serializer::Pickle) {
        // Before protocol 2 there is nothing that is written.
        let graph = tagged::read(&given.data, protocol.clamp(2, pickle::HIGHEST_PROTOCOL))?;
        return SessionData::from_graph(graph).map_err(|error| match error {
            DecodeError::NotAnObject { .. } => NOT_AN_OBJECT,
            _ => CliError::NotASession("its data is no session"),
        });
    }
    SessionData::from_json(&given.data).map_err(|_| NOT_AN_OBJECT)
}
