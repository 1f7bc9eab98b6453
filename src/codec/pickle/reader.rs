//! The unpickling machine, with nodes in place of objects.
//!
//! Follows `Unpickler` of Python's own `Lib/pickle.py` opcode by opcode. Memory stays within a small multiple
//! of the input: an opcode makes at most one node, a mark is one number, and a length is compared with
//! what is left before anything is taken.

use std::collections::{HashMap, HashSet};

use super::{HIGHEST_PROTOCOL, Limits, PickleError, PickleErrorKind};
use crate::codec::graph::{Graph, Made, Maker, Node, NodeId, Span, Step, decimal, surrogate};

type Result<T> = std::result::Result<T, PickleErrorKind>;

/// Texts may double in length when they are decoded, and spans are 32 bits wide.
const MAX_SIZE: usize = 1 << 30;

pub(super) fn read(pickle: &[u8], limits: &Limits) -> std::result::Result<Graph, PickleError> {
    if pickle.len() > limits.size.min(MAX_SIZE) {
        return Err(PickleError { kind: PickleErrorKind::TooLarge, offset: 0 });
    }
    let mut machine = Machine {
        input: pickle,
        at: 0,
        graph: Graph::over(pickle.to_vec(), 0),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Memo::default(),
        copied: HashSet::new(),
        limits,
    };
    loop {
        let offset = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => {
                machine.graph.set_root(root);
                return Ok(machine.graph);
            }
            Err(kind) => return Err(PickleError { kind, offset }),
        }
    }
}

/// Numbered objects. Python numbers them from 0 on; whoever does not pays for a map.
#[derive(Default)]
struct Memo {
    dense: Vec<NodeId>,
    sparse: HashMap<u64, NodeId>,
}

impl Memo {
    fn set(&mut self, number: u64, id: NodeId) {
        match usize::try_from(number) {
            Ok(index) if index < self.dense.len() => self.dense[index] = id,
            Ok(index) if index == self.dense.len() && !self.sparse.contains_key(&number) => {
                self.dense.push(id);
            }
            _ => {
                self.sparse.insert(number, id);
            }
        }
    }

    fn get(&self, number: u64) -> Result<NodeId> {
        usize::try_from(number)
            .ok()
            .and_then(|index| self.dense.get(index).copied())
            .or_else(|| self.sparse.get(&number).copied())
            .ok_or(PickleErrorKind::UnknownMemo)
    }

    fn len(&self) -> u64 {
        (self.dense.len() + self.sparse.len()) as u64
    }
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    graph: Graph,
    stack: Vec<NodeId>,
    /// Heights of the stack at which something was begun.
    marks: Vec<usize>,
    memo: Memo,
    /// Lists and dicts of which a collection has taken a copy. A change to one of them, which no pickler
    /// writes, would not be one to the copy.
    copied: HashSet<NodeId>,
    limits: &'a Limits,
}

