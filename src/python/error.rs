//! Codec errors as Python exceptions.
//!
//! Whoever catches Django's `BadSignature` today keeps catching it. The others are
//! `django_session_rs.DecodeError`, a `ValueError` like those that Django's own reader raises from
//! `zlib`, `base64` and `json`. No exception refers to a payload, not even through its cause.

use std::error::Error;
use std::fmt::Write as _;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::codec::cache::{CacheDecodeError, CachePart, Compressor, InvalidCacheKey};
use crate::codec::pickle::PickleError;
use crate::codec::{DecodeError, Part};
use crate::session::{SessionError, StoreError};

/// The exception for a codec error.
pub(super) fn to_py(py: Python<'_>, error: &DecodeError) -> PyErr {
    match error {
        DecodeError::BadSignature => bad_signature(py, error),
        DecodeError::Malformed { part: Part::Base64 } => {
            decode_error(py, &error.to_string(), "base64")
        }
        DecodeError::Malformed { part: Part::Timestamp } => {
            decode_error(py, &error.to_string(), "timestamp")
        }
        DecodeError::Malformed { part: Part::Zlib } => decode_error(py, &error.to_string(), "zlib"),
        DecodeError::NotAnObject { .. } => decode_error(py, &error.to_string(), "not_an_object"),
        DecodeError::Deserialize(_) | DecodeError::Serializer(_) => {
            decode_error(py, &error.to_string(), "json")
        }
        DecodeError::Pickle(failure) => pickle(py, *failure),
        DecodeError::SignatureExpired { .. } => signature_expired(py, error),
        DecodeError::TooLarge { .. } => too_large(py, &error.to_string()),
        DecodeError::WrongSerializer { .. } => decode_error(py, &error.to_string(), "serializer"),
    }
}

/// The exception for a value of a cache.
pub(super) fn cache_to_py(py: Python<'_>, error: &CacheDecodeError) -> PyErr {
    if error.is_too_large() {
        return too_large(py, &error.to_string());
    }
    let reason = match error {
        CacheDecodeError::Malformed { part } => match part {
            CachePart::Base64 => "base64",
            CachePart::Compressed(compressor) => match compressor {
                Compressor::Gzip => "gzip",
                Compressor::Identity => "identity",
                Compressor::Lz4 => "lz4",
                Compressor::Lzma => "lzma",
                Compressor::Zlib => "zlib",
                Compressor::Zstd => "zstd",
            },
            CachePart::Expiry => "expiry",
            CachePart::Flags => "flags",
            CachePart::Utf8 => "utf8",
        },
        CacheDecodeError::Json(_) => "json",
        CacheDecodeError::MsgPack(_) => "msgpack",
        CacheDecodeError::Pickle(_) => "pickle",
        CacheDecodeError::NotASession { .. } => "not_an_object",
        CacheDecodeError::TooLarge { .. } => "too_large",
    };
    decode_error(py, &error.to_string(), reason)
}

/// The exception for a key that a cache does not take.
pub(super) fn invalid_cache_key(py: Python<'_>, error: InvalidCacheKey) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(py, "django.core.cache.backends.base", "InvalidCacheKey");
    raise(class, (error.to_string(),))
}

/// The exception for bytes that are no pickle, or one beyond the limits.
pub(super) fn pickle(py: Python<'_>, failure: PickleError) -> PyErr {
    let error = DecodeError::Pickle(failure);
    let message = format!("{error}: {failure}");
    if error.is_too_large() {
        too_large(py, &message)
    } else {
        decode_error(py, &message, "pickle")
    }
}

/// The exception for a pickle of objects that Python cannot make.
pub(super) fn unbuildable_pickle(py: Python<'_>) -> PyErr {
    decode_error(py, "the pickle is of objects that cannot be", "pickle")
}

/// The exception for a pickle whose objects would take too much time or stack.
pub(super) fn too_large_pickle(py: Python<'_>) -> PyErr {
    too_large(py, "the pickle is of objects that are too large")
}

/// Whether an exception is a `DecodeError`.
pub(super) fn is_ours(py: Python<'_>, error: &PyErr) -> bool {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(py, "django_session_rs.exceptions", "DecodeError");
    class.is_ok_and(|class| error.is_instance(py, class))
}

/// The exception for a payload that Python's `json` does not read.
pub(super) fn unreadable_json(py: Python<'_>) -> PyErr {
    decode_error(py, "the payload is not valid JSON", "json")
}

/// The exception for what a store says.
pub(super) fn store(py: Python<'_>, failure: &StoreError) -> PyErr {
    static UPDATE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static CREATE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    const BACKENDS: &str = "django.contrib.sessions.backends.base";
    let reason = match failure {
        StoreError::Update => return raise(UPDATE.import(py, BACKENDS, "UpdateError"), ()),
        StoreError::Create => return raise(CREATE.import(py, BACKENDS, "CreateError"), ()),
        StoreError::Conflict => return ours(py, "SessionConflictError", (failure.to_string(),)),
        StoreError::Decode(found) => return to_py(py, found),
        StoreError::CacheDecode(found) => return cache_to_py(py, found),
        StoreError::Busy(_) => "busy",
        StoreError::TimedOut(_) => "timed_out",
        StoreError::Unreachable(_) => "unreachable",
        StoreError::Backend(_) => "refused",
        _ => return ours(py, "StoreError", (whole(failure),)),
    };
    let unavailable = ours(py, "StoreUnavailableError", (reason,));
    if let Some(source) = failure.source() {
        unavailable.set_cause(py, Some(ours(py, "StoreError", (whole(source),))));
    }
    unavailable
}

/// The exception for what became of a session.
pub(super) fn session(py: Python<'_>, failure: &SessionError) -> PyErr {
    match failure {
        SessionError::Store(failure) => store(py, failure),
        failure => PyValueError::new_err(whole(failure)),
    }
}

/// The exception for a setting that is of no use.
pub(super) fn improperly_configured(py: Python<'_>, failure: &dyn Error) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(py, "django.core.exceptions", "ImproperlyConfigured");
    raise(class, (whole(failure),))
}

/// One of the exceptions of `django_session_rs.exceptions`.
fn ours<'py, A>(py: Python<'py>, name: &str, arguments: A) -> PyErr
where
    A: pyo3::call::PyCallArgs<'py>,
{
    let class = py.import("django_session_rs.exceptions").and_then(|module| module.getattr(name));
    match class.and_then(|class| class.call1(arguments)) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// An error and what it comes from, in one line.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

fn bad_signature(py: Python<'_>, error: &DecodeError) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    raise(CLASS.import(py, "django.core.signing", "BadSignature"), (error.to_string(),))
}

fn signature_expired(py: Python<'_>, error: &DecodeError) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    raise(CLASS.import(py, "django.core.signing", "SignatureExpired"), (error.to_string(),))
}

/// The exception for an algorithm that is not supported.
pub(super) fn invalid_algorithm(py: Python<'_>) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(py, "django.utils.crypto", "InvalidAlgorithm");
    raise(class, ("an algorithm is 'sha256' or 'sha1'",))
}

fn decode_error(py: Python<'_>, message: &str, reason: &str) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(py, "django_session_rs.exceptions", "DecodeError");
    raise(class, (message, reason))
}

fn too_large(py: Python<'_>, message: &str) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(py, "django_session_rs.exceptions", "PayloadTooLargeError");
    raise(class, (message, "too_large"))
}

fn raise<'py, A>(class: PyResult<&Bound<'py, PyType>>, arguments: A) -> PyErr
where
    A: pyo3::call::PyCallArgs<'py>,
{
    match class.and_then(|class| class.call1(arguments)) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}
