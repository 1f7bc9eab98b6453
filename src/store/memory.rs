//! A `django_session` table in memory: the reference for every other store.
//!
//! Rows hold signed text, as in a database, so that a test can put in what Django wrote, or broke.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::codec::SessionCodec;
use crate::session::{
    DateTime, Revision, Saved, SessionKey, SessionRecord, SessionStore, StoreError,
};

/// Keeps sessions in the memory of this process, for tests and for trying things out.
///
/// Clones share their rows.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use django_session::{DateTime, SecretKey, SessionCodec, SessionKey, SessionStore};
/// use django_session::store::MemoryStore;
///
/// let store = MemoryStore::new(SessionCodec::new(&SecretKey::new("correct horse battery staple")?));
/// let key = SessionKey::generate();
/// store.insert_row(
///     key.clone(),
///     "eyJhIjoxfQ:1r31eq:4OVpArSAAUYyfDXk1ZIieKYo9WrR2kQvEte6pBdBWGQ",
///     DateTime::Aware("2023-11-28T22:13:20Z".parse()?),
/// );
/// let loaded = store.load(&key, DateTime::Aware("2023-11-15T00:00:00Z".parse()?)).await?;
/// assert_eq!(loaded.unwrap().data.get::<u32>("a")?, Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    codec: SessionCodec,
    rows: Arc<Mutex<HashMap<SessionKey, Row>>>,
}

#[derive(Clone)]
struct Row {
    session_data: String,
    expire_date: DateTime,
}

impl Row {
    fn revision(&self) -> Revision {
        Revision::new(self.session_data.as_bytes())
    }
}

impl MemoryStore {
    /// An empty store, whose rows this codec signs.
    pub fn new(codec: SessionCodec) -> Self {
        Self { codec, rows: Arc::default() }
    }

    /// Puts a row in as it is, in place of one with the same key.
    pub fn insert_row(
        &self,
        session_key: SessionKey,
        session_data: impl Into<String>,
        expire_date: DateTime,
    ) {
        let row = Row { session_data: session_data.into(), expire_date };
        self.rows().insert(session_key, row);
    }

    /// The signed text and the expire date stored under a key.
    pub fn row(&self, session_key: &SessionKey) -> Option<(String, DateTime)> {
        let row = self.rows().get(session_key).cloned()?;
        Some((row.session_data, row.expire_date))
    }

    /// The keys that are taken, in order.
    pub fn session_keys(&self) -> Vec<SessionKey> {
        let mut keys: Vec<_> = self.rows().keys().cloned().collect();
        keys.sort();
        keys
    }

    fn encode(&self, record: &SessionRecord) -> Result<Row, StoreError> {
        let now = Timestamp::now().as_second();
        let session_data = self.codec.encode(&record.data, now).map_err(StoreError::Encode)?;
        Ok(Row { session_data, expire_date: record.expire_date })
    }

    /// No code that holds the lock can panic half way through a change.
    fn rows(&self) -> MutexGuard<'_, HashMap<SessionKey, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `this` is later than `other`; an aware and a naive time are compared by what they show.
fn is_after(this: DateTime, other: DateTime) -> bool {
    this.to_civil() > other.to_civil()
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("len", &self.rows().len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for MemoryStore {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        Ok(self.rows().contains_key(session_key))
    }

    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let row = self.encode(record)?;
        match self.rows().entry(record.session_key.clone()) {
            Entry::Occupied(_) => Err(StoreError::Create),
            Entry::Vacant(place) => Ok(Saved::as_revision(place.insert(row).revision())),
        }
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let row = self.rows().get(session_key).cloned();
        let Some(row) = row.filter(|row| is_after(row.expire_date, now)) else { return Ok(None) };
        let decoded = self.codec.decode(&row.session_data).map_err(StoreError::Decode)?;
        Ok(Some(SessionRecord {
            session_key: session_key.clone(),
            data: Arc::new(decoded.data),
            expire_date: row.expire_date,
            revision: Some(row.revision()),
        }))
    }

    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let row = self.encode(record)?;
        match (self.rows().get_mut(&record.session_key), &record.revision) {
            (Some(place), Some(revision)) if place.revision() != *revision => {
                Err(StoreError::Conflict)
            }
            (Some(place), _) => {
                let revision = row.revision();
                *place = row;
                Ok(Saved::as_revision(revision))
            }
            (None, Some(_)) => Err(StoreError::Conflict),
            (None, None) => Err(StoreError::Update),
        }
    }

    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let mut rows = self.rows();
        let row = rows.get_mut(&record.session_key).ok_or(StoreError::Update)?;
        row.expire_date = record.expire_date;
        Ok(Saved { revision: record.revision.clone(), ..Saved::default() })
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        self.rows().remove(session_key);
        Ok(())
    }

    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        match self.rows().entry(session_key.clone()) {
            Entry::Occupied(row) if row.get().revision() == *revision => {
                row.remove();
                Ok(())
            }
            _ => Err(StoreError::Conflict),
        }
    }

    async fn cycle_key(
        &self,
        session_key: &SessionKey,
        record: &SessionRecord,
    ) -> Result<Saved, StoreError> {
        let row = self.encode(record)?;
        let mut rows = self.rows();
        match (rows.get(session_key), &record.revision) {
            (Some(found), Some(revision)) if found.revision() != *revision => {
                return Err(StoreError::Conflict);
            }
            (Some(_), _) => {}
            (None, Some(_)) => return Err(StoreError::Conflict),
            (None, None) => return Err(StoreError::Update),
        }
        let Entry::Vacant(place) = rows.entry(record.session_key.clone()) else {
            return Err(StoreError::Create);
        };
        let saved = Saved::as_revision(place.insert(row).revision());
        rows.remove(session_key);
        Ok(saved)
    }

    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        let mut rows = self.rows();
        let before = rows.len();
        rows.retain(|_, row| !is_after(now, row.expire_date));
        Ok((before - rows.len()) as u64)
    }
}
