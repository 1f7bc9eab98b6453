//! What decisions ask the head of a request, whichever framework's types it has.

use http::header::HeaderName;
use http::request::Parts;

/// The head of a request.
pub(super) trait Head {
    /// The host that an absolute URI or HTTP/2 names.
    fn authority(&self) -> Option<&str>;

    /// What an outer layer has put into the request.
    fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<T>;

    /// The lines of a header, as they came.
    fn lines<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]>;

    /// As it is written: `get` is not `GET`.
    fn method(&self) -> &str;

    /// What was asked for, without scheme and host.
    #[cfg(feature = "auth")]
    fn path_and_query(&self) -> Option<&str>;
}

impl Head for Parts {
    fn authority(&self) -> Option<&str> {
        self.uri.authority().map(http::uri::Authority::as_str)
    }

    fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.extensions.get().cloned()
    }

    fn lines<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.headers.get_all(name).iter().map(http::HeaderValue::as_bytes)
    }

    fn method(&self) -> &str {
        self.method.as_str()
    }

    #[cfg(feature = "auth")]
    fn path_and_query(&self) -> Option<&str> {
        self.uri.path_and_query().map(http::uri::PathAndQuery::as_str)
    }
}
