//! CSRF protection in actix-web.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, HttpResponse, ResponseError};
use bytes::Bytes;
use futures_core::Stream;
use http_body::{Body, Frame};
use tower_layer::Layer as _;

use super::{Answer, apply, status, text};
use crate::web::head::Head as _;
use crate::web::{
    Csrf, CsrfBody, CsrfExempt, CsrfExemptService, CsrfLayer, CsrfRejection, CsrfService,
};

impl<S, B> Transform<S, ServiceRequest> for CsrfLayer
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Transform = CsrfService<Rc<S>>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(self.layer(Rc::new(service))))
    }
}

impl<S, B> Service<ServiceRequest> for CsrfService<Rc<S>>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = Answer<EitherBody<B>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let inner = Rc::clone(&self.inner);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (request, payload) = request.into_parts();
            let exchange = match layer.begin(&request).await {
                Ok(exchange) => exchange,
                Err(rejection) => return Ok(refuse(request, &rejection)),
            };
            let mut response = match layer.check(&request, Incoming(payload), &exchange).await {
                Ok((checked, body)) => {
                    request.extensions_mut().insert(checked);
                    request.extensions_mut().insert(exchange.csrf.clone());
                    let request = ServiceRequest::from_parts(request, give_back(body));
                    inner.call(request).await?.map_into_left_body()
                }
                Err(rejection) => refuse(request, &rejection),
            };
            match layer.finish(exchange).await {
                Ok(effect) => apply(&effect, response.headers_mut()),
                Err(rejection) => {
                    let refused = rejection.error_response().map_into_right_body();
                    response = response.into_response(refused);
                }
            }
            Ok(response)
        })
    }
}

fn refuse<B>(request: HttpRequest, rejection: &CsrfRejection) -> ServiceResponse<EitherBody<B>> {
    ServiceResponse::new(request, rejection.error_response()).map_into_right_body()
}

/// What comes of the client, as a body.
struct Incoming(Payload);

impl Body for Incoming {
    type Data = Bytes;
    type Error = PayloadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PayloadError>>> {
        Pin::new(&mut self.0).poll_next(cx).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Payload::None)
    }
}

/// What the handler reads: the same payload, or if something of it has been read, that and the rest.
fn give_back(body: CsrfBody<Incoming>) -> Payload {
    match body.into_untouched() {
        Ok(Incoming(payload)) => payload,
        Err(begun) => Payload::Stream { payload: Box::pin(Outgoing(begun)) },
    }
}

struct Outgoing(Box<CsrfBody<Incoming>>);

impl Stream for Outgoing {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(Pin::new(&mut *self.0).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                // actix-web has no trailers.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }
}

impl<S> Transform<S, ServiceRequest> for CsrfExempt
where
    S: Service<ServiceRequest>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Transform = CsrfExemptService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(self.layer(service)))
    }
}

impl<S> Service<ServiceRequest> for CsrfExemptService<S>
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
        if let Some(exempt) = CsrfExempt::begin(request.request()) {
            request.extensions_mut().insert(exempt);
        }
        self.inner.call(request)
    }
}

/// The protection that [`CsrfLayer`] put there.
impl FromRequest for Csrf {
    type Error = CsrfRejection;
    type Future = Ready<Result<Self, CsrfRejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(request.extension().ok_or(CsrfRejection::MissingLayer))
    }
}

/// The reason is logged, not sent.
impl ResponseError for CsrfRejection {
    fn status_code(&self) -> StatusCode {
        status(self.status())
    }

    fn error_response(&self) -> HttpResponse {
        self.log();
        text((self.status(), self.body_text()))
    }
}
