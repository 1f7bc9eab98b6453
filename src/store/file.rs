//! Sessions in files, as `django.contrib.sessions.backends.file` keeps them.
//!
//! Names and content are Django's, and so is the rule by which a file expires: what the session says,
//! or the file's time of modification plus `SESSION_COOKIE_AGE`. Different: writers lock the file and
//! compare before they replace it, a failure of the file system is an error where Django answers with
//! an empty session or forgets the write, an expired file is no session where Django replaces it by a
//! new empty one, and a session that says in how many seconds it expires does so, where Django's never
//! ends. The fixtures `file_backend` and `session_ops_engines` prove the rest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;

use super::connect::ConnectError;
use super::directory::{Directory, FileError, Found, Locked, Replaced};
use super::url::{StoreUrl, UrlError};
use crate::codec::{SessionCodec, SessionData};
use crate::session::{
    DateTime, Revision, Saved, SessionKey, SessionRecord, SessionSettings, SessionStore,
    StoreError, Stored,
};

/// After which time a temporary file is nobody's.
const ABANDONED_AFTER: Duration = Duration::from_hours(24);

/// A directory of session files that Django shares (`SESSION_FILE_PATH`). Unix only.
///
/// A file is named by the cookie and the session key, readable for the user alone, so the programs that
/// share it run as one user. It is replaced whole: a reader sees one state or the other, and a writer
/// that fails or is killed leaves the old one. Clones share everything. The work is done on threads for
/// blocking calls, so it needs a runtime of tokio.
///
/// # Keys
///
/// Only keys of `a-z0-9` can be in a file, as in Django. Any other is no session, and no error;
/// creating one fails. A link, a pipe or a directory in place of a file is no session either.
///
/// # Together with Django
///
/// Stores of this crate lock the file while they compare and replace it, so between them no change is
/// lost. A Django takes no lock and compares nothing:
///
/// * What it has saved since a session was loaded here is found and merged. If it saves between the last
///   look and the step that replaces the file, its file is put back at once; should it load the session
///   again in just that moment, it loads one without its own last change. Its own save still replaces
///   what others have saved since it loaded the session.
/// * What it has deleted stays deleted. That, and the former, needs a file system that can exchange two
///   names, as those of Linux and macOS can; elsewhere, network file systems among them, a moment
///   between two system calls remains in which they are lost.
/// * A new session of Django's is an empty file for a moment, which is read as an empty session.
/// * Locks are those of `flock`. On network file systems they may hold between machines but not within
///   one process; the table or a cache is the better place then.
///
/// # When a session expires
///
/// With a date in `_session_expiry` on that date. Without, the cookie's age after the file was last
/// modified; so a save sets that time, usually to the present. With a number of seconds that long after;
/// Django's own engine never lets such a session expire. A time of modification out of the range of the
/// file system is [`StoreError::ExpireDate`]. A session with a date is not moved by
/// [`touch`](SessionStore::touch).
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use django_session::store::FileStore;
/// use django_session::{SecretKey, Session, SessionSettings};
///
/// # let temporary = tempfile::tempdir()?;
/// # let session_file_path = temporary.path();
/// let settings = SessionSettings::default().with_secret_key(SecretKey::new("the site's SECRET_KEY")?);
/// // SESSION_FILE_PATH of the site; without one Django takes `std::env::temp_dir()`.
/// let store = FileStore::new(session_file_path, settings.codec()?).with_settings(&settings);
///
/// let session = Session::new(Arc::new(store), Arc::new(settings), None);
/// session.insert("cart", &["tea"]).await?;
/// session.save().await?;
///
/// let name = format!("sessionid{}", session.session_key().await.unwrap().as_str());
/// assert!(session_file_path.join(name).is_file());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FileStore(Arc<Inner>);

/// The store itself, whose calls block.
#[derive(Clone)]
pub(super) struct Inner {
    directory: Directory,
    codec: SessionCodec,
    cookie_name: Box<str>,
    cookie_age: i64,
    use_tz: bool,
    time_zone: TimeZone,
}

