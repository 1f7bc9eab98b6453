//! What a session holds: names and values in the order in which they were set.
//!
//! A value stays the JSON text it came as until somebody asks for it, so whatever is not touched goes
//! back unchanged: integers of any size, the bits of floats, `NaN`, lone surrogates, 900 levels. It is
//! also the fastest way: a value that nobody reads is never built.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use indexmap::IndexMap;
use serde::{Serialize, de::DeserializeOwned};

use super::de;
use super::error::EncodeError;
use super::json::{self, JsonError, JsonErrorKind, Literal, Scanner, Token};
use super::ser;

/// The decoded session: a mapping from text to JSON values, in insertion order like a Python `dict`.
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
/// assert_eq!(data.to_json(), r#"{"big":123456789012345678901234567890,"cart":[3]}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct SessionData {
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
        Ok(Self { source: source.into_boxed_str(), entries })
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is an entry of this name, `null` included.
    pub fn contains_key(&self, name: &str) -> bool {
        self.entries.contains_key(&*escape(name))
    }

    /// The names in insertion order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = Name<'_>> {
        self.entries.keys().map(|name| Name(name))
    }

    /// The value of this name, as a type that serde can read it into.
    ///
    /// # Errors
    ///
    /// [`ValueError`] if the value is of another shape, or holds text that is not Unicode.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ValueError> {
        self.get_raw(name).map(de::from_json).transpose()
    }

    /// The JSON text of this name's value: ASCII, as it was stored.
    pub fn get_raw(&self, name: &str) -> Option<&str> {
        self.entries.get(&*escape(name)).map(|raw| self.text(raw))
    }

    /// Names and the JSON texts of their values, in insertion order.
    pub fn iter_raw(&self) -> impl ExactSizeIterator<Item = (Name<'_>, &str)> {
        self.entries.iter().map(|(name, raw)| (Name(name), self.text(raw)))
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
        self.entries.insert(escape(name).into(), Raw::Owned(json.into_boxed_str()));
    }

    /// Removes an entry and tells whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.entries.shift_remove(&*escape(name)).is_some()
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Sets every entry of `other` here, in its order (`dict.update`).
    pub fn update(&mut self, other: &Self) {
        for (name, raw) in &other.entries {
            self.entries.insert(name.clone(), Raw::Owned(other.text(raw).into()));
        }
    }

    /// The whole session as JSON text: for values that Django wrote, Django's very bytes.
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(self.source.len() + 64);
        self.write_json(&mut out);
        out
    }

    pub(crate) fn write_json(&self, out: &mut String) {
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
    }

    fn text<'a>(&'a self, raw: &'a Raw) -> &'a str {
        match raw {
            Raw::Source(range) => &self.source[range.clone()],
            Raw::Owned(text) => text,
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
impl PartialEq for SessionData {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.entries.iter().all(|(name, raw)| {
                other.entries.get(name).is_some_and(|found| self.text(raw) == other.text(found))
            })
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
