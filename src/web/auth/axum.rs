//! axum's extractors of users, and what a handler may return.

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::header;
use http::request::Parts;

use super::{AuthRejection, AuthSession, MaybeUser, Permission, RequirePermission};
use crate::auth::{AuthError, User};

impl<S: Sync> FromRequestParts<S> for AuthSession {
    type Rejection = AuthRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Self::of(parts)
    }
}

impl<S: Sync> FromRequestParts<S> for MaybeUser {
    type Rejection = AuthRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let found = AuthSession::of(parts)?.user().await;
        found.map(Self).map_err(|error| AuthRejection::of(&error))
    }
}

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = AuthRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        AuthSession::of(parts)?.require_user().await
    }
}

impl<P: Permission, S: Sync> FromRequestParts<S> for RequirePermission<P> {
    type Rejection = AuthRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        AuthSession::of(parts)?.require_permission().await
    }
}

impl IntoResponse for AuthRejection {
    fn into_response(self) -> Response {
        self.log();
        let mut response = (self.status(), self.body_text()).into_response();
        if let Some(location) = self.location() {
            response.headers_mut().insert(header::LOCATION, location.clone());
        }
        response
    }
}

/// So that handlers can use `?`: 503 for what could not be asked, 400 for a session that was deleted
/// meanwhile, 500 for everything else. The reason is logged, not sent.
impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        AuthRejection::of(&self).into_response()
    }
}
