//! The classes of `django_session_rs.pickle`, and the names that Python 2 had for others.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

const MODULE: &str = "django_session_rs.pickle";

/// `OpaqueObject`: an instance of a class that is not known.
pub(super) fn object(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, MODULE, "OpaqueObject")
}

/// `OpaqueTimezone`: the same, of a time zone whose offset is known.
pub(super) fn time_zone(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, MODULE, "OpaqueTimezone")
}

/// `OpaqueGlobal`: a class or a function.
pub(super) fn global(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, MODULE, "OpaqueGlobal")
}

/// An instance of one of those whose attributes are still to be set.
pub(super) fn shell<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyAny>> {
    class.call_method1(intern!(class.py(), "__new__"), (class,))
}

/// The pair of names in Python 3, as `pickle` maps those in protocols up to 2 (`fix_imports`).
pub(super) fn to_python3<'py>(
    module: Bound<'py, PyAny>,
    name: Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    static NAMES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let py = module.py();
    let names = NAMES.import(py, "_compat_pickle", "NAME_MAPPING")?;
    let modules = MODULES.import(py, "_compat_pickle", "IMPORT_MAPPING")?;
    renamed(names, modules, module, name)
}

/// The way back.
pub(super) fn to_python2<'py>(
    module: Bound<'py, PyAny>,
    name: Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    static NAMES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let py = module.py();
    let names = NAMES.import(py, "_compat_pickle", "REVERSE_NAME_MAPPING")?;
    let modules = MODULES.import(py, "_compat_pickle", "REVERSE_IMPORT_MAPPING")?;
    renamed(names, modules, module, name)
}

fn renamed<'py>(
    names: &Bound<'py, PyDict>,
    modules: &Bound<'py, PyDict>,
    module: Bound<'py, PyAny>,
    name: Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    if let Some(pair) = names.get_item((&module, &name))? {
        let pair = pair.cast_into::<PyTuple>()?;
        return Ok((pair.get_item(0)?, pair.get_item(1)?));
    }
    match modules.get_item(&module)? {
        Some(module) => Ok((module, name)),
        None => Ok((module, name)),
    }
}

/// Text that may hold lone surrogates.
pub(super) fn text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Ok(PyString::new(py, text));
    }
    let bytes = pyo3::types::PyBytes::new(py, bytes);
    let options = (intern!(py, "utf-8"), intern!(py, "surrogatepass"));
    Ok(bytes.call_method1(intern!(py, "decode"), options)?.cast_into()?)
}
