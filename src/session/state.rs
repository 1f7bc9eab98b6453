//! The state of a session object, and every step that needs no I/O.
//!
//! These are the rules of Django's `SessionBase`: what counts as access, what as a change, when a
//! session is empty. [`Session`](super::Session) does the loading and saving around them.

use std::sync::Arc;

use super::datetime::DateTime;
use super::error::StoreError;
use super::interface::{Revision, Saved, SessionRecord};
use super::key::SessionKey;
use super::merge::{Changes, OnConflict, merge};
use crate::codec::{Name, SessionData};

/// What a session object knows. The data is unset until it is loaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionState {
    pub(crate) session_key: Option<SessionKey>,
    pub(crate) accessed: bool,
    pub(crate) modified: bool,
    data: Option<Arc<SessionData>>,
    /// What the store had when it was last asked; nothing if there was nothing to be read, or if what
    /// there was is of no interest any more.
    snapshot: Option<Snapshot>,
    changes: Changes,
}

/// A session as it came from the store, or went there.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) data: Arc<SessionData>,
    pub(crate) expire_date: DateTime,
    pub(crate) revision: Option<Revision>,
}

impl From<SessionRecord> for Snapshot {
    fn from(record: SessionRecord) -> Self {
        let SessionRecord { data, expire_date, revision, .. } = record;
        Self { data, expire_date, revision }
    }
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

    /// What was loaded before, and changed in place by somebody else's hands.
    #[cfg(feature = "python")]
    pub(crate) fn from_parts(
        session_key: Option<SessionKey>,
        data: Arc<SessionData>,
        snapshot: Option<Snapshot>,
        changes: Changes,
    ) -> Self {
        Self { session_key, data: Some(data), snapshot, changes, ..Self::default() }
    }

    /// True without a key and without data. With a key it is false, whatever the data.
    pub(crate) fn is_empty(&self) -> bool {
        self.session_key.is_none() && self.data.as_ref().is_none_or(|data| data.is_empty())
    }

    #[cfg(feature = "auth")]
    pub(crate) fn is_loaded(&self) -> bool {
        self.data.is_some()
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
    ///
    /// A key that is itself the session comes from the client, so that it cannot be read is no news,
    /// but calls for another one.
    pub(crate) fn loaded(
        &mut self,
        outcome: Result<Option<SessionRecord>, StoreError>,
        is_in_key: bool,
    ) -> Result<(), StoreError> {
        self.data = Some(match outcome {
            Ok(Some(record)) => {
                let data = Arc::clone(&record.data);
                self.snapshot = Some(record.into());
                data
            }
            Ok(None) => {
                self.session_key = None;
                Arc::default()
            }
            Err(error) if error.is_corrupt() => {
                self.modified |= is_in_key;
                match &error {
                    StoreError::Decode(error) if error.is_bad_signature() && !is_in_key => {
                        tracing::warn!(
                            target: "django.security.SuspiciousSession",
                            "Session data corrupted"
                        );
                    }
                    error => {
                        tracing::debug!(target: "django_session", %error, "session cannot be read");
                    }
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

    /// What the store had when it was last asked.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// What a write may replace; nothing if it is to replace whatever is there.
    pub(crate) fn revision(&self, on_conflict: &OnConflict) -> Option<Revision> {
        match on_conflict {
            OnConflict::Overwrite => None,
            _ => self.snapshot.as_ref()?.revision.clone(),
        }
    }

    /// Sets an entry to a JSON text.
    pub(crate) fn insert_json(&mut self, name: &str, json: String) {
        self.changes.touch(name);
        self.change().insert_json(name, json);
    }

    /// Sets every entry of `other`; the session counts as modified even if there is none.
    pub(crate) fn update(&mut self, other: &SessionData) {
        for name in other.keys().filter_map(Name::to_str) {
            self.changes.touch(&name);
        }
        self.change().update(other);
    }

    /// Removes an entry; the session counts as modified only if it was there.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let there = self.data.as_ref().is_some_and(|data| data.contains_key(name));
        if there {
            self.changes.touch(name);
            self.change().remove(name);
        }
        there
    }

    /// `clear()`: empties the data without a look at what was there. What others have set meanwhile
    /// goes too.
    pub(crate) fn clear(&mut self) {
        self.data = Some(Arc::default());
        self.snapshot = None;
        self.changes = Changes::default();
        self.accessed = true;
        self.modified = true;
    }

    /// Forgets key and data, for a client that is to do the same.
    pub(crate) fn forget(&mut self) {
        let accessed = self.accessed;
        self.clear();
        self.session_key = None;
        self.accessed = accessed;
    }

    /// Takes note of what was written, and says under which key.
    pub(crate) fn saved(&mut self, record: SessionRecord, saved: Saved) -> SessionKey {
        let session_key = saved.session_key.unwrap_or_else(|| record.session_key.clone());
        self.session_key = Some(session_key.clone());
        self.snapshot = Some(Snapshot { revision: saved.revision, ..record.into() });
        self.changes = Changes::default();
        session_key
    }

    /// Brings what somebody else has stored meanwhile together with what was changed here, so that it
    /// can be saved again.
    pub(crate) fn merge(&mut self, stored: SessionRecord, on_conflict: &OnConflict) {
        let loaded = self.snapshot.as_ref().map(|snapshot| Arc::clone(&snapshot.data));
        let mine = self.data();
        let merged =
            merge(&loaded.unwrap_or_default(), &mine, &self.changes, &stored.data, on_conflict);
        self.data = Some(Arc::new(merged));
        self.snapshot = Some(stored.into());
    }

    /// Whether what is stored holds what was loaded or saved last.
    pub(crate) fn is_snapshot_of(&self, stored: &SessionRecord) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| *snapshot.data == *stored.data)
    }

    /// Takes what is stored for what was loaded; what was changed since is still to be saved.
    pub(crate) fn adopt(&mut self, stored: SessionRecord) {
        self.snapshot = Some(stored.into());
    }

    /// What was changed since the session was loaded or saved.
    pub(crate) fn changes(&self) -> Changes {
        self.changes.clone()
    }

    /// As [`SessionState::merge`], for a session that has a new key by now: `stored` is what the old one
    /// leads to.
    pub(crate) fn merge_old(
        &mut self,
        before: &SessionData,
        changes: &Changes,
        stored: &SessionData,
        on_conflict: &OnConflict,
    ) {
        self.data = Some(Arc::new(merge(before, &self.data(), changes, stored, on_conflict)));
    }

    /// Takes note of an expiry that was moved.
    pub(crate) fn touched(&mut self, expire_date: DateTime, saved: Saved) {
        self.session_key = saved.session_key.or_else(|| self.session_key.take());
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.expire_date = expire_date;
            snapshot.revision = saved.revision;
        }
    }

    /// Gives up what was loaded: the next save replaces what is there.
    pub(crate) fn forget_snapshot(&mut self) {
        self.snapshot = None;
    }

    /// The data to change; the session counts as modified.
    fn change(&mut self) -> &mut SessionData {
        self.modified = true;
        Arc::make_mut(self.data.get_or_insert_default())
    }

    /// Marks the session as changed, and its data as set.
    pub(crate) fn created(&mut self) {
        self.modified = true;
        self.data.get_or_insert_default();
    }
}
