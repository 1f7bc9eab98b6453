//! msgpack as django-redis writes and reads it: `msgpack.dumps(value)`, `msgpack.loads(value, raw=False)`.
//!
//! Of the crate `rmp` only the markers and the shortest forms are taken, which know nothing of nesting.
//! Reading checks every claimed length against what is left before it makes room, and neither direction
//! recurses. A map whose keys are not text or bytes is refused in both, since the Python side refuses to
//! read one (`strict_map_key`); so are extension types, time stamps among them, which no session has.

use std::convert::Infallible;

use rmp::Marker;
use rmp::encode::{self, ByteBuf, ValueWriteError};
use thiserror::Error;

use crate::codec::graph::{Dict, Graph, Items, Kind, Node, NodeId, Value};
use crate::codec::pickle::{DEFAULT_PROTOCOL, Limits};
use crate::codec::{DEFAULT_MAX_SIZE, SessionData};

/// Lists and maps inside each other that the Python side reads.
pub(super) const MAX_DEPTH: usize = 1024;

/// Bytes that are no msgpack, or more than a session holds.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{kind} at byte {offset}")]
pub struct MsgPackError {
    kind: MsgPackErrorKind,
    offset: usize,
}

impl MsgPackError {
    /// What is wrong.
    pub fn kind(&self) -> MsgPackErrorKind {
        self.kind
    }

    /// Where, in bytes from the start of the payload.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

/// The reasons in a [`MsgPackError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MsgPackErrorKind {
    /// A key of a map is neither text nor bytes.
    InvalidKey,
    /// There is no such marker.
    InvalidMarker,
    /// Text is not UTF-8.
    InvalidText,
    /// Lists and maps nest too deep.
    TooDeep,
    /// There are more values than a pickle may have, see [`Limits::nodes`].
    TooLarge,
    /// There are bytes after the value.
    TrailingBytes,
    /// The payload ends early.
    Truncated,
    /// A value is of an extension type.
    Unsupported,
}

impl std::fmt::Display for MsgPackErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InvalidKey => "key that is neither text nor bytes",
            Self::InvalidMarker => "no such marker",
            Self::InvalidText => "text that is not UTF-8",
            Self::TooDeep => "too many levels",
            Self::TooLarge => "too many values",
            Self::TrailingBytes => "bytes after the value",
            Self::Truncated => "the payload ends early",
            Self::Unsupported => "extension type",
        })
    }
}

/// Reads one value.
pub(crate) fn read(payload: &[u8]) -> Result<Graph, MsgPackError> {
    let graph = Graph::over(payload.to_vec(), DEFAULT_PROTOCOL);
    Reader { payload, at: 0, graph, values: 0 }.read()
}

struct Reader<'a> {
    payload: &'a [u8],
    at: usize,
    /// Its bytes are the payload.
    graph: Graph,
    values: usize,
}

/// A list or map that is being read.
struct Open {
    id: NodeId,
    /// Items or pairs that are still to come.
    left: usize,
    is_map: bool,
    /// The key whose value comes next.
    key: Option<NodeId>,
}

/// What a marker begins.
enum Begun {
    Done(NodeId),
    List(usize),
    Map(usize),
}

