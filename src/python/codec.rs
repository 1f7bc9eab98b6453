//! `SessionCodec` for Python: Django's `SessionBase.encode` and `decode` as one small class.

use pyo3::exceptions::{PyRecursionError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::{convert, error, pickle, signing};
use crate::codec::pickle::Limits;
use crate::codec::{
    Compression, DEFAULT_MAX_SIZE, DecodeError, DecodedPayload, Diagnosis, Format, Hints,
    SESSION_SALT, SecretKey, Serializer, SessionCodec,
};

/// Texts from this length on are worked on without the interpreter's lock: below it, handing the
/// lock over costs more than the others gain.
pub(super) const LARGE: usize = 32 << 10;

#[pyclass(frozen, name = "SessionCodec", module = "django_session_rs")]
pub(super) struct PySessionCodec {
    codec: SessionCodec,
    /// For each fallback key in use, its index in `SECRET_KEY_FALLBACKS`.
    fallbacks: Vec<usize>,
    /// What is read beside `codec.serializer()`.
    accepted: Vec<Serializer>,
    pickle_protocol: u8,
    limits: Limits,
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
        serializer = "json",
        accept = Vec::new(),
        format = "signed",
        legacy_salt = None,
        pickle_protocol = 4,
        compression = "fast",
        max_size = 67_108_864,
    ))]
    #[expect(clippy::needless_pass_by_value, reason = "the form in which PyO3 gives a sequence")]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        secret_key: &Bound<'_, PyAny>,
        fallbacks: Vec<Bound<'_, PyAny>>,
        salt: &str,
        serializer: &str,
        accept: Vec<String>,
        format: &str,
        legacy_salt: Option<&str>,
        pickle_protocol: u8,
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
        let serializer = Serializer::from_name(serializer)
            .ok_or_else(|| PyValueError::new_err("serializer must be 'json' or 'pickle'"))?;
        let format = Format::from_name(format).ok_or_else(|| {
            PyValueError::new_err("format must be 'signed', 'signed_sha1', 'legacy' or 'antique'")
        })?;
        let pickle_protocol = pickle::checked_protocol(pickle_protocol)?;
        let (formats, accepted) = accepted(&accept)?;
        let mut codec = SessionCodec::with_salt(&primary, salt)
            .with_fallbacks(&keys)
            .with_format(format)
            .accept(formats)
            .with_serializer(serializer)
            .accept_serializers(accepted.iter().copied())
            .with_pickle_protocol(pickle_protocol)
            .with_compression(compression)
            .with_max_size(max_size);
        if let Some(salt) = legacy_salt {
            codec = codec.with_legacy_salt(salt);
        }
        let limits = Limits::default().with_size(max_size);
        Ok(Self { codec, fallbacks: indexes, accepted, pickle_protocol, limits })
    }

    #[getter]
    fn salt(&self) -> &str {
        self.codec.salt()
    }

    #[getter]
    fn format(&self) -> &str {
        self.codec.format().name()
    }

    #[getter]
    fn serializer(&self) -> &str {
        self.codec.serializer().name()
    }

    #[pyo3(signature = (data, *, now = None))]
    fn encode(&self, data: &Bound<'_, PyAny>, now: Option<f64>) -> PyResult<String> {
        if self.codec.serializer() == Serializer::Pickle {
            let payload = pickle::dump(data, self.pickle_protocol)?;
            return self.sign(data.py(), &payload, now);
        }
        let payload = convert::to_json(data)?;
        self.sign(data.py(), payload.as_bytes(), now)
    }

    #[pyo3(signature = (payload, *, now = None))]
    fn encode_bytes(&self, py: Python<'_>, payload: &[u8], now: Option<f64>) -> PyResult<String> {
        self.sign(py, payload, now)
    }

    #[pyo3(signature = (value, *, max_age = None, now = None))]
    fn decode<'py>(
        &self,
        py: Python<'py>,
        value: &str,
        max_age: Option<&Bound<'py, PyAny>>,
        now: Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let data = self.load(py, &self.unsign(py, value, max_age, now)?.payload)?.0;
        data.cast_into::<PyDict>().map_err(|other| {
            let found = kind(&other.into_inner());
            error::to_py(py, &DecodeError::NotAnObject { found })
        })
    }

    fn decode_any<'py>(&self, py: Python<'py>, value: &str) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.load(py, &self.unsign(py, value, None, None)?.payload)?.0)
    }

    fn decode_bytes<'py>(&self, py: Python<'py>, value: &str) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.unsign(py, value, None, None)?.payload))
    }

    #[pyo3(signature = (value, *, max_age = None, now = None))]
    fn inspect(
        &self,
        py: Python<'_>,
        value: &str,
        max_age: Option<&Bound<'_, PyAny>>,
        now: Option<f64>,
    ) -> PyResult<DecodedSession> {
        let DecodedPayload { payload, format, key, signed_at, compressed } =
            self.unsign(py, value, max_age, now)?;
        let (data, serializer) = self.load(py, &payload)?;
        Ok(DecodedSession {
            data: data.unbind(),
            format: format.name(),
            algorithm: format.algorithm(),
            serializer: serializer.name(),
            fallback: signing::fallback(key, &self.fallbacks),
            signed_at,
            compressed,
        })
    }

    #[pyo3(signature = (value, *, salts = Vec::new(), max_age = None, now = None))]
    #[expect(clippy::needless_pass_by_value, reason = "the form in which PyO3 gives a sequence")]
    fn diagnose(
        &self,
        py: Python<'_>,
        value: &Bound<'_, PyAny>,
        salts: Vec<String>,
        max_age: Option<&Bound<'_, PyAny>>,
        now: Option<f64>,
    ) -> PyResult<Option<PyDiagnosis>> {
        let bytes = match value.cast::<PyString>() {
            Ok(text) => text.to_str()?.as_bytes(),
            Err(_) => value.cast::<PyBytes>()?.as_bytes(),
        };
        let mut hints = Hints::new().with_salts(salts.iter().map(String::as_str));
        if let Some(limit) = signing::limit(py, max_age, now)? {
            hints = hints.with_max_age(limit);
        }
        Ok(self.codec.diagnose_with(bytes, &hints).map(|found| PyDiagnosis::new(&found)))
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

    fn unsign(
        &self,
        py: Python<'_>,
        value: &str,
        max_age: Option<&Bound<'_, PyAny>>,
        now: Option<f64>,
    ) -> PyResult<DecodedPayload> {
        let limit = match max_age {
            None => None,
            max_age => signing::limit(py, max_age, now)?,
        };
        let decode = || match limit {
            None => self.codec.decode_payload(value),
            limit => self.codec.signed_payload(value, limit),
        };
        let found = if value.len() < LARGE { decode() } else { py.detach(decode) };
        found.map_err(|failure| error::to_py(py, &failure))
    }

    /// The objects of a payload, and the serializer that wrote them.
    #[inline]
    fn load<'py>(
        &self,
        py: Python<'py>,
        payload: &[u8],
    ) -> PyResult<(Bound<'py, PyAny>, Serializer)> {
        let expected = self.codec.serializer();
        // Nearly all of them; and an object in JSON is never anything else.
        if expected == Serializer::Json && payload.first() == Some(&b'{') {
            return Ok((load_json(py, payload)?, Serializer::Json));
        }
        let found = Serializer::detect(payload).unwrap_or(expected);
        if found != expected && !self.accepted.contains(&found) {
            return Err(error::to_py(py, &DecodeError::WrongSerializer { expected, found }));
        }
        let data = match found {
            Serializer::Json => load_json(py, payload)?,
            Serializer::Pickle => pickle::load(py, payload, &self.limits, None)?,
        };
        Ok((data, found))
    }
}

