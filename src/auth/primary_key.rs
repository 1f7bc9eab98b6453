//! The primary key of a user: text in the session, a column of some type in the table.

use std::fmt;

use serde_json::Value;
use thiserror::Error;

/// What the primary key of the user model is.
///
/// # Example
///
/// ```
/// use django_session::auth::PrimaryKeyType;
///
/// let key = PrimaryKeyType::INTEGER.parse(" 42")?.unwrap();
/// assert_eq!(key.as_str(), "42");
/// // No row can have it.
/// assert_eq!(PrimaryKeyType::INTEGER.parse("4294967296")?, None);
/// assert!(PrimaryKeyType::INTEGER.parse("bob").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrimaryKeyType {
    /// `AutoField`, `BigAutoField` and their like, with what the column can hold.
    Integer {
        /// The least number.
        min: i64,
        /// The greatest number.
        max: i64,
    },
    /// `CharField` and its like.
    Text,
    /// `UUIDField`.
    Uuid,
}

impl PrimaryKeyType {
    /// `AutoField`, as the one of `django.contrib.auth.models.User`.
    pub const INTEGER: Self = Self::Integer { min: i32::MIN as i64, max: i32::MAX as i64 };
    /// `BigAutoField`.
    pub const BIG_INTEGER: Self = Self::Integer { min: i64::MIN, max: i64::MAX };

    /// Reads the text of a primary key as the field's `to_python` does; `None` if no row can have it.
    ///
    /// # Errors
    ///
    /// [`InvalidPrimaryKey`] where Django raises a `ValidationError`. For numbers in other digits than
    /// ASCII's too, which Python reads.
    pub fn parse(self, text: &str) -> Result<Option<PrimaryKey>, InvalidPrimaryKey> {
        match self {
            Self::Integer { min, max } => {
                let digits = decimal(text).ok_or(InvalidPrimaryKey)?;
                // Longer than any number that has a column.
                let Ok(number) = digits.parse::<i64>() else { return Ok(None) };
                Ok((min..=max).contains(&number).then(|| PrimaryKey(number.to_string().into())))
            }
            Self::Text => Ok(Some(PrimaryKey(text.into()))),
            Self::Uuid => uuid(text).map(Some).ok_or(InvalidPrimaryKey),
        }
    }

    /// Reads what a session holds: text since Django 1.8, before that a number too.
    pub(crate) fn parse_value(
        self,
        value: &Value,
    ) -> Result<Option<PrimaryKey>, InvalidPrimaryKey> {
        match (self, value) {
            (_, Value::String(text)) => self.parse(text),
            // `pk=None` finds nothing, and nobody has the text of a list for a name.
            (_, Value::Null) | (Self::Text, Value::Array(_) | Value::Object(_)) => Ok(None),
            // To Python, truth is a number.
            (Self::Integer { .. }, Value::Bool(truth)) => {
                self.parse(&i32::from(*truth).to_string())
            }
            (Self::Integer { .. }, Value::Number(number)) => {
                let text = number.to_string();
                // The part before the point, unless it is so large that it has none.
                let whole = text.split('.').next().filter(|_| !text.contains(['e', 'E']));
                whole.map_or(Ok(None), |whole| self.parse(whole))
            }
            (Self::Uuid, Value::Bool(truth)) => self.parse(&format!("{:032x}", u8::from(*truth))),
            (Self::Uuid, Value::Number(number)) => match number.as_u64() {
                Some(number) => self.parse(&format!("{number:032x}")),
                None => Err(InvalidPrimaryKey),
            },
            (Self::Text, Value::Bool(truth)) => self.parse(if *truth { "True" } else { "False" }),
            (Self::Text, Value::Number(number)) => self.parse(&number.to_string()),
            (_, Value::Array(_) | Value::Object(_)) => Err(InvalidPrimaryKey),
        }
    }
}

/// The primary key of a user, in the form that `value_to_string` of its field has.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrimaryKey(Box<str>);

impl PrimaryKey {
    /// The text that is in the session.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Does not show who it is.
impl fmt::Debug for PrimaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrimaryKey(..)")
    }
}

/// A text that is no primary key of the user model; the session was made for another one.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the session names its user by something that is no primary key of the user model")]
pub struct InvalidPrimaryKey;

/// What `int()` takes, without its underscores.
fn decimal(text: &str) -> Option<String> {
    let text = text.trim_matches(is_python_space);
    let (sign, digits) = match text.as_bytes() {
        [b'-', ..] => ("-", &text[1..]),
        [b'+', ..] => ("", &text[1..]),
        _ => ("", text),
    };
    let groups = digits.split('_');
    let are_digits =
        |group: &str| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit());
    groups.clone().all(are_digits).then(|| groups.fold(sign.to_owned(), |text, group| text + group))
}

fn is_python_space(char: char) -> bool {
    char.is_whitespace() || ('\x1c'..='\x1f').contains(&char)
}

/// What `uuid.UUID` takes: 32 digits, with hyphens, braces and prefixes wherever they are.
fn uuid(text: &str) -> Option<PrimaryKey> {
    let text = text.replace("urn:", "").replace("uuid:", "");
    let digits = text.trim_matches(['{', '}']).replace('-', "").to_ascii_lowercase();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    Some(PrimaryKey(groups.join("-").into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        let parse = |value: &Value| {
            let key = PrimaryKeyType::INTEGER.parse_value(value);
            key.map(|key| key.map(|key| key.as_str().to_owned()))
        };
        for (value, expected) in [
            (json!("42"), "42"),
            (json!(42), "42"),
            (json!("\u{a0}+042\x1f\n"), "42"),
            (json!("1_000"), "1000"),
            (json!("-1"), "-1"),
            (json!("-0"), "0"),
        ] {
            assert_eq!(parse(&value), Ok(Some(expected.to_owned())), "{value}");
        }
        for value in [json!("2147483648"), json!("99999999999999999999999"), json!(null)] {
            assert_eq!(parse(&value), Ok(None), "{value}");
        }
        for value in ["", " ", "_1", "1_", "1__0", "- 1", "0x1", "1.0", "bob", "++1"] {
            assert_eq!(parse(&json!(value)), Err(InvalidPrimaryKey), "{value}");
        }
        for value in [json!([]), json!({})] {
            assert_eq!(parse(&value), Err(InvalidPrimaryKey), "{value}");
        }
        for (value, expected) in [(json!(1.5), "1"), (json!(-1.5), "-1"), (json!(true), "1")] {
            assert_eq!(parse(&value), Ok(Some(expected.to_owned())), "{value}");
        }
    }

    #[test]
    fn uuids_are_read_in_every_form_and_written_in_one() {
        let expected = "12345678-1234-5678-1234-567812345678";
        for text in [
            expected,
            "12345678123456781234567812345678",
            "{12345678-1234-5678-1234-567812345678}",
            "urn:uuid:12345678-1234-5678-1234-567812345678",
        ] {
            assert_eq!(PrimaryKeyType::Uuid.parse(text).unwrap().unwrap().as_str(), expected);
        }
        for text in
            ["", "1", "g2345678123456781234567812345678", "1234567812345678123456781234567é"]
        {
            assert_eq!(PrimaryKeyType::Uuid.parse(text), Err(InvalidPrimaryKey));
        }
    }
}
