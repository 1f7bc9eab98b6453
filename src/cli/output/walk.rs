//! Walks over a session, JSON or Python objects, that make the lines of a tree. No function recurses.

use std::collections::HashMap;

use super::repr::{self, TextLimit};
use super::tree::{Tree, TreeLimits};
use super::{style, styled};
use crate::codec::graph::{Dict, Graph, Kind, Node, Object, TimeZone, Value};
use crate::codec::json::{JsonError, Literal, Number, Scanner, Token};

/// Names longer than this are cut.
const NAME_LIMIT: TextLimit = TextLimit(200);
/// Arguments of an object that stand on its line.
const INLINE_ARGUMENTS: usize = 4;
/// Bytes of texts in a graph beyond which no object is looked at twice.
const LARGE: usize = 1 << 20;

impl Tree {
    /// The entries of a JSON object.
    pub(in crate::cli) fn of_json(text: &str, limits: TreeLimits) -> Result<Self, JsonError> {
        let mut tree = Self::new(limits);
        let mut scanner = Scanner::new(text);
        // Of each container that is open: its line if it has one, whether it is an object, and how many
        // entries it has so far.
        let mut open: Vec<(Option<usize>, bool, usize)> = Vec::new();
        let mut label = JsonLabel::Item(0);
        loop {
            let token = scanner.token()?;
            let depth = open.len().wrapping_sub(1);
            // What has no line is passed over, and not made into text.
            let has_line = !open.is_empty() && tree.has_room(depth);
            let shown = match token {
                Token::Null => has_line.then(|| repr::constant("None")),
                Token::True => has_line.then(|| repr::constant("True")),
                Token::False => has_line.then(|| repr::constant("False")),
                Token::Number => {
                    let number = scanner.number()?;
                    has_line.then(|| json_number(number, tree.text_limit()))
                }
                Token::String => {
                    let literal = scanner.string()?;
                    has_line.then(|| repr::json_text(literal, tree.text_limit()))
                }
                Token::List | Token::Object => has_line.then(String::new),
            };
            let line = shown.map(|shown| tree.push(depth, label.to_text() + &shown));
            if let Token::List | Token::Object = token {
                let object = token == Token::Object;
                if scanner.eat(if object { b'}' } else { b']' }) {
                    if let Some(line) = line {
                        tree.append(line, &size(if object { "dict" } else { "list" }, 0));
                    }
                } else {
                    open.push((line, object, 0));
                    label = next_label(&mut scanner, object, 0)?;
                    continue;
                }
            }
            // A value has ended: close what it was the last of, or go on to the next.
            loop {
                let Some((line, object, count)) = open.last_mut() else { return Ok(tree) };
                *count += 1;
                if scanner.eat(b',') {
                    label = next_label(&mut scanner, *object, *count)?;
                    break;
                }
                scanner.expect(if *object { b'}' } else { b']' })?;
                if let Some(line) = *line {
                    tree.append(line, &size(if *object { "dict" } else { "list" }, *count));
                }
                open.pop();
            }
        }
    }

    /// The entries of the object at the root of a graph.
    pub(in crate::cli) fn of_graph(graph: &Graph, limits: TreeLimits) -> Self {
        let mut tree = Self::new(limits);
        let references = graph.references();
        // The numbers of objects that occur again, as they are met.
        let mut anchors: HashMap<usize, usize> = HashMap::new();
        let root = Shown::new(graph, graph.root(), tree.text_limit());
        if references[graph.root().id().index()] > 1 {
            anchors.insert(graph.root().id().index(), 1);
        }
        let mut open = vec![root.children.into_iter()];
        while let Some(children) = open.last_mut() {
            let Some((label, value)) = children.next() else {
                open.pop();
                continue;
            };
            let depth = open.len() - 1;
            if !tree.has_room(depth) {
                continue;
            }
            let index = value.id().index();
            let mut text = label.to_text();
            if let Some(number) = anchors.get(&index) {
                text += &styled(style::CONSTANT, format_args!("*{number}"));
                tree.push(depth, text);
                continue;
            }
            let shown = Shown::new(graph, value, tree.text_limit());
            if shown.is_object && references[index] > 1 {
                let number = anchors.len() + 1;
                anchors.insert(index, number);
                text += &styled(style::CONSTANT, format_args!("&{number} "));
            }
            tree.push(depth, text + &shown.text);
            if !shown.children.is_empty() {
                open.push(shown.children.into_iter());
            }
        }
        tree
    }
}

/// What stands before a value of JSON.
enum JsonLabel<'a> {
    Name(Literal<'a>),
    Item(usize),
}

