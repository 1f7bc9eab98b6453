//! Python objects as a graph, by the rules of `pickle.Pickler`.
//!
//! Follows `save` and `save_reduce` of Python's own `Lib/pickle.py`, without recursion: each object gets a
//! node at once and its contents later. Every object is kept until the end, so that no two have one
//! address.

use std::collections::hash_map::Entry;

use pyo3::exceptions::{PyAttributeError, PyImportError, PyKeyError, PyRecursionError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyEllipsis, PyFloat, PyFrozenSet, PyFunction, PyInt,
    PyIterator, PyList, PyModule, PyNotImplemented, PySet, PyString, PyTuple, PyTupleMethods,
    PyType,
};
use rustc_hash::FxHashMap;

use super::opaque;
use crate::codec::graph::{Graph, Made, Maker, Node, NodeId, Step};

/// Objects whose `__reduce__` leads to the next one. Python's own limit is lower.
const MAX_REDUCED: u32 = 10_000;
/// Bytes of texts; the stretches of a graph are 32 bits wide.
const MAX_BYTES: usize = 1 << 30;

/// The graph of what an object leads to.
///
/// # Errors
///
/// What `pickle.dumps` raises: `PicklingError`, `RecursionError`, whatever a `__reduce_ex__` raises.
pub(super) fn build(object: &Bound<'_, PyAny>, protocol: u8) -> PyResult<Graph> {
    let py = object.py();
    let mut pickler = Pickler {
        py,
        graph: Graph::over(Vec::new(), protocol),
        protocol,
        known: FxHashMap::default(),
        kept: Vec::new(),
        open: Vec::new(),
    };
    let root = pickler.node_of(object, 0)?;
    pickler.graph.set_root(root);
    while let Some(task) = pickler.open.pop() {
        pickler.save(&task)?;
    }
    Ok(pickler.graph)
}

/// The exception for objects that are too large.
pub(super) fn too_large(py: Python<'_>) -> PyErr {
    pickling_error(py, "the objects are too large for a pickle")
}

fn pickling_error(py: Python<'_>, message: &str) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    match CLASS.import(py, "pickle", "PicklingError").and_then(|class| class.call1((message,))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(failure) => failure,
    }
}

/// An object that has a node, whose contents are still to be written into it.
struct Task<'py> {
    object: Bound<'py, PyAny>,
    id: NodeId,
    /// How many objects with a `__reduce__` led here.
    reduced: u32,
}

struct Pickler<'py> {
    py: Python<'py>,
    graph: Graph,
    protocol: u8,
    /// Nodes by the addresses of their objects.
    known: FxHashMap<usize, NodeId>,
    kept: Vec<Bound<'py, PyAny>>,
    open: Vec<Task<'py>>,
}

impl<'py> Pickler<'py> {
    /// The node of an object; a new one if it has none yet.
    fn node_of(&mut self, object: &Bound<'py, PyAny>, reduced: u32) -> PyResult<NodeId> {
        if object.is_none() {
            return Ok(NodeId::NONE);
        }
        if let Ok(value) = object.cast_exact::<PyBool>() {
            return Ok(if value.is_true() { NodeId::TRUE } else { NodeId::FALSE });
        }
        if let Ok(number) = object.cast_exact::<PyFloat>() {
            return Ok(self.graph.push(Node::Float(number.value())));
        }
        if let Ok(number) = object.cast_exact::<PyInt>()
            && let Ok(number) = number.extract::<i64>()
        {
            return Ok(self.graph.push(Node::Int(number)));
        }
        if object.cast_exact::<PyTuple>().is_ok_and(PyTupleMethods::is_empty) {
            return Ok(NodeId::EMPTY_TUPLE);
        }
        let id = match self.known.entry(object.as_ptr() as usize) {
            Entry::Occupied(known) => return Ok(*known.get()),
            Entry::Vacant(unknown) => *unknown.insert(self.graph.push(Node::None)),
        };
        self.kept.push(object.clone());
        if let Some(atom) = self.atom(object)? {
            *self.graph.node_mut(id) = atom;
        } else {
            self.open.push(Task { object: object.clone(), id, reduced });
        }
        Ok(id)
    }

