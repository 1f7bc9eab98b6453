//! `Signer`, `TimestampSigner`, `dumps` and `loads`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use super::{Algorithms, Keys, UnsignedValue, fallback, limit, text};
use crate::codec::signing::{self, MaxAge, TimestampSigner, Verified};
use crate::codec::{Compression, DEFAULT_MAX_SIZE};
use crate::python::codec::{LARGE, load_json, seconds};
use crate::python::{convert, error};

fn compression(compress: bool) -> Option<Compression> {
    // Such texts go into URLs and cookies, where length counts.
    compress.then_some(Compression::Small)
}

/// The serialized bytes of an object; without a serializer it is Django's JSON.
fn payload(object: &Bound<'_, PyAny>, serializer: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<u8>> {
    match serializer {
        None => Ok(convert::to_json(object)?.into_bytes()),
        Some(serializer) => {
            let bytes = serializer.call0()?.call_method1("dumps", (object,))?;
            Ok(bytes.cast::<PyBytes>()?.as_bytes().to_vec())
        }
    }
}

fn object<'py>(
    py: Python<'py>,
    payload: &[u8],
    serializer: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    match serializer {
        None => load_json(py, payload),
        Some(serializer) => serializer.call0()?.call_method1("loads", (PyBytes::new(py, payload),)),
    }
}

/// Works without the interpreter's lock where the text is long enough for that to pay.
fn detached<T: Send>(py: Python<'_>, length: usize, work: impl FnOnce() -> T + Send) -> T {
    if length < LARGE { work() } else { py.detach(work) }
}

#[pyclass(frozen, subclass, name = "Signer", module = "django_session_rs.signing")]
pub(in crate::python) struct PySigner {
    /// Without the stamp it signs as `Signer` does.
    signer: TimestampSigner,
    sep: String,
    fallbacks: Vec<usize>,
}

impl PySigner {
    #[expect(clippy::too_many_arguments, reason = "those of Django")]
    fn create(
        class: &Bound<'_, PyType>,
        base: Option<&str>,
        key: Option<&Bound<'_, PyAny>>,
        sep: &str,
        salt: Option<&str>,
        algorithm: Option<&str>,
        fallback_keys: Option<&Bound<'_, PyAny>>,
        accept_algorithms: &[String],
        max_size: usize,
    ) -> PyResult<Self> {
        let py = class.py();
        let keys = Keys::new(py, key, fallback_keys)?;
        let algorithms = Algorithms::new(py, algorithm, accept_algorithms)?;
        let salt = match salt.filter(|salt| !salt.is_empty()).or(base) {
            Some(salt) => salt.to_owned(),
            // As in Django, a subclass has a salt of its own.
            None => format!("{}.{}", class.module()?, class.name()?),
        };
        let signer = keys.signer(&salt, &algorithms).with_max_size(max_size).with_separator(sep);
        let signer = signer.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self { signer, sep: sep.to_owned(), fallbacks: keys.indexes })
    }

    fn found(&self, verified: &Verified<'_>, signed_at: Option<i64>) -> UnsignedValue {
        UnsignedValue {
            value: verified.value.to_owned(),
            fallback: fallback(verified.key, &self.fallbacks),
            algorithm: verified.algorithm.name(),
            signed_at,
            salt_rule: None,
        }
    }

    fn unsign_stamped<'a>(
        &self,
        py: Python<'_>,
        value: &'a str,
        max_age: Option<&Bound<'_, PyAny>>,
        now: Option<f64>,
    ) -> PyResult<signing::Unsigned<'a>> {
        let limit = limit(py, max_age, now)?;
        self.signer.unsign(value, limit).map_err(|failure| error::to_py(py, &failure))
    }
}

const _: () = assert!(DEFAULT_MAX_SIZE == 67_108_864);

