//! A user whom a session, or a password, has made known.

use std::fmt;
use std::sync::Arc;

use super::interface::UserRecord;
use super::primary_key::PrimaryKey;

/// A user: one row of the user model, and the backend that let the user in.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub(super) record: Arc<UserRecord>,
    pub(super) backend: Arc<str>,
}

impl User {
    /// The primary key.
    pub fn pk(&self) -> &PrimaryKey {
        &self.record.pk
    }

    /// The natural key, `USERNAME_FIELD`: `username` of Django's own user model.
    #[doc(alias = "get_username")]
    pub fn username(&self) -> &str {
        &self.record.username
    }

    /// Whether the user may do anything at all; true where the model has no such field.
    pub fn is_active(&self) -> bool {
        self.record.is_active
    }

    /// Whether the user may enter the admin.
    pub fn is_staff(&self) -> bool {
        self.record.is_staff
    }

    /// Whether the user may do everything, as long as the user is active.
    pub fn is_superuser(&self) -> bool {
        self.record.is_superuser
    }

    /// The dotted path of the backend that let the user in, one of `AUTHENTICATION_BACKENDS`.
    pub fn backend(&self) -> &str {
        &self.backend
    }
}

/// Does not show who it is.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("backend", &self.backend).finish_non_exhaustive()
    }
}
