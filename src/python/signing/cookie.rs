//! The values of signed cookies.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::signer::{PyTimestampSigner, salt_or_default, wrap};
use super::{Algorithms, Keys, UnsignedValue, fallback, limit, text};
use crate::codec::signing::{CookieSalt, CookieSigner, cookie_signer};
use crate::python::codec::seconds;
use crate::python::error;

#[pyclass(frozen, name = "CookieSigner", module = "django_session_rs.signing")]
pub(in crate::python) struct PyCookieSigner {
    signer: CookieSigner,
    fallbacks: Vec<usize>,
}

fn salt_rule(name: &str) -> PyResult<CookieSalt> {
    match name {
        "legacy" => Ok(CookieSalt::Legacy),
        "v2" => Ok(CookieSalt::V2),
        _ => Err(PyValueError::new_err("a salt rule is 'v2' or 'legacy'")),
    }
}

#[pymethods]
impl PyCookieSigner {
    #[new]
    #[pyo3(signature = (
        name,
        salt = "",
        *,
        key = None,
        fallback_keys = None,
        salt_rule = "v2",
        accept_salt_rules = Vec::new(),
        algorithm = None,
        accept_algorithms = Vec::new(),
    ))]
    #[expect(clippy::too_many_arguments, reason = "all but two are rarely given")]
    #[expect(clippy::needless_pass_by_value, reason = "the form in which PyO3 gives a sequence")]
    fn new(
        py: Python<'_>,
        name: &str,
        salt: &str,
        key: Option<&Bound<'_, PyAny>>,
        fallback_keys: Option<&Bound<'_, PyAny>>,
        salt_rule: &str,
        accept_salt_rules: Vec<String>,
        algorithm: Option<&str>,
        accept_algorithms: Vec<String>,
    ) -> PyResult<Self> {
        let keys = Keys::new(py, key, fallback_keys)?;
        let algorithms = Algorithms::new(py, algorithm, &accept_algorithms)?;
        let accepted = accept_salt_rules.iter().map(|rule| self::salt_rule(rule));
        let signer = CookieSigner::new(&keys.primary, name, salt)
            .with_fallbacks(&keys.fallbacks)
            .with_salt(self::salt_rule(salt_rule)?)
            .accept_salts(accepted.collect::<PyResult<Vec<_>>>()?)
            .with_algorithm(algorithms.signing)
            .accept_algorithms(algorithms.accepted);
        Ok(Self { signer, fallbacks: keys.indexes })
    }

    #[pyo3(signature = (value, *, now = None))]
    fn sign(&self, value: &Bound<'_, PyAny>, now: Option<f64>) -> PyResult<String> {
        Ok(self.signer.sign(text(value)?.to_str()?, seconds(value.py(), now)?))
    }

    #[pyo3(signature = (value, max_age = None, *, now = None))]
    fn unsign<'a>(
        &self,
        py: Python<'_>,
        value: &'a str,
        max_age: Option<&Bound<'_, PyAny>>,
        now: Option<f64>,
    ) -> PyResult<&'a str> {
        let found = self.signer.unsign(value, limit(py, max_age, now)?);
        found.map(|found| found.value).map_err(|failure| error::to_py(py, &failure))
    }

    #[pyo3(signature = (value, max_age = None, *, now = None))]
    fn inspect(
        &self,
        py: Python<'_>,
        value: &str,
        max_age: Option<&Bound<'_, PyAny>>,
        now: Option<f64>,
    ) -> PyResult<UnsignedValue> {
        let found = self.signer.unsign(value, limit(py, max_age, now)?);
        let found = found.map_err(|failure| error::to_py(py, &failure))?;
        Ok(UnsignedValue {
            value: found.value.to_owned(),
            fallback: fallback(found.key, &self.fallbacks),
            algorithm: found.algorithm.name(),
            signed_at: Some(found.signed_at),
            salt_rule: Some(match found.salt {
                CookieSalt::Legacy => "legacy",
                CookieSalt::V2 => "v2",
            }),
        })
    }

    fn __repr__(&self) -> String {
        format!("<CookieSigner fallbacks={}>", self.fallbacks.len())
    }
}

#[pyfunction]
#[pyo3(signature = (
    salt = "django.core.signing.get_cookie_signer", *, key = None, fallback_keys = None
))]
pub(in crate::python) fn get_cookie_signer<'py>(
    py: Python<'py>,
    salt: &str,
    key: Option<&Bound<'py, PyAny>>,
    fallback_keys: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTimestampSigner>> {
    let keys = Keys::new(py, key, fallback_keys)?;
    let signer = cookie_signer(&keys.primary, &keys.fallbacks, salt_or_default(salt));
    wrap(py, signer, keys.indexes)
}
