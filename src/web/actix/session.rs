//! Sessions in actix-web.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::StatusCode;
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, HttpResponse, ResponseError};
use tower_layer::Layer as _;

use super::{Answer, Extracted, apply, status, text};
use crate::session::{Session, SessionError};
use crate::web::head::Head as _;
use crate::web::{SessionLayer, SessionRejection, SessionService, UserId};

impl<S, B> Transform<S, ServiceRequest> for SessionLayer
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = SessionService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(self.layer(service)))
    }
}

impl<S, B> Service<ServiceRequest> for SessionService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = Answer<EitherBody<B>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let exchange = self.layer.begin(request.request());
        if let Some(exchange) = &exchange {
            request.extensions_mut().insert(exchange.session.clone());
        }
        let response = self.inner.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            let Some(exchange) = exchange else { return Ok(response.map_into_left_body()) };
            let status = http::StatusCode::from_u16(response.status().as_u16())
                .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
            match exchange.finish(status).await {
                Ok(effect) => {
                    apply(&effect, response.headers_mut());
                    Ok(response.map_into_left_body())
                }
                Err(rejection) => {
                    let refused = text((rejection.status(), rejection.body_text()));
                    Ok(response.into_response(refused).map_into_right_body())
                }
            }
        })
    }
}

/// The session that [`SessionLayer`] put there. Nothing is loaded by this.
impl FromRequest for Session {
    type Error = SessionRejection;
    type Future = Ready<Result<Self, SessionRejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(request.extension().ok_or(SessionRejection::MissingLayer))
    }
}

/// `Option<UserId>` is actix-web's own, and `None` whatever the reason: `Result<UserId, SessionRejection>`
/// tells nobody from somebody who cannot be known.
impl FromRequest for UserId {
    type Error = SessionRejection;
    type Future = Extracted<Self, SessionRejection>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let session = request.extension::<Session>().ok_or(SessionRejection::MissingLayer);
        let may_ask = Self::may_ask(request);
        Box::pin(async move {
            let session = session?;
            may_ask?;
            Self::of(&session).await?.ok_or(SessionRejection::Anonymous)
        })
    }
}

impl ResponseError for SessionRejection {
    fn status_code(&self) -> StatusCode {
        status(self.status())
    }

    fn error_response(&self) -> HttpResponse {
        text(self.answer())
    }
}

/// So that handlers can use `?`: 400 for a session that was deleted meanwhile, 503 for a store that
/// failed, 500 for everything else. The reason is logged, not sent.
impl ResponseError for SessionError {
    fn status_code(&self) -> StatusCode {
        status(SessionRejection::kind(self).status())
    }

    fn error_response(&self) -> HttpResponse {
        SessionRejection::of(self).error_response()
    }
}