impl FileStore {
    /// A store of the files in this directory, which this codec signs.
    ///
    /// It is that of a site with Django's defaults; see [`FileStore::with_settings`]. The directory is
    /// looked for with each operation, and is never made.
    pub fn new(directory: impl Into<PathBuf>, codec: SessionCodec) -> Self {
        let defaults = SessionSettings::default();
        Self(Arc::new(Inner {
            directory: Directory::new(directory.into()),
            codec,
            cookie_name: defaults.cookie_name.into(),
            cookie_age: defaults.cookie_age,
            use_tz: defaults.use_tz,
            time_zone: defaults.time_zone,
        }))
    }

    /// A store at an address, for the site with these settings: `file:///srv/site/sessions`, or
    /// `file:sessions` in the current directory, or `file:` for the system's temporary directory, as in
    /// Django without `SESSION_FILE_PATH`. Characters that mean something in an address are written as
    /// `%` and two digits.
    ///
    /// | option | at first | |
    /// |---|---|---|
    /// | `cookie_name` | of the settings | what file names begin with |
    /// | `lock_timeout` | 5 | seconds to wait for a file that somebody has locked |
    /// | `sync` | `false` | whether writes wait for the disk, as [`FileStore::with_sync`] |
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; the directory is looked for later.
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::store::FileStore;
    /// use django_session::{SecretKey, SessionSettings};
    ///
    /// let settings = SessionSettings::default().with_secret_key(SecretKey::new("secret")?);
    /// let store = FileStore::connect("file:///srv/my%20site?lock_timeout=1", &settings)?;
    /// assert_eq!(store.directory(), std::path::Path::new("/srv/my site"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect(url: &str, settings: &SessionSettings) -> Result<Self, ConnectError> {
        Self::connect_to(&url.parse()?, settings)
    }

    pub(super) fn connect_to(
        url: &StoreUrl,
        settings: &SessionSettings,
    ) -> Result<Self, ConnectError> {
        const ADDRESS: UrlError =
            UrlError::InvalidAddress { expected: "a path, such as `file:///srv/site/sessions`" };
        if url.scheme() != "file" {
            return Err(UrlError::UnknownScheme { nearest: Some("file") }.into());
        }
        let (_, path) = url.address().split_once(':').ok_or(ADDRESS)?;
        let path = match path.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            // A name between the slashes would be that of another machine.
            Some(_) => return Err(ADDRESS.into()),
            None => path,
        };
        let path = percent_decode_str(path).decode_utf8().map_err(|_| ADDRESS)?;
        let directory = if path.is_empty() { std::env::temp_dir() } else { PathBuf::from(&*path) };
        let mut store = Self::new(directory, settings.codec()?).with_settings(settings);
        if let Some(name) = url.text("cookie_name") {
            store = store.with_cookie_name(name);
        }
        if let Some(timeout) = url.seconds("lock_timeout")? {
            store = store.with_lock_timeout(timeout);
        }
        let sync = url.word("sync", "`true` or `false`", |word| word.parse().ok())?;
        Ok(store.with_sync(sync.unwrap_or(false)))
    }

    /// Takes `SESSION_COOKIE_NAME`, `SESSION_COOKIE_AGE`, `USE_TZ` and `TIME_ZONE` of the site.
    #[must_use]
    pub fn with_settings(self, settings: &SessionSettings) -> Self {
        self.with(|inner| {
            inner.cookie_name = (*settings.cookie_name).into();
            inner.cookie_age = settings.cookie_age;
            inner.use_tz = settings.use_tz;
            inner.time_zone = settings.time_zone.clone();
        })
    }

    /// Sets what file names begin with, `sessionid` at first.
    #[must_use]
    pub fn with_cookie_name(self, name: &str) -> Self {
        self.with(|inner| inner.cookie_name = name.into())
    }

    /// Sets how many seconds after its last modification a file expires, two weeks at first.
    #[must_use]
    pub fn with_cookie_age(self, seconds: i64) -> Self {
        self.with(|inner| inner.cookie_age = seconds)
    }

    /// Sets how long to wait for a file that somebody else has locked, five seconds at first.
    #[must_use]
    pub fn with_lock_timeout(self, timeout: Duration) -> Self {
        self.with(|inner| inner.directory = inner.directory.clone().with_lock_timeout(timeout))
    }

    /// Sets whether a write ends only when it would survive a loss of power. Without, as at first and
    /// as in Django, the last seconds may be lost then, or files be empty; a process that is killed
    /// loses nothing in any case.
    #[must_use]
    pub fn with_sync(self, sync: bool) -> Self {
        self.with(|inner| inner.directory = inner.directory.clone().with_sync(sync))
    }

    /// Sets what signs the files, and what is read.
    #[cfg(feature = "cli")]
    pub(super) fn with_codec(self, codec: SessionCodec) -> Self {
        self.with(|inner| inner.codec = codec)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.0.directory.path()
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Runs blocking calls where they block nobody.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down, and the work has not begun.
                Err(error) => Err(StoreError::Unreachable(error.into())),
            },
        }
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("directory", &self.directory())
            .field("cookie_name", &self.0.cookie_name)
            .field("cookie_age", &self.0.cookie_age)
            .finish_non_exhaustive()
    }
}

