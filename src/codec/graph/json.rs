//! Objects as JSON text, and JSON text as objects.
//!
//! [`Rules::Strict`] is what `json.dumps` does, and so Django's `JSONSerializer`: what has no JSON form is
//! an error. [`Rules::Django`] is `DjangoJSONEncoder`. [`Rules::Readable`] also writes dates, decimals and the like as text, for reading only.

use std::borrow::Cow;
use std::collections::HashSet;

use super::value::{Dict, Items, Kind, Text, Value};
use super::{Graph, Node, NodeId};
use crate::codec::json::{self, Literal, Number, Scanner, Token};
use crate::codec::value::ValueError;

/// What becomes JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// What `json.dumps` writes with `django.core.serializers.json.DjangoJSONEncoder`.
    #[cfg(feature = "cache")]
    Django,
    /// What `json.dumps` writes.
    Strict,
    /// Whatever a text, number or list can stand for.
    Readable,
}

/// A shared object is written wherever it occurs, so a small pickle can be a very long text.
const MAX_LENGTH: usize = crate::codec::DEFAULT_MAX_SIZE;

/// How long a text may become: sharing multiplies, but not like that.
fn max_length(graph: &Graph) -> usize {
    let size = graph.byte_len().saturating_add(graph.len().saturating_mul(16));
    MAX_LENGTH.min(size.saturating_mul(100).saturating_add(1 << 20))
}

/// One value as JSON text.
pub(super) fn to_json(value: Value<'_>, rules: Rules) -> Result<String, ValueError> {
    let mut out = String::new();
    push_json(&mut out, value, rules)
        .map_err(|kind| ValueError(format!("{kind} has no JSON form")))?;
    Ok(out)
}

/// What a list or dict consists of.
enum Parts<'a> {
    Items(Items<'a>),
    Pairs(Dict<'a>),
}

/// A list or dict that is being written.
struct Open<'a> {
    container: Value<'a>,
    parts: Parts<'a>,
    next: usize,
}

/// Appends one value; the error is what stands in the way. What was there before counts for the limit.
pub(crate) fn push_json(
    out: &mut String,
    value: Value<'_>,
    rules: Rules,
) -> Result<(), &'static str> {
    let limit = max_length(value.graph());
    let mut open: Vec<Open<'_>> = Vec::new();
    // Found out at once, because nothing else bounds what is held for containers that are open.
    let mut inside = HashSet::new();
    let mut current = Some(value);
    loop {
        if out.len() > limit {
            return Err("a value that is too long as JSON");
        }
        if let Some(value) = current.take()
            && let Some(parts) = push_scalar(out, value, rules)?
        {
            if !inside.insert(value.id()) {
                return Err("a value that contains itself");
            }
            if open.len() == json::MAX_DEPTH {
                return Err("a value that nests too deep");
            }
            out.push(if matches!(parts, Parts::Items(_)) { '[' } else { '{' });
            open.push(Open { container: value, parts, next: 0 });
        }
        let Some(Open { container, parts, next }) = open.last_mut() else { return Ok(()) };
        match parts {
            Parts::Items(items) => {
                current = items.get(*next);
                out.push_str(separator(*next, current.is_some(), "]"));
            }
            Parts::Pairs(pairs) => {
                let pair = pairs.get_index(*next);
                out.push_str(separator(*next, pair.is_some(), "}"));
                if let Some((key, value)) = pair {
                    push_key(out, key)?;
                    out.push(':');
                    current = Some(value);
                }
            }
        }
        *next += 1;
        if current.is_none() {
            inside.remove(&container.id());
            open.pop();
        }
    }
}

