//! What can go wrong with a value in a cache. No message carries any part of it.

use thiserror::Error;

use super::compressor::Compressor;
use super::msgpack::{MsgPackError, MsgPackErrorKind};
use crate::codec::error::EncodeError;
use crate::codec::json::JsonError;
use crate::codec::pickle::{PickleError, PickleErrorKind};

/// A value of a cache that could not be turned into session data.
///
/// Django's engines make an empty session of each of these, since they catch whatever the cache raises.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CacheDecodeError {
    /// The payload is not what `json.loads` reads.
    #[error("the cache value is not valid JSON")]
    Json(#[source] JsonError),
    /// The bytes are not what this backend writes.
    #[error("the cache value is malformed: {part}")]
    Malformed {
        /// The part that could not be read.
        part: CachePart,
    },
    /// The payload is not what msgpack reads.
    #[error("the cache value is not msgpack that can be read")]
    MsgPack(#[from] MsgPackError),
    /// The value is whole, but no session: those are mappings.
    #[error("the cache value is {found}, not a session")]
    NotASession {
        /// The kind of value found instead.
        found: &'static str,
    },
    /// The payload is no pickle, or refers to something outside itself.
    #[error("the cache value is not a pickle that can be read")]
    Pickle(#[from] PickleError),
    /// The value inflates to more than the configured limit.
    #[error("the cache value inflates to more than {limit} bytes")]
    TooLarge {
        /// The limit in bytes, see [`CacheCodec::with_max_size`](super::CacheCodec::with_max_size).
        limit: usize,
    },
}

impl CacheDecodeError {
    /// Whether only a limit stands in the way: Django could read this value.
    pub fn is_too_large(&self) -> bool {
        match self {
            Self::MsgPack(error) => error.kind() == MsgPackErrorKind::TooLarge,
            Self::Pickle(error) => {
                matches!(error.kind(), PickleErrorKind::TooLarge | PickleErrorKind::TooDeep)
            }
            Self::TooLarge { .. } => true,
            _ => false,
        }
    }
}

/// A part of a value, named in [`CacheDecodeError::Malformed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CachePart {
    /// The base64 of a `DatabaseCache`.
    Base64,
    /// The stream of this compressor.
    Compressed(Compressor),
    /// The expiry at the head of a file. Django takes an empty file as expired.
    Expiry,
    /// The flags of memcached.
    Flags,
    /// The UTF-8 around JSON.
    Utf8,
}

impl std::fmt::Display for CachePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Base64 => "it is not base64",
            Self::Compressed(Compressor::Gzip) => "it is not one complete gzip member",
            Self::Compressed(Compressor::Identity) => "it is not plain",
            Self::Compressed(Compressor::Lz4) => "it is not a complete LZ4 frame",
            Self::Compressed(Compressor::Lzma) => "it is not a complete xz stream",
            Self::Compressed(Compressor::Zlib) => "it is not a complete zlib stream",
            Self::Compressed(Compressor::Zstd) => "it is not a complete zstd frame",
            Self::Expiry => "it does not start with an expiry",
            Self::Flags => "its flags are unknown",
            Self::Utf8 => "it is not UTF-8",
        })
    }
}

/// A session that this cache could not give back to Django.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CacheEncodeError {
    /// It holds what msgpack has no form for, or what the Python side refuses to read.
    #[error("{kind} cannot be stored as msgpack")]
    MsgPack {
        /// The kind of value.
        kind: &'static str,
    },
    /// JSON has no form for it, or its pickle would be far longer than it was.
    #[error(transparent)]
    Payload(#[from] EncodeError),
}
