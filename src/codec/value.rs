//! What a session holds: names and values in the order in which they were set.
//!
//! A value stays what it came as until somebody asks for it: JSON text, or objects of a pickle. Whatever
//! is not touched goes back unchanged: integers of any size, the bits of floats, `NaN`, lone surrogates,
//! 900 levels, objects of any class that are shared or contain themselves. It is also the fastest way: a
//! value that nobody reads is never built.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use indexmap::IndexMap;
use serde::{Serialize, de::DeserializeOwned};

use super::de;
use super::error::{DecodeError, EncodeError};
use super::graph::{self, Graph, Kind, Node, NodeId, Rules};
use super::json::{self, JsonError, JsonErrorKind, Literal, Scanner, Token};
use super::pickle::PickleError;
use super::ser;

/// The decoded session: a mapping from text to values, in insertion order like a Python `dict`.
///
/// # Example
///
/// ```
/// use django_session::SessionData;
///
/// let mut data = SessionData::from_json(r#"{"big":123456789012345678901234567890,"cart":[1,2]}"#)?;
/// assert_eq!(data.get::<Vec<u32>>("cart")?, Some(vec![1, 2]));
///
/// data.insert("cart", &[3])?;
/// assert_eq!(data.to_json()?, r#"{"big":123456789012345678901234567890,"cart":[3]}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SessionData(Content);

#[derive(Clone)]
enum Content {
    Json(JsonData),
    Python(Box<PythonData>),
}

/// Entries as JSON text.
#[derive(Clone, Default)]
struct JsonData {
    /// The text the session came from; ASCII.
    source: Box<str>,
    /// Names are kept in the form in which Python writes them, where equal texts are equal.
    entries: IndexMap<Box<str>, Raw>,
}

/// A value's JSON text.
#[derive(Clone)]
enum Raw {
    /// Where in the source it stands.
    Source(Range<usize>),
    Owned(Box<str>),
}

/// Entries as objects, of which the dict at the root of the graph is the session.
#[derive(Clone)]
struct PythonData {
    graph: Graph,
    /// Keys and values. What was set here has replaced the pairs of the root.
    entries: IndexMap<Key, (NodeId, NodeId)>,
    /// Nodes that there may be before those that nothing refers to any more are left behind.
    room: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    /// Text, in the form in which Python writes it in JSON.
    Name(Box<str>),
    /// Anything else that Python takes for a key. It stays where it is.
    Other(NodeId),
}

impl Default for SessionData {
    fn default() -> Self {
        Self(Content::Json(JsonData::default()))
    }
}

impl SessionData {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a JSON object, by the rules of Python's `json.loads`.
    ///
    /// # Errors
    ///
    /// [`JsonError`] if Python would not read it or it is not an object.
    pub fn from_json(text: &str) -> Result<Self, JsonError> {
        Self::parse(ascii(text).into_owned())
    }

    /// As [`SessionData::from_json`], of text that is ASCII.
    pub(crate) fn parse(source: String) -> Result<Self, JsonError> {
        let mut entries = IndexMap::new();
        let mut scanner = Scanner::new(&source);
        scanner.expect(b'{')?;
        if !scanner.eat(b'}') {
            loop {
                let name = scanner.member_name()?;
                let raw = scanner.raw_value()?;
                let end = scanner.offset();
                entries.insert(canonical_name(name), Raw::Source(end - raw.len()..end));
                if !scanner.eat(b',') {
                    break;
                }
            }
            scanner.expect(b'}')?;
        }
        scanner.end()?;
        Ok(Self(Content::Json(JsonData { source: source.into_boxed_str(), entries })))
    }

    /// Takes Python objects, the root of which has to be a `dict`.
    ///
    /// # Errors
    ///
    /// [`DecodeError::NotAnObject`].
    pub fn from_graph(graph: Graph) -> Result<Self, DecodeError> {
        let Node::Dict(pairs) = graph.node(graph.root_id()) else {
            return Err(DecodeError::NotAnObject { found: graph.root().kind().description() });
        };
        let mut entries = IndexMap::with_capacity(pairs.len());
        for &(key, value) in pairs {
            // A key that is there already stays, and its value is replaced.
            entries
                .entry(Key::of(&graph, key))
                .and_modify(|pair: &mut (NodeId, NodeId)| pair.1 = value)
                .or_insert((key, value));
        }
        Ok(Self(Content::Python(Box::new(PythonData { room: room(&graph), graph, entries }))))
    }

