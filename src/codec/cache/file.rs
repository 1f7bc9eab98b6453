//! What a `FileBasedCache` writes before the value: the pickle of the absolute expiry.
//!
//! It is a float, or `None` for an entry that never expires, so a handful of opcodes.

/// Reads the expiry and tells how many bytes it takes; `None` if there is none.
pub(super) fn read_expiry(value: &[u8]) -> Option<(Option<f64>, usize)> {
    let mut rest = value;
    if let [0x80, protocol, after @ ..] = rest {
        if *protocol > 5 {
            return None;
        }
        rest = after;
    }
    // The length of a frame says nothing here.
    if let Some((b"\x95", after)) = rest.split_at_checked(1) {
        rest = after.get(8..)?;
    }
    let (expiry, rest) = match rest.split_first()? {
        (b'N', rest) => (None, rest),
        (b'G', rest) => {
            let (bytes, rest) = rest.split_first_chunk()?;
            (Some(f64::from_be_bytes(*bytes)), rest)
        }
        // Protocol 0, for a site that sets `pickle_protocol`.
        (b'F', rest) => {
            let end = memchr::memchr(b'\n', rest)?;
            let text = std::str::from_utf8(&rest[..end]).ok()?;
            (Some(text.parse().ok()?), &rest[end + 1..])
        }
        _ => return None,
    };
    let rest = rest.strip_prefix(b".")?;
    Some((expiry, value.len() - rest.len()))
}

/// The bytes that Python's pickler writes for an expiry, in one of the protocols 2 to 5.
pub(super) fn write_expiry(expiry: Option<f64>, protocol: u8) -> Vec<u8> {
    let mut out = vec![0x80, protocol];
    match expiry {
        None => out.push(b'N'),
        Some(expiry) => {
            if protocol >= 4 {
                // A frame of ten bytes.
                out.extend(b"\x95\x0a\0\0\0\0\0\0\0");
            }
            out.push(b'G');
            out.extend(expiry.to_be_bytes());
        }
    }
    out.push(b'.');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_read_from_every_protocol() {
        for head in [
            &b"F1701209600.0\n."[..],
            b"GA\xd9Y\x99\x80\0\0\0.",
            b"\x80\x02GA\xd9Y\x99\x80\0\0\0.",
            b"\x80\x04\x95\x0a\0\0\0\0\0\0\0GA\xd9Y\x99\x80\0\0\0.",
        ] {
            let value = [head, b"x\x9c"].concat();
            assert_eq!(read_expiry(&value), Some((Some(1_701_209_600.0), head.len())));
            for length in 0..head.len() {
                assert_eq!(read_expiry(&value[..length]), None);
            }
        }
        assert_eq!(read_expiry(b"\x80\x05N.x"), Some((None, 4)));
        assert_eq!(read_expiry(b"\x80\x06N.x"), None);
        assert_eq!(read_expiry(b"\x80\x05I1\n.x"), None);
    }

    #[test]
    fn what_is_written_is_read() {
        for protocol in 2..=5 {
            for expiry in [None, Some(1.5), Some(-1e300)] {
                let head = write_expiry(expiry, protocol);
                assert_eq!(read_expiry(&head), Some((expiry, head.len())));
            }
        }
    }
}
