//! A graph as Python objects: the same node is the same object.
//!
//! Two walks, neither of which recurses. The first makes every object, lists and dicts empty: what cannot
//! be changed later, a tuple or a frozenset, needs its parts before, and those are older than itself.
//! The second fills them. Only types from the list in [`Builder::make`] are made, by their own
//! constructors; any other class stays data. What would cost time or stack out of proportion is refused:
//! tuples inside of tuples as keys, keys that are made to collide, long chains of objects that Python
//! itself cannot free.

use std::collections::HashMap;

use pyo3::exceptions::{
    PyArithmeticError, PyAttributeError, PyKeyError, PyLookupError, PyRecursionError, PyTypeError,
    PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet,
    PyString, PyTuple, PyType,
};

use super::opaque;
use crate::codec::graph::{
    Dict, Graph, Items, Kind, Made, Maker, Node, NodeId, Step, TimeDelta, TimeZone, Value,
};
use crate::python::error;

/// Tuples inside of each other that Python's hash, which recurses, is let loose on.
const MAX_HASH_DEPTH: u32 = 500;
/// Items that are hashed for all keys together. A tuple's hash is worked out anew each time.
const MAX_HASHED: u64 = 1 << 24;
/// Keys of one hash in one dict. Text and bytes have hashes that nobody can foresee.
const MAX_COLLISIONS: u32 = 256;
/// Below this length collisions do not matter.
const COLLISIONS_FROM: usize = 1024;
/// Deques and defaultdicts directly inside of each other. Python frees them by recursion.
const MAX_CHAIN: usize = 1000;

/// Objects of the root of a graph.
///
/// # Errors
///
/// `DecodeError` for what Python cannot hold either, such as a key without a hash.
pub(super) fn build<'py>(
    py: Python<'py>,
    graph: &Graph,
    encoding: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut builder = Builder {
        py,
        graph,
        encoding,
        objects: vec![None; graph.len()],
        tried: vec![false; graph.len()],
        weights: vec![Weight::default(); graph.len()],
        hashed: 0,
        copied: 0,
        unfilled: Vec::new(),
        chains: Vec::new(),
    };
    builder.build().map_err(|failure| {
        let of_the_data = failure.is_instance_of::<PyValueError>(py)
            || failure.is_instance_of::<PyTypeError>(py)
            || failure.is_instance_of::<PyArithmeticError>(py)
            || failure.is_instance_of::<PyAttributeError>(py)
            || failure.is_instance_of::<PyLookupError>(py)
            || failure.is_instance_of::<PyRecursionError>(py);
        if of_the_data && !error::is_ours(py, &failure) {
            // Its message may show a value.
            error::unbuildable_pickle(py)
        } else {
            failure
        }
    })
}

/// What hashing an object costs.
#[derive(Clone, Copy, Default)]
struct Weight {
    items: u32,
    depth: u32,
}

/// A container that has been made and not yet filled.
struct Unfilled<'a, 'py> {
    id: NodeId,
    object: Bound<'py, PyAny>,
    contents: Contents<'a>,
}

