//! Headers with parameters, as `django.utils.http.parse_header_parameters` of 5.2.19 and later reads
//! them, which is how Python's `email` does.
//!
//! Different: of a parameter that is encoded by RFC 2231 (`name*=…`, `name*0=…`) only the name is kept.

use std::borrow::Cow;

pub(super) use crate::web::cookie::strip;

/// A main value in lower case, and what follows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) main: String,
    parameters: Vec<(String, Value)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Plain(String),
    /// By RFC 2231; whether there is anything.
    Extended(bool),
}

impl Parameters {
    pub(super) fn parse(line: &str) -> Self {
        if !line.contains(';') {
            return Self { main: strip(line).to_lowercase(), parameters: Vec::new() };
        }
        let mut parts = split(line);
        let main = parts.next().unwrap_or_default();
        let main = main.split_once('=').map_or(main, |(name, _)| name);
        let parameters = parts.map(|part| match part.split_once('=') {
            Some((name, value)) => (strip(name).to_lowercase(), strip(value)),
            None => (strip(part).to_owned(), ""),
        });
        let parameters = parameters.filter(|(name, _)| !name.is_empty());
        Self {
            main: strip(main).to_lowercase(),
            parameters: parameters
                .map(|(name, value)| {
                    let value = unquote(value);
                    if let Some(name) = extended_name(&name) {
                        return (name.to_owned(), Value::Extended(!value.is_empty()));
                    }
                    // Django's way leads through a second pair of quotes.
                    let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
                    let value = unquote(&format!("\"{quoted}\"")).into_owned();
                    (name, Value::Plain(value))
                })
                .collect(),
        }
    }

    /// The last value of this name, unless it is encoded.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        // Encoded ones are sorted behind the others.
        if self.parameters.iter().any(|(known, value)| known == name && is_extended(value)) {
            return None;
        }
        self.parameters.iter().rev().find_map(|(known, value)| match value {
            Value::Plain(value) if known == name => Some(value.as_str()),
            _ => None,
        })
    }

    /// Whether there is a parameter of this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.parameters.iter().any(|(known, _)| known == name)
    }

    /// Whether there is a value of this name that is not empty, in whatever way it is written.
    pub(super) fn has(&self, name: &str) -> bool {
        let mut values = self.parameters.iter().filter(|(known, _)| known == name).rev();
        let extended = values.clone().find(|(_, value)| is_extended(value));
        extended.or_else(|| values.next()).is_some_and(|(_, value)| match value {
            Value::Plain(value) => !value.is_empty(),
            Value::Extended(is_there) => *is_there,
        })
    }
}

fn is_extended(value: &Value) -> bool {
    matches!(value, Value::Extended(_))
}

/// The parts between the semicolons that are outside of quotes.
fn split(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut quoted = false;
        let mut previous = 0;
        let end = line.bytes().position(|byte| {
            // A quote behind a backslash counts for nothing, wherever it is.
            quoted ^= byte == b'"' && previous != b'\\';
            previous = byte;
            byte == b';' && !quoted
        });
        rest = end.map(|end| &line[end + 1..]);
        Some(strip(&line[..end.unwrap_or(line.len())]))
    })
}

/// The name before `*`, `*1` or `*1*`.
fn extended_name(name: &str) -> Option<&str> {
    let (name, suffix) = name.split_once('*')?;
    let digits = suffix.strip_suffix('*').unwrap_or(suffix);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    ((suffix.is_empty() || is_number) && !name.is_empty() && name.bytes().all(is_word))
        .then_some(name)
}

/// `email.utils.unquote`.
fn unquote(value: &str) -> Cow<'_, str> {
    if value.len() < 2 {
        return Cow::Borrowed(value);
    }
    if let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return Cow::Owned(inner.replace("\\\\", "\\").replace("\\\"", "\""));
    }
    let inner = value.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    Cow::Borrowed(inner.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right columns are what Django 5.2.19 answers.
    #[test]
    fn parameters_are_read_as_django_does() {
        for (line, main, name, value) in [
            ("Text/HTML", "text/html", "a", None),
            (" a ; b = c ", "a", "b", Some("c")),
            ("a;B=C", "a", "b", Some("C")),
            ("a;b=1;b=2", "a", "b", Some("2")),
            ("a;b", "a", "b", Some("")),
            ("a;B", "a", "b", None),
            ("a;;b=c", "a", "b", Some("c")),
            ("a;b=\"c;d\";e=f", "a", "b", Some("c;d")),
            ("a;b=\"c;d\";e=f", "a", "e", Some("f")),
            ("a;b=\"c\\\";e=f\"", "a", "b", Some("c\";e=f")),
            ("a;b=<c>", "a", "b", Some("c")),
            ("a;b=\"", "a", "b", Some("\"")),
            ("a=x;b=c", "a", "b", Some("c")),
            ("a=x", "a=x", "b", None),
            ("a;b=c=d", "a", "b", Some("c=d")),
            (";b=c", "", "b", Some("c")),
            ("form-data; name=\"a\"; filename=\"b\"", "form-data", "name", Some("a")),
        ] {
            let parameters = Parameters::parse(line);
            assert_eq!(parameters.main, main, "{line}");
            assert_eq!(parameters.get(name), value, "{line}");
        }
    }

    #[test]
    fn encoded_parameters_are_there_but_not_read() {
        for (line, has) in [
            ("a;b*=utf-8''c", true),
            ("a;b*0=c", true),
            ("a;b*0*=c", true),
            ("a;b*=", false),
            ("a;b*x=c", false),
            ("a;b=c;b*=", false),
        ] {
            let parameters = Parameters::parse(line);
            assert_eq!(parameters.has("b"), has, "{line}");
            assert_eq!(parameters.get("b"), None, "{line}");
        }
    }
}
