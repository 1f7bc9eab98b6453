//! Session files in a directory, read in the order of the directory, by several readers who each take a share of
//! the keys.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{
    BulkStore, Change, Cleared, Coding, Estimate, Filter, KeyRange, Part, Place, Scan, Sink,
    StoredSession,
};
use crate::codec::SessionCodec;
use crate::session::{DateTime, SessionSettings, SessionStore, StoreError};
use crate::store::file::{FileSession, Inner};
use crate::store::{FileError, FileStore};

/// How many files are handed over at a time.
const FILES: usize = 100;
/// How many parts a directory has. For each of them it is listed once.
const PARTS: u32 = 8;

#[derive(Clone, Debug)]
pub(super) struct FileBulk {
    files: FileStore,
    settings: SessionSettings,
    coding: Coding,
    sessions: Arc<dyn SessionStore>,
}

impl FileBulk {
    /// What lies in the directory of this store, read in every form that the codec knows.
    pub(super) fn new(
        files: FileStore,
        settings: &SessionSettings,
        codec: SessionCodec,
        sessions: Arc<dyn SessionStore>,
    ) -> Self {
        Self {
            files: files.with_codec(codec.clone()),
            settings: settings.clone(),
            coding: Coding::Signed(Box::new(codec)),
            sessions,
        }
    }
}

impl From<FileSession> for StoredSession {
    fn from(found: FileSession) -> Self {
        Self {
            session_key: found.session_key,
            value: found.content,
            expire_date: found.expire_date,
            is_dated: true,
            place: Place::Key,
        }
    }
}

#[async_trait]
impl BulkStore for FileBulk {
    fn coding(&self) -> &Coding {
        &self.coding
    }

    fn name(&self) -> &'static str {
        "files"
    }

    fn sessions(&self) -> &dyn SessionStore {
        &*self.sessions
    }

    /// Nobody knows before they are listed.
    async fn estimate(&self) -> Result<Estimate, StoreError> {
        Ok(Estimate::default())
    }

    async fn scan(&self, filter: Filter) -> Result<Box<dyn Scan>, StoreError> {
        Ok(Box::new(FileScan {
            files: self.files.clone(),
            filter,
            settings: self.settings.clone(),
        }))
    }

    async fn bulk_create(&self, sessions: &[StoredSession]) -> Result<Vec<usize>, StoreError> {
        let sessions = sessions.to_vec();
        let work = move |files: &Inner| {
            // One that cannot be a file shows before any is written.
            let mut modified = Vec::with_capacity(sessions.len());
            for session in &sessions {
                if !files.can_hold(&session.session_key) {
                    return Err(FileError::Name.into());
                }
                modified.push(files.modification_of(&session.value, session.expire_date)?);
            }
            let mut taken = Vec::new();
            for (index, (session, modified)) in sessions.iter().zip(modified).enumerate() {
                if !files.add(&session.session_key, &session.value, modified)? {
                    taken.push(index);
                }
            }
            Ok(taken)
        };
        self.files.run(work).await
    }

    async fn bulk_update(&self, changes: &[Change<'_>]) -> Result<Vec<usize>, StoreError> {
        let changes: Vec<_> =
            changes.iter().map(|it| (it.stored.clone(), it.value.clone())).collect();
        let work = move |files: &Inner| {
            let mut missed = Vec::new();
            for (index, (stored, value)) in changes.iter().enumerate() {
                if !files.replace(&stored.session_key, &stored.value, value)? {
                    missed.push(index);
                }
            }
            Ok(missed)
        };
        self.files.run(work).await
    }

    async fn bulk_delete(
        &self,
        sessions: &[&StoredSession],
        unchanged: bool,
    ) -> Result<u64, StoreError> {
        let sessions: Vec<StoredSession> = sessions.iter().map(|it| (*it).clone()).collect();
        let work = move |files: &Inner| {
            let mut deleted = 0;
            for session in &sessions {
                let before = unchanged.then_some((&*session.value, session.expire_date));
                deleted += u64::from(files.remove(&session.session_key, before)?);
            }
            Ok(deleted)
        };
        self.files.run(work).await
    }

    async fn bulk_get(&self, keys: &[&str]) -> Result<Vec<Option<StoredSession>>, StoreError> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let work = move |files: &Inner| {
            keys.iter().map(|key| Ok(files.find(key)?.map(StoredSession::from))).collect()
        };
        self.files.run(work).await
    }

    async fn bulk_exists(&self, sessions: &[(&str, Place)]) -> Result<Vec<bool>, StoreError> {
        let keys: Vec<String> = sessions.iter().map(|(key, _)| (*key).to_owned()).collect();
        self.files.run(move |files| keys.iter().map(|key| files.is_there(key)).collect()).await
    }

    async fn count_expired(&self, _now: DateTime) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// All at once: the directory has no order in which a few of them could be found.
    async fn clear_expired(
        &self,
        now: DateTime,
        _sessions: u32,
        _from: Option<DateTime>,
    ) -> Result<Cleared, StoreError> {
        Ok(Cleared { sessions: self.sessions.clear_expired(now).await?, reached: None })
    }

    fn has_expiry_index(&self) -> bool {
        false
    }

    async fn close(&self) {
        self.sessions.close().await;
    }
}

