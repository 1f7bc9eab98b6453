//! Pickles for Python: read into a graph and then into objects, without importing or calling anything
//! that the data names, and the way back.
//!
//! [`objects`] makes Python objects of a graph, [`nodes`] a graph of Python objects. What a class of the
//! project's own is stays data, `OpaqueObject` of `python/django_session_rs/pickle.py`.

mod nodes;
mod objects;
mod opaque;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::error;
use crate::codec::DEFAULT_MAX_SIZE;
use crate::codec::graph::Graph;
use crate::codec::pickle::{DEFAULT_PROTOCOL, HIGHEST_PROTOCOL, Limits, PickleError};

/// Pickles from this length on are read without the interpreter's lock.
const LARGE: usize = 32 << 10;

const _: () = assert!(DEFAULT_MAX_SIZE == 67_108_864 && DEFAULT_PROTOCOL == 4);

#[pyfunction]
#[pyo3(signature = (data, *, encoding = None, max_size = 67_108_864, max_nodes = 1_048_576))]
pub(super) fn loads_safe<'py>(
    data: &Bound<'py, PyAny>,
    encoding: Option<&str>,
    max_size: usize,
    max_nodes: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let data = bytes_like(data)?;
    if let Some(encoding) = encoding.filter(|&encoding| encoding != "bytes") {
        data.py().import("codecs")?.call_method1("lookup", (encoding,))?;
    }
    let limits = Limits::default().with_size(max_size).with_nodes(max_nodes);
    load(data.py(), data.as_bytes(), &limits, encoding)
}

#[pyfunction]
#[pyo3(signature = (obj, *, protocol = 4))]
pub(super) fn pickle_dumps<'py>(
    obj: &Bound<'py, PyAny>,
    protocol: u8,
) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(obj.py(), &dump(obj, checked_protocol(protocol)?)?))
}

/// Reads a pickle and writes it back, for the tests to compare.
#[pyfunction]
#[pyo3(name = "_rewrite_pickle")]
pub(super) fn rewrite<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let read = Graph::from_pickle(data, &Limits::default());
    let written = read.and_then(|graph| graph.to_pickle());
    written.map(|bytes| PyBytes::new(py, &bytes)).map_err(|failure| error::pickle(py, failure))
}

/// The objects of a pickle.
///
/// # Errors
///
/// `DecodeError`, or `PayloadTooLargeError` where a limit stands in the way.
pub(super) fn load<'py>(
    py: Python<'py>,
    pickle: &[u8],
    limits: &Limits,
    encoding: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let read = || Graph::from_pickle(pickle, limits);
    let graph = if pickle.len() < LARGE { read() } else { py.detach(read) };
    let graph = graph.map_err(|failure: PickleError| error::pickle(py, failure))?;
    objects::build(py, &graph, encoding)
}

/// The pickle of an object.
///
/// # Errors
///
/// What `pickle.dumps` raises.
pub(super) fn dump(object: &Bound<'_, PyAny>, protocol: u8) -> PyResult<Vec<u8>> {
    let graph = nodes::build(object, protocol)?;
    graph.to_pickle().map_err(|_| nodes::too_large(object.py()))
}

/// The objects of a graph.
///
/// # Errors
///
/// `DecodeError` for what Python cannot hold.
pub(super) fn objects<'py>(py: Python<'py>, graph: &Graph) -> PyResult<Bound<'py, PyAny>> {
    objects::build(py, graph, None)
}

/// An object as a graph.
///
/// # Errors
///
/// What `pickle.dumps` raises.
pub(super) fn graph(object: &Bound<'_, PyAny>) -> PyResult<Graph> {
    nodes::build(object, DEFAULT_PROTOCOL)
}

/// The protocols that are written; those before name Python 2 classes in a way of their own.
pub(super) fn checked_protocol(protocol: u8) -> PyResult<u8> {
    if (2..=HIGHEST_PROTOCOL).contains(&protocol) {
        return Ok(protocol);
    }
    Err(PyValueError::new_err("protocol must be from 2 to 5"))
}

/// Bytes, or what Python makes bytes of.
fn bytes_like<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = data.cast::<PyBytes>() {
        return Ok(bytes.clone());
    }
    let copied = data.py().get_type::<pyo3::types::PyMemoryView>().call1((data,));
    match copied {
        Ok(view) => Ok(view.call_method0("tobytes")?.cast_into()?),
        Err(_) => Err(PyTypeError::new_err("a pickle must be bytes")),
    }
}
