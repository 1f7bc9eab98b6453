//! How one value looks on one line: as Python's `repr`, cut where it is long.
//!
//! Characters that are not printable, those that turn the direction of text among them, are written as
//! escapes: a session cannot move the cursor, set a title or hide a part of itself.

use std::fmt::Write as _;

use super::{grouped, style, styled};
use crate::codec::graph::{Global, Integer, Kind, TimeZone};
use crate::codec::json;

/// The longest text that is shown, in characters.
#[derive(Clone, Copy)]
pub(in crate::cli) struct TextLimit(pub(in crate::cli) usize);

/// Whether a character is shown as it is, by the rule of `str.isprintable`.
fn is_printable(char: char) -> bool {
    // Rust's `Debug` escapes the same categories; the characters it escapes for being quotes are fine,
    // and so are marks that combine with a character before them.
    matches!(char, '\'' | '"') || char.escape_debug().len() == 1 || is_mark(char)
}

/// Combining marks, which `escape_debug` escapes since they would join the quote before them.
fn is_mark(char: char) -> bool {
    // Within a text Rust leaves them alone.
    let mut buffer = [0; 5];
    buffer[0] = b'a';
    let length = char.encode_utf8(&mut buffer[1..]).len();
    let text = std::str::from_utf8(&buffer[..=length]).unwrap_or_default();
    text.escape_debug().count() == 2
}

/// Appends a character, or the escape that Python has for it.
fn push_char(out: &mut String, char: char, quote: char) {
    match char {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\\' => out.push_str("\\\\"),
        _ if char == quote => {
            out.push('\\');
            out.push(char);
        }
        _ if is_printable(char) => out.push(char),
        _ => {
            let number = u32::from(char);
            let _ = match number {
                0..=0xff => write!(out, "\\x{number:02x}"),
                0x100..=0xffff => write!(out, "\\u{number:04x}"),
                _ => write!(out, "\\U{number:08x}"),
            };
        }
    }
}

/// Text in quotes, from characters and lone surrogates; `length` is for what is cut.
fn quoted(
    chars: impl Iterator<Item = Result<char, u16>>,
    prefix: &str,
    TextLimit(limit): TextLimit,
    length: usize,
) -> String {
    let mut out = format!("{prefix}'");
    for (shown, char) in chars.enumerate() {
        if shown == limit {
            out.push('\'');
            let rest = format!("… {} bytes in all", grouped(length));
            return styled(style::TEXT, out) + &styled(style::QUIET, rest);
        }
        match char {
            Ok(char) => push_char(&mut out, char, '\''),
            Err(surrogate) => {
                let _ = write!(out, "\\u{surrogate:04x}");
            }
        }
    }
    out.push('\'');
    styled(style::TEXT, out)
}

/// A text of UTF-8 in which surrogates are three bytes like any other character.
pub(super) fn text(bytes: &[u8], limit: TextLimit) -> String {
    quoted(wtf8_chars(bytes), "", limit, bytes.len())
}

/// A text out of JSON.
pub(super) fn json_text(literal: json::Literal<'_>, limit: TextLimit) -> String {
    let chars = char::decode_utf16(literal.units());
    let chars = chars.map(|char| char.map_err(|error| error.unpaired_surrogate()));
    quoted(chars, "", limit, literal.body.len())
}

