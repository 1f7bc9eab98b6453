//! `SessionCodec` for Python: Django's `SessionBase.encode` and `decode` as one small class.

use pyo3::exceptions::{PyRecursionError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::{convert, error};
use crate::codec::{
    Compression, DEFAULT_MAX_SIZE, DecodeError, DecodedPayload, KeyMatch, SESSION_SALT, SecretKey,
    SessionCodec,
};

/// Texts from this length on are worked on without the interpreter's lock: below it, handing the
/// lock over costs more than the others gain.
pub(super) const LARGE: usize = 32 << 10;

#[pyclass(frozen, name = "SessionCodec", module = "django_session_rs")]
pub(super) struct PySessionCodec {
    codec: SessionCodec,
    /// For each fallback key in use, its index in `SECRET_KEY_FALLBACKS`.
    fallbacks: Vec<usize>,
}

const _: () = assert!(DEFAULT_MAX_SIZE == 67_108_864 && SESSION_SALT.len() == 36);

#[pymethods]
impl PySessionCodec {
    // Literals, since Python shows them; the assertion above ties them to the constants.
    #[new]
    #[pyo3(signature = (
        secret_key,
        *,
        fallbacks = Vec::new(),
        salt = "django.contrib.sessions.SessionStore",
        compression = "fast",
        max_size = 67_108_864,
    ))]
    #[expect(clippy::needless_pass_by_value, reason = "the form in which PyO3 gives a sequence")]
    fn new(
        secret_key: &Bound<'_, PyAny>,
        fallbacks: Vec<Bound<'_, PyAny>>,
        salt: &str,
        compression: &str,
        max_size: usize,
    ) -> PyResult<Self> {
        let primary = secret(secret_key)?
            .ok_or_else(|| PyValueError::new_err("secret_key must not be empty"))?;
        // Django reads an empty fallback key as "the primary key again", so there is nothing to add.
        let mut indexes = Vec::new();
        let mut keys = Vec::new();
        for (index, key) in fallbacks.iter().enumerate() {
            if let Some(key) = secret(key)? {
                indexes.push(index);
                keys.push(key);
            }
        }
        let compression = match compression {
            "fast" => Compression::Fast,
            "small" => Compression::Small,
            _ => return Err(PyValueError::new_err("compression must be 'fast' or 'small'")),
        };
        let codec = SessionCodec::with_salt(&primary, salt)
            .with_fallbacks(&keys)
            .with_compression(compression)
            .with_max_size(max_size);
        Ok(Self { codec, fallbacks: indexes })
    }

    #[getter]
    fn salt(&self) -> &str {
        self.codec.salt()
    }

    #[pyo3(signature = (data, *, now = None))]
    fn encode(&self, data: &Bound<'_, PyAny>, now: Option<f64>) -> PyResult<String> {
        let payload = convert::to_json(data)?;
        self.sign(data.py(), payload.as_bytes(), now)
    }

    #[pyo3(signature = (payload, *, now = None))]
    fn encode_bytes(&self, py: Python<'_>, payload: &[u8], now: Option<f64>) -> PyResult<String> {
        self.sign(py, payload, now)
    }

    fn decode<'py>(&self, py: Python<'py>, value: &str) -> PyResult<Bound<'py, PyDict>> {
        let data = self.decode_any(py, value)?;
        data.cast_into::<PyDict>().map_err(|other| {
            let found = kind(&other.into_inner());
            error::to_py(py, &DecodeError::NotAnObject { found })
        })
    }

    fn decode_any<'py>(&self, py: Python<'py>, value: &str) -> PyResult<Bound<'py, PyAny>> {
        load(py, &self.unsign(py, value)?.payload)
    }

    fn decode_bytes<'py>(&self, py: Python<'py>, value: &str) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.unsign(py, value)?.payload))
    }

    fn inspect(&self, py: Python<'_>, value: &str) -> PyResult<DecodedSession> {
        let DecodedPayload { payload, key, signed_at, compressed, .. } = self.unsign(py, value)?;
        let fallback = match key {
            KeyMatch::Primary => None,
            KeyMatch::Fallback(index) => self.fallbacks.get(index).copied(),
        };
        Ok(DecodedSession { data: load(py, &payload)?.unbind(), fallback, signed_at, compressed })
    }

    fn __repr__(&self) -> String {
        format!("<SessionCodec salt={:?} fallbacks={}>", self.codec.salt(), self.fallbacks.len())
    }
}

