//! JSON as django-redis writes and reads it: `json.dumps(value, cls=DjangoJSONEncoder)`, `json.loads`.
//!
//! Python puts a space after commas and colons unless it is told otherwise, as Django's own session
//! serializer does. Session data holds text without them, so that it is the same text wherever the
//! session goes; here they are put in and taken out. Bytes are UTF-8, unlike those of Django's serializer.

use super::error::{CacheDecodeError, CachePart};
use crate::codec::value;
use crate::codec::{EncodeError, SessionData};

pub(super) fn read(payload: &[u8]) -> Result<SessionData, CacheDecodeError> {
    let Ok(text) = std::str::from_utf8(payload) else {
        return Err(CacheDecodeError::Malformed { part: CachePart::Utf8 });
    };
    let data = match SessionData::from_json(text) {
        Ok(data) => data,
        Err(error) => {
            return Err(match value::kind_of_other(text) {
                Some(found) => CacheDecodeError::NotASession { found },
                None => CacheDecodeError::Json(error),
            });
        }
    };
    // Only text that is known to be JSON can lose its spaces without becoming other JSON.
    match data.to_json() {
        Ok(json) => SessionData::parse(space(&json, "")).map_err(CacheDecodeError::Json),
        Err(_) => Ok(data),
    }
}

pub(super) fn write(data: &SessionData) -> Result<Vec<u8>, EncodeError> {
    Ok(space(&data.to_django_json()?, " ").into_bytes())
}

/// The same JSON with `space` after each comma and colon, and no other white space between tokens.
fn space(json: &str, space: &str) -> String {
    let mut out = String::with_capacity(json.len() + json.len() / 8);
    let mut rest = json;
    while let Some(at) = rest.find(['"', ',', ':', ' ', '\t', '\n', '\r']) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let length = match after.as_bytes()[0] {
            b'"' => {
                let length = string(after);
                out.push_str(&after[..length]);
                length
            }
            byte @ (b',' | b':') => {
                out.push(char::from(byte));
                out.push_str(space);
                1
            }
            _ => 1,
        };
        rest = &after[length..];
    }
    out.push_str(rest);
    out
}

/// The length of the string literal at the start.
fn string(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        // A backslash, and what it escapes; the text is ASCII.
        at += 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_come_and_go_between_tokens_only() {
        for (compact, spaced) in [
            ("{}", "{}"),
            (r#"{"a":[1,2],"b":{"c":null}}"#, r#"{"a": [1, 2], "b": {"c": null}}"#),
            (r#"{"a, b: \" c":" ,:\\","d":""}"#, r#"{"a, b: \" c": " ,:\\", "d": ""}"#),
        ] {
            assert_eq!(space(compact, " "), spaced);
            assert_eq!(space(spaced, ""), compact);
            assert_eq!(space(spaced, " "), spaced);
        }
        assert_eq!(space("{ \"a\"\n:\t[ ] }", ""), r#"{"a":[]}"#);
    }
}