    /// A node that refers to no other.
    fn atom(&mut self, object: &Bound<'py, PyAny>) -> PyResult<Option<Node>> {
        if let Ok(text) = object.cast_exact::<PyString>() {
            return Ok(Some(Node::Str(self.text(text)?)));
        }
        if let Ok(bytes) = object.cast_exact::<PyBytes>()
            && self.protocol >= 3
        {
            return Ok(Some(Node::Bytes(self.span(bytes.as_bytes())?)));
        }
        if let Ok(bytes) = object.cast_exact::<PyByteArray>()
            && self.protocol >= 5
        {
            let bytes = bytes.to_vec();
            return Ok(Some(Node::ByteArray(self.span(&bytes)?)));
        }
        if let Ok(number) = object.cast_exact::<PyInt>() {
            let bytes = self.large_int(number)?;
            return Ok(Some(Node::Long(self.span(&bytes)?)));
        }
        Ok(None)
    }

    fn large_int(&self, number: &Bound<'py, PyInt>) -> PyResult<Vec<u8>> {
        let py = self.py;
        let bits: usize = number.call_method0(intern!(py, "bit_length"))?.extract()?;
        let options = PyDict::new(py);
        options.set_item(intern!(py, "signed"), true)?;
        let arguments = (bits / 8 + 1, intern!(py, "little"));
        number.call_method(intern!(py, "to_bytes"), arguments, Some(&options))?.extract()
    }

    fn span(&mut self, bytes: &[u8]) -> PyResult<crate::codec::graph::Span> {
        if self.graph.byte_len().saturating_add(bytes.len()) > MAX_BYTES {
            return Err(too_large(self.py));
        }
        Ok(self.graph.push_bytes(bytes))
    }

    fn text(&mut self, text: &Bound<'py, PyString>) -> PyResult<crate::codec::graph::Span> {
        if let Ok(text) = text.to_str() {
            return self.span(text.as_bytes());
        }
        let options = (intern!(self.py, "utf-8"), intern!(self.py, "surrogatepass"));
        let bytes = text.call_method1(intern!(self.py, "encode"), options)?;
        self.span(bytes.cast::<PyBytes>()?.as_bytes())
    }