impl PySessionCodec {
    fn sign(&self, py: Python<'_>, payload: &[u8], now: Option<f64>) -> PyResult<String> {
        let now = seconds(py, now)?;
        Ok(if payload.len() < LARGE {
            self.codec.encode_payload(payload, now)
        } else {
            py.detach(|| self.codec.encode_payload(payload, now))
        })
    }

    fn unsign(&self, py: Python<'_>, value: &str) -> PyResult<DecodedPayload> {
        let found = if value.len() < LARGE {
            self.codec.decode_payload(value)
        } else {
            py.detach(|| self.codec.decode_payload(value))
        };
        found.map_err(|failure| error::to_py(py, &failure))
    }
}

/// What `SessionCodec.inspect` found.
#[pyclass(frozen, module = "django_session_rs")]
pub(super) struct DecodedSession {
    #[pyo3(get)]
    data: Py<PyAny>,
    #[pyo3(get)]
    fallback: Option<usize>,
    #[pyo3(get)]
    signed_at: Option<i64>,
    #[pyo3(get)]
    compressed: bool,
}

#[pymethods]
impl DecodedSession {
    fn __repr__(&self) -> String {
        let fallback = self.fallback.map_or_else(|| "None".to_owned(), |index| index.to_string());
        let compressed = if self.compressed { "True" } else { "False" };
        let signed_at = self.signed_at.map_or_else(|| "None".to_owned(), |time| time.to_string());
        format!(
            "<DecodedSession fallback={fallback} signed_at={signed_at} compressed={compressed}>"
        )
    }
}

/// Reads JSON; what Python's reader refuses becomes a `DecodeError`. The original exception is not
/// kept as its cause, since a `JSONDecodeError` carries the whole payload.
pub(super) fn load<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    convert::from_json(py, payload).map_err(|failure| {
        if failure.is_instance_of::<PyValueError>(py)
            || failure.is_instance_of::<PyRecursionError>(py)
        {
            error::unreadable_json(py)
        } else {
            failure
        }
    })
}

/// A secret key of the settings, text or bytes; nothing if it is empty.
pub(super) fn secret(key: &Bound<'_, PyAny>) -> PyResult<Option<SecretKey>> {
    let found = if let Ok(text) = key.cast::<PyString>() {
        SecretKey::new(text.to_str()?)
    } else if let Ok(bytes) = key.cast::<PyBytes>() {
        SecretKey::new(bytes.as_bytes())
    } else {
        return Err(PyTypeError::new_err("a secret key must be str or bytes"));
    };
    Ok(found.ok())
}

/// Python's `time.time()`, looked up anew so that a test's frozen clock is seen.
pub(super) fn clock(py: Python<'_>) -> PyResult<f64> {
    static TIME: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = TIME.get_or_try_init(py, || py.import("time").map(Bound::unbind))?;
    module.bind(py).call_method0(pyo3::intern!(py, "time"))?.extract()
}

/// Whole seconds of `now`, or of Python's clock.
pub(super) fn seconds(py: Python<'_>, now: Option<f64>) -> PyResult<i64> {
    let now = now.map_or_else(|| clock(py), Ok)?;
    if !now.is_finite() {
        return Err(PyValueError::new_err("now must be a number of seconds"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "as int() cuts the fraction")]
    Ok(now as i64)
}

/// What a JSON value that is not an object is, without showing it.
fn kind(value: &Bound<'_, PyAny>) -> &'static str {
    if value.is_none() {
        "null"
    } else if value.is_instance_of::<PyString>() {
        "a string"
    } else if value.is_instance_of::<pyo3::types::PyBool>() {
        "a boolean"
    } else if value.is_instance_of::<pyo3::types::PyList>() {
        "a list"
    } else {
        "a number"
    }
}
