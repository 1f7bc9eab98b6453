//! The text protocol of memcached, without I/O: what is sent, and what a line that comes back means.
//!
//! Entries are read with the meta commands (1.6.10), which tell flags, CAS unique and time to live at
//! once. They are written with the classic ones: an `ms` that fails for want of memory removes the entry
//! that was there, whereas `add`, `replace` and `cas` leave it alone.

use crate::codec::cache::MEMCACHED_PICKLE;

use super::error::MemcachedError;

/// The longest line of a reply that is read: a `VALUE` repeats a key of 250 bytes.
pub(super) const MAX_LINE: usize = 2048;

/// The first version whose meta commands are as they have stayed.
const META: [u32; 3] = [1, 6, 10];

/// What an operation asks of a server.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    Add { key: &'a str, value: &'a [u8], exptime: i64 },
    Delete { key: &'a str },
    DeleteUnique { key: &'a str, unique: u64 },
    Get { key: &'a str },
    HasKey { key: &'a str },
    Replace { key: &'a str, value: &'a [u8], exptime: i64 },
    ReplaceUnique { key: &'a str, value: &'a [u8], exptime: i64, unique: u64 },
    Touch { key: &'a str, exptime: i64 },
}

impl<'a> Request<'a> {
    pub(super) fn key(&self) -> &'a str {
        match self {
            Self::Add { key, .. }
            | Self::Delete { key }
            | Self::DeleteUnique { key, .. }
            | Self::Get { key }
            | Self::HasKey { key }
            | Self::Replace { key, .. }
            | Self::ReplaceUnique { key, .. }
            | Self::Touch { key, .. } => key,
        }
    }

    /// The value that is written, if one is.
    pub(super) fn value(&self) -> Option<&'a [u8]> {
        match self {
            Self::Add { value, .. }
            | Self::Replace { value, .. }
            | Self::ReplaceUnique { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The bytes to send. A write is followed by a read in the same packet, which is how the CAS unique
    /// of what was written becomes known.
    pub(super) fn encode(&self, meta: bool, opaque: u64) -> Vec<u8> {
        let key = self.key();
        let read = if meta {
            format!("mg {key} v f c t O{opaque}\r\n")
        } else {
            format!("gets {key}\r\n")
        };
        let flags = MEMCACHED_PICKLE;
        let write = |line: String, value: &[u8]| {
            let mut bytes = line.into_bytes();
            bytes.reserve(value.len() + read.len() + 4);
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(read.as_bytes());
            bytes
        };
        match *self {
            Self::Add { value, exptime, .. } => {
                write(format!("add {key} {flags} {exptime} {}\r\n", value.len()), value)
            }
            Self::Replace { value, exptime, .. } => {
                write(format!("replace {key} {flags} {exptime} {}\r\n", value.len()), value)
            }
            Self::ReplaceUnique { value, exptime, unique, .. } => {
                write(format!("cas {key} {flags} {exptime} {} {unique}\r\n", value.len()), value)
            }
            Self::Delete { .. } => format!("delete {key}\r\n").into_bytes(),
            Self::DeleteUnique { unique, .. } if meta => {
                format!("md {key} C{unique} O{opaque}\r\n").into_bytes()
            }
            // Replaced by nothing that has expired already.
            Self::DeleteUnique { unique, .. } => {
                format!("cas {key} {flags} -1 0 {unique}\r\n\r\n").into_bytes()
            }
            Self::HasKey { .. } if meta => format!("mg {key} O{opaque}\r\n").into_bytes(),
            Self::Get { .. } | Self::HasKey { .. } => read.into_bytes(),
            Self::Touch { exptime, .. } => format!("touch {key} {exptime}\r\n").into_bytes(),
        }
    }
}

/// A line of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// There is such an entry, and it is not the one that was meant.
    Changed,
    /// It is done.
    Done,
    /// The end of what was found, or of nothing.
    End,
    /// There is no such entry.
    Missing,
    /// It was not written, for which a command has one reason.
    NotStored,
    /// An entry, whose bytes follow.
    Value(ValueLine<'a>),
}

/// What is known of an entry before its bytes come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ValueLine<'a> {
    pub(super) size: usize,
    pub(super) flags: u32,
    pub(super) unique: u64,
    /// Seconds; none for ever, or if the server does not say.
    pub(super) time_to_live: Option<u64>,
    /// The classic reply names the key.
    pub(super) key: Option<&'a [u8]>,
}

/// Reads a line, without the end of it. What answers another request is no reply.
pub(super) fn parse(line: &[u8], opaque: u64) -> Result<Line<'_>, MemcachedError> {
    let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let found = match words.next().unwrap_or_default() {
        b"DELETED" | b"HD" | b"STORED" | b"TOUCHED" => Line::Done,
        b"END" => Line::End,
        b"EX" | b"EXISTS" => Line::Changed,
        b"EN" | b"NF" | b"NOT_FOUND" => Line::Missing,
        b"NOT_STORED" => Line::NotStored,
        b"VALUE" => {
            let value = parse_classic(&mut words).ok_or(MemcachedError::MalformedReply)?;
            return Ok(Line::Value(value));
        }
        b"VA" => Line::Value(ValueLine {
            size: words.next().and_then(number).ok_or(MemcachedError::MalformedReply)?,
            ..ValueLine::default()
        }),
        b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" => return Err(refusal(line)),
        _ => return Err(MemcachedError::MalformedReply),
    };
    parse_flags(found, words, opaque).ok_or(MemcachedError::MalformedReply)
}

/// The rest of `VALUE`.
fn parse_classic<'a>(words: &mut impl Iterator<Item = &'a [u8]>) -> Option<ValueLine<'a>> {
    let value = ValueLine {
        key: Some(words.next()?),
        flags: words.next().and_then(number)?,
        size: words.next().and_then(number)?,
        unique: words.next().and_then(number)?,
        time_to_live: None,
    };
    words.next().is_none().then_some(value)
}

/// The flags of a meta reply: a letter and what belongs to it. Unknown ones are none of our concern.
fn parse_flags<'a>(
    mut line: Line<'a>,
    words: impl Iterator<Item = &'a [u8]>,
    opaque: u64,
) -> Option<Line<'a>> {
    let (mut answered, mut unique, mut flags) = (false, false, false);
    for word in words {
        let (letter, token) = word.split_first()?;
        match (letter, &mut line) {
            (b'O', _) => {
                answered = number::<u64>(token)? == opaque;
                if !answered {
                    return None;
                }
            }
            (b'c', Line::Value(value)) => (value.unique, unique) = (number(token)?, true),
            (b'f', Line::Value(value)) => (value.flags, flags) = (number(token)?, true),
            (b't', Line::Value(value)) if token != b"-1" => {
                value.time_to_live = Some(number(token)?);
            }
            _ => {}
        }
    }
    // A value that may be somebody else's is worse than none.
    let whole = answered && unique && flags;
    (whole || !matches!(line, Line::Value(_))).then_some(line)
}

