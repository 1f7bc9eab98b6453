//! actix-web: the layers as its middleware, its extractors, and what its handlers may return.
//!
//! Nothing is decided here. Requests of actix-web are asked as any [`Head`] is, and what was decided is
//! put into its types, which are those of an older `http`.
//!
//! Different from tower: a service inside of a layer that answers with an `Err` has no response for the
//! layer to act on, so nothing is saved and no cookie is sent. Handlers are not concerned: what they
//! return becomes a response first.

#[cfg(feature = "auth")]
mod auth;
mod csrf;
mod session;

use std::pin::Pin;

use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, ContentType, HeaderMap, HeaderValue};
use actix_web::http::uri::Authority;
use actix_web::{Error, HttpMessage as _, HttpRequest, HttpResponse};
use http::header::HeaderName;

use super::head::Head;
use super::{Effect, vary_on_cookie};

type Answer<B> = Pin<Box<dyn Future<Output = Result<ServiceResponse<B>, Error>>>>;
type Extracted<T, E> = Pin<Box<dyn Future<Output = Result<T, E>>>>;

impl Head for HttpRequest {
    fn authority(&self) -> Option<&str> {
        self.uri().authority().map(Authority::as_str)
    }

    fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.extensions().get().cloned()
    }

    fn lines<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.headers().get_all(name.as_str()).map(HeaderValue::as_bytes)
    }

    fn method(&self) -> &str {
        self.method().as_str()
    }

    #[cfg(feature = "auth")]
    fn path_and_query(&self) -> Option<&str> {
        self.uri().path_and_query().map(actix_web::http::uri::PathAndQuery::as_str)
    }
}

fn status(status: http::StatusCode) -> StatusCode {
    // Every number that is one there is one here.
    StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn value(value: &http::HeaderValue) -> Option<HeaderValue> {
    // As above.
    HeaderValue::from_bytes(value.as_bytes()).ok()
}

fn text((code, body): (http::StatusCode, &'static str)) -> HttpResponse {
    HttpResponse::build(status(code)).content_type(ContentType::plaintext()).body(body)
}

/// Adds the headers. Cookies that the handler has set stay.
fn apply(effect: &Effect, headers: &mut HeaderMap) {
    if effect.vary {
        let lines = headers.get_all(header::VARY).map(HeaderValue::as_bytes);
        if let Some(vary) = vary_on_cookie(lines).as_ref().and_then(value) {
            headers.insert(header::VARY, vary);
        }
    }
    if let Some(cookie) = effect.set_cookie.as_ref().and_then(value) {
        headers.append(header::SET_COOKIE, cookie);
    }
}