impl<'a> Machine<'a> {
    /// Executes one opcode; the answer is the root, at the end.
    #[expect(clippy::too_many_lines, reason = "one line per opcode")]
    fn step(&mut self) -> Result<Option<NodeId>> {
        let opcode = self.byte()?;
        match opcode {
            b'(' => self.mark()?,
            b'.' => return self.pop().map(Some),
            b'0' => self.discard()?,
            b'1' => {
                self.since_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            b'F' => {
                let number = self.float_line()?;
                self.push(Node::Float(number))?;
            }
            b'I' => self.int_line()?,
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(number.into()))?;
            }
            b'K' => {
                let number = self.byte()?;
                self.push(Node::Int(number.into()))?;
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Node::Int(number.into()))?;
            }
            b'L' => self.long_line()?,
            0x8a => {
                let length = self.byte()?;
                self.long(length.into())?;
            }
            0x8b => {
                let length = self.signed_length()?;
                self.long(length)?;
            }
            b'N' => self.push_id(NodeId::NONE)?,
            0x88 => self.push_id(NodeId::TRUE)?,
            0x89 => self.push_id(NodeId::FALSE)?,
            b'G' => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(Node::Float(number))?;
            }
            b'S' => self.py2_str_line()?,
            b'T' => {
                let length = self.signed_length()?;
                let span = self.take(length)?;
                self.push(Node::Py2Str(span))?;
            }
            b'U' => {
                let span = self.short()?;
                self.push(Node::Py2Str(span))?;
            }
            b'V' => self.unicode_line()?,
            0x8c => {
                let span = self.short()?;
                self.text(span)?;
            }
            b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                let span = self.take(length.into())?;
                self.text(span)?;
            }
            0x8d => {
                let length = u64::from_le_bytes(self.array()?);
                let span = self.take(length)?;
                self.text(span)?;
            }
            b'C' => {
                let span = self.short()?;
                self.push(Node::Bytes(span))?;
            }
            b'B' => {
                let length = u32::from_le_bytes(self.array()?);
                let span = self.take(length.into())?;
                self.push(Node::Bytes(span))?;
            }
            0x8e => {
                let length = u64::from_le_bytes(self.array()?);
                let span = self.take(length)?;
                self.push(Node::Bytes(span))?;
            }
            0x96 => {
                let length = u64::from_le_bytes(self.array()?);
                let span = self.take(length)?;
                self.push(Node::ByteArray(span))?;
            }
            b']' => self.push(Node::List(Vec::new()))?,
            b'l' => {
                let items = self.since_mark()?;
                self.push(Node::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(&items)?;
            }
            b')' => self.push_id(NodeId::EMPTY_TUPLE)?,
            b't' => {
                let items = self.since_mark()?;
                self.tuple(items)?;
            }
            0x85 => {
                let items = vec![self.pop()?];
                self.tuple(items)?;
            }
            0x86 => {
                let second = self.pop()?;
                let items = vec![self.pop()?, second];
                self.tuple(items)?;
            }
            0x87 => {
                let third = self.pop()?;
                let second = self.pop()?;
                let items = vec![self.pop()?, second, third];
                self.tuple(items)?;
            }
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b'd' => {
                let items = self.since_mark()?;
                let pairs = pairs(&items)?;
                self.push(Node::Dict(pairs))?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set_items(&items)?;
            }
            0x8f => self.push(Node::Set(Vec::new()))?,
            0x90 => {
                let items = self.since_mark()?;
                self.add_items(&items)?;
            }
            0x91 => {
                let items = self.since_mark()?;
                self.push(Node::FrozenSet(items))?;
            }
            b'c' => {
                let global = self.global_lines()?;
                self.push(global)?;
            }
            0x93 => {
                let name = self.pop_text()?;
                let module = self.pop_text()?;
                self.push(Node::Global { module, name })?;
            }
            b'R' => {
                let args = self.pop_tuple()?;
                let callable = self.pop()?;
                self.made(Maker::Call { callable, args })?;
            }
            0x81 => {
                let args = self.pop_tuple()?;
                let class = self.pop()?;
                self.made(Maker::New { class, args })?;
            }
            0x92 => {
                let kwargs = self.pop()?;
                let args = self.pop_tuple()?;
                let class = self.pop()?;
                if !matches!(self.graph.node(kwargs), Node::Dict(_)) {
                    return Err(PickleErrorKind::BadOperand);
                }
                self.made(Maker::NewEx { class, args, kwargs })?;
            }
            b'i' => {
                let global = self.global_lines()?;
                let args = self.since_mark()?;
                let class = self.node(global)?;
                let args = self.node(Node::Tuple(args))?;
                self.made(Maker::Instance { class, args })?;
            }
            b'o' => {
                let mut args = self.since_mark()?;
                if args.is_empty() {
                    return Err(PickleErrorKind::StackUnderflow);
                }
                let class = args.remove(0);
                let args = self.node(Node::Tuple(args))?;
                self.made(Maker::Instance { class, args })?;
            }
            b'b' => {
                let state = self.pop()?;
                let top = self.top()?;
                self.steps(top)?.push(Step::SetState(state));
                if self.is_made_by(top, |module, _| module == b"uuid") {
                    self.copied.insert(state);
                }
            }
            b'p' => {
                let number = self.memo_line()?;
                self.remember(number)?;
            }
            b'q' => {
                let number = self.byte()?;
                self.remember(number.into())?;
            }
            b'r' => {
                let number = u32::from_le_bytes(self.array()?);
                self.remember(number.into())?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'g' => {
                let number = self.memo_line()?;
                let id = self.memo.get(number)?;
                self.push_id(id)?;
            }
            b'h' => {
                let number = self.byte()?;
                let id = self.memo.get(number.into())?;
                self.push_id(id)?;
            }
            b'j' => {
                let number = u32::from_le_bytes(self.array()?);
                let id = self.memo.get(number.into())?;
                self.push_id(id)?;
            }
            0x80 => {
                let protocol = self.byte()?;
                if protocol > HIGHEST_PROTOCOL {
                    return Err(PickleErrorKind::Unsupported);
                }
                self.graph.set_protocol(protocol);
            }
            0x95 => {
                let length = u64::from_le_bytes(self.array()?);
                if length > (self.input.len() - self.at) as u64 {
                    return Err(PickleErrorKind::Truncated);
                }
            }
            // PERSID, BINPERSID, EXT1, EXT2, EXT4, NEXT_BUFFER, READONLY_BUFFER.
            b'P' | b'Q' | 0x82..=0x84 | 0x97 | 0x98 => return Err(PickleErrorKind::Unsupported),
            _ => return Err(PickleErrorKind::InvalidOpcode),
        }
        Ok(None)
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = *self.input.get(self.at).ok_or(PickleErrorKind::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.input[self.at..].first_chunk().ok_or(PickleErrorKind::Truncated)?;
        self.at += N;
        Ok(*bytes)
    }

    fn take(&mut self, length: u64) -> Result<Span> {
        let left = self.input.len() - self.at;
        let length = usize::try_from(length).ok().filter(|&length| length <= left);
        let length = length.ok_or(PickleErrorKind::Truncated)?;
        let span = Graph::span(self.at, length);
        self.at += length;
        Ok(span)
    }

    fn short(&mut self) -> Result<Span> {
        let length = self.byte()?;
        self.take(length.into())
    }

    fn signed_length(&mut self) -> Result<u64> {
        let length = i32::from_le_bytes(self.array()?);
        u64::try_from(length).map_err(|_| PickleErrorKind::InvalidArgument)
    }

    /// Up to the next line feed, which is passed over.
    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.input[self.at..];
        let length = memchr::memchr(b'\n', rest).ok_or(PickleErrorKind::Truncated)?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    fn text_line(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.line()?).map_err(|_| PickleErrorKind::InvalidArgument)
    }

    fn node(&mut self, node: Node) -> Result<NodeId> {
        if self.graph.len() >= self.limits.nodes {
            return Err(PickleErrorKind::TooLarge);
        }
        Ok(self.graph.push(node))
    }

    fn push(&mut self, node: Node) -> Result<()> {
        let id = self.node(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn push_id(&mut self, id: NodeId) -> Result<()> {
        if self.stack.len() >= self.limits.nodes {
            return Err(PickleErrorKind::TooLarge);
        }
        self.stack.push(id);
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        if self.marks.len() == self.limits.depth {
            return Err(PickleErrorKind::TooDeep);
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Objects below the last mark are out of reach until it is taken away.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<NodeId> {
        if self.stack.len() <= self.floor() {
            return Err(PickleErrorKind::StackUnderflow);
        }
        self.stack.last().copied().ok_or(PickleErrorKind::StackUnderflow)
    }

    fn pop(&mut self) -> Result<NodeId> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// `POP` takes a mark away too, if that is what lies on top.
    fn discard(&mut self) -> Result<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        let id = self.pop()?;
        self.keep_setter(id);
        Ok(())
    }

    /// A call that is dropped, and got the object that lies below it, has set the state of that object.
    fn keep_setter(&mut self, id: NodeId) {
        let Node::Made(made) = self.graph.node(id) else { return };
        let Maker::Call { args, .. } = made.by else { return };
        let Node::Tuple(args) = self.graph.node(args) else { return };
        let &[object, _] = &args[..] else { return };
        if self.top() == Ok(object)
            && let Node::Made(made) = self.graph.node_mut(object)
        {
            made.steps.push(Step::Call(id));
        }
    }

    fn since_mark(&mut self) -> Result<Vec<NodeId>> {
        let mark = self.marks.pop().ok_or(PickleErrorKind::StackUnderflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn pop_tuple(&mut self) -> Result<NodeId> {
        let id = self.pop()?;
        match self.graph.node(id) {
            Node::Tuple(_) => Ok(id),
            _ => Err(PickleErrorKind::BadOperand),
        }
    }

    fn pop_text(&mut self) -> Result<Span> {
        let id = self.pop()?;
        match *self.graph.node(id) {
            Node::Str(span) => Ok(span),
            _ => Err(PickleErrorKind::BadOperand),
        }
    }

    fn tuple(&mut self, items: Vec<NodeId>) -> Result<()> {
        if items.is_empty() {
            return self.push_id(NodeId::EMPTY_TUPLE);
        }
        self.push(Node::Tuple(items))
    }

    fn made(&mut self, by: Maker) -> Result<()> {
        let id = self.node(Node::Made(Box::new(Made { by, steps: Vec::new() })))?;
        self.stack.push(id);
        self.note_copies(id, by);
        Ok(())
    }

    fn note_copies(&mut self, id: NodeId, by: Maker) {
        let (Maker::Call { args, .. } | Maker::Instance { args, .. }) = by else { return };
        let copies = self.is_made_by(id, |module, _| {
            matches!(module, b"builtins" | b"__builtin__" | b"collections")
        });
        let Node::Tuple(args) = self.graph.node(args) else { return };
        if !copies {
            return;
        }
        for &arg in args {
            match self.graph.node(arg) {
                Node::List(items) if self.copied.insert(arg) => {
                    // The pairs of an `OrderedDict` of Python 2.
                    let is_list = |item: &&NodeId| matches!(self.graph.node(**item), Node::List(_));
                    if self.is_made_by(id, |_, name| name == b"OrderedDict") {
                        self.copied.extend(items.iter().filter(is_list));
                    }
                }
                Node::Dict(_) => {
                    self.copied.insert(arg);
                }
                _ => {}
            }
        }
    }

    /// Whether the class or function that made an object has such a name.
    fn is_made_by(&self, id: NodeId, test: impl Fn(&[u8], &[u8]) -> bool) -> bool {
        let Node::Made(made) = self.graph.node(id) else { return false };
        let (Maker::Call { callable: class, .. }
        | Maker::New { class, .. }
        | Maker::NewEx { class, .. }
        | Maker::Instance { class, .. }) = made.by;
        match *self.graph.node(class) {
            Node::Global { module, name } => {
                test(self.graph.bytes_of(module), self.graph.bytes_of(name))
            }
            _ => false,
        }
    }

    /// An object that is about to be changed.
    fn changed(&self) -> Result<NodeId> {
        let top = self.top()?;
        if self.copied.contains(&top) {
            return Err(PickleErrorKind::BadOperand);
        }
        Ok(top)
    }

    fn remember(&mut self, number: u64) -> Result<()> {
        let top = self.top()?;
        self.memo.set(number, top);
        Ok(())
    }

    fn append(&mut self, items: &[NodeId]) -> Result<()> {
        let top = self.changed()?;
        if let Node::List(list) = self.graph.node_mut(top) {
            list.extend_from_slice(items);
            return Ok(());
        }
        self.steps(top)?.extend(items.iter().copied().map(Step::Append));
        Ok(())
    }

    fn set_items(&mut self, items: &[NodeId]) -> Result<()> {
        let pairs = pairs(items)?;
        let top = self.changed()?;
        if let Node::Dict(dict) = self.graph.node_mut(top) {
            dict.extend(pairs);
            return Ok(());
        }
        self.steps(top)?.extend(pairs.into_iter().map(|(key, value)| Step::SetItem(key, value)));
        Ok(())
    }

    fn add_items(&mut self, items: &[NodeId]) -> Result<()> {
        let top = self.top()?;
        if let Node::Set(set) = self.graph.node_mut(top) {
            set.extend_from_slice(items);
            return Ok(());
        }
        self.steps(top)?.extend(items.iter().copied().map(Step::Add));
        Ok(())
    }

    fn steps(&mut self, id: NodeId) -> Result<&mut Vec<Step>> {
        match self.graph.node_mut(id) {
            Node::Made(made) => Ok(&mut made.steps),
            _ => Err(PickleErrorKind::BadOperand),
        }
    }

    /// Python 2 writes booleans as the integers `01` and `00` in protocols 0 and 1.
    fn int_line(&mut self) -> Result<()> {
        match self.text_line()? {
            "00" => self.push_id(NodeId::FALSE),
            "01" => self.push_id(NodeId::TRUE),
            line => match line.parse() {
                Ok(number) => self.push(Node::Int(number)),
                Err(_) => self.decimal(line),
            },
        }
    }

    fn long_line(&mut self) -> Result<()> {
        let line = self.text_line()?;
        self.decimal(line.strip_suffix('L').unwrap_or(line))
    }

    fn decimal(&mut self, text: &str) -> Result<()> {
        let bytes = decimal::to_twos_complement(text).ok_or(PickleErrorKind::InvalidArgument)?;
        let span = self.graph.push_bytes(&bytes);
        self.push(Node::Long(span))
    }

    fn long(&mut self, length: u64) -> Result<()> {
        let span = self.take(length)?;
        self.push(Node::Long(span))
    }

    fn float_line(&mut self) -> Result<f64> {
        self.text_line()?.parse().map_err(|_| PickleErrorKind::InvalidArgument)
    }

    fn memo_line(&mut self) -> Result<u64> {
        let line = self.text_line()?;
        if line.is_empty() || !line.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PickleErrorKind::InvalidArgument);
        }
        line.parse().map_err(|_| PickleErrorKind::InvalidArgument)
    }

    fn global_lines(&mut self) -> Result<Node> {
        let start = self.at;
        let module = Graph::span(start, self.text_line()?.len());
        let start = self.at;
        let name = Graph::span(start, self.text_line()?.len());
        Ok(Node::Global { module, name })
    }

    fn text(&mut self, span: Span) -> Result<()> {
        if !is_wtf8(self.graph.bytes_of(span)) {
            return Err(PickleErrorKind::InvalidArgument);
        }
        self.push(Node::Str(span))
    }

    /// `raw-unicode-escape`: Latin-1 in which `\u` and `\U` begin a character by its number.
    fn unicode_line(&mut self) -> Result<()> {
        let line = self.line()?;
        let mut text = Vec::with_capacity(line.len() + 8);
        let mut rest = line.iter();
        while let Some(&byte) = rest.next() {
            if byte != b'\\' {
                push_code_point(&mut text, byte.into());
                continue;
            }
            let digits = match rest.next() {
                Some(b'u') => 4,
                Some(b'U') => 8,
                // A backslash takes the one behind it along, so that it begins nothing.
                Some(&other) => {
                    text.push(b'\\');
                    push_code_point(&mut text, other.into());
                    continue;
                }
                None => {
                    text.push(b'\\');
                    break;
                }
            };
            let (number, after) =
                rest.as_slice().split_at_checked(digits).ok_or(PickleErrorKind::InvalidArgument)?;
            rest = after.iter();
            let number = hexadecimal(number).filter(|&number| number <= 0x10_ffff);
            push_code_point(&mut text, number.ok_or(PickleErrorKind::InvalidArgument)?);
        }
        let span = self.graph.push_bytes(&text);
        self.push(Node::Str(span))
    }

    /// The `repr` of a Python 2 string.
    fn py2_str_line(&mut self) -> Result<()> {
        let line = self.line()?;
        let inner = match line {
            [first @ (b'\'' | b'"'), inner @ .., last] if first == last => inner,
            _ => return Err(PickleErrorKind::InvalidArgument),
        };
        let bytes = unescape(inner)?;
        let span = self.graph.push_bytes(&bytes);
        self.push(Node::Py2Str(span))
    }
}

fn pairs(items: &[NodeId]) -> Result<Vec<(NodeId, NodeId)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(PickleErrorKind::StackUnderflow);
    }
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}

