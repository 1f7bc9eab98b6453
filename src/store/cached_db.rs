//! Sessions in a table with a cache before it, as `django.contrib.sessions.backends.cached_db` keeps
//! them.
//!
//! The row is the session, and what is in the cache is a copy that Django and this store both trust
//! without a look at the row. So a copy must never outlive its row, nor hide a later state of it:
//!
//! * A copy is **added** only by who has just created the row, or who holds the row's lock. A delete, by
//!   Django too, waits for the lock, and takes the copy away afterwards.
//! * A copy is **replaced** only if it is the very one that was there before the row was changed.
//!   Otherwise it is taken away.
//!
//! The reasons are in `docs/adr/0012-a-copy-in-the-cache.md`. Different from Django: the cache being
//! away is an error where a copy might stay behind, and parallel changes are merged.

use async_trait::async_trait;

use super::cache::{Cache, CacheStore, Written};
use super::sql::SqlStore;
use crate::codec::cache::{CacheCodec, CacheKeys};
use crate::session::{
    DateTime, Revision, Saved, SessionKey, SessionRecord, SessionSettings, SessionStore, StoreError,
};

/// The table `django_session` with one of Django's caches before it.
///
/// Reading a session that is in the cache takes one round trip to it. One that is not is read from its
/// row and put into the cache. Saving a session that was read from the cache reads the row too, so that
/// what others have changed is merged.
///
/// Deleting needs the cache: while it is away nothing is deleted, and the caller hears of it.
///
/// What stock Django does beside it is its own: its readers put a session into the cache without
/// holding the row, so one that races a logout can bring it back there, whoever logged out. It can be
/// read then, until somebody tries to save it.
#[derive(Clone, Debug)]
pub struct CachedDbStore {
    db: SqlStore,
    copies: CacheStore,
}

impl CachedDbStore {
    /// A store on a table and a cache. The keys are those of
    /// [`CacheEngine::CachedDb`](crate::codec::cache::CacheEngine::CachedDb).
    pub fn new(db: SqlStore, cache: impl Cache, keys: CacheKeys, codec: CacheCodec) -> Self {
        Self { db, copies: CacheStore::new(cache, keys, codec) }
    }

    /// Takes `USE_TZ` and `TIME_ZONE` of the site, in whose kind of time sessions expire.
    #[must_use]
    pub fn with_settings(mut self, settings: &SessionSettings) -> Self {
        self.db = self.db.with_use_tz(settings.use_tz).with_time_zone(settings.time_zone.clone());
        self.copies = self.copies.with_settings(settings);
        self
    }

    /// The table.
    pub fn db(&self) -> &SqlStore {
        &self.db
    }

    /// Puts what is stored now in place of the copy that was there before, or takes away whatever copy
    /// there is.
    async fn renew(
        &self,
        record: &SessionRecord,
        before: Option<&Revision>,
    ) -> Result<Option<Revision>, StoreError> {
        let key = self.copies.key(&record.session_key);
        if let (Some(before), Ok((value, timeout))) = (before, self.copies.encode(record))
            && timeout.is_positive()
        {
            match self.copies.cache().replace(&key, &value, timeout, Some(before)).await? {
                Written::Done(revision) => return Ok(Some(revision)),
                Written::Missing => return Ok(None),
                Written::Changed => {}
            }
        }
        self.copies.cache().delete(&key, None).await?;
        Ok(None)
    }

    /// Makes a copy of a session whose key nobody knows yet, so that nobody can have deleted it.
    async fn copy_new(&self, record: &SessionRecord) -> Result<Option<Revision>, StoreError> {
        match self.copies.create(record).await {
            Ok(saved) => Ok(saved.revision),
            Err(StoreError::Create) => self.renew(record, None).await,
            Err(error) => {
                warn(&error);
                Ok(None)
            }
        }
    }

