//! The middleware as a tower layer: a session into the request, its cookie into the response.
//!
//! As in Django, every request gets a session object, which loads nothing before it is looked at; what
//! happens to the response is decided when its head is ready, so a body that is still being streamed
//! cannot change the session any more. If the inner service fails or panics, nothing is saved.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{self, HeaderValue};
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::head::Head;
use super::{Effect, Exchange, SessionRejection, cookie};
use crate::session::{Clock, Session, SessionKey, SessionSettings, SessionStore, SystemClock};

/// Gives every request a [`Session`] and does with the response what Django's `SessionMiddleware`
/// does: save the session, set or delete the cookie, vary on it.
///
/// The session is an extension of the request, from which axum's extractors take it. Handlers change
/// it and return; the layer saves. What else is worth knowing:
///
/// * The decision falls when the head of the response is ready. A task or a streamed body that changes
///   the session later has to call [`Session::save`] itself.
/// * A session that another request deleted meanwhile stays deleted; the client reads 400. If the
///   store fails, it reads 503 and keeps its cookie. Either replaces the handler's response.
/// * If the client goes away before the response is ready, tower drops the work, and nothing may be
///   saved.
/// * Within another layer of the same cookie name this one does nothing. One of another name adds its
///   own session, which handlers then see.
/// * There is no `del request.session`. Removing the extension hides the session from inner services,
///   which changes nothing by itself; [`Session::set_modified`] with `false` drops what was changed.
///   Routes that need no session are better left outside of the layer.
///
/// # Example
///
/// ```
/// # #[cfg(not(feature = "axum"))]
/// # fn main() {}
/// # #[cfg(feature = "axum")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, body::Body, routing::get};
/// use django_session::store::MemoryStore;
/// use django_session::{SecretKey, Session, SessionError, SessionLayer, SessionSettings};
/// use http::{Request, header::SET_COOKIE};
/// use tower::ServiceExt;
///
/// async fn count(session: Session) -> Result<String, SessionError> {
///     let visits: u64 = session.get("visits").await?.unwrap_or(0) + 1;
///     session.insert("visits", &visits).await?;
///     Ok(format!("visit {visits}"))
/// }
///
/// let settings = SessionSettings::default().with_secret_key(SecretKey::new("secret")?);
/// let store = MemoryStore::new(settings.codec()?);
/// let app = Router::new().route("/", get(count)).layer(SessionLayer::new(store, settings));
///
/// let response = app.oneshot(Request::get("/").body(Body::empty())?).await?;
/// assert!(response.headers()[SET_COOKIE].to_str()?.starts_with("sessionid="));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SessionLayer {
    store: Arc<dyn SessionStore>,
    settings: Arc<SessionSettings>,
    clock: Arc<dyn Clock>,
}

impl SessionLayer {
    /// A layer over this store.
    ///
    /// # Panics
    ///
    /// If `SESSION_COOKIE_NAME`, `SESSION_COOKIE_DOMAIN` or `SESSION_COOKIE_PATH` is a text that
    /// cannot stand in a header. Django fails at the first response that has the cookie.
    pub fn new(store: impl SessionStore, settings: impl Into<Arc<SessionSettings>>) -> Self {
        let settings = settings.into();
        if let Some(name) = cookie::unusable_setting(&settings) {
            panic!("{name} cannot stand in a Set-Cookie header");
        }
        Self { store: Arc::new(store), settings, clock: Arc::new(SystemClock) }
    }

    /// Replaces the clock of the system.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Makes the session that the request is to have, unless an outer layer did.
    pub(super) fn begin(&self, request: &impl Head) -> Option<Exchange> {
        let name = &self.settings.cookie_name;
        let outer = request.extension::<Session>();
        if outer.is_some_and(|outer| outer.settings().cookie_name == *name) {
            return None;
        }
        let cookie = cookie::read(request, name);
        let session = Session::with_clock(
            Arc::clone(&self.store),
            Arc::clone(&self.settings),
            cookie.as_deref().and_then(SessionKey::parse),
            Arc::clone(&self.clock),
        );
        Some(Exchange { session, cookie_sent: cookie.is_some() })
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService { inner, layer: self.clone() }
    }
}

/// The service that [`SessionLayer`] makes of another one.
///
/// A response that has to be replaced gets a short text as its body, so the body type has to be made
/// of one; axum's, `String` and `http_body_util::Full` are.
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    pub(super) inner: S,
    pub(super) layer: SessionLayer,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: From<&'static str>,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let exchange = self.layer.begin(&parts);
        if let Some(exchange) = &exchange {
            parts.extensions.insert(exchange.session.clone());
        }
        let inner = self.inner.call(Request::from_parts(parts, body));
        ResponseFuture { inner, exchange, finishing: None }
    }
}

pin_project! {
    /// The response of [`SessionService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, B> {
        #[pin]
        inner: F,
        exchange: Option<Exchange>,
        finishing: Option<Finishing<B>>,
    }
}

/// The inner service has answered; its session is being looked after.
struct Finishing<B> {
    response: Response<B>,
    effect: Pin<Box<dyn Future<Output = Result<Effect, SessionRejection>> + Send>>,
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: From<&'static str>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut finishing = if let Some(finishing) = this.finishing.take() {
            finishing
        } else {
            let response = ready!(this.inner.poll(cx))?;
            let Some(exchange) = this.exchange.take() else {
                return Poll::Ready(Ok(response));
            };
            let effect = Box::pin(exchange.finish(response.status()));
            Finishing { response, effect }
        };
        match finishing.effect.as_mut().poll(cx) {
            Poll::Pending => {
                *this.finishing = Some(finishing);
                Poll::Pending
            }
            Poll::Ready(Ok(effect)) => {
                effect.apply(finishing.response.headers_mut());
                Poll::Ready(Ok(finishing.response))
            }
            Poll::Ready(Err(rejection)) => Poll::Ready(Ok(refuse(rejection))),
        }
    }
}

impl<F, B> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

fn refuse<B: From<&'static str>>(rejection: SessionRejection) -> Response<B> {
    let mut response = Response::new(B::from(rejection.body_text()));
    *response.status_mut() = rejection.status();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
