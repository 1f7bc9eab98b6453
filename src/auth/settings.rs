//! The settings of `django.contrib.auth`.

use std::sync::Arc;

use super::hashers::PasswordHashers;
use super::user_model::UserModel;
use crate::codec::signing::Algorithm;
use crate::session::SessionSettings;

/// The settings of `django.contrib.auth`, with Django's defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuthSettings {
    /// `AUTHENTICATION_BACKENDS`, in their order.
    #[doc(alias = "AUTHENTICATION_BACKENDS")]
    pub backends: Vec<AuthBackend>,
    /// `AUTH_USER_MODEL`.
    #[doc(alias = "AUTH_USER_MODEL")]
    pub user_model: UserModel,
    /// The algorithms of the session auth hash: the one that is written, then those that are accepted
    /// too. SHA-256; SHA-256 and SHA-1 in 3.1 and 3.2, SHA-1 before.
    pub hash_algorithms: Vec<Algorithm>,
    /// Whether hashes under `SECRET_KEY_FALLBACKS` are accepted, as since 4.1.8.
    pub accept_fallback_hashes: bool,
    /// `PASSWORD_HASHERS`.
    #[doc(alias = "PASSWORD_HASHERS")]
    pub hashers: PasswordHashers,
    /// `LOGIN_URL`, as a path or an address: where those are sent who have to log in first.
    #[doc(alias = "LOGIN_URL")]
    pub login_url: String,
    /// The keys, and what sessions depend on.
    pub session: Arc<SessionSettings>,
}

impl AuthSettings {
    /// Django's defaults, for a site with these session settings.
    pub fn new(session: impl Into<Arc<SessionSettings>>) -> Self {
        Self {
            backends: vec![AuthBackend::new("django.contrib.auth.backends.ModelBackend")],
            user_model: UserModel::default(),
            hash_algorithms: vec![Algorithm::Sha256],
            accept_fallback_hashes: true,
            hashers: PasswordHashers::default(),
            login_url: "/accounts/login/".into(),
            session: session.into(),
        }
    }

    /// Sets `AUTHENTICATION_BACKENDS` by their dotted paths.
    #[must_use]
    pub fn with_backends<'a>(mut self, paths: impl IntoIterator<Item = &'a str>) -> Self {
        self.backends = paths.into_iter().map(AuthBackend::new).collect();
        self
    }

    /// Sets the user model.
    #[must_use]
    pub fn with_user_model(mut self, user_model: UserModel) -> Self {
        self.user_model = user_model;
        self
    }

    pub(super) fn backend(&self, path: &str) -> Option<&AuthBackend> {
        self.backends.iter().find(|backend| *backend.path == *path)
    }
}

/// One of `AUTHENTICATION_BACKENDS`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthBackend {
    /// Its dotted path, as sessions hold it.
    pub path: Arc<str>,
    /// What it does with somebody who is logged in.
    pub kind: AuthBackendKind,
    /// Whether it has a way of its own to let somebody in (`authenticate`), of which nothing is known
    /// here.
    pub has_own_authenticate: bool,
}

impl AuthBackend {
    /// The backend with this path, which is unknown unless it is one of Django's own.
    pub fn new(path: &str) -> Self {
        let kind = match path.strip_prefix("django.contrib.auth.backends.") {
            Some("ModelBackend") => AuthBackendKind::Model,
            Some("AllowAllUsersModelBackend") => AuthBackendKind::AllowAllUsersModel,
            Some("RemoteUserBackend") => AuthBackendKind::RemoteUser,
            Some("AllowAllUsersRemoteUserBackend") => AuthBackendKind::AllowAllUsersRemoteUser,
            _ => AuthBackendKind::Unknown,
        };
        Self { path: path.into(), kind, has_own_authenticate: kind == AuthBackendKind::Unknown }
    }

    /// A backend of the site's own that does what one of Django's does once somebody is logged in:
    /// its `get_user`, `user_can_authenticate` and permissions are inherited. How it lets somebody in
    /// is its own, unless [`has_own_authenticate`](Self::has_own_authenticate) is set to `false`.
    pub fn like(path: &str, kind: AuthBackendKind) -> Self {
        Self { path: path.into(), kind, has_own_authenticate: true }
    }
}

/// What a backend does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthBackendKind {
    /// `AllowAllUsersModelBackend`: inactive users are let in.
    AllowAllUsersModel,
    /// `AllowAllUsersRemoteUserBackend`: inactive users are let in, passwords are not looked at.
    AllowAllUsersRemoteUser,
    /// `ModelBackend`: active users are let in by their passwords.
    Model,
    /// `RemoteUserBackend`: active users are let in, passwords are not looked at.
    RemoteUser,
    /// Code of the site: its users cannot be recognised here.
    Unknown,
}

impl AuthBackendKind {
    /// Whether it looks at passwords.
    pub(super) fn checks_passwords(self) -> bool {
        matches!(self, Self::Model | Self::AllowAllUsersModel)
    }

    /// Whether inactive users are let in.
    pub(super) fn allows_all_users(self) -> bool {
        matches!(self, Self::AllowAllUsersModel | Self::AllowAllUsersRemoteUser)
    }
}
