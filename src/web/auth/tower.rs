//! The layer that the extractors ask.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::session::Gate;
use crate::auth::Auth;
use crate::web::head::Head;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) auth: Auth,
    pub(super) redirects: bool,
}

/// Lets handlers know their user: [`User`](crate::auth::User), [`MaybeUser`](super::MaybeUser),
/// [`RequirePermission`](super::RequirePermission) and [`AuthSession`](super::AuthSession).
///
/// It does nothing by itself: who wants no user asks for none, and costs nothing. Around it have to be
/// a [`SessionLayer`](crate::SessionLayer) and a [`CsrfLayer`](crate::CsrfLayer), and it is best around
/// the whole router, since it notes the way back to a page that asks for a login.
///
/// # Example
///
/// ```
/// # #[cfg(not(all(feature = "axum", feature = "sqlite")))]
/// # fn main() {}
/// # #[cfg(all(feature = "axum", feature = "sqlite"))]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, body::Body, routing::get};
/// use django_session::auth::{Auth, AuthSettings, User};
/// use django_session::store::{MemoryStore, SqlUsers, sqlx};
/// use django_session::web::{AuthLayer, CsrfLayer, CsrfSettings, MaybeUser};
/// use django_session::{SecretKey, SessionLayer, SessionSettings};
/// use http::{Request, StatusCode, header};
/// use tower::ServiceExt;
///
/// async fn orders(user: User) -> String {
///     format!("orders of {}", user.username())
/// }
///
/// async fn welcome(MaybeUser(user): MaybeUser) -> String {
///     user.map_or("hello".into(), |user| format!("welcome back, {}", user.username()))
/// }
///
/// # let pool = sqlx::SqlitePool::connect_lazy("sqlite::memory:")?;
/// let key = SecretKey::new("the site's SECRET_KEY")?;
/// let settings = std::sync::Arc::new(SessionSettings::default().with_secret_key(key));
/// let auth_settings = AuthSettings::new(settings.clone());
/// let users = SqlUsers::new(pool, &auth_settings.user_model);
/// let app = Router::new()
///     .route("/orders", get(orders))
///     .route("/", get(welcome))
///     .layer(AuthLayer::new(Auth::new(users, auth_settings)).redirecting_to_login())
///     .layer(CsrfLayer::new(CsrfSettings::default())?)
///     .layer(SessionLayer::new(MemoryStore::new(settings.codec()?), settings));
///
/// let response = app.clone().oneshot(Request::get("/orders").body(Body::empty())?).await?;
/// assert_eq!(response.status(), StatusCode::FOUND);
/// assert_eq!(response.headers()[header::LOCATION], "/accounts/login/?next=/orders");
/// let response = app.oneshot(Request::get("/").body(Body::empty())?).await?;
/// assert_eq!(response.status(), StatusCode::OK);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "AuthenticationMiddleware")]
pub struct AuthLayer {
    shared: Arc<Shared>,
}

impl AuthLayer {
    /// A layer that asks this.
    ///
    /// Who has to log in first gets 401.
    pub fn new(auth: Auth) -> Self {
        Self { shared: Arc::new(Shared { auth, redirects: false }) }
    }

    /// Sends who has to log in first to `LOGIN_URL`, with the way back in `next`.
    #[must_use]
    pub fn redirecting_to_login(self) -> Self {
        Self { shared: Arc::new(Shared { auth: self.shared.auth.clone(), redirects: true }) }
    }

    /// What the request is to have.
    pub(in crate::web) fn begin(&self, request: &impl Head) -> Gate {
        Gate::new(self.shared.clone(), request)
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthService { inner, layer: self.clone() }
    }
}

/// The service that [`AuthLayer`] makes of another one.
#[derive(Clone, Debug)]
pub struct AuthService<S> {
    pub(in crate::web) inner: S,
    pub(in crate::web) layer: AuthLayer,
}

impl<S, B> Service<Request<B>> for AuthService<S>
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
        let gate = self.layer.begin(&parts);
        parts.extensions.insert(gate);
        self.inner.call(Request::from_parts(parts, body))
    }
}