    /// Whether this holds Python objects, out of a pickle, as opposed to JSON.
    pub fn is_python(&self) -> bool {
        matches!(self.0, Content::Python(_))
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        match &self.0 {
            Content::Json(data) => data.entries.len(),
            Content::Python(data) => data.entries.len(),
        }
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is an entry of this name, `null` included.
    pub fn contains_key(&self, name: &str) -> bool {
        match &self.0 {
            Content::Json(data) => data.entries.contains_key(&*escape(name)),
            Content::Python(data) => data.find(name).is_some(),
        }
    }

    /// The names in insertion order. A pickled session may have entries under other keys than text; they
    /// are kept, and not listed.
    pub fn keys(&self) -> impl Iterator<Item = Name<'_>> {
        let (json, python) = match &self.0 {
            Content::Json(data) => (Some(data.entries.keys()), None),
            Content::Python(data) => (None, Some(data.entries.keys())),
        };
        let json = json.into_iter().flatten().map(|name| Name(name));
        json.chain(python.into_iter().flatten().filter_map(Key::name))
    }

    /// The value of this name, as a type that serde can read it into.
    ///
    /// Of a pickled session, what has no JSON form is read as [`graph::Value::to_json`] writes it: a date
    /// as text, a tuple as a list.
    ///
    /// # Errors
    ///
    /// [`ValueError`] if the value is of another shape, or holds text that is not Unicode.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ValueError> {
        self.get_raw(name)?.map(|json| de::from_json(&json)).transpose()
    }

    /// The JSON text of this name's value: ASCII, as it was stored.
    ///
    /// # Errors
    ///
    /// [`ValueError`] if it is a Python object without such a form; see [`graph::Value::to_json`].
    pub fn get_raw(&self, name: &str) -> Result<Option<Cow<'_, str>>, ValueError> {
        match &self.0 {
            Content::Json(data) => {
                Ok(data.entries.get(&*escape(name)).map(|raw| data.text(raw).into()))
            }
            Content::Python(data) => {
                let value = data.find(name).map(|(_, id)| data.graph.value(id).to_json());
                Ok(value.transpose()?.map(Cow::Owned))
            }
        }
    }

    /// The value of this name as a Python object; nothing if the session is JSON.
    pub fn get_object(&self, name: &str) -> Option<graph::Value<'_>> {
        match &self.0 {
            Content::Json(_) => None,
            Content::Python(data) => data.find(name).map(|(_, id)| data.graph.value(id)),
        }
    }

    /// Keys and values of a pickled session as Python objects, in insertion order.
    pub fn objects(&self) -> impl Iterator<Item = (graph::Value<'_>, graph::Value<'_>)> {
        let data = match &self.0 {
            Content::Json(_) => None,
            Content::Python(data) => Some(data),
        };
        data.into_iter().flat_map(|data| {
            let pairs = data.entries.values();
            pairs.map(|&(key, value)| (data.graph.value(key), data.graph.value(value)))
        })
    }

    /// Names and the JSON texts of their values, in insertion order.
    ///
    /// The texts come with the error of [`SessionData::get_raw`].
    pub fn iter_raw(&self) -> impl Iterator<Item = (Name<'_>, Result<Cow<'_, str>, ValueError>)> {
        let (json, python) = match &self.0 {
            Content::Json(data) => (Some(data), None),
            Content::Python(data) => (None, Some(data)),
        };
        let json = json.into_iter().flat_map(|data| {
            data.entries.iter().map(|(name, raw)| (Name(name), Ok(data.text(raw).into())))
        });
        json.chain(python.into_iter().flat_map(|data| {
            data.entries.iter().filter_map(|(key, &(_, id))| {
                Some((key.name()?, data.graph.value(id).to_json().map(Cow::Owned)))
            })
        }))
    }

    /// Sets a value. A new name goes to the end; a known one keeps its place.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the value has no JSON form that Django reads; nothing is changed then.
    pub fn insert<T: Serialize + ?Sized>(
        &mut self,
        name: &str,
        value: &T,
    ) -> Result<(), EncodeError> {
        let raw = ser::to_json(value)?;
        self.insert_json(name, raw);
        Ok(())
    }

    /// Sets a value given as JSON text, with everything that Python's JSON allows.
    ///
    /// # Errors
    ///
    /// [`JsonError`] if Python would not read it; nothing is changed then.
    pub fn insert_raw(&mut self, name: &str, json: &str) -> Result<(), JsonError> {
        let json = ascii(json);
        let mut scanner = Scanner::new(&json);
        let raw = scanner.raw_value()?;
        scanner.end()?;
        self.insert_json(name, raw.to_owned());
        Ok(())
    }

    /// Sets a value whose text is known to be what Python writes.
    pub(crate) fn insert_json(&mut self, name: &str, json: String) {
        match &mut self.0 {
            Content::Json(data) => {
                data.entries.insert(escape(name).into(), Raw::Owned(json.into_boxed_str()));
            }
            Content::Python(data) => {
                let value = data.graph.push_json(&json);
                data.set(&escape(name), value);
                data.compact();
            }
        }
    }

    /// Removes an entry and tells whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        match &mut self.0 {
            Content::Json(data) => data.entries.shift_remove(&*escape(name)).is_some(),
            Content::Python(data) => {
                data.entries.shift_remove(&Key::Name(escape(name).into())).is_some()
            }
        }
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        match &mut self.0 {
            Content::Json(data) => data.entries.clear(),
            Content::Python(data) => data.entries.clear(),
        }
    }

    /// Sets every entry of `other` here, in its order (`dict.update`).
    pub fn update(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (Content::Json(data), Content::Json(other)) => {
                for (name, raw) in &other.entries {
                    data.entries.insert(name.clone(), Raw::Owned(other.text(raw).into()));
                }
            }
            (Content::Python(data), Content::Json(other)) => {
                for (name, raw) in &other.entries {
                    let value = data.graph.push_json(other.text(raw));
                    data.set(name, value);
                }
            }
            (Content::Python(data), Content::Python(other)) => data.update(other),
            (Content::Json(data), Content::Python(other)) => {
                let mut python = data.to_python(other.graph.protocol());
                python.update(other);
                self.0 = Content::Python(Box::new(python));
            }
        }
    }

    /// Keeps the entries whose name `keep` wants. Keys that are no text stay where they are.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Name<'_>) -> bool) {
        match &mut self.0 {
            Content::Json(data) => data.entries.retain(|name, _| keep(Name(name))),
            Content::Python(data) => {
                data.entries.retain(|key, _| key.name().is_none_or(&mut keep));
            }
        }
    }

    /// The entries whose name `keep` wants, and none whose key is no text.
    pub(crate) fn select(&self, mut keep: impl FnMut(Name<'_>) -> bool) -> Self {
        let mut selected = self.clone();
        match &mut selected.0 {
            Content::Json(data) => data.entries.retain(|name, _| keep(Name(name))),
            Content::Python(data) => {
                data.entries.retain(|key, _| key.name().is_some_and(&mut keep));
            }
        }
        selected
    }

    /// Whether both have a value of this name, or neither, and the values are the same: the same
    /// JSON, or objects that a pickle would not tell apart.
    pub(crate) fn same_value(&self, other: &Self, name: Name<'_>) -> bool {
        if let (Content::Json(_), Content::Json(_)) | (Content::Python(_), Content::Python(_)) =
            (&self.0, &other.0)
        {
            return self.value_bytes(name) == other.value_bytes(name);
        }
        // One of them was read from JSON and the other from a pickle: as JSON they can be compared.
        self.contains(name) == other.contains(name)
            && self.value_json(name) == other.value_json(name)
    }

    /// A value as JSON, if it has a form there. The name need not be Unicode.
    fn value_json(&self, name: Name<'_>) -> Option<Cow<'_, str>> {
        match &self.0 {
            Content::Json(data) => Some(data.text(data.entries.get(name.0)?).into()),
            Content::Python(data) => {
                let &(_, value) = data.entries.get(&Key::Name(name.0.into()))?;
                data.graph.value(value).to_json().ok().map(Cow::Owned)
            }
        }
    }

    /// A value as bytes that are equal where the values are, among sessions of one kind.
    fn value_bytes(&self, name: Name<'_>) -> Option<Cow<'_, [u8]>> {
        match &self.0 {
            Content::Json(data) => {
                let raw = data.entries.get(name.0)?;
                Some(Cow::Borrowed(data.text(raw).as_bytes()))
            }
            Content::Python(data) => {
                let &(_, value) = data.entries.get(&Key::Name(name.0.into()))?;
                Some(Cow::Owned(data.pickle_of(value)))
            }
        }
    }

    /// Whether there is a value of this name.
    pub(crate) fn contains(&self, name: Name<'_>) -> bool {
        match &self.0 {
            Content::Json(data) => data.entries.contains_key(name.0),
            Content::Python(data) => data.entries.contains_key(&Key::Name(name.0.into())),
        }
    }

    /// The whole session as JSON text: for values that Django's `JSONSerializer` wrote, its very bytes.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Unrepresentable`] if a pickled session holds what `json.dumps` refuses.
    pub fn to_json(&self) -> Result<String, EncodeError> {
        match &self.0 {
            Content::Json(data) => Ok(data.to_json()),
            Content::Python(data) => data.to_json(Rules::Strict),
        }
    }

    /// As [`SessionData::to_json`], by the rules of `DjangoJSONEncoder`.
    #[cfg(feature = "cache")]
    pub(crate) fn to_django_json(&self) -> Result<String, EncodeError> {
        match &self.0 {
            Content::Json(data) => Ok(data.to_json()),
            Content::Python(data) => data.to_json(Rules::Django),
        }
    }

    /// The same session as Python objects.
    #[cfg(feature = "cache")]
    pub(crate) fn as_python(&self) -> Cow<'_, Self> {
        match &self.0 {
            Content::Json(data) => {
                let data = data.to_python(super::pickle::DEFAULT_PROTOCOL);
                Cow::Owned(Self(Content::Python(Box::new(data))))
            }
            Content::Python(_) => Cow::Borrowed(self),
        }
    }

    /// The whole session as a pickle.
    ///
    /// Objects of a pickle keep its protocol, and 0 and 1 become 2; see [`Graph::to_pickle`]. JSON becomes
    /// a pickle of `protocol`, from 2 to [`HIGHEST_PROTOCOL`](super::pickle::HIGHEST_PROTOCOL).
    ///
    /// # Errors
    ///
    /// [`PickleError`]; see [`Graph::to_pickle`].
    pub fn to_pickle(&self, protocol: u8) -> Result<Vec<u8>, PickleError> {
        match &self.0 {
            Content::Json(data) => data.to_pickle(protocol),
            Content::Python(data) => data.to_pickle(),
        }
    }
}

impl JsonData {
    fn to_json(&self) -> String {
        let mut out = String::with_capacity(self.source.len() + 64);
        out.push('{');
        for (index, (name, raw)) in self.entries.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            out.push('"');
            out.push_str(name);
            out.push_str("\":");
            out.push_str(self.text(raw));
        }
        out.push('}');
        out
    }

    fn text<'a>(&'a self, raw: &'a Raw) -> &'a str {
        match raw {
            Raw::Source(range) => &self.source[range.clone()],
            Raw::Owned(text) => text,
        }
    }

    fn to_pickle(&self, protocol: u8) -> Result<Vec<u8>, PickleError> {
        let protocol = protocol.clamp(2, super::pickle::HIGHEST_PROTOCOL);
        let entries = self.entries.iter().map(|(name, raw)| (&**name, self.text(raw)));
        super::pickle::from_json(entries, self.source.len() + 64, protocol)
    }

    fn to_python(&self, protocol: u8) -> PythonData {
        let protocol = protocol.clamp(2, super::pickle::HIGHEST_PROTOCOL);
        let mut graph = Graph::over(Vec::new(), protocol);
        let root = graph.push(Node::Dict(Vec::new()));
        graph.set_root(root);
        let mut data = PythonData { room: room(&graph), graph, entries: IndexMap::new() };
        for (name, raw) in &self.entries {
            let value = data.graph.push_json(self.text(raw));
            data.set(name, value);
        }
        data
    }
}

