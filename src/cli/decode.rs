//! `django-session decode`: what is in a stored session, or why that cannot be told.

use jiff::{SignedDuration, Timestamp};

use super::document::{self, Found};
use super::error::CliError;
use super::input::InputArguments;
use super::keys::KeyArguments;
use super::output::tree::{Tree, TreeLimits};
use super::output::{Output, Table, duration, grouped, repr, style, styled};
use crate::codec::graph::Graph;
use crate::codec::pickle::Limits;
use crate::codec::{
    DEFAULT_MAX_SIZE, DecodeError, Decoded, Diagnosis, Format, Hints, KeyMatch, MaxAge,
    SIGNED_COOKIES_SALT, Serializer, SessionCodec,
};
use crate::session::SessionSettings;

const AFTER_HELP: &str = concat!(
    "\
Examples:
  $ SECRET_KEY=… django-session decode row.txt
  $ psql -Atc \"select session_data from django_session limit 1\" |
      django-session decode --secret-key-file key.txt
  $ django-session decode --cookie --settings settings.json cookie.txt
  $ django-session decode --json row.txt | jq .data
  $ django-session decode --strict --accept legacy row.txt

Failure:
  The reason has a name that stays the same, such as wrong_key, wrong_salt,
  truncated or expired, and comes with what to try. With --json it is also
  written as {\"error\": {\"reason\": …}}.

",
    exit_codes!()
);

/// Show what is in a stored session or session cookie
///
/// The value is what the column session_data holds, a file of the file engine, or the value of a session
/// cookie of the signed_cookies engine. The signature is checked; then the session is shown with the form
/// it is in, the key that fits, when it was signed, and how it was serialized.
///
/// Since the session is only looked at, all forms and serializers that Django ever had are accepted here.
/// With --strict only those are that the site's own settings accept. Nothing in a pickle is executed:
/// objects of the site's classes are shown as their names, arguments and attributes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
#[expect(clippy::struct_excessive_bools, reason = "they are options")]
pub(super) struct Arguments {
    #[command(flatten)]
    input: InputArguments,
    #[command(flatten)]
    keys: KeyArguments,
    /// The value is a cookie of the signed_cookies engine
    ///
    /// It has that engine's salt, and is refused if it is older than SESSION_COOKIE_AGE, two weeks unless
    /// the settings say otherwise.
    #[arg(long, help_heading = "What is accepted")]
    cookie: bool,
    /// Refuse a value that was signed longer ago, or "none"
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = parse_max_age,
        help_heading = "What is accepted"
    )]
    max_age: Option<Age>,
    /// Take this as the present, in Unix seconds
    #[arg(
        long,
        value_name = "SECONDS",
        allow_negative_numbers = true,
        help_heading = "What is accepted"
    )]
    now: Option<i64>,
    /// Accept only what the site's settings accept
    #[arg(long, help_heading = "What is accepted")]
    strict: bool,
    /// With --strict, accept these forms too: antique, legacy, signed, signed_sha1
    #[arg(
        long,
        visible_alias = "format",
        value_name = "FORM",
        value_delimiter = ',',
        requires = "strict",
        value_parser = parse_format,
        help_heading = "What is accepted"
    )]
    accept: Vec<Format>,
    /// The site's serializer: json, pickle
    ///
    /// Without --strict the data itself tells which it was.
    #[arg(
        long,
        value_name = "SERIALIZER",
        value_parser = parse_serializer,
        help_heading = "What is accepted"
    )]
    serializer: Option<Serializer>,
    /// Refuse payloads that inflate to more
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = DEFAULT_MAX_SIZE,
        help_heading = "What is accepted"
    )]
    max_size: usize,
    /// If no key fits, also try this salt or this name of a store class
    #[arg(long, value_name = "SALT", help_heading = "What is accepted")]
    try_salt: Vec<String>,
    /// Write one JSON document, for programs
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Show long sessions and long texts to their end
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    full: bool,
}

/// An age that is accepted.
#[derive(Clone, Copy, Debug)]
enum Age {
    Any,
    Seconds(i64),
}

fn parse_max_age(text: &str) -> Result<Age, &'static str> {
    match text {
        "none" => Ok(Age::Any),
        _ => text.parse().map(Age::Seconds).map_err(|_| "a whole number of seconds, or none"),
    }
}

pub(super) fn parse_format(name: &str) -> Result<Format, &'static str> {
    Format::from_name(name).ok_or("one of antique, legacy, signed, signed_sha1")
}

pub(super) fn parse_serializer(name: &str) -> Result<Serializer, &'static str> {
    Serializer::from_name(name).ok_or("json or pickle")
}

