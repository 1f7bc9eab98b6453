//! axum's extractors, and what its handlers may return.

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use super::{SessionRejection, UserId};
use crate::session::{Session, SessionError};

/// The session that [`SessionLayer`](crate::SessionLayer) put there. Nothing is loaded by this.
impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get().cloned().ok_or(SessionRejection::MissingLayer)
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
        Self::may_ask(parts)?;
        Self::of(&session).await
    }
}

impl IntoResponse for SessionRejection {
    fn into_response(self) -> Response {
        self.answer().into_response()
    }
}

/// So that handlers can use `?`: 400 for a session that was deleted meanwhile, 503 for a store that
/// failed, 500 for everything else. The reason is logged, not sent.
impl IntoResponse for SessionError {
    fn into_response(self) -> Response {
        SessionRejection::of(&self).into_response()
    }
}
