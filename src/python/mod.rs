//! The extension module `django_session_rs._native`: the only place that knows Python.
//!
//! [`codec`] gives Python the codec of this crate, so that grammar, escapes, floats, signatures and
//! compression have one source. [`convert`] goes between Python objects and JSON text without a tree
//! in between. [`cache`] does the same for the entries of caches, [`pickle`] for pickles, through a graph.
//! [`signing`] is `django.core.signing` and what stands on it. [`store`] lets threads wait for a store, and [`awaitable`]
//! event loops. [`error`] is the only mapping of errors to
//! Python's and Django's exceptions.

mod awaitable;
mod cache;
mod codec;
mod convert;
mod error;
mod pickle;
mod signing;
mod store;

use std::ffi::OsString;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::cache::{
        PyCacheCodec, PyCacheKeys, UnwrappedValue, check_database_key, check_memcached_key,
        database_expires, django_redis_timeout, file_expiry, file_name, memcached_exptime,
        redis_timeout,
    };
    #[pymodule_export]
    use super::codec::{DecodedSession, PyDiagnosis, PySessionCodec};
    #[pymodule_export]
    use super::pickle::{loads_safe, pickle_dumps};
    #[pymodule_export]
    use super::signing::{
        UnsignedValue,
        auth::{AuthHashMatch, session_auth_hash, verify_session_auth_hash},
        cookie::{PyCookieSigner, get_cookie_signer},
        signer::{PySigner, PyTimestampSigner, dumps, loads},
        token::PyPasswordResetTokenGenerator,
    };
    #[pymodule_export]
    use super::store::{PyStore, StoredSession};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        // Set and not added, so that it is not in `__all__`.
        module.setattr("_rewrite_pickle", wrap_pyfunction!(super::pickle::rewrite, module)?)?;
        module.setattr("_command", wrap_pyfunction!(super::command, module)?)?;
        super::warn_of_debug_build(module)
    }
}

/// The command `django-session`, which has a process to itself.
#[pyfunction]
fn command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| crate::cli::main_from(arguments))
}

/// A debug build is many times slower; nobody should measure one, or deploy it, unawares.
fn warn_of_debug_build(module: &Bound<'_, PyModule>) -> PyResult<()> {
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    let py = module.py();
    let category = py.get_type::<pyo3::exceptions::PyRuntimeWarning>();
    let message = c"django_session_rs._native is a debug build and slow; build it with --release";
    PyErr::warn(py, &category, message, 1)
}