    /// Takes away a copy that has outlived its row: one that stock Django made while somebody logged out.
    async fn forget_copy(&self, session_key: &SessionKey) {
        if let Err(error) = self.copies.delete(session_key).await {
            warn(&error);
        }
    }

    /// The session in its row, which is put into the cache.
    async fn fill(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let filled = self.db.load_held(session_key, now, |mut record| async {
            let copy = match self.copies.encode(&record) {
                Ok((value, timeout)) if timeout.is_positive() => {
                    let key = self.copies.key(&record.session_key);
                    self.copies.cache().add(&key, &value, timeout).await
                }
                // It lives on without a copy.
                _ => Ok(Written::Missing),
            };
            let copy = match copy {
                Ok(Written::Done(revision)) => Some(revision),
                Ok(_) => None,
                Err(error) => {
                    warn(&error);
                    None
                }
            };
            record.revision = Some(Both { row: record.revision, copy }.join());
            record
        });
        match filled.await {
            // It has one try, and may wait for whoever writes the row. To read it takes neither.
            Err(error) if error.is_outage() => self.row(session_key, now, None).await,
            // There is none, or somebody is writing it, who is not waited for, or it has another spelling,
            // under which nobody would take a copy away.
            Ok(None) if self.db.may_pass_over() => self.row(session_key, now, None).await,
            filled => filled,
        }
    }

    /// The session in its row, read without holding it, so that no copy may be made of it.
    async fn row(
        &self,
        session_key: &SessionKey,
        now: DateTime,
        copy: Option<Revision>,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let found = self.db.load(session_key, now).await?;
        Ok(found.map(|mut record| {
            record.revision = Some(Both { row: record.revision, copy }.join());
            record
        }))
    }
}

/// The revisions of a row and of its copy, as one.
#[derive(Default)]
struct Both {
    /// None if only the copy was looked at.
    row: Option<Revision>,
    /// None if there is no copy, or none is known.
    copy: Option<Revision>,
}

impl Both {
    /// Of each whether it is there, then the length of the first, then both.
    fn join(self) -> Revision {
        let part = |revision: &Option<Revision>| {
            revision.as_ref().map_or_else(Vec::new, |revision| revision.as_bytes().to_vec())
        };
        let (row, copy) = (part(&self.row), part(&self.copy));
        let mut bytes = vec![u8::from(self.row.is_some()), u8::from(self.copy.is_some())];
        bytes.extend((row.len() as u64).to_le_bytes());
        bytes.extend(row);
        bytes.extend(copy);
        Revision::new(bytes)
    }

    fn split(revision: &Revision) -> Option<Self> {
        let (&[has_row, has_copy], rest) = revision.as_bytes().split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (row, copy) = rest.split_at_checked(length)?;
        let part = |there: u8, bytes: &[u8]| (there == 1).then(|| Revision::new(bytes));
        Some(Self { row: part(has_row, row), copy: part(has_copy, copy) })
    }
}

fn is_after(this: DateTime, other: DateTime) -> bool {
    this.since(other).is_some_and(|left| left.is_positive())
}

/// A cache that is away costs time and nothing else, as long as it is only read.
fn warn(error: &StoreError) {
    tracing::warn!(target: "django_session", %error, "the cache before the sessions failed");
}

