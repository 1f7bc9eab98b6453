//! JSON text as opcodes, without objects in between.
//!
//! The result is what a graph of the same values would be written as, up to two things that no reader can
//! tell: a container with one entry gets the opcode for many, because the text does not say beforehand how
//! many there are, and names that occur again are fetched, as Python's own pickles of what its `json` read
//! do it.

use super::opcodes::{BATCH, MAX_MARKS, Opcodes};
use super::{PickleError, PickleErrorKind};
use crate::codec::graph::decimal::to_twos_complement;
use crate::codec::graph::literal_bytes;
use crate::codec::json::{JsonError, Literal, Number, Scanner, Token};

/// A list or dict that is being written.
struct Open {
    is_dict: bool,
    /// How many entries are done.
    entries: usize,
}

/// How many names are looked for when one occurs.
const NAMES: usize = 64;

/// Names that were written lately, each in the one place that is its own.
struct Names<'a>([Option<(&'a str, u32)>; NAMES]);

impl<'a> Names<'a> {
    fn place(&mut self, name: &str) -> &mut Option<(&'a str, u32)> {
        let bytes = name.as_bytes();
        let edge = |byte: Option<&u8>| byte.map_or(0, |&byte| usize::from(byte));
        let hash = bytes.len() * 5 + edge(bytes.first()) * 3 + edge(bytes.last()) * 7;
        &mut self.0[hash % NAMES]
    }
}

struct Writer<'a> {
    to: Opcodes,
    names: Names<'a>,
}

/// Writes a dict of names and values, the names as they stand between the quotes, and all of it checked.
pub(super) fn write<'a>(
    entries: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    length: usize,
    protocol: u8,
) -> Result<Vec<u8>, PickleError> {
    let mut writer = Writer { to: Opcodes::new(protocol, length), names: Names([None; NAMES]) };
    writer.to.push(b'}');
    let count = entries.len();
    for (index, (name, json)) in entries.enumerate() {
        if index.is_multiple_of(BATCH) {
            writer.to.push(b'(');
        }
        writer.name(Literal { body: name, escaped: name.contains('\\') });
        writer.value(&mut Scanner::new(json))?;
        if (index + 1).is_multiple_of(BATCH) || index + 1 == count {
            writer.to.push(b'u');
        }
    }
    writer.to.push(b'.');
    Ok(writer.to.out)
}

impl<'a> Writer<'a> {
    fn value(&mut self, scanner: &mut Scanner<'a>) -> Result<(), PickleError> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let begun = match scanner.token()? {
                Token::Null => self.scalar(|to| to.push(b'N')),
                Token::True => self.scalar(|to| to.bool(true)),
                Token::False => self.scalar(|to| to.bool(false)),
                Token::Number => {
                    let number = scanner.number()?;
                    self.scalar(|to| push_number(to, number))
                }
                Token::String => {
                    let literal = scanner.string()?;
                    self.scalar(|to| to.text(&literal_bytes(literal)))
                }
                Token::List => self.begin(b']', !scanner.eat(b']')),
                Token::Object => self.begin(b'}', !scanner.eat(b'}')),
            };
            if let Some(is_dict) = begun {
                open.push(Open { is_dict, entries: 0 });
                // One is the session's own.
                if open.len() >= MAX_MARKS {
                    return Err(PickleError { kind: PickleErrorKind::TooDeep, offset: 0 });
                }
                if is_dict {
                    self.name(scanner.member_name()?);
                }
                continue;
            }
            loop {
                let Some(Open { is_dict, entries }) = open.last_mut() else { return Ok(()) };
                let is_dict = *is_dict;
                *entries += 1;
                let (end, opcode) = if is_dict { (b'}', b'u') } else { (b']', b'e') };
                if scanner.eat(b',') {
                    if entries.is_multiple_of(BATCH) {
                        self.to.out.extend([opcode, b'(']);
                    }
                    if is_dict {
                        self.name(scanner.member_name()?);
                    }
                    break;
                }
                scanner.expect(end)?;
                self.to.push(opcode);
                open.pop();
            }
        }
    }

    fn scalar(&mut self, write: impl FnOnce(&mut Opcodes)) -> Option<bool> {
        write(&mut self.to);
        None
    }

    /// Begins a container, and says whether it is a dict if there is anything in it.
    fn begin(&mut self, opcode: u8, has_entries: bool) -> Option<bool> {
        self.to.push(opcode);
        has_entries.then(|| {
            self.to.push(b'(');
            opcode == b'}'
        })
    }

    fn name(&mut self, literal: Literal<'a>) {
        let place = self.names.place(literal.body);
        if let Some((name, number)) = *place
            && name == literal.body
        {
            self.to.fetch(number);
            return;
        }
        self.to.text(&literal_bytes(literal));
        *place = Some((literal.body, self.to.remember()));
    }
}

fn push_number(to: &mut Opcodes, number: Number<'_>) {
    let Number::Integer(text) = number else { return to.float(number.to_f64()) };
    if let Ok(number) = text.parse() {
        return to.int(number);
    }
    match to_twos_complement(text) {
        Some(bytes) => to.long(&bytes),
        // Not reached: the scanner has counted the digits.
        None => to.float(number.to_f64()),
    }
}

/// Not reached: the text has been checked.
impl From<JsonError> for PickleError {
    fn from(error: JsonError) -> Self {
        Self { kind: PickleErrorKind::InvalidArgument, offset: error.offset() }
    }
}
