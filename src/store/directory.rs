//! Files that many processes share: each is read whole, replaced whole, and only if it is still the
//! one that was compared.
//!
//! A writer locks the file, compares, writes a temporary file beside it and renames. Whoever was
//! waiting for the lock then holds one on a file that has lost its name, sees so and starts over. A
//! process that dies lets go of its locks. Django writes without any lock; where the system can
//! exchange two names in one step (Linux, macOS), what it did in between is noticed and put back, and
//! a file that it has deleted stays deleted.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::OFlags;
use rustix::io::Errno;
use thiserror::Error;

use self::rename::{exchange, rename_to_new};
use crate::codec::DEFAULT_MAX_SIZE;
use crate::session::{ExpiryError, SessionKey, StoreError};

/// The longest file that is read: as base64, the largest session that is.
const MAX_LENGTH: u64 = 2 * DEFAULT_MAX_SIZE as u64;
/// Between the name of a file and what makes its temporary one unique, as in Django.
const TEMPORARY: &str = "_out_";
const TEMPORARY_LENGTH: usize = 8;
/// The longest name of a file on nearly every system.
const MAX_NAME: usize = 255;
/// How long to wait before a lock is tried again, at first and at most.
const WAITS: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(5));

/// What is inside a [`StoreError`] of [`FileStore`](super::FileStore) where the file system failed.
///
/// No message holds a path, which would hold a session key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file system cannot hold the time from which on the session counts.
    #[error("the file system cannot hold the time of modification")]
    Date,
    /// The directory is not there, or is none.
    #[error("the directory for sessions cannot be used")]
    Directory(#[source] io::Error),
    /// The system refused.
    #[error("a session file cannot be {operation}")]
    Io {
        /// What was to be done: `"read"`, `"written"`.
        operation: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else has the file locked, for longer than the store waits.
    #[error("a session file stays locked")]
    Locked,
    /// The key or the cookie's name has characters that the name of a file must not have.
    #[error("the session key cannot be the name of a file")]
    Name,
    /// The file is longer than any session that is read.
    #[error("a session file is longer than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
}

impl FileError {
    fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        let errno = match &error {
            FileError::Date => return Self::ExpireDate(ExpiryError::OutOfRange),
            FileError::Locked => return Self::TimedOut(error.into()),
            FileError::Directory(source) | FileError::Io { source, .. } => {
                Errno::from_io_error(source)
            }
            FileError::Name | FileError::TooLarge { .. } => None,
        };
        match errno {
            // The file system is on another machine, or in another process.
            Some(Errno::TIMEDOUT) => Self::TimedOut(error.into()),
            Some(
                Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::NOTCONN
                | Errno::STALE
                // A volume that is not mounted.
                | Errno::NOENT
                | Errno::NOTDIR,
            ) => Self::Unreachable(error.into()),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN) => {
                Self::Busy(error.into())
            }
            _ => Self::Backend(error.into()),
        }
    }
}

/// A directory of such files.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: PathBuf,
    lock_timeout: Duration,
    sync: bool,
}

/// What tells files apart, whatever their names.
type FileId = (u64, u64);

fn id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// A file as it was read.
pub(super) struct Found {
    file: File,
    id: FileId,
    pub(super) content: Vec<u8>,
    pub(super) modified: Timestamp,
}

impl Found {
    /// Sets when it was last modified.
    pub(super) fn set_modified(&self, modified: Timestamp) -> Result<(), FileError> {
        set_modified(&self.file, modified)
    }
}

