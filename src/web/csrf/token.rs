//! Secrets and tokens: how Django draws, masks, checks and compares them.
//!
//! A secret is 32 letters and digits. A token is a mask of the same length and the secret under that
//! mask, each letter moved on by the mask's: it looks different in every page, so that compression
//! tells nothing about it. Cookie, session, field and header may hold either form; before Django 4.0
//! the cookie was masked too.

use std::fmt;

use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

/// `CSRF_ALLOWED_CHARS`; the order matters for masks.
const ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// `CSRF_SECRET_LENGTH`.
const SECRET: usize = 32;
/// `CSRF_TOKEN_LENGTH`.
const TOKEN: usize = 2 * SECRET;

/// What is wrong with the form of a secret or token (Django's `InvalidTokenFormat`).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenFormat {
    /// It has neither 32 nor 64 characters.
    #[error("has incorrect length")]
    IncorrectLength,
    /// It has others than `a-zA-Z0-9`.
    #[error("has invalid characters")]
    InvalidCharacters,
}

/// What cookie or session hold, without a mask. `Debug` hides it.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<[u8; SECRET]>);

impl Secret {
    /// Draws a new one, each letter equally likely.
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness to give.
    pub(crate) fn generate() -> Self {
        let mut letters = Zeroizing::new([0; SECRET]);
        let mut drawn = 0;
        let mut random = Zeroizing::new([0; TOKEN]);
        while drawn < SECRET {
            #[expect(clippy::expect_used, reason = "a predictable secret would be worse")]
            getrandom::fill(&mut *random).expect("the system gives random bytes");
            // 248 is the largest multiple of 62 that a byte reaches; the rest would favour some.
            let fair = random.iter().filter(|&&byte| byte < 248);
            for (place, byte) in letters[drawn..].iter_mut().zip(fair) {
                *place = ALPHABET[usize::from(byte % 62)];
                drawn += 1;
            }
        }
        Self(letters)
    }

    /// Reads a secret or a token (`_check_token_format`, `_unmask_cipher_token`). Characters count, not
    /// bytes.
    pub(crate) fn parse(text: &str) -> Result<Self, TokenFormat> {
        let length = text.chars().take(TOKEN + 1).count();
        if length != SECRET && length != TOKEN {
            return Err(TokenFormat::IncorrectLength);
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(TokenFormat::InvalidCharacters);
        }
        let mut letters = Zeroizing::new([0; SECRET]);
        let (mask, cipher) = text.as_bytes().split_at(length - SECRET);
        letters.copy_from_slice(cipher);
        for (letter, mask) in letters.iter_mut().zip(mask) {
            *letter = ALPHABET[usize::from((index(*letter) + 62 - index(*mask)) % 62)];
        }
        Ok(Self(letters))
    }

    /// A token that hides it, another one each time (`_mask_cipher_secret`).
    pub(crate) fn mask(&self) -> String {
        let mask = Self::generate();
        let cipher = self.0.iter().zip(mask.0.iter());
        let cipher = cipher
            .map(|(&letter, &mask)| ALPHABET[usize::from((index(letter) + index(mask)) % 62)]);
        mask.0.iter().copied().chain(cipher).map(char::from).collect()
    }

    /// Compares in constant time.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }

    /// The text, for the cookie or the session.
    pub(crate) fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.iter().copied().map(char::from).collect())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The place of a letter or digit in the alphabet. By arithmetic: looking for it would take longer for
/// some than for others.
fn index(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => byte - b'a',
        b'A'..=b'Z' => byte - b'A' + 26,
        _ => byte.wrapping_sub(b'0').wrapping_add(52) % 62,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_know_their_places() {
        for (place, &letter) in ALPHABET.iter().enumerate() {
            assert_eq!(usize::from(index(letter)), place);
        }
    }

    #[test]
    fn a_mask_comes_off_again_and_is_never_the_same() {
        for _ in 0..100 {
            let secret = Secret::generate();
            let (one, other) = (secret.mask(), secret.mask());
            assert_ne!(one, other);
            assert_eq!(one.len(), TOKEN);
            assert!(Secret::parse(&one).unwrap().matches(&secret));
            assert!(Secret::parse(&secret.reveal()).unwrap().matches(&secret));
            assert!(!Secret::generate().matches(&secret));
        }
    }

    #[test]
    fn the_whole_alphabet_is_drawn() {
        let drawn: String = (0..200).map(|_| Secret::generate().reveal().to_string()).collect();
        assert!(ALPHABET.iter().all(|&letter| drawn.contains(char::from(letter))));
    }

    /// Django 5.2 masked this secret.
    #[test]
    fn a_token_of_django_is_read() {
        let token = "Zy9xWv8uTs7rQp6oNm5lKj4iHg3fEd2cZZ2AqA4BrB6CsCWDtDNEuEQFvFtg6gRB";
        let secret = Secret::parse(token).unwrap();
        assert_eq!(*secret.reveal(), "aB3dEf6hIj9lMn0pQrStUvWxYzAbCdZz");
    }

    #[test]
    fn other_forms_are_named() {
        for (text, format) in [
            (String::new(), TokenFormat::IncorrectLength),
            ("a".repeat(31), TokenFormat::IncorrectLength),
            ("a".repeat(33), TokenFormat::IncorrectLength),
            ("a".repeat(65), TokenFormat::IncorrectLength),
            ("é".repeat(16), TokenFormat::IncorrectLength),
            ("é".repeat(32), TokenFormat::InvalidCharacters),
            ("é".repeat(64), TokenFormat::InvalidCharacters),
            (" ".repeat(32), TokenFormat::InvalidCharacters),
            (format!("{}\n", "a".repeat(31)), TokenFormat::InvalidCharacters),
        ] {
            assert_eq!(Secret::parse(&text).unwrap_err(), format, "{text:?}");
        }
        assert_eq!(format!("{:?}", Secret::generate()), "Secret(..)");
    }
}
