//! A name for a session that may be shown, written down and given as an argument: nobody gets in by it.

use sha2::{Digest as _, Sha256};

/// How many hexadecimal digits it has: among ten million sessions, two with the same one are not to be
/// expected.
const DIGITS: usize = 16;

/// The first digits of the SHA-256 of a session key.
pub(super) fn handle(session_key: &str) -> String {
    let digest = Sha256::digest(session_key);
    let mut out = String::with_capacity(DIGITS);
    for byte in &digest[..DIGITS / 2] {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::handle;

    #[test]
    fn it_is_the_beginning_of_a_hash() {
        assert_eq!(handle("abc"), "ba7816bf8f01cfea");
    }
}