#[async_trait]
impl SessionStore for CachedDbStore {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        self.db.exists(session_key).await
    }

    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let Saved { revision: row, .. } = self.db.create(record).await?;
        let copy = self.copy_new(record).await?;
        Ok(Saved::as_revision(Both { row, copy }.join()))
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        match self.copies.load(session_key, now).await {
            // At the very end of its life the row knows better, to the microsecond.
            Ok(Some(mut record)) if is_after(record.expire_date, now) => {
                record.revision = Some(Both { row: None, copy: record.revision }.join());
                Ok(Some(record))
            }
            Ok(_) => self.fill(session_key, now).await,
            // Whatever is there, the row is the session. The copy goes at the next save.
            Err(error) => {
                warn(&error);
                self.row(session_key, now, None).await
            }
        }
    }

    async fn load_latest(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        // The copy first: one that somebody renews in between is not taken for the row's.
        let copy = match self.copies.cache().get(&self.copies.key(session_key)).await {
            Ok(entry) => entry.map(|entry| entry.revision),
            Err(error) => {
                warn(&error);
                None
            }
        };
        let has_copy = copy.is_some();
        let found = self.row(session_key, now, copy).await?;
        if found.is_none() && has_copy {
            self.forget_copy(session_key).await;
        }
        Ok(found)
    }

    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let before = match &record.revision {
            None => Both::default(),
            Some(revision) => {
                let before = Both::split(revision).ok_or(StoreError::Conflict)?;
                // It came out of the cache, and nobody knows what the row is by now.
                before.row.as_ref().ok_or(StoreError::Conflict)?;
                before
            }
        };
        let row = SessionRecord { revision: before.row, ..record.clone() };
        let saved = self.db.save(&row).await;
        if let Err(StoreError::Update) = saved {
            self.forget_copy(&record.session_key).await;
        }
        let Saved { revision: row, .. } = saved?;
        let copy = self.renew(record, before.copy.as_ref()).await?;
        Ok(Saved::as_revision(Both { row, copy }.join()))
    }

    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let touched = self.db.touch(record).await;
        if let Err(StoreError::Update) = touched {
            self.forget_copy(&record.session_key).await;
        }
        touched?;
        match self.copies.touch(record).await {
            Ok(_) | Err(StoreError::Update) => {}
            // The copy ends when it would have ended, which is earlier than the row.
            Err(error) => warn(&error),
        }
        Ok(Saved { revision: record.revision.clone(), ..Saved::default() })
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        // Before the row, so that nothing has happened if the cache is away: a copy that came back with
        // it would be the session. After the row, because a reader may have made another one.
        self.copies.delete(session_key).await?;
        self.db.delete(session_key).await?;
        self.copies.delete(session_key).await
    }

    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        let both = Both::split(revision).ok_or(StoreError::Conflict)?;
        let row = both.row.ok_or(StoreError::Conflict)?;
        self.copies.delete(session_key).await?;
        self.db.delete_revision(session_key, &row).await?;
        self.copies.delete(session_key).await
    }

    async fn cycle_key(
        &self,
        session_key: &SessionKey,
        record: &SessionRecord,
    ) -> Result<Saved, StoreError> {
        let before = match &record.revision {
            None => None,
            Some(revision) => {
                let before = Both::split(revision).ok_or(StoreError::Conflict)?;
                Some(before.row.ok_or(StoreError::Conflict)?)
            }
        };
        // First what may fail and change nothing, and once more for who has read the row meanwhile.
        self.copies.delete(session_key).await?;
        let row = SessionRecord { revision: before, ..record.clone() };
        let Saved { revision: row, .. } = self.db.cycle_key(session_key, &row).await?;
        self.copies.delete(session_key).await?;
        let copy = self.copy_new(record).await?;
        Ok(Saved::as_revision(Both { row, copy }.join()))
    }

    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        self.db.clear_expired(now).await
    }

    async fn close(&self) {
        self.db.close().await;
        self.copies.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_revisions_are_joined_and_split() {
        let some = |bytes: &[u8]| Some(Revision::new(bytes));
        for (row, copy) in [
            (some(b"row"), some(b"copy")),
            (some(b""), some(b"")),
            (None, some(b"copy")),
            (some(b"row"), None),
            (None, None),
        ] {
            let joined = Both { row: row.clone(), copy: copy.clone() }.join();
            let split = Both::split(&joined).unwrap();
            assert!(split.row == row && split.copy == copy);
        }
        for broken in [&b""[..], b"\x01", b"\x01\x01\xff\0\0\0\0\0\0\0row", &[1; 9], &[0xff; 20]] {
            assert!(Both::split(&Revision::new(broken)).is_none());
        }
    }
}
