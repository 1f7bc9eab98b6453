//! Python objects as data: values, and which of them are one and the same.
//!
//! A pickle is a program that builds objects which may be shared and may contain themselves, so a tree
//! cannot hold them. A [`Graph`] does: each object is a node, and what an object contains are numbers of
//! nodes. Classes and functions are names, and a call is a record of what would have been called; nothing
//! is imported and nothing runs. [`Value`] looks at a node and recognizes the harmless types that
//! sessions hold. Nodes live in one vector, so nothing here recurses, not even when it is dropped.

use std::fmt;

pub(crate) mod decimal;
mod json;
mod temporal;
mod value;

pub(crate) use json::{Rules, literal_bytes, push_escaped, push_json, push_key, surrogate};
pub use temporal::{Date, DateTime, Time, TimeDelta, TimeZone};
pub use value::{Dict, Global, Integer, Items, Kind, Object, Text, Value};

/// The number of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(u32);

impl NodeId {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const FALSE: Self = Self(1);
    pub(crate) const TRUE: Self = Self(2);
    /// The empty tuple, of which Python has only one too.
    pub(crate) const EMPTY_TUPLE: Self = Self(3);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A stretch of [`Graph::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    length: u32,
}

/// One object. Texts and byte strings are stretches of the graph's bytes.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of any size, little endian in two's complement; in Python 2 the type `long`.
    Long(Span),
    Float(f64),
    /// UTF-8 in which surrogates are three bytes like any other character.
    Str(Span),
    Bytes(Span),
    ByteArray(Span),
    /// The type `str` of Python 2.
    Py2Str(Span),
    List(Vec<NodeId>),
    Tuple(Vec<NodeId>),
    /// Every assignment in its order; of equal keys the last one counts, at the place of the first.
    Dict(Vec<(NodeId, NodeId)>),
    Set(Vec<NodeId>),
    FrozenSet(Vec<NodeId>),
    /// A class or function by its name.
    Global {
        module: Span,
        name: Span,
    },
    Made(Box<Made>),
}

/// An object that Python would make by calling something.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) by: Maker,
    /// What was then done to it, in this order.
    pub(crate) steps: Vec<Step>,
}

/// How an object is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// `callable(*args)`.
    Call { callable: NodeId, args: NodeId },
    /// `class.__new__(class, *args)`.
    New { class: NodeId, args: NodeId },
    /// `class.__new__(class, *args, **kwargs)`.
    NewEx { class: NodeId, args: NodeId, kwargs: NodeId },
    /// An instance of a Python 2 class: `class(*args)`, or without a call if there are no arguments.
    Instance { class: NodeId, args: NodeId },
}

/// A change to an object after it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Append(NodeId),
    Add(NodeId),
    SetItem(NodeId, NodeId),
    /// `__setstate__`, or attributes to set.
    SetState(NodeId),
    /// A call that gets the object and its state, and whose result is dropped (Python 3.8).
    Call(NodeId),
}

/// Python objects and how they refer to each other.
///
/// # Example
///
/// ```
/// use django_session::codec::{graph::{Graph, Kind}, pickle::Limits};
///
/// // pickle.dumps({"when": datetime.date(2026, 11, 21)}, 2) of Python 2.7
/// let pickle = b"\x80\x02}q\x00U\x04whenq\x01cdatetime\ndate\nq\x02U\x04\x07\xea\x0b\x15q\x03\x85q\x04Rq\x05s.";
/// let graph = Graph::from_pickle(pickle, &Limits::default())?;
/// let Kind::Dict(pairs) = graph.root().kind() else { panic!() };
/// let (_, when) = pairs.iter().next().unwrap();
/// assert_eq!(when.to_json()?, "\"2026-11-21\"");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Graph {
    nodes: Vec<Node>,
    bytes: Vec<u8>,
    root: NodeId,
    protocol: u8,
}

impl Graph {
    /// A graph over bytes that spans may refer to.
    pub(crate) fn over(bytes: Vec<u8>, protocol: u8) -> Self {
        let mut nodes = Vec::with_capacity(16 + bytes.len() / 8);
        nodes.extend([Node::None, Node::Bool(false), Node::Bool(true), Node::Tuple(Vec::new())]);
        Self { nodes, bytes, root: NodeId::NONE, protocol }
    }

    /// The object that everything else is part of.
    pub fn root(&self) -> Value<'_> {
        Value::new(self, self.root)
    }

