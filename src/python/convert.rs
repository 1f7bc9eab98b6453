//! Python objects to JSON text and back, as Django's `JSONSerializer` does it.
//!
//! Only the plain case is done here: exact builtin types with text keys on the way out, pure ASCII on
//! the way in, at most 200 levels. Anything else (a subclass, an integer key, a large integer, a lone
//! surrogate, any error) goes to Python's own `json`, so that values and exceptions are Python's.
//! `tests/python/test_differential.py` compares both ways with Django.

use std::cell::Cell;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::codec::json::{self, Literal, Number, Scanner, Token};

/// Levels that are walked here. Python's own limit lies far above, and knows about the stack.
const MAX_DEPTH: usize = 200;

/// The bytes of `json.dumps(value, separators=(",", ":"))`.
///
/// # Errors
///
/// What `json.dumps` raises: `TypeError`, `ValueError`, `RecursionError`.
pub(super) fn to_json(value: &Bound<'_, PyAny>) -> PyResult<String> {
    let mut out = String::with_capacity(256);
    match push_value(&mut out, value, 0) {
        Some(()) => Ok(out),
        None => dumps(value),
    }
}

/// Appends one value, or gives up at the first surprise. Runs no Python code.
fn push_value(out: &mut String, value: &Bound<'_, PyAny>, depth: usize) -> Option<()> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        json::push_string(out, text.to_str().ok()?);
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        push_dict(out, dict, depth)?;
    } else if let Ok(number) = value.cast_exact::<PyInt>() {
        out.push_str(itoa::Buffer::new().format(number.extract::<i64>().ok()?));
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        out.push_str(if truth.is_true() { "true" } else { "false" });
    } else if value.is_none() {
        out.push_str("null");
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        push_items(out, list.iter(), depth)?;
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        json::push_f64(out, number.value());
    } else {
        push_items(out, value.cast_exact::<PyTuple>().ok()?.iter(), depth)?;
    }
    Some(())
}

fn push_dict(out: &mut String, dict: &Bound<'_, PyDict>, depth: usize) -> Option<()> {
    if depth == MAX_DEPTH {
        return None;
    }
    let mut opener = '{';
    for (key, value) in dict {
        out.push(opener);
        opener = ',';
        json::push_string(out, key.cast_exact::<PyString>().ok()?.to_str().ok()?);
        out.push(':');
        push_value(out, &value, depth + 1)?;
    }
    out.push_str(if opener == '{' { "{}" } else { "}" });
    Some(())
}

fn push_items<'py>(
    out: &mut String,
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    depth: usize,
) -> Option<()> {
    if depth == MAX_DEPTH {
        return None;
    }
    let mut opener = '[';
    for item in items {
        out.push(opener);
        opener = ',';
        push_value(out, &item, depth + 1)?;
    }
    out.push_str(if opener == '[' { "[]" } else { "]" });
    Some(())
}

fn dumps(value: &Bound<'_, PyAny>) -> PyResult<String> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    let options = PyDict::new(py);
    options.set_item(intern!(py, "separators"), (",", ":"))?;
    let text = DUMPS.import(py, "json", "dumps")?.call((value,), Some(&options))?;
    Ok(text.cast::<PyString>()?.to_str()?.to_owned())
}

/// The value of `json.loads(payload.decode("latin-1"))`.
///
/// # Errors
///
/// What `json.loads` raises: `ValueError`, `RecursionError`.
pub(super) fn from_json<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let ascii = std::str::from_utf8(payload).ok().filter(|text| text.is_ascii());
    match ascii.and_then(|text| Reader::read(py, text)) {
        Some(value) => Ok(value),
        None => loads(py, payload),
    }
}

fn loads<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let bytes = PyBytes::new(py, payload);
    let text = bytes.call_method1(intern!(py, "decode"), (intern!(py, "latin-1"),))?;
    LOADS.import(py, "json", "loads")?.call1((text,))
}

/// Builds Python objects from the tokens of a text. `None` anywhere means: leave it to Python.
struct Reader<'a, 'py> {
    py: Python<'py>,
    text: &'a str,
    scanner: Scanner<'a>,
    keys: Box<Keys>,
    /// Items of the lists that are still open.
    items: Vec<Bound<'py, PyAny>>,
    /// For each level, the last object that ended there.
    shapes: Vec<Shape<'a, 'py>>,
}