impl JsonLabel<'_> {
    fn to_text(&self) -> String {
        match *self {
            Self::Name(name) if !name.escaped && is_bare(name.body.as_bytes()) => {
                repr::name(name.body) + ": "
            }
            Self::Name(name) => repr::json_text(name, NAME_LIMIT) + ": ",
            Self::Item(index) => item_label(index),
        }
    }
}

fn next_label<'a>(
    scanner: &mut Scanner<'a>,
    object: bool,
    index: usize,
) -> Result<JsonLabel<'a>, JsonError> {
    Ok(if object { JsonLabel::Name(scanner.member_name()?) } else { JsonLabel::Item(index) })
}

fn json_number(number: Number<'_>, limit: TextLimit) -> String {
    match number {
        Number::Integer(text) | Number::Float(text @ ("NaN" | "Infinity" | "-Infinity")) => {
            repr::number(text)
        }
        // As Python shows it.
        Number::Float(_) => repr::scalar(&Kind::Float(number.to_f64()), limit).unwrap_or_default(),
    }
}

fn item_label(index: usize) -> String {
    styled(style::QUIET, format_args!("[{index}]")) + " "
}

/// Names that need no quotes to be told from what is around them.
fn is_bare(name: &[u8]) -> bool {
    matches!(name.len(), 1..=200)
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte))
}

fn size(kind: &str, count: usize) -> String {
    styled(style::QUIET, format_args!("{kind} of {}", super::grouped(count)))
}

/// What stands before a value. It becomes text where there is room for it.
enum Label<'a> {
    /// A key that holds nothing.
    Key(Value<'a>),
    /// A part that Python has no name for.
    Part(&'static str),
    Argument(usize),
    Attribute(&'a str),
    Item(usize),
    /// An item without a place, of a set.
    Unordered,
}

impl Label<'_> {
    fn to_text(&self) -> String {
        match self {
            Self::Key(key) => match attribute(*key) {
                Some(name) => repr::name(name) + ": ",
                None => repr::scalar(&key.kind(), NAME_LIMIT).unwrap_or_default() + ": ",
            },
            Self::Part(name) => styled(style::QUIET, format_args!("({name})")) + " ",
            Self::Argument(index) => styled(style::QUIET, format_args!("(argument {index})")) + " ",
            Self::Attribute(name) => repr::name(&format!(".{name}")) + ": ",
            Self::Item(index) => item_label(*index),
            Self::Unordered => String::new(),
        }
    }
}

/// The line of a value, and what goes below it.
struct Shown<'a> {
    text: String,
    children: Vec<(Label<'a>, Value<'a>)>,
    /// Whether it matters that it is the same object in two places. Whatever has children is one, so
    /// that no walk goes in circles.
    is_object: bool,
}

impl<'a> Shown<'a> {
    fn new(graph: &'a Graph, value: Value<'a>, limit: TextLimit) -> Self {
        let kind = value.kind();
        let mut children = Vec::new();
        let mut is_object = true;
        let text = match &kind {
            Kind::List(items) => {
                children.extend(listed(items.iter()));
                size("list", items.len())
            }
            Kind::Tuple(items) => {
                children.extend(listed(items.iter()));
                // There is only one empty tuple.
                is_object = !items.is_empty();
                size("tuple", items.len())
            }
            Kind::Set(items) => {
                children.extend(items.iter().map(|item| (Label::Unordered, item)));
                size("set", items.len())
            }
            Kind::FrozenSet(items) => {
                children.extend(items.iter().map(|item| (Label::Unordered, item)));
                size("frozenset", items.len())
            }
            Kind::Deque(items, maxlen) => {
                children.extend(listed(items.iter()));
                let maxlen = maxlen.and_then(|maxlen| maxlen.to_decimal());
                let maxlen = maxlen.map(|maxlen| format!(", at most {maxlen}")).unwrap_or_default();
                size("deque", items.len()) + &styled(style::QUIET, maxlen)
            }
            Kind::Dict(pairs) => {
                paired(graph, &mut children, pairs);
                size("dict", pairs.len())
            }
            Kind::OrderedDict(pairs) => {
                paired(graph, &mut children, pairs);
                size("OrderedDict", pairs.len())
            }
            Kind::Counter(pairs) => {
                paired(graph, &mut children, pairs);
                size("Counter", pairs.len())
            }
            Kind::DefaultDict(pairs, factory) => {
                children.push((Label::Part("default_factory"), *factory));
                paired(graph, &mut children, pairs);
                size("defaultdict", pairs.len())
            }
            Kind::Object(object) => of_object(graph, &mut children, *object, limit),
            scalar => {
                if let Some(TimeZone::Other(zone)) = zone_of(scalar) {
                    children.push((Label::Part("tzinfo"), zone));
                }
                is_object = !children.is_empty() || is_long(scalar);
                repr::scalar(scalar, limit).unwrap_or_default()
            }
        };
        Self { text, children, is_object }
    }
}