/// The forms and the serializers of `accept`.
fn accepted(names: &[String]) -> PyResult<(Vec<Format>, Vec<Serializer>)> {
    let (mut formats, mut serializers) = (Vec::new(), Vec::new());
    for name in names {
        if let Some(format) = Format::from_name(name) {
            formats.push(format);
        } else if let Some(serializer) = Serializer::from_name(name) {
            serializers.push(serializer);
        } else {
            return Err(PyValueError::new_err(
                "accept must name 'legacy', 'antique', 'signed_sha1', 'pickle' or 'json'",
            ));
        }
    }
    Ok((formats, serializers))
}

/// Why a text is no session, as `SessionCodec.diagnose` found.
#[pyclass(frozen, name = "Diagnosis", module = "django_session_rs")]
pub(super) struct PyDiagnosis {
    #[pyo3(get)]
    reason: &'static str,
    #[pyo3(get)]
    message: String,
    #[pyo3(get)]
    format: Option<&'static str>,
    #[pyo3(get)]
    salt: Option<String>,
}

impl PyDiagnosis {
    fn new(found: &Diagnosis) -> Self {
        let (format, salt) = match found {
            Diagnosis::FormatNotAccepted { format } | Diagnosis::WrongKey { format } => {
                (Some(format.name()), None)
            }
            Diagnosis::WrongSalt { salt, format } => (Some(format.name()), Some(salt.clone())),
            _ => (None, None),
        };
        Self { reason: found.reason(), message: found.to_string(), format, salt }
    }
}

#[pymethods]
impl PyDiagnosis {
    fn __str__(&self) -> &str {
        &self.message
    }

    fn __repr__(&self) -> String {
        format!("<Diagnosis {}>", self.reason)
    }
}

/// What `SessionCodec.inspect` found.
#[pyclass(frozen, module = "django_session_rs")]
pub(super) struct DecodedSession {
    #[pyo3(get)]
    data: Py<PyAny>,
    #[pyo3(get)]
    format: &'static str,
    #[pyo3(get)]
    algorithm: &'static str,
    #[pyo3(get)]
    serializer: &'static str,
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
            "<DecodedSession format={} serializer={} fallback={fallback} signed_at={signed_at} \
             compressed={compressed}>",
            self.format, self.serializer
        )
    }
}

/// Reads JSON; what Python's reader refuses becomes a `DecodeError`. The original exception is not
/// kept as its cause, since a `JSONDecodeError` carries the whole payload.
pub(super) fn load_json<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
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
    } else if value.is_instance_of::<pyo3::types::PyInt>()
        || value.is_instance_of::<pyo3::types::PyFloat>()
    {
        "a number"
    } else {
        "an object of another class"
    }
}