/// The keys of an object, as the next one in a list of objects is likely to have them: comparing
/// with a key costs less than finding its end, and copying a dict less than growing another.
#[derive(Default)]
struct Shape<'a, 'py> {
    keys: Vec<(&'a str, Bound<'py, PyString>)>,
    /// An object with these keys, once there were two in a row.
    model: Option<Bound<'py, PyDict>>,
}

thread_local! {
    /// Taken out while in use: building objects can run a finalizer that decodes a session itself.
    static KEYS: Cell<Option<Box<Keys>>> = const { Cell::new(None) };
}

impl<'py> Shape<'_, 'py> {
    /// Keeps the first `matched` keys only, of this and of what was made in its likeness.
    fn part(&mut self, dict: Bound<'py, PyDict>, matched: usize) -> Option<Bound<'py, PyDict>> {
        self.keys.truncate(matched);
        if self.model.take().is_none() {
            return Some(dict);
        }
        let part = PyDict::new(dict.py());
        for (_, key) in &self.keys {
            part.set_item(key, dict.get_item(key).ok()??).ok()?;
        }
        Some(part)
    }
}

impl<'a, 'py> Reader<'a, 'py> {
    fn read(py: Python<'py>, text: &'a str) -> Option<Bound<'py, PyAny>> {
        let keys = KEYS.take().unwrap_or_default();
        let mut reader = Self {
            py,
            text,
            scanner: Scanner::new(text),
            keys,
            items: Vec::new(),
            shapes: Vec::new(),
        };
        let value = reader.value(0);
        let ended = reader.scanner.end().is_ok();
        KEYS.set(Some(reader.keys));
        value.filter(|_| ended)
    }

    fn value(&mut self, depth: usize) -> Option<Bound<'py, PyAny>> {
        Some(match self.scanner.token().ok()? {
            Token::String => {
                let literal = self.literal()?;
                self.text(literal)?.into_any()
            }
            Token::Number => {
                let start = self.scanner.offset();
                let float = self.scanner.pass_number().ok()?;
                let text = self.text.get(start..self.scanner.offset())?;
                if float {
                    PyFloat::new(self.py, Number::Float(text).to_f64()).into_any()
                } else {
                    text.parse::<i64>().ok()?.into_pyobject(self.py).ok()?.into_any()
                }
            }
            Token::Object => self.object(depth)?,
            Token::List => self.list(depth)?,
            Token::True => PyBool::new(self.py, true).to_owned().into_any(),
            Token::False => PyBool::new(self.py, false).to_owned().into_any(),
            Token::Null => self.py.None().into_bound(self.py),
        })
    }

    fn object(&mut self, depth: usize) -> Option<Bound<'py, PyAny>> {
        if self.scanner.eat(b'}') {
            return Some(PyDict::new(self.py).into_any());
        }
        if depth == MAX_DEPTH {
            return None;
        }
        // The outermost object has no like, and most sessions are nothing else.
        let Some(level) = depth.checked_sub(1) else {
            let dict = PyDict::new(self.py);
            self.members(&dict, depth, None)?;
            return Some(dict.into_any());
        };
        if self.shapes.len() <= level {
            self.shapes.resize_with(level + 1, Shape::default);
        }
        let mut shape = std::mem::take(&mut self.shapes[level]);
        let dict = self.shaped(&mut shape, depth)?;
        self.shapes[level] = shape;
        Some(dict.into_any())
    }

    /// Reads an object that may look like the one before.
    fn shaped(&mut self, shape: &mut Shape<'a, 'py>, depth: usize) -> Option<Bound<'py, PyDict>> {
        let dict = match &shape.model {
            Some(model) => model.copy().ok()?,
            None => PyDict::new(self.py),
        };
        let mut matched = 0;
        while let Some((body, key)) = shape.keys.get(matched) {
            let start = self.scanner.clone();
            if !(self.scanner.eat(b'"') && self.scanner.eat_literal(body)) {
                self.scanner = start;
                break;
            }
            matched += 1;
            self.member(&dict, key, depth)?;
            if !self.scanner.eat(b',') {
                if matched == shape.keys.len() {
                    shape.model = Some(dict.clone());
                    return self.scanner.eat(b'}').then_some(dict);
                }
                let dict = shape.part(dict, matched)?;
                return self.scanner.eat(b'}').then_some(dict);
            }
        }
        let dict = shape.part(dict, matched)?;
        self.members(&dict, depth, Some(shape))?;
        Some(dict)
    }

    /// Reads the members of an object, or those that are left, and its end.
    #[inline]
    fn members(
        &mut self,
        dict: &Bound<'py, PyDict>,
        depth: usize,
        mut shape: Option<&mut Shape<'a, 'py>>,
    ) -> Option<()> {
        loop {
            if !self.scanner.eat(b'"') {
                return None;
            }
            let key = match self.literal()? {
                Literal { body, escaped: false } => {
                    let key = self.keys.get(self.py, body);
                    if let Some(shape) = &mut shape {
                        shape.keys.push((body, key.clone()));
                    }
                    key
                }
                escaped => self.text(escaped)?,
            };
            self.member(dict, &key, depth)?;
            if !self.scanner.eat(b',') {
                return self.scanner.eat(b'}').then_some(());
            }
        }
    }

    /// Reads the rest of a member whose key has been read.
    #[inline]
    fn member(
        &mut self,
        dict: &Bound<'py, PyDict>,
        key: &Bound<'py, PyString>,
        depth: usize,
    ) -> Option<()> {
        if !self.scanner.eat(b':') {
            return None;
        }
        let value = self.value(depth + 1)?;
        dict.set_item(key, value).ok()
    }

    fn list(&mut self, depth: usize) -> Option<Bound<'py, PyAny>> {
        if self.scanner.eat(b']') {
            return Some(PyList::empty(self.py).into_any());
        }
        if depth == MAX_DEPTH {
            return None;
        }
        let start = self.items.len();
        loop {
            let item = self.value(depth + 1)?;
            self.items.push(item);
            if !self.scanner.eat(b',') {
                break;
            }
        }
        if !self.scanner.eat(b']') {
            return None;
        }
        Some(PyList::new(self.py, self.items.drain(start..)).ok()?.into_any())
    }

    /// Reads a string whose opening quote has been read.
    #[expect(clippy::inline_always, reason = "returned through memory it costs 15 % of a decode")]
    #[inline(always)]
    fn literal(&mut self) -> Option<Literal<'a>> {
        let start = self.scanner.offset();
        let escaped = self.scanner.pass_string()?;
        Some(Literal { body: self.text.get(start..self.scanner.offset() - 1)?, escaped })
    }

    fn text(&self, literal: Literal<'a>) -> Option<Bound<'py, PyString>> {
        if !literal.escaped {
            return Some(PyString::new(self.py, literal.body));
        }
        Some(PyString::new(self.py, &literal.to_str()?))
    }
}