impl Reader<'_> {
    fn read(mut self) -> Result<Graph, MsgPackError> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let start = self.at;
            let is_key = open.last().is_some_and(|top| top.is_map && top.key.is_none());
            let begun = self.value()?;
            let (node, left, is_map) = match begun {
                Begun::Done(id) => {
                    if is_key {
                        if !matches!(self.graph.node(id), Node::Str(_) | Node::Bytes(_)) {
                            return Err(error(MsgPackErrorKind::InvalidKey, start));
                        }
                        if let Some(top) = open.last_mut() {
                            top.key = Some(id);
                        }
                        continue;
                    }
                    if let Some(root) = self.close(&mut open, id) {
                        return self.finish(root);
                    }
                    continue;
                }
                Begun::List(left) => (Node::List(Vec::new()), left, false),
                Begun::Map(left) => (Node::Dict(Vec::new()), left, true),
            };
            if is_key {
                return Err(error(MsgPackErrorKind::InvalidKey, start));
            }
            if open.len() == MAX_DEPTH {
                return Err(error(MsgPackErrorKind::TooDeep, start));
            }
            // Every item takes a byte at least.
            let least = if is_map { left.saturating_mul(2) } else { left };
            if least > self.payload.len() - self.at {
                return Err(error(MsgPackErrorKind::Truncated, start));
            }
            let id = self.graph.push(node);
            if left > 0 {
                open.push(Open { id, left, is_map, key: None });
            } else if let Some(root) = self.close(&mut open, id) {
                return self.finish(root);
            }
        }
    }

    /// Puts a complete value where it belongs; returns the outermost one once that is complete.
    fn close(&mut self, open: &mut Vec<Open>, mut done: NodeId) -> Option<NodeId> {
        loop {
            let Some(top) = open.last_mut() else { return Some(done) };
            match (self.graph.node_mut(top.id), top.key.take()) {
                (Node::Dict(pairs), Some(key)) => pairs.push((key, done)),
                (Node::List(items), _) => items.push(done),
                _ => {}
            }
            top.left -= 1;
            if top.left > 0 {
                return None;
            }
            done = top.id;
            open.pop();
        }
    }

    fn finish(mut self, root: NodeId) -> Result<Graph, MsgPackError> {
        if self.at < self.payload.len() {
            return Err(error(MsgPackErrorKind::TrailingBytes, self.at));
        }
        self.graph.set_root(root);
        Ok(self.graph)
    }

    fn value(&mut self) -> Result<Begun, MsgPackError> {
        let start = self.at;
        self.values += 1;
        if self.values > Limits::default().nodes {
            return Err(error(MsgPackErrorKind::TooLarge, start));
        }
        let node = match Marker::from_u8(self.number::<1>()?[0]) {
            Marker::Null => return Ok(Begun::Done(NodeId::NONE)),
            Marker::False => return Ok(Begun::Done(NodeId::FALSE)),
            Marker::True => return Ok(Begun::Done(NodeId::TRUE)),
            Marker::FixPos(number) => Node::Int(number.into()),
            Marker::FixNeg(number) => Node::Int(number.into()),
            Marker::U8 => Node::Int(u8::from_be_bytes(self.number()?).into()),
            Marker::U16 => Node::Int(u16::from_be_bytes(self.number()?).into()),
            Marker::U32 => Node::Int(u32::from_be_bytes(self.number()?).into()),
            Marker::U64 => {
                let number = u64::from_be_bytes(self.number()?);
                self.large(number)
            }
            Marker::I8 => Node::Int(i8::from_be_bytes(self.number()?).into()),
            Marker::I16 => Node::Int(i16::from_be_bytes(self.number()?).into()),
            Marker::I32 => Node::Int(i32::from_be_bytes(self.number()?).into()),
            Marker::I64 => Node::Int(i64::from_be_bytes(self.number()?)),
            Marker::F32 => Node::Float(f32::from_be_bytes(self.number()?).into()),
            Marker::F64 => Node::Float(f64::from_be_bytes(self.number()?)),
            Marker::FixStr(length) => self.text(length.into())?,
            Marker::Str8 => self.length::<1>().and_then(|length| self.text(length))?,
            Marker::Str16 => self.length::<2>().and_then(|length| self.text(length))?,
            Marker::Str32 => self.length::<4>().and_then(|length| self.text(length))?,
            Marker::Bin8 => self.length::<1>().and_then(|length| self.binary(length))?,
            Marker::Bin16 => self.length::<2>().and_then(|length| self.binary(length))?,
            Marker::Bin32 => self.length::<4>().and_then(|length| self.binary(length))?,
            Marker::FixArray(length) => return Ok(Begun::List(length.into())),
            Marker::Array16 => return self.length::<2>().map(Begun::List),
            Marker::Array32 => return self.length::<4>().map(Begun::List),
            Marker::FixMap(length) => return Ok(Begun::Map(length.into())),
            Marker::Map16 => return self.length::<2>().map(Begun::Map),
            Marker::Map32 => return self.length::<4>().map(Begun::Map),
            Marker::Reserved => return Err(error(MsgPackErrorKind::InvalidMarker, start)),
            Marker::Ext8
            | Marker::Ext16
            | Marker::Ext32
            | Marker::FixExt1
            | Marker::FixExt2
            | Marker::FixExt4
            | Marker::FixExt8
            | Marker::FixExt16 => return Err(error(MsgPackErrorKind::Unsupported, start)),
        };
        Ok(Begun::Done(self.graph.push(node)))
    }

    fn number<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], MsgPackError> {
        match self.payload[self.at..].first_chunk() {
            Some(bytes) => {
                self.at += LENGTH;
                Ok(*bytes)
            }
            None => Err(error(MsgPackErrorKind::Truncated, self.at)),
        }
    }

    fn length<const LENGTH: usize>(&mut self) -> Result<usize, MsgPackError> {
        let bytes = self.number::<LENGTH>()?;
        Ok(bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)))
    }

    fn text(&mut self, length: usize) -> Result<Node, MsgPackError> {
        let start = self.skip(length)?;
        match std::str::from_utf8(&self.payload[start..self.at]) {
            Ok(_) => Ok(Node::Str(Graph::span(start, length))),
            Err(_) => Err(error(MsgPackErrorKind::InvalidText, start)),
        }
    }

    fn binary(&mut self, length: usize) -> Result<Node, MsgPackError> {
        let start = self.skip(length)?;
        Ok(Node::Bytes(Graph::span(start, length)))
    }

    /// Passes over bytes and tells where they start.
    fn skip(&mut self, length: usize) -> Result<usize, MsgPackError> {
        if length > self.payload.len() - self.at {
            return Err(error(MsgPackErrorKind::Truncated, self.at));
        }
        self.at += length;
        Ok(self.at - length)
    }

    fn large(&mut self, number: u64) -> Node {
        if let Ok(number) = i64::try_from(number) {
            return Node::Int(number);
        }
        // One byte more, for the sign.
        let mut bytes = [0; 9];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Node::Long(self.graph.push_bytes(&bytes))
    }
}