#[pymethods]
impl PySigner {
    // A literal for the size, since Python shows it; the assertion above ties it to the constant.
    #[new]
    #[classmethod]
    #[pyo3(signature = (
        *,
        key = None,
        sep = ":",
        salt = None,
        algorithm = None,
        fallback_keys = None,
        accept_algorithms = Vec::new(),
        max_size = 67_108_864,
    ))]
    #[expect(clippy::too_many_arguments, reason = "those of Django")]
    #[expect(clippy::needless_pass_by_value, reason = "the form in which PyO3 gives a sequence")]
    fn new(
        cls: &Bound<'_, PyType>,
        key: Option<&Bound<'_, PyAny>>,
        sep: &str,
        salt: Option<&str>,
        algorithm: Option<&str>,
        fallback_keys: Option<&Bound<'_, PyAny>>,
        accept_algorithms: Vec<String>,
        max_size: usize,
    ) -> PyResult<Self> {
        let base = cls.is(cls.py().get_type::<Self>()).then_some(signing::Signer::DEFAULT_SALT);
        Self::create(
            cls,
            base,
            key,
            sep,
            salt,
            algorithm,
            fallback_keys,
            &accept_algorithms,
            max_size,
        )
    }

    #[getter]
    fn salt(&self) -> &str {
        self.signer.salt()
    }

    #[getter]
    fn sep(&self) -> &str {
        &self.sep
    }

    #[getter]
    fn algorithm(&self) -> &'static str {
        self.signer.algorithm().name()
    }

    fn signature(&self, value: &Bound<'_, PyAny>) -> PyResult<String> {
        Ok(self.signer.signer().signature(text(value)?.to_str()?))
    }

    fn sign(&self, value: &Bound<'_, PyAny>) -> PyResult<String> {
        Ok(self.signer.signer().sign(text(value)?.to_str()?))
    }

    fn unsign<'a>(&self, py: Python<'_>, signed_value: &'a str) -> PyResult<&'a str> {
        let found = self.signer.signer().unsign(signed_value);
        found.map(|found| found.value).map_err(|failure| error::to_py(py, &failure))
    }

    fn inspect(&self, py: Python<'_>, signed_value: &str) -> PyResult<UnsignedValue> {
        let found = self.signer.signer().unsign(signed_value);
        let found = found.map_err(|failure| error::to_py(py, &failure))?;
        Ok(self.found(&found, None))
    }

    #[pyo3(signature = (obj, serializer = None, compress = false))]
    fn sign_object(
        &self,
        obj: &Bound<'_, PyAny>,
        serializer: Option<&Bound<'_, PyAny>>,
        compress: bool,
    ) -> PyResult<String> {
        let payload = payload(obj, serializer)?;
        let signer = self.signer.signer();
        Ok(detached(obj.py(), payload.len(), || {
            signer.sign_payload(&payload, compression(compress))
        }))
    }

    #[pyo3(signature = (signed_obj, serializer = None))]
    fn unsign_object<'py>(
        &self,
        py: Python<'py>,
        signed_obj: &str,
        serializer: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let signer = self.signer.signer();
        let found = detached(py, signed_obj.len(), || signer.unsign_payload(signed_obj));
        let payload = found.map_err(|failure| error::to_py(py, &failure))?;
        object(py, &payload, serializer)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (name, this) = (slf.get_type().name()?, slf.get());
        let algorithm = this.signer.algorithm().name();
        Ok(format!("<{name} salt={:?} algorithm={algorithm:?}>", this.signer.salt()))
    }
}

#[pyclass(
    frozen, subclass, extends = PySigner, name = "TimestampSigner", module = "django_session_rs.signing"
)]
pub(in crate::python) struct PyTimestampSigner;

#[pymethods]
impl PyTimestampSigner {
    #[new]
    #[classmethod]
    #[pyo3(signature = (
        *,
        key = None,
        sep = ":",
        salt = None,
        algorithm = None,
        fallback_keys = None,
        accept_algorithms = Vec::new(),
        max_size = 67_108_864,
    ))]
    #[expect(clippy::too_many_arguments, reason = "those of Django")]
    #[expect(clippy::needless_pass_by_value, reason = "the form in which PyO3 gives a sequence")]
    fn new(
        cls: &Bound<'_, PyType>,
        key: Option<&Bound<'_, PyAny>>,
        sep: &str,
        salt: Option<&str>,
        algorithm: Option<&str>,
        fallback_keys: Option<&Bound<'_, PyAny>>,
        accept_algorithms: Vec<String>,
        max_size: usize,
    ) -> PyResult<PyClassInitializer<Self>> {
        let base = cls.is(cls.py().get_type::<Self>()).then_some(TimestampSigner::DEFAULT_SALT);
        let signer = PySigner::create(
            cls,
            base,
            key,
            sep,
            salt,
            algorithm,
            fallback_keys,
            &accept_algorithms,
            max_size,
        )?;
        Ok(PyClassInitializer::from(signer).add_subclass(Self))
    }

    #[pyo3(signature = (value, *, now = None))]
    fn sign(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>, now: Option<f64>) -> PyResult<String> {
        let now = seconds(slf.py(), now)?;
        Ok(slf.as_super().get().signer.sign(text(value)?.to_str()?, now))
    }

    #[pyo3(signature = (value, max_age = None, *, now = None))]
    fn unsign<'a>(
        slf: &Bound<'_, Self>,
        value: &'a str,
        max_age: Option<&Bound<'_, PyAny>>,
        now: Option<f64>,
    ) -> PyResult<&'a str> {
        let found = slf.as_super().get().unsign_stamped(slf.py(), value, max_age, now)?;
        Ok(found.value)
    }

    #[pyo3(signature = (signed_value, max_age = None, *, now = None))]
    fn inspect(
        slf: &Bound<'_, Self>,
        signed_value: &str,
        max_age: Option<&Bound<'_, PyAny>>,
        now: Option<f64>,
    ) -> PyResult<UnsignedValue> {
        let this = slf.as_super().get();
        let found = this.unsign_stamped(slf.py(), signed_value, max_age, now)?;
        Ok(UnsignedValue {
            value: found.value.to_owned(),
            fallback: fallback(found.key, &this.fallbacks),
            algorithm: found.algorithm.name(),
            signed_at: Some(found.signed_at),
            salt_rule: None,
        })
    }

    #[pyo3(signature = (obj, serializer = None, compress = false, *, now = None))]
    fn sign_object(
        slf: &Bound<'_, Self>,
        obj: &Bound<'_, PyAny>,
        serializer: Option<&Bound<'_, PyAny>>,
        compress: bool,
        now: Option<f64>,
    ) -> PyResult<String> {
        sign_object(slf.py(), &slf.as_super().get().signer, obj, serializer, compress, now)
    }

    #[pyo3(signature = (signed_obj, serializer = None, max_age = None, *, now = None))]
    fn unsign_object<'py>(
        slf: &Bound<'py, Self>,
        signed_obj: &str,
        serializer: Option<&Bound<'py, PyAny>>,
        max_age: Option<&Bound<'py, PyAny>>,
        now: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let limit = limit(slf.py(), max_age, now)?;
        unsign_object(slf.py(), &slf.as_super().get().signer, signed_obj, serializer, limit)
    }
}