/// Dict keys seen lately. Sessions repeat few of them (`_auth_user_id`, the fields of a cart), and a
/// known key saves making the text and hashing it. Holds names only, each slot at most one.
struct Keys([Option<Known>; Keys::SLOTS]);

struct Known {
    bytes: [u8; Keys::LONGEST],
    length: usize,
    key: Py<PyString>,
}

impl Default for Keys {
    fn default() -> Self {
        Self([const { None }; Self::SLOTS])
    }
}

impl Keys {
    const SLOTS: usize = 256;
    const LONGEST: usize = 32;

    /// The Python text for an ASCII key.
    #[inline]
    fn get<'py>(&mut self, py: Python<'py>, text: &str) -> Bound<'py, PyString> {
        let wanted = text.as_bytes();
        let slot = &mut self.0[Self::slot(wanted)];
        if let Some(known) = slot
            && known.bytes.get(..known.length) == Some(wanted)
        {
            return known.key.bind(py).clone();
        }
        let key = PyString::new(py, text);
        let mut bytes = [0; Self::LONGEST];
        if let Some(start) = bytes.get_mut(..wanted.len()) {
            start.copy_from_slice(wanted);
            *slot = Some(Known { bytes, length: wanted.len(), key: key.clone().unbind() });
        }
        key
    }

    /// A few bytes tell most names apart, and a collision only costs speed.
    #[inline]
    fn slot(text: &[u8]) -> usize {
        let at = |index: usize| usize::from(text.get(index).copied().unwrap_or_default());
        let last = text.len().wrapping_sub(1);
        (at(0) + at(text.len() / 2) * 5 + at(last) * 11 + text.len() * 23) % Self::SLOTS
    }
}
