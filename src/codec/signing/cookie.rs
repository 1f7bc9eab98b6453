//! Signed cookies: `HttpResponse.set_signed_cookie` and `HttpRequest.get_signed_cookie`.
//!
//! The secret is `SECRET_KEY` behind `django.http.cookies`; the salt comes from the cookie's name and
//! the salt argument. Up to 5.2.14 and 6.0.5 it was one after the other, so that name `ab` without salt
//! and name `a` with salt `b` signed alike. Since 5.2.15, 6.0.6 and 6.1 the length of the salt argument
//! is in it; the older rule is read where `SIGNED_COOKIE_LEGACY_SALT_FALLBACK` is set, by default in
//! 5.2 and 6.0 but not in 6.1. `SIGNING_BACKEND` is taken to be Django's own `TimestampSigner`.

use std::fmt;

use super::key::{KeyMatch, SecretKey};
use super::salted_hmac::Algorithm;
use super::timestamp::{MaxAge, TimestampSigner, Unsigned};
use crate::codec::error::DecodeError;

/// The salt of `get_cookie_signer` where none is given.
pub const COOKIE_SIGNER_SALT: &str = "django.core.signing.get_cookie_signer";

/// Keeps what signs cookies apart from everything else that `SECRET_KEY` signs.
const KEY_PREFIX: &[u8] = b"django.http.cookies";

/// The signer of `django.core.signing.get_cookie_signer`: its keys are those of the settings behind
/// `django.http.cookies`.
///
/// Signed cookies themselves are what [`CookieSigner`] is for.
pub fn cookie_signer<'a>(
    key: &SecretKey,
    fallbacks: impl IntoIterator<Item = &'a SecretKey>,
    salt: &str,
) -> TimestampSigner {
    let fallbacks: Vec<_> =
        fallbacks.into_iter().map(|fallback| fallback.prefixed(KEY_PREFIX)).collect();
    TimestampSigner::new(&key.prefixed(KEY_PREFIX), salt).with_fallbacks(&fallbacks)
}

/// How the salt of a cookie comes from its name and the salt argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CookieSalt {
    /// One after the other, as up to Django 5.2.14 and 6.0.5. A value signed for one cookie is then
    /// good for any other whose name and salt make the same text.
    Legacy,
    /// With the length of the salt argument, since Django 5.2.15, 6.0.6 and 6.1.
    #[default]
    V2,
}

impl CookieSalt {
    fn salt(self, name: &str, salt: &str) -> String {
        match self {
            Self::Legacy => format!("{name}{salt}"),
            // Python counts code points.
            Self::V2 => format!("django.http.cookies.v2:{}:{salt}{name}", salt.chars().count()),
        }
    }
}

/// Signs and checks the values of one cookie.
///
/// # Example
///
/// Django 6.1 wrote this value with `response.set_signed_cookie("theme", "dark", salt="ui")`, at
/// 1,700,000,000 seconds:
///
/// ```
/// use django_session::{SecretKey, signing::CookieSigner};
///
/// let signer = CookieSigner::new(&SecretKey::new("secret")?, "theme", "ui");
/// let signed = "dark:1r31eq:i5vc7pCjfqX7YHrxg26iMLMcmOYN-nK8jzsBUy4Xr0U";
/// assert_eq!(signer.sign("dark", 1_700_000_000), signed);
/// assert_eq!(signer.unsign(signed, None)?.value, "dark");
///
/// let other = CookieSigner::new(&SecretKey::new("secret")?, "theme", "");
/// assert!(other.unsign(signed, None).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "set_signed_cookie")]
#[doc(alias = "get_signed_cookie")]
pub struct CookieSigner {
    name: Box<str>,
    salt: Box<str>,
    /// The rule that signs is first.
    signers: Vec<(CookieSalt, TimestampSigner)>,
}

impl CookieSigner {
    /// A signer for the cookie of this name, with the `salt` that both of Django's methods take,
    /// empty by default.
    pub fn new(key: &SecretKey, name: &str, salt: &str) -> Self {
        let rule = CookieSalt::default();
        let signer = cookie_signer(key, [], &rule.salt(name, salt));
        Self { name: name.into(), salt: salt.into(), signers: vec![(rule, signer)] }
    }

