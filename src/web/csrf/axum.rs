//! axum's extractor of the protection, and the answer to a request that is refused.

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use super::{Csrf, CsrfRejection};

/// The protection that [`CsrfLayer`](super::CsrfLayer) put there.
impl<S: Sync> FromRequestParts<S> for Csrf {
    type Rejection = CsrfRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get().cloned().ok_or(CsrfRejection::MissingLayer)
    }
}

/// The reason is logged, not sent.
impl IntoResponse for CsrfRejection {
    fn into_response(self) -> Response {
        self.log();
        (self.status(), self.body_text()).into_response()
    }
}
