//! Integers of any size between decimal text and the bytes in a pickle.
//!
//! Python reads and writes at most 4300 digits, so the square of that is all the work there can be.

use std::fmt::Write as _;

use crate::codec::json::MAX_INTEGER_DIGITS;

/// Nine digits are the most that fit into 32 bits.
const GROUP: usize = 9;
const BASE: u64 = 1_000_000_000;

/// A decimal integer as little endian two's complement, as short as it gets: nothing for zero.
pub(crate) fn to_twos_complement(text: &str) -> Option<Vec<u8>> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let fits = !digits.is_empty() && digits.len() <= MAX_INTEGER_DIGITS;
    if !fits || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // The magnitude in 32-bit limbs, the least one first.
    let mut limbs: Vec<u32> = Vec::with_capacity(digits.len() / GROUP + 1);
    for group in groups(digits) {
        let mut carry =
            group.iter().fold(0, |number, &digit| number * 10 + u64::from(digit - b'0'));
        let factor = 10_u64.pow(u32::try_from(group.len()).ok()?);
        for limb in &mut limbs {
            let product = u64::from(*limb) * factor + carry;
            *limb = low(product);
            carry = product >> 32;
        }
        if carry > 0 {
            limbs.push(low(carry));
        }
    }
    let mut bytes: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
    if negative {
        negate(&mut bytes);
    }
    // The top bit is the sign; one byte more makes room for it, and what repeats it goes.
    let sign = if negative && !limbs.is_empty() { 0xff } else { 0 };
    bytes.push(sign);
    while let [.., before, last] = bytes[..] {
        if last != sign || (before ^ sign) & 0x80 != 0 {
            break;
        }
        bytes.pop();
    }
    if bytes == [0] {
        bytes.clear();
    }
    Some(bytes)
}

/// The decimal text of little endian two's complement; nothing beyond the digits that Python writes.
pub(crate) fn from_twos_complement(bytes: &[u8]) -> Option<String> {
    let negative = bytes.last().is_some_and(|&byte| byte & 0x80 != 0);
    let padding = if negative { 0xff } else { 0 };
    let length = bytes.iter().rposition(|&byte| byte != padding).map_or(0, |last| last + 1);
    // Some 2.4 digits to a byte.
    if length > MAX_INTEGER_DIGITS / 2 {
        return None;
    }
    let mut magnitude = bytes[..length].to_vec();
    if negative {
        magnitude.push(0xff);
        negate(&mut magnitude);
    }
    let mut limbs: Vec<u32> = magnitude
        .chunks(4)
        .map(|chunk| chunk.iter().rev().fold(0, |limb, &byte| limb << 8 | u32::from(byte)))
        .collect();
    let mut groups = Vec::new();
    while limbs.iter().any(|&limb| limb != 0) {
        let mut remainder = 0;
        for limb in limbs.iter_mut().rev() {
            let dividend = remainder << 32 | u64::from(*limb);
            *limb = low(dividend / BASE);
            remainder = dividend % BASE;
        }
        groups.push(remainder);
        if limbs.last() == Some(&0) {
            limbs.pop();
        }
    }
    let mut text = String::with_capacity(groups.len() * GROUP + 1);
    let Some((first, rest)) = groups.split_last() else { return Some("0".to_owned()) };
    if negative {
        text.push('-');
    }
    text.push_str(&first.to_string());
    for group in rest.iter().rev() {
        let _ = write!(text, "{group:09}");
    }
    let digits = text.len() - usize::from(negative);
    (digits <= MAX_INTEGER_DIGITS).then_some(text)
}

/// The number, if it fits.
pub(crate) fn to_i64(bytes: &[u8]) -> Option<i64> {
    let padding = match bytes.last() {
        Some(byte) if byte & 0x80 != 0 => 0xff,
        _ => 0,
    };
    if bytes.iter().skip(8).any(|&byte| byte != padding) {
        return None;
    }
    let mut wide = [padding; 8];
    let length = bytes.len().min(8);
    wide[..length].copy_from_slice(&bytes[..length]);
    let number = i64::from_le_bytes(wide);
    ((number < 0) == (padding == 0xff)).then_some(number)
}

/// Groups of nine digits, the last one full.
fn groups(digits: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (first, rest) = digits.split_at(digits.len() % GROUP);
    std::iter::once(first).filter(|first| !first.is_empty()).chain(rest.chunks(GROUP))
}

fn negate(bytes: &mut [u8]) {
    let mut carry = true;
    for byte in bytes {
        let (sum, overflow) = (!*byte).overflowing_add(u8::from(carry));
        *byte = sum;
        carry = overflow;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the rest is carried")]
fn low(number: u64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_bytes_that_python_writes() {
        for (text, bytes) in [
            ("0", &b""[..]),
            ("-0", b""),
            ("1", b"\x01"),
            ("127", b"\x7f"),
            ("128", b"\x80\x00"),
            ("255", b"\xff\x00"),
            ("256", b"\x00\x01"),
            ("-1", b"\xff"),
            ("-128", b"\x80"),
            ("-129", b"\x7f\xff"),
            ("-256", b"\x00\xff"),
            ("-255", b"\x01\xff"),
            ("9223372036854775808", b"\0\0\0\0\0\0\0\x80\0"),
            ("-9223372036854775808", b"\0\0\0\0\0\0\0\x80"),
            ("1000000000000000000000", b"\0\0\xa0\xde\xc5\xad\xc9\x35\x36"),
        ] {
            assert_eq!(to_twos_complement(text).unwrap(), bytes, "{text}");
            assert_eq!(from_twos_complement(bytes).unwrap(), text.replace("-0", "0"), "{text}");
            assert_eq!(to_i64(bytes), text.parse().ok(), "{text}");
        }
        for text in ["", "-", "1_0", " 1", "0x1", "1L", &"9".repeat(4301)] {
            assert_eq!(to_twos_complement(text), None);
        }
        let long = "9".repeat(4300);
        assert_eq!(from_twos_complement(&to_twos_complement(&long).unwrap()).unwrap(), long);
        assert_eq!(from_twos_complement(&vec![0x7f; 1 << 20]), None);
        // Longer than it need be.
        assert_eq!(from_twos_complement(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap(), "1");
        assert_eq!(to_i64(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Some(-2));
    }
}