enum Contents<'a> {
    Items(Items<'a>),
    Pairs(Dict<'a>),
    Made(&'a Made),
}

/// What came of an attempt to make an object.
enum Attempt<'py> {
    Done(Bound<'py, PyAny>),
    /// These have to be made before.
    Needs(Vec<NodeId>),
}

struct Builder<'a, 'py> {
    py: Python<'py>,
    graph: &'a Graph,
    encoding: Option<&'a str>,
    objects: Vec<Option<Bound<'py, PyAny>>>,
    /// What is being made, and waits for its parts.
    tried: Vec<bool>,
    weights: Vec<Weight>,
    hashed: u64,
    /// Items and bytes that were copied out of what many objects may share.
    copied: usize,
    unfilled: Vec<Unfilled<'a, 'py>>,
    /// Deques and defaultdicts that hold one another.
    chains: Vec<(NodeId, NodeId)>,
}

impl<'a, 'py> Builder<'a, 'py> {
    fn build(&mut self) -> PyResult<Bound<'py, PyAny>> {
        let root = self.graph.root().id();
        self.construct(root)?;
        let mut next = 0;
        while let Some(unfilled) = self.unfilled.get(next) {
            let parts = parts(self.graph, unfilled);
            let chained = self.is_chained(unfilled.id);
            let id = unfilled.id;
            next += 1;
            for part in parts {
                self.construct(part)?;
                if chained && self.is_chained(part) {
                    self.chains.push((id, part));
                }
            }
        }
        self.check_chains()?;
        for unfilled in std::mem::take(&mut self.unfilled) {
            self.fill(&unfilled)?;
        }
        self.built(root)
    }

    /// Makes an object, and before it what it needs.
    fn construct(&mut self, id: NodeId) -> PyResult<()> {
        if self.objects[id.index()].is_some() {
            return Ok(());
        }
        let mut open = vec![id];
        while let Some(&id) = open.last() {
            if self.objects[id.index()].is_some() {
                open.pop();
                continue;
            }
            match self.make(id)? {
                Attempt::Done(object) => {
                    self.objects[id.index()] = Some(object);
                    open.pop();
                }
                // Parts are older than what they are part of, unless somebody wrote the pickle by hand.
                Attempt::Needs(_) if self.tried[id.index()] => {
                    return Err(error::unbuildable_pickle(self.py));
                }
                Attempt::Needs(parts) => {
                    self.tried[id.index()] = true;
                    open.extend(parts);
                }
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_lines, reason = "one arm per kind of object")]
    fn make(&mut self, id: NodeId) -> PyResult<Attempt<'py>> {
        let py = self.py;
        let value = self.graph.value(id);
        let kind = value.kind();
        self.count_copies(id, &kind)?;
        Ok(Attempt::Done(match kind {
            Kind::None => py.None().into_bound(py),
            Kind::Bool(value) => PyBool::new(py, value).to_owned().into_any(),
            Kind::Int(number) => match number.to_i64() {
                Some(number) => number.into_pyobject(py)?.into_any(),
                None => large_int(py, &number.to_le_bytes())?,
            },
            Kind::Float(number) => PyFloat::new(py, number).into_any(),
            Kind::Complex(real, imaginary) => {
                PyComplex::from_doubles(py, real, imaginary).into_any()
            }
            Kind::Str(text) => opaque::text(py, text.as_bytes())?.into_any(),
            Kind::SafeString(text) => {
                static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
                let class = CLASS.import(py, "django.utils.safestring", "SafeString")?;
                class.call1((opaque::text(py, text.as_bytes())?,))?
            }
            Kind::Py2Str(bytes) => self.python2_str(bytes)?,
            Kind::Bytes(bytes) => PyBytes::new(py, &bytes).into_any(),
            Kind::ByteArray(bytes) => PyByteArray::new(py, &bytes).into_any(),
            Kind::List(items) => {
                self.later(id, PyList::empty(py).into_any(), Contents::Items(items))
            }
            Kind::Set(items) => {
                self.later(id, PySet::empty(py)?.into_any(), Contents::Items(items))
            }
            Kind::Dict(pairs) => self.later(id, PyDict::new(py).into_any(), Contents::Pairs(pairs)),
            Kind::Tuple(items) => return self.tuple(id, &items),
            Kind::FrozenSet(items) => return self.frozen_set(id, &items),
            Kind::OrderedDict(pairs) => {
                let object = collection(py, "OrderedDict")?.call0()?;
                self.later(id, object, Contents::Pairs(pairs))
            }
            Kind::Counter(pairs) => {
                let object = collection(py, "Counter")?.call0()?;
                self.later(id, object, Contents::Pairs(pairs))
            }
            Kind::DefaultDict(pairs, factory) => match self.factory(factory)? {
                Some(factory) => {
                    let object = collection(py, "defaultdict")?.call1((factory,))?;
                    self.later(id, object, Contents::Pairs(pairs))
                }
                None => self.opaque(id)?,
            },
            Kind::Deque(items, maxlen) => {
                let class = collection(py, "deque")?;
                let object = match maxlen.map(|number| number.to_i64()) {
                    None => class.call0()?,
                    Some(maxlen) => class.call1((PyTuple::empty(py), maxlen))?,
                };
                self.later(id, object, Contents::Items(items))
            }
            Kind::Range(bounds) => {
                let bound = |index: usize| large_int(py, &bounds[index].to_le_bytes());
                py.get_type::<pyo3::types::PyRange>().call1((bound(0)?, bound(1)?, bound(2)?))?
            }
            Kind::DateTime(moment) => {
                let zone = match self.zone(value)? {
                    Zone::Known(zone) => zone,
                    Zone::Unknown => return self.opaque(id).map(Attempt::Done),
                    Zone::Missing(part) => return Ok(Attempt::Needs(vec![part])),
                };
                let (date, time) = (moment.civil.date(), moment.civil.time());
                let options = PyDict::new(py);
                options.set_item(intern!(py, "fold"), u8::from(moment.fold))?;
                let fields = (
                    date.year(),
                    date.month(),
                    date.day(),
                    time.hour(),
                    time.minute(),
                    time.second(),
                    time.subsec_nanosecond() / 1000,
                    zone,
                );
                datetime(py, "datetime")?.call(fields, Some(&options))?
            }
            Kind::Time(moment) => {
                let zone = match self.zone(value)? {
                    Zone::Known(zone) => zone,
                    Zone::Unknown => return self.opaque(id).map(Attempt::Done),
                    Zone::Missing(part) => return Ok(Attempt::Needs(vec![part])),
                };
                let time = moment.civil;
                let options = PyDict::new(py);
                options.set_item(intern!(py, "fold"), u8::from(moment.fold))?;
                let microsecond = time.subsec_nanosecond() / 1000;
                let fields = (time.hour(), time.minute(), time.second(), microsecond, zone);
                datetime(py, "time")?.call(fields, Some(&options))?
            }
            Kind::Date(date) => {
                let date = date.0;
                datetime(py, "date")?.call1((date.year(), date.month(), date.day()))?
            }
            Kind::TimeDelta(delta) => time_delta(py, delta)?,
            Kind::TimeZone(zone) => return self.time_zone(id, zone),
            Kind::Decimal(text) => {
                static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
                CLASS.import(py, "decimal", "Decimal")?.call1((text,))?
            }
            Kind::Uuid(number) => {
                static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
                let options = PyDict::new(py);
                options.set_item(intern!(py, "int"), number)?;
                CLASS.import(py, "uuid", "UUID")?.call((), Some(&options))?
            }
            Kind::Global(_) => self.global(id)?,
            Kind::Object(_) => self.opaque(id)?,
        }))
    }

    /// A call may copy what it is given, many calls the same thing many times.
    fn count_copies(&mut self, id: NodeId, kind: &Kind<'a>) -> PyResult<()> {
        if !matches!(self.graph.node(id), Node::Made(_)) {
            return Ok(());
        }
        self.copied += match kind {
            Kind::Bytes(bytes) | Kind::ByteArray(bytes) => bytes.len(),
            Kind::SafeString(text) => text.as_bytes().len(),
            Kind::Decimal(text) => text.len(),
            Kind::Set(items) | Kind::FrozenSet(items) | Kind::Deque(items, _) => items.len(),
            Kind::OrderedDict(pairs) | Kind::Counter(pairs) | Kind::DefaultDict(pairs, _) => {
                pairs.len()
            }
            _ => 0,
        };
        // Without sharing, each of them takes a byte of the pickle at least.
        if self.copied > self.graph.byte_len().saturating_mul(2) {
            return Err(error::too_large_pickle(self.py));
        }
        Ok(())
    }

    fn built(&self, id: NodeId) -> PyResult<Bound<'py, PyAny>> {
        let object = self.objects[id.index()].clone();
        object.ok_or_else(|| error::unbuildable_pickle(self.py))
    }

    /// Puts off what a container holds.
    fn later(
        &mut self,
        id: NodeId,
        object: Bound<'py, PyAny>,
        contents: Contents<'a>,
    ) -> Bound<'py, PyAny> {
        self.unfilled.push(Unfilled { id, object: object.clone(), contents });
        object
    }

    fn opaque(&mut self, id: NodeId) -> PyResult<Bound<'py, PyAny>> {
        let shell = opaque::shell(opaque::object(self.py)?)?;
        self.opaque_in(id, shell)
    }

    fn opaque_in(&mut self, id: NodeId, shell: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let graph = self.graph;
        match graph.node(id) {
            Node::Made(made) => Ok(self.later(id, shell, Contents::Made(made))),
            // Every other node is of a kind that is known.
            _ => Err(error::unbuildable_pickle(self.py)),
        }
    }

    /// What `encoding` makes of a Python 2 string; left out, text where it is ASCII.
    fn python2_str(&self, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let ascii = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii());
        match (self.encoding, ascii) {
            (None, Some(text)) => Ok(PyString::new(py, text).into_any()),
            (None | Some("bytes"), _) => Ok(PyBytes::new(py, bytes).into_any()),
            (Some(encoding), _) => {
                let text = PyBytes::new(py, bytes).call_method1(intern!(py, "decode"), (encoding,));
                text.map_err(|_| error::unbuildable_pickle(py))
            }
        }
    }

    fn tuple(&mut self, id: NodeId, items: &Items<'a>) -> PyResult<Attempt<'py>> {
        let objects = match self.all(items) {
            Ok(objects) => objects,
            Err(missing) => return Ok(Attempt::Needs(missing)),
        };
        let mut weight = Weight { items: 1, depth: 1 };
        for item in items.iter() {
            let part = self.weights[item.id().index()];
            weight.items = weight.items.saturating_add(part.items.max(1));
            weight.depth = weight.depth.max(part.depth.saturating_add(1));
        }
        self.weights[id.index()] = weight;
        Ok(Attempt::Done(PyTuple::new(self.py, objects)?.into_any()))
    }

    fn frozen_set(&mut self, id: NodeId, items: &Items<'a>) -> PyResult<Attempt<'py>> {
        let objects = match self.all(items) {
            Ok(objects) => objects,
            Err(missing) => return Ok(Attempt::Needs(missing)),
        };
        let mut hashes = Hashes::of(items.len());
        for (item, object) in items.iter().zip(&objects) {
            self.check_hash(item.id(), object, &mut hashes)?;
        }
        // It remembers its hash, so only its own items count where it is part of something.
        let items = u32::try_from(objects.len()).unwrap_or(u32::MAX);
        self.weights[id.index()] = Weight { items, depth: 1 };
        Ok(Attempt::Done(PyFrozenSet::new(self.py, objects)?.into_any()))
    }

    /// The items, or those that are still to be made.
    fn all(&self, items: &Items<'a>) -> Result<Vec<Bound<'py, PyAny>>, Vec<NodeId>> {
        let found: Option<Vec<_>> =
            items.iter().map(|item| self.objects[item.id().index()].clone()).collect();
        found.ok_or_else(|| {
            let ids = items.iter().map(Value::id);
            ids.filter(|id| self.objects[id.index()].is_none()).collect()
        })
    }

    /// The `default_factory`, if it is one that is harmless to call.
    fn factory(&self, factory: Value<'a>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = self.py;
        let id = match factory.kind() {
            Kind::None => return Ok(Some(py.None().into_bound(py))),
            Kind::Global(_) => factory.id(),
            _ => return Ok(None),
        };
        let (module, name) = self.names(id)?;
        if module.to_str().ok() != Some("builtins") {
            return Ok(None);
        }
        Ok(match name.to_str().unwrap_or_default() {
            "bool" => Some(py.get_type::<PyBool>().into_any()),
            "bytearray" => Some(py.get_type::<PyByteArray>().into_any()),
            "bytes" => Some(py.get_type::<PyBytes>().into_any()),
            "complex" => Some(py.get_type::<PyComplex>().into_any()),
            "dict" => Some(py.get_type::<PyDict>().into_any()),
            "float" => Some(py.get_type::<PyFloat>().into_any()),
            "frozenset" => Some(py.get_type::<PyFrozenSet>().into_any()),
            "int" => Some(py.get_type::<PyInt>().into_any()),
            "list" => Some(py.get_type::<PyList>().into_any()),
            "set" => Some(py.get_type::<PySet>().into_any()),
            "str" => Some(py.get_type::<PyString>().into_any()),
            "tuple" => Some(py.get_type::<PyTuple>().into_any()),
            _ => None,
        })
    }

    fn global(&self, id: NodeId) -> PyResult<Bound<'py, PyAny>> {
        let (module, name) = self.names(id)?;
        opaque::global(self.py)?.call1((module, name))
    }

    /// Module and name of a class or function, as Python 3 has them.
    fn names(&self, id: NodeId) -> PyResult<(Bound<'py, PyString>, Bound<'py, PyString>)> {
        let Node::Global { module, name } = *self.graph.node(id) else {
            return Err(error::unbuildable_pickle(self.py));
        };
        let module = opaque::text(self.py, self.graph.bytes_of(module))?;
        let name = opaque::text(self.py, self.graph.bytes_of(name))?;
        if self.graph.protocol() > 2 {
            return Ok((module, name));
        }
        let (module, name) = opaque::to_python3(module.into_any(), name.into_any())?;
        Ok((module.cast_into()?, name.cast_into()?))
    }

    /// The time zone of a datetime or a time: its second argument.
    fn zone(&self, value: Value<'a>) -> PyResult<Zone<'py>> {
        let py = self.py;
        let argument = self.arguments(value.id()).get(1).copied();
        let Some(id) = argument.filter(|&id| !matches!(self.graph.node(id), Node::None)) else {
            return Ok(Zone::Known(py.None().into_bound(py)));
        };
        let Some(zone) = &self.objects[id.index()] else { return Ok(Zone::Missing(id)) };
        let known = zone.is_instance(&datetime(py, "tzinfo")?)?;
        Ok(if known { Zone::Known(zone.clone()) } else { Zone::Unknown })
    }

    /// The arguments of what makes an object.
    fn arguments(&self, id: NodeId) -> &'a [NodeId] {
        let graph = self.graph;
        let Node::Made(made) = graph.node(id) else { return &[] };
        let (Maker::Call { args, .. }
        | Maker::New { args, .. }
        | Maker::NewEx { args, .. }
        | Maker::Instance { args, .. }) = made.by;
        match graph.node(args) {
            Node::Tuple(items) => items,
            _ => &[],
        }
    }

    fn time_zone(&mut self, id: NodeId, zone: TimeZone<'a>) -> PyResult<Attempt<'py>> {
        let py = self.py;
        let arguments = self.arguments(id);
        match zone {
            TimeZone::Named(key) => {
                let flag = arguments.get(1).map(|&flag| self.graph.value(flag).kind());
                let cached = match flag {
                    Some(Kind::Bool(flag)) => flag,
                    Some(Kind::Int(flag)) => flag.to_i64() != Some(0),
                    _ => return self.opaque(id).map(Attempt::Done),
                };
                match zone_info(py, key, cached)? {
                    Some(zone) => Ok(Attempt::Done(zone)),
                    None => self.opaque(id).map(Attempt::Done),
                }
            }
            TimeZone::Offset(_) if self.is_standard_time_zone(id) => {
                let missing = |id: &&NodeId| self.objects[id.index()].is_none();
                let needs: Vec<_> = arguments.iter().filter(missing).copied().collect();
                if !needs.is_empty() {
                    return Ok(Attempt::Needs(needs));
                }
                let built: PyResult<Vec<_>> =
                    arguments.iter().map(|&argument| self.built(argument)).collect();
                let zone = datetime(py, "timezone")?.call1(PyTuple::new(py, built?)?)?;
                Ok(Attempt::Done(zone))
            }
            TimeZone::Offset(offset) => {
                let shell = opaque::shell(opaque::time_zone(py)?)?;
                shell.setattr(intern!(py, "offset"), time_delta(py, offset)?)?;
                self.opaque_in(id, shell).map(Attempt::Done)
            }
            TimeZone::Other(_) => self.opaque(id).map(Attempt::Done),
        }
    }

    /// Whether it is a `datetime.timezone`.
    fn is_standard_time_zone(&self, id: NodeId) -> bool {
        let Node::Made(made) = self.graph.node(id) else { return false };
        let Maker::Call { callable, .. } = made.by else { return false };
        match *self.graph.node(callable) {
            Node::Global { module, .. } => self.graph.bytes_of(module) == b"datetime",
            _ => false,
        }
    }

    fn fill(&mut self, unfilled: &Unfilled<'a, 'py>) -> PyResult<()> {
        let object = &unfilled.object;
        match &unfilled.contents {
            Contents::Items(items) => {
                if let Ok(list) = object.cast_exact::<PyList>() {
                    for item in items.iter() {
                        list.append(self.built(item.id())?)?;
                    }
                } else if let Ok(set) = object.cast_exact::<PySet>() {
                    let mut hashes = Hashes::of(items.len());
                    for item in items.iter() {
                        let element = self.built(item.id())?;
                        self.check_hash(item.id(), &element, &mut hashes)?;
                        set.add(element)?;
                    }
                } else {
                    let append = object.getattr(intern!(self.py, "append"))?;
                    for item in items.iter() {
                        append.call1((self.built(item.id())?,))?;
                    }
                }
            }
            Contents::Pairs(pairs) => {
                let mut hashes = Hashes::of(pairs.len());
                for (key, value) in pairs.iter() {
                    let (id, key) = (key.id(), self.built(key.id())?);
                    self.check_hash(id, &key, &mut hashes)?;
                    object.set_item(key, self.built(value.id())?)?;
                }
            }
            Contents::Made(made) => self.fill_opaque(object, made)?,
        }
        Ok(())
    }

    fn fill_opaque(&self, object: &Bound<'py, PyAny>, made: &Made) -> PyResult<()> {
        let py = self.py;
        let (made_by, callable, args, kwargs) = match made.by {
            Maker::Call { callable, args } => ("call", callable, args, NodeId::NONE),
            Maker::New { class, args } => ("new", class, args, NodeId::NONE),
            Maker::NewEx { class, args, kwargs } => ("new_ex", class, args, kwargs),
            Maker::Instance { class, args } => ("instance", class, args, NodeId::NONE),
        };
        object.setattr(intern!(py, "made_by"), made_by)?;
        object.setattr(intern!(py, "callable"), self.built(callable)?)?;
        object.setattr(intern!(py, "args"), self.built(args)?)?;
        object.setattr(intern!(py, "kwargs"), self.built(kwargs)?)?;
        let steps = PyList::empty(py);
        for &step in &made.steps {
            match step {
                Step::Append(item) => steps.append(("append", self.built(item)?))?,
                Step::Add(item) => steps.append(("add", self.built(item)?))?,
                Step::SetItem(key, value) => {
                    steps.append(("setitem", self.built(key)?, self.built(value)?))?;
                }
                Step::SetState(state) => steps.append(("setstate", self.built(state)?))?,
                Step::Call(call) => steps.append(("call", self.built(call)?))?,
            }
        }
        object.setattr(intern!(py, "steps"), steps)
    }

    /// Refuses what hashing, or comparing with keys of the same hash, would take long for.
    fn check_hash(
        &mut self,
        id: NodeId,
        object: &Bound<'py, PyAny>,
        hashes: &mut Hashes,
    ) -> PyResult<()> {
        let weight = self.weights[id.index()];
        self.hashed = self.hashed.saturating_add(weight.items.into());
        if weight.depth > MAX_HASH_DEPTH || self.hashed > MAX_HASHED {
            return Err(error::too_large_pickle(self.py));
        }
        if let Some(seen) = &mut hashes.0 {
            if object.is_exact_instance_of::<PyString>() || object.is_exact_instance_of::<PyBytes>()
            {
                return Ok(());
            }
            let count = seen.entry(object.hash()?).or_insert(0);
            *count += 1;
            if *count > MAX_COLLISIONS {
                return Err(error::too_large_pickle(self.py));
            }
        }
        Ok(())
    }

    /// Whether it is of one of the two types that Python frees by recursion.
    fn is_chained(&self, id: NodeId) -> bool {
        matches!(self.graph.node(id), Node::Made(_))
            && self.objects[id.index()].as_ref().is_some_and(|object| {
                let name = object.get_type().name();
                name.is_ok_and(|name| name == "deque" || name == "defaultdict")
            })
    }

    fn check_chains(&self) -> PyResult<()> {
        if self.chains.len() <= MAX_CHAIN {
            return Ok(());
        }
        // Level by level from those that nothing of their kind holds. Rings are never reached.
        let mut holders: HashMap<NodeId, usize> = HashMap::new();
        let mut held: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
        for &(holder, part) in &self.chains {
            holders.entry(holder).or_insert(0);
            *holders.entry(part).or_insert(0) += 1;
            held.entry(holder).or_default().push(part);
        }
        let mut level: Vec<NodeId> =
            holders.iter().filter(|&(_, &count)| count == 0).map(|(&id, _)| id).collect();
        let (mut reached, mut levels) = (0, 0);
        while !level.is_empty() {
            reached += level.len();
            levels += 1;
            let mut next = Vec::new();
            for id in level {
                for part in held.get(&id).into_iter().flatten() {
                    if let Some(count) = holders.get_mut(part) {
                        *count -= 1;
                        if *count == 0 {
                            next.push(*part);
                        }
                    }
                }
            }
            level = next;
        }
        if levels > MAX_CHAIN || holders.len() - reached > MAX_CHAIN {
            return Err(error::too_large_pickle(self.py));
        }
        Ok(())
    }
}

/// The time zone of a datetime.
enum Zone<'py> {
    Known(Bound<'py, PyAny>),
    /// It is still to be made.
    Missing(NodeId),
    /// It stays data, and so does the datetime.
    Unknown,
}

/// How often each hash occurs; nothing in small containers.
struct Hashes(Option<HashMap<isize, u32>>);

impl Hashes {
    fn of(length: usize) -> Self {
        Self((length >= COLLISIONS_FROM).then(HashMap::new))
    }
}

/// What a container holds.
fn parts(graph: &Graph, unfilled: &Unfilled<'_, '_>) -> Vec<NodeId> {
    match &unfilled.contents {
        Contents::Items(items) => items.iter().map(Value::id).collect(),
        Contents::Pairs(pairs) => {
            pairs.iter().flat_map(|(key, value)| [key.id(), value.id()]).collect()
        }
        Contents::Made(_) => {
            // `None` stands for keyword arguments that there are not.
            let mut parts = vec![NodeId::NONE];
            graph.node(unfilled.id).each_child(|part| parts.push(part));
            parts
        }
    }
}

fn large_int<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let options = PyDict::new(py);
    options.set_item(intern!(py, "signed"), true)?;
    let arguments = (PyBytes::new(py, bytes), intern!(py, "little"));
    py.get_type::<PyInt>().call_method(intern!(py, "from_bytes"), arguments, Some(&options))
}

fn time_delta(py: Python<'_>, delta: TimeDelta) -> PyResult<Bound<'_, PyAny>> {
    datetime(py, "timedelta")?.call1((delta.days, delta.seconds, delta.microseconds))
}

/// A class of the module `datetime`.
fn datetime<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("datetime").map(Bound::unbind))?;
    module.bind(py).getattr(name)
}

/// A class of the module `collections`.
fn collection<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("collections").map(Bound::unbind))?;
    module.bind(py).getattr(name)
}

/// The `ZoneInfo` of a key. Only a key that the database of this crate has too is looked up, since Python
/// looks for a file, and then for a module, of that name.
fn zone_info<'py>(py: Python<'py>, key: &str, cached: bool) -> PyResult<Option<Bound<'py, PyAny>>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    if jiff::tz::TimeZone::get(key).is_err() {
        return Ok(None);
    }
    let class = CLASS.import(py, "zoneinfo", "ZoneInfo")?;
    let zone = if cached { class.call1((key,)) } else { class.call_method1("no_cache", (key,)) };
    match zone {
        Ok(zone) => Ok(Some(zone)),
        // Not on this machine.
        Err(failure)
            if failure.is_instance_of::<PyKeyError>(py)
                || failure.is_instance_of::<PyValueError>(py) =>
        {
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}
