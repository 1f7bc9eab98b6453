//! What a handler does with the protection of its request: `get_token` and `rotate_token`.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Extensions;

use super::check::{Stored, is_safe};
use super::token::Secret;

/// The CSRF protection of one request, an extension that [`CsrfLayer`](super::CsrfLayer) puts there.
///
/// It is also an extractor, with the feature `axum` or `actix`. Clones are the same protection.
///
/// # Example
///
/// ```
/// # #[cfg(not(feature = "axum"))]
/// # fn main() {}
/// # #[cfg(feature = "axum")]
/// # fn main() {
/// use axum::response::Html;
/// use django_session::web::Csrf;
///
/// async fn form(csrf: Csrf) -> Html<String> {
///     Html(format!(
///         "<form method=post><input type=hidden name=csrfmiddlewaretoken value={}></form>",
///         csrf.token(),
///     ))
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(form));
/// # }
/// ```
#[derive(Clone)]
pub struct Csrf(Arc<Mutex<State>>);

/// Django's `META["CSRF_COOKIE"]` and `META["CSRF_COOKIE_NEEDS_UPDATE"]`.
struct State {
    secret: Option<Secret>,
    needs_update: bool,
}

impl Csrf {
    /// `process_request`: a cookie that is none is replaced at once.
    pub(super) fn of(stored: &Stored, use_sessions: bool) -> Self {
        let (secret, needs_update) = match stored {
            Stored::Secret(secret) => (Some(secret.clone()), false),
            Stored::Malformed(_) if !use_sessions => (Some(Secret::generate()), true),
            Stored::Absent | Stored::Malformed(_) => (None, false),
        };
        Self(Arc::new(Mutex::new(State { secret, needs_update })))
    }

    /// A token for a form or for a script of the page: 64 letters and digits, others each time.
    ///
    /// The response then sets the cookie, with a new age, and varies on it. What is asked for when the
    /// head of the response is already out, as by a streamed body, comes too late for that.
    #[doc(alias = "get_token")]
    pub fn token(&self) -> String {
        let mut state = self.state();
        state.needs_update = true;
        state.secret.get_or_insert_with(Secret::generate).mask()
    }

    /// Draws another secret, as has to be done at login: tokens given out before are worth nothing after
    /// this response.
    #[doc(alias = "rotate_token")]
    pub fn rotate(&self) {
        let mut state = self.state();
        state.secret = Some(Secret::generate());
        state.needs_update = true;
    }

    /// The secret that the response has to carry, once.
    pub(super) fn take_update(&self) -> Option<Secret> {
        let mut state = self.state();
        if std::mem::take(&mut state.needs_update) { state.secret.clone() } else { None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Csrf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Csrf(..)")
    }
}

/// That a request was checked, or that somebody decided that it need not be.
///
/// An extension of the request; nobody but the layers of this module can make one. Who lets requests in
/// by a session should refuse unsafe methods without it, since then nobody has thought of CSRF.
///
/// # Example
///
/// ```
/// use django_session::web::CsrfChecked;
/// use http::{Method, Request};
///
/// let request = Request::post("/").body(()).unwrap();
/// assert_eq!(CsrfChecked::of(request.extensions()), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CsrfChecked(How);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Exempt,
    Passed,
    Safe,
}

impl CsrfChecked {
    pub(super) const EXEMPT: Self = Self(How::Exempt);
    pub(super) const PASSED: Self = Self(How::Passed);
    pub(super) const SAFE: Self = Self(How::Safe);

    /// That of a request, if there is one.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }

    /// Whether the check was waived, by [`CsrfExempt`](super::CsrfExempt) or
    /// [`CsrfLayer::exempt`](super::CsrfLayer::exempt).
    pub fn is_exempt(self) -> bool {
        self.0 == How::Exempt
    }

    /// Whether a request of this method may act. A request that passed for its safe method, and has
    /// another one since, may not.
    pub fn covers(self, method: impl AsRef<str>) -> bool {
        self.0 != How::Safe || is_safe(method.as_ref())
    }
}

/// Whether a request may act for its user: it is safe, or was checked, or need not be. The handshake of
/// a WebSocket has to be looked at, though it is a `GET`.
#[cfg(any(feature = "_extractors", feature = "auth"))]
pub(in crate::web) fn is_covered(request: &impl crate::web::head::Head) -> bool {
    match request.extension::<CsrfChecked>() {
        Some(checked) => checked.covers(request.method()),
        None => is_safe(request.method()) && !super::check::is_handshake(request),
    }
}
