//! Whole stores at a time: every session read in parts, and many written by one statement.
//!
//! What the commands of `django-session` need and a [`SessionStore`] does not have. Sessions stay as they
//! are stored until somebody opens them, so that one that cannot be read is a row like any other: counted,
//! reported, left alone. The verbs are those of Django's managers, `bulk_create` and `bulk_update`.
//!
//! A [`Scan`] sees each session that is there from its beginning to its end at least once. On PostgreSQL
//! it is one snapshot, exactly once; a key that comes or goes meanwhile may be seen or not elsewhere.

mod batch;
mod cache;
mod cache_table;
mod cached_db;
mod coding;
mod columns;
mod connect;
#[cfg(unix)]
mod file;
mod mysql;
mod part;
mod postgres;
mod redis;
mod replicas;
mod sql;
mod sqlite;
mod users;

use std::fmt;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

pub(crate) use self::batch::{Batches, Sink};
pub(crate) use self::coding::{Coding, OpenError, Opened};
pub(crate) use self::connect::{connect, is_listed};
pub(crate) use self::part::Part;
pub(crate) use self::replicas::Replicas;
pub(crate) use self::users::BulkUsers;
use crate::codec::SessionData;
use crate::session::{
    DateTime, Revision, SessionRecord, SessionSettings, SessionStore, StoreError, USER_ID_KEY,
};
use crate::store::{RedisError, SqlError};

/// Whether an error may be about one of the sessions, so that others can be written all the same. A disk
/// that is full is not.
pub(crate) fn is_of_one_session(error: &StoreError) -> bool {
    match error {
        StoreError::ExpireDate(_) => true,
        StoreError::Backend(source) => match source.downcast_ref::<SqlError>() {
            Some(error) => error.is_of_a_value(),
            // Redis takes whatever there is room for.
            None => !source.is::<RedisError>() && !is_of_the_file_system(&**source),
        },
        _ => false,
    }
}

/// Whether a row was refused because it refers to one that is not there.
pub(crate) fn names_nobody(error: &StoreError) -> bool {
    let StoreError::Backend(source) = error else { return false };
    let error = source.downcast_ref::<SqlError>().and_then(SqlError::as_sqlx);
    let error = error.and_then(sqlx::Error::as_database_error);
    error.is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}

#[cfg(unix)]
fn is_of_the_file_system(error: &(dyn std::error::Error + 'static)) -> bool {
    use crate::store::FileError;

    matches!(error.downcast_ref(), Some(FileError::Directory(_) | FileError::Io { .. }))
}

#[cfg(not(unix))]
fn is_of_the_file_system(_error: &(dyn std::error::Error + 'static)) -> bool {
    false
}

/// The user of a session, as text.
pub(crate) fn user(data: &SessionData) -> Option<String> {
    match data.get::<serde_json::Value>(USER_ID_KEY).ok()?? {
        serde_json::Value::Null => None,
        serde_json::Value::String(user) => Some(user),
        user => Some(user.to_string()),
    }
}

/// Whether an entry of a cache is a copy of the engine `cached_db`: the prefix of `cache` is the beginning of its
/// own.
fn is_of_cached_db(prefix: &str, session_key: &str) -> bool {
    prefix.ends_with("sessions.cache") && session_key.starts_with("d_db")
}

/// A session as it lies in a store; perhaps it is none.
#[derive(Clone)]
pub(crate) struct StoredSession {
    /// As it is stored, which need not be a key that a client could have.
    pub(crate) session_key: String,
    /// The signed text, or the value of a cache.
    pub(crate) value: Vec<u8>,
    /// The last instant there is if `is_dated` is not.
    pub(crate) expire_date: DateTime,
    /// Whether the expire date is one. A session without is not opened by [`Coding::open`].
    pub(crate) is_dated: bool,
    pub(crate) place: Place,
}

impl StoredSession {
    /// When it ends; none if it never does, or its store does not tell, as memcached.
    pub(crate) fn end(&self, settings: &SessionSettings) -> Option<Timestamp> {
        // On a wall clock, what is said of those is hours before or after.
        const ENDLESS: SignedDuration = SignedDuration::from_hours(48);
        let end = self.expire_date.to_timestamp(&settings.time_zone)?;
        (end < Timestamp::MAX - ENDLESS).then_some(end)
    }

    /// Which state of the session it is, to whoever saves it.
    pub(crate) fn revision(&self) -> Revision {
        match self.place {
            Place::Counted(counted) => Revision::new(counted),
            _ => Revision::new(&*self.value),
        }
    }
}

/// Neither the key nor the value is shown.
impl fmt::Debug for StoredSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSession")
            .field("bytes", &self.value.len())
            .field("expire_date", &self.expire_date)
            .finish_non_exhaustive()
    }
}

