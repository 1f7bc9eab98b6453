//! The protection as a tower layer: Django's `CsrfViewMiddleware` around a service.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{self, HeaderValue};
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::SESSION_KEY;
use super::body::{Begun, CsrfBody};
use super::check::{self, Stored, is_safe};
use super::form::Form;
use super::handle::{Csrf, CsrfChecked};
use super::rejection::CsrfRejection;
use super::rules::Rules;
use super::settings::CsrfSettings;
use super::token::Secret;
use crate::session::{Clock, Session, SessionError, SettingsError, SystemClock};
use crate::web::cookie::{self, SetCookie};
use crate::web::head::Head;
use crate::web::{Effect, SessionRejection};

/// Lets unsafe requests in if Django's `CsrfViewMiddleware` would.
///
/// Requests other than `GET`, `HEAD`, `OPTIONS` and `TRACE` need an `Origin` (or over TLS a `Referer`)
/// that is ours or trusted, a secret in cookie or session, and a token that belongs to it: the field
/// `csrfmiddlewaretoken` of a form that is posted, or else a header. Others get 403, and the reason goes
/// to the log under `django.security.csrf`. Handlers find a [`Csrf`] and a [`CsrfChecked`] in the
/// extensions of the request.
///
/// * With `CSRF_USE_SESSIONS` a [`SessionLayer`](crate::SessionLayer) has to be around this layer. Every
///   request then looks at its session.
/// * The body comes to the handler as it was sent, as a [`CsrfBody`]. Before that at most
///   `DATA_UPLOAD_MAX_MEMORY_SIZE` bytes of it are read and kept, if the request is a form and all but its
///   token is in order. A longer form that is `application/x-www-form-urlencoded` gets 400, as Django gives.
///   Of a longer `multipart/form-data` only what lies within that many bytes
///   ([`multipart_prefix_size`](CsrfSettings::multipart_prefix_size)) is looked at: pages that upload large
///   files should have the token before the files, or send it in the header.
/// * Of a refused request the body is not read.
/// * The handshake of a WebSocket, a `GET`, needs an `Origin` that is ours or trusted, if it has one:
///   browsers send one, and let any page open a socket with the cookies of another site.
/// * Within another `CsrfLayer` this one checks what that one did not, and leaves cookie and session to it.
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
/// use django_session::web::{Csrf, CsrfLayer, CsrfSettings};
/// use http::{Request, StatusCode, header};
/// use tower::ServiceExt;
///
/// let mut settings = CsrfSettings::default();
/// settings.allowed_hosts = vec!["example.com".to_owned()];
/// let app = Router::new()
///     .route("/", get(async |csrf: Csrf| csrf.token()).post(async || "done"))
///     .layer(CsrfLayer::new(settings)?);
///
/// let form = app.clone().oneshot(Request::get("/").body(Body::empty())?).await?;
/// let cookie = form.headers()[header::SET_COOKIE].to_str()?.split(';').next().unwrap().to_owned();
/// let token = axum::body::to_bytes(form.into_body(), 100).await?;
///
/// let post = Request::post("/")
///     .header(header::HOST, "example.com")
///     .header(header::ORIGIN, "http://example.com")
///     .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
/// let body = format!("csrfmiddlewaretoken={}", str::from_utf8(&token)?);
/// let done = post.header(header::COOKIE, cookie).body(Body::from(body))?;
/// assert_eq!(app.clone().oneshot(done).await?.status(), StatusCode::OK);
///
/// let forged = Request::post("/").body(Body::empty())?;
/// assert_eq!(app.oneshot(forged).await?.status(), StatusCode::FORBIDDEN);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "CsrfViewMiddleware")]
pub struct CsrfLayer {
    rules: Arc<Rules>,
    clock: Arc<dyn Clock>,
    is_exempt: bool,
}

impl CsrfLayer {
    /// A layer of these settings.
    ///
    /// # Errors
    ///
    /// [`SettingsError::Invalid`] for a setting that Django's checks refuse, that makes Django fail at
    /// the first request, or that no request could ever match: a trusted origin without scheme, a header
    /// that is not spelt `HTTP_…`, a cookie that cannot stand in a header.
    pub fn new(settings: CsrfSettings) -> Result<Self, SettingsError> {
        let rules = Arc::new(Rules::new(settings)?);
        Ok(Self { rules, clock: Arc::new(SystemClock), is_exempt: false })
    }