fn error(kind: MsgPackErrorKind, offset: usize) -> MsgPackError {
    MsgPackError { kind, offset }
}

/// A list or map that is being written.
enum Pending<'a> {
    Items { items: Items<'a>, next: usize },
    Pairs { pairs: Vec<(Value<'a>, Value<'a>)>, next: usize },
}

/// Writes a session; the error is what stands in the way.
pub(super) fn write(data: &SessionData) -> Result<Vec<u8>, &'static str> {
    let data = data.as_python();
    let mut out = ByteBuf::new();
    let pairs: Vec<_> = data.objects().collect();
    written(encode::write_map_len(&mut out, length(pairs.len())?));
    let mut pending = vec![Pending::Pairs { pairs, next: 0 }];
    while let Some(top) = pending.last_mut() {
        // Shared objects are written wherever they occur.
        if out.as_slice().len() > DEFAULT_MAX_SIZE {
            return Err("a value that is too long as msgpack");
        }
        let value = match top {
            Pending::Items { items, next } => {
                *next += 1;
                items.get(*next - 1)
            }
            Pending::Pairs { pairs, next } => {
                *next += 1;
                match pairs.get(*next - 1) {
                    None => None,
                    Some(&(key, value)) => {
                        write_key(&mut out, key)?;
                        Some(value)
                    }
                }
            }
        };
        match value {
            None => {
                pending.pop();
            }
            Some(value) => {
                if let Some(begun) = write_value(&mut out, value)? {
                    if pending.len() == MAX_DEPTH {
                        return Err("a value that nests too deep or contains itself");
                    }
                    pending.push(begun);
                }
            }
        }
    }
    Ok(out.into_vec())
}

