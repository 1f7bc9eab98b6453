//! Django's protection against forged requests for Rust services.
//!
//! The decisions are those of `django/middleware/csrf.py` in 5.2 and 6.1, in its order, with what it uses:
//! [hosts](CsrfSettings::allowed_hosts), proxies, cookies, forms, Python's reading of URLs. Each is a file
//! of its own, without I/O. The [tower layer](CsrfLayer) is around them. A secret that Django has set is
//! taken here, and the other way round, so forms of either may be posted to either.
//!
//! # Different from Django
//!
//! * Methods are as they are written: `get` is not `GET`, and is not safe.
//! * `DATA_UPLOAD_MAX_MEMORY_SIZE = None` keeps the limit of 2.5 MB, and of a longer
//!   `multipart/form-data` the beginning alone is looked at; [`CsrfLayer`] says how.
//! * A form that is `application/x-www-form-urlencoded` in any `charset` but UTF-8 gets 400; Django passes
//!   over names of encodings that Python does not know.
//! * A form without `Content-Length` is read. Django sees an empty one there, and looks into the header.
//! * In `multipart/form-data` a field whose name is encoded by RFC 2231 is not looked at, a `charset` is
//!   not looked at, and what is in files is not looked at.
//! * With `CSRF_USE_SESSIONS`, an entry of the session that is no secret matches nothing and is replaced when
//!   a token is asked for. Django fails, or goes on with it.
//! * `CSRF_FAILURE_VIEW` is Python; here the client reads one line of text.
//! * Of a referer that is refused the log has scheme and host, not the path.
//! * A failing session store gives 503.
//!
//! What differs refuses more than Django does, or lets a request in that brings a token which fits. Where
//! versions of Django differ over forms that no browser sends, 5.2.19 is followed.
//!
//! Proved by `tests/rust/csrf.rs`, which asks Django the same.

#[cfg(feature = "axum")]
mod axum;
mod body;
mod check;
mod form;
mod handle;
mod header;
mod host;
mod multipart;
mod rejection;
mod rules;
mod settings;
mod token;
mod tower;
mod url;
mod urlencoded;

pub use self::body::CsrfBody;
#[cfg(feature = "auth")]
pub(super) use self::check::is_handshake;
#[cfg(any(feature = "_extractors", feature = "auth"))]
pub(super) use self::handle::is_covered;
pub use self::handle::{Csrf, CsrfChecked};
pub use self::rejection::{CsrfRejection, FormError, Shown, TokenFault};
pub use self::settings::CsrfSettings;
pub use self::token::TokenFormat;
pub use self::tower::{CsrfExempt, CsrfExemptService, CsrfFuture, CsrfLayer, CsrfService};

/// The field of a form.
const FIELD: &str = "csrfmiddlewaretoken";
/// The entry of a session (`CSRF_SESSION_KEY`).
const SESSION_KEY: &str = "_csrftoken";