impl PythonData {
    fn find(&self, name: &str) -> Option<(NodeId, NodeId)> {
        self.entries.get(&Key::Name(escape(name).into())).copied()
    }

    /// Sets a value, under a new key if there is none of this name.
    fn set(&mut self, name: &str, value: NodeId) {
        let graph = &mut self.graph;
        let literal = Literal { body: name, escaped: name.contains('\\') };
        match self.entries.entry(Key::Name(name.into())) {
            indexmap::map::Entry::Occupied(mut entry) => entry.get_mut().1 = value,
            indexmap::map::Entry::Vacant(entry) => {
                let key = graph.push_literal(literal);
                entry.insert((key, value));
            }
        }
    }

    /// Leaves behind what nothing refers to any more, once it is about half of all. A session that lives
    /// as long as a connection would else grow with every change.
    fn compact(&mut self) {
        if self.graph.len() <= self.room {
            return;
        }
        let root = self.graph.root_id();
        let pairs = self.entries.values().copied().collect();
        *self.graph.node_mut(root) = Node::Dict(pairs);
        let mut graph = Graph::over(Vec::new(), self.graph.protocol());
        let root = graph.copy_from(&self.graph, root);
        graph.set_root(root);
        let Node::Dict(pairs) = graph.node(root) else { return };
        for (pair, &copy) in self.entries.values_mut().zip(pairs) {
            *pair = copy;
        }
        self.room = room(&graph);
        self.graph = graph;
    }

