//! Looking at an object: what it is, and what it holds.

mod recognize;

use std::borrow::Cow;
use std::fmt;

use super::temporal::{Date, DateTime, Time, TimeDelta, TimeZone};
use super::{Graph, Maker, Node, NodeId, Span, Step, decimal, json};
use crate::codec::value::ValueError;

/// An object in a [`Graph`].
#[derive(Clone, Copy)]
pub struct Value<'a> {
    graph: &'a Graph,
    id: NodeId,
}

/// What a [`Value`] is.
///
/// Beyond Python's plain types, the classes of the standard library and of Django that sessions hold are
/// recognized by their names, in the spelling of Python 2 as well. Everything else is an
/// [`Object`] or a [`Global`]: data about what Python would do, which nothing here does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Kind<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An `int` or a `long`.
    Int(Integer<'a>),
    /// A `float`, every bit of it.
    Float(f64),
    /// A `complex`: real and imaginary part.
    Complex(f64, f64),
    /// A `str`, or `unicode` in Python 2.
    Str(Text<'a>),
    /// The `str` of Python 2: bytes that may have been meant as text.
    Py2Str(&'a [u8]),
    /// Django's `SafeString`, which is text that needs no escaping in HTML.
    SafeString(Text<'a>),
    /// `bytes`.
    Bytes(Cow<'a, [u8]>),
    /// `bytearray`.
    ByteArray(Cow<'a, [u8]>),
    /// A `list`.
    List(Items<'a>),
    /// A `tuple`.
    Tuple(Items<'a>),
    /// A `set`, its items in the order of the pickle.
    Set(Items<'a>),
    /// A `frozenset`, its items in the order of the pickle.
    FrozenSet(Items<'a>),
    /// A `collections.deque` and its `maxlen`.
    Deque(Items<'a>, Option<Integer<'a>>),
    /// A `range`, or `xrange` in Python 2: start, stop, step.
    Range([Integer<'a>; 3]),
    /// A `dict`.
    Dict(Dict<'a>),
    /// A `collections.OrderedDict`.
    OrderedDict(Dict<'a>),
    /// A `collections.Counter`.
    Counter(Dict<'a>),
    /// A `collections.defaultdict` and its `default_factory`.
    DefaultDict(Dict<'a>, Value<'a>),
    /// A `datetime.datetime`.
    DateTime(DateTime<'a>),
    /// A `datetime.date`.
    Date(Date),
    /// A `datetime.time`.
    Time(Time<'a>),
    /// A `datetime.timedelta`.
    TimeDelta(TimeDelta),
    /// A time zone that stands for itself.
    TimeZone(TimeZone<'a>),
    /// A `decimal.Decimal` as its own text.
    Decimal(&'a str),
    /// A `uuid.UUID`.
    Uuid(u128),
    /// A class or a function.
    Global(Global<'a>),
    /// An instance of any other class.
    Object(Object<'a>),
}

/// An integer of any size.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Integer<'a>(Size<'a>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Size<'a> {
    Small(i64),
    Large(&'a [u8]),
}

impl Integer<'_> {
    /// The number, if it fits.
    pub fn to_i64(&self) -> Option<i64> {
        match self.0 {
            Size::Small(number) => Some(number),
            Size::Large(bytes) => decimal::to_i64(bytes),
        }
    }

    /// The number, if it is not negative and fits.
    pub fn to_u128(&self) -> Option<u128> {
        match self.0 {
            Size::Small(number) => u128::try_from(number).ok(),
            Size::Large(bytes) => {
                let (low, high) = bytes.split_at(bytes.len().min(16));
                if high.iter().any(|&byte| byte != 0)
                    || high.is_empty() && low.last().is_some_and(|&byte| byte & 0x80 != 0)
                {
                    return None;
                }
                let mut wide = [0; 16];
                wide[..low.len()].copy_from_slice(low);
                Some(u128::from_le_bytes(wide))
            }
        }
    }

    /// The number as decimal text; nothing if it has more than the 4300 digits that Python writes.
    pub fn to_decimal(&self) -> Option<String> {
        match self.0 {
            Size::Small(number) => Some(number.to_string()),
            Size::Large(bytes) => decimal::from_twos_complement(bytes),
        }
    }

    /// The number as Python pickles it: little endian in two's complement.
    pub fn to_le_bytes(&self) -> Cow<'_, [u8]> {
        match self.0 {
            Size::Small(number) => Cow::Owned(number.to_le_bytes().to_vec()),
            Size::Large(bytes) => Cow::Borrowed(bytes),
        }
    }
}

impl fmt::Debug for Integer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Integer(..)")
    }
}

/// Text that may hold surrogates without their partners, which a `str` cannot.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// The text, or nothing if it is not valid Unicode.
    pub fn to_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }

    /// UTF-8 in which surrogates are three bytes like any other character (`surrogatepass`).
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text(..)")
    }
}

/// The items of a list, a tuple or a set.
#[derive(Clone)]
pub struct Items<'a> {
    graph: &'a Graph,
    ids: Cow<'a, [NodeId]>,
}

impl<'a> Items<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The item at this place.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        self.ids.get(index).map(|&id| self.graph.value(id))
    }

    /// The items in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Value<'a>> + '_ {
        self.ids.iter().map(|&id| self.graph.value(id))
    }
}

impl fmt::Debug for Items<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The keys and values of a dict.
///
/// They are all assignments in their order. Where keys are equal, the last value counts, at the place of
/// the first key; pickles of real dicts have no equal keys.
#[derive(Clone)]
pub struct Dict<'a> {
    graph: &'a Graph,
    pairs: Cow<'a, [(NodeId, NodeId)]>,
}

impl<'a> Dict<'a> {
    /// How many assignments there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Keys and values in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Value<'a>, Value<'a>)> + '_ {
        self.pairs.iter().map(|&(key, value)| (self.graph.value(key), self.graph.value(value)))
    }

    /// The assignment at this place.
    pub fn get_index(&self, index: usize) -> Option<(Value<'a>, Value<'a>)> {
        let pair = self.pairs.get(index);
        pair.map(|&(key, value)| (self.graph.value(key), self.graph.value(value)))
    }

    /// The value of a text key; a Python 2 string of the same ASCII text is that key too.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.iter().filter(|(key, _)| key.as_text() == Some(name)).last().map(|(_, value)| value)
    }
}

impl fmt::Debug for Dict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dict").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The name of a class or function, as the pickle spells it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Global<'a> {
    module: &'a [u8],
    name: &'a [u8],
}

impl<'a> Global<'a> {
    /// The module, `datetime`.
    pub fn module(self) -> Option<&'a str> {
        std::str::from_utf8(self.module).ok()
    }

    /// The name in it, `datetime`; with dots for what is nested in a class.
    pub fn name(self) -> Option<&'a str> {
        std::str::from_utf8(self.name).ok()
    }

    /// Whether this is that name of Python 3, or the one it had in Python 2.
    fn is(self, module: &str, name: &str) -> bool {
        self.name == name.as_bytes() && {
            let found = match self.module {
                b"__builtin__" => &b"builtins"[..],
                b"copy_reg" => b"copyreg",
                other => other,
            };
            found == module.as_bytes()
        }
    }
}

impl fmt::Debug for Global<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Global(..)")
    }
}

/// An object of a class that is not known here: how Python would make it.
#[derive(Clone, Copy)]
pub struct Object<'a> {
    graph: &'a Graph,
    by: Maker,
    steps: &'a [Step],
}