fn refusal(line: &[u8]) -> MemcachedError {
    let (kind, message) = match line.iter().position(|&byte| byte == b' ') {
        Some(space) => (&line[..space], line[space..].trim_ascii()),
        None => (line, &b""[..]),
    };
    match (kind, message) {
        (b"SERVER_ERROR", message) if message.starts_with(b"object too large") => {
            MemcachedError::TooLarge
        }
        (b"SERVER_ERROR", message) if message.starts_with(b"out of memory") => {
            MemcachedError::OutOfMemory
        }
        (b"ERROR", message) if message.eq_ignore_ascii_case(b"too many open connections") => {
            MemcachedError::TooManyConnections
        }
        (b"CLIENT_ERROR", b"unauthenticated") => MemcachedError::Unauthenticated,
        (b"CLIENT_ERROR", _) => MemcachedError::Refused { kind: "CLIENT_ERROR" },
        (b"SERVER_ERROR", _) => MemcachedError::Refused { kind: "SERVER_ERROR" },
        _ => MemcachedError::Refused { kind: "ERROR" },
    }
}

/// A number without sign.
fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    if !digits.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What `stats` tells of a server process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Whether it knows the meta commands.
    pub(super) meta: bool,
    /// Which process it is: its number and when it began, in Unix seconds. Zero if it does not say.
    pub(super) pid: u64,
    pub(super) started: u64,
}

