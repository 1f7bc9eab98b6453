//! Errors of memcached, made fit to be shown and logged.

use std::io;

use thiserror::Error;

use crate::codec::cache::InvalidCacheKey;
use crate::session::StoreError;

/// What is inside a [`StoreError`] of [`MemcachedCache`](super::MemcachedCache).
///
/// No variant holds text that a server sent, which might repeat a key or a session.
///
/// # Example
///
/// ```
/// use django_session::StoreError;
/// use django_session::store::MemcachedError;
///
/// /// Whether the session has outgrown the server's `-I`.
/// fn is_too_large(error: &StoreError) -> bool {
///     let StoreError::Backend(source) = error else { return false };
///     matches!(source.downcast_ref(), Some(MemcachedError::TooLarge))
/// }
/// # assert!(is_too_large(&StoreError::backend(MemcachedError::TooLarge)));
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MemcachedError {
    /// Connecting took longer than [`with_connect_timeout`](super::MemcachedCache::with_connect_timeout)
    /// allows. Nothing was sent.
    #[error("connecting to the memcached server took too long")]
    ConnectTimedOut,
    /// memcached has no room for such a key: look at `KEY_PREFIX` and `KEY_FUNCTION`.
    #[error("memcached takes no such key")]
    InvalidKey(#[source] InvalidCacheKey),
    /// There is no way to the server, or it closed the connection.
    #[error("the connection to the memcached server failed: {0}")]
    Io(io::Error),
    /// What the server sent is no reply to what it was asked.
    #[error("the memcached server sent what is no reply")]
    MalformedReply,
    /// All connections were in use for as long as an operation waits. Nothing was sent.
    #[error("all connections to the memcached server are in use")]
    NoConnection,
    /// The server is out of memory and may not evict. The entry is what it was.
    #[error("the memcached server is out of memory")]
    OutOfMemory,
    /// The server refused for another reason.
    #[error("the memcached server refused: {kind}; its message may hold values")]
    Refused {
        /// `ERROR`, `CLIENT_ERROR` or `SERVER_ERROR`.
        kind: &'static str,
    },
    /// The server took longer than [`with_timeout`](super::MemcachedCache::with_timeout) allows.
    #[error("the memcached server took too long")]
    TimedOut,
    /// The entry is larger than the server's option `-I` allows, one megabyte if it has none. The entry is
    /// what it was.
    #[error("the entry is larger than the memcached server takes (its option -I)")]
    TooLarge,
    /// The server has as many clients as its option `-c` allows.
    #[error("the memcached server has too many connections (its option -c)")]
    TooManyConnections,
    /// The server asks for a password, of which this client has none.
    #[error("the memcached server asks for a password")]
    Unauthenticated,
    /// A write was sent again after the connection broke, and what came of the first time is not known.
    #[error(
        "the connection to the memcached server failed, and the write may have been done or not"
    )]
    Unknown,
    /// The entry is larger than [`with_max_value_size`](super::MemcachedCache::with_max_value_size).
    #[error("the entry is larger than {limit} bytes")]
    ValueTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
}

impl From<io::Error> for MemcachedError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<MemcachedError> for StoreError {
    fn from(error: MemcachedError) -> Self {
        match &error {
            MemcachedError::ConnectTimedOut | MemcachedError::TimedOut => {
                Self::TimedOut(error.into())
            }
            MemcachedError::Io(source) if source.kind() == io::ErrorKind::TimedOut => {
                Self::TimedOut(error.into())
            }
            MemcachedError::Io(_) | MemcachedError::Unknown => Self::Unreachable(error.into()),
            MemcachedError::NoConnection | MemcachedError::TooManyConnections => {
                Self::Busy(error.into())
            }
            _ => Self::Backend(error.into()),
        }
    }
}

/// The `LOCATION` names no servers. What it holds is not repeated.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemcachedLocationError {
    /// It is empty.
    #[error("the LOCATION of the memcached servers is empty")]
    Empty,
    /// A server in it is neither `host`, `host:port`, `[address]:port` nor `unix:/path`.
    #[error("server {number} of LOCATION is none of host, host:port, [address]:port, unix:/path")]
    Malformed {
        /// Which one, counted from one.
        number: usize,
    },
}
