//! Salted signatures, as `django.core.signing` makes them since Django 3.1.
//!
//! `TimestampSigner` writes `value:timestamp:signature`. The key of the HMAC is one SHA-256 digest of
//! salt, the word `signer` and the secret, whatever their lengths; the salt of a session row is
//! `django.contrib.sessions.SessionStore`. Fallback keys (Django 4.1) are tried in order and never
//! used for writing. Proved by `tests/fixtures/vectors/{modern_json,fallback_keys,negative}`.

mod signer;

pub use signer::{KeyMatch, MaxAge, SecretKey, Signer, TimestampSigner, Unsigned};
