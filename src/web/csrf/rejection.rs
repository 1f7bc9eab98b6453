//! Why an unsafe request is refused, in Django's words, and how that is answered.

use std::fmt::{self, Write as _};

use http::StatusCode;
use thiserror::Error;

use super::token::TokenFormat;
use crate::web::SessionRejection;

/// Why a request was refused by [`CsrfLayer`](super::CsrfLayer).
///
/// The text is Django's reason, which goes to the log. The client reads [`body_text`](Self::body_text),
/// which repeats nothing of the request. Neither holds a token.
///
/// # Example
///
/// ```
/// use django_session::web::CsrfRejection;
/// use http::StatusCode;
///
/// assert_eq!(CsrfRejection::NoCookie.status(), StatusCode::FORBIDDEN);
/// assert_eq!(CsrfRejection::NoCookie.to_string(), "CSRF cookie not set.");
/// assert_eq!(CsrfRejection::NoCookie.body_text(), "CSRF verification failed: CSRF cookie not set.");
/// ```
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CsrfRejection {
    /// `Origin` is neither ours nor trusted (`REASON_BAD_ORIGIN`). 403.
    #[error("Origin checking failed - {0} does not match any trusted origins.")]
    BadOrigin(Shown),
    /// The request came over TLS without `Origin`, and `Referer` is neither ours nor trusted
    /// (`REASON_BAD_REFERER`). 403. Only scheme and host of it are kept: the rest may hold secrets.
    #[error("Referer checking failed - {0} does not match any trusted origins.")]
    BadReferer(Shown),
    /// The cookie is no secret, masked or not. 403.
    #[error("CSRF cookie {0}.")]
    CookieFormat(TokenFormat),
    /// The form cannot be read. 400.
    #[error(transparent)]
    Form(#[from] FormError),
    /// The field `csrfmiddlewaretoken` does not fit. 403.
    #[error("CSRF token from POST {0}.")]
    FormToken(TokenFault),
    /// The header does not fit. 403.
    #[error("CSRF token from the '{header}' HTTP header {fault}.")]
    HeaderToken {
        /// The name of the header as Django shows it.
        header: Box<str>,
        /// What is wrong.
        fault: TokenFault,
    },
    /// The request came over TLS, its `Referer` did not (`REASON_INSECURE_REFERER`). 403.
    #[error("Referer checking failed - Referer is insecure while host is secure.")]
    InsecureReferer,
    /// `Referer` is no URL with a host (`REASON_MALFORMED_REFERER`). 403.
    #[error("Referer checking failed - Referer is malformed.")]
    MalformedReferer,
    /// There is no [`CsrfLayer`](super::CsrfLayer) around this handler. 500.
    #[error("there is no CsrfLayer around this handler")]
    MissingLayer,
    /// `CSRF_USE_SESSIONS` is set and there is no [`SessionLayer`](crate::SessionLayer) around the
    /// [`CsrfLayer`](super::CsrfLayer) (`ImproperlyConfigured`). 500.
    #[error("CSRF_USE_SESSIONS is enabled, but there is no SessionLayer around the CsrfLayer")]
    MissingSessionLayer,
    /// There is no secret to compare with (`REASON_NO_CSRF_COOKIE`). 403.
    #[error("CSRF cookie not set.")]
    NoCookie,
    /// The request came over TLS with neither `Origin` nor `Referer` (`REASON_NO_REFERER`). 403.
    #[error("Referer checking failed - no Referer.")]
    NoReferer,
    /// The session could not be used.
    #[error(transparent)]
    Session(#[from] SessionRejection),
    /// Neither form nor header has a token (`REASON_CSRF_TOKEN_MISSING`). 403.
    #[error("CSRF token missing.")]
    TokenMissing,
}

/// What is wrong with a token of a request.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenFault {
    /// It is no token.
    #[error(transparent)]
    Format(TokenFormat),
    /// It is one, of another secret.
    #[error("incorrect")]
    Incorrect,
}

/// Why a form cannot be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormError {
    /// A form of `application/x-www-form-urlencoded` is said to be in another encoding.
    #[error(
        "HTTP requests with the 'application/x-www-form-urlencoded' content type must be UTF-8 \
         encoded."
    )]
    Charset,
    /// The parts of `multipart/form-data` cannot be told apart (`MultiPartParserError`).
    #[error("Unable to parse request body")]
    Multipart,
    /// It is longer than `DATA_UPLOAD_MAX_MEMORY_SIZE` (`RequestDataTooBig`).
    #[error("Request body exceeded settings.DATA_UPLOAD_MAX_MEMORY_SIZE.")]
    TooBig,
    /// It has more fields than `DATA_UPLOAD_MAX_NUMBER_FIELDS` (`TooManyFieldsSent`).
    #[error("The number of GET/POST parameters exceeded settings.DATA_UPLOAD_MAX_NUMBER_FIELDS.")]
    TooManyFields,
    /// It has more files than `DATA_UPLOAD_MAX_NUMBER_FILES` (`TooManyFilesSent`).
    #[error("The number of files exceeded settings.DATA_UPLOAD_MAX_NUMBER_FILES.")]
    TooManyFiles,
}

