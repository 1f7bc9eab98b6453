//! The session auth hash.

use pyo3::prelude::*;

use super::{Algorithms, Keys, fallback};
use crate::session::{self, SessionSettings};

#[pyfunction]
#[pyo3(signature = (password, *, key = None, algorithm = None))]
pub(in crate::python) fn session_auth_hash(
    py: Python<'_>,
    password: &str,
    key: Option<&Bound<'_, PyAny>>,
    algorithm: Option<&str>,
) -> PyResult<String> {
    let algorithms = Algorithms::new(py, algorithm, &[])?;
    let keys = Keys::new(py, key, None)?;
    Ok(session::session_auth_hash_with(algorithms.signing, &keys.primary, password))
}

#[pyfunction]
#[pyo3(signature = (
    stored, password, *, key = None, fallback_keys = None, algorithm = None, accept_algorithms = Vec::new()
))]
#[expect(clippy::needless_pass_by_value, reason = "the form in which PyO3 gives a sequence")]
pub(in crate::python) fn verify_session_auth_hash(
    py: Python<'_>,
    stored: Option<&str>,
    password: &str,
    key: Option<&Bound<'_, PyAny>>,
    fallback_keys: Option<&Bound<'_, PyAny>>,
    algorithm: Option<&str>,
    accept_algorithms: Vec<String>,
) -> PyResult<Option<AuthHashMatch>> {
    let Algorithms { signing, accepted } = Algorithms::new(py, algorithm, &accept_algorithms)?;
    let keys = Keys::new(py, key, fallback_keys)?;
    let mut settings = SessionSettings::default().with_secret_key(keys.primary);
    settings.secret_key_fallbacks = keys.fallbacks;
    let algorithms = std::iter::once(signing).chain(accepted);
    let stored = stored.unwrap_or_default();
    let found = session::verify_session_auth_hash_with(algorithms, stored, password, &settings);
    Ok(found.map(|found| AuthHashMatch {
        fallback: fallback(found.key, &keys.indexes),
        algorithm: found.algorithm.name(),
        needs_upgrade: found.needs_upgrade,
    }))
}

/// What `verify_session_auth_hash` found.
#[pyclass(frozen, module = "django_session_rs.signing")]
pub(in crate::python) struct AuthHashMatch {
    #[pyo3(get)]
    fallback: Option<usize>,
    #[pyo3(get)]
    algorithm: &'static str,
    #[pyo3(get)]
    needs_upgrade: bool,
}

#[pymethods]
impl AuthHashMatch {
    fn __repr__(&self) -> String {
        let fallback = self.fallback.map_or_else(|| "None".to_owned(), |index| index.to_string());
        let needs_upgrade = if self.needs_upgrade { "True" } else { "False" };
        format!(
            "<AuthHashMatch fallback={fallback} algorithm={:?} needs_upgrade={needs_upgrade}>",
            self.algorithm
        )
    }
}
