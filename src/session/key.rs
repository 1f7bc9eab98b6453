//! Session keys: what a client may send, and how a new one is drawn.

use std::fmt;
use std::sync::Arc;

/// The key under which a session is stored, and the value of the session cookie.
///
/// It opens the session, so it is a secret: `Debug` hides it, and nothing prints it.
///
/// # Example
///
/// ```
/// use django_session::SessionKey;
///
/// assert_eq!(SessionKey::parse("short"), None);
/// let key = SessionKey::generate();
/// assert_eq!(key.as_str().len(), 32);
/// assert_eq!(format!("{key:?}"), "SessionKey(..)");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(Arc<str>);

impl SessionKey {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    const LENGTH: usize = 32;

    /// Takes a key that a client sent, by Django's rule since 1.9: at least 8 characters, whatever
    /// they are. A key that breaks it counts as no key.
    #[doc(alias = "_validate_session_key")]
    pub fn parse(key: &str) -> Option<Self> {
        (key.chars().take(8).count() == 8).then(|| Self(key.into()))
    }

    /// Draws a new key: 32 characters of `a-z0-9`, each equally likely, from the system's generator.
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness to give, which no program survives safely.
    #[doc(alias = "_get_new_session_key")]
    pub fn generate() -> Self {
        let mut key = String::with_capacity(Self::LENGTH);
        let mut random = [0; 64];
        while key.len() < Self::LENGTH {
            #[expect(clippy::expect_used, reason = "a predictable key would be worse")]
            getrandom::fill(&mut random).expect("the system gives random bytes");
            // 252 is the largest multiple of 36 that a byte reaches; the rest would favour some.
            let fair = random.iter().filter(|&&byte| byte < 252);
            let letters = fair.map(|&byte| char::from(Self::ALPHABET[usize::from(byte) % 36]));
            key.extend(letters.take(Self::LENGTH - key.len()));
        }
        Self(key.into())
    }

    /// The key as text, for a cookie or a query.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::SessionKey;

    #[test]
    fn characters_count_not_bytes() {
        assert!(SessionKey::parse("éééééééé").is_some());
        assert!(SessionKey::parse("😀😀😀😀😀😀😀").is_none());
        assert!(SessionKey::parse("").is_none());
        assert!(SessionKey::parse("1234567").is_none());
        assert!(SessionKey::parse(&"x".repeat(300)).is_some());
    }

    #[test]
    fn new_keys_use_the_whole_alphabet_and_nothing_else() {
        let keys: String = (0..200).map(|_| SessionKey::generate().as_str().to_owned()).collect();
        assert_eq!(keys.len(), 200 * 32);
        for letter in SessionKey::ALPHABET {
            assert!(keys.contains(char::from(*letter)));
        }
        assert!(keys.bytes().all(|byte| SessionKey::ALPHABET.contains(&byte)));
    }
}
