//! When a session expires: `set_expiry`, `get_expiry_age`, `get_expiry_date` and
//! `get_expire_at_browser_close` as pure functions of the stored value and the time.
//!
//! What counts is the entry `_session_expiry`. Numbers count from the last save, ISO 8601 text is a
//! date (Django 4.1), nothing or zero means the cookie age. Proved by the `expiry_table` cases of
//! `tests/fixtures/vectors/session_ops`.

use jiff::SignedDuration;
use serde::Deserialize;
use thiserror::Error;

use super::datetime::DateTime;
use crate::codec::SessionData;

/// The name of the entry.
pub const EXPIRY_KEY: &str = "_session_expiry";

/// How long a session lives, for [`Session::set_expiry`](crate::Session::set_expiry).
///
/// # Example
///
/// ```
/// use django_session::Expiry;
/// use jiff::SignedDuration;
///
/// let forget_me_soon = Expiry::Age(300);
/// let three_days_from_now = Expiry::In(SignedDuration::from_hours(72));
/// # let _ = (forget_me_soon, three_days_from_now);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expiry {
    /// `SESSION_COOKIE_AGE` after the last save, or as `SESSION_EXPIRE_AT_BROWSER_CLOSE` says
    /// (`set_expiry(None)`).
    Default,
    /// The cookie ends with the browser; on the server the session still lives `SESSION_COOKIE_AGE`
    /// (`set_expiry(0)`).
    BrowserClose,
    /// So many seconds after the last save (`set_expiry(300)`). Zero is [`Expiry::BrowserClose`].
    Age(i64),
    /// So long from now, saved again or not (`set_expiry(timedelta(…))`). Needs Django 4.1.
    In(SignedDuration),
    /// On that date (`set_expiry(datetime(…))`). Needs Django 4.1.
    Date(DateTime),
}

impl Expiry {
    /// How long a session with this expiry lives from `modification` on; `cookie_age` in seconds is
    /// for those that have none (`get_expiry_age(modification=…, expiry=…)`).
    ///
    /// # Errors
    ///
    /// [`ExpiryError::MixedTimeZones`].
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::{DateTime, Expiry};
    /// use jiff::SignedDuration;
    ///
    /// let saved = DateTime::Aware("2023-11-14T22:13:20Z".parse()?);
    /// let expiry = Expiry::Date(DateTime::Aware("2023-11-14T22:13:27.999999Z".parse()?));
    /// assert_eq!(expiry.age(saved, 1_209_600)?, SignedDuration::from_secs(7));
    /// assert_eq!(Expiry::Default.age(saved, 1_209_600)?, SignedDuration::from_secs(1_209_600));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn age(
        self,
        modification: DateTime,
        cookie_age: i64,
    ) -> Result<SignedDuration, ExpiryError> {
        match self {
            Self::Default | Self::BrowserClose | Self::Age(0) => {
                Ok(SignedDuration::from_secs(cookie_age))
            }
            Self::Age(seconds) => Ok(SignedDuration::from_secs(seconds)),
            Self::In(duration) => Ok(duration),
            Self::Date(date) => {
                let left = date.since(modification).ok_or(ExpiryError::MixedTimeZones)?;
                Ok(SignedDuration::from_secs(floor(left)))
            }
        }
    }

    /// When a session with this expiry ends if it was saved at `modification`.
    ///
    /// # Errors
    ///
    /// [`ExpiryError::OutOfRange`].
    pub fn date(self, modification: DateTime, cookie_age: i64) -> Result<DateTime, ExpiryError> {
        match self {
            Self::Date(date) => Ok(date),
            other => {
                let age = other.age(modification, cookie_age)?;
                modification.checked_add(age).ok_or(ExpiryError::OutOfRange)
            }
        }
    }
}

/// A stored expiry that gives no date.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExpiryError {
    /// A naive date where the other is aware, or the other way round: `USE_TZ` was changed.
    #[error("cannot compare a naive date with an aware one; USE_TZ differs from the writer's")]
    MixedTimeZones,
    /// Neither a number nor a text.
    #[error("the stored expiry is neither a number nor a date")]
    NotAnExpiry,
    /// Beyond the year 9999.
    #[error("the expiry is out of range")]
    OutOfRange,
    /// A text that is not an ISO 8601 date.
    #[error("the stored expiry is not an ISO 8601 date")]
    Unparsable,
}

/// A stored expiry, in the kinds that Django tells apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stored {
    /// No entry, or `None`.
    Absent,
    /// Zero, `False` or an empty list or dict: as good as absent, except at the browser's close.
    Falsy {
        is_zero: bool,
    },
    /// Empty text: absent for the age, but no date.
    EmptyText,
    Text(String),
    Seconds(f64),
    Other,
}

impl Stored {
    /// What `data` says.
    pub(crate) fn of(data: &SessionData) -> Self {
        match data.get_raw(EXPIRY_KEY) {
            Ok(None) => Self::Absent,
            Ok(Some(json)) => Self::of_json(&json),
            // An object of some class.
            Err(_) => Self::Other,
        }
    }