/// What a store finds a session by again, and tells whether it still is the one that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// By its key, and by its value.
    Key,
    /// `ctid` and `xmin`: a version of a row.
    Postgres { block: u32, offset: u16, xmin: u32 },
    /// By its key, and by what the server counts: a [`Revision`] of memcached.
    Counted([u8; 24]),
    /// `rowid`, and by its value.
    Sqlite(i64),
}

/// A session with a value in place of the one that was read.
pub(crate) struct Change<'a> {
    pub(crate) stored: &'a StoredSession,
    pub(crate) value: Vec<u8>,
}

/// Which sessions a scan is about. The store looks at it, so that others are not even sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter {
    /// Only those that expire at this time or later.
    pub(crate) expires_from: Option<DateTime>,
    /// Only those that expire before.
    pub(crate) expires_before: Option<DateTime>,
    /// Only those with these keys.
    pub(crate) keys: Option<KeyRange>,
}

impl Filter {
    /// For stores that cannot look at it themselves.
    pub(super) fn takes(&self, session_key: &str, expire_date: DateTime, zone: &TimeZone) -> bool {
        let end = expire_date.to_timestamp(zone);
        self.expires_from.is_none_or(|date| end >= date.to_timestamp(zone))
            && self.expires_before.is_none_or(|date| end < date.to_timestamp(zone))
            && self.keys.is_none_or(|keys| keys.holds(session_key))
    }
}

/// Keys from one beginning on and before another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRange {
    from: Option<[u8; 2]>,
    to: Option<[u8; 2]>,
}

impl KeyRange {
    /// One of several shares of about equal size, from one on. Together they are all keys.
    pub(crate) fn share(index: u32, count: u32) -> Self {
        const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let bound = |share: u32| {
            let place = 36 * 36 * u64::from(share) / u64::from(count);
            let place = usize::try_from(place).unwrap_or_default();
            let is_inner = share > 0 && share < count;
            is_inner.then(|| [ALPHABET[place / 36], ALPHABET[place % 36]])
        };
        Self { from: bound(index - 1), to: bound(index) }
    }

    /// The first keys that belong to it, and that do not any more.
    pub(crate) fn bounds(&self) -> (Option<&str>, Option<&str>) {
        fn text(bound: Option<&[u8; 2]>) -> Option<&str> {
            std::str::from_utf8(bound?).ok()
        }
        (text(self.from.as_ref()), text(self.to.as_ref()))
    }

    pub(crate) fn holds(self, session_key: &str) -> bool {
        let (from, to) = self.bounds();
        from.is_none_or(|from| session_key >= from) && to.is_none_or(|to| session_key < to)
    }
}

/// How much there is, about; for a progress bar.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Estimate {
    pub(crate) sessions: Option<u64>,
    /// On the disk, with indexes.
    pub(crate) bytes: Option<u64>,
}

/// What [`BulkStore::clear_expired`] did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cleared {
    pub(crate) sessions: u64,
    /// Up to which time of expiry. A scan along the index begins there next time: the entries before it are
    /// dead, and would all be passed over again.
    pub(crate) reached: Option<DateTime>,
}

