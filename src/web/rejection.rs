//! Why a request is refused on account of its session, and how that is answered.
//!
//! The statuses are Django's where Django has one: 400 for `SessionInterrupted`. What the client reads
//! never says more than that; the reason goes to the log.

use std::error::Error as StdError;
use std::fmt;

use http::StatusCode;
use thiserror::Error;

use crate::session::{SessionError, StoreError};

/// Why a request was refused on account of its session.
///
/// # Example
///
/// ```
/// use django_session::SessionRejection;
/// use http::StatusCode;
///
/// assert_eq!(SessionRejection::Anonymous.status(), StatusCode::UNAUTHORIZED);
/// assert_eq!(SessionRejection::Anonymous.body_text(), "Authentication required");
/// ```
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{}", self.body_text())]
#[non_exhaustive]
pub enum SessionRejection {
    /// Nobody is logged in. 401.
    Anonymous,
    /// Another request has deleted the session (Django's `SessionInterrupted`). 400.
    Interrupted,
    /// The session or its settings hold something that cannot be used, such as an expiry that is no
    /// date. 500; the log says what.
    Invalid,
    /// There is no [`SessionLayer`](super::SessionLayer) around this handler. 500.
    MissingLayer,
    /// The store failed. Who the client is remains unknown. 503.
    Store,
    /// The request is not safe, and no [`CsrfLayer`](super::CsrfLayer) has looked at it: put one around
    /// the handler, or a [`CsrfExempt`](super::CsrfExempt) if something else protects it. 500.
    UncheckedRequest,
}

impl SessionRejection {
    /// The status of the response.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Anonymous => StatusCode::UNAUTHORIZED,
            Self::Interrupted => StatusCode::BAD_REQUEST,
            Self::Invalid | Self::MissingLayer | Self::UncheckedRequest => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Store => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The body of the response: plain text that gives nothing away.
    pub fn body_text(self) -> &'static str {
        match self {
            Self::Anonymous => "Authentication required",
            Self::Interrupted => {
                "The request's session was deleted before the request completed. The user may have \
                 logged out in a concurrent request, for example."
            }
            Self::Invalid | Self::MissingLayer | Self::UncheckedRequest => "Internal server error",
            Self::Store => "Service unavailable",
        }
    }

    /// What the client reads of a request that an extractor turns away. The log hears of it.
    #[cfg(feature = "_extractors")]
    pub(super) fn answer(self) -> (StatusCode, &'static str) {
        let (status, body) = (self.status(), self.body_text());
        self.log();
        tracing::trace!(target: "django_session::rejection", %status, body, "request rejected");
        (status, body)
    }

    /// Says in the log what is missing around a handler.
    #[cfg(feature = "_extractors")]
    pub(super) fn log(self) {
        let missing = match self {
            Self::MissingLayer => "there is no SessionLayer around this handler",
            Self::UncheckedRequest => {
                "a request that is not safe has come to a handler for users unchecked: put a CsrfLayer \
                 around it, or a CsrfExempt"
            }
            _ => return,
        };
        tracing::error!(target: "django_session", status_code = 500, "{missing}");
    }

    /// The answer to a failed operation, whose reason is logged here: an interruption where Django
    /// does, everything else as an error with the chain of its sources.
    pub(super) fn of(error: &SessionError) -> Self {
        let rejection = Self::kind(error);
        if rejection == Self::Interrupted {
            tracing::warn!(target: "django.request", status_code = 400, "{rejection}");
        } else {
            let status_code = rejection.status().as_u16();
            tracing::error!(target: "django_session", status_code, "{}", Chain(error));
        }
        rejection
    }

    /// The same, which the log does not hear of.
    pub(super) fn kind(error: &SessionError) -> Self {
        match error {
            SessionError::Store(StoreError::Update) => Self::Interrupted,
            // They come up only after thousands of tries, of a store that is broken or busy beyond all
            // measure; or the settings forbid to merge, and another try has what is stored by now.
            SessionError::Store(StoreError::Create | StoreError::Conflict) => Self::Store,
            SessionError::Store(error) if error.is_outage() => Self::Store,
            _ => Self::Invalid,
        }
    }
}

/// An error and what caused it, on one line.
pub(super) struct Chain<'a>(pub(super) &'a dyn StdError);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut error = self.0;
        while let Some(source) = error.source() {
            write!(f, ": {source}")?;
            error = source;
        }
        Ok(())
    }
}
