//! The user of one request: `request.user`, `login`, `logout`.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::login_url::redirect_to_login;
use super::rejection::AuthRejection;
use super::tower::Shared;
use super::{Permission, RequirePermission};
use crate::auth::{Auth, AuthError, Authentication, User};
use crate::session::Session;
use crate::web::csrf::{is_covered, is_handshake};
use crate::web::head::Head;
use crate::web::{Csrf, SessionRejection};

/// What an [`AuthLayer`](super::AuthLayer) puts into a request.
#[derive(Clone)]
pub(in crate::web) struct Gate(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// Where the request came in, before routers took parts of it away.
    path: Box<str>,
    is_handshake: bool,
    known: Mutex<Known>,
}

/// What was found out so far.
#[derive(Default)]
struct Known {
    authentication: Option<Authentication>,
    permissions: Option<Arc<BTreeSet<String>>>,
}

impl Gate {
    pub(super) fn new(shared: Arc<Shared>, request: &impl Head) -> Self {
        Self(Arc::new(Inner {
            shared,
            path: request.path_and_query().unwrap_or("/").into(),
            is_handshake: is_handshake(request),
            known: Mutex::default(),
        }))
    }
}

/// The session of a request, with its user.
///
/// An extractor. Nothing is looked up before it is asked for, and then once: clones, and the other
/// extractors of the request, know the same.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "axum")]
/// # fn main() {
/// use axum::Form;
/// use axum::response::Redirect;
/// use django_session::web::{AuthRejection, AuthSession};
/// use django_session::auth::AuthError;
///
/// #[derive(serde::Deserialize)]
/// struct Login {
///     username: String,
///     password: String,
/// }
///
/// async fn log_in(session: AuthSession, Form(form): Form<Login>) -> Result<Redirect, AuthError> {
///     match session.authenticate(&form.username, &form.password).await? {
///         Some(user) => session.login(&user).await.map(|()| Redirect::to("/")),
///         None => Ok(Redirect::to("/login?failed")),
///     }
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::post(log_in));
/// # }
/// # #[cfg(not(feature = "axum"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct AuthSession {
    gate: Gate,
    session: Session,
    csrf: Option<Csrf>,
}

impl AuthSession {
    /// That of a request, if the request may use it.
    ///
    /// # Errors
    ///
    /// * [`AuthRejection::MissingLayer`], [`SessionRejection::MissingLayer`].
    /// * [`SessionRejection::UncheckedRequest`].
    pub fn of(request: &Parts) -> Result<Self, AuthRejection> {
        Self::of_head(request)
    }

    pub(in crate::web) fn of_head(request: &impl Head) -> Result<Self, AuthRejection> {
        let gate = request.extension::<Gate>().ok_or(AuthRejection::MissingLayer)?;
        let session = request.extension().ok_or(SessionRejection::MissingLayer)?;
        if !is_covered(request) {
            return Err(SessionRejection::UncheckedRequest.into());
        }
        Ok(Self { gate, session, csrf: request.extension() })
    }

    /// `login_required`: the user, or the answer to somebody who has to log in first.
    ///
    /// # Errors
    ///
    /// [`AuthRejection::Anonymous`], [`AuthRejection::Login`]; if it cannot be known who it is, what that
    /// is answered with.
    pub async fn require_user(&self) -> Result<User, AuthRejection> {
        let found = self.user().await.map_err(|error| AuthRejection::of(&error))?;
        found.ok_or_else(|| self.login_required())
    }

    /// `PermissionRequiredMixin`: the user, who has the permission.
    ///
    /// # Errors
    ///
    /// As [`AuthSession::require_user`], and [`AuthRejection::Forbidden`].
    pub async fn require_permission<P: Permission>(
        &self,
    ) -> Result<RequirePermission<P>, AuthRejection> {
        let user = self.require_user().await?;
        for permission in P::PERMISSIONS {
            let granted = self.has_perm(permission).await;
            if !granted.map_err(|error| AuthRejection::of(&error))? {
                return Err(AuthRejection::Forbidden);
            }
        }
        Ok(RequirePermission { user, permission: PhantomData })
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What knows about users: for what this type has no method for.
    pub fn auth(&self) -> &Auth {
        &self.gate.0.shared.auth
    }

    /// Whose session it is, as [`Auth::get_user`] finds it. What was found stays for this request.
    ///
    /// On the handshake of a WebSocket the session keeps its key, since the browser could not be told of
    /// another one: that a hash was made under a fallback key changes nothing there.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn authentication(&self) -> Result<Authentication, AuthError> {
        let mut known = self.gate.0.known.lock().await;
        self.find(&mut known).await.cloned()
    }

