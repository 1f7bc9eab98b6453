//! Who the user of a session is, as `django.contrib.auth` has it: the session says who has logged in,
//! the user's row says whether that still counts.
//!
//! | question | answer | Django's counterpart |
//! |---|---|---|
//! | Whose session is it? | [`Auth::get_user`] | `get_user` |
//! | What does logging in do to a session? | [`Auth::login`], [`Auth::logout`] | `login`, `logout` |
//! | Who has this name and password? | [`Auth::authenticate`] | `authenticate` |
//! | Is this the password? | [`hashers::PasswordHashers::check_password`] | `check_password` |
//! | What may the user do? | [`Auth::has_perm`] | `PermissionsMixin.has_perm` |
//!
//! Where users are is a [`UserStore`], Django's tables a `store::SqlUsers`.

mod authenticate;
mod cache;
mod error;
mod exported;
mod get_user;
pub mod hashers;
mod interface;
mod login;
mod permissions;
mod primary_key;
mod settings;
mod user;
mod user_model;

use std::fmt;
use std::sync::Arc;

pub use self::error::AuthError;
pub use self::get_user::{Authentication, Refusal};
pub use self::interface::{UserRecord, UserStore};
pub use self::primary_key::{InvalidPrimaryKey, PrimaryKey, PrimaryKeyType};
pub use self::settings::{AuthBackend, AuthBackendKind, AuthSettings};
pub use self::user::User;
pub use self::user_model::{PermissionTables, UserModel};

/// What `django.contrib.auth` does with sessions and users, for a site with certain settings.
///
/// Clones share the users' store.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use django_session::auth::{Auth, AuthSettings, Authentication};
/// use django_session::store::{MemoryStore, SqlUsers, sqlx};
/// use django_session::{SecretKey, Session, SessionSettings};
///
/// # let pool = sqlx::sqlite::SqlitePoolOptions::new()
/// #     .max_connections(1)
/// #     .connect("sqlite::memory:")
/// #     .await?;
/// # sqlx::raw_sql(
/// #     "CREATE TABLE auth_user (id integer PRIMARY KEY, username text, password text, \
/// #      is_active bool, is_staff bool, is_superuser bool, last_login datetime);
/// #      INSERT INTO auth_user VALUES (42, 'ann', 'pbkdf2_sha256$…', 1, 0, 0, NULL)",
/// # ).execute(&pool).await?;
/// let key = SecretKey::new("the site's SECRET_KEY")?;
/// let settings = Arc::new(SessionSettings::default().with_secret_key(key));
/// let sessions = Arc::new(MemoryStore::new(settings.codec()?));
/// let auth_settings = AuthSettings::new(settings.clone());
/// let users = SqlUsers::new(pool, &auth_settings.user_model);
/// let auth = Auth::new(users, auth_settings);
///
/// let session = Session::new(sessions, settings, None);
/// assert_eq!(auth.get_user(&session).await?, Authentication::Anonymous);
///
/// let ann = auth.user_by_name("ann", "django.contrib.auth.backends.ModelBackend").await?.unwrap();
/// auth.login(&session, &ann).await?;
/// assert_eq!(auth.get_user(&session).await?.user().unwrap().pk().as_str(), "42");
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct Auth {
    users: Arc<dyn UserStore>,
    settings: Arc<AuthSettings>,
    cache: Option<cache::UserCache>,
}

impl Auth {
    /// Looks for users in this store.
    pub fn new(users: impl UserStore, settings: impl Into<Arc<AuthSettings>>) -> Self {
        Self { users: Arc::new(users), settings: settings.into(), cache: None }
    }

    /// A user whom a backend has let in, such as one that a form has asked for a password.
    pub fn user(&self, record: UserRecord, backend: &str) -> User {
        User { record: record.into(), backend: backend.into() }
    }

    /// The user with this name, whom this backend is to let in, whether it has looked at a password or
    /// not.
    ///
    /// # Errors
    ///
    /// [`AuthError::Users`].
    #[doc(alias = "get_by_natural_key")]
    pub async fn user_by_name(
        &self,
        username: &str,
        backend: &str,
    ) -> Result<Option<User>, AuthError> {
        let found = self.users.get_by_natural_key(username).await.map_err(AuthError::Users)?;
        Ok(found.map(|record| self.user(record, backend)))
    }

    /// The settings it follows.
    pub fn settings(&self) -> &AuthSettings {
        &self.settings
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("users", &self.users)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}
