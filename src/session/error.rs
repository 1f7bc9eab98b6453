//! Errors of stores and of sessions.

use std::error::Error as StdError;

use thiserror::Error;

use super::expiry::ExpiryError;
use crate::codec::{DecodeError, EncodeError, ValueError};

/// A store could not do what it was asked.
///
/// An outage never looks like a session that is not there; [`StoreError::is_outage`] tells it from the
/// rest, [`StoreError::is_retryable`] whether another try may help.
///
/// The sources are logged by the web layer, so their texts must not hold session keys or data.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The server refused, in a way that will not change by itself: no such table, no rights, read-only,
    /// disk full. The session may well exist.
    #[error("the session store failed")]
    Backend(#[source] Box<dyn StdError + Send + Sync>),
    /// The server gave up in favour of somebody else: deadlock, serialization failure, too many
    /// connections, a server that is starting or changing roles. Nothing was changed.
    #[error("the session store is busy")]
    Busy(#[source] Box<dyn StdError + Send + Sync>),
    /// What is in the cache is no session.
    #[cfg(feature = "cache")]
    #[error("the cached session cannot be read")]
    CacheDecode(#[source] crate::codec::cache::CacheDecodeError),
    /// The session holds what the cache's serializer has no form for.
    #[cfg(feature = "cache")]
    #[error("the session cannot be written to the cache")]
    CacheEncode(#[source] crate::codec::cache::CacheEncodeError),
    /// Somebody else has saved the session since it was loaded, or deleted it. Nothing was changed.
    #[error("the session was changed by another request")]
    Conflict,
    /// The key is taken already; draw another one (Django's `CreateError`).
    #[error("a session with this key exists already")]
    Create,
    /// What is stored is not a session that any of the keys signed.
    #[error("the stored session cannot be read")]
    Decode(#[source] DecodeError),
    /// The session holds what the store's serializer has no form for.
    #[error("the session cannot be written")]
    Encode(#[source] EncodeError),
    /// The expiry has no representation in the store.
    #[error("the expire date cannot be stored")]
    ExpireDate(#[source] ExpiryError),
    /// There was no answer in time. What was to be written may have been written or not.
    #[error("the session store did not answer in time")]
    TimedOut(#[source] Box<dyn StdError + Send + Sync>),
    /// The session is longer than what it is kept in: a cookie that browsers would drop.
    #[error("the session takes {length} bytes, and there is room for {limit}")]
    TooLarge {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// There is no way to the server, or it broke. What was to be written may have been written or not.
    #[error("the session store cannot be reached")]
    Unreachable(#[source] Box<dyn StdError + Send + Sync>),
    /// The store has no such operation.
    #[error("the store does not support {operation}")]
    Unsupported {
        /// The operation's name.
        operation: &'static str,
    },
    /// There is no session to update: it was deleted meanwhile (Django's `UpdateError`).
    #[error("the session was deleted")]
    Update,
}

impl StoreError {
    /// Wraps an error of the server.
    pub fn backend(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Backend(source.into())
    }

    /// Whether the key is taken.
    pub fn is_create(&self) -> bool {
        matches!(self, Self::Create)
    }

    /// Whether the session is another one by now than was loaded, or gone.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict)
    }

    /// Whether what is stored is no session, to Django neither, so that nothing is lost if it is
    /// replaced. Beyond a limit, or of a serializer that was not asked for, it may be one.
    pub fn is_corrupt(&self) -> bool {
        match self {
            #[cfg(feature = "cache")]
            Self::CacheDecode(error) => !error.is_too_large(),
            Self::Decode(error) => !error.is_configuration(),
            _ => false,
        }
    }

    /// Whether the session to update is gone.
    pub fn is_update(&self) -> bool {
        matches!(self, Self::Update)
    }

    /// Whether the store itself failed, so that nothing is known about the session.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Backend(_) | Self::Busy(_) | Self::TimedOut(_) | Self::Unreachable(_))
    }

    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Conflict | Self::TimedOut(_) | Self::Unreachable(_))
    }
}

/// An operation on a session failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The value has no form that Django reads.
    #[error("the value cannot be stored in a session")]
    Encode(#[from] EncodeError),
    /// The stored `_session_expiry` gives no date; change it to save the session.
    #[error("the session has no valid expiry")]
    Expiry(#[from] ExpiryError),
    /// The store failed, or the session was deleted meanwhile.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored value is of another type than asked for.
    #[error("the session value is of another type")]
    Value(#[from] ValueError),
}

impl SessionError {
    /// Whether the session was deleted by another request before this one could save it
    /// (`SessionInterrupted`).
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Store(StoreError::Update))
    }
}