/// Until when a session lives.
enum Life {
    /// So long from the last modification on.
    For(SignedDuration),
    Until(DateTime),
}

impl Inner {
    /// The name of the file of a key, if it can have one.
    fn name(&self, session_key: &str) -> Option<String> {
        let name = || format!("{}{session_key}", self.cookie_name);
        is_legal(session_key).then(name).filter(|name| Directory::can_hold(name))
    }

    fn encode(&self, record: &SessionRecord) -> Result<Vec<u8>, StoreError> {
        let now = Timestamp::now().as_second();
        let text = self.codec.encode(&record.data, now).map_err(StoreError::Encode)?;
        Ok(text.into_bytes())
    }

    /// An empty file is an empty session: Django makes one before it writes the first.
    fn decode(&self, content: &[u8]) -> Result<SessionData, StoreError> {
        if content.is_empty() {
            return Ok(SessionData::new());
        }
        // What is not even text does not become signed by a replaced character.
        let text = String::from_utf8_lossy(content);
        Ok(self.codec.decode(&text).map_err(StoreError::Decode)?.data)
    }

    /// An expiry that cannot be read is none, so that the session can be loaded and repaired.
    fn life(&self, data: &SessionData) -> Life {
        let stored = Stored::of(data);
        if let Stored::Text(text) = &stored
            && let Some(date) = DateTime::fromisoformat(text)
        {
            return Life::Until(date);
        }
        let epoch = DateTime::Aware(Timestamp::UNIX_EPOCH);
        let age = stored.age(epoch, self.cookie_age);
        Life::For(age.unwrap_or(SignedDuration::from_secs(self.cookie_age)))
    }

    fn expire_date(&self, life: &Life, modified: Timestamp) -> Option<DateTime> {
        match life {
            Life::Until(date) => Some(*date),
            Life::For(age) => self.datetime(modified).checked_add(*age),
        }
    }

    /// The time of modification that makes a file expire on this date; none where it does not matter.
    fn modification(
        &self,
        life: &Life,
        expire_date: DateTime,
    ) -> Result<Option<Timestamp>, StoreError> {
        let Life::For(age) = life else { return Ok(None) };
        let modified = expire_date.checked_add(-*age);
        match modified.and_then(|modified| modified.to_timestamp(&self.time_zone)) {
            None => Err(FileError::Date.into()),
            modified => Ok(modified),
        }
    }

    /// What Python makes of a time of modification: it has it as a double, rounded to microseconds.
    fn datetime(&self, modified: Timestamp) -> DateTime {
        #[expect(clippy::cast_precision_loss, reason = "as in Python")]
        let double = |number: i128| number as f64;
        let nanos = modified.as_nanosecond();
        let seconds = double(nanos.div_euclid(1_000_000_000))
            + 1e-9 * double(nanos.rem_euclid(1_000_000_000));
        let micros = (seconds.fract() * 1e6).round_ties_even();
        #[expect(clippy::cast_possible_truncation, reason = "a time has few seconds")]
        let micros = seconds.trunc() as i64 * 1_000_000 + micros as i64;
        let modified = Timestamp::from_microsecond(micros).unwrap_or(modified);
        DateTime::now(modified, self.use_tz, &self.time_zone)
    }

