//! The outside of a payload: url-safe base64 without padding, and zlib behind a leading dot.
//!
//! This is what `django.core.signing` does in `sign_object` and `unsign_object`. Reading is as lenient
//! as Python's `base64.urlsafe_b64decode`; inflating has a limit, which Django has not.

use std::cell::RefCell;

use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};

use super::deflate::{self, Verdict};
use super::error::{DecodeError, Part};

/// How hard the writer tries to make the stored text short.
///
/// Django reads either, and plain payloads too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Many times faster than Django; the stored text is at most 1.3 times as long as Django's.
    #[default]
    Fast,
    /// As short as Django's own.
    Small,
}

/// The level above which a general encoder no longer pays for its time here.
const FAST_LEVEL: i32 = 4;
/// Where libdeflate is as dense as zlib at its default level.
const SMALL_LEVEL: i32 = 7;

thread_local! {
    /// The tables of these are worth keeping; nothing of a payload stays in them.
    static DECOMPRESSOR: RefCell<Decompressor> = RefCell::new(Decompressor::new());
    static FAST: RefCell<Compressor> = RefCell::new(compressor(FAST_LEVEL));
    static SMALL: RefCell<Compressor> = RefCell::new(compressor(SMALL_LEVEL));
}

#[expect(clippy::expect_used, reason = "both levels are constants within libdeflate's 0 to 12")]
fn compressor(level: i32) -> Compressor {
    Compressor::new(CompressionLvl::new(level).expect("a level of libdeflate"))
}

/// Appends `payload` to `out`, compressed behind a dot if that saves more than one byte.
pub(crate) fn wrap(out: &mut String, payload: &[u8], compression: Compression) {
    match compress(payload, compression) {
        Some(stream) => {
            out.push('.');
            push_base64(out, &stream);
        }
        None => push_base64(out, payload),
    }
}

fn compress(payload: &[u8], compression: Compression) -> Option<Vec<u8>> {
    // Nothing this short ever shrinks: header and checksum of zlib take 6 bytes, the block 2.
    if payload.len() < 12 {
        return None;
    }
    let general = match compression {
        // The general encoder does not even try below some 30 bytes.
        Compression::Small if payload.len() >= 64 => &SMALL,
        _ => match deflate::compress(payload) {
            Verdict::Compressed(stream) => return Some(stream),
            Verdict::Plain => return None,
            Verdict::Declined => &FAST,
        },
    };
    general.with_borrow_mut(|compressor| {
        // The encoder wants more room than it uses.
        let mut stream = vec![0; compressor.zlib_compress_bound(payload.len())];
        let length = compressor.zlib_compress(payload, &mut stream).ok()?;
        stream.truncate(length);
        // Django's rule.
        (length + 1 < payload.len()).then_some(stream)
    })
}

pub(crate) fn push_base64(out: &mut String, bytes: &[u8]) {
    base64_simd::URL_SAFE_NO_PAD.encode_append(bytes, out);
}

/// What [`unwrap`] found.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) bytes: Vec<u8>,
    pub(crate) compressed: bool,
}

/// Undoes [`wrap`]; `limit` is the largest payload in bytes that is inflated.
pub(crate) fn unwrap(text: &str, limit: usize) -> Result<Payload, DecodeError> {
    let (text, compressed) = text.strip_prefix('.').map_or((text, false), |rest| (rest, true));
    let bytes = decode_base64(text).ok_or(DecodeError::Malformed { part: Part::Base64 })?;
    let bytes = if compressed { inflate(&bytes, limit)? } else { bytes };
    Ok(Payload { bytes, compressed })
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    base64_simd::URL_SAFE_NO_PAD.decode_to_vec(text).ok().or_else(|| {
        let padding = text.len().wrapping_neg() % 4;
        decode_leniently(text.bytes().chain("===".bytes().take(padding)), Alphabet::UrlSafe)
    })
}

/// Base64 of the standard alphabet, with padding (`base64.b64encode`).
pub(crate) fn encode_standard(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

/// `base64.b64decode`: whatever is not in the alphabet, line ends above all, is passed over.
pub(crate) fn decode_standard(text: &[u8]) -> Option<Vec<u8>> {
    base64_simd::STANDARD
        .decode_to_vec(text)
        .ok()
        .or_else(|| decode_leniently(text.iter().copied(), Alphabet::Standard))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Alphabet {
    Standard,
    /// `-` and `_` too.
    UrlSafe,
}

/// As Python's `binascii.a2b_base64`: characters outside the alphabet are dropped, `+` and `/` are
/// always in it, complete padding ends the text, and loose bits do not matter.
fn decode_leniently(text: impl Iterator<Item = u8>, alphabet: Alphabet) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.size_hint().0 / 4 * 3 + 3);
    let (mut position, mut left, mut pads) = (0, 0_u8, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'-' if alphabet == Alphabet::UrlSafe => 62,
            b'_' if alphabet == Alphabet::UrlSafe => 63,
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

/// Inflates a whole zlib stream, whatever comes after it. Memory stays within twice the limit.
fn inflate(stream: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    const MALFORMED: DecodeError = DecodeError::Malformed { part: Part::Zlib };
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let mut room = stream.len().saturating_mul(6).max(1024);
        loop {
            let capped = room.min(limit);
            let mut out = vec![0; capped];
            match decompressor.zlib_decompress(stream, &mut out) {
                Ok(length) => {
                    out.truncate(length);
                    return Ok(out);
                }
                Err(DecompressionError::BadData) => return Err(MALFORMED),
                Err(DecompressionError::InsufficientSpace) if capped == limit => {
                    return Err(DecodeError::TooLarge { limit });
                }
                Err(DecompressionError::InsufficientSpace) => room = capped.saturating_mul(4),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_leniently_as_python_reads_it() {
        for (text, bytes) in [
            ("eyJhIjoxfQ", Some(&b"{\"a\":1}"[..])),
            ("eyJhIjoxfQ==", Some(b"{\"a\":1}")),
            ("eyJhIjoxfR", Some(b"{\"a\":1}")),
            ("eyJh!!!!IjoxfQ", Some(b"{\"a\":1}")),
            ("eyJhIjoxfQ==garbage", Some(b"{\"a\":1}")),
            ("eyJhIjoxfQ\n", None),
            ("-_+/", Some(b"\xfb\xff\xbf")),
            ("A", None),
            ("", Some(b"")),
            ("=", Some(b"")),
        ] {
            assert_eq!(decode_base64(text).as_deref(), bytes, "{text:?}");
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let payload = vec![b'a'; 1 << 20];
        let stream = compress(&payload, Compression::Small).unwrap();
        assert!(stream.len() < 2000);
        assert_eq!(inflate(&stream, 1 << 20).unwrap(), payload);
        assert!(matches!(
            inflate(&stream, (1 << 20) - 1),
            Err(DecodeError::TooLarge { limit: 0xf_ffff })
        ));
    }

    #[test]
    fn what_follows_a_stream_is_ignored_and_a_broken_one_is_not() {
        let payload = b"abcabcabcabcabcabcabcabcabcabcabc";
        let mut stream = compress(payload, Compression::Fast).unwrap();
        let whole = stream.len();
        stream.extend(b"trailing");
        assert_eq!(inflate(&stream, 1000).unwrap(), payload);
        for length in 0..whole {
            assert!(inflate(&stream[..length], 1000).is_err(), "{length}");
        }
    }
}