    /// Replaces the clock of the system.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The same layer without the check, for routes that something else protects; they still may give
    /// out tokens.
    #[must_use]
    #[doc(alias = "csrf_exempt")]
    pub fn exempt(mut self) -> Self {
        self.is_exempt = true;
        self
    }

    /// `process_request`
    pub(in crate::web) async fn begin(
        &self,
        request: &impl Head,
    ) -> Result<Exchange, CsrfRejection> {
        let settings = self.rules.settings();
        let mut session = None;
        let stored = if settings.csrf_use_sessions {
            let found = request.extension::<Session>();
            let found = session.insert(found.ok_or(CsrfRejection::MissingSessionLayer)?);
            stored_in(found).await.map_err(|error| SessionRejection::of(&error))?
        } else {
            stored_as(cookie::read(request, &settings.csrf_cookie_name).as_deref())
        };
        let outer = request.extension::<Csrf>();
        let is_inner = outer.is_some();
        let csrf = outer.unwrap_or_else(|| Csrf::of(&stored, settings.csrf_use_sessions));
        Ok(Exchange { csrf, stored, session, is_inner })
    }

    /// `process_view`: reads what it has to of the body, and gives all of it back.
    pub(in crate::web) async fn check<B: Body>(
        &self,
        request: &impl Head,
        body: B,
        exchange: &Exchange,
    ) -> Result<(CsrfChecked, CsrfBody<B>), CsrfRejection> {
        let done = request.extension::<CsrfChecked>();
        if let Some(done) = done.filter(|done| !done.is_exempt() && done.covers(request.method())) {
            return Ok((done, CsrfBody::untouched(body)));
        }
        if self.is_exempt {
            return Ok((CsrfChecked::EXEMPT, CsrfBody::untouched(body)));
        }
        if is_safe(request.method()) {
            if check::is_handshake(request) {
                check::handshake(&self.rules, request)?;
            }
            return Ok((CsrfChecked::SAFE, CsrfBody::untouched(body)));
        }
        let secret = check::head(&self.rules, request, &exchange.stored)?;
        let settings = self.rules.settings();
        let form = match request.method() {
            "POST" => Form::of(request, settings)?,
            _ => None,
        };
        let (field, body) = match form {
            None => (String::new(), CsrfBody::untouched(body)),
            Some(form) => {
                let begun = Begun::read(body, form.prefix_size(settings)).await;
                let field = if begun.is_broken() {
                    String::new()
                } else {
                    form.field(begun.prefix(), begun.is_whole(), settings)?
                };
                (field, CsrfBody::begun(begun))
            }
        };
        check::token(&self.rules, request, secret, &field)?;
        Ok((CsrfChecked::PASSED, body))
    }

    /// `process_response`
    pub(in crate::web) async fn finish(&self, exchange: Exchange) -> Result<Effect, CsrfRejection> {
        if exchange.is_inner {
            return Ok(Effect::default());
        }
        let Some(secret) = exchange.csrf.take_update() else { return Ok(Effect::default()) };
        let Some(session) = &exchange.session else {
            return Ok(Effect { set_cookie: Some(self.cookie(&secret)?), vary: true });
        };
        put(session, &secret).await.map_err(|error| SessionRejection::of(&error))?;
        Ok(Effect::default())
    }

    fn cookie(&self, secret: &Secret) -> Result<HeaderValue, SessionRejection> {
        let settings = self.rules.settings();
        let age = settings.csrf_cookie_age;
        SetCookie {
            name: &settings.csrf_cookie_name,
            value: &secret.reveal(),
            domain: settings.csrf_cookie_domain.as_deref(),
            expires: age.and_then(|age| cookie::expires(self.clock.now(), age)),
            http_only: settings.csrf_cookie_httponly,
            max_age: age,
            path: &settings.csrf_cookie_path,
            same_site: settings.csrf_cookie_samesite,
            secure: settings.csrf_cookie_secure,
        }
        .header()
    }
}

/// What is known of a request until its response is there.
pub(in crate::web) struct Exchange {
    pub(in crate::web) csrf: Csrf,
    stored: Stored,
    /// With `CSRF_USE_SESSIONS`.
    session: Option<Session>,
    /// Whether another layer looks after the response.
    is_inner: bool,
}

fn stored_as(text: Option<&str>) -> Stored {
    match text.map(Secret::parse) {
        None => Stored::Absent,
        Some(Ok(secret)) => Stored::Secret(secret),
        Some(Err(format)) => Stored::Malformed(format),
    }
}

