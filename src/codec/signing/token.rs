//! The tokens in password-reset links: `django.contrib.auth.tokens.PasswordResetTokenGenerator`.
//!
//! A token is the time in base 36, a hyphen, and every other hexadecimal digit of a hash over what a
//! new password or a login changes. Nothing is stored: a token ends with the state it was made from, or
//! with `PASSWORD_RESET_TIMEOUT`. Fallback keys are accepted since Django 4.1.
//!
//! Proved by `tests/fixtures/vectors/signing`.

use std::fmt;

use jiff::SignedDuration;
use jiff::civil;
use subtle::ConstantTimeEq;

use super::key::{KeyMatch, SecretKey};
use super::salted_hmac::{self, Algorithm, salted_hmac};
use crate::codec::error::DecodeError;

/// Django's default of `PASSWORD_RESET_TIMEOUT` (3.1), and of the 3 days of
/// `PASSWORD_RESET_TIMEOUT_DAYS` before.
pub const DEFAULT_TIMEOUT: SignedDuration = SignedDuration::from_hours(72);

const KEY_SALT: &str = "django.contrib.auth.tokens.PasswordResetTokenGenerator";
/// What times are counted from.
const EPOCH: civil::DateTime = civil::datetime(2001, 1, 1, 0, 0, 0, 0);
const DAY: i64 = 24 * 60 * 60;
/// A count of days has three digits until 2128, one of seconds had four by noon of the first day.
const DIGITS_OF_SECONDS: usize = 4;

/// What is counted, and what is hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenForm {
    /// Whole days, and always [`Algorithm::Sha1`]: up to Django 3.0. Django 3.1 reads them too.
    Days,
    /// Seconds: Django 3.1.
    Seconds,
    /// Seconds, and the e-mail address is hashed too: since Django 3.2.
    #[default]
    SecondsAndEmail,
}

/// What of a user is in a token.
///
/// # Example
///
/// ```
/// use django_session::signing::PasswordResetUser;
/// use jiff::civil::date;
///
/// let user = PasswordResetUser {
///     pk: "42",
///     password: "pbkdf2_sha256$600000$…",
///     last_login: Some(date(2023, 11, 14).at(22, 13, 20, 0)),
///     email: "ada@example.com",
/// };
/// assert_eq!(format!("{user:?}"), "PasswordResetUser(..)");
/// ```
#[derive(Clone, Copy)]
pub struct PasswordResetUser<'a> {
    /// The primary key as Python's `str` shows it.
    pub pk: &'a str,
    /// The password field, which is itself a hash.
    pub password: &'a str,
    /// The last login in UTC with `USE_TZ`, otherwise in local time as the column has it. Fractions
    /// of a second do not matter.
    pub last_login: Option<civil::DateTime>,
    /// The e-mail address; empty if there is none.
    pub email: &'a str,
}

impl fmt::Debug for PasswordResetUser<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordResetUser(..)")
    }
}

/// Makes and checks the tokens in password-reset links.
///
/// `now` is always local time in the site's `TIME_ZONE`, with or without `USE_TZ`: that is the clock by
/// which Django counts here.
///
/// # Example
///
/// Django 6.1 made this token for such a user, on 15 November 2023 at nine:
///
/// ```
/// use django_session::signing::{PasswordResetTokenGenerator, PasswordResetUser};
/// use django_session::{DecodeError, SecretKey};
/// use jiff::civil::date;
///
/// let generator = PasswordResetTokenGenerator::new(&SecretKey::new("secret")?);
/// let mut user = PasswordResetUser {
///     pk: "42",
///     password: "pbkdf2_sha256$1$x$y",
///     last_login: Some(date(2023, 11, 14).at(22, 13, 20, 0)),
///     email: "a@example.com",
/// };
/// let token = "bxp7o0-81fbe851a892f17e549d0489c9f12ecf";
/// assert_eq!(generator.make_token(&user, date(2023, 11, 15).at(9, 0, 0, 0)), token);
///
/// let now = date(2023, 11, 18).at(9, 0, 0, 0);
/// assert!(generator.check_token(&user, token, now).is_ok());
/// let late = generator.check_token(&user, token, now + jiff::SignedDuration::from_secs(1));
/// assert!(matches!(late, Err(DecodeError::SignatureExpired { .. })));
///
/// user.password = "pbkdf2_sha256$1$z$new";
/// assert!(generator.check_token(&user, token, now).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PasswordResetTokenGenerator {
    /// The primary key first.
    secrets: Vec<SecretKey>,
    /// The one of new tokens first.
    algorithms: Vec<Algorithm>,
    /// The one of new tokens first.
    forms: Vec<TokenForm>,
    timeout: SignedDuration,
}

