//! Random text, and how much of it a salt has to be.

/// `django.utils.crypto.RANDOM_STRING_CHARS`.
const ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// Draws text of the alphabet, each letter equally likely: `get_random_string`.
///
/// # Panics
///
/// If the operating system has no randomness to give.
pub(super) fn random_string(length: usize) -> String {
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let random: [u8; 64] = random_bytes();
        // 248 is the largest multiple of 62 that a byte reaches; the rest would favour some.
        let fair = random.iter().filter(|&&byte| byte < 248);
        let letters = fair.map(|&byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
        text.extend(letters.take(length - text.len()));
    }
    text
}

/// # Panics
///
/// As [`random_string`].
pub(super) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "a predictable salt would be worse")]
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// Draws a salt with at least this many bits of entropy: `BasePasswordHasher.salt`.
pub(super) fn salt(entropy: u32) -> String {
    let mut length = 0;
    while is_weak(length, entropy) {
        length += 1;
    }
    random_string(length)
}

/// `must_update_salt`: whether so many characters have less entropy than that.
#[expect(clippy::cast_precision_loss, reason = "the length of an encoded password is bounded")]
pub(super) fn is_weak(length: usize, entropy: u32) -> bool {
    length as f64 * (ALPHABET.len() as f64).log2() < f64::from(entropy)
}

#[cfg(test)]
mod tests {
    use super::{ALPHABET, is_weak, random_string, salt};

    #[test]
    fn salts_have_the_length_of_django_s() {
        for (entropy, length) in
            [(0, 0), (1, 1), (71, 12), (128, 22), (130, 22), (131, 23), (256, 43)]
        {
            assert_eq!(salt(entropy).len(), length, "{entropy} bits");
        }
        assert!(is_weak(21, 128) && !is_weak(22, 128));
    }

    #[test]
    fn random_text_uses_the_whole_alphabet_and_nothing_else() {
        let text = random_string(20_000);
        assert_eq!(text.len(), 20_000);
        for letter in ALPHABET {
            let share = text.bytes().filter(|byte| byte == letter).count();
            // 322 on average.
            assert!((150..600).contains(&share), "{} times {:?}", share, char::from(*letter));
        }
        assert!(text.bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
