//! The tokens in password-reset links.

use jiff::{SignedDuration, civil};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::{Algorithms, Keys, setting};
use crate::codec::signing::{
    DEFAULT_TIMEOUT, PasswordResetTokenGenerator, PasswordResetUser, TokenForm,
};

#[pyclass(frozen, name = "PasswordResetTokenGenerator", module = "django_session_rs.signing")]
pub(in crate::python) struct PyPasswordResetTokenGenerator(PasswordResetTokenGenerator);

fn token_form(name: &str) -> PyResult<TokenForm> {
    match name {
        "days" => Ok(TokenForm::Days),
        "seconds" => Ok(TokenForm::Seconds),
        "seconds_and_email" => Ok(TokenForm::SecondsAndEmail),
        _ => Err(PyValueError::new_err("a form is 'seconds_and_email', 'seconds' or 'days'")),
    }
}

#[pymethods]
impl PyPasswordResetTokenGenerator {
    #[new]
    #[pyo3(signature = (
        *,
        key = None,
        fallback_keys = None,
        timeout = None,
        form = "seconds_and_email",
        accept_forms = Vec::new(),
        algorithm = None,
        accept_algorithms = Vec::new(),
    ))]
    #[expect(clippy::too_many_arguments, reason = "none has to be given")]
    #[expect(clippy::needless_pass_by_value, reason = "the form in which PyO3 gives a sequence")]
    fn new(
        py: Python<'_>,
        key: Option<&Bound<'_, PyAny>>,
        fallback_keys: Option<&Bound<'_, PyAny>>,
        timeout: Option<i64>,
        form: &str,
        accept_forms: Vec<String>,
        algorithm: Option<&str>,
        accept_algorithms: Vec<String>,
    ) -> PyResult<Self> {
        let keys = Keys::new(py, key, fallback_keys)?;
        let algorithms = Algorithms::new(py, algorithm, &accept_algorithms)?;
        let timeout = match (timeout, key) {
            (Some(timeout), _) => SignedDuration::from_secs(timeout),
            (None, Some(_)) => DEFAULT_TIMEOUT,
            (None, None) => {
                SignedDuration::from_secs(setting(py, "PASSWORD_RESET_TIMEOUT")?.extract()?)
            }
        };
        let accepted = accept_forms.iter().map(|form| token_form(form));
        let generator = PasswordResetTokenGenerator::new(&keys.primary)
            .with_fallbacks(&keys.fallbacks)
            .with_timeout(timeout)
            .with_form(token_form(form)?)
            .accept_forms(accepted.collect::<PyResult<Vec<_>>>()?)
            .with_algorithm(algorithms.signing)
            .accept_algorithms(algorithms.accepted);
        Ok(Self(generator))
    }

    #[pyo3(signature = (user, *, now = None))]
    fn make_token(
        &self,
        user: &Bound<'_, PyAny>,
        now: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<String> {
        let now = local_time(user.py(), now)?;
        Ok(self.0.make_token(&UserState::of(user)?.borrow(), now))
    }

    #[pyo3(signature = (user, token, *, now = None))]
    fn check_token(
        &self,
        user: &Bound<'_, PyAny>,
        token: Option<&str>,
        now: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(false) };
        if !user.is_truthy()? {
            return Ok(false);
        }
        let now = local_time(user.py(), now)?;
        Ok(self.0.check_token(&UserState::of(user)?.borrow(), token, now).is_ok())
    }
}

/// What of a user is in a token, read from an object such as Django's user model.
struct UserState {
    pk: String,
    password: String,
    last_login: Option<civil::DateTime>,
    email: String,
}

impl UserState {
    fn of(user: &Bound<'_, PyAny>) -> PyResult<Self> {
        let field = match user.getattr_opt("get_email_field_name")? {
            Some(name) => name.call0()?.extract::<String>()?,
            None => "email".to_owned(),
        };
        let email = match user.getattr_opt(&*field)? {
            Some(email) if email.is_truthy()? => email.str()?.to_str()?.to_owned(),
            _ => String::new(),
        };
        let last_login = user.getattr("last_login")?;
        Ok(Self {
            pk: user.getattr("pk")?.str()?.to_str()?.to_owned(),
            password: user.getattr("password")?.str()?.to_str()?.to_owned(),
            last_login: if last_login.is_none() { None } else { Some(wall_clock(&last_login)?) },
            email,
        })
    }

    fn borrow(&self) -> PasswordResetUser<'_> {
        PasswordResetUser {
            pk: &self.pk,
            password: &self.password,
            last_login: self.last_login,
            email: &self.email,
        }
    }
}

/// What a `datetime` shows, whatever its zone: Django drops that without converting.
fn wall_clock(datetime: &Bound<'_, PyAny>) -> PyResult<civil::DateTime> {
    let part = |name: &str| datetime.getattr(name)?.extract::<i8>();
    let year = datetime.getattr("year")?.extract()?;
    let time = civil::DateTime::new(
        year,
        part("month")?,
        part("day")?,
        part("hour")?,
        part("minute")?,
        part("second")?,
        0,
    );
    time.map_err(|_| PyValueError::new_err("not a time of the calendar"))
}

/// `datetime.now()`, looked up anew so that a test's frozen clock is seen.
fn local_time(py: Python<'_>, now: Option<&Bound<'_, PyAny>>) -> PyResult<civil::DateTime> {
    match now {
        Some(now) => wall_clock(now),
        None => wall_clock(&py.import("datetime")?.getattr("datetime")?.call_method0("now")?),
    }
}