/// A store whose sessions can be read and written many at a time.
///
/// Nothing here repeats what failed: whatever is done twice is the same as done once.
#[async_trait]
pub(crate) trait BulkStore: fmt::Debug + Send + Sync {
    /// How sessions are written here.
    fn coding(&self) -> &Coding;

    /// What kind it is, in a word or two that an operator knows.
    fn name(&self) -> &'static str;

    /// The same sessions one by one, for what is decided by looking at them.
    fn sessions(&self) -> &dyn SessionStore;

    /// About how many there are, without counting.
    async fn estimate(&self) -> Result<Estimate, StoreError>;

    /// Begins to read all sessions.
    async fn scan(&self, filter: Filter) -> Result<Box<dyn Scan>, StoreError>;

    /// Adds sessions; returns the places in the list of those whose key is taken, which are left as they
    /// are.
    async fn bulk_create(&self, sessions: &[StoredSession]) -> Result<Vec<usize>, StoreError>;

    /// Replaces values, each if it still is the one that was read; returns the places in the list of those
    /// that are not, or are gone.
    async fn bulk_update(&self, changes: &[Change<'_>]) -> Result<Vec<usize>, StoreError>;

    /// Removes sessions, `unchanged` only if they still are what was read; returns how many.
    async fn bulk_delete(
        &self,
        sessions: &[&StoredSession],
        unchanged: bool,
    ) -> Result<u64, StoreError>;

    /// What is stored under each of these keys, expired or not.
    async fn bulk_get(&self, keys: &[&str]) -> Result<Vec<Option<StoredSession>>, StoreError>;

    /// Which of these keys are taken; each has been read in its place a moment ago.
    async fn bulk_exists(&self, sessions: &[(&str, Place)]) -> Result<Vec<bool>, StoreError>;

    /// Saves a session over the one that was found, if it still is that.
    async fn save(&self, found: &StoredSession, record: SessionRecord) -> Result<(), StoreError> {
        let record = SessionRecord { revision: Some(found.revision()), ..record };
        self.sessions().save(&record).await.map(drop)
    }

    /// Notes whose a session is by now, where a column says so.
    async fn note_user(&self, _session_key: &str, _data: &SessionData) -> Result<(), StoreError> {
        Ok(())
    }

    /// How many have expired, unless it takes long to count them.
    async fn count_expired(&self, now: DateTime) -> Result<Option<u64>, StoreError>;

    /// Removes some of those that expired before `now`, the oldest first, from this time of expiry on.
    async fn clear_expired(
        &self,
        now: DateTime,
        sessions: u32,
        from: Option<DateTime>,
    ) -> Result<Cleared, StoreError>;

    /// Whether those that have expired are found without reading all.
    fn has_expiry_index(&self) -> bool {
        true
    }

    /// Ends the connections.
    async fn close(&self);
}

/// One reading of a store.
#[async_trait]
pub(crate) trait Scan: Send + Sync {
    /// All of it, in parts that can be read in any order and side by side.
    fn parts(&self) -> Vec<Part>;

    /// Reads a part into the sink, batch by batch. It is over, without an error, when nobody takes them any
    /// more.
    async fn read(&self, part: &Part, sink: &mut Sink) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::KeyRange;

    #[test]
    fn shares_leave_nothing_out_and_have_nothing_twice() {
        for count in [1, 2, 3, 7, 36, 1000, 1296] {
            let shares: Vec<_> = (1..=count).map(|index| KeyRange::share(index, count)).collect();
            for key in ["", "0", "00000", "a", "h9zz", "i0", "zzzz", "~", "\u{e4}", "Z"] {
                let holders = shares.iter().filter(|share| share.holds(key)).count();
                assert_eq!(holders, 1, "{key} of {count}");
            }
        }
    }
}
