//! Which field a form has, by what kind of form it is: `HttpRequest._load_post_and_files`.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};

use super::header::Parameters;
use super::host::meta;
use super::rejection::FormError;
use super::settings::CsrfSettings;
use super::{multipart, urlencoded};
use crate::web::head::Head;

/// A kind of form.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    Multipart { boundary: String },
    UrlEncoded,
}

impl Form {
    /// Says what the headers promise; `None` if it is no form.
    ///
    /// # Errors
    ///
    /// [`FormError`] for a form that need not be read at all.
    pub(super) fn of(
        request: &impl Head,
        settings: &CsrfSettings,
    ) -> Result<Option<Self>, FormError> {
        let Some(content_type) = meta(request, &CONTENT_TYPE) else { return Ok(None) };
        let parameters = Parameters::parse(&content_type);
        match &*parameters.main {
            "multipart/form-data" => {
                let boundary = multipart::boundary(&content_type, &parameters)?;
                Ok(Some(Self::Multipart { boundary }))
            }
            "application/x-www-form-urlencoded" => {
                // Django passes over encodings that Python does not know.
                let charset = parameters.get("charset").unwrap_or_default();
                if parameters.has("charset") && !charset.eq_ignore_ascii_case("utf-8") {
                    return Err(FormError::Charset);
                }
                let length = meta(request, &CONTENT_LENGTH).and_then(|length| length.parse().ok());
                if length.is_some_and(|length: u64| {
                    usize::try_from(length)
                        .map_or(true, |length| length > settings.data_upload_max_memory_size)
                }) {
                    return Err(FormError::TooBig);
                }
                Ok(Some(Self::UrlEncoded))
            }
            _ => Ok(None),
        }
    }

    /// How many bytes are kept of the body.
    pub(super) fn prefix_size(&self, settings: &CsrfSettings) -> usize {
        let size = settings.data_upload_max_memory_size;
        match self {
            Self::Multipart { .. } => settings.multipart_prefix_size.unwrap_or(size),
            Self::UrlEncoded => size,
        }
    }

    /// The value of the field `csrfmiddlewaretoken`, empty if there is none. `is_whole` says whether
    /// the body is no longer than this.
    pub(super) fn field(
        &self,
        body: &[u8],
        is_whole: bool,
        settings: &CsrfSettings,
    ) -> Result<String, FormError> {
        match self {
            Self::Multipart { boundary } => multipart::field(body, boundary, is_whole, settings),
            Self::UrlEncoded if !is_whole => Err(FormError::TooBig),
            Self::UrlEncoded => urlencoded::field(body, settings.data_upload_max_number_fields),
        }
    }
}
