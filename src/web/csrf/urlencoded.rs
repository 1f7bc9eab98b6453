//! The field of a form that is `application/x-www-form-urlencoded`, as Django's `QueryDict` finds it.

use std::borrow::Cow;

use super::FIELD;
use super::host::latin_1;
use super::rejection::FormError;

/// The value of the field: of several the last, empty if there is none.
pub(super) fn field(body: &[u8], max_fields: Option<usize>) -> Result<String, FormError> {
    let fields = if body.is_empty() { 0 } else { 1 + memchr::memchr_iter(b'&', body).count() };
    if max_fields.is_some_and(|max| fields > max) {
        return Err(FormError::TooManyFields);
    }
    // What is not UTF-8 is taken for Latin-1, the whole form; what is percent-encoded is always UTF-8.
    let body = match str::from_utf8(body) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(latin_1(body)),
    };
    let last = body.rsplit('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unquote_plus(name) == FIELD).then_some(value)
    });
    Ok(last.map_or_else(String::new, unquote_plus))
}

/// `urllib.parse.unquote_plus`: `%` that no two digits follow stays.
fn unquote_plus(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match (byte, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            _ => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right column is what Django's `QueryDict.get` answers.
    #[test]
    fn the_last_field_counts() {
        const NAME: &str = "csrfmiddlewaretoken";
        for (body, value) in [
            (String::new(), ""),
            ("a=b".to_owned(), ""),
            (format!("{NAME}=a"), "a"),
            (format!("{NAME}=a&{NAME}=b"), "b"),
            (format!("{NAME}=a&{NAME}="), ""),
            (format!("{NAME}=a&{NAME}"), ""),
            (format!("&&{NAME}=a&&x"), "a"),
            (format!("{NAME}=a=b"), "a=b"),
            (format!("x;{NAME}=a"), ""),
            (format!("{NAME}=a;b"), "a;b"),
            (format!("{NAME} =a"), ""),
            (format!("{NAME}=a+%41%zz%4%"), "a A%zz%4%"),
            (format!("{NAME}=%C3%A9%ff\u{e9}"), "\u{e9}\u{fffd}\u{e9}"),
            (format!("{}=a", NAME.replace('c', "%63")), "a"),
            (format!("{}=a", NAME.to_uppercase()), ""),
        ] {
            assert_eq!(field(body.as_bytes(), Some(1000)).unwrap(), value, "{body}");
        }
        assert_eq!(field(b"csrfmiddlewaretoken=\xe9%C3%A9", None).unwrap(), "\u{e9}\u{e9}");
    }

    #[test]
    fn fields_are_counted_by_their_separators() {
        assert_eq!(field(b"", Some(0)).unwrap(), "");
        assert_eq!(field(b"a", Some(0)).unwrap_err(), FormError::TooManyFields);
        assert!(field("&".repeat(999).as_bytes(), Some(1000)).is_ok());
        assert!(field("&".repeat(1000).as_bytes(), Some(1000)).is_err());
        assert!(field("&".repeat(1000).as_bytes(), None).is_ok());
    }
}
