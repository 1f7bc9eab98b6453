//! What can go wrong when somebody is to be recognised. That nobody is logged in is none of it.

use thiserror::Error;

use super::hashers::HasherError;
use super::primary_key::InvalidPrimaryKey;
use crate::session::{SessionError, SettingsError, StoreError};

/// It could not be found out who the user is.
///
/// Neither "nobody" nor "refused": an outage never looks like a logout.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The session is one of another user model (Django's `ValidationError`).
    #[error(transparent)]
    InvalidPrimaryKey(#[from] InvalidPrimaryKey),
    /// What is stored as a password cannot be checked here.
    #[error("the password cannot be checked")]
    Password(#[source] HasherError),
    /// The session could not be loaded or changed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Something that has to be set is not.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A backend is code of the site, of which nothing is known here.
    #[error(
        "an authentication backend of the site's own would have to be asked, and what it does is not \
         known here (AuthBackend::like says it)"
    )]
    UnknownBackend,
    /// The users could not be asked.
    #[error("the users cannot be looked up")]
    Users(#[source] StoreError),
}

impl AuthError {
    /// Whether a store failed, so that nothing is known about who it is.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Session(SessionError::Store(error)) | Self::Users(error) => error.is_outage(),
            _ => false,
        }
    }
}
