//! JSON to the letter of Python's `json`, which Django's `JSONSerializer` calls.
//!
//! Reading accepts exactly what `json.loads` accepts: integers of any size up to 4300 digits, `NaN`,
//! `Infinity`, lone surrogates, duplicate keys, deep nesting. Writing gives the bytes of
//! `json.dumps(value, separators=(",", ":"))`: everything outside printable ASCII is escaped, floats
//! look as `repr` shows them. Django reads payloads as Latin-1, so a byte above 0x7F is that code
//! point; [`ascii_from_latin1`] turns it into the escape that means the same, and all text after that
//! is ASCII. No function here recurses.

use std::borrow::Cow;

use thiserror::Error;

/// Levels of nesting that are read. Python 3.13 gives up somewhere below, older ones earlier.
pub const MAX_DEPTH: usize = 10_000;

/// Levels of nesting that are written: what Django reads on every Python.
pub const MAX_DEPTH_WRITTEN: usize = 900;

/// Digits of an integer that Python reads (`sys.int_info.default_max_str_digits`).
pub const MAX_INTEGER_DIGITS: usize = 4300;

/// Text that Python's `json` does not read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{kind} at byte {offset}")]
pub struct JsonError {
    kind: JsonErrorKind,
    offset: usize,
}

impl JsonError {
    /// What is wrong.
    pub fn kind(&self) -> JsonErrorKind {
        self.kind
    }

    /// Where, in bytes from the start of the JSON text.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

/// The reasons in a [`JsonError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// A string holds a control character, a bad escape, or no end.
    InvalidString,
    /// An integer has more digits than Python reads.
    TooManyDigits,
    /// Lists and objects nest too deep.
    TooDeep,
    /// There is text after the value.
    TrailingText,
    /// Another token was expected here, or the text ends.
    Unexpected,
}

impl std::fmt::Display for JsonErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InvalidString => "invalid string",
            Self::TooManyDigits => "integer of too many digits",
            Self::TooDeep => "too many levels",
            Self::TrailingText => "text after the value",
            Self::Unexpected => "unexpected token or end",
        })
    }
}

/// Turns a payload into ASCII, reading it as Latin-1 as Django does.
pub(crate) fn ascii_from_latin1(payload: Vec<u8>) -> String {
    match String::from_utf8(payload) {
        Ok(text) if text.is_ascii() => text,
        Ok(text) => latin1(text.as_bytes()),
        Err(error) => latin1(error.as_bytes()),
    }
}

fn latin1(payload: &[u8]) -> String {
    let mut text = String::with_capacity(payload.len() + 64);
    for &byte in payload {
        if byte.is_ascii() {
            text.push(char::from(byte));
        } else {
            push_unit(&mut text, u16::from(byte));
        }
    }
    text
}

/// The kind of the token that starts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Null,
    True,
    False,
    Number,
    String,
    List,
    Object,
}

/// A number as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number<'a> {
    /// Without fraction and exponent: an exact integer.
    Integer(&'a str),
    /// With fraction or exponent, or one of `NaN`, `Infinity` and `-Infinity`.
    Float(&'a str),
}

impl Number<'_> {
    /// The nearest double; beyond its range it is an infinity or a zero, as in Python.
    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Self::Float("NaN") => f64::NAN,
            Self::Float("Infinity") => f64::INFINITY,
            Self::Float("-Infinity") => f64::NEG_INFINITY,
            Self::Integer(text) | Self::Float(text) => text.parse().unwrap_or(f64::NAN),
        }
    }
}

/// The inside of a string literal, its escapes checked but not resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Literal<'a> {
    pub(crate) body: &'a str,
    pub(crate) escaped: bool,
}

impl<'a> Literal<'a> {
    /// The text, or `None` if it holds a surrogate without its partner and so is not Unicode.
    pub(crate) fn to_str(self) -> Option<Cow<'a, str>> {
        if !self.escaped {
            return Some(Cow::Borrowed(self.body));
        }
        let mut text = String::with_capacity(self.body.len());
        let mut rest = self.body;
        // Runs without an escape are copied whole.
        while let Some(plain) = memchr::memchr(b'\\', rest.as_bytes()) {
            text.push_str(&rest[..plain]);
            rest = &rest[plain..];
            let (char, length) = unescape(rest.as_bytes())?;
            text.push(char);
            rest = &rest[length..];
        }
        text.push_str(rest);
        Some(Cow::Owned(text))
    }

    /// The text as UTF-16, which can hold what a `str` cannot.
    pub(crate) fn units(self) -> impl Iterator<Item = u16> + 'a {
        let mut rest = self.body.as_bytes().iter().copied();
        std::iter::from_fn(move || {
            let byte = rest.next()?;
            if byte != b'\\' {
                return Some(u16::from(byte));
            }
            Some(match rest.next()? {
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => 0x0a,
                b'r' => 0x0d,
                b't' => 0x09,
                b'u' => {
                    let digits: [u8; 4] = std::array::from_fn(|_| rest.next().unwrap_or(b'0'));
                    hex4(&digits).unwrap_or_default()
                }
                other => u16::from(other),
            })
        })
    }
}