impl Arguments {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let mut settings = self.keys.settings()?;
        if self.cookie && self.keys.salt.is_none() {
            SIGNED_COOKIES_SALT.clone_into(&mut settings.salt);
        }
        // Base64 takes a third more.
        let stored = self.input.read(self.max_size.saturating_add(self.max_size / 2 + 4096))?;
        let codec = self.codec(&settings)?;
        let now = match self.now {
            None => Timestamp::now(),
            Some(seconds) => Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX),
        };
        let limit = self.limit(&settings, now);
        // A line end after the value belongs to the file or the terminal.
        let text = std::str::from_utf8(&stored).map(str::trim).ok();
        match text.and_then(|text| self.open(&codec, text, limit).ok()) {
            Some(opened) => self.show(&opened, codec.salt(), now, output),
            None => self.explain(&codec, text.map_or(&*stored, str::as_bytes), limit, output),
        }
    }

    fn open(
        &self,
        codec: &SessionCodec,
        text: &str,
        limit: Option<MaxAge>,
    ) -> Result<Opened, DecodeError> {
        let decoded = match limit {
            None => codec.decode(text)?,
            Some(limit) => codec.decode_with_max_age(text, limit)?,
        };
        let payload = codec.decode_payload(text)?.payload;
        let graph = match decoded.serializer {
            Serializer::Pickle => {
                let limits = Limits::default().with_size(self.max_size);
                Some(Graph::from_pickle(&payload, &limits)?)
            }
            Serializer::Json => None,
        };
        Ok(Opened { decoded, stored_bytes: text.len(), payload_bytes: payload.len(), graph })
    }

    fn codec(&self, settings: &SessionSettings) -> Result<SessionCodec, CliError> {
        let mut codec = settings.codec()?.with_max_size(self.max_size).accept(self.accept.clone());
        if let Some(salt) = &self.keys.legacy_salt {
            codec = codec.with_legacy_salt(salt);
        }
        if let Some(serializer) = self.serializer {
            codec = codec.with_serializer(serializer);
        }
        if !self.strict {
            codec = codec
                .accept(Format::ALL)
                .accept_serializers([Serializer::Json, Serializer::Pickle]);
        }
        Ok(codec)
    }

    fn limit(&self, settings: &SessionSettings, now: Timestamp) -> Option<MaxAge> {
        let seconds = match self.max_age {
            Some(Age::Seconds(seconds)) => seconds,
            None if self.cookie => settings.cookie_age,
            Some(Age::Any) | None => return None,
        };
        Some(MaxAge { max_age: SignedDuration::from_secs(seconds), now })
    }

    /// As by default, whatever the value is.
    fn for_stored(json: bool, full: bool) -> Self {
        Self {
            input: InputArguments::standard_input(),
            keys: KeyArguments::default(),
            cookie: false,
            max_age: None,
            now: None,
            strict: false,
            accept: Vec::new(),
            serializer: None,
            max_size: DEFAULT_MAX_SIZE,
            try_salt: Vec::new(),
            json,
            full,
        }
    }

    fn explain(
        &self,
        codec: &SessionCodec,
        stored: &[u8],
        limit: Option<MaxAge>,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let mut hints = Hints::new().with_salts(self.try_salt.iter().map(String::as_str));
        if let Some(limit) = limit {
            hints = hints.with_max_age(limit);
        }
        // There is a reason, since decoding has failed.
        let diagnosis = codec.diagnose_with(stored, &hints).unwrap_or(Diagnosis::Unrecognized);
        if self.json {
            output.write(&document::write_error(&diagnosis, advice(&diagnosis).as_deref()))?;
        }
        Err(CliError::Decode(diagnosis))
    }

    fn show(
        &self,
        opened: &Opened,
        salt: &str,
        now: Timestamp,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let Opened { decoded, .. } = opened;
        let age = decoded.signed_at.map(|signed_at| now.as_second().saturating_sub(signed_at));
        if self.json {
            let found = Found {
                decoded,
                salt,
                age,
                stored_bytes: opened.stored_bytes,
                payload_bytes: opened.payload_bytes,
                graph: opened.graph.as_ref(),
            };
            return output.write(&document::write(&found)?);
        }
        let limits = if self.full { TreeLimits::FULL } else { TreeLimits::default() };
        let tree = if let Some(graph) = &opened.graph {
            Tree::of_graph(graph, limits)
        } else {
            let json = decoded.data.to_json().map_err(CliError::Encode)?;
            Tree::of_json(&json, limits)
                .map_err(|error| CliError::Decode(Diagnosis::NotJson(error)))?
        };
        let mut out = String::new();
        table(opened, salt, age).push_to(&mut out);
        let count = decoded.data.len();
        let entries = if count == 1 { "entry" } else { "entries" };
        let heading = format!("session: {} {entries}", grouped(count));
        out.push('\n');
        out.push_str(&styled(style::HEADING, heading));
        out.push('\n');
        tree.push_to(&mut out);
        output.write(&out)
    }
}