impl PasswordResetTokenGenerator {
    /// Makes and accepts the tokens of Django 3.2 and later.
    pub fn new(key: &SecretKey) -> Self {
        Self {
            secrets: vec![key.clone()],
            algorithms: vec![Algorithm::default()],
            forms: vec![TokenForm::default()],
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Adds `SECRET_KEY_FALLBACKS`: accepted in this order, never used for new tokens.
    #[must_use]
    pub fn with_fallbacks<'a>(mut self, keys: impl IntoIterator<Item = &'a SecretKey>) -> Self {
        self.secrets.extend(keys.into_iter().cloned());
        self
    }

    /// Sets `PASSWORD_RESET_TIMEOUT`, [`DEFAULT_TIMEOUT`] at first. A token exactly this old is
    /// still accepted.
    #[must_use]
    pub fn with_timeout(mut self, timeout: SignedDuration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes tokens of another form, and accepts no longer those of the one before.
    #[must_use]
    pub fn with_form(mut self, form: TokenForm) -> Self {
        self.forms.remove(0);
        self.forms.retain(|other| *other != form);
        self.forms.insert(0, form);
        self
    }

    /// Accepts tokens of these forms too.
    #[must_use]
    pub fn accept_forms(mut self, forms: impl IntoIterator<Item = TokenForm>) -> Self {
        for form in forms {
            if !self.forms.contains(&form) {
                self.forms.push(form);
            }
        }
        self
    }

    /// Makes tokens with another algorithm, and accepts no longer those of the one before, as Django
    /// 3.1 and 3.2 do with `DEFAULT_HASHING_ALGORITHM`.
    #[must_use]
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithms.remove(0);
        self.algorithms.retain(|other| *other != algorithm);
        self.algorithms.insert(0, algorithm);
        self
    }

    /// Accepts tokens of these algorithms too, as Django 3.1 and 3.2 do with [`Algorithm::Sha1`].
    #[must_use]
    pub fn accept_algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        for algorithm in algorithms {
            if !self.algorithms.contains(&algorithm) {
                self.algorithms.push(algorithm);
            }
        }
        self
    }

    /// Returns a token for the user as it is now. A `now` before 2001 counts as the start of 2001;
    /// Django raises `ValueError` there.
    pub fn make_token(&self, user: &PasswordResetUser<'_>, now: civil::DateTime) -> String {
        let form = self.forms[0];
        let seconds = seconds_since_epoch(now).max(0).unsigned_abs();
        let made = match form {
            TokenForm::Days => seconds / DAY.unsigned_abs(),
            TokenForm::Seconds | TokenForm::SecondsAndEmail => seconds,
        };
        let algorithm = self.algorithms_of(form)[0];
        token(form, algorithm, &self.secrets[0], user, made.into())
    }

    /// Checks a token for the user as it is now, and tells how it was made.
    ///
    /// The tokens are compared in constant time.
    ///
    /// # Errors
    ///
    /// * [`DecodeError::BadSignature`] if it is no token, or none for the user in this state.
    /// * [`DecodeError::SignatureExpired`] if it is, but too old.
    pub fn check_token(
        &self,
        user: &PasswordResetUser<'_>,
        given: &str,
        now: civil::DateTime,
    ) -> Result<TokenMatch, DecodeError> {
        let (stamp, hash) = given.split_once('-').ok_or(DecodeError::BadSignature)?;
        if hash.contains('-') {
            return Err(DecodeError::BadSignature);
        }
        let made = parse_base36(stamp).ok_or(DecodeError::BadSignature)?;
        let in_days = stamp.len() < DIGITS_OF_SECONDS;
        // Django 3.1's rule. Without it a count of seconds, read as days, would never be too old.
        let forms = self.forms.iter().filter(|form| (**form == TokenForm::Days) == in_days);
        for &form in forms {
            for &algorithm in self.algorithms_of(form) {
                for (index, secret) in self.secrets.iter().enumerate() {
                    let ours = token(form, algorithm, secret, user, made);
                    if bool::from(ours.as_bytes().ct_eq(given.as_bytes())) {
                        self.check_age(made, in_days, now)?;
                        return Ok(TokenMatch { key: KeyMatch::at(index), algorithm, form });
                    }
                }
            }
        }
        Err(DecodeError::BadSignature)
    }

