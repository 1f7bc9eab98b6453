//! Salted signatures (`django.core.signing`), and what Django builds on them.
//!
//! | here | in Django |
//! |---|---|
//! | [`Signer`], [`TimestampSigner`] | the classes of that name: `value:signature`, `value:timestamp:signature` |
//! | [`dumps`], [`loads`], `sign_object`, `unsign_object` | the same, with the JSON serializer |
//! | [`CookieSigner`], [`cookie_signer`] | `set_signed_cookie` and `get_signed_cookie`, `get_cookie_signer` |
//! | [`PasswordResetTokenGenerator`] | `django.contrib.auth.tokens` |
//!
//! The key of the HMAC is one digest of salt, the word `signer` and the secret, whatever their lengths;
//! the salt of a session row is `django.contrib.sessions.SessionStore`. Fallback keys (Django 4.1) are
//! tried in order and never used for writing.
//!
//! SHA-256 is what Django writes since 3.1. What an older release wrote, or a weaker rule allowed, is
//! read only where the caller lists it: [`Signer::accept_algorithms`],
//! [`CookieSigner::accept_salts`], [`PasswordResetTokenGenerator::accept_forms`]. The answer then tells
//! which it was.
//!
//! Proved by `tests/fixtures/vectors/{signing,signed_cookies,modern_json,fallback_keys,negative}`.
//!
#![doc = include_str!("../../../docs/signing.md")]

mod cookie;
mod key;
mod object;
pub(crate) mod salted_hmac;
mod signer;
mod timestamp;
mod token;

pub use cookie::{COOKIE_SIGNER_SALT, CookieSalt, CookieSigner, UnsignedCookie, cookie_signer};
pub use key::{KeyMatch, SecretKey};
pub use object::{DEFAULT_SALT, dumps, loads};
pub use salted_hmac::Algorithm;
pub use signer::{Signer, UnsafeSeparator, Verified};
pub use timestamp::{MaxAge, TimestampSigner, Unsigned};
pub use token::{
    DEFAULT_TIMEOUT, PasswordResetTokenGenerator, PasswordResetUser, TokenForm, TokenMatch,
};
