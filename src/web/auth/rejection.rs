//! Why a request is refused on account of its user, and how that is answered.

use http::{HeaderValue, StatusCode};
use thiserror::Error;

use crate::auth::AuthError;
use crate::web::SessionRejection;
use crate::web::rejection::Chain;

/// Why a request was refused on account of its user.
///
/// The text is the body that the client reads; why something failed goes to the log.
///
/// # Example
///
/// ```
/// use django_session::web::AuthRejection;
/// use http::StatusCode;
///
/// assert_eq!(AuthRejection::Anonymous.status(), StatusCode::UNAUTHORIZED);
/// assert_eq!(AuthRejection::Forbidden.status(), StatusCode::FORBIDDEN);
/// ```
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}", self.body_text())]
#[non_exhaustive]
pub enum AuthRejection {
    /// Nobody is logged in. 401.
    Anonymous,
    /// The user may not do this. 403.
    Forbidden,
    /// It cannot be known who the user is, for a reason that stays: a backend of the site's own, a
    /// session of another user model. 500; the log says what.
    Invalid,
    /// Nobody is logged in; the client is sent there. 302.
    Login(HeaderValue),
    /// There is no [`AuthLayer`](super::AuthLayer) around this handler. 500.
    MissingLayer,
    /// The session could not be used, or may not: of a request that is not safe, and that no
    /// [`CsrfLayer`](crate::CsrfLayer) has looked at.
    #[error(transparent)]
    Session(#[from] SessionRejection),
    /// The users cannot be asked. Who the client is remains unknown. 503.
    Unavailable,
}

impl AuthRejection {
    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Anonymous => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Invalid | Self::MissingLayer => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Login(_) => StatusCode::FOUND,
            Self::Session(rejection) => rejection.status(),
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The body of the response: plain text that gives nothing away.
    pub fn body_text(&self) -> &'static str {
        match self {
            Self::Anonymous => SessionRejection::Anonymous.body_text(),
            Self::Forbidden => "Permission denied",
            Self::Invalid | Self::MissingLayer => SessionRejection::Invalid.body_text(),
            Self::Login(_) => "",
            Self::Session(rejection) => rejection.body_text(),
            Self::Unavailable => SessionRejection::Store.body_text(),
        }
    }

    /// The header `Location` of the response.
    pub fn location(&self) -> Option<&HeaderValue> {
        match self {
            Self::Login(location) => Some(location),
            _ => None,
        }
    }

    /// The answer to a failed step, whose reason is logged here.
    pub(in crate::web) fn of(error: &AuthError) -> Self {
        if let AuthError::Session(error) = error {
            return Self::Session(SessionRejection::of(error));
        }
        let rejection = Self::kind(error);
        let status_code = rejection.status().as_u16();
        tracing::error!(target: "django_session", status_code, "{}", Chain(error));
        rejection
    }

    /// The same, which the log does not hear of.
    pub(in crate::web) fn kind(error: &AuthError) -> Self {
        match error {
            AuthError::Session(error) => Self::Session(SessionRejection::kind(error)),
            error if error.is_outage() => Self::Unavailable,
            _ => Self::Invalid,
        }
    }

    /// Says in the log what is missing around a handler.
    #[cfg(feature = "_extractors")]
    pub(in crate::web) fn log(&self) {
        let missing = match self {
            Self::MissingLayer => "there is no AuthLayer around this handler",
            Self::Session(rejection) => return rejection.log(),
            _ => return,
        };
        tracing::error!(target: "django_session", status_code = 500, "{missing}");
    }
}