/// A reader of tokens over ASCII text; every grammar rule is here and nowhere else.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The number of bytes read so far.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    pub(crate) fn error(&self, kind: JsonErrorKind) -> JsonError {
        JsonError { kind, offset: self.at }
    }

    #[inline]
    fn peek_byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes over white space and tells which byte follows.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = self.peek_byte()?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Reads `byte` if it comes next, after white space.
    #[inline]
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    pub(crate) fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.eat(byte) { Ok(()) } else { Err(self.error(JsonErrorKind::Unexpected)) }
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error(JsonErrorKind::TrailingText)),
        }
    }

    /// Tells the next token. Reads it for `null`, `true`, `false` and the three openers `"`, `[` and
    /// `{`; a number is left for [`Scanner::number`].
    #[inline]
    pub(crate) fn token(&mut self) -> Result<Token, JsonError> {
        let (token, length) = match self.peek() {
            Some(b'"') => (Token::String, 1),
            Some(b'{') => (Token::Object, 1),
            Some(b'[') => (Token::List, 1),
            Some(b'0'..=b'9' | b'-' | b'N' | b'I') => (Token::Number, 0),
            Some(b't') if self.follows("true") => (Token::True, 4),
            Some(b'f') if self.follows("false") => (Token::False, 5),
            Some(b'n') if self.follows("null") => (Token::Null, 4),
            _ => return Err(self.error(JsonErrorKind::Unexpected)),
        };
        self.at += length;
        Ok(token)
    }

    fn follows(&self, word: &str) -> bool {
        self.text.as_bytes()[self.at..].starts_with(word.as_bytes())
    }

    /// Reads a string whose opening quote has been read.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Literal<'a>, JsonError> {
        let text = self.text;
        let start = self.at;
        match self.pass_string() {
            Some(escaped) => Ok(Literal { body: &text[start..self.at - 1], escaped }),
            None => Err(self.error(JsonErrorKind::InvalidString)),
        }
    }

    /// As [`Scanner::string`], but only tells whether there are escapes. An answer this small stays
    /// in a register, which is worth a tenth of a decode.
    #[inline]
    pub(crate) fn pass_string(&mut self) -> Option<bool> {
        let mut escaped = false;
        loop {
            self.at += plain_prefix(&self.text.as_bytes()[self.at..]);
            match self.peek_byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Some(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape().ok()?;
                }
                _ => return None,
            }
        }
    }

    /// Reads the rest of a string whose opening quote has been read, if it is `body`, which must be
    /// the inside of a string without escapes.
    #[inline]
    #[cfg(feature = "python")]
    pub(crate) fn eat_literal(&mut self, body: &str) -> bool {
        let rest = &self.text.as_bytes()[self.at..];
        let found = rest.starts_with(body.as_bytes()) && rest.get(body.len()) == Some(&b'"');
        self.at += if found { body.len() + 1 } else { 0 };
        found
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        let length = match rest.first() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') if rest.get(1..5).and_then(hex4).is_some() => 6,
            _ => return Err(self.error(JsonErrorKind::InvalidString)),
        };
        self.at += length;
        Ok(())
    }

    /// Reads a number, which must come next.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<Number<'a>, JsonError> {
        let text = self.text;
        let start = self.at;
        match self.pass_number() {
            Ok(true) => Ok(Number::Float(&text[start..self.at])),
            Ok(false) => Ok(Number::Integer(&text[start..self.at])),
            Err(kind) => Err(self.error(kind)),
        }
    }

    /// As [`Scanner::number`], but only tells whether it is a float.
    pub(crate) fn pass_number(&mut self) -> Result<bool, JsonErrorKind> {
        let start = self.at;
        let negative = usize::from(self.peek_byte() == Some(b'-'));
        self.at += negative;
        let digits_from = self.at;
        if self.peek_byte() == Some(b'0') {
            self.at += 1;
        } else if self.digits() == 0 {
            let word = if negative == 0 && self.follows("NaN") { "NaN" } else { "Infinity" };
            if self.follows(word) {
                self.at += word.len();
                return Ok(true);
            }
            return Err(JsonErrorKind::Unexpected);
        }
        let digits = self.at - digits_from;

        // A point or an `e` that no digit follows is not part of the number: Python's scanner stops
        // before it, and what comes next then is the error.
        let mut float = false;
        let before_point = self.at;
        if self.peek_byte() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                self.at = before_point;
            } else {
                float = true;
            }
        }
        let before_exponent = self.at;
        if matches!(self.peek_byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek_byte(), Some(b'+' | b'-')));
            if self.digits() == 0 {
                self.at = before_exponent;
            } else {
                float = true;
            }
        }
        if !float && digits > MAX_INTEGER_DIGITS {
            self.at = start;
            return Err(JsonErrorKind::TooManyDigits);
        }
        Ok(float)
    }

    fn digits(&mut self) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// Passes over one value and returns its text, checked by the full grammar.
    pub(crate) fn raw_value(&mut self) -> Result<&'a str, JsonError> {
        let text = self.text;
        self.peek();
        let start = self.at;
        // One entry per open container: true for an object.
        let mut open: Vec<bool> = Vec::new();
        loop {
            match self.token()? {
                Token::Null | Token::True | Token::False => {}
                Token::Number => {
                    self.number()?;
                }
                Token::String => {
                    self.string()?;
                }
                token @ (Token::List | Token::Object) => {
                    let object = token == Token::Object;
                    if !self.eat(if object { b'}' } else { b']' }) {
                        if open.len() == MAX_DEPTH {
                            return Err(self.error(JsonErrorKind::TooDeep));
                        }
                        open.push(object);
                        if object {
                            self.member_name()?;
                        }
                        continue;
                    }
                }
            }
            // A value has ended: close what it was the last of, or go on to its next sibling.
            loop {
                let Some(&object) = open.last() else { return Ok(&text[start..self.at]) };
                if self.eat(b',') {
                    if object {
                        self.member_name()?;
                    }
                    break;
                }
                self.expect(if object { b'}' } else { b']' })?;
                open.pop();
            }
        }
    }

    /// Reads `"name":`.
    #[inline]
    pub(crate) fn member_name(&mut self) -> Result<Literal<'a>, JsonError> {
        self.expect(b'"')?;
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name)
    }
}