fn zone_of<'a>(kind: &Kind<'a>) -> Option<TimeZone<'a>> {
    match kind {
        Kind::DateTime(moment) => moment.time_zone,
        Kind::Time(time) => time.time_zone,
        Kind::TimeZone(zone) => Some(*zone),
        _ => None,
    }
}

/// Whether it takes long to look at, so that once has to do; or may be changed in place.
fn is_long(kind: &Kind<'_>) -> bool {
    match kind {
        Kind::ByteArray(_) => true,
        Kind::Bytes(bytes) => bytes.len() > 1000,
        Kind::Decimal(text) => text.len() > 1000,
        Kind::SafeString(text) => text.as_bytes().len() > 1000,
        _ => false,
    }
}

/// An object of a class that is not known: `module.Class(arguments)`, and below it what else would be
/// done to it.
fn of_object<'a>(
    graph: &'a Graph,
    children: &mut Vec<(Label<'a>, Value<'a>)>,
    object: Object<'a>,
    limit: TextLimit,
) -> String {
    let mut text = if let Kind::Global(global) = object.callable().kind() {
        repr::global(global)
    } else {
        children.push((Label::Part("callable"), object.callable()));
        styled(style::TYPE, "…")
    };
    let args: Vec<_> = match object.args().kind() {
        Kind::Tuple(items) => items.iter().collect(),
        _ => vec![object.args()],
    };
    let inline: Option<Vec<String>> = if args.len() <= INLINE_ARGUMENTS {
        args.iter().map(|arg| argument(graph, *arg, limit)).collect()
    } else {
        None
    };
    if let Some(shown) = inline {
        text = text + "(" + &shown.join(", ") + ")";
    } else {
        text += "(…)";
        let args = args.into_iter().enumerate();
        children.extend(args.map(|(index, arg)| (Label::Argument(index), arg)));
    }
    if let Some(kwargs) = object.kwargs() {
        children.push((Label::Part("keyword arguments"), kwargs));
    }
    if let Some(state) = object.state() {
        match state.kind() {
            Kind::Dict(pairs) if pairs.iter().all(|(key, _)| attribute(key).is_some()) => {
                let attributes = pairs.iter().filter_map(|(key, value)| {
                    attribute(key).map(|name| (Label::Attribute(name), value))
                });
                children.extend(attributes);
            }
            _ => children.push((Label::Part("state"), state)),
        }
    }
    children.extend(listed(object.items().iter()));
    paired(graph, children, &object.pairs());
    text
}

/// An argument on the line of its call, if it is short and holds nothing.
fn argument(graph: &Graph, value: Value<'_>, limit: TextLimit) -> Option<String> {
    if is_made(graph, value) && graph.byte_len() > LARGE {
        return None;
    }
    let kind = value.kind();
    let is_short = match &kind {
        Kind::Str(text) | Kind::SafeString(text) => text.as_bytes().len() <= 80,
        Kind::Py2Str(bytes) => bytes.len() <= 80,
        Kind::Bytes(bytes) => bytes.len() <= 80,
        Kind::Decimal(text) => text.len() <= 80,
        Kind::Int(number) => number.to_i64().is_some(),
        Kind::ByteArray(_) => false,
        other => !matches!(zone_of(other), Some(TimeZone::Other(_))),
    };
    if is_short { repr::scalar(&kind, limit) } else { None }
}

/// Whether Python would make it by a call, which takes time to recognize.
fn is_made(graph: &Graph, value: Value<'_>) -> bool {
    matches!(graph.node(value.id()), Node::Made(_))
}

fn attribute(key: Value<'_>) -> Option<&str> {
    key.as_text().filter(|name| is_bare(name.as_bytes()))
}

fn listed<'a>(
    items: impl Iterator<Item = Value<'a>>,
) -> impl Iterator<Item = (Label<'a>, Value<'a>)> {
    items.enumerate().map(|(index, item)| (Label::Item(index), item))
}

fn paired<'a>(graph: &Graph, children: &mut Vec<(Label<'a>, Value<'a>)>, pairs: &Dict<'a>) {
    for (key, value) in pairs.iter() {
        let holds_others = matches!(
            graph.node(key.id()),
            Node::Made(_)
                | Node::Tuple(_)
                | Node::FrozenSet(_)
                | Node::List(_)
                | Node::Dict(_)
                | Node::Set(_)
        );
        if holds_others
            && graph.byte_len() <= LARGE
            && repr::scalar(&key.kind(), NAME_LIMIT).is_some()
        {
            // A date or a UUID.
            children.push((Label::Key(key), value));
        } else if holds_others {
            // It gets a line of its own before its value.
            children.push((Label::Part("key"), key));
            children.push((Label::Part("value"), value));
        } else {
            children.push((Label::Key(key), value));
        }
    }
}
