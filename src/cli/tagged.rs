//! Python objects in JSON: what JSON has no form for is an object with `__type__`.
//!
//! `docs/command.md` lists the forms. All of them can be shown; [`read`] refuses those that name a class
//! of the site's own, which only Python can make. Objects that occur more than once are written once, so
//! the text is about as long as the pickle.

use std::collections::HashMap;
use std::fmt::Write as _;

use jiff::civil;

use super::error::CliError;
use super::output::repr::hyphenated;
use crate::codec::graph::{
    self, Dict, Graph, Integer, Items, Kind, Made, Maker, Node, NodeId, Object, Step, Text,
    TimeDelta, TimeZone, Value,
};
use crate::codec::json;

/// The member that tells an object with a type from a dict.
const TYPE: &str = "__type__";
/// The longest text that is written.
const MAX_LENGTH: usize = 256 << 20;

/// One thing left to write.
enum Part<'a> {
    Value(Value<'a>),
    Fixed(&'static str),
    Owned(String),
}

/// The object at the root of a graph as JSON text, in ASCII.
pub(super) fn write(graph: &Graph) -> Result<String, CliError> {
    let references = graph.references();
    let mut numbers: HashMap<usize, usize> = HashMap::new();
    let mut out = String::new();
    let mut rest = vec![Part::Value(graph.root())];
    while let Some(part) = rest.pop() {
        if out.len() > MAX_LENGTH {
            return Err(CliError::TooLong);
        }
        match part {
            Part::Fixed(text) => out.push_str(text),
            Part::Owned(text) => out.push_str(&text),
            Part::Value(value) => {
                let index = value.id().index();
                if let Some(number) = numbers.get(&index) {
                    let _ = write!(out, r#"{{"{TYPE}":"ref","id":{number}}}"#);
                    continue;
                }
                let (parts, is_object) = parts_of(value);
                if is_object && references[index] > 1 {
                    let number = numbers.len() + 1;
                    numbers.insert(index, number);
                    let _ = write!(out, r#"{{"{TYPE}":"shared","id":{number},"value":"#);
                    rest.push(Part::Fixed("}"));
                }
                rest.extend(parts.into_iter().rev());
            }
        }
    }
    Ok(out)
}

/// The parts of a value in their order, and whether it matters that it is the same object elsewhere.
fn parts_of(value: Value<'_>) -> (Vec<Part<'_>>, bool) {
    let kind = value.kind();
    let mut parts = Vec::new();
    let mut is_object = true;
    match &kind {
        Kind::List(items) => listed(&mut parts, items),
        Kind::Dict(pairs) => dict(&mut parts, pairs),
        Kind::Tuple(items) => {
            is_object = !items.is_empty();
            tagged_items(&mut parts, "tuple", items);
        }
        Kind::Set(items) => tagged_items(&mut parts, "set", items),
        Kind::FrozenSet(items) => tagged_items(&mut parts, "frozenset", items),
        Kind::Deque(items, maxlen) => {
            let maxlen = maxlen.as_ref().map_or_else(|| "null".to_owned(), integer);
            parts.push(Part::Owned(format!(r#"{{"{TYPE}":"deque","maxlen":{maxlen},"items":"#)));
            listed(&mut parts, items);
            parts.push(Part::Fixed("}"));
        }
        Kind::OrderedDict(pairs) => tagged_pairs(&mut parts, "OrderedDict", pairs),
        Kind::Counter(pairs) => tagged_pairs(&mut parts, "Counter", pairs),
        Kind::DefaultDict(pairs, factory) => {
            parts.push(Part::Owned(format!(r#"{{"{TYPE}":"defaultdict","factory":"#)));
            parts.push(Part::Value(*factory));
            parts.push(Part::Fixed(r#","items":"#));
            pairs_of(&mut parts, pairs);
            parts.push(Part::Fixed("}"));
        }
        Kind::Object(object) => of_object(&mut parts, *object),
        Kind::DateTime(moment) => {
            is_object =
                in_zone(&mut parts, "datetime", &moment.isoformat(), moment.fold, moment.time_zone);
        }
        Kind::Time(time) => {
            is_object = in_zone(&mut parts, "time", &time.isoformat(), time.fold, time.time_zone);
        }
        Kind::ByteArray(bytes) => {
            parts.push(Part::Owned(tagged("bytearray", "hex", &hex(bytes))));
        }
        scalar => {
            // What takes long to recognize is written once.
            is_object = matches!(scalar, Kind::Bytes(bytes) if bytes.len() > 1000)
                || matches!(scalar, Kind::Decimal(text) if text.len() > 1000);
            parts.push(Part::Owned(of_scalar(scalar)));
        }
    }
    (parts, is_object)
}

fn of_scalar(kind: &Kind<'_>) -> String {
    match kind {
        Kind::Bool(true) => "true".to_owned(),
        Kind::Bool(false) => "false".to_owned(),
        Kind::Int(number) => integer(number),
        Kind::Float(number) => float(*number),
        Kind::Complex(real, imaginary) => format!(
            r#"{{"{TYPE}":"complex","real":{},"imag":{}}}"#,
            float(*real),
            float(*imaginary)
        ),
        Kind::Str(value) => text(*value),
        Kind::SafeString(value) => format!(r#"{{"{TYPE}":"SafeString","value":{}}}"#, text(*value)),
        // Equal to the text, for Python 2 as well as for who reads it in Python 3.
        Kind::Py2Str(bytes) if bytes.is_ascii() => string(std::str::from_utf8(bytes).unwrap_or("")),
        Kind::Py2Str(bytes) => tagged("py2str", "hex", &hex(bytes)),
        Kind::Bytes(bytes) => tagged("bytes", "hex", &hex(bytes)),
        Kind::Range(parts) => {
            let [first, last, by] = parts.each_ref().map(integer);
            format!(r#"{{"{TYPE}":"range","start":{first},"stop":{last},"step":{by}}}"#)
        }
        Kind::Date(date) => tagged("date", "value", &date.isoformat()),
        Kind::TimeDelta(delta) => delta_text(*delta),
        Kind::TimeZone(TimeZone::Named(key)) => tagged("ZoneInfo", "key", key),
        Kind::TimeZone(TimeZone::Offset(offset)) => {
            format!(r#"{{"{TYPE}":"timezone","utcoffset":{}}}"#, delta_text(*offset))
        }
        Kind::Decimal(text) => tagged("Decimal", "value", text),
        Kind::Uuid(number) => tagged("UUID", "value", &hyphenated(*number)),
        Kind::Global(global) => format!(
            r#"{{"{TYPE}":"global","module":{},"name":{}}}"#,
            string(global.module().unwrap_or("?")),
            string(global.name().unwrap_or("?"))
        ),
        _ => "null".to_owned(),
    }
}

fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    json::push_string(&mut out, text);
    out
}

fn text(text: Text<'_>) -> String {
    let mut out = String::from("\"");
    graph::push_escaped(&mut out, text.as_bytes());
    out.push('"');
    out
}

fn tagged(name: &str, member: &str, value: &str) -> String {
    format!(r#"{{"{TYPE}":"{name}","{member}":{}}}"#, string(value))
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn integer(number: &Integer<'_>) -> String {
    // Python reads no more digits than it writes here.
    number.to_decimal().unwrap_or_else(|| tagged("int", "le_hex", &hex(&number.to_le_bytes())))
}

fn float(number: f64) -> String {
    let mut out = String::new();
    json::push_f64(&mut out, number);
    out
}

fn delta_text(delta: TimeDelta) -> String {
    let TimeDelta { days, seconds, microseconds } = delta;
    format!(
        r#"{{"{TYPE}":"timedelta","days":{days},"seconds":{seconds},"microseconds":{microseconds}}}"#
    )
}

/// A date and time, or a time; whether its zone is an object.
fn in_zone<'a>(
    parts: &mut Vec<Part<'a>>,
    name: &str,
    value: &str,
    fold: bool,
    zone: Option<TimeZone<'a>>,
) -> bool {
    let mut out = format!(r#"{{"{TYPE}":"{name}","value":{}"#, string(value));
    if fold {
        out.push_str(r#","fold":1"#);
    }
    match zone {
        Some(TimeZone::Named(key)) => {
            let _ = write!(out, r#","zone":{}"#, string(key));
        }
        Some(TimeZone::Other(zone)) => {
            parts.push(Part::Owned(out + r#","tzinfo":"#));
            parts.push(Part::Value(zone));
            parts.push(Part::Fixed("}"));
            return true;
        }
        Some(TimeZone::Offset(_)) | None => {}
    }
    parts.push(Part::Owned(out + "}"));
    false
}

fn listed<'a>(parts: &mut Vec<Part<'a>>, items: &Items<'a>) {
    parts.push(Part::Fixed("["));
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            parts.push(Part::Fixed(","));
        }
        parts.push(Part::Value(item));
    }
    parts.push(Part::Fixed("]"));
}

fn pairs_of<'a>(parts: &mut Vec<Part<'a>>, pairs: &Dict<'a>) {
    parts.push(Part::Fixed("["));
    for (index, (key, value)) in pairs.iter().enumerate() {
        parts.push(Part::Fixed(if index > 0 { ",[" } else { "[" }));
        parts.push(Part::Value(key));
        parts.push(Part::Fixed(","));
        parts.push(Part::Value(value));
        parts.push(Part::Fixed("]"));
    }
    parts.push(Part::Fixed("]"));
}

fn tagged_items<'a>(parts: &mut Vec<Part<'a>>, name: &str, items: &Items<'a>) {
    parts.push(Part::Owned(format!(r#"{{"{TYPE}":"{name}","items":"#)));
    listed(parts, items);
    parts.push(Part::Fixed("}"));
}

fn tagged_pairs<'a>(parts: &mut Vec<Part<'a>>, name: &str, pairs: &Dict<'a>) {
    parts.push(Part::Owned(format!(r#"{{"{TYPE}":"{name}","items":"#)));
    pairs_of(parts, pairs);
    parts.push(Part::Fixed("}"));
}

/// A JSON object where all keys are different texts, none of them `__type__`.
fn dict<'a>(parts: &mut Vec<Part<'a>>, pairs: &Dict<'a>) {
    let mut names = std::collections::HashSet::new();
    let is_plain = pairs
        .iter()
        .all(|(key, _)| key.as_text().is_some_and(|name| name != TYPE && names.insert(name)));
    if !is_plain {
        return tagged_pairs(parts, "dict", pairs);
    }
    parts.push(Part::Fixed("{"));
    for (index, (key, value)) in pairs.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let name = string(key.as_text().unwrap_or_default());
        parts.push(Part::Owned(format!("{comma}{name}:")));
        parts.push(Part::Value(value));
    }
    parts.push(Part::Fixed("}"));
}

fn of_object<'a>(parts: &mut Vec<Part<'a>>, object: Object<'a>) {
    parts.push(Part::Owned(format!(r#"{{"{TYPE}":"object","callable":"#)));
    parts.push(Part::Value(object.callable()));
    parts.push(Part::Fixed(r#","args":"#));
    match object.args().kind() {
        Kind::Tuple(items) => listed(parts, &items),
        _ => parts.push(Part::Value(object.args())),
    }
    let members = [(r#","kwargs":"#, object.kwargs()), (r#","state":"#, object.state())];
    for (name, value) in members {
        if let Some(value) = value {
            parts.push(Part::Fixed(name));
            parts.push(Part::Value(value));
        }
    }
    let items = object.items();
    if !items.is_empty() {
        parts.push(Part::Fixed(r#","items":"#));
        listed(parts, &items);
    }
    let pairs = object.pairs();
    if !pairs.is_empty() {
        parts.push(Part::Fixed(r#","pairs":"#));
        pairs_of(parts, &pairs);
    }
    parts.push(Part::Fixed("}"));
}

/// Makes the objects of JSON text that [`write`] wrote or a person changed; it has been checked.
pub(super) fn read(json: &str, protocol: u8) -> Result<Graph, CliError> {
    let mut graph = Graph::over(Vec::new(), protocol);
    let root = graph.push_json(json);
    graph.set_root(root);
    let mut reader = Reader { graph, named: HashMap::new(), stands_for: HashMap::new() };
    reader.make_objects(root)?;
    reader.join(root)?;
    Ok(reader.graph)
}

struct Reader {
    graph: Graph,
    /// Objects by the number of `shared`.
    named: HashMap<i64, NodeId>,
    /// What takes the place of a node: of each `shared` its value, of each `ref` the number first.
    stands_for: HashMap<usize, Target>,
}

#[derive(Clone, Copy)]
enum Target {
    Node(NodeId),
    Number(i64),
}

impl Reader {
    /// Turns every dict with a type into what it stands for. Children stay where they are.
    fn make_objects(&mut self, root: NodeId) -> Result<(), CliError> {
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            // JSON is a tree, so every node comes by once, before it is changed.
            self.graph.node(id).each_child(|child| open.push(child));
            if let Some(name) = self.member(id, TYPE).and_then(|name| self.text(name)) {
                let name = name.to_owned();
                self.make(id, &name)?;
            }
        }
        Ok(())
    }

    fn make(&mut self, id: NodeId, name: &str) -> Result<(), CliError> {
        const BAD: CliError = CliError::NotASession("an object with __type__ lacks a member");
        let node = match name {
            "shared" => {
                let number = self.number(id, "id").ok_or(BAD)?;
                let value = self.member(id, "value").ok_or(BAD)?;
                self.named.insert(number, value);
                self.stands_for.insert(id.index(), Target::Node(value));
                return Ok(());
            }
            "ref" => {
                let number = self.number(id, "id").ok_or(BAD)?;
                self.stands_for.insert(id.index(), Target::Number(number));
                return Ok(());
            }
            "tuple" => Some(Node::Tuple(self.items(id).ok_or(BAD)?)),
            "set" => self.items(id).map(|items| self.set("set", items)),
            "frozenset" => self.items(id).map(|items| self.set("frozenset", items)),
            "dict" => self.pairs(id).map(Node::Dict),
            "OrderedDict" => self.pairs(id).map(|pairs| {
                let steps = pairs.into_iter().map(|(key, value)| Step::SetItem(key, value));
                let steps = steps.collect();
                self.call("collections", "OrderedDict", Vec::new(), steps)
            }),
            "Counter" => self.pairs(id).map(|pairs| {
                let counts = self.graph.push(Node::Dict(pairs));
                self.call("collections", "Counter", vec![counts], Vec::new())
            }),
            "deque" => self.deque(id),
            "int" => self.hex(id, "le_hex").map(|bytes| Node::Long(self.graph.push_bytes(&bytes))),
            "complex" => {
                self.member(id, "real").zip(self.member(id, "imag")).map(|(real, imag)| {
                    let parts = [real, imag].map(|part| self.as_float(part));
                    self.builtin("complex", parts.to_vec())
                })
            }
            "range" => {
                let parts = ["start", "stop", "step"].map(|name| self.member(id, name));
                let parts: Option<Vec<_>> = parts.into_iter().collect();
                let name = if self.graph.protocol() <= 2 { "xrange" } else { "range" };
                parts.map(|parts| self.builtin(name, parts))
            }
            "bytes" => self.hex(id, "hex").map(|bytes| self.bytes(&bytes)),
            "py2str" => self.hex(id, "hex").map(|bytes| {
                let span = self.graph.push_bytes(&bytes);
                Node::Py2Str(span)
            }),
            "bytearray" => self.hex(id, "hex").map(|bytes| {
                let bytes = self.bytes(&bytes);
                let bytes = self.graph.push(bytes);
                self.builtin("bytearray", vec![bytes])
            }),
            "SafeString" => self.member(id, "value").map(|text| {
                let class = self.global("django.utils.safestring", "SafeString");
                let args = self.graph.push(Node::Tuple(vec![text]));
                made(Maker::New { class, args }, Vec::new())
            }),
            "Decimal" => self
                .member(id, "value")
                .map(|text| self.call("decimal", "Decimal", vec![text], Vec::new())),
            "UUID" => self
                .member_text(id, "value")
                .and_then(|text| uuid(&text))
                .map(|number| self.uuid(number)),
            "date" => self
                .member_text(id, "value")
                .and_then(|text| date_bytes(text.parse().ok()?))
                .map(|bytes| self.datetime("date", &bytes, None)),
            "datetime" => self.moment(id),
            "time" => self.time(id),
            "timedelta" => self.delta(id).map(|delta| self.time_delta(delta)),
            "timezone" => self
                .member(id, "utcoffset")
                .and_then(|offset| self.delta(offset))
                .map(|offset| self.timezone(offset)),
            "ZoneInfo" => self.member(id, "key").map(|key| self.zone(key)),
            "defaultdict" => return Err(CliError::Carry { what: "a defaultdict" }),
            "global" => return Err(CliError::Carry { what: "a class or function" }),
            "object" => return Err(CliError::Carry { what: "an object of a class of the site" }),
            _ => return Err(CliError::NotASession("an object has a __type__ that is not known")),
        };
        *self.graph.node_mut(id) = node.ok_or(BAD)?;
        Ok(())
    }

    /// Puts shared objects wherever they are referred to.
    fn join(&mut self, root: NodeId) -> Result<(), CliError> {
        let root = self.target(root)?;
        self.graph.set_root(root);
        let mut seen = vec![false; self.graph.len()];
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut seen[id.index()], true) {
                continue;
            }
            let mut node = self.graph.node(id).clone();
            let mut failed = None;
            node.each_child_mut(|child| match self.target(*child) {
                Ok(target) => {
                    *child = target;
                    open.push(target);
                }
                Err(error) => failed = Some(error),
            });
            if let Some(error) = failed {
                return Err(error);
            }
            *self.graph.node_mut(id) = node;
        }
        Ok(())
    }

    fn target(&self, id: NodeId) -> Result<NodeId, CliError> {
        const BAD: CliError = CliError::NotASession("a reference leads to no object");
        let mut id = id;
        // Longer than any way through them that is no circle.
        for _ in 0..=self.stands_for.len() {
            id = match self.stands_for.get(&id.index()) {
                None => return Ok(id),
                Some(Target::Node(value)) => *value,
                Some(Target::Number(number)) => *self.named.get(number).ok_or(BAD)?,
            };
        }
        Err(BAD)
    }

    fn member(&self, id: NodeId, name: &str) -> Option<NodeId> {
        let Node::Dict(pairs) = self.graph.node(id) else { return None };
        let found = pairs.iter().rev().find(|(key, _)| self.text(*key) == Some(name));
        found.map(|&(_, value)| value)
    }

    fn text(&self, id: NodeId) -> Option<&str> {
        match *self.graph.node(id) {
            Node::Str(span) => std::str::from_utf8(self.graph.bytes_of(span)).ok(),
            _ => None,
        }
    }

    fn member_text(&self, id: NodeId, name: &str) -> Option<String> {
        self.text(self.member(id, name)?).map(str::to_owned)
    }

    fn number(&self, id: NodeId, name: &str) -> Option<i64> {
        match self.graph.node(self.member(id, name)?) {
            Node::Int(number) => Some(*number),
            _ => None,
        }
    }

    fn hex(&self, id: NodeId, name: &str) -> Option<Vec<u8>> {
        let digits = self.text(self.member(id, name)?)?.as_bytes();
        let pairs = digits.chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        });
        pairs.collect()
    }

    fn items(&self, id: NodeId) -> Option<Vec<NodeId>> {
        match self.graph.node(self.member(id, "items")?) {
            Node::List(items) => Some(items.clone()),
            _ => None,
        }
    }

    fn pairs(&self, id: NodeId) -> Option<Vec<(NodeId, NodeId)>> {
        let pairs = self.items(id)?.into_iter().map(|pair| match self.graph.node(pair) {
            Node::List(pair) => match pair[..] {
                [key, value] => Some((key, value)),
                _ => None,
            },
            _ => None,
        });
        pairs.collect()
    }

    /// The parts of a timedelta. What contains one is made before it, so it still is a dict.
    fn delta(&self, id: NodeId) -> Option<[i64; 3]> {
        let parts = ["days", "seconds", "microseconds"].map(|name| self.number(id, name));
        match parts {
            [Some(days), Some(seconds), Some(microseconds)] => Some([days, seconds, microseconds]),
            _ => None,
        }
    }

    fn global(&mut self, module: &str, name: &str) -> NodeId {
        let module = self.graph.push_bytes(module.as_bytes());
        let name = self.graph.push_bytes(name.as_bytes());
        self.graph.push(Node::Global { module, name })
    }

    fn call(&mut self, module: &str, name: &str, args: Vec<NodeId>, steps: Vec<Step>) -> Node {
        let callable = self.global(module, name);
        let args = self.graph.push(Node::Tuple(args));
        made(Maker::Call { callable, args }, steps)
    }

    fn builtin(&mut self, name: &str, args: Vec<NodeId>) -> Node {
        let module = if self.graph.protocol() <= 2 { "__builtin__" } else { "builtins" };
        self.call(module, name, args, Vec::new())
    }

    /// Protocol 4 has opcodes for sets.
    fn set(&mut self, name: &str, items: Vec<NodeId>) -> Node {
        if self.graph.protocol() >= 4 {
            return if name == "set" { Node::Set(items) } else { Node::FrozenSet(items) };
        }
        let items = self.graph.push(Node::List(items));
        self.builtin(name, vec![items])
    }

    /// Protocol 3 has opcodes for bytes; before it Python 3 makes them from text.
    fn bytes(&mut self, bytes: &[u8]) -> Node {
        if self.graph.protocol() >= 3 {
            return Node::Bytes(self.graph.push_bytes(bytes));
        }
        let text: String = bytes.iter().copied().map(char::from).collect();
        let text = self.graph.push_str(&text);
        let encoding = self.graph.push_str("latin1");
        self.call("_codecs", "encode", vec![text, encoding], Vec::new())
    }

    fn deque(&mut self, id: NodeId) -> Option<Node> {
        let steps = self.items(id)?.into_iter().map(Step::Append).collect();
        let empty = self.graph.push(Node::List(Vec::new()));
        let mut args = vec![empty];
        args.extend(self.member(id, "maxlen").filter(|maxlen| *maxlen != NodeId::NONE));
        Some(self.call("collections", "deque", args, steps))
    }

    /// An integer is what JSON makes of a float without a fraction in other hands.
    fn as_float(&mut self, id: NodeId) -> NodeId {
        match *self.graph.node(id) {
            #[expect(clippy::cast_precision_loss, reason = "as Python's float() does")]
            Node::Int(number) => self.graph.push(Node::Float(number as f64)),
            _ => id,
        }
    }

    fn uuid(&mut self, number: u128) -> Node {
        let class = self.global("uuid", "UUID");
        // Little endian in two's complement, so with a byte for the sign.
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.push(0);
        let span = self.graph.push_bytes(&bytes);
        let number = self.graph.push(Node::Long(span));
        let name = self.graph.push_str("int");
        let state = self.graph.push(Node::Dict(vec![(name, number)]));
        made(Maker::New { class, args: NodeId::EMPTY_TUPLE }, vec![Step::SetState(state)])
    }

    fn datetime(&mut self, name: &str, fields: &[u8], zone: Option<NodeId>) -> Node {
        let fields = self.bytes(fields);
        let mut args = vec![self.graph.push(fields)];
        args.extend(zone);
        self.call("datetime", name, args, Vec::new())
    }

    fn moment(&mut self, id: NodeId) -> Option<Node> {
        let text = self.member_text(id, "value")?;
        let (civil, offset) = split_offset(&text);
        let moment: civil::DateTime = civil.parse().ok()?;
        let mut fields = date_bytes(moment.date())?.to_vec();
        fields.extend(time_bytes(moment.time()));
        // The highest bit of the month, for Python 3.6 and later.
        if self.number(id, "fold") == Some(1) && self.graph.protocol() > 3 {
            fields[2] |= 0x80;
        }
        let zone = self.zone_of(id, offset)?;
        Some(self.datetime("datetime", &fields, zone))
    }

    fn time(&mut self, id: NodeId) -> Option<Node> {
        let text = self.member_text(id, "value")?;
        let (civil, offset) = split_offset(&text);
        let mut fields = time_bytes(civil.parse().ok()?);
        if self.number(id, "fold") == Some(1) && self.graph.protocol() > 3 {
            fields[0] |= 0x80;
        }
        let zone = self.zone_of(id, offset)?;
        Some(self.datetime("time", &fields, zone))
    }

    /// The zone by its name, or else the offset; nothing inside for a naive one.
    #[expect(clippy::option_option, reason = "no zone is an answer, a bad one is not")]
    fn zone_of(&mut self, id: NodeId, offset: Option<&str>) -> Option<Option<NodeId>> {
        if let Some(zone) = self.member(id, "tzinfo") {
            return Some(Some(zone));
        }
        let zone = match (self.member(id, "zone"), offset) {
            (Some(key), _) => self.zone(key),
            (None, Some(offset)) => {
                let offset = parse_offset(offset)?;
                self.timezone(offset)
            }
            (None, None) => return Some(None),
        };
        Some(Some(self.graph.push(zone)))
    }

    fn time_delta(&mut self, parts: [i64; 3]) -> Node {
        let parts = parts.map(|part| self.graph.push(Node::Int(part)));
        self.call("datetime", "timedelta", parts.to_vec(), Vec::new())
    }

    fn timezone(&mut self, offset: [i64; 3]) -> Node {
        let offset = self.time_delta(offset);
        let offset = self.graph.push(offset);
        self.call("datetime", "timezone", vec![offset], Vec::new())
    }

    /// `getattr(ZoneInfo, "_unpickle")(key, True)`, as `zoneinfo` pickles it.
    fn zone(&mut self, key: NodeId) -> Node {
        let class = self.global("zoneinfo", "ZoneInfo");
        let method = self.graph.push_str("_unpickle");
        let callable = self.builtin("getattr", vec![class, method]);
        let callable = self.graph.push(callable);
        let args = self.graph.push(Node::Tuple(vec![key, NodeId::TRUE]));
        made(Maker::Call { callable, args }, Vec::new())
    }
}

fn made(by: Maker, steps: Vec<Step>) -> Node {
    Node::Made(Box::new(Made { by, steps }))
}

fn uuid(text: &str) -> Option<u128> {
    let digits = text.replace('-', "");
    (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten()
}

fn date_bytes(date: civil::Date) -> Option<[u8; 4]> {
    let [high, low] = u16::try_from(date.year()).ok().filter(|year| *year >= 1)?.to_be_bytes();
    Some([high, low, u8::try_from(date.month()).ok()?, u8::try_from(date.day()).ok()?])
}

fn time_bytes(time: civil::Time) -> Vec<u8> {
    let small = |number: i8| u8::try_from(number).unwrap_or_default();
    let microseconds = time.subsec_nanosecond() / 1000;
    let [_, high, middle, low] = microseconds.to_be_bytes();
    vec![small(time.hour()), small(time.minute()), small(time.second()), high, middle, low]
}

/// The offset from UTC that ISO 8601 puts behind a time.
fn split_offset(text: &str) -> (&str, Option<&str>) {
    let time = text.find('T').map_or(0, |at| at + 1);
    match text[time..].find(['+', '-']) {
        Some(at) => (&text[..time + at], Some(&text[time + at..])),
        None => match text.strip_suffix('Z') {
            Some(civil) => (civil, Some("+00:00")),
            None => (text, None),
        },
    }
}

/// `+01:00`, with seconds and a fraction of them if need be.
fn parse_offset(text: &str) -> Option<[i64; 3]> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+')?),
    };
    let (clock, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let mut seconds = 0;
    let mut count = 0;
    for part in clock.split(':') {
        let part: u32 = part.parse().ok().filter(|part| *part < 60)?;
        seconds = seconds * 60 + i64::from(part);
        count += 1;
    }
    let seconds = match count {
        2 => seconds * 60,
        3 => seconds,
        _ => return None,
    };
    let fraction: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    let total = sign * (seconds * 1_000_000 + fraction);
    let day = 86_400_000_000;
    let rest = total.rem_euclid(day);
    Some([total.div_euclid(day), rest / 1_000_000, rest % 1_000_000])
}