    /// Adds `SECRET_KEY_FALLBACKS`: accepted in this order, never used to sign.
    #[must_use]
    pub fn with_fallbacks<'a>(self, keys: impl IntoIterator<Item = &'a SecretKey>) -> Self {
        let keys: Vec<_> = keys.into_iter().map(|key| key.prefixed(KEY_PREFIX)).collect();
        self.map(|signer| signer.with_fallbacks(&keys))
    }

    /// Signs by another rule, and accepts no longer what was signed by the one before. With
    /// [`CookieSalt::Legacy`] a Django reads it that does not know the newer rule.
    #[must_use]
    pub fn with_salt(mut self, rule: CookieSalt) -> Self {
        let (_, signer) = self.signers.remove(0);
        self.signers.retain(|(other, _)| *other != rule);
        let signer = signer.with_salt(rule.salt(&self.name, &self.salt));
        self.signers.insert(0, (rule, signer));
        self
    }

    /// Accepts values signed by these rules too. [`CookieSalt::Legacy`] is what
    /// `SIGNED_COOKIE_LEGACY_SALT_FALLBACK` allows.
    #[must_use]
    pub fn accept_salts(mut self, rules: impl IntoIterator<Item = CookieSalt>) -> Self {
        for rule in rules {
            if self.signers.iter().all(|(other, _)| *other != rule) {
                let signer = self.signers[0].1.clone();
                let signer = signer.with_salt(rule.salt(&self.name, &self.salt));
                self.signers.push((rule, signer));
            }
        }
        self
    }

    /// Signs with another algorithm: before 3.1 Django reads [`Algorithm::Sha1`] only.
    #[must_use]
    pub fn with_algorithm(self, algorithm: Algorithm) -> Self {
        self.map(|signer| signer.with_algorithm(algorithm))
    }

    /// Accepts signatures of these algorithms too, as Django 3.1 and 3.2 do with
    /// [`Algorithm::Sha1`].
    #[must_use]
    pub fn accept_algorithms(self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let algorithms: Vec<_> = algorithms.into_iter().collect();
        self.map(|signer| signer.accept_algorithms(algorithms.iter().copied()))
    }

    /// The value of the cookie, before any quoting; `now` in Unix seconds.
    pub fn sign(&self, value: &str, now: i64) -> String {
        self.signers[0].1.sign(value, now)
    }

    /// Checks the value of the cookie and returns what was signed.
    ///
    /// # Errors
    ///
    /// Those of [`TimestampSigner::unsign`]. As in Django, a value that is right but too old is not
    /// tried by another rule.
    pub fn unsign<'a>(
        &self,
        signed: &'a str,
        limit: Option<MaxAge>,
    ) -> Result<UnsignedCookie<'a>, DecodeError> {
        for (salt, signer) in &self.signers {
            match signer.unsign(signed, limit) {
                Ok(Unsigned { value, key, algorithm, signed_at }) => {
                    return Ok(UnsignedCookie { value, key, algorithm, salt: *salt, signed_at });
                }
                Err(DecodeError::BadSignature) => {}
                Err(error) => return Err(error),
            }
        }
        Err(DecodeError::BadSignature)
    }

    fn map(mut self, change: impl Fn(TimestampSigner) -> TimestampSigner) -> Self {
        let signers = std::mem::take(&mut self.signers);
        self.signers = signers.into_iter().map(|(rule, signer)| (rule, change(signer))).collect();
        self
    }
}

/// What [`CookieSigner::unsign`] found.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnsignedCookie<'a> {
    /// The text that was signed.
    pub value: &'a str,
    /// The key that matched.
    pub key: KeyMatch,
    /// The algorithm of the signature.
    pub algorithm: Algorithm,
    /// The rule of its salt.
    pub salt: CookieSalt,
    /// Unix seconds at which it was signed.
    pub signed_at: i64,
}

/// Shows all but the value.
impl fmt::Debug for UnsignedCookie<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsignedCookie")
            .field("key", &self.key)
            .field("algorithm", &self.algorithm)
            .field("salt", &self.salt)
            .field("signed_at", &self.signed_at)
            .finish_non_exhaustive()
    }
}