impl<'a> Object<'a> {
    /// What would be called, usually a [`Kind::Global`].
    pub fn callable(self) -> Value<'a> {
        let (Maker::Call { callable: id, .. }
        | Maker::New { class: id, .. }
        | Maker::NewEx { class: id, .. }
        | Maker::Instance { class: id, .. }) = self.by;
        self.graph.value(id)
    }

    /// Whether the callable is a class whose `__new__` would be called, as opposed to the callable itself.
    pub fn is_instance(self) -> bool {
        !matches!(self.by, Maker::Call { .. })
    }

    /// Whether this is an instance as Python 2 pickles old-style classes.
    pub fn is_old_style(self) -> bool {
        matches!(self.by, Maker::Instance { .. })
    }

    /// The arguments, a tuple.
    pub fn args(self) -> Value<'a> {
        let (Maker::Call { args, .. }
        | Maker::New { args, .. }
        | Maker::NewEx { args, .. }
        | Maker::Instance { args, .. }) = self.by;
        self.graph.value(args)
    }

    /// The keyword arguments, a dict, if there are any.
    pub fn kwargs(self) -> Option<Value<'a>> {
        match self.by {
            Maker::NewEx { kwargs, .. } => Some(self.graph.value(kwargs)),
            _ => None,
        }
    }

    /// The last state that would be set, usually a dict of attributes.
    pub fn state(self) -> Option<Value<'a>> {
        self.steps.iter().rev().find_map(|step| match *step {
            Step::SetState(id) => Some(self.graph.value(id)),
            _ => None,
        })
    }

    /// What would be appended or added to it.
    pub fn items(self) -> Items<'a> {
        let ids = self.steps.iter().filter_map(|step| match *step {
            Step::Append(id) | Step::Add(id) => Some(id),
            _ => None,
        });
        Items { graph: self.graph, ids: ids.collect() }
    }

    /// What would be assigned to its keys.
    pub fn pairs(self) -> Dict<'a> {
        Dict { graph: self.graph, pairs: self.steps.iter().filter_map(as_pair).collect() }
    }
}