/// What came of replacing a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replaced {
    Done,
    /// Somebody who takes no locks has replaced it, and that is what is there.
    Changed,
    /// Somebody who takes no locks has removed it.
    Gone,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, lock_timeout: Duration::from_secs(5), sync: false }
    }

    pub(super) fn with_lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    pub(super) fn with_sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a file of this name and a temporary one beside it are possible, and in this directory.
    pub(super) fn can_hold(name: &str) -> bool {
        name.len() + TEMPORARY.len() + TEMPORARY_LENGTH <= MAX_NAME && !name.contains(['/', '\0'])
    }

    pub(super) fn exists(&self, name: &str) -> Result<bool, FileError> {
        Ok(self.metadata(&self.path.join(name))?.is_some())
    }

    /// The file of this name. What is no regular file is none; links are not followed.
    pub(super) fn read(&self, name: &str) -> Result<Option<Found>, FileError> {
        match self.open(name, false)? {
            Some((file, metadata)) => read(file, &metadata).map(Some),
            None => Ok(None),
        }
    }

    /// Adds a file, whole from the first moment; false if the name is taken.
    pub(super) fn create(
        &self,
        name: &str,
        content: &[u8],
        modified: Option<Timestamp>,
    ) -> Result<bool, FileError> {
        let path = self.path.join(name);
        if self.metadata(&path)?.is_some() {
            return Ok(false);
        }
        let temporary = self.write(name, content, modified)?;
        match rename_to_new(&temporary.path, &path) {
            Ok(()) => temporary.keep(),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(error) if is_unsupported(&error) => {
                // As Django does it: the file is empty for a moment, which reads as an empty session.
                match new_file(&path) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
                    Err(error) => return Err(FileError::io("created")(error)),
                }
                if let Err(error) = fs::rename(&temporary.path, &path) {
                    let _ = fs::remove_file(&path);
                    return Err(FileError::io("created")(error));
                }
                temporary.keep();
            }
            Err(error) => return Err(FileError::io("created")(error)),
        }
        self.sync_names()?;
        Ok(true)
    }

    /// The file of this name, with nobody else at it who takes locks, as long as it is held.
    pub(super) fn lock(&self, name: &str) -> Result<Option<Locked<'_>>, FileError> {
        let until = Instant::now() + self.lock_timeout;
        let path = self.path.join(name);
        loop {
            let Some((file, metadata)) = self.open(name, true)? else { return Ok(None) };
            wait_for_lock(&file, until)?;
            if self.metadata(&path)?.is_some_and(|now| id(&now) == id(&metadata)) {
                let found = read(file, &metadata)?;
                return Ok(Some(Locked { directory: self, name: name.to_owned(), path, found }));
            }
            // Replaced or removed by whoever had the lock, so this is one on nothing.
            if Instant::now() >= until {
                return Err(FileError::Locked);
            }
        }
    }

    /// Whether the name still leads to this file.
    pub(super) fn is_current(&self, name: &str, found: &Found) -> Result<bool, FileError> {
        Ok(self.metadata(&self.path.join(name))?.is_some_and(|now| id(&now) == found.id))
    }

    /// The names of the files in it, one by one.
    pub(super) fn names(
        &self,
    ) -> Result<impl Iterator<Item = Result<String, FileError>>, FileError> {
        let entries = fs::read_dir(&self.path).map_err(FileError::Directory)?;
        // A name that is no Unicode is none of ours.
        Ok(entries.filter_map(|entry| match entry {
            Ok(entry) => entry.file_name().into_string().ok().map(Ok),
            Err(error) => Some(Err(FileError::io("listed")(error))),
        }))
    }

    /// The name of the file that a temporary one was to become.
    pub(super) fn temporary_of(name: &str) -> Option<&str> {
        let (name, random) = name.rsplit_once(TEMPORARY)?;
        // Python's `tempfile` has underscores too.
        let is_random = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        (random.len() == TEMPORARY_LENGTH && random.bytes().all(is_random)).then_some(name)
    }

    /// Removes a temporary file that nobody has touched for so long.
    pub(super) fn remove_abandoned(&self, name: &str, age: Duration) -> Result<(), FileError> {
        let path = self.path.join(name);
        let Some(metadata) = self.metadata(&path)? else { return Ok(()) };
        // Not when it was modified, which may be set to any time.
        let changed = Timestamp::from_second(metadata.ctime()).map(SystemTime::from);
        let old = changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|passed| passed > age));
        if old {
            ignore_missing(fs::remove_file(&path))?;
        }
        Ok(())
    }

    /// What is under this path, if it is a regular file.
    fn metadata(&self, path: &Path) -> Result<Option<Metadata>, FileError> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata)),
            Err(error) => self.missing(error, "read").map(|()| None),
        }
    }

    fn open(&self, name: &str, write: bool) -> Result<Option<(File, Metadata)>, FileError> {
        let mut options = OpenOptions::new();
        options.read(true).write(write);
        // Nothing to follow, and no pipe to wait at.
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        let file = match options.open(self.path.join(name)) {
            Ok(file) => file,
            Err(error) => return self.missing(error, "opened").map(|()| None),
        };
        let metadata = file.metadata().map_err(FileError::io("read"))?;
        Ok(metadata.is_file().then_some((file, metadata)))
    }

    /// Whether a failure means that there is no such file; one of the directory never does.
    fn missing(&self, error: io::Error, operation: &'static str) -> Result<(), FileError> {
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR) => match fs::metadata(&self.path) {
                Ok(directory) if directory.is_dir() => Ok(()),
                _ => Err(FileError::Directory(error)),
            },
            // A link, a directory, a socket, or a name that no file can have.
            Some(Errno::LOOP | Errno::MLINK | Errno::ISDIR | Errno::NXIO | Errno::NAMETOOLONG) => {
                Ok(())
            }
            _ => Err(FileError::Io { operation, source: error }),
        }
    }

    /// Writes a temporary file.
    fn write(
        &self,
        name: &str,
        content: &[u8],
        modified: Option<Timestamp>,
    ) -> Result<Temporary, FileError> {
        let mut temporary = loop {
            let random = SessionKey::generate();
            let random = &random.as_str()[..TEMPORARY_LENGTH];
            let path = self.path.join(format!("{name}{TEMPORARY}{random}"));
            match new_file(&path) {
                Ok(file) => break Temporary { file, path },
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    self.missing(error, "created")?;
                    return Err(FileError::Name);
                }
            }
        };
        temporary.file.write_all(content).map_err(FileError::io("written"))?;
        if let Some(modified) = modified {
            set_modified(&temporary.file, modified)?;
        }
        if self.sync {
            temporary.file.sync_all().map_err(FileError::io("written"))?;
        }
        Ok(temporary)
    }

    /// Makes sure that names survive a loss of power.
    fn sync_names(&self) -> Result<(), FileError> {
        if self.sync {
            let directory = File::open(&self.path).map_err(FileError::Directory)?;
            directory.sync_all().map_err(FileError::io("written"))?;
        }
        Ok(())
    }
}