    fn update(&mut self, other: &Self) {
        // One list of everything, so that what is shared stays shared. A session that contains itself
        // does not bring along what was removed from it.
        let mut source = other.graph.clone();
        let root = source.root_id();
        *source.node_mut(root) = Node::Dict(other.entries.values().copied().collect());
        let pairs = other.entries.values().flat_map(|&(key, value)| [key, value]).collect();
        let all = source.push(Node::Tuple(pairs));
        let copy = self.graph.copy_from(&source, all);
        let Node::Tuple(copies) = self.graph.node(copy).clone() else { return };
        for (key, pair) in other.entries.keys().zip(copies.chunks_exact(2)) {
            let (new_key, value) = (pair[0], pair[1]);
            match key {
                Key::Name(name) => self.set(name, value),
                Key::Other(_) => {
                    self.entries.insert(Key::Other(new_key), (new_key, value));
                }
            }
        }
        self.compact();
    }

    fn to_json(&self, rules: Rules) -> Result<String, EncodeError> {
        let mut out = String::from("{");
        for (index, (key, &(key_id, value))) in self.entries.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            match key {
                Key::Name(name) => {
                    out.push('"');
                    out.push_str(name);
                    out.push('"');
                }
                Key::Other(_) => graph::push_key(&mut out, self.graph.value(key_id))
                    .map_err(|_| EncodeError::Unrepresentable { kind: "a key of this type" })?,
            }
            out.push(':');
            graph::push_json(&mut out, self.graph.value(value), rules)
                .map_err(|kind| EncodeError::Unrepresentable { kind })?;
        }
        out.push('}');
        Ok(out)
    }

    /// A value alone, as bytes that are equal where Python would rebuild the same.
    fn pickle_of(&self, value: NodeId) -> Vec<u8> {
        // What is too large to be written cannot have been read.
        self.graph.to_pickle_of(value).unwrap_or_default()
    }

    fn to_pickle(&self) -> Result<Vec<u8>, PickleError> {
        let pairs: Vec<_> = self.entries.values().copied().collect();
        self.graph.to_pickle_with(&pairs)
    }
}