    /// Times of one kind as they are, of two kinds by the clock of the site.
    fn is_after(&self, this: DateTime, other: DateTime) -> bool {
        match this.since(other) {
            Some(passed) => passed.is_positive(),
            None => this.to_timestamp(&self.time_zone) > other.to_timestamp(&self.time_zone),
        }
    }

    fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let name = self.name(record.session_key.as_str()).ok_or(FileError::Name)?;
        let content = self.encode(record)?;
        let modified = self.modification(&self.life(&record.data), record.expire_date)?;
        if self.directory.create(&name, &content, modified)? {
            Ok(Saved::as_revision(Revision::new(content)))
        } else {
            Err(StoreError::Create)
        }
    }

    fn load(
        &self,
        session_key: SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let Some(name) = self.name(session_key.as_str()) else { return Ok(None) };
        let Some(Found { content, modified, .. }) = self.directory.read(&name)? else {
            return Ok(None);
        };
        let data = self.decode(&content);
        let life = match &data {
            Ok(data) => self.life(data),
            Err(_) => Life::For(SignedDuration::from_secs(self.cookie_age)),
        };
        let expire_date = self.expire_date(&life, modified).ok_or(FileError::Date)?;
        if !self.is_after(expire_date, now) {
            return Ok(None);
        }
        Ok(Some(SessionRecord {
            session_key,
            data: Arc::new(data?),
            expire_date,
            revision: Some(Revision::new(content)),
        }))
    }

    fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let gone =
            || if record.revision.is_some() { StoreError::Conflict } else { StoreError::Update };
        let name = self.name(record.session_key.as_str()).ok_or_else(gone)?;
        let content = self.encode(record)?;
        let modified = self.modification(&self.life(&record.data), record.expire_date)?;
        let locked = self.directory.lock(&name)?.ok_or_else(gone)?;
        if !is_revision(&locked, record.revision.as_ref()) {
            return Err(StoreError::Conflict);
        }
        match locked.replace(&content, modified, record.revision.is_none())? {
            Replaced::Done => Ok(Saved::as_revision(Revision::new(content))),
            Replaced::Changed => Err(StoreError::Conflict),
            Replaced::Gone => Err(gone()),
        }
    }

    /// Without a lock: the content of a file never changes, and if another file has taken its place
    /// meanwhile, it is touched too.
    fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let name = self.name(record.session_key.as_str()).ok_or(StoreError::Update)?;
        loop {
            let found = self.directory.read(&name)?.ok_or(StoreError::Update)?;
            let life = match self.decode(&found.content) {
                Ok(data) => self.life(&data),
                Err(error) if error.is_corrupt() => {
                    Life::For(SignedDuration::from_secs(self.cookie_age))
                }
                Err(error) => return Err(error),
            };
            if let Some(modified) = self.modification(&life, record.expire_date)? {
                found.set_modified(modified)?;
            }
            if self.directory.is_current(&name, &found)? {
                return Ok(Saved { revision: record.revision.clone(), ..Saved::default() });
            }
        }
    }

    fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        if let Some(name) = self.name(session_key.as_str())
            && let Some(locked) = self.directory.lock(&name)?
        {
            locked.remove()?;
        }
        Ok(())
    }

    fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        let name = self.name(session_key.as_str()).ok_or(StoreError::Conflict)?;
        match self.directory.lock(&name)? {
            Some(locked) if is_revision(&locked, Some(revision)) => Ok(locked.remove()?),
            _ => Err(StoreError::Conflict),
        }
    }

    fn clear_expired(&self, now: DateTime, abandoned_after: Duration) -> Result<u64, StoreError> {
        let mut cleared = 0;
        for name in self.directory.names()? {
            let name = name?;
            let is_ours = |name: &str| name.strip_prefix(&*self.cookie_name).is_some_and(is_legal);
            if Directory::temporary_of(&name).is_some_and(is_ours) {
                self.directory.remove_abandoned(&name, abandoned_after)?;
            } else if is_ours(&name) {
                match self.clear(&name, now) {
                    Ok(was_expired) => cleared += u64::from(was_expired),
                    // It is being written, or it is not for us to judge.
                    Err(FileError::Locked | FileError::TooLarge { .. }) => {}
                    Err(FileError::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::PermissionDenied =>
                    {
                        tracing::debug!(target: "django_session", "a session file of another user");
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(cleared)
    }

    /// Removes a file if it is expired, and tells whether it was.
    fn clear(&self, name: &str, now: DateTime) -> Result<bool, FileError> {
        let Some(found) = self.directory.read(name)? else { return Ok(false) };
        if !self.is_expired(&found.content, found.modified, now) {
            return Ok(false);
        }
        let Some(locked) = self.directory.lock(name)? else { return Ok(false) };
        if !self.is_expired(locked.content(), locked.modified()?, now) {
            return Ok(false);
        }
        locked.remove()?;
        Ok(true)
    }

    fn is_expired(&self, content: &[u8], modified: Timestamp, now: DateTime) -> bool {
        let end = self.life_of(content).and_then(|life| self.expire_date(&life, modified));
        end.is_some_and(|date| self.is_after(now, date))
    }

    /// Until when what is in a file lives; none where only the site may be able to tell.
    fn life_of(&self, content: &[u8]) -> Option<Life> {
        match self.decode(content) {
            Ok(data) => Some(self.life(&data)),
            Err(error) if error.is_corrupt() => {
                Some(Life::For(SignedDuration::from_secs(self.cookie_age)))
            }
            Err(_) => None,
        }
    }
}

/// A session as it lies in its file.
#[cfg(feature = "cli")]
pub(super) struct FileSession {
    pub(super) session_key: String,
    pub(super) content: Vec<u8>,
    pub(super) expire_date: DateTime,
    /// Nothing is in it yet.
    is_being_made: bool,
}

/// What commands do to many, whose content stays as it is.
#[cfg(feature = "cli")]
impl Inner {
    /// Takes each session in the directory, until that answers that it was enough. Empty files are passed
    /// over: Django makes one before it writes a session.
    pub(super) fn each(
        &self,
        is_meant: impl Fn(&str) -> bool,
        mut take: impl FnMut(FileSession) -> bool,
    ) -> Result<(), StoreError> {
        for name in self.directory.names()? {
            let name = name?;
            let session_key = name.strip_prefix(&*self.cookie_name).filter(|key| is_legal(key));
            let Some(session_key) = session_key.filter(|key| is_meant(key)) else { continue };
            // Somebody is just making the one that is empty.
            if let Some(found) = self.find(session_key)?.filter(|found| !found.is_being_made)
                && !take(found)
            {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn find(&self, session_key: &str) -> Result<Option<FileSession>, FileError> {
        let Some(name) = self.name(session_key) else { return Ok(None) };
        match self.directory.read(&name) {
            Ok(None) => Ok(None),
            Ok(Some(Found { content, modified, .. })) => {
                Ok(Some(self.expiring(session_key, content, modified)))
            }
            // It is there, and no session that anybody could read.
            Err(FileError::TooLarge { .. }) => Ok(Some(self.unread(session_key, Vec::new()))),
            Err(FileError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Ok(Some(self.unread(session_key, Vec::new())))
            }
            Err(error) => Err(error),
        }
    }

    fn expiring(&self, session_key: &str, content: Vec<u8>, modified: Timestamp) -> FileSession {
        let end = self.life_of(&content).and_then(|life| self.expire_date(&life, modified));
        let is_being_made = content.is_empty();
        let found = self.unread(session_key, content);
        FileSession { expire_date: end.unwrap_or(found.expire_date), is_being_made, ..found }
    }

    /// One of which nobody knows when it expires.
    fn unread(&self, session_key: &str, content: Vec<u8>) -> FileSession {
        let expire_date = DateTime::now(Timestamp::MAX, self.use_tz, &self.time_zone);
        let session_key = session_key.to_owned();
        FileSession { session_key, content, expire_date, is_being_made: false }
    }

    /// Whether there can be a file for this key.
    pub(super) fn can_hold(&self, session_key: &str) -> bool {
        self.name(session_key).is_some()
    }

    /// The time of modification for a file of this content.
    pub(super) fn modification_of(
        &self,
        content: &[u8],
        expire_date: DateTime,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.life_of(content).map_or(Ok(None), |life| self.modification(&life, expire_date))
    }

    /// Adds a file; false if the key is taken.
    pub(super) fn add(
        &self,
        session_key: &str,
        content: &[u8],
        modified: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let name = self.name(session_key).ok_or(FileError::Name)?;
        Ok(self.directory.create(&name, content, modified)?)
    }

    /// Replaces the content, if it still is what was read; tells whether it was. The time of modification
    /// stays what it is, which somebody may move at that moment.
    pub(super) fn replace(
        &self,
        session_key: &str,
        before: &[u8],
        content: &[u8],
    ) -> Result<bool, StoreError> {
        let Some(name) = self.name(session_key) else { return Ok(false) };
        match self.directory.lock(&name)? {
            Some(locked) if locked.content() == before => {
                Ok(locked.replace_content(content)? == Replaced::Done)
            }
            _ => Ok(false),
        }
    }

    /// Removes a file, if anything is given only one with this content that expires then; tells whether
    /// it was there.
    pub(super) fn remove(
        &self,
        session_key: &str,
        before: Option<(&[u8], DateTime)>,
    ) -> Result<bool, StoreError> {
        let Some(name) = self.name(session_key) else { return Ok(false) };
        let Some(locked) = self.directory.lock(&name)? else { return Ok(false) };
        if let Some((content, expire_date)) = before {
            let modified = locked.modified()?;
            let now = self.expiring(session_key, locked.content().to_vec(), modified);
            if now.content != content || now.expire_date != expire_date {
                return Ok(false);
            }
        }
        locked.remove()?;
        Ok(true)
    }

    pub(super) fn is_there(&self, session_key: &str) -> Result<bool, StoreError> {
        self.name(session_key).map_or(Ok(false), |name| Ok(self.directory.exists(&name)?))
    }
}

/// Django's `VALID_KEY_CHARS`.
fn is_legal(key: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    key.len() >= 8 && key.bytes().all(legal)
}

fn is_revision(locked: &Locked<'_>, revision: Option<&Revision>) -> bool {
    revision.is_none_or(|revision| revision.as_bytes() == locked.content())
}

#[async_trait]
impl SessionStore for FileStore {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        let Some(name) = self.0.name(session_key.as_str()) else { return Ok(false) };
        self.run(move |inner| Ok(inner.directory.exists(&name)?)).await
    }

    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let record = record.clone();
        self.run(move |inner| inner.create(&record)).await
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let session_key = session_key.clone();
        self.run(move |inner| inner.load(session_key, now)).await
    }

    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let record = record.clone();
        self.run(move |inner| inner.save(&record)).await
    }

    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let record = record.clone();
        self.run(move |inner| inner.touch(&record)).await
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        let session_key = session_key.clone();
        self.run(move |inner| inner.delete(&session_key)).await
    }

    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        let (session_key, revision) = (session_key.clone(), revision.clone());
        self.run(move |inner| inner.delete_revision(&session_key, &revision)).await
    }

    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        self.run(move |inner| inner.clear_expired(now, ABANDONED_AFTER)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::SecretKey;

    #[test]
    fn temporary_files_go_when_nobody_has_touched_them_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let codec = SessionCodec::new(&SecretKey::new("secret").unwrap());
        let store = FileStore::new(directory.path(), codec);
        let path = |name: &str| directory.path().join(name);
        for name in [
            "sessionidabcdefgh_out_a1_b2c3d",
            "sessionidabcdefgh_out_a1_b2c3",
            "sessionidabc_out_a1_b2c3d",
            "anotherabcdefgh_out_a1_b2c3d",
        ] {
            std::fs::write(path(name), "half a sess").unwrap();
        }
        let now = DateTime::Aware(Timestamp::now());
        // Whatever its time of modification says.
        let young = std::fs::File::open(path("sessionidabcdefgh_out_a1_b2c3d")).unwrap();
        young.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(store.0.clear_expired(now, ABANDONED_AFTER).unwrap(), 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 4);
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(store.0.clear_expired(now, Duration::from_millis(500)).unwrap(), 0);
        assert!(!path("sessionidabcdefgh_out_a1_b2c3d").exists());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
    }
}