impl Process {
    /// Takes in a line of `stats`; false at its end.
    pub(super) fn read(&mut self, line: &[u8]) -> Result<bool, MemcachedError> {
        let mut words = line.split(|&byte| byte == b' ');
        let (word, name, value) = (words.next(), words.next(), words.next().unwrap_or_default());
        match (word, name) {
            (Some(b"STAT"), Some(b"pid")) => self.pid = number(value).unwrap_or(0),
            // `time` minus `uptime`, which come in either order.
            (Some(b"STAT"), Some(b"time")) => {
                self.started = self.started.wrapping_add(number(value).unwrap_or(0));
            }
            (Some(b"STAT"), Some(b"uptime")) => {
                self.started = self.started.wrapping_sub(number(value).unwrap_or(0));
            }
            (Some(b"STAT"), Some(b"version")) => self.meta = has_meta(value),
            (Some(b"STAT"), Some(_)) => {}
            // Something else that speaks the protocol may have no statistics.
            (Some(b"END" | b"ERROR"), None) => return Ok(false),
            (Some(b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR"), _) => return Err(refusal(line)),
            _ => return Err(MemcachedError::MalformedReply),
        }
        Ok(true)
    }
}

/// Whether a version such as `1.6.18` or `1.6.0-beta1` is late enough.
fn has_meta(version: &[u8]) -> bool {
    let mut numbers = version.split(|byte| !byte.is_ascii_digit()).map(number::<u32>);
    let version = [(); 3].map(|()| numbers.next().flatten().unwrap_or(0));
    version >= META
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> Option<Line<'_>> {
        parse(text.as_bytes(), 7).ok()
    }

    #[test]
    fn replies_mean_what_the_server_means() {
        for text in ["STORED", "DELETED", "TOUCHED", "HD", "HD O7", "HD c12 O7"] {
            assert_eq!(line(text), Some(Line::Done), "{text}");
        }
        for text in ["NOT_FOUND", "EN", "EN O7", "NF", "NF c0 O7"] {
            assert_eq!(line(text), Some(Line::Missing), "{text}");
        }
        for text in ["EXISTS", "EX", "EX O7"] {
            assert_eq!(line(text), Some(Line::Changed), "{text}");
        }
        let value = ValueLine { size: 3, flags: 1, unique: 12, time_to_live: Some(99), key: None };
        assert_eq!(line("VA 3 f1 c12 t99 O7 W Z"), Some(Line::Value(value)));
        let value = ValueLine { size: 3, flags: 1, unique: 12, ..ValueLine::default() };
        assert_eq!(line("VA 3 O7 t-1 c12 f1"), Some(Line::Value(value)));
        let value =
            ValueLine { size: 3, flags: 1, unique: 12, key: Some(b"k"), time_to_live: None };
        assert_eq!(line("VALUE k 1 3 12"), Some(Line::Value(value)));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for text in [
            "",
            " ",
            "OK",
            "stored",
            "HD O8",
            "EN O8",
            "VA",
            "VA -3 f1 c12 O7",
            "VA +3 f1 c12 O7",
            "VA 3 f1 c12",
            "VA 3 f1 c12 O8",
            "VA 3 f1 c12 O7 O8",
            "VA 3 f1 O7",
            "VA 3 c12 O7",
            "VA 3 f4294967296 c12 O7",
            "VA 3 f1 c18446744073709551616 O7",
            "VA 99999999999999999999 f1 c12 O7",
            "VALUE k 1 3",
            "VALUE k 1 3 12 13",
            "VALUE k x 3 12",
        ] {
            assert!(
                matches!(parse(text.as_bytes(), 7), Err(MemcachedError::MalformedReply)),
                "{text}"
            );
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        for (text, shown) in [
            ("SERVER_ERROR object too large for cache", "TooLarge"),
            ("SERVER_ERROR out of memory storing object", "OutOfMemory"),
            ("SERVER_ERROR out of memory reading request", "OutOfMemory"),
            ("ERROR Too many open connections", "TooManyConnections"),
            ("CLIENT_ERROR unauthenticated", "Unauthenticated"),
            ("CLIENT_ERROR hunter2", "Refused { kind: \"CLIENT_ERROR\" }"),
            ("SERVER_ERROR hunter2", "Refused { kind: \"SERVER_ERROR\" }"),
            ("ERROR hunter2", "Refused { kind: \"ERROR\" }"),
            ("ERROR", "Refused { kind: \"ERROR\" }"),
        ] {
            assert_eq!(format!("{:?}", parse(text.as_bytes(), 7).unwrap_err()), shown);
        }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, meta) in [
            ("1.6.10", true),
            ("1.6.18", true),
            ("1.6.9", false),
            ("1.6.10_beta", true),
            ("1.10.0", true),
            ("2.0", true),
            ("1.5.22", false),
            ("1.4.5", false),
            ("", false),
            ("unknown", false),
        ] {
            assert_eq!(has_meta(version.as_bytes()), meta, "{version}");
        }
    }

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let mut process = Process::default();
        for text in ["STAT pid 7", "STAT uptime 5", "STAT time 1700000005", "STAT version 1.6.18"] {
            assert!(process.read(text.as_bytes()).unwrap());
        }
        assert!(!process.read(b"END").unwrap());
        assert_eq!(process, Process { meta: true, pid: 7, started: 1_700_000_000 });
        assert!(!Process::default().read(b"ERROR").unwrap());
        for text in ["", "STAT", "END x", "CLIENT_ERROR unauthenticated", "\u{0}"] {
            assert!(Process::default().read(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, 7);
            let _ = Process::default().read(&bytes);
        }

        #[test]
        fn no_words_panic(words in proptest::collection::vec(
            prop_oneof![
                Just("VA".to_owned()), Just("VALUE".to_owned()), Just("HD".to_owned()),
                Just("STAT".to_owned()), Just("time".to_owned()), Just("uptime".to_owned()),
                Just("O7".to_owned()), "[cft][0-9]{0,21}", "[0-9]{1,21}", "-[0-9]", "[ -~]{0,4}",
            ],
            0..8,
        )) {
            let line = words.join(" ");
            let _ = parse(line.as_bytes(), 7);
            let _ = Process::default().read(line.as_bytes());
        }

        #[test]
        fn a_value_is_taken_only_with_its_own_opaque(
            size in 0..10_usize, flags: u32, unique: u64, live in 0..u64::from(u32::MAX), opaque: u64,
        ) {
            let text = format!("VA {size} f{flags} c{unique} t{live} O{opaque}");
            let value = ValueLine { size, flags, unique, time_to_live: Some(live), key: None };
            prop_assert_eq!(parse(text.as_bytes(), opaque).ok(), Some(Line::Value(value)));
            prop_assert!(parse(text.as_bytes(), opaque.wrapping_add(1)).is_err());
        }
    }
}
