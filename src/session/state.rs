//! The state of a session object, and every step that needs no I/O.
//!
//! These are the rules of Django's `SessionBase`: what counts as access, what as a change, when a
//! session is empty. [`Session`](super::Session) does the loading and saving around them.

use std::sync::Arc;

use super::error::StoreError;
use super::interface::SessionRecord;
use super::key::SessionKey;
use crate::codec::SessionData;

/// What a session object knows. The data is unset until it is loaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionState {
    pub(crate) session_key: Option<SessionKey>,
    pub(crate) accessed: bool,
    pub(crate) modified: bool,
    data: Option<Arc<SessionData>>,
}

/// The flags by which a web layer decides what to do with a response.
#[cfg(feature = "tower")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    pub(crate) accessed: bool,
    pub(crate) modified: bool,
    pub(crate) empty: bool,
}

impl SessionState {
    pub(crate) fn new(session_key: Option<SessionKey>) -> Self {
        Self { session_key, ..Self::default() }
    }

    /// True without a key and without data. With a key it is false, whatever the data.
    pub(crate) fn is_empty(&self) -> bool {
        self.session_key.is_none() && self.data.as_ref().is_none_or(|data| data.is_empty())
    }

    #[cfg(feature = "tower")]
    pub(crate) fn flags(&self) -> Flags {
        Flags { accessed: self.accessed, modified: self.modified, empty: self.is_empty() }
    }

    /// Notes an access and tells which session has to be loaded for it, if any.
    pub(crate) fn access(&mut self) -> Option<SessionKey> {
        self.accessed = true;
        if self.data.is_some() {
            return None;
        }
        if self.session_key.is_none() {
            self.data = Some(Arc::default());
        }
        self.session_key.clone()
    }

    /// Takes what a store loaded. A session that is not there costs the key; one that cannot be read
    /// keeps it, so that the next save overwrites it, as in Django. One beyond the limit on its size,
    /// or of another serializer, could be read by the site, so it must not be overwritten: that is an
    /// error.
    pub(crate) fn loaded(
        &mut self,
        outcome: Result<Option<SessionRecord>, StoreError>,
    ) -> Result<(), StoreError> {
        self.data = Some(match outcome {
            Ok(Some(record)) => record.data,
            Ok(None) => {
                self.session_key = None;
                Arc::default()
            }
            Err(StoreError::Decode(error)) if !error.is_configuration() => {
                if error.is_bad_signature() {
                    tracing::warn!(
                        target: "django.security.SuspiciousSession",
                        "Session data corrupted"
                    );
                } else {
                    tracing::debug!(target: "django_session", %error, "session cannot be read");
                }
                Arc::default()
            }
            Err(error) => return Err(error),
        });
        Ok(())
    }

    /// The data, which has been loaded; empty if not.
    pub(crate) fn data(&self) -> Arc<SessionData> {
        self.data.clone().unwrap_or_default()
    }

    /// The data to change; the session counts as modified.
    pub(crate) fn change(&mut self) -> &mut SessionData {
        self.modified = true;
        Arc::make_mut(self.data.get_or_insert_default())
    }

    /// Removes an entry; the session counts as modified only if it was there.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let there = self.data.as_ref().is_some_and(|data| data.contains_key(name));
        if there {
            self.change().remove(name);
        }
        there
    }

    /// `clear()`: empties the data without a look at what was there.
    pub(crate) fn clear(&mut self) {
        self.data = Some(Arc::default());
        self.accessed = true;
        self.modified = true;
    }
}