/// A file that nobody else who takes locks replaces or removes.
pub(super) struct Locked<'a> {
    directory: &'a Directory,
    name: String,
    path: PathBuf,
    found: Found,
}

impl Locked<'_> {
    pub(super) fn content(&self) -> &[u8] {
        &self.found.content
    }

    /// When it was last modified, by now.
    pub(super) fn modified(&self) -> Result<Timestamp, FileError> {
        let metadata = self.found.file.metadata().map_err(FileError::io("read"))?;
        modified(&metadata)
    }

    /// Replaces it. With `whatever`, what somebody who takes no locks has put there meanwhile too.
    pub(super) fn replace(
        self,
        content: &[u8],
        modified: Option<Timestamp>,
        whatever: bool,
    ) -> Result<Replaced, FileError> {
        Ok(self.put(content, modified, whatever)?.0)
    }

    /// Replaces what is in it and nothing else: where somebody touches it meanwhile, the new one is touched.
    #[cfg(feature = "cli")]
    pub(super) fn replace_content(self, content: &[u8]) -> Result<Replaced, FileError> {
        let before = self.modified()?;
        let (replaced, written) = self.put(content, Some(before), false)?;
        // Who touched the old one and found it still in its place has done so by now.
        let touched = self.modified()?;
        if replaced == Replaced::Done && touched != before {
            let now = written.file.metadata().map_err(FileError::io("read"))?;
            if modified(&now)? == before {
                set_modified(&written.file, touched)?;
            }
        }
        Ok(replaced)
    }

    fn put(
        &self,
        content: &[u8],
        modified: Option<Timestamp>,
        whatever: bool,
    ) -> Result<(Replaced, Temporary), FileError> {
        let temporary = self.directory.write(&self.name, content, modified)?;
        // Whoever takes locks sees the new file when it is certain that it stays. Nobody else knows
        // of it, so there is nothing to wait for.
        wait_for_lock(&temporary.file, Instant::now())?;
        match self.directory.metadata(&self.path)? {
            None => return Ok((Replaced::Gone, temporary)),
            Some(now) if !whatever && id(&now) != self.found.id => {
                return Ok((Replaced::Changed, temporary));
            }
            Some(_) => {}
        }
        let replaced = match self.exchange(&temporary, whatever) {
            Err(FileError::Io { source, .. }) if is_unsupported(&source) => {
                // Between the look and this step somebody without a lock may come.
                fs::rename(&temporary.path, &self.path).map_err(FileError::io("replaced"))?;
                Replaced::Done
            }
            replaced => replaced?,
        };
        self.directory.sync_names()?;
        Ok((replaced, temporary))
    }

    /// Exchanges both names. If it was not the file that was locked which came out, somebody has put
    /// it there without a lock, just now: it goes back in, and so on until nothing unexpected comes out.
    /// For that long others see what is then taken back.
    fn exchange(&self, temporary: &Temporary, whatever: bool) -> Result<Replaced, FileError> {
        let written = temporary.file.metadata().map_err(FileError::io("written"))?;
        let (mut inserted, mut expected) = (id(&written), self.found.id);
        let mut replaced = Replaced::Done;
        loop {
            match exchange(&temporary.path, &self.path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Replaced::Gone),
                Err(error) => return Err(FileError::io("replaced")(error)),
            }
            let removed = fs::symlink_metadata(&temporary.path).map_err(FileError::io("read"))?;
            let removed = id(&removed);
            // What is in the temporary file now goes when that goes.
            if whatever || removed == expected {
                return Ok(replaced);
            }
            (inserted, expected) = (removed, inserted);
            replaced = Replaced::Changed;
        }
    }

    /// Removes it.
    pub(super) fn remove(self) -> Result<(), FileError> {
        ignore_missing(fs::remove_file(&self.path))?;
        self.directory.sync_names()
    }
}

