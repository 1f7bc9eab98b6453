//! Handlers for users who are logged in: `request.user`, `login_required` and `permission_required`.
//!
//! [`AuthLayer`] stands inside of [`SessionLayer`](crate::SessionLayer) and
//! [`CsrfLayer`](super::CsrfLayer). Extractors ask it, in axum and in actix-web:
//!
//! | extractor | lets in | Django's counterpart |
//! |---|---|---|
//! | [`AuthSession`] | everybody | `request` for `login`, `logout` and `has_perm` |
//! | [`MaybeUser`] | everybody | `request.user` |
//! | [`User`](crate::auth::User) | who is logged in | `login_required` |
//! | [`RequirePermission`] | who has a permission | `permission_required`, `PermissionRequiredMixin` |
//!
//! Who must log in first is sent to `LOGIN_URL` or gets 401, who may not do it gets 403, and while store
//! or users cannot be asked everybody gets 503: that nobody is logged in is an answer, that nobody knows
//! is none. Each of them refuses a request whose method is not safe, and a handshake of a WebSocket, if
//! no `CsrfLayer` has looked at it: a cookie alone says who the browser is, not who made it ask.
//!
//! Without a framework, [`AuthSession::of`] and its methods do the same.

#[cfg(feature = "axum")]
mod axum;
mod login_url;
mod rejection;
mod session;
mod tower;

pub use self::rejection::AuthRejection;
pub use self::session::AuthSession;
pub use self::tower::{AuthLayer, AuthService};
use crate::auth::User;

/// The user of a request, or nobody.
///
/// As an extractor it turns nobody away, but for unsafe requests that no `CsrfLayer` has looked at, and
/// while it cannot be known who it is. A login that does not count any more is nobody's, as in Django.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaybeUser(pub Option<User>);

/// A permission that a handler asks for, as a type.
///
/// # Example
///
/// ```
/// use django_session::web::Permission;
///
/// struct PublishPost;
///
/// impl Permission for PublishPost {
///     const PERMISSIONS: &'static [&'static str] = &["blog.publish_post"];
/// }
/// ```
pub trait Permission {
    /// All of them are needed; each is `app_label.codename`.
    const PERMISSIONS: &'static [&'static str];
}

/// A user who has a permission.
///
/// It dereferences to the [`User`].
///
/// # Example
///
/// ```
/// # #[cfg(feature = "axum")]
/// # fn main() {
/// use django_session::web::{Permission, RequirePermission};
///
/// struct PublishPost;
///
/// impl Permission for PublishPost {
///     const PERMISSIONS: &'static [&'static str] = &["blog.publish_post"];
/// }
///
/// async fn publish(user: RequirePermission<PublishPost>) -> String {
///     format!("published by {}", user.username())
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::post(publish));
/// # }
/// # #[cfg(not(feature = "axum"))]
/// # fn main() {}
/// ```
pub struct RequirePermission<P> {
    user: User,
    permission: std::marker::PhantomData<fn() -> P>,
}

impl<P> RequirePermission<P> {
    /// The user.
    pub fn into_user(self) -> User {
        self.user
    }
}

impl<P> std::ops::Deref for RequirePermission<P> {
    type Target = User;

    fn deref(&self) -> &User {
        &self.user
    }
}

impl<P> std::fmt::Debug for RequirePermission<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequirePermission").field("user", &self.user).finish_non_exhaustive()
    }
}
