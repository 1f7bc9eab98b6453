//! What a place where users are must do: the trait [`UserStore`].

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;

use super::primary_key::PrimaryKey;
use crate::session::{DateTime, StoreError};

/// A row of the user model. Fields that the model does not have are as Django takes them.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserRecord {
    /// The primary key.
    pub pk: PrimaryKey,
    /// The natural key, `USERNAME_FIELD`.
    pub username: String,
    /// The password field, which is a hash; `None` if the model has none, and sessions of its users no
    /// auth hash.
    pub password: Option<String>,
    /// `is_active`; true if the model has none.
    pub is_active: bool,
    /// `is_staff`; false if the model has none.
    pub is_staff: bool,
    /// `is_superuser`; false if the model has none.
    pub is_superuser: bool,
}

impl UserRecord {
    /// An active user without any rights.
    pub fn new(pk: PrimaryKey, username: impl Into<String>, password: Option<String>) -> Self {
        Self {
            pk,
            username: username.into(),
            password,
            is_active: true,
            is_staff: false,
            is_superuser: false,
        }
    }
}

/// Does not show who it is, nor the password's hash.
impl fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRecord").finish_non_exhaustive()
    }
}

/// A place where users are.
///
/// A failure of the backend is an error, never "no such user".
#[async_trait]
pub trait UserStore: fmt::Debug + Send + Sync + 'static {
    /// The user with this primary key, active or not.
    ///
    /// # Errors
    ///
    /// [`StoreError::is_outage`].
    async fn get(&self, pk: &PrimaryKey) -> Result<Option<UserRecord>, StoreError>;

    /// The user with this name, active or not.
    ///
    /// # Errors
    ///
    /// As [`UserStore::get`].
    async fn get_by_natural_key(&self, username: &str) -> Result<Option<UserRecord>, StoreError>;

    /// The permissions that a user has by itself or by its groups, as `app_label.codename`. Whether the
    /// user is active or a superuser is not looked at.
    ///
    /// # Errors
    ///
    /// As [`UserStore::get`].
    async fn permissions(&self, pk: &PrimaryKey) -> Result<BTreeSet<String>, StoreError>;

    /// Notes that a user has logged in now; nothing if the model has no `last_login`.
    ///
    /// # Errors
    ///
    /// As [`UserStore::get`].
    async fn set_last_login(&self, pk: &PrimaryKey, now: DateTime) -> Result<(), StoreError>;

    /// Replaces the password field of a user, if it still is what it was.
    ///
    /// # Errors
    ///
    /// As [`UserStore::get`].
    async fn set_password(
        &self,
        pk: &PrimaryKey,
        before: &str,
        password: &str,
    ) -> Result<bool, StoreError>;
}
