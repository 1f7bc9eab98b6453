//! The JSON document that `decode --json` writes and `encode` reads.
//!
//! `docs/command.md` describes its members. They keep their names and meaning as long as
//! `django_session_document` is 1; new ones may come.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::error::CliError;
use super::tagged;
use crate::codec::graph::Graph;
use crate::codec::{Decoded, Diagnosis, Format, KeyMatch, Serializer, SessionData, json};

/// The member that tells a document from a session.
const VERSION: &str = "django_session_document";

/// A decoded session and what is known about it.
pub(super) struct Found<'a> {
    pub(super) decoded: &'a Decoded,
    pub(super) salt: &'a str,
    /// Seconds since it was signed, negative if that is to come.
    pub(super) age: Option<i64>,
    /// Bytes of the stored text, and of what the serializer wrote.
    pub(super) stored_bytes: usize,
    pub(super) payload_bytes: usize,
    /// The objects of a pickled session.
    pub(super) graph: Option<&'a Graph>,
}

/// One line of JSON; the session is in `data`.
pub(super) fn write(found: &Found<'_>) -> Result<String, CliError> {
    let Found { decoded, salt, age, stored_bytes, payload_bytes, graph } = *found;
    let mut out = format!("{{\"{VERSION}\":1");
    let mut member = |name: &str, value: &str| {
        let _ = write!(out, ",\"{name}\":{value}");
    };
    let null = || "null".to_owned();
    let number = |number: Option<i64>| number.map_or_else(null, |number| number.to_string());
    member("format", &string(decoded.format.name()));
    member("algorithm", &string(decoded.format.algorithm()));
    let (key, fallback) = match decoded.key {
        KeyMatch::Primary => ("primary", null()),
        KeyMatch::Fallback(index) => ("fallback", index.to_string()),
    };
    member("key", &string(key));
    member("fallback", &fallback);
    member("salt", &string(salt));
    member("signed_at", &number(decoded.signed_at));
    let utc = decoded.signed_at.and_then(|seconds| Timestamp::from_second(seconds).ok());
    member("signed_at_utc", &utc.map_or_else(null, |time| string(&time.to_string())));
    member("age", &number(age));
    member("serializer", &string(decoded.serializer.name()));
    member("pickle_protocol", &graph.map_or_else(null, |graph| graph.protocol().to_string()));
    member("compressed", if decoded.compressed { "true" } else { "false" });
    member("stored_bytes", &stored_bytes.to_string());
    member("payload_bytes", &payload_bytes.to_string());
    match graph {
        Some(graph) => member("data", &tagged::write(graph)?),
        None => member("data", &decoded.data.to_json().map_err(CliError::Encode)?),
    }
    out.push_str("}\n");
    Ok(out)
}

/// The document for a value that cannot be decoded.
pub(super) fn write_error(diagnosis: &Diagnosis, advice: Option<&str>) -> String {
    let reason = string(diagnosis.reason());
    let message = string(&diagnosis.to_string());
    let advice = advice.map_or_else(|| "null".to_owned(), string);
    format!(
        "{{\"{VERSION}\":1,\"error\":{{\"reason\":{reason},\"message\":{message},\"try\":{advice}}}}}\n"
    )
}

fn string(text: &str) -> String {
    let mut out = String::new();
    json::push_string(&mut out, text);
    out
}

/// What `encode` is given: a session, and if it was a document, how it was stored.
pub(super) struct Given {
    /// JSON text; with tags if the serializer is pickle and this was a document.
    pub(super) data: String,
    pub(super) is_document: bool,
    pub(super) format: Option<Format>,
    pub(super) serializer: Option<Serializer>,
    pub(super) pickle_protocol: Option<u8>,
    pub(super) salt: Option<String>,
    pub(super) signed_at: Option<i64>,
}

/// Reads a session or a document from JSON as Python writes it, or any other.
pub(super) fn read(input: &[u8]) -> Result<Given, CliError> {
    const NOT_JSON: CliError = CliError::NotASession("it has to be a JSON object");
    let text = std::str::from_utf8(input).map_err(|_| NOT_JSON)?;
    let text = text.trim_start_matches('\u{feff}');
    let object = SessionData::from_json(text).map_err(|_| NOT_JSON)?;
    if !object.contains_key(VERSION) {
        return Ok(Given {
            data: compact(&object.to_json().map_err(CliError::Encode)?),
            is_document: false,
            format: None,
            serializer: None,
            pickle_protocol: None,
            salt: None,
            signed_at: None,
        });
    }
    if !matches!(object.get(VERSION), Ok(Some(1))) {
        return Err(CliError::NotASession("it is a document of a later version of this command"));
    }
    let text = |name: &str| object.get::<String>(name).unwrap_or(None);
    let data = object.get_raw("data").ok().flatten();
    let data = data.ok_or(CliError::NotASession("the document has no member \"data\""))?;
    Ok(Given {
        data: compact(&data),
        is_document: true,
        format: text("format").and_then(|name| Format::from_name(&name)),
        serializer: text("serializer").and_then(|name| Serializer::from_name(&name)),
        pickle_protocol: object.get("pickle_protocol").unwrap_or(None),
        salt: text("salt"),
        signed_at: object.get("signed_at").unwrap_or(None),
    })
}

/// JSON without the blanks between its tokens. Everything else stays as it was given.
fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_string = false;
    let mut escaped = false;
    for char in text.chars() {
        if in_string {
            in_string = escaped || char != '"';
            escaped = char == '\\' && !escaped;
        } else if matches!(char, ' ' | '\t' | '\n' | '\r') {
            continue;
        } else {
            in_string = char == '"';
        }
        out.push(char);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::compact;

    #[test]
    fn blanks_go_and_texts_stay() {
        for (given, compacted) in [
            ("{ \"a b\" :\t[1 , 2]\r\n}", "{\"a b\":[1,2]}"),
            (r#"{"q\" ": " \\ " }"#, r#"{"q\" ":" \\ "}"#),
        ] {
            assert_eq!(compact(given), compacted);
        }
    }
}