async fn stored_in(session: &Session) -> Result<Stored, SessionError> {
    let data = session.data().await?;
    if !data.contains_key(SESSION_KEY) {
        return Ok(Stored::Absent);
    }
    // `None` counts as absent; what is no text, where Django fails, as a secret that nothing matches.
    let text = data.get::<Option<String>>(SESSION_KEY).unwrap_or(Some(Some(String::new())));
    Ok(stored_as(text.flatten().as_deref()))
}

/// Puts the secret into the session, unless it is there.
async fn put(session: &Session, secret: &Secret) -> Result<(), SessionError> {
    let secret = secret.reveal();
    let data = session.data().await?;
    let there = data.get::<String>(SESSION_KEY).ok().flatten();
    if there.as_deref() == Some(&**secret) {
        return Ok(());
    }
    session.insert(SESSION_KEY, &**secret).await
}

impl<S> Layer<S> for CsrfLayer {
    type Service = CsrfService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CsrfService { inner, layer: self.clone() }
    }
}

/// The service that [`CsrfLayer`] makes of another one, which has to take [`CsrfBody`].
///
/// axum's routers do. Within a `tower::ServiceBuilder` a service that takes one type of body only, such as
/// `axum::middleware::from_fn`, has to be added by a `layer` of its own.
#[derive(Clone, Debug)]
pub struct CsrfService<S> {
    pub(in crate::web) inner: S,
    pub(in crate::web) layer: CsrfLayer,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for CsrfService<S>
where
    S: Service<Request<CsrfBody<ReqBody>>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Body + Send + 'static,
    ReqBody::Error: Send,
    ResBody: From<&'static str> + Send,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = CsrfFuture<ResBody, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The one that was asked whether it is ready is the one to call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        CsrfFuture(Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let exchange = match layer.begin(&parts).await {
                Ok(exchange) => exchange,
                Err(rejection) => return Ok(refuse(&rejection)),
            };
            let mut response = match layer.check(&parts, body, &exchange).await {
                Ok((checked, body)) => {
                    parts.extensions.insert(checked);
                    parts.extensions.insert(exchange.csrf.clone());
                    inner.call(Request::from_parts(parts, body)).await?
                }
                Err(rejection) => refuse(&rejection),
            };
            match layer.finish(exchange).await {
                Ok(effect) => effect.apply(response.headers_mut()),
                Err(rejection) => response = refuse(&rejection),
            }
            Ok(response)
        }))
    }
}

/// The response of [`CsrfService`].
#[must_use = "futures do nothing unless polled"]
pub struct CsrfFuture<B, E>(Pin<Box<dyn Future<Output = Result<Response<B>, E>> + Send>>);

impl<B, E> Future for CsrfFuture<B, E> {
    type Output = Result<Response<B>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<B, E> fmt::Debug for CsrfFuture<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsrfFuture").finish_non_exhaustive()
    }
}

/// Waives the check for what is inside, without settings, cookie or [`Csrf`]: for routes that browsers do
/// not log in to by a cookie, such as those that ask for a key in a header.
///
/// A [`CsrfLayer`] around it has already checked by then, and one inside of it still does.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{Router, routing::post};
/// use django_session::web::CsrfExempt;
///
/// let app: Router = Router::new().route("/hook", post(async || "thanks")).layer(CsrfExempt);
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[doc(alias = "csrf_exempt")]
pub struct CsrfExempt;

impl CsrfExempt {
    /// What the request is to have, unless it was checked.
    pub(in crate::web) fn begin(request: &impl Head) -> Option<CsrfChecked> {
        let done = request.extension::<CsrfChecked>();
        let is_checked = done.is_some_and(|done| done.covers(request.method()));
        (!is_checked).then_some(CsrfChecked::EXEMPT)
    }
}

impl<S> Layer<S> for CsrfExempt {
    type Service = CsrfExemptService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CsrfExemptService { inner }
    }
}

/// The service that [`CsrfExempt`] makes of another one.
#[derive(Clone, Debug)]
pub struct CsrfExemptService<S> {
    pub(in crate::web) inner: S,
}

impl<S, B> Service<Request<B>> for CsrfExemptService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        if let Some(exempt) = CsrfExempt::begin(&parts) {
            parts.extensions.insert(exempt);
        }
        self.inner.call(Request::from_parts(parts, body))
    }
}

fn refuse<B: From<&'static str>>(rejection: &CsrfRejection) -> Response<B> {
    rejection.log();
    let mut response = Response::new(B::from(rejection.body_text()));
    *response.status_mut() = rejection.status();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
