//! Errors of stores and of sessions.

use std::error::Error as StdError;

use thiserror::Error;

use super::expiry::ExpiryError;
use crate::codec::{DecodeError, EncodeError, ValueError};

/// A store could not do what it was asked.
///
/// An outage is [`StoreError::Backend`]; it never looks like a session that is not there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database, or the way to it, failed. The session may well exist.
    ///
    /// The source is logged by the web layer, so its text must not hold session keys or data.
    #[error("the session store failed")]
    Backend(#[source] Box<dyn StdError + Send + Sync>),
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
    /// Wraps an error of the database.
    pub fn backend(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Backend(source.into())
    }

    /// Whether the key is taken.
    pub fn is_create(&self) -> bool {
        matches!(self, Self::Create)
    }

    /// Whether the session to update is gone.
    pub fn is_update(&self) -> bool {
        matches!(self, Self::Update)
    }

    /// Whether the store itself failed, so that nothing is known about the session.
    pub fn is_backend(&self) -> bool {
        matches!(self, Self::Backend(_))
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