    fn save(&mut self, task: &Task<'py>) -> PyResult<()> {
        let &Task { ref object, id, reduced } = task;
        let py = self.py;
        let node = if let Ok(list) = object.cast_exact::<PyList>() {
            Node::List(self.nodes_of(list.iter(), reduced)?)
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            // All of them before the first is looked at: that may run code which changes the dict.
            let pairs: Vec<_> = dict.iter().collect();
            Node::Dict(self.pairs_of(&pairs, reduced)?)
        } else if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            Node::Tuple(self.nodes_of(tuple.iter(), reduced)?)
        } else if object.is_exact_instance_of::<PySet>() {
            self.set(object, "set", reduced)?
        } else if object.is_exact_instance_of::<PyFrozenSet>() {
            self.set(object, "frozenset", reduced)?
        } else if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            self.bytes(bytes)?
        } else if let Ok(bytes) = object.cast_exact::<PyByteArray>() {
            let contents = PyBytes::new(py, &bytes.to_vec());
            let args = if contents.as_bytes().is_empty() {
                PyTuple::empty(py)
            } else {
                PyTuple::new(py, [contents])?
            };
            self.call_of("builtins", "bytearray", &args)?
        } else if object.get_type().is(opaque::global(py)?) {
            self.global(
                object.getattr(intern!(py, "module"))?,
                object.getattr(intern!(py, "name"))?,
            )?
        } else if object.get_type().is(opaque::object(py)?)
            || object.get_type().is(opaque::time_zone(py)?)
        {
            self.opaque(object, reduced)?
        } else {
            self.other(object, reduced)?
        };
        *self.graph.node_mut(id) = node;
        Ok(())
    }

    fn nodes_of(
        &mut self,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
        reduced: u32,
    ) -> PyResult<Vec<NodeId>> {
        items.map(|item| self.node_of(&item, reduced)).collect()
    }

    fn pairs_of(
        &mut self,
        pairs: &[(Bound<'py, PyAny>, Bound<'py, PyAny>)],
        reduced: u32,
    ) -> PyResult<Vec<(NodeId, NodeId)>> {
        let mut pair = |(key, value): &(Bound<'py, PyAny>, Bound<'py, PyAny>)| {
            Ok((self.node_of(key, reduced)?, self.node_of(value, reduced)?))
        };
        pairs.iter().map(&mut pair).collect()
    }

    /// A set, which has opcodes of its own since protocol 4.
    fn set(&mut self, object: &Bound<'py, PyAny>, class: &str, reduced: u32) -> PyResult<Node> {
        let items = PyList::empty(self.py);
        for item in object.try_iter()? {
            items.append(item?)?;
        }
        if self.protocol < 4 {
            let list = self.graph.push(Node::None);
            let nodes = self.nodes_of(items.iter(), reduced)?;
            *self.graph.node_mut(list) = Node::List(nodes);
            let args = self.graph.push(Node::Tuple(vec![list]));
            let callable = self.global_named("builtins", class)?;
            return Ok(made(Maker::Call { callable, args }, Vec::new()));
        }
        let nodes = self.nodes_of(items.iter(), reduced)?;
        Ok(if class == "set" { Node::Set(nodes) } else { Node::FrozenSet(nodes) })
    }

    /// Bytes in protocol 2, where Python 2 has only text and strings.
    fn bytes(&mut self, bytes: &Bound<'py, PyBytes>) -> PyResult<Node> {
        let py = self.py;
        if bytes.as_bytes().is_empty() {
            return self.call_of("builtins", "bytes", &PyTuple::empty(py));
        }
        let text: String = bytes.as_bytes().iter().copied().map(char::from).collect();
        let args = PyTuple::new(py, [PyString::new(py, &text), PyString::new(py, "latin1")])?;
        self.call_of("_codecs", "encode", &args)
    }

    /// A call of a function by its name.
    fn call_of(&mut self, module: &str, name: &str, args: &Bound<'py, PyTuple>) -> PyResult<Node> {
        let callable = self.global_named(module, name)?;
        let args = self.node_of(args.as_any(), 0)?;
        Ok(made(Maker::Call { callable, args }, Vec::new()))
    }

    fn global_named(&mut self, module: &str, name: &str) -> PyResult<NodeId> {
        let (module, name) = (PyString::new(self.py, module), PyString::new(self.py, name));
        let global = self.global(module.into_any(), name.into_any())?;
        Ok(self.graph.push(global))
    }

    /// A class or function by its name in Python 3.
    fn global(
        &mut self,
        mut module: Bound<'py, PyAny>,
        mut name: Bound<'py, PyAny>,
    ) -> PyResult<Node> {
        if self.protocol < 3 {
            (module, name) = opaque::to_python2(module, name)?;
        }
        let module = self.text(module.cast::<PyString>()?)?;
        let name = self.text(name.cast::<PyString>()?)?;
        Ok(Node::Global { module, name })
    }

    /// What came out of a pickle as data goes back as it was.
    fn opaque(&mut self, object: &Bound<'py, PyAny>, reduced: u32) -> PyResult<Node> {
        let py = self.py;
        let callable = self.node_of(&object.getattr(intern!(py, "callable"))?, reduced)?;
        let args = object.getattr(intern!(py, "args"))?;
        let args = self.node_of(args.cast_exact::<PyTuple>()?.as_any(), reduced)?;
        let made_by = object.getattr(intern!(py, "made_by"))?;
        let by = match made_by.extract::<&str>()? {
            "call" => Maker::Call { callable, args },
            "new" => Maker::New { class: callable, args },
            "new_ex" => {
                let kwargs = object.getattr(intern!(py, "kwargs"))?;
                let kwargs = self.node_of(kwargs.cast_exact::<PyDict>()?.as_any(), reduced)?;
                Maker::NewEx { class: callable, args, kwargs }
            }
            "instance" => Maker::Instance { class: callable, args },
            _ => return Err(pickling_error(py, "an OpaqueObject with an unknown made_by")),
        };
        let mut steps = Vec::new();
        for step in object.getattr(intern!(py, "steps"))?.try_iter()? {
            let step = step?.cast_into::<PyTuple>()?;
            let kind = step.get_item(0)?;
            let first = self.node_of(&step.get_item(1)?, reduced)?;
            steps.push(match kind.extract::<&str>()? {
                "append" => Step::Append(first),
                "add" => Step::Add(first),
                "setitem" => Step::SetItem(first, self.node_of(&step.get_item(2)?, reduced)?),
                "setstate" => Step::SetState(first),
                "call" => Step::Call(first),
                _ => return Err(pickling_error(py, "an OpaqueObject with an unknown step")),
            });
        }
        Ok(made(by, steps))
    }

    /// Everything else tells by itself what it is made of.
    fn other(&mut self, object: &Bound<'py, PyAny>, reduced: u32) -> PyResult<Node> {
        static TABLE: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
        let py = self.py;
        if reduced == MAX_REDUCED {
            return Err(PyRecursionError::new_err(
                "maximum recursion depth exceeded while pickling an object",
            ));
        }
        let class = object.get_type();
        if let Ok(class) = object.cast_exact::<PyType>()
            && let Some(singleton) = type_of_singleton(class)
        {
            let args = PyTuple::new(py, [singleton])?;
            let callable = self.global_named("builtins", "type")?;
            let args = self.node_of(args.as_any(), reduced)?;
            return Ok(made(Maker::Call { callable, args }, Vec::new()));
        }
        if object.is_exact_instance_of::<PyFunction>() || object.is_exact_instance_of::<PyType>() {
            return self.named(object, None, reduced);
        }
        let table = TABLE.import(py, "copyreg", "dispatch_table")?;
        let answer = if let Some(reduce) = table.get_item(&class)? {
            reduce.call1((object,))?
        } else if class.is_subclass_of::<PyType>()? {
            return self.named(object, None, reduced);
        } else {
            object.call_method1(intern!(py, "__reduce_ex__"), (self.protocol,))?
        };
        if let Ok(name) = answer.cast::<PyString>() {
            return self.named(object, Some(name.clone()), reduced);
        }
        let Ok(answer) = answer.cast_into::<PyTuple>() else {
            return Err(pickling_error(py, "__reduce__ must return a string or tuple"));
        };
        if !(2..=6).contains(&answer.len()) {
            return Err(pickling_error(
                py,
                "tuple returned by __reduce__ must contain 2 through 6 elements",
            ));
        }
        self.kept.push(answer.clone().into_any());
        self.reduced(object, &answer, reduced + 1)
    }

    /// An object by the answer of its `__reduce_ex__`.
    fn reduced(
        &mut self,
        object: &Bound<'py, PyAny>,
        answer: &Bound<'py, PyTuple>,
        reduced: u32,
    ) -> PyResult<Node> {
        let py = self.py;
        let part = |index: usize| match answer.get_item(index) {
            Ok(part) if !part.is_none() => Some(part),
            _ => None,
        };
        let (callable, args) = (answer.get_item(0)?, answer.get_item(1)?);
        let Ok(args) = args.cast_into::<PyTuple>() else {
            return Err(pickling_error(
                py,
                "second item of the tuple returned by __reduce__ must be a tuple",
            ));
        };
        if !callable.is_callable() {
            return Err(pickling_error(
                py,
                "first item of the tuple returned by __reduce__ must be callable",
            ));
        }
        let by = self.maker(object, &callable, &args, reduced)?;
        let mut steps = Vec::new();
        if let Some(items) = part(3) {
            for item in items.cast_into::<PyIterator>()? {
                steps.push(Step::Append(self.node_of(&item?, reduced)?));
            }
        }
        if let Some(pairs) = part(4) {
            for pair in pairs.cast_into::<PyIterator>()? {
                let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
                let key = self.node_of(&key, reduced)?;
                steps.push(Step::SetItem(key, self.node_of(&value, reduced)?));
            }
        }
        if let Some(state) = part(2) {
            match part(5) {
                None => steps.push(Step::SetState(self.node_of(&state, reduced)?)),
                Some(setter) => {
                    let callable = self.node_of(&setter, reduced)?;
                    let args = PyTuple::new(py, [object, &state])?;
                    let args = self.node_of(args.as_any(), reduced)?;
                    let call = self.graph.push(made(Maker::Call { callable, args }, Vec::new()));
                    steps.push(Step::Call(call));
                }
            }
        }
        Ok(made(by, steps))
    }

    fn maker(
        &mut self,
        object: &Bound<'py, PyAny>,
        callable: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        reduced: u32,
    ) -> PyResult<Maker> {
        let py = self.py;
        let name = callable.getattr_opt(intern!(py, "__name__"))?;
        let name = name.as_ref().and_then(|name| name.extract::<&str>().ok());
        let (expected, name) = match name {
            Some(name @ "__newobj__") => (1, name),
            Some(name @ "__newobj_ex__") => (3, name),
            _ => (0, ""),
        };
        if expected == 0 {
            let callable = self.node_of(callable, reduced)?;
            return Ok(Maker::Call { callable, args: self.node_of(args.as_any(), reduced)? });
        }
        if args.is_empty() || expected == 3 && args.len() != 3 {
            return Err(pickling_error(py, &format!("{name} has the wrong number of arguments")));
        }
        let class = args.get_item(0)?;
        if !class.hasattr(intern!(py, "__new__"))? {
            return Err(pickling_error(py, &format!("args[0] from {name} args has no __new__")));
        }
        if !class.is(object.getattr(intern!(py, "__class__"))?) {
            return Err(pickling_error(
                py,
                &format!("args[0] from {name} args has the wrong class"),
            ));
        }
        if expected == 1 {
            let rest = args.get_slice(1, args.len());
            let class = self.node_of(&class, reduced)?;
            return Ok(Maker::New { class, args: self.node_of(rest.as_any(), reduced)? });
        }
        let (positional, keywords) = (args.get_item(1)?, args.get_item(2)?);
        if self.protocol >= 4 {
            let class = self.node_of(&class, reduced)?;
            let args = self.node_of(positional.cast_exact::<PyTuple>()?.as_any(), reduced)?;
            let kwargs = self.node_of(keywords.cast_exact::<PyDict>()?.as_any(), reduced)?;
            return Ok(Maker::NewEx { class, args, kwargs });
        }
        // There is no opcode for it: a `partial` that is called without arguments.
        let new = class.getattr(intern!(py, "__new__"))?;
        let mut bound = vec![new, class];
        bound.extend(positional.try_iter()?.collect::<PyResult<Vec<_>>>()?);
        let partial = py.import("functools")?.getattr("partial")?;
        let keywords = keywords.cast_into::<PyDict>()?;
        let partial = partial.call(PyTuple::new(py, bound)?, Some(&keywords))?;
        let callable = self.node_of(&partial, reduced)?;
        Ok(Maker::Call { callable, args: NodeId::EMPTY_TUPLE })
    }

    /// A class or function that can be imported by its name.
    fn named(
        &mut self,
        object: &Bound<'py, PyAny>,
        name: Option<Bound<'py, PyString>>,
        reduced: u32,
    ) -> PyResult<Node> {
        static WHICH_MODULE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = self.py;
        let name = match name {
            Some(name) => name.into_any(),
            None => match object.getattr_opt(intern!(py, "__qualname__"))? {
                Some(name) => name,
                None => object.getattr(intern!(py, "__name__"))?,
            },
        };
        let name = name.cast_into::<PyString>()?;
        let module = WHICH_MODULE.import(py, "pickle", "whichmodule")?.call1((object, &name))?;
        let module = module.cast_into::<PyString>()?;
        let (found, parent) = match look_up(&module, &name) {
            Ok(found) => found,
            Err(failure)
                if failure.is_instance_of::<PyImportError>(py)
                    || failure.is_instance_of::<PyKeyError>(py)
                    || failure.is_instance_of::<PyAttributeError>(py) =>
            {
                let message = format!("Can't pickle {object:?}: it's not found as {module}.{name}");
                return Err(pickling_error(py, &message));
            }
            Err(failure) => return Err(failure),
        };
        if !found.is(object) {
            let message =
                format!("Can't pickle {object:?}: it's not the same object as {module}.{name}");
            return Err(pickling_error(py, &message));
        }
        let nested = self.protocol < 4 && name.to_str()?.contains('.');
        if nested {
            // Only protocol 4 has names with dots.
            let last = name.to_str()?.rsplit('.').next().unwrap_or_default().to_owned();
            let args = PyTuple::new(py, [parent, PyString::new(py, &last).into_any()])?;
            let callable = self.global_named("builtins", "getattr")?;
            let args = self.node_of(args.as_any(), reduced)?;
            return Ok(made(Maker::Call { callable, args }, Vec::new()));
        }
        self.global(module.into_any(), name.into_any())
    }
}

fn made(by: Maker, steps: Vec<Step>) -> Node {
    Node::Made(Box::new(Made { by, steps }))
}

/// `None`, `NotImplemented` or `...`, whose classes have no name that can be imported.
fn type_of_singleton<'py>(class: &Bound<'py, PyType>) -> Option<Bound<'py, PyAny>> {
    let py = class.py();
    [
        py.None().into_bound(py),
        PyNotImplemented::get(py).to_owned().into_any(),
        PyEllipsis::get(py).to_owned().into_any(),
    ]
    .into_iter()
    .find(|singleton| class.is(singleton.get_type()))
}

/// What a dotted name in a module stands for, and what it was found in.
fn look_up<'py>(
    module: &Bound<'py, PyString>,
    name: &Bound<'py, PyString>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = module.py();
    let mut found = PyModule::import(py, module)?.into_any();
    let mut parent = found.clone();
    for part in name.to_str()?.split('.') {
        if part == "<locals>" {
            return Err(PyAttributeError::new_err("local object"));
        }
        parent = found;
        found = parent.getattr(part)?;
    }
    Ok((found, parent))
}
