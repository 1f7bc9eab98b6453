//! Django's bytes: session data to signed text and back. No I/O, no clock.
//!
//! [`SessionCodec`] mirrors `SessionBase.encode` and `decode` of `django.contrib.sessions`, with the
//! fallback keys of 4.1, and reads the forms of earlier releases where they are asked for. It differs in
//! four points: a limit on what a payload inflates to, errors in place of an empty session, a faster
//! compressor whose output Django reads, and pickles that are data ([`graph`], [`pickle`]).
//! `tests/fixtures/vectors` holds what Django releases from 1.1 to 6.1 wrote.

mod armor;
#[cfg(feature = "cache")]
pub mod cache;
mod de;
mod deflate;
mod diagnose;
mod error;
mod format;
pub mod graph;
pub(crate) mod json;
mod legacy;
pub mod pickle;
mod ser;
mod session_codec;
pub mod signing;
mod value;

pub(crate) use de::from_json as value_from_json;
pub(crate) use ser::to_json as value_to_json;

pub use armor::Compression;
pub use diagnose::{Diagnosis, Hints, Missing};
pub use error::{DecodeError, EmptySecretKey, EncodeError, Part};
pub use format::{Format, Serializer};
pub use json::{JsonError, JsonErrorKind, MAX_DEPTH, MAX_DEPTH_WRITTEN, MAX_INTEGER_DIGITS};
pub use session_codec::{Decoded, DecodedPayload, SessionCodec};
pub use signing::{KeyMatch, MaxAge, SecretKey, Signer, TimestampSigner, Unsigned};
pub use value::{Name, SessionData, ValueError};

/// The salt of Django's own session engines, and of every store class called `SessionStore`.
pub const SESSION_SALT: &str = "django.contrib.sessions.SessionStore";
/// The salt of `django.contrib.sessions.backends.signed_cookies`, whatever the class.
pub const SIGNED_COOKIES_SALT: &str = "django.contrib.sessions.backends.signed_cookies";

/// The largest payload that is inflated unless [`SessionCodec::with_max_size`] says otherwise: 64 MiB.
pub const DEFAULT_MAX_SIZE: usize = 64 << 20;
