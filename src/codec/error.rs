//! What can go wrong between session data and its signed text.
//!
//! No message carries a key, a cookie or any part of a payload.

use thiserror::Error;

use super::format::Serializer;
use super::json::JsonError;
use super::pickle::{PickleError, PickleErrorKind};
use super::value::ValueError;

/// A signed text that could not be turned into session data.
///
/// [`Session`](crate::Session) turns each of these but [`DecodeError::TooLarge`] into an empty session,
/// as Django does; the codec itself never hides one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No key signed this text: it was tampered with, or the secret key or the salt differs.
    #[error("the signature does not match any key")]
    BadSignature,
    /// The payload is valid JSON, but not of the type asked for; only [`signing`](super::signing)
    /// asks for one.
    #[error("the payload is not of the type asked for")]
    Deserialize(#[source] ValueError),
    /// The signature is right but the text inside is not what Django writes.
    #[error("the signed text is malformed: {part}")]
    Malformed {
        /// The part that could not be read.
        part: Part,
    },
    /// The payload is valid JSON, but not an object; or a pickle, but not of a dict.
    #[error("the session is {found}, not an object")]
    NotAnObject {
        /// The kind of value found instead.
        found: &'static str,
    },
    /// The payload is no pickle, or refers to something outside itself.
    #[error("the payload is not a pickle that can be read")]
    Pickle(#[from] PickleError),
    /// The payload is not what Django's `JSONSerializer` reads.
    #[error("the payload is not valid JSON")]
    Serializer(#[source] JsonError),
    /// The signature is right but older than allowed.
    #[error("the signature is {age} seconds old, more than {max_age}")]
    SignatureExpired {
        /// Whole seconds since the value was signed.
        age: i64,
        /// Whole seconds that were allowed.
        max_age: i64,
    },
    /// The payload inflates to more than the configured limit.
    #[error("the payload inflates to more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes, see [`SessionCodec::with_max_size`](super::SessionCodec::with_max_size).
        limit: usize,
    },
    /// Another serializer wrote the payload; it is read where it is accepted.
    #[error("the payload is {found}, not {expected}")]
    WrongSerializer {
        /// The serializer of the codec.
        expected: Serializer,
        /// The one that wrote the payload.
        found: Serializer,
    },
}

impl DecodeError {
    /// Whether no key matched, as opposed to bad content under a good signature.
    ///
    /// Django logs the former as `Session data corrupted` and is silent about the latter.
    pub fn is_bad_signature(&self) -> bool {
        matches!(self, Self::BadSignature | Self::SignatureExpired { .. })
    }

    /// Whether it is the configuration of the codec that stands in the way, a limit or the serializer:
    /// the site itself may well read this session.
    pub fn is_configuration(&self) -> bool {
        self.is_too_large() || matches!(self, Self::WrongSerializer { .. })
    }

    /// Whether only the configured limit stands in the way: Django could read this session.
    pub fn is_too_large(&self) -> bool {
        match self {
            Self::TooLarge { .. } => true,
            Self::Pickle(error) => {
                matches!(error.kind(), PickleErrorKind::TooLarge | PickleErrorKind::TooDeep)
            }
            _ => false,
        }
    }
}

/// A part of the signed text, named in [`DecodeError::Malformed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The url-safe base64 of the payload.
    Base64,
    /// The base62 time stamp, or the separator before it.
    Timestamp,
    /// The zlib stream of a compressed payload.
    Zlib,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Base64 => "the payload is not base64",
            Self::Timestamp => "the time stamp is not base62",
            Self::Zlib => "the payload is not a complete zlib stream",
        })
    }
}

/// Session data, or a value meant for it, that Django could not read back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Objects contain each other in a way that makes the pickle many times longer than it was.
    #[error("the session cannot be pickled in bounded space")]
    Pickle(#[from] PickleError),
    /// The value's own `Serialize` failed.
    #[error("the value refuses to be serialized")]
    Serialize,
    /// More than [`MAX_DEPTH`](super::json::MAX_DEPTH_WRITTEN) lists and objects inside each other.
    #[error("the value nests more than {limit} levels deep")]
    TooDeep {
        /// The number of levels Django reads on every Python.
        limit: usize,
    },
    /// The value has no JSON form.
    #[error("{kind} cannot be stored in a JSON session")]
    Unrepresentable {
        /// The kind of value.
        kind: &'static str,
    },
}

/// The secret key was empty.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the secret key must not be empty")]
pub struct EmptySecretKey;
