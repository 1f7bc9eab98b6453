//! Users in actix-web.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use actix_web::dev::{Payload, Service, ServiceRequest, Transform};
use actix_web::http::{StatusCode, header};
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, HttpResponse, ResponseError};
use tower_layer::Layer as _;

use super::{Extracted, status, text, value};
use crate::auth::{AuthError, User};
use crate::web::{
    AuthLayer, AuthRejection, AuthService, AuthSession, MaybeUser, Permission, RequirePermission,
};

impl<S> Transform<S, ServiceRequest> for AuthLayer
where
    S: Service<ServiceRequest>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Transform = AuthService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(self.layer(service)))
    }
}

impl<S> Service<ServiceRequest> for AuthService<S>
where
    S: Service<ServiceRequest>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let gate = self.layer.begin(request.request());
        request.extensions_mut().insert(gate);
        self.inner.call(request)
    }
}

impl FromRequest for AuthSession {
    type Error = AuthRejection;
    type Future = Ready<Result<Self, AuthRejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of_head(request))
    }
}

impl FromRequest for MaybeUser {
    type Error = AuthRejection;
    type Future = Extracted<Self, AuthRejection>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let session = AuthSession::of_head(request);
        Box::pin(async move {
            let found = session?.user().await;
            found.map(Self).map_err(|error| AuthRejection::of(&error))
        })
    }
}

/// `Option<User>` is actix-web's own, and `None` whatever the reason: [`MaybeUser`] is what tells nobody
/// from somebody who cannot be known.
impl FromRequest for User {
    type Error = AuthRejection;
    type Future = Extracted<Self, AuthRejection>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let session = AuthSession::of_head(request);
        Box::pin(async move { session?.require_user().await })
    }
}

impl<P: Permission + 'static> FromRequest for RequirePermission<P> {
    type Error = AuthRejection;
    type Future = Extracted<Self, AuthRejection>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let session = AuthSession::of_head(request);
        Box::pin(async move { session?.require_permission().await })
    }
}

impl ResponseError for AuthRejection {
    fn status_code(&self) -> StatusCode {
        status(self.status())
    }

    fn error_response(&self) -> HttpResponse {
        self.log();
        let mut response = text((self.status(), self.body_text()));
        if let Some(location) = self.location().and_then(value) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// So that handlers can use `?`: 503 for what could not be asked, 400 for a session that was deleted
/// meanwhile, 500 for everything else. The reason is logged, not sent.
impl ResponseError for AuthError {
    fn status_code(&self) -> StatusCode {
        status(AuthRejection::kind(self).status())
    }

    fn error_response(&self) -> HttpResponse {
        AuthRejection::of(self).error_response()
    }
}