    fn algorithms_of(&self, form: TokenForm) -> &[Algorithm] {
        match form {
            TokenForm::Days => &[Algorithm::Sha1],
            TokenForm::Seconds | TokenForm::SecondsAndEmail => &self.algorithms,
        }
    }

    fn check_age(
        &self,
        made: u128,
        in_days: bool,
        now: civil::DateTime,
    ) -> Result<(), DecodeError> {
        let now = seconds_since_epoch(now);
        // More than any date there is, so only the sign matters.
        let made = i64::try_from(made).unwrap_or(i64::MAX);
        let age = if in_days {
            now.div_euclid(DAY).saturating_sub(made).saturating_mul(DAY)
        } else {
            now.saturating_sub(made)
        };
        if SignedDuration::from_secs(age) > self.timeout {
            return Err(DecodeError::SignatureExpired { age, max_age: self.timeout.as_secs() });
        }
        Ok(())
    }
}

impl fmt::Debug for PasswordResetTokenGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordResetTokenGenerator")
            .field("algorithms", &self.algorithms)
            .field("forms", &self.forms)
            .field("timeout", &self.timeout)
            .field("fallbacks", &(self.secrets.len() - 1))
            .finish_non_exhaustive()
    }
}

/// What [`PasswordResetTokenGenerator::check_token`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenMatch {
    /// The key that matched.
    pub key: KeyMatch,
    /// The algorithm of the hash.
    pub algorithm: Algorithm,
    /// What was counted and hashed.
    pub form: TokenForm,
}

fn token(
    form: TokenForm,
    algorithm: Algorithm,
    secret: &SecretKey,
    user: &PasswordResetUser<'_>,
    made: u128,
) -> String {
    let PasswordResetUser { pk, password, last_login, email } = user;
    let last_login = last_login.map(python_str).unwrap_or_default();
    let email = if form == TokenForm::SecondsAndEmail { email } else { "" };
    let value = format!("{pk}{password}{last_login}{made}{email}");
    let digest = salted_hmac(algorithm, KEY_SALT, secret.as_bytes(), value.as_bytes());

    let mut token = String::with_capacity(64);
    push_base36(&mut token, made);
    token.push('-');
    // Every other digit is the upper half of each byte.
    token.extend(digest.as_bytes().iter().map(|byte| salted_hmac::hex_digit(byte >> 4)));
    token
}

/// What `str` makes of a Python datetime without fraction and zone.
fn python_str(time: civil::DateTime) -> String {
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

fn seconds_since_epoch(now: civil::DateTime) -> i64 {
    now.duration_since(EPOCH).as_secs()
}

fn push_base36(out: &mut String, mut number: u128) {
    let start = out.len();
    loop {
        let digit = u32::try_from(number % 36).unwrap_or_default();
        out.insert(start, char::from_digit(digit, 36).unwrap_or_default());
        number /= 36;
        if number == 0 {
            return;
        }
    }
}

/// Reads what [`push_base36`] writes, up to the 13 digits that Django reads. What Python's `int` reads
/// beyond that never leads to the same token.
fn parse_base36(text: &str) -> Option<u128> {
    if text.is_empty() || text.len() > 13 {
        return None;
    }
    text.bytes().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number * 36 + u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::{parse_base36, push_base36};

    #[test]
    fn base36_is_django_s() {
        for (number, text) in
            [(0, "0"), (35, "z"), (36, "10"), (8353, "6g1"), (720_000_000, "bwo3k0")]
        {
            let mut out = "x".to_owned();
            push_base36(&mut out, number);
            assert_eq!(out[1..], *text);
            assert_eq!(parse_base36(text), Some(number));
        }
        assert_eq!(parse_base36("zzzzzzzzzzzzz"), Some(36_u128.pow(13) - 1));
        for bad in ["", "A", " 1", "+1", "1_0", "é", "zzzzzzzzzzzzzz"] {
            assert_eq!(parse_base36(bad), None, "{bad}");
        }
    }
}
