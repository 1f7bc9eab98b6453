//! The part of `django.contrib.auth.get_user` that needs nothing but the session.

use std::fmt;
use std::str::FromStr;

use super::SessionRejection;
use super::csrf::is_covered;
use super::head::Head;
use crate::session::{BACKEND_KEY, Session, USER_ID_KEY};

/// The primary key of the user who logged in to Django with this session, as text.
///
/// As an extractor it turns requests of nobody away with 401; `Option<UserId>` lets them in as `None`.
/// If the store fails, both answer 503: a user is never taken for nobody. In actix-web, where `Option` of
/// any extractor is `None` for whatever reason, that takes `Result<UserId, SessionRejection>`. A request that is not safe has
/// to have come through a [`CsrfLayer`](crate::CsrfLayer).
///
/// # What is not checked
///
/// The session says who logged in, and that is all this type knows. Django itself asks the database
/// at every request whether
///
/// * the user still exists,
/// * the user is still active (`is_active`),
/// * the password is still the one of the login (`_auth_user_hash`): changing the password logs out
///   everywhere else by this check alone,
/// * the backend of the login is still in `AUTHENTICATION_BACKENDS`.
///
/// Before something that must not be done by a blocked user or a thief of an old session, ask
/// `auth::Auth::get_user` (feature `auth`), which does all of this. Deleting the sessions of a user ends
/// them here at once; changing the password does not.
///
/// # Example
///
/// ```
/// use django_session::UserId;
///
/// async fn mine(user: UserId) -> String {
///     match user.parse::<i64>() {
///         Ok(pk) => format!("orders of user {pk}"),
///         Err(_) => "not a user of ours".to_owned(),
///     }
/// }
///
/// async fn welcome(user: Option<UserId>) -> &'static str {
///     if user.is_some() { "welcome back" } else { "hello" }
/// }
/// # let _: axum::Router = axum::Router::new()
/// #     .route("/mine", axum::routing::get(mine))
/// #     .route("/", axum::routing::get(welcome));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UserId(Box<str>);

impl UserId {
    /// The primary key as the session holds it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The primary key as the type that the user model has.
    ///
    /// # Errors
    ///
    /// That of the type, if the text is none of its values.
    pub fn parse<T: FromStr>(&self) -> Result<T, T::Err> {
        self.0.parse()
    }

    /// Whether an extractor may look for the user of this request.
    pub(super) fn may_ask(request: &impl Head) -> Result<(), SessionRejection> {
        if is_covered(request) { Ok(()) } else { Err(SessionRejection::UncheckedRequest) }
    }

    /// The user of a session, or `None` if nobody is logged in.
    pub(super) async fn of(session: &Session) -> Result<Option<Self>, SessionRejection> {
        let data = session.data().await.map_err(|error| SessionRejection::of(&error))?;
        // Entries of a type that Django never writes there are no login.
        let text = |name| data.get::<String>(name).ok().flatten().filter(|text| !text.is_empty());
        Ok(text(BACKEND_KEY).and(text(USER_ID_KEY)).map(|id| Self(id.into())))
    }
}

/// Does not show who it is.
impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserId(..)")
    }
}