    pub(crate) fn of_json(json: &str) -> Self {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Scalar {
            Bool(bool),
            Text(String),
            Number(f64),
            Null(()),
        }
        let raw = match json.as_bytes().first() {
            Some(b'[' | b'{') if json.len() == 2 => return Self::Falsy { is_zero: false },
            Some(b'[' | b'{') | None => return Self::Other,
            // An integer of any size is near enough to a double here.
            Some(b'0'..=b'9' | b'-' | b'N' | b'I') => {
                crate::codec::value_from_json(json).map(Scalar::Number)
            }
            Some(_) => crate::codec::value_from_json(json),
        };
        match raw {
            Ok(Scalar::Null(())) => Self::Absent,
            Ok(Scalar::Bool(true)) => Self::Seconds(1.0),
            Ok(Scalar::Bool(false) | Scalar::Number(0.0)) => Self::Falsy { is_zero: true },
            Ok(Scalar::Number(seconds)) => Self::Seconds(seconds),
            Ok(Scalar::Text(text)) if text.is_empty() => Self::EmptyText,
            Ok(Scalar::Text(text)) => Self::Text(text),
            Err(_) => Self::Other,
        }
    }

    /// `get_expiry_age()`: how long from `modification` on.
    pub(crate) fn age(
        &self,
        modification: DateTime,
        cookie_age: i64,
    ) -> Result<SignedDuration, ExpiryError> {
        match self {
            Self::Absent | Self::Falsy { .. } | Self::EmptyText => {
                Ok(SignedDuration::from_secs(cookie_age))
            }
            Self::Seconds(seconds) => duration(*seconds),
            Self::Text(text) => {
                let date = DateTime::fromisoformat(text).ok_or(ExpiryError::Unparsable)?;
                Expiry::Date(date).age(modification, cookie_age)
            }
            Self::Other => Err(ExpiryError::NotAnExpiry),
        }
    }

    /// `get_expiry_date()`: the value of the column `expire_date` if saved at `modification`.
    pub(crate) fn date(
        &self,
        modification: DateTime,
        cookie_age: i64,
    ) -> Result<DateTime, ExpiryError> {
        let age = match self {
            Self::Absent | Self::Falsy { .. } => SignedDuration::from_secs(cookie_age),
            Self::Seconds(seconds) => duration(*seconds)?,
            Self::EmptyText => return Err(ExpiryError::Unparsable),
            Self::Text(text) => {
                return DateTime::fromisoformat(text).ok_or(ExpiryError::Unparsable);
            }
            Self::Other => return Err(ExpiryError::NotAnExpiry),
        };
        modification.checked_add(age).ok_or(ExpiryError::OutOfRange)
    }

    /// `get_expire_at_browser_close()`.
    pub(crate) fn at_browser_close(&self, setting: bool) -> bool {
        match self {
            Self::Absent => setting,
            other => matches!(other, Self::Falsy { is_zero: true }),
        }
    }
}

/// Python's `timedelta(seconds=…)`: whole microseconds, halves to even.
fn duration(seconds: f64) -> Result<SignedDuration, ExpiryError> {
    // Whole seconds are exact whatever their size; only a fraction is rounded.
    let whole = seconds.trunc();
    let micros = ((seconds - whole) * 1e6).round_ties_even();
    // The range of a `timedelta`: a billion days. Not-a-number is in none.
    if whole.is_nan() || whole.abs() >= 86_400e9 {
        return Err(ExpiryError::OutOfRange);
    }
    #[expect(clippy::cast_possible_truncation, reason = "just checked, and below a million")]
    let (whole, micros) = (whole as i64, micros as i64);
    Ok(SignedDuration::from_secs(whole) + SignedDuration::from_micros(micros))
}

fn floor(duration: SignedDuration) -> i64 {
    duration.as_secs() - i64::from(duration.subsec_nanos() < 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_as_python_does() {
        for (json, stored) in [
            ("null", Stored::Absent),
            ("0", Stored::Falsy { is_zero: true }),
            ("-0.0", Stored::Falsy { is_zero: true }),
            ("false", Stored::Falsy { is_zero: true }),
            ("[]", Stored::Falsy { is_zero: false }),
            ("\"\"", Stored::EmptyText),
            ("true", Stored::Seconds(1.0)),
            ("1.5", Stored::Seconds(1.5)),
            ("-10", Stored::Seconds(-10.0)),
            ("\"soon\"", Stored::Text("soon".to_owned())),
            ("[1]", Stored::Other),
            ("\"\\ud800\"", Stored::Other),
        ] {
            assert_eq!(Stored::of_json(json), stored, "{json}");
        }
    }

    #[test]
    fn no_number_overflows() {
        for json in ["1e300", "-1e300", "NaN", "Infinity", "99999999999999999999", "1e14"] {
            let now = DateTime::Aware(jiff::Timestamp::UNIX_EPOCH);
            assert_eq!(Stored::of_json(json).date(now, 0), Err(ExpiryError::OutOfRange), "{json}");
        }
        assert_eq!(duration(-1.5), Ok(SignedDuration::from_millis(-1500)));
    }
}