/// The length of the part without quote, backslash and control characters. The text is ASCII.
#[inline]
fn plain_prefix(bytes: &[u8]) -> usize {
    prefix(
        bytes,
        |word| each_equal(word, b'"') | each_equal(word, b'\\') | each_below(word, b' '),
        |byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f),
    )
}

/// The length of the part that Python writes as it is: printable ASCII but quote and backslash.
#[inline]
fn printable_prefix(bytes: &[u8]) -> usize {
    prefix(
        bytes,
        |word| {
            // 0x7F is the only byte without the high bit that gets it when one is added.
            let high = word | (word & !HIGHS).wrapping_add(ONES);
            each_equal(word, b'"') | each_equal(word, b'\\') | each_below(word, b' ') | high
        },
        |byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\',
    )
}

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES << 7;

/// The length of the part before the first byte that is marked, eight bytes at a time where they are.
/// In a word, the high bit of a byte marks it; marks behind the first one may be wrong.
#[inline]
fn prefix(bytes: &[u8], marked: impl Fn(u64) -> u64, passes: impl Fn(u8) -> bool) -> usize {
    let mut chunks = bytes.chunks_exact(8);
    let mut length = 0;
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(std::array::from_fn(|index| chunk[index]));
        let found = marked(word) & HIGHS;
        if found != 0 {
            return length + (found.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    length + chunks.remainder().iter().take_while(|&&byte| passes(byte)).count()
}

#[inline]
fn each_equal(word: u64, byte: u8) -> u64 {
    let word = word ^ (ONES * u64::from(byte));
    word.wrapping_sub(ONES) & !word
}

/// Marks bytes below `limit`; those from 0x80 on are left alone.
#[inline]
fn each_below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(limit)) & !word
}