/// Twice the nodes that there are, and some for small sessions.
fn room(graph: &Graph) -> usize {
    graph.len() * 2 + 256
}

impl Key {
    fn of(graph: &Graph, id: NodeId) -> Self {
        let bytes = match graph.value(id).kind() {
            Kind::Str(text) | Kind::SafeString(text) => text.as_bytes(),
            // Equal to the text, for Python 2 as well as for who reads it in Python 3.
            Kind::Py2Str(bytes) if bytes.is_ascii() => bytes,
            _ => return Self::Other(id),
        };
        let mut name = String::with_capacity(bytes.len());
        graph::push_escaped(&mut name, bytes);
        Self::Name(name.into_boxed_str())
    }

    fn name(&self) -> Option<Name<'_>> {
        match self {
            Self::Name(name) => Some(Name(name)),
            Self::Other(_) => None,
        }
    }
}

/// Shows how many entries there are, never what they are: sessions hold secrets.
impl fmt::Debug for SessionData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionData").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Equal if the same names hold the same JSON texts, in whatever order, as Python compares dicts.
/// Sessions with Python objects are equal if they are the same as pickles or as JSON.
impl PartialEq for SessionData {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Content::Json(data), Content::Json(other)) => {
                data.entries.len() == other.entries.len()
                    && data.entries.iter().all(|(name, raw)| {
                        let found = other.entries.get(name);
                        found.is_some_and(|found| data.text(raw) == other.text(found))
                    })
            }
            (Content::Python(data), Content::Python(other)) => {
                data.to_pickle().is_ok_and(|pickle| other.to_pickle().is_ok_and(|o| o == pickle))
            }
            _ => match (self.to_json(), other.to_json()) {
                (Ok(one), Ok(other)) => Self::from_json(&one)
                    .is_ok_and(|one| Self::from_json(&other).is_ok_and(|o| o == one)),
                _ => false,
            },
        }
    }
}