/// Shows a value as a store has it, or says why that is none.
pub(super) fn show_stored(
    codec: &SessionCodec,
    text: &str,
    json: bool,
    full: bool,
    now: Timestamp,
    output: &mut Output,
) -> Result<(), CliError> {
    let arguments = Arguments::for_stored(json, full);
    match arguments.open(codec, text, None) {
        Ok(opened) => arguments.show(&opened, codec.salt(), now, output),
        Err(_) => arguments.explain(codec, text.as_bytes(), None, output),
    }
}

/// What was found in a value.
struct Opened {
    decoded: Decoded,
    stored_bytes: usize,
    payload_bytes: usize,
    /// The objects of a pickled session.
    graph: Option<Graph>,
}

/// What is known about a session besides what it holds.
fn table(opened: &Opened, salt: &str, age: Option<i64>) -> Table {
    let Opened { decoded, stored_bytes, payload_bytes, graph } = opened;
    let mut table = Table::new();
    let (written_by, is_weak) = match decoded.format {
        Format::Antique => ("Django 1.0 to 1.2", true),
        Format::Legacy => ("Django 1.3 to 3.0", true),
        Format::SignedSha1 => ("signed cookies of Django 1.4 to 3.0", true),
        Format::Signed => ("Django 3.1 and later", false),
    };
    let remark = if is_weak { "; Django 4.0 and later refuse it" } else { "" };
    table.row("form", format!("{} ({written_by}{remark})", decoded.format.name()));
    table.row("algorithm", decoded.format.algorithm());
    table.row(
        "key",
        match decoded.key {
            KeyMatch::Primary => "primary (SECRET_KEY)".to_owned(),
            KeyMatch::Fallback(index) => {
                format!(
                    "fallback (SECRET_KEY_FALLBACKS[{index}]); the next save signs with SECRET_KEY"
                )
            }
        },
    );
    if decoded.format != Format::Antique {
        table.row("salt", repr::plain(salt));
    }
    table.row("signed", signed(decoded.signed_at, age));
    table.row(
        "serializer",
        match graph {
            None => "JSON".to_owned(),
            Some(graph) => format!("pickle, protocol {}", graph.protocol()),
        },
    );
    table.row("compressed", if decoded.compressed { "yes" } else { "no" });
    let size =
        format!("{} bytes stored, {} serialized", grouped(*stored_bytes), grouped(*payload_bytes));
    table.row("size", size);
    table
}

/// When a session was signed, in UTC and seen from now.
fn signed(signed_at: Option<i64>, age: Option<i64>) -> String {
    let (Some(seconds), Some(age)) = (signed_at, age) else {
        return "this form does not say when".to_owned();
    };
    let time = match Timestamp::from_second(seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => format!("at {seconds} seconds, beyond the year 9999"),
    };
    let distance = duration(age);
    if age < 0 { format!("{time}, {distance} from now") } else { format!("{time}, {distance} ago") }
}

/// The option that helps.
pub(super) fn advice(diagnosis: &Diagnosis) -> Option<String> {
    Some(match diagnosis {
        Diagnosis::Expired { .. } => "--max-age none".to_owned(),
        Diagnosis::FormatNotAccepted { format } => {
            format!("--accept {}, or leave out --strict", format.name())
        }
        Diagnosis::TooLarge { limit } => format!("--max-size {}", limit.saturating_mul(16)),
        Diagnosis::Unsigned { serializer: Serializer::Json } => {
            "django-session encode, if it is to become a stored session".to_owned()
        }
        Diagnosis::WrongKey { .. } => {
            "--secret-key-file FILE; --try-salt NAME for the class of a store".to_owned()
        }
        Diagnosis::WrongSalt { salt, .. } if salt == SIGNED_COOKIES_SALT => "--cookie".to_owned(),
        Diagnosis::WrongSalt { salt, format: Format::Legacy }
            if !salt.starts_with("django.contrib.sessions.") =>
        {
            format!("--legacy-salt '{}'", repr::plain(salt))
        }
        Diagnosis::WrongSalt { salt, .. } => format!("--salt '{}'", repr::plain(salt)),
        Diagnosis::WrongSerializer { found, .. } => {
            format!("--serializer {}, or leave out --strict", found.name())
        }
        _ => return None,
    })
}
