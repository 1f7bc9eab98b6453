//! The base64 of a `DatabaseCache`: one line, standard alphabet, padded.
//!
//! Until 6.0 Django reads it as `base64.b64decode` does by default, dropping whatever is not of the
//! alphabet; 6.1 insists on clean text.

use crate::codec::armor;

/// How a column value is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Base64Reading {
    /// As Django before 6.1: characters outside the alphabet are dropped.
    #[default]
    Lenient,
    /// As Django since 6.1: only what `base64.b64encode` writes.
    Strict,
}

pub(super) fn decode(text: &[u8], reading: Base64Reading) -> Option<Vec<u8>> {
    // Loose bits in the last character are nothing to either.
    let reads = reading == Base64Reading::Lenient || is_clean(text);
    reads.then(|| armor::decode_standard(text)).flatten()
}

pub(super) fn encode(bytes: &[u8]) -> Vec<u8> {
    armor::encode_standard(bytes).into_bytes()
}

/// Whether only the alphabet and the padding that belongs there are in it.
fn is_clean(text: &[u8]) -> bool {
    let data = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    text.len().is_multiple_of(4) && data.iter().all(alphabet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_python_reads_it() {
        for (text, lenient, strict) in [
            ("gAV9lC4=", Some(&b"\x80\x05}\x94."[..]), true),
            ("gAV9lC5=", Some(b"\x80\x05}\x94."), true),
            ("gAV9\nlC4=\n", Some(b"\x80\x05}\x94."), false),
            ("gAV9lC4=gAV9", Some(b"\x80\x05}\x94."), false),
            ("gAV9-_lC4=", Some(b"\x80\x05}\x94."), false),
            ("gAV9lC4", None, false),
            ("gAV9l", None, false),
            ("", Some(b""), true),
            ("====", Some(b""), false),
            ("gAV9=", Some(b"\x80\x05}"), false),
        ] {
            assert_eq!(
                decode(text.as_bytes(), Base64Reading::Lenient).as_deref(),
                lenient,
                "{text}"
            );
            let found = decode(text.as_bytes(), Base64Reading::Strict);
            assert_eq!(found.as_deref(), lenient.filter(|_| strict), "{text}");
        }
    }
}