/// UTF-8 in which surrogates may stand alone (`surrogatepass`).
fn is_wtf8(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        let Err(error) = std::str::from_utf8(rest) else { return true };
        rest = &rest[error.valid_up_to()..];
        match rest {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, after @ ..] => rest = after,
            _ => return false,
        }
    }
}

fn push_code_point(text: &mut Vec<u8>, number: u32) {
    if let Some(char) = char::from_u32(number) {
        text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        let [low, high, ..] = number.to_le_bytes();
        text.extend_from_slice(&surrogate(u16::from_le_bytes([low, high])));
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits
        .iter()
        .try_fold(0_u32, |number, &digit| Some(number << 4 | char::from(digit).to_digit(16)?))
}

/// The escapes of a Python 2 byte string.
fn unescape(text: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let escape = *rest.next().ok_or(PickleErrorKind::InvalidArgument)?;
        match escape {
            b'\\' | b'\'' | b'"' => bytes.push(escape),
            b'a' => bytes.push(7),
            b'b' => bytes.push(8),
            b't' => bytes.push(b'\t'),
            b'n' => bytes.push(b'\n'),
            b'v' => bytes.push(11),
            b'f' => bytes.push(12),
            b'r' => bytes.push(b'\r'),
            b'x' => {
                let digits = rest.as_slice().first_chunk::<2>();
                let number = digits.and_then(|digits| hexadecimal(digits));
                let number = number.ok_or(PickleErrorKind::InvalidArgument)?;
                bytes.push(u8::try_from(number).map_err(|_| PickleErrorKind::InvalidArgument)?);
                rest = rest.as_slice()[2..].iter();
            }
            b'0'..=b'7' => {
                let mut number = u32::from(escape - b'0');
                for _ in 0..2 {
                    let Some(&digit @ b'0'..=b'7') = rest.as_slice().first() else { break };
                    number = number << 3 | u32::from(digit - b'0');
                    rest.next();
                }
                // Three digits may say more than a byte; Python drops what is above.
                bytes.push(number.to_le_bytes()[0]);
            }
            other => bytes.extend([b'\\', other]),
        }
    }
    Ok(bytes)
}