/// What stands before an entry, or behind the last one.
fn separator(index: usize, more: bool, close: &'static str) -> &'static str {
    match (index, more) {
        (_, false) => close,
        (0, true) => "",
        (_, true) => ",",
    }
}

/// Appends what is no list and no dict; those are returned to be walked.
fn push_scalar<'a>(
    out: &mut String,
    value: Value<'a>,
    rules: Rules,
) -> Result<Option<Parts<'a>>, &'static str> {
    let readable = rules == Rules::Readable;
    match value.kind() {
        Kind::None => out.push_str("null"),
        Kind::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        Kind::Int(number) => match number.to_decimal() {
            Some(text) => out.push_str(&text),
            None => return Err("an integer of more than 4300 digits"),
        },
        Kind::Float(number) => json::push_f64(out, number),
        Kind::Str(text) | Kind::SafeString(text) => push_text(out, text),
        Kind::Py2Str(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => json::push_string(out, text),
            Err(_) => return Err("a byte string"),
        },
        Kind::List(items) | Kind::Tuple(items) => return Ok(Some(Parts::Items(items))),
        Kind::Dict(pairs)
        | Kind::OrderedDict(pairs)
        | Kind::Counter(pairs)
        | Kind::DefaultDict(pairs, _) => {
            return Ok(Some(Parts::Pairs(pairs)));
        }
        Kind::Set(items) | Kind::FrozenSet(items) | Kind::Deque(items, _) if readable => {
            return Ok(Some(Parts::Items(items)));
        }
        Kind::Bytes(bytes) | Kind::ByteArray(bytes) if readable => {
            let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
            out.push('[');
            out.push_str(&numbers.join(","));
            out.push(']');
        }
        Kind::DateTime(moment) if readable => json::push_string(out, &moment.isoformat()),
        Kind::Date(date) if readable => json::push_string(out, &date.isoformat()),
        Kind::Time(time) if readable => json::push_string(out, &time.isoformat()),
        Kind::TimeDelta(delta) if readable => json::push_string(out, &delta.isoformat()),
        Kind::Decimal(text) if readable => json::push_string(out, text),
        Kind::Uuid(number) if readable => json::push_string(out, &uuid_text(number)),
        #[cfg(feature = "cache")]
        kind if rules == Rules::Django => json::push_string(out, &django_text(&kind)?),
        kind => return Err(kind.description()),
    }
    Ok(None)
}

/// The text that `DjangoJSONEncoder` makes of what `json.dumps` refuses.
#[cfg(feature = "cache")]
fn django_text(kind: &Kind<'_>) -> Result<String, &'static str> {
    // Where it is not zero, the fraction of a second has six digits, of which three are kept.
    let mut text = match kind {
        Kind::DateTime(moment) => {
            if moment.time_zone.is_some() && moment.utcoffset().is_none() {
                return Err("a datetime in an unknown time zone");
            }
            let mut text = moment.isoformat();
            if text.as_bytes().get(19) == Some(&b'.') {
                text.replace_range(23..26, "");
            }
            text
        }
        Kind::Time(time) if time.time_zone.is_some() => return Err("a time with a time zone"),
        Kind::Time(time) => {
            let mut text = time.isoformat();
            text.truncate(12);
            text
        }
        Kind::Date(date) => date.isoformat(),
        Kind::TimeDelta(delta) => delta.isoformat(),
        Kind::Decimal(text) => (*text).to_owned(),
        Kind::Uuid(number) => uuid_text(*number),
        kind => return Err(kind.description()),
    };
    if matches!(kind, Kind::DateTime(_)) && text.ends_with("+00:00") {
        text.truncate(text.len() - 6);
        text.push('Z');
    }
    Ok(text)
}

fn uuid_text(number: u128) -> String {
    let digits = format!("{number:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20]];
    format!("{}-{}", parts.join("-"), &digits[20..])
}

impl Kind<'_> {
    /// In words that tell nothing about the value.
    pub(crate) fn description(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Complex(..) => "a complex number",
            Self::Str(_) | Self::SafeString(_) => "text",
            Self::Py2Str(_) | Self::Bytes(_) | Self::ByteArray(_) => "a byte string",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Set(_) | Self::FrozenSet(_) => "a set",
            Self::Deque(..) => "a deque",
            Self::Range(_) => "a range",
            Self::Dict(_) | Self::OrderedDict(_) | Self::Counter(_) | Self::DefaultDict(..) => {
                "a dict"
            }
            Self::DateTime(_) => "a datetime",
            Self::Date(_) => "a date",
            Self::Time(_) => "a time",
            Self::TimeDelta(_) => "a timedelta",
            Self::TimeZone(_) => "a time zone",
            Self::Decimal(_) => "a Decimal",
            Self::Uuid(_) => "a UUID",
            Self::Global(_) => "a class or function",
            Self::Object(_) => "an object of another class",
        }
    }
}

/// Keys as `json.dumps` writes them.
pub(crate) fn push_key(out: &mut String, key: Value<'_>) -> Result<(), &'static str> {
    match key.kind() {
        Kind::Str(text) | Kind::SafeString(text) => {
            push_text(out, text);
            return Ok(());
        }
        Kind::Py2Str(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => {
                json::push_string(out, text);
                return Ok(());
            }
            Err(_) => return Err("a key of bytes"),
        },
        Kind::None | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => {}
        _ => return Err("a key of this type"),
    }
    out.push('"');
    push_scalar(out, key, Rules::Strict)?;
    out.push('"');
    Ok(())
}

fn push_text(out: &mut String, text: Text<'_>) {
    out.push('"');
    push_escaped(out, text.as_bytes());
    out.push('"');
}

/// Appends the inside of a string literal, from UTF-8 that may hold lone surrogates.
pub(crate) fn push_escaped(out: &mut String, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let valid = match std::str::from_utf8(rest) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let (text, after) = rest.split_at(valid);
        json::push_escaped(out, std::str::from_utf8(text).unwrap_or_default());
        // Readers let nothing else through.
        let [0xed, middle, low, after @ ..] = after else { return };
        json::push_unit(out, 0xd000 | u16::from(middle & 0x3f) << 6 | u16::from(low & 0x3f));
        rest = after;
    }
}