/// A `TimestampSigner` around a signer; `fallbacks` are the indexes of its fallback keys.
pub(super) fn wrap(
    py: Python<'_>,
    signer: TimestampSigner,
    fallbacks: Vec<usize>,
) -> PyResult<Bound<'_, PyTimestampSigner>> {
    let base = PySigner { signer, sep: ":".to_owned(), fallbacks };
    Bound::new(py, PyClassInitializer::from(base).add_subclass(PyTimestampSigner))
}

fn sign_object(
    py: Python<'_>,
    signer: &TimestampSigner,
    obj: &Bound<'_, PyAny>,
    serializer: Option<&Bound<'_, PyAny>>,
    compress: bool,
    now: Option<f64>,
) -> PyResult<String> {
    let payload = payload(obj, serializer)?;
    let now = seconds(py, now)?;
    Ok(detached(py, payload.len(), || signer.sign_payload(&payload, compression(compress), now)))
}

fn unsign_object<'py>(
    py: Python<'py>,
    signer: &TimestampSigner,
    text: &str,
    serializer: Option<&Bound<'py, PyAny>>,
    limit: Option<MaxAge>,
) -> PyResult<Bound<'py, PyAny>> {
    let found = detached(py, text.len(), || signer.unsign_payload(text, limit));
    object(py, &found.map_err(|failure| error::to_py(py, &failure))?, serializer)
}

#[pyfunction]
#[pyo3(signature = (
    obj, key = None, salt = "django.core.signing", serializer = None, compress = false, *, now = None
))]
pub(in crate::python) fn dumps(
    obj: &Bound<'_, PyAny>,
    key: Option<&Bound<'_, PyAny>>,
    salt: &str,
    serializer: Option<&Bound<'_, PyAny>>,
    compress: bool,
    now: Option<f64>,
) -> PyResult<String> {
    let py = obj.py();
    let algorithms = Algorithms::new(py, None, &[])?;
    let signer = Keys::new(py, key, None)?.signer(salt_or_default(salt), &algorithms);
    sign_object(py, &signer, obj, serializer, compress, now)
}

#[pyfunction]
#[pyo3(signature = (
    s,
    key = None,
    salt = "django.core.signing",
    serializer = None,
    max_age = None,
    fallback_keys = None,
    *,
    accept_algorithms = Vec::new(),
    now = None,
))]
#[expect(clippy::too_many_arguments, reason = "those of Django")]
#[expect(clippy::needless_pass_by_value, reason = "the form in which PyO3 gives a sequence")]
pub(in crate::python) fn loads<'py>(
    py: Python<'py>,
    s: &str,
    key: Option<&Bound<'py, PyAny>>,
    salt: &str,
    serializer: Option<&Bound<'py, PyAny>>,
    max_age: Option<&Bound<'py, PyAny>>,
    fallback_keys: Option<&Bound<'py, PyAny>>,
    accept_algorithms: Vec<String>,
    now: Option<f64>,
) -> PyResult<Bound<'py, PyAny>> {
    let limit = limit(py, max_age, now)?;
    let algorithms = Algorithms::new(py, None, &accept_algorithms)?;
    let signer = Keys::new(py, key, fallback_keys)?.signer(salt_or_default(salt), &algorithms);
    unsign_object(py, &signer, s, serializer, limit)
}

/// An empty salt is none for Django: the signer then uses that of its class.
pub(super) fn salt_or_default(salt: &str) -> &str {
    if salt.is_empty() { TimestampSigner::DEFAULT_SALT } else { salt }
}