/// Bytes as Python shows them.
pub(super) fn bytes(bytes: &[u8], limit: TextLimit) -> String {
    let TextLimit(most) = limit;
    let mut out = String::from("b'");
    for &byte in bytes.iter().take(most) {
        match byte {
            b' '..=b'~' | b'\n' | b'\r' | b'\t' => push_char(&mut out, char::from(byte), '\''),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push('\'');
    let out = styled(style::TEXT, out);
    if bytes.len() > most {
        out + &styled(style::QUIET, format_args!("… {} bytes in all", grouped(bytes.len())))
    } else {
        out
    }
}

/// A name on the left side: bare if it looks like a name.
pub(super) fn name(shown: &str) -> String {
    styled(style::NAME, shown)
}

/// Text that may come from anywhere, without quotes: salts and the names of classes and zones.
pub(in crate::cli) fn plain(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars().take(200) {
        push_char(&mut out, char, '\u{0}');
    }
    out
}

/// The name of a class or function with its module.
pub(super) fn global(global: Global<'_>) -> String {
    let part = |text: Option<&str>| text.map_or_else(|| "?".to_owned(), plain);
    styled(style::TYPE, format_args!("{}.{}", part(global.module()), part(global.name())))
}

pub(super) fn number(text: &str) -> String {
    // Python's own words for what JSON has none.
    styled(
        style::NUMBER,
        match text {
            "NaN" => "nan",
            "Infinity" => "inf",
            "-Infinity" => "-inf",
            _ => text,
        },
    )
}

pub(super) fn constant(text: &str) -> String {
    styled(style::CONSTANT, text)
}

fn float(number: f64) -> String {
    let mut text = String::new();
    json::push_f64(&mut text, number);
    self::number(&text)
}

fn integer(number: &Integer<'_>) -> String {
    match number.to_decimal() {
        Some(text) => self::number(&text),
        None => styled(
            style::QUIET,
            format_args!("an integer of {} bytes", grouped(number.to_le_bytes().len())),
        ),
    }
}

fn typed(name: &str, value: impl std::fmt::Display) -> String {
    format!("{} {}", styled(style::TYPE, name), styled(style::TEXT, value))
}

/// A value that holds no other; nothing for those that do.
pub(super) fn scalar(kind: &Kind<'_>, limit: TextLimit) -> Option<String> {
    Some(match kind {
        Kind::None => constant("None"),
        Kind::Bool(true) => constant("True"),
        Kind::Bool(false) => constant("False"),
        Kind::Int(number) => integer(number),
        Kind::Float(number) => float(*number),
        Kind::Complex(real, imaginary) => {
            format!("{}({}, {})", styled(style::TYPE, "complex"), float(*real), float(*imaginary))
        }
        Kind::Str(value) => text(value.as_bytes(), limit),
        Kind::SafeString(value) => {
            format!("{} {}", styled(style::TYPE, "SafeString"), text(value.as_bytes(), limit))
        }
        // Where it is no text, its bytes say more.
        Kind::Py2Str(value) if value.is_ascii() => text(value, limit),
        Kind::Py2Str(value) => bytes(value, limit),
        Kind::Bytes(value) => bytes(value, limit),
        Kind::ByteArray(value) => {
            format!("{} {}", styled(style::TYPE, "bytearray"), bytes(value, limit))
        }
        Kind::Range(parts) => {
            let parts = parts.each_ref().map(integer).join(", ");
            format!("{}({parts})", styled(style::TYPE, "range"))
        }
        Kind::DateTime(moment) => {
            let mut out = typed("datetime", moment.isoformat());
            if let Some(TimeZone::Named(key)) = moment.time_zone {
                let _ = write!(out, " {}", styled(style::QUIET, plain(key)));
            }
            out + if moment.fold { " fold=1" } else { "" }
        }
        Kind::Date(date) => typed("date", date.isoformat()),
        Kind::Time(time) => {
            let mut out = typed("time", time.isoformat());
            if let Some(TimeZone::Named(key)) = time.time_zone {
                let _ = write!(out, " {}", styled(style::QUIET, plain(key)));
            }
            out + if time.fold { " fold=1" } else { "" }
        }
        Kind::TimeDelta(delta) => typed("timedelta", delta.isoformat()),
        Kind::TimeZone(TimeZone::Named(key)) => typed("ZoneInfo", plain(key)),
        Kind::TimeZone(TimeZone::Offset(offset)) => typed("timezone", offset.isoformat()),
        Kind::Decimal(text) => typed("Decimal", plain(text)),
        Kind::Uuid(number) => typed("UUID", hyphenated(*number)),
        Kind::Global(name) => global(*name),
        _ => return None,
    })
}

/// A UUID as Python writes it.
pub(in crate::cli) fn hyphenated(number: u128) -> String {
    let digits = format!("{number:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

/// Characters and lone surrogates of UTF-8 that may hold such.
fn wtf8_chars(bytes: &[u8]) -> impl Iterator<Item = Result<char, u16>> + '_ {
    let mut rest = bytes;
    let mut text = "".chars();
    std::iter::from_fn(move || {
        loop {
            if let Some(char) = text.next() {
                return Some(Ok(char));
            }
            if rest.is_empty() {
                return None;
            }
            let valid = match std::str::from_utf8(rest) {
                Ok(whole) => whole.len(),
                Err(error) => error.valid_up_to(),
            };
            let (start, after) = rest.split_at(valid);
            if valid > 0 {
                text = std::str::from_utf8(start).unwrap_or_default().chars();
                rest = after;
                continue;
            }
            // Readers let nothing else through.
            let [_, middle, low, after @ ..] = after else { return None };
            rest = after;
            return Some(Err(0xd000 | u16::from(middle & 0x3f) << 6 | u16::from(low & 0x3f)));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{TextLimit, plain, text};

    fn bare(bytes: &[u8]) -> String {
        anstream::adapter::strip_str(&text(bytes, TextLimit(12))).to_string()
    }

    #[test]
    fn nothing_that_moves_a_cursor_is_left() {
        for (given, shown) in [
            ("tea", "'tea'"),
            ("it's\\", r"'it\'s\\'"),
            ("\u{1b}]0;x\u{7}", r"'\x1b]0;x\x07'"),
            ("\u{9b}2J\u{7f}", r"'\x9b2J\x7f'"),
            ("a\u{202e}b\u{2066}", r"'a\u202eb\u2066'"),
            ("\u{200b}\u{feff}\u{2028}", r"'\u200b\ufeff\u2028'"),
            ("\u{e0001}\u{a0}\n", r"'\U000e0001\xa0\n'"),
            ("Grüße e\u{301} 😀", "'Grüße e\u{301} 😀'"),
            ("twelve chars!", "'twelve chars'… 13 bytes in all"),
        ] {
            assert_eq!(bare(given.as_bytes()), shown);
        }
        assert_eq!(bare(b"a\xed\xa0\x80b"), r"'a\ud800b'");
        assert_eq!(plain("\u{1b}[31m'"), r"\x1b[31m'");
    }
}