impl fmt::Debug for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("steps", &self.steps.len()).finish_non_exhaustive()
    }
}

fn as_pair(step: &Step) -> Option<(NodeId, NodeId)> {
    match *step {
        Step::SetItem(key, value) => Some((key, value)),
        _ => None,
    }
}

fn as_append(step: &Step) -> Option<NodeId> {
    match *step {
        Step::Append(item) => Some(item),
        _ => None,
    }
}

impl<'a> Value<'a> {
    pub(super) fn new(graph: &'a Graph, id: NodeId) -> Self {
        Self { graph, id }
    }

    pub(crate) fn id(self) -> NodeId {
        self.id
    }

    pub(super) fn graph(self) -> &'a Graph {
        self.graph
    }

    /// Whether both are one and the same object (Python's `is`).
    pub fn is(self, other: Self) -> bool {
        std::ptr::eq(self.graph, other.graph) && self.id == other.id
    }

    /// A number that no other object of the graph has, as Python's `id`: objects may contain themselves,
    /// and who walks over them has to tell which ones have been met.
    pub fn identity(self) -> usize {
        self.id.index()
    }

    /// What it is.
    pub fn kind(self) -> Kind<'a> {
        let graph = self.graph;
        match graph.node(self.id) {
            Node::None => Kind::None,
            Node::Bool(value) => Kind::Bool(*value),
            Node::Int(number) => Kind::Int(Integer(Size::Small(*number))),
            Node::Long(span) => Kind::Int(Integer(Size::Large(graph.bytes_of(*span)))),
            Node::Float(number) => Kind::Float(*number),
            Node::Str(span) => Kind::Str(Text(graph.bytes_of(*span))),
            Node::Bytes(span) => Kind::Bytes(Cow::Borrowed(graph.bytes_of(*span))),
            Node::ByteArray(span) => Kind::ByteArray(Cow::Borrowed(graph.bytes_of(*span))),
            Node::Py2Str(span) => Kind::Py2Str(graph.bytes_of(*span)),
            Node::List(ids) => Kind::List(self.items(ids)),
            Node::Tuple(ids) => Kind::Tuple(self.items(ids)),
            Node::Set(ids) => Kind::Set(self.items(ids)),
            Node::FrozenSet(ids) => Kind::FrozenSet(self.items(ids)),
            Node::Dict(pairs) => Kind::Dict(Dict { graph, pairs: Cow::Borrowed(pairs) }),
            Node::Global { module, name } => Kind::Global(self.global(*module, *name)),
            Node::Made(made) => {
                let object = Object { graph, by: made.by, steps: &made.steps };
                object.recognize().unwrap_or(Kind::Object(object))
            }
        }
    }

    /// The value as JSON text, where it has a form that says the same: dates and times, decimals and UUIDs
    /// become text as Django's `DjangoJSONEncoder` writes them (here with all digits of a second), tuples
    /// and sets lists, bytes lists of numbers.
    ///
    /// # Errors
    ///
    /// [`ValueError`] for an object of a class that is not known, a key that JSON has not, or a value that
    /// contains itself.
    pub fn to_json(self) -> Result<String, ValueError> {
        json::to_json(self, json::Rules::Readable)
    }

    /// The text of a text, or of a Python 2 string in ASCII.
    pub(crate) fn as_text(self) -> Option<&'a str> {
        match self.graph.node(self.id) {
            Node::Str(span) => std::str::from_utf8(self.graph.bytes_of(*span)).ok(),
            Node::Py2Str(span) => {
                let bytes = self.graph.bytes_of(*span);
                std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii())
            }
            _ => None,
        }
    }

    fn items(self, ids: &'a [NodeId]) -> Items<'a> {
        Items { graph: self.graph, ids: Cow::Borrowed(ids) }
    }

    fn global(self, module: Span, name: Span) -> Global<'a> {
        Global { module: self.graph.bytes_of(module), name: self.graph.bytes_of(name) }
    }

    fn as_global(self) -> Option<Global<'a>> {
        match *self.graph.node(self.id) {
            Node::Global { module, name } => Some(self.global(module, name)),
            _ => None,
        }
    }

    fn as_integer(self) -> Option<Integer<'a>> {
        match self.graph.node(self.id) {
            Node::Int(_) | Node::Long(_) => match self.kind() {
                Kind::Int(number) => Some(number),
                _ => None,
            },
            _ => None,
        }
    }

    fn as_float(self) -> Option<f64> {
        match *self.graph.node(self.id) {
            Node::Float(number) => Some(number),
            _ => None,
        }
    }

    fn as_list(self) -> Option<Items<'a>> {
        match self.graph.node(self.id) {
            Node::List(ids) => Some(self.items(ids)),
            _ => None,
        }
    }

    /// Bytes in any of the ways in which pickles hold them.
    fn as_bytes(self) -> Option<Cow<'a, [u8]>> {
        match self.graph.node(self.id) {
            Node::Bytes(span) | Node::Py2Str(span) => {
                Some(Cow::Borrowed(self.graph.bytes_of(*span)))
            }
            Node::Made(_) => match self.kind() {
                Kind::Bytes(bytes) => Some(bytes),
                _ => None,
            },
            _ => None,
        }
    }

    fn as_time_zone(self) -> TimeZone<'a> {
        // Collections and bytes may be large, and this one shared by many dates.
        let may_be_large = self.is_of(&[b"collections", b"builtins", b"__builtin__", b"_codecs"]);
        match self.kind_unless(may_be_large) {
            Some(Kind::TimeZone(zone)) => zone,
            _ => TimeZone::Other(self),
        }
    }

    fn as_time_delta(self) -> Option<TimeDelta> {
        match self.kind_unless(!self.is_of(&[b"datetime"])) {
            Some(Kind::TimeDelta(delta)) => Some(delta),
            _ => None,
        }
    }

    fn kind_unless(self, large: bool) -> Option<Kind<'a>> {
        (!large).then(|| self.kind())
    }

    /// Whether a class or function of one of these modules makes it.
    fn is_of(self, modules: &[&[u8]]) -> bool {
        let Node::Made(made) = self.graph.node(self.id) else { return false };
        let callable = Object { graph: self.graph, by: made.by, steps: &made.steps }.callable();
        callable.as_global().is_some_and(|global| modules.contains(&global.module))
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(..)")
    }
}