/// The character that a checked escape means, and the length of the escape. `None` for a surrogate
/// without its partner.
fn unescape(escape: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| hex4(escape.get(at..at + 4)?);
    let char = match escape.get(1)? {
        b'b' => '\x08',
        b'f' => '\x0c',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = unit(2)?;
            if let Some(char) = char::from_u32(first.into()) {
                return Some((char, 6));
            }
            let second = if escape.get(6..8)? == b"\\u" { unit(8)? } else { return None };
            let pair = char::decode_utf16([first, second]).next()?.ok()?;
            return Some((pair, 12));
        }
        &other => char::from(other),
    };
    Some((char, 2))
}

fn hex4(digits: &[u8]) -> Option<u16> {
    let &[a, b, c, d] = digits else { return None };
    let [a, b, c, d] = [a, b, c, d].map(|digit| HEX[usize::from(digit)]);
    // All bits are set for what is no digit.
    if (a | b | c | d) > 0xf {
        return None;
    }
    Some(a << 12 | b << 8 | c << 4 | d)
}

const HEX: [u16; 256] = {
    let mut values = [u16::MAX; 256];
    let mut digit = 0;
    while digit < 16 {
        let byte = b"0123456789abcdef"[digit as usize];
        values[byte as usize] = digit;
        values[byte.to_ascii_uppercase() as usize] = digit;
        digit += 1;
    }
    values
};

/// Appends `text` as a string literal, escaped as Python's `ensure_ascii` does.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

/// Appends the inside of a string literal.
pub(crate) fn push_escaped(out: &mut String, text: &str) {
    let mut rest = text;
    loop {
        let (plain, after) = rest.split_at(printable_prefix(rest.as_bytes()));
        out.push_str(plain);
        let mut chars = after.chars();
        let Some(char) = chars.next() else { return };
        rest = chars.as_str();
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            _ => char.encode_utf16(&mut [0; 2]).iter().for_each(|&unit| push_unit(out, unit)),
        }
    }
}

/// Appends the canonical form of a literal: what Python would write for the text it means.
pub(crate) fn push_canonical(out: &mut String, literal: Literal<'_>) {
    // An unescaped 0x7F is read but never written like that.
    if !literal.escaped && !literal.body.contains('\x7f') {
        out.push_str(literal.body);
        return;
    }
    for unit in char::decode_utf16(literal.units()) {
        match unit {
            Ok(char) => push_escaped(out, char.encode_utf8(&mut [0; 4])),
            Err(lone) => push_unit(out, lone.unpaired_surrogate()),
        }
    }
}

pub(crate) fn push_unit(out: &mut String, unit: u16) {
    out.push_str("\\u");
    for shift in [12, 8, 4, 0] {
        let digit = u32::from(unit >> shift & 0xf);
        out.push(char::from_digit(digit, 16).unwrap_or('0'));
    }
}

/// Appends a float as Python's `repr` shows it; not-a-number and infinities by their JSON names.
pub(crate) fn push_f64(out: &mut String, number: f64) {
    if number.is_nan() {
        out.push_str("NaN");
    } else if number.is_infinite() {
        out.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
    } else {
        push_float_text(out, zmij::Buffer::new().format_finite(number));
    }
}

/// As [`push_f64`], with the digits that identify the number among `f32`s.
pub(crate) fn push_f32(out: &mut String, number: f32) {
    if number.is_finite() {
        push_float_text(out, zmij::Buffer::new().format_finite(number));
    } else {
        push_f64(out, f64::from(number));
    }
}