impl CsrfRejection {
    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Form(_) => StatusCode::BAD_REQUEST,
            Self::MissingLayer | Self::MissingSessionLayer => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Session(rejection) => rejection.status(),
            _ => StatusCode::FORBIDDEN,
        }
    }

    /// The body of the response: plain text that repeats nothing of the request.
    pub fn body_text(&self) -> &'static str {
        match self {
            Self::BadOrigin(_) => "CSRF verification failed: Origin checking failed.",
            Self::BadReferer(_)
            | Self::InsecureReferer
            | Self::MalformedReferer
            | Self::NoReferer => "CSRF verification failed: Referer checking failed.",
            Self::CookieFormat(_) => "CSRF verification failed: CSRF cookie malformed.",
            Self::Form(_) => "Bad request",
            Self::FormToken(_) | Self::HeaderToken { .. } => {
                "CSRF verification failed: CSRF token incorrect."
            }
            Self::MissingLayer | Self::MissingSessionLayer => "Internal server error",
            Self::NoCookie => "CSRF verification failed: CSRF cookie not set.",
            Self::Session(rejection) => rejection.body_text(),
            Self::TokenMissing => "CSRF verification failed: CSRF token missing.",
        }
    }

    /// Writes the reason to the log, where Django does.
    pub(crate) fn log(&self) {
        let status_code = self.status().as_u16();
        match self {
            Self::Form(FormError::TooBig) => {
                tracing::error!(target: "django.security.RequestDataTooBig", status_code, "{self}");
            }
            Self::Form(FormError::TooManyFields) => {
                tracing::error!(target: "django.security.TooManyFieldsSent", status_code, "{self}");
            }
            Self::Form(FormError::TooManyFiles) => {
                tracing::error!(target: "django.security.TooManyFilesSent", status_code, "{self}");
            }
            Self::Form(_) => {
                tracing::warn!(target: "django.request", status_code, "Bad request ({self})");
            }
            Self::MissingLayer | Self::MissingSessionLayer => {
                tracing::error!(target: "django_session", status_code, "{self}");
            }
            // Its reason was logged when it came up.
            Self::Session(_) => {}
            _ => {
                tracing::warn!(target: "django.security.csrf", status_code, "Forbidden ({self})");
            }
        }
    }
}

/// A text from a header, made fit for a log: at most 200 characters, nothing but visible ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(Box<str>);

impl Shown {
    const LENGTH: usize = 200;

    /// Escapes as Django's log does (`unicode_escape`).
    pub(super) fn new(text: &str) -> Self {
        let mut shown = String::new();
        for char in text.chars().take(Self::LENGTH) {
            // Writing to a text does not fail.
            let _ = match char {
                '\t' => write!(shown, "\\t"),
                '\n' => write!(shown, "\\n"),
                '\r' => write!(shown, "\\r"),
                '\\' => write!(shown, "\\\\"),
                ' '..='~' => write!(shown, "{char}"),
                '\0'..='\u{ff}' => write!(shown, "\\x{:02x}", u32::from(char)),
                '\u{100}'..='\u{ffff}' => write!(shown, "\\u{:04x}", u32::from(char)),
                _ => write!(shown, "\\U{:08x}", u32::from(char)),
            };
        }
        if text.chars().nth(Self::LENGTH).is_some() {
            shown.push_str("...");
        }
        Self(shown.into())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_visible() {
        for (text, shown) in
            [("https://a", "https://a"), ("\t\0\u{e9}\\\u{1b}", "\\t\\x00\\xe9\\\\\\x1b")]
        {
            assert_eq!(Shown::new(text).to_string(), shown);
        }
        assert_eq!(Shown::new(&"a".repeat(200)).to_string(), "a".repeat(200));
        assert_eq!(Shown::new(&"a".repeat(201)).to_string(), format!("{}...", "a".repeat(200)));
    }
}
