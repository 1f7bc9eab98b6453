//! axum's extractors, and what its handlers may return.
//!
//! [`UserId`] is the part of `django.contrib.auth.get_user` that needs nothing but the session.

use std::fmt;
use std::str::FromStr;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use super::SessionRejection;
use super::csrf::is_covered;
use crate::session::{BACKEND_KEY, Session, SessionError, USER_ID_KEY};

/// The session that [`SessionLayer`](crate::SessionLayer) put there. Nothing is loaded by this.
impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get().cloned().ok_or(SessionRejection::MissingLayer)
    }
}

/// The primary key of the user who logged in to Django with this session, as text.
///
/// As an extractor it turns requests of nobody away with 401; `Option<UserId>` lets them in as `None`.
/// If the store fails, both answer 503: a user is never taken for nobody. A request that is not safe has
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

    /// The user of a session, or `None` if nobody is logged in.
    async fn of(session: &Session) -> Result<Option<Self>, SessionError> {
        let data = session.data().await?;
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

impl<S: Sync> FromRequestParts<S> for UserId {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let user = <Self as OptionalFromRequestParts<S>>::from_request_parts(parts, state).await?;
        user.ok_or(SessionRejection::Anonymous)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for UserId {
    type Rejection = SessionRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        let session = Session::from_request_parts(parts, state).await?;
        if !is_covered(&parts.extensions, &parts.method, &parts.headers) {
            return Err(SessionRejection::UncheckedRequest);
        }
        Self::of(&session).await.map_err(|error| SessionRejection::of(&error))
    }
}

impl IntoResponse for SessionRejection {
    fn into_response(self) -> Response {
        let (status, body) = (self.status(), self.body_text());
        self.log();
        tracing::trace!(target: "django_session::rejection", %status, body, "request rejected");
        (status, body).into_response()
    }
}

/// So that handlers can use `?`: 400 for a session that was deleted meanwhile, 503 for a store that
/// failed, 500 for everything else. The reason is logged, not sent.
impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        SessionRejection::of(&self).into_response()
    }
}