/// Arranges the shortest digits, in whatever form they come, as Python does: an exponent below -4 or
/// from 16 on, with its sign and at least two digits.
fn push_float_text(out: &mut String, text: &str) {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));

    let mut digits = [0; 48];
    let mut length = 0;
    for byte in whole.bytes().chain(fraction.bytes()).take(digits.len()) {
        digits[length] = byte;
        length += 1;
    }
    let leading = digits[..length].iter().take_while(|&&digit| digit == b'0').count();
    let trailing = digits[leading..length].iter().rev().take_while(|&&digit| digit == b'0').count();
    let digits = &digits[leading..length - trailing];

    out.push_str(sign);
    if digits.is_empty() {
        out.push_str("0.0");
        return;
    }
    let mut push = |bytes: &[u8]| out.extend(bytes.iter().map(|&byte| char::from(byte)));
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "below 48")]
    let point = whole.len() as i32 - leading as i32 + exponent;
    if (-3..=16).contains(&point) {
        if let Ok(before @ 1..) = usize::try_from(point) {
            push(&digits[..before.min(digits.len())]);
            push(&b"0000000000000000"[..before.saturating_sub(digits.len())]);
            push(b".");
            push(digits.get(before..).filter(|rest| !rest.is_empty()).unwrap_or(b"0"));
        } else {
            push(b"0.");
            push(&b"000"[..point.unsigned_abs() as usize]);
            push(digits);
        }
        return;
    }
    push(&digits[..1]);
    if digits.len() > 1 {
        push(b".");
        push(&digits[1..]);
    }
    let exponent = point - 1;
    push(if exponent < 0 { b"e-" } else { b"e+" });
    if exponent.abs() < 10 {
        push(b"0");
    }
    push(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repr(number: f64) -> String {
        let mut out = String::new();
        push_f64(&mut out, number);
        out
    }

    #[test]
    fn floats_look_as_python_shows_them() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.000_123, "0.000123"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (123_456.789, "123456.789"),
            (1e15, "1000000000000000.0"),
            (9_007_199_254_740_993.0, "9007199254740992.0"),
            (1e16, "1e+16"),
            (12_345_678_901_234_567.0, "1.2345678901234568e+16"),
            (1e22, "1e+22"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(repr(number), text);
        }
    }

    #[test]
    fn every_character_is_escaped_alike_at_every_place() {
        for char in (0..0x300).chain([0x2028, 0xffff, 0x1_f600]).filter_map(char::from_u32) {
            let mut alone = String::new();
            push_escaped(&mut alone, char.encode_utf8(&mut [0; 4]));
            let printable = matches!(char, ' '..='~') && char != '"' && char != '\\';
            assert_eq!(alone.len() == 1, printable);
            for before in 0..18 {
                let (before, after) = ("x".repeat(before), "y".repeat(17 - before));
                let mut out = String::new();
                push_escaped(&mut out, &format!("{before}{char}{char}{after}"));
                assert_eq!(out, format!("{before}{alone}{alone}{after}"));
                let literal = Literal { body: &out, escaped: true };
                assert_eq!(literal.to_str().unwrap(), format!("{before}{char}{char}{after}"));
            }
        }
        for body in ["\\ud800", "\\ud83dx\\ude00", "a\\udc00\\ud800", "\\ud83d\\n\\ude00"] {
            assert_eq!(Literal { body, escaped: true }.to_str(), None);
        }
    }

    #[test]
    fn a_value_ends_where_python_ends_it() {
        for (text, raw) in [
            ("1 ", Ok("1")),
            (" {\"a\" : [1, {\"b\":[]}], \"c\":{}} ", Ok("{\"a\" : [1, {\"b\":[]}], \"c\":{}}")),
            ("[1,]", Err(JsonErrorKind::Unexpected)),
            ("{,}", Err(JsonErrorKind::Unexpected)),
            ("{\"a\":1,}", Err(JsonErrorKind::Unexpected)),
            ("[1 2]", Err(JsonErrorKind::Unexpected)),
            ("[1}", Err(JsonErrorKind::Unexpected)),
            ("[", Err(JsonErrorKind::Unexpected)),
            ("\"\\x\"", Err(JsonErrorKind::InvalidString)),
            ("\"a", Err(JsonErrorKind::InvalidString)),
            ("\"\\ud8", Err(JsonErrorKind::InvalidString)),
            ("\"\\u+123\"", Err(JsonErrorKind::InvalidString)),
            ("-", Err(JsonErrorKind::Unexpected)),
            ("tru", Err(JsonErrorKind::Unexpected)),
        ] {
            assert_eq!(Scanner::new(text).raw_value().map_err(|error| error.kind()), raw, "{text}");
        }
        // The rest after a number is somebody else's error.
        for text in ["1.", "1e", "1e+", "01", "1.e5", "0x1", "1_0"] {
            let mut scanner = Scanner::new(text);
            scanner.raw_value().unwrap();
            assert!(scanner.end().is_err(), "{text}");
        }
    }

    #[test]
    fn strings_end_at_the_right_quote_wherever_it_falls_in_a_word() {
        for length in 0..40 {
            for special in ["\\\"", "\\\\", "\\u0041", ""] {
                let body = format!("{}{special}{}", "x".repeat(length), "y".repeat(length % 7));
                let text = format!("\"{body}\"z");
                let mut scanner = Scanner::new(&text);
                scanner.expect(b'"').unwrap();
                assert_eq!(scanner.string().unwrap().body, body);
            }
            let text = format!("\"{}\n\"", "x".repeat(length));
            assert!(Scanner::new(&text).raw_value().is_err());
        }
    }
}