/// The name of an entry. Python's text may hold lone surrogates, which a `str` cannot.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    /// The name as text, or `None` if it is not valid Unicode.
    pub fn to_str(self) -> Option<Cow<'a, str>> {
        Literal { body: self.0, escaped: self.0.contains('\\') }.to_str()
    }

    /// The name as Python writes it between the quotes of a JSON string; ASCII.
    pub fn as_escaped(self) -> &'a str {
        self.0
    }
}

impl PartialEq<str> for Name<'_> {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *escape(other)
    }
}

impl PartialEq<&str> for Name<'_> {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name(..)")
    }
}

/// A value that could not be read into the type asked for.
///
/// The message names types and shapes, never the value.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ValueError(pub(super) String);

/// What kind of value a payload is that is not an object; `None` if it is no JSON at all.
pub(crate) fn kind_of_other(text: &str) -> Option<&'static str> {
    let mut scanner = Scanner::new(text);
    let mut whole = scanner.clone();
    whole.raw_value().and_then(|_| whole.end()).ok()?;
    Some(match scanner.token().ok()? {
        Token::Null => "null",
        Token::True | Token::False => "a boolean",
        Token::Number => "a number",
        Token::String => "a string",
        Token::List => "a list",
        Token::Object => return None,
    })
}

/// The text with everything outside ASCII escaped. Outside of strings that makes an error of what was
/// one before.
fn ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for char in text.chars() {
        if char.is_ascii() {
            out.push(char);
        } else {
            json::push_escaped(&mut out, char.encode_utf8(&mut [0; 4]));
        }
    }
    Cow::Owned(out)
}

/// A name as Python writes it; the usual ones are that already.
fn escape(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len() + 16);
    json::push_escaped(&mut out, name);
    Cow::Owned(out)
}

fn canonical_name(name: Literal<'_>) -> Box<str> {
    let mut out = String::with_capacity(name.body.len());
    json::push_canonical(&mut out, name);
    out.into_boxed_str()
}

impl From<JsonErrorKind> for ValueError {
    fn from(kind: JsonErrorKind) -> Self {
        Self(kind.to_string())
    }
}