fn write_key(out: &mut ByteBuf, key: Value<'_>) -> Result<(), &'static str> {
    match key.kind() {
        Kind::Str(_) | Kind::SafeString(_) | Kind::Py2Str(_) | Kind::Bytes(_) => {
            write_value(out, key).map(|_| ())
        }
        _ => Err("a key of this type"),
    }
}

/// Writes what is no list and no map; of those the head, and they are returned to be walked.
fn write_value<'a>(
    out: &mut ByteBuf,
    value: Value<'a>,
) -> Result<Option<Pending<'a>>, &'static str> {
    match value.kind() {
        Kind::None => {
            let Ok(()) = encode::write_nil(out);
        }
        Kind::Bool(value) => {
            let Ok(()) = encode::write_bool(out, value);
        }
        Kind::Int(number) => match (number.to_i64(), number.to_u128().map(u64::try_from)) {
            (Some(number), _) => written(encode::write_sint(out, number)),
            (None, Some(Ok(number))) => written(encode::write_uint(out, number)),
            _ => return Err("an integer of more than 64 bits"),
        },
        Kind::Float(number) => written(encode::write_f64(out, number)),
        Kind::Str(text) | Kind::SafeString(text) => match text.to_str() {
            Some(text) => write_text(out, text)?,
            None => return Err("text that is not Unicode"),
        },
        Kind::Py2Str(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => write_text(out, text)?,
            Err(_) => return Err("a byte string of Python 2"),
        },
        Kind::Bytes(bytes) | Kind::ByteArray(bytes) => {
            written(encode::write_bin_len(out, length(bytes.len())?));
            out.as_mut_vec().extend_from_slice(&bytes);
        }
        Kind::List(items) | Kind::Tuple(items) => {
            written(encode::write_array_len(out, length(items.len())?));
            return Ok(Some(Pending::Items { items, next: 0 }));
        }
        Kind::Dict(dict)
        | Kind::OrderedDict(dict)
        | Kind::Counter(dict)
        | Kind::DefaultDict(dict, _) => {
            written(encode::write_map_len(out, length(dict.len())?));
            return Ok(Some(Pending::Pairs { pairs: Dict::iter(&dict).collect(), next: 0 }));
        }
        kind => return Err(kind.description()),
    }
    Ok(None)
}

fn write_text(out: &mut ByteBuf, text: &str) -> Result<(), &'static str> {
    written(encode::write_str_len(out, length(text.len())?));
    out.as_mut_vec().extend_from_slice(text.as_bytes());
    Ok(())
}

fn length(length: usize) -> Result<u32, &'static str> {
    u32::try_from(length).map_err(|_| "a value that is too long as msgpack")
}

/// Writing to memory does not fail, which the type of the error says.
fn written<T>(result: Result<T, ValueWriteError<Infallible>>) {
    let Ok(_) = result.map_err(|error| match error {
        ValueWriteError::InvalidDataWrite(never) | ValueWriteError::InvalidMarkerWrite(never) => {
            never
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_refuses_is_refused() {
        for (payload, kind, offset) in [
            (&b""[..], MsgPackErrorKind::Truncated, 0),
            (b"\x81\x01\x02", MsgPackErrorKind::InvalidKey, 1),
            (b"\x81\xc0\x02", MsgPackErrorKind::InvalidKey, 1),
            (b"\x81\x80\x02", MsgPackErrorKind::InvalidKey, 1),
            (b"\xc1", MsgPackErrorKind::InvalidMarker, 0),
            (b"\x81\xa1\xff\x01", MsgPackErrorKind::InvalidText, 2),
            (b"\xa3\xed\xa0\x80", MsgPackErrorKind::InvalidText, 1),
            (b"\x80\x80", MsgPackErrorKind::TrailingBytes, 1),
            (b"\xdf\xff\xff\xff\xff", MsgPackErrorKind::Truncated, 0),
            (b"\xdd\xff\xff\xff\xff\xc0", MsgPackErrorKind::Truncated, 0),
            (b"\xdb\xff\xff\xff\xff", MsgPackErrorKind::Truncated, 5),
            (b"\xc6\xff\xff\xff\xff", MsgPackErrorKind::Truncated, 5),
            (b"\xd6\xff\0\0\0\0", MsgPackErrorKind::Unsupported, 0),
            (b"\xd4\x05a", MsgPackErrorKind::Unsupported, 0),
        ] {
            assert_eq!(read(payload).unwrap_err(), MsgPackError { kind, offset }, "{payload:x?}");
        }
    }

    #[test]
    fn no_payload_takes_more_than_its_share() {
        for levels in [MAX_DEPTH, MAX_DEPTH + 1] {
            let mut payload = vec![0x91; levels];
            payload.push(0xc0);
            let found = read(&payload).map(|_| ()).map_err(|error| error.kind());
            let expected = if levels > MAX_DEPTH { Err(MsgPackErrorKind::TooDeep) } else { Ok(()) };
            assert_eq!(found, expected);
        }
        let mut payload = b"\xdd\x00\x20\x00\x00".to_vec();
        payload.resize(5 + (2 << 20), 0xc0);
        assert_eq!(read(&payload).unwrap_err().kind(), MsgPackErrorKind::TooLarge);
    }
}
