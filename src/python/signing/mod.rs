//! `django.core.signing` for Python, and what Django builds on it.
//!
//! Names, arguments and exceptions are Django's; clocks are Python's own, so that a test's frozen one is
//! seen. What Django takes from its settings is taken from them only where no key is given.

pub(super) mod auth;
pub(super) mod cookie;
pub(super) mod signer;
pub(super) mod token;

use jiff::{SignedDuration, Timestamp};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDelta, PyString};

use super::codec::{clock, secret};
use super::error;
use crate::codec::signing::{Algorithm, KeyMatch, MaxAge, SecretKey, TimestampSigner};

/// The keys to sign and to check with.
struct Keys {
    primary: SecretKey,
    fallbacks: Vec<SecretKey>,
    /// For each fallback key in use, its index in the list that was given.
    indexes: Vec<usize>,
}

impl Keys {
    /// Without a key both come from the settings; with one, only what is given counts.
    fn new(
        py: Python<'_>,
        key: Option<&Bound<'_, PyAny>>,
        fallbacks: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let primary = match key {
            Some(key) => secret(key)?,
            None => secret(&setting(py, "SECRET_KEY")?)?,
        };
        let listed = match fallbacks {
            Some(list) => Some(list.clone()),
            None if key.is_none() => Some(setting(py, "SECRET_KEY_FALLBACKS")?),
            None => None,
        };
        let primary = primary.ok_or_else(|| PyValueError::new_err("key must not be empty"))?;
        let mut keys = Self { primary, fallbacks: Vec::new(), indexes: Vec::new() };
        if let Some(list) = listed {
            if list.is_instance_of::<PyString>() || list.is_instance_of::<PyBytes>() {
                // Each character would be a key.
                return Err(PyTypeError::new_err("fallback_keys must be a list of keys"));
            }
            for (index, key) in list.try_iter()?.enumerate() {
                // Django reads an empty one as "the primary key again".
                if let Some(key) = secret(&key?)? {
                    keys.fallbacks.push(key);
                    keys.indexes.push(index);
                }
            }
        }
        Ok(keys)
    }

    fn signer(&self, salt: &str, algorithms: &Algorithms) -> TimestampSigner {
        TimestampSigner::new(&self.primary, salt)
            .with_fallbacks(&self.fallbacks)
            .with_algorithm(algorithms.signing)
            .accept_algorithms(algorithms.accepted.iter().copied())
    }
}

fn setting<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static SETTINGS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    SETTINGS.import(py, "django.conf", "settings")?.getattr(name)
}

/// The algorithms as Python names them.
struct Algorithms {
    signing: Algorithm,
    accepted: Vec<Algorithm>,
}

impl Algorithms {
    fn new(py: Python<'_>, signing: Option<&str>, accepted: &[String]) -> PyResult<Self> {
        let signing = signing.map_or(Ok(Algorithm::default()), |name| algorithm(py, name))?;
        let accepted = accepted.iter().map(|name| algorithm(py, name)).collect::<PyResult<_>>()?;
        Ok(Self { signing, accepted })
    }
}

fn algorithm(py: Python<'_>, name: &str) -> PyResult<Algorithm> {
    Algorithm::from_name(name).ok_or_else(|| error::invalid_algorithm(py))
}

/// The limit that `max_age` sets, a number of seconds or a `timedelta`.
pub(super) fn limit(
    py: Python<'_>,
    max_age: Option<&Bound<'_, PyAny>>,
    now: Option<f64>,
) -> PyResult<Option<MaxAge>> {
    let Some(max_age) = max_age else { return Ok(None) };
    let max_age: f64 = if max_age.is_instance_of::<PyDelta>() {
        max_age.call_method0(pyo3::intern!(py, "total_seconds"))?.extract()?
    } else {
        max_age.extract()?
    };
    if max_age.is_nan() {
        return Err(PyValueError::new_err("max_age must be a number of seconds"));
    }
    let unbounded = if max_age > 0.0 { SignedDuration::MAX } else { SignedDuration::MIN };
    let max_age = SignedDuration::try_from_secs_f64(max_age).unwrap_or(unbounded);
    let now = now.map_or_else(|| clock(py), Ok)?;
    let now = SignedDuration::try_from_secs_f64(now).ok();
    let now = now.and_then(|now| Timestamp::from_duration(now).ok());
    let now = now.ok_or_else(|| PyValueError::new_err("now must be a number of seconds"))?;
    Ok(Some(MaxAge { max_age, now }))
}

/// The index in the fallback keys as they were given, where empty ones are passed over.
pub(super) fn fallback(key: KeyMatch, indexes: &[usize]) -> Option<usize> {
    match key {
        KeyMatch::Primary => None,
        KeyMatch::Fallback(index) => indexes.get(index).copied(),
    }
}

/// Text as Django makes it of any value it is to sign.
fn text<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(text.clone()),
        Err(_) => value.str(),
    }
}

/// What the `inspect` of a signer found.
#[pyclass(frozen, module = "django_session_rs.signing")]
pub(super) struct UnsignedValue {
    #[pyo3(get)]
    value: String,
    #[pyo3(get)]
    fallback: Option<usize>,
    #[pyo3(get)]
    algorithm: &'static str,
    #[pyo3(get)]
    signed_at: Option<i64>,
    #[pyo3(get)]
    salt_rule: Option<&'static str>,
}

#[pymethods]
impl UnsignedValue {
    /// Shows all but the value.
    fn __repr__(&self) -> String {
        let number = |number: Option<String>| number.unwrap_or_else(|| "None".to_owned());
        format!(
            "<UnsignedValue fallback={} algorithm={:?} signed_at={}>",
            number(self.fallback.map(|index| index.to_string())),
            self.algorithm,
            number(self.signed_at.map(|at| at.to_string())),
        )
    }
}
