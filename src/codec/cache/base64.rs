//! The base64 of a `DatabaseCache`: one line, standard alphabet, padded.
//!
//! Until 6.0 Django reads it as `base64.b64decode` does by default, dropping whatever is not of the
//! alphabet; 6.1 insists on clean text.

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
    match base64_simd::STANDARD.decode_to_vec(text) {
        Ok(bytes) => Some(bytes),
        // Loose bits in the last character are nothing to either.
        Err(_) if reading == Base64Reading::Lenient || is_clean(text) => decode_leniently(text),
        Err(_) => None,
    }
}

pub(super) fn encode(bytes: &[u8]) -> Vec<u8> {
    base64_simd::STANDARD.encode_type(bytes)
}

/// Whether only the alphabet and the padding that belongs there are in it.
fn is_clean(text: &[u8]) -> bool {
    let data = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    text.len().is_multiple_of(4) && data.iter().all(alphabet)
}

/// `binascii.a2b_base64`: complete padding ends the text.
fn decode_leniently(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut position, mut left, mut pads) = (0, 0_u8, 0);
    for &byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                // Pads count only from the third place on.
                if position >= 2 {
                    pads += 1;
                    if position + pads >= 4 {
                        return Some(out);
                    }
                }
                continue;
            }
            _ => continue,
        };
        pads = 0;
        match position {
            1 => out.push(left << 2 | value >> 4),
            2 => out.push(left << 4 | value >> 2),
            3 => out.push(left << 6 | value),
            _ => {}
        }
        left = value;
        position = (position + 1) % 4;
    }
    (position == 0).then_some(out)
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