struct FileScan {
    files: FileStore,
    filter: Filter,
    settings: SessionSettings,
}

#[async_trait]
impl Scan for FileScan {
    fn parts(&self) -> Vec<Part> {
        let part = |index| {
            let keys = KeyRange::share(index, PARTS);
            let (from, to) = keys.bounds();
            Part::Keys { from: from.map(str::to_owned), to: to.map(str::to_owned) }
        };
        (1..=PARTS).map(part).collect()
    }

    async fn read(&self, part: &Part, sink: &mut Sink) -> Result<(), StoreError> {
        let (from, to) = match part {
            Part::Keys { from, to } => (from.clone(), to.clone()),
            _ => (None, None),
        };
        let is_of_part = move |key: &str| {
            from.as_deref().is_none_or(|from| key >= from)
                && to.as_deref().is_none_or(|to| key < to)
        };
        let (sender, mut found) = mpsc::channel::<Vec<FileSession>>(1);
        let read = self.files.run(move |files| {
            let mut few = Vec::with_capacity(FILES);
            files.each(is_of_part, |session| {
                few.push(session);
                few.len() < FILES || sender.blocking_send(std::mem::take(&mut few)).is_ok()
            })?;
            // Nobody may be there any more.
            let _ = sender.blocking_send(few);
            Ok(())
        });
        let hand_over = async move {
            while let Some(few) = found.recv().await {
                for session in few {
                    let is_meant = self.filter.takes(
                        &session.session_key,
                        session.expire_date,
                        &self.settings.time_zone,
                    );
                    if is_meant && !sink.push(session.into()).await {
                        return;
                    }
                }
            }
            sink.flush(None).await;
        };
        tokio::join!(read, hand_over).0
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::codec::SecretKey;
    use crate::session::{SessionKey, SessionRecord};
    use crate::store::bulk;

    /// Somebody makes a session live longer at the moment at which it is signed anew.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_touched_while_it_is_replaced_stays_so() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}", directory.path().display()).parse().unwrap();
        let key = SecretKey::new("correct horse battery staple").unwrap();
        let settings = SessionSettings::default().with_secret_key(key);
        let store: Arc<dyn BulkStore> = bulk::connect(&url, &settings).await.unwrap().into();
        let end = |hours| settings.datetime(Timestamp::now() + SignedDuration::from_hours(hours));
        let mut record = SessionRecord {
            session_key: SessionKey::generate(),
            data: Arc::default(),
            expire_date: end(1),
            revision: None,
        };
        store.sessions().create(&record).await.unwrap();
        let key = record.session_key.as_str().to_owned();
        let found = async || store.bulk_get(&[&key]).await.unwrap().remove(0).unwrap();
        let mut ends = end(1);
        for round in 0..500 {
            let stored = found().await;
            let replacing = Arc::clone(&store);
            let replacing = tokio::spawn(async move {
                let opened = replacing.coding().open(&stored).unwrap();
                let value = replacing.coding().seal(&opened.data, Some(round)).unwrap();
                let change = Change { stored: &stored, value };
                replacing.bulk_update(&[change]).await.unwrap()
            });
            record.expire_date = ends;
            store.sessions().touch(&record).await.unwrap();
            assert_eq!(replacing.await.unwrap(), [0; 0]);
            let left = found().await.expire_date.since(ends).unwrap();
            assert!(left.abs() < SignedDuration::from_secs(1), "{round}: {left}");
            ends = ends.checked_add(SignedDuration::from_hours(1)).unwrap();
        }
    }
}