    async fn find<'a>(&self, known: &'a mut Known) -> Result<&'a Authentication, AuthError> {
        let found = match known.authentication.take() {
            Some(found) => found,
            None if self.gate.0.is_handshake => {
                self.auth().get_user_keeping_key(&self.session).await?
            }
            None => self.auth().get_user(&self.session).await?,
        };
        Ok(known.authentication.insert(found))
    }

    /// The user, or nobody.
    ///
    /// # Errors
    ///
    /// [`AuthError`]; that nobody is logged in is none.
    pub async fn user(&self) -> Result<Option<User>, AuthError> {
        Ok(self.authentication().await?.user().cloned())
    }

    /// Whether the user may do this; nobody may do anything. The permissions are looked up once.
    ///
    /// # Errors
    ///
    /// As [`Auth::has_perm`].
    pub async fn has_perm(&self, perm: &str) -> Result<bool, AuthError> {
        let mut known = self.gate.0.known.lock().await;
        let Some(user) = self.find(&mut known).await?.user().cloned() else { return Ok(false) };
        if user.is_active() && user.is_superuser() {
            return Ok(true);
        }
        let found = match known.permissions.take() {
            Some(found) => found,
            None => self.auth().permissions(&user).await?,
        };
        Ok(known.permissions.insert(found).contains(perm))
    }

    /// See [`Auth::authenticate`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn authenticate(
        &self,
        username: &str,
        password: &str,
    ) -> Result<Option<User>, AuthError> {
        self.auth().authenticate(username, password).await
    }

    /// Makes the session that of a user, see [`Auth::login`], and draws another CSRF token.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn login(&self, user: &User) -> Result<(), AuthError> {
        let mut known = self.gate.0.known.lock().await;
        *known = Known::default();
        // Also where it comes to no end: by then the session may be the user's.
        if let Some(csrf) = &self.csrf {
            csrf.rotate();
        }
        self.auth().login(&self.session, user).await?;
        known.authentication = Some(Authentication::User(user.clone()));
        Ok(())
    }

    /// Ends the session, see [`Auth::logout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn logout(&self) -> Result<(), AuthError> {
        let mut known = self.gate.0.known.lock().await;
        *known = Known::default();
        self.auth().logout(&self.session).await?;
        known.authentication = Some(Authentication::Anonymous);
        Ok(())
    }

    /// Keeps the session of a user who has changed the password, see
    /// [`Auth::update_session_auth_hash`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn update_session_auth_hash(&self, user: &User) -> Result<(), AuthError> {
        let mut known = self.gate.0.known.lock().await;
        *known = Known::default();
        self.auth().update_session_auth_hash(&self.session, user).await
    }

    /// Whose session it is by now: see [`Auth::revalidate`]. What this finds counts from now on for this
    /// type's other methods.
    ///
    /// # Errors
    ///
    /// [`AuthError`]; what was found before still counts then.
    pub async fn revalidate(&self) -> Result<Authentication, AuthError> {
        self.look_again().await.map(|(found, _)| found)
    }

    async fn look_again(&self) -> Result<(Authentication, bool), AuthError> {
        let now = self.session.reopen().await;
        let found = self.auth().examine(&now).await?.authentication;
        let is_there = now.session_key().await.is_some();
        let mut known = self.gate.0.known.lock().await;
        *known = Known { authentication: Some(found.clone()), permissions: None };
        Ok((found, is_there))
    }

    /// Waits until the session ends: until it is gone from the store, has another user than now, or none
    /// any more. Both are asked that often; in an outage nothing is known, and they are asked again.
    ///
    /// For a WebSocket, beside what it does otherwise: it has no requests at which this would come out.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use django_session::web::AuthSession;
    ///
    /// # async fn next_message() -> Option<String> { None }
    /// async fn chat(session: AuthSession) {
    ///     let ended = session.ended(Duration::from_secs(10));
    ///     tokio::pin!(ended);
    ///     loop {
    ///         tokio::select! {
    ///             () = &mut ended => break,
    ///             message = next_message() => match message {
    ///                 Some(_) => {}
    ///                 None => break,
    ///             },
    ///         }
    ///     }
    /// }
    /// ```
    pub async fn ended(&self, every: Duration) {
        // A task of its own: who waits for this and handles a message meanwhile does not poll it, and
        // may ask what this is about to find out.
        let watched = self.clone();
        let mut task = JoinSet::new();
        task.spawn(async move { watched.watch(every).await });
        task.join_next().await;
    }

    async fn watch(&self, every: Duration) {
        let before = match self.authentication().await {
            Ok(found) => found.user().map(|user| user.pk().clone()),
            Err(error) if error.is_outage() => None,
            Err(_) => return,
        };
        let was_there = self.session.session_key().await.is_some();
        loop {
            tokio::time::sleep(every).await;
            match self.look_again().await {
                Ok((found, is_there)) => {
                    if found.user().map(User::pk) != before.as_ref() || was_there && !is_there {
                        return;
                    }
                }
                Err(error) if error.is_outage() => {}
                Err(_) => return,
            }
        }
    }

    /// The answer to somebody who has to log in first.
    fn login_required(&self) -> AuthRejection {
        let Inner { shared, path, .. } = &*self.gate.0;
        let location = if shared.redirects {
            redirect_to_login(&shared.auth.settings().login_url, path)
        } else {
            None
        };
        location.map_or(AuthRejection::Anonymous, AuthRejection::Login)
    }
}

impl fmt::Debug for AuthSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthSession").finish_non_exhaustive()
    }
}