impl Graph {
    /// Appends the value of JSON text that has been checked.
    pub(crate) fn push_json(&mut self, text: &str) -> NodeId {
        // Checked text scans without an error.
        self.push_scanned(&mut Scanner::new(text)).unwrap_or(NodeId::NONE)
    }

    fn push_scanned(&mut self, scanner: &mut Scanner<'_>) -> Result<NodeId, json::JsonError> {
        // The containers that are open, and for a dict the key whose value comes next.
        let mut open: Vec<(NodeId, Option<NodeId>)> = Vec::new();
        loop {
            let mut done = match scanner.token()? {
                Token::Null => NodeId::NONE,
                Token::True => NodeId::TRUE,
                Token::False => NodeId::FALSE,
                Token::Number => {
                    let number = scanner.number()?;
                    self.push_number(number)
                }
                Token::String => {
                    let literal = scanner.string()?;
                    self.push_literal(literal)
                }
                Token::List => {
                    let list = self.push(Node::List(Vec::new()));
                    if !scanner.eat(b']') {
                        open.push((list, None));
                        continue;
                    }
                    list
                }
                Token::Object => {
                    let dict = self.push(Node::Dict(Vec::new()));
                    if !scanner.eat(b'}') {
                        let key = scanner.member_name()?;
                        let key = self.push_literal(key);
                        open.push((dict, Some(key)));
                        continue;
                    }
                    dict
                }
            };
            loop {
                let Some((container, key)) = open.last_mut() else { return Ok(done) };
                let container = *container;
                match (self.node_mut(container), *key) {
                    (Node::Dict(pairs), Some(key)) => pairs.push((key, done)),
                    (Node::List(items), _) => items.push(done),
                    _ => {}
                }
                if scanner.eat(b',') {
                    if key.is_some() {
                        let name = scanner.member_name()?;
                        let name = self.push_literal(name);
                        if let Some((_, key)) = open.last_mut() {
                            *key = Some(name);
                        }
                    }
                    break;
                }
                scanner.expect(if key.is_some() { b'}' } else { b']' })?;
                open.pop();
                done = container;
            }
        }
    }

    fn push_number(&mut self, number: Number<'_>) -> NodeId {
        let Number::Integer(text) = number else { return self.push(Node::Float(number.to_f64())) };
        if let Ok(number) = text.parse() {
            return self.push(Node::Int(number));
        }
        match super::decimal::to_twos_complement(text) {
            Some(bytes) => {
                let span = self.push_bytes(&bytes);
                self.push(Node::Long(span))
            }
            // Not reached: the scanner has counted the digits.
            None => self.push(Node::Float(number.to_f64())),
        }
    }

    /// Appends the text of a literal.
    pub(crate) fn push_literal(&mut self, literal: Literal<'_>) -> NodeId {
        let span = self.push_bytes(&literal_bytes(literal));
        self.push(Node::Str(span))
    }
}

/// The text of a literal as UTF-8, which may hold lone surrogates.
pub(crate) fn literal_bytes(literal: Literal<'_>) -> Cow<'_, [u8]> {
    match literal.to_str() {
        Some(Cow::Borrowed(text)) => return Cow::Borrowed(text.as_bytes()),
        Some(Cow::Owned(text)) => return Cow::Owned(text.into_bytes()),
        None => {}
    }
    let mut bytes = Vec::with_capacity(literal.body.len());
    for unit in char::decode_utf16(literal.units()) {
        match unit {
            Ok(char) => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(lone) => bytes.extend_from_slice(&surrogate(lone.unpaired_surrogate())),
        }
    }
    Cow::Owned(bytes)
}

/// The three bytes of a surrogate.
pub(crate) fn surrogate(unit: u16) -> [u8; 3] {
    let [high, low] = unit.to_be_bytes();
    [0xe0 | high >> 4, 0x80 | (high & 0xf) << 2 | low >> 6, 0x80 | low & 0x3f]
}