    /// The protocol of the pickle this was read from. Names of classes are those that a pickle of this
    /// protocol uses: up to 2 they are Python 2's, `__builtin__` where Python 3 says `builtins`.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    pub(crate) fn root_id(&self) -> NodeId {
        self.root
    }

    pub(crate) fn set_root(&mut self, root: NodeId) {
        self.root = root;
    }

    pub(crate) fn set_protocol(&mut self, protocol: u8) {
        self.protocol = protocol;
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// How many times each object that can be reached is referred to; the root once from outside.
    #[cfg(feature = "cli")]
    pub(crate) fn references(&self) -> Vec<u32> {
        let mut counts = vec![0_u32; self.nodes.len()];
        counts[self.root.index()] = 1;
        let mut open = vec![self.root];
        while let Some(id) = open.pop() {
            self.node(id).each_child(|child| {
                let count = &mut counts[child.index()];
                if *count == 0 {
                    open.push(child);
                }
                *count = count.saturating_add(1);
            });
        }
        counts
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        // Every id was given out by `push`, and nodes are never taken away.
        &self.nodes[id.index()]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    pub(crate) fn value(&self, id: NodeId) -> Value<'_> {
        Value::new(self, id)
    }

    pub(crate) fn bytes_of(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..][..span.length as usize]
    }

    #[expect(clippy::cast_possible_truncation, reason = "readers take fewer than 2^31 bytes")]
    pub(crate) fn push(&mut self, node: Node) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        id
    }

    /// The stretch of bytes that are there already.
    #[expect(clippy::cast_possible_truncation, reason = "readers take fewer than 2^31 bytes")]
    pub(crate) fn span(start: usize, length: usize) -> Span {
        Span { start: start as u32, length: length as u32 }
    }

    /// Appends bytes for a node to refer to.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) -> Span {
        let span = Self::span(self.bytes.len(), bytes.len());
        self.bytes.extend_from_slice(bytes);
        span
    }

    #[cfg(feature = "cli")]
    pub(crate) fn push_str(&mut self, text: &str) -> NodeId {
        let span = self.push_bytes(text.as_bytes());
        self.push(Node::Str(span))
    }

    /// Copies what `id` of another graph leads to; sharing and cycles within it are kept.
    pub(crate) fn copy_from(&mut self, other: &Self, id: NodeId) -> NodeId {
        let mut copies: Vec<Option<NodeId>> = vec![None; other.nodes.len()];
        for (index, copy) in copies.iter_mut().enumerate().take(4) {
            *copy = Some(NodeId(u32::try_from(index).unwrap_or(0)));
        }
        // First a place for every node that can be reached, then their contents.
        let mut reached = Vec::new();
        let mut open = vec![id];
        while let Some(next) = open.pop() {
            if copies[next.index()].is_none() {
                copies[next.index()] = Some(self.push(Node::None));
                reached.push(next);
                other.node(next).each_child(|child| open.push(child));
            }
        }
        for old in reached {
            let mut node = other.node(old).clone();
            node.each_child_mut(|child| *child = copies[child.index()].unwrap_or(NodeId::NONE));
            node.each_span_mut(|span| *span = self.push_bytes(other.bytes_of(*span)));
            if let Some(new) = copies[old.index()] {
                *self.node_mut(new) = node;
            }
        }
        copies[id.index()].unwrap_or(NodeId::NONE)
    }
}

/// Shows how much there is, never what: sessions hold secrets.
impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("protocol", &self.protocol)
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Whether there is no such object before all its parts are there.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Self::Tuple(_) | Self::FrozenSet(_) | Self::Made(_))
    }

    /// Whether it may refer to other nodes.
    pub(crate) fn has_parts(&self) -> bool {
        match self {
            Self::List(parts) | Self::Set(parts) | Self::Tuple(parts) => !parts.is_empty(),
            Self::Dict(pairs) => !pairs.is_empty(),
            node => node.is_late(),
        }
    }

    /// Calls `f` with every node that this one refers to, in the order in which a pickle has them.
    pub(crate) fn each_child(&self, mut f: impl FnMut(NodeId)) {
        match self {
            Self::List(items) | Self::Tuple(items) | Self::Set(items) | Self::FrozenSet(items) => {
                items.iter().copied().for_each(f);
            }
            Self::Dict(pairs) => pairs.iter().for_each(|&(key, value)| {
                f(key);
                f(value);
            }),
            Self::Made(made) => {
                let mut by = made.by;
                by.each_child_mut(|child| f(*child));
                for &step in &made.steps {
                    let mut step = step;
                    step.each_child_mut(|child| f(*child));
                }
            }
            _ => {}
        }
    }

    pub(crate) fn each_child_mut(&mut self, mut f: impl FnMut(&mut NodeId)) {
        match self {
            Self::List(items) | Self::Tuple(items) | Self::Set(items) | Self::FrozenSet(items) => {
                items.iter_mut().for_each(f);
            }
            Self::Dict(pairs) => pairs.iter_mut().for_each(|(key, value)| {
                f(key);
                f(value);
            }),
            Self::Made(made) => {
                made.by.each_child_mut(&mut f);
                made.steps.iter_mut().for_each(|step| step.each_child_mut(&mut f));
            }
            _ => {}
        }
    }

    fn each_span_mut(&mut self, mut f: impl FnMut(&mut Span)) {
        match self {
            Self::Long(span)
            | Self::Str(span)
            | Self::Bytes(span)
            | Self::ByteArray(span)
            | Self::Py2Str(span) => f(span),
            Self::Global { module, name } => {
                f(module);
                f(name);
            }
            _ => {}
        }
    }
}

impl Maker {
    fn each_child_mut(&mut self, mut f: impl FnMut(&mut NodeId)) {
        match self {
            Self::Call { callable: first, args }
            | Self::New { class: first, args }
            | Self::Instance { class: first, args } => {
                f(first);
                f(args);
            }
            Self::NewEx { class, args, kwargs } => {
                f(class);
                f(args);
                f(kwargs);
            }
        }
    }
}

impl Step {
    fn each_child_mut(&mut self, mut f: impl FnMut(&mut NodeId)) {
        match self {
            Self::Append(item) | Self::Add(item) | Self::SetState(item) | Self::Call(item) => {
                f(item);
            }
            Self::SetItem(key, value) => {
                f(key);
                f(value);
            }
        }
    }
}