/// A file that has no name of its own yet, and is removed with this value.
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    /// Keeps the file, which has another name by now.
    fn keep(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // It may have been renamed; what cannot be removed is cleared later as abandoned.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn read(mut file: File, metadata: &Metadata) -> Result<Found, FileError> {
    let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0).min(1 << 20));
    let limited = (&mut file).take(MAX_LENGTH + 1).read_to_end(&mut content);
    let length = limited.map_err(FileError::io("read"))?;
    if length as u64 > MAX_LENGTH {
        return Err(FileError::TooLarge { limit: MAX_LENGTH });
    }
    Ok(Found { file, id: id(metadata), content, modified: modified(metadata)? })
}

fn modified(metadata: &Metadata) -> Result<Timestamp, FileError> {
    let modified = metadata.modified().and_then(|time| {
        Timestamp::try_from(time).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    });
    modified.map_err(FileError::io("read"))
}

fn set_modified(file: &File, time: Timestamp) -> Result<(), FileError> {
    file.set_modified(time.into()).map_err(FileError::io("written"))?;
    // Some keep whole or every other second, which is as good as it gets; beyond the years that they
    // know they keep the last.
    let kept = modified(&file.metadata().map_err(FileError::io("read"))?)?;
    if kept.duration_since(time).abs() > SignedDuration::from_secs(2) {
        return Err(FileError::Date);
    }
    Ok(())
}

/// Waits for the lock, until then at most; it is tried once in any case.
fn wait_for_lock(file: &File, until: Instant) -> Result<(), FileError> {
    let (mut wait, longest) = WAITS;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                return Err(FileError::Locked);
            }
            Err(TryLockError::WouldBlock) => {
                // Without randomness all wait alike, which still ends.
                let random = getrandom::u32().unwrap_or(u32::MAX);
                std::thread::sleep(wait.mul_f64(f64::from(random) / f64::from(u32::MAX)));
                wait = (wait * 2).min(longest);
            }
            Err(TryLockError::Error(error)) => return Err(FileError::io("locked")(error)),
        }
    }
}

fn ignore_missing(removed: io::Result<()>) -> Result<(), FileError> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(FileError::io("removed")),
    }
}

/// Whether the file system lacks the operation.
fn is_unsupported(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| Errno::from_io_error(error) == Some(*errno))
}

#[cfg(any(target_os = "android", target_os = "linux", target_vendor = "apple"))]
mod rename {
    use std::io;
    use std::path::Path;

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
        Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }

    /// Gives a file a name that is free.
    pub(super) fn rename_to_new(old: &Path, new: &Path) -> io::Result<()> {
        Ok(renameat_with(CWD, old, CWD, new, RenameFlags::NOREPLACE)?)
    }
}

#[cfg(not(any(target_os = "android", target_os = "linux", target_vendor = "apple")))]
mod rename {
    use std::io;
    use std::path::Path;

    pub(super) fn exchange(_: &Path, _: &Path) -> io::Result<()> {
        Err(rustix::io::Errno::NOSYS.into())
    }

    pub(super) fn rename_to_new(_: &Path, _: &Path) -> io::Result<()> {
        Err(rustix::io::Errno::NOSYS.into())
    }
}
