//! The secrets that sign: `SECRET_KEY` and `SECRET_KEY_FALLBACKS`.

use std::fmt;

use zeroize::Zeroizing;

use crate::codec::error::EmptySecretKey;

/// A `SECRET_KEY`, or one of `SECRET_KEY_FALLBACKS`.
///
/// It is never empty, never printed and wiped from memory when dropped.
///
/// # Example
///
/// ```
/// use django_session::SecretKey;
///
/// let key = SecretKey::new("correct horse battery staple")?;
/// assert_eq!(format!("{key:?}"), "SecretKey(..)");
/// assert!(SecretKey::new("").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SecretKey(Zeroizing<Box<[u8]>>);

impl SecretKey {
    /// Takes the key as Django has it: the UTF-8 of a text, or the bytes of a bytes setting.
    ///
    /// # Errors
    ///
    /// [`EmptySecretKey`] if there is nothing in it: anybody could sign with that.
    pub fn new(key: impl AsRef<[u8]>) -> Result<Self, EmptySecretKey> {
        let key = key.as_ref();
        if key.is_empty() {
            return Err(EmptySecretKey);
        }
        Ok(Self(Zeroizing::new(key.into())))
    }

    /// The bytes of the key, for code that derives something else from it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key behind a fixed text.
    pub(super) fn prefixed(&self, prefix: &[u8]) -> Self {
        let mut key = Vec::with_capacity(prefix.len() + self.0.len());
        key.extend_from_slice(prefix);
        key.extend_from_slice(&self.0);
        // The capacity is exact, so nothing is copied and left behind.
        Self(Zeroizing::new(key.into_boxed_slice()))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// Which key a signature was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyMatch {
    /// The primary key, `SECRET_KEY`.
    Primary,
    /// The fallback key with this index in `SECRET_KEY_FALLBACKS`.
    Fallback(usize),
}

impl KeyMatch {
    /// The key at this place of a list that has the primary key first.
    pub(crate) fn at(index: usize) -> Self {
        index.checked_sub(1).map_or(Self::Primary, Self::Fallback)
    }
}
