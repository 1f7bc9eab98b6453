//! A connection to one server: a request out, its reply in, within limits of time and memory.
//!
//! A connection is owned by one operation at a time and is given back only after a whole reply, so that
//! no operation can read what another one was told, not even if it is cancelled half way.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::address::Address;
use super::error::MemcachedError;
use super::protocol::{self, Line, MAX_LINE, Process, Request, ValueLine};
use crate::session::Revision;
use crate::store::cache::CacheEntry;

/// How much of `stats` is read; a server sends some three kilobytes.
const MAX_STATS: usize = 1 << 16;

/// What an entry is said to have left where the server does not tell: so little that a touch is always
/// due.
const UNKNOWN_TIME_TO_LIVE: SignedDuration = SignedDuration::from_secs(1);

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

pub(super) struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    process: Process,
    /// Since when it is not in use.
    pub(super) idle_since: Instant,
}

/// What came of a request.
pub(super) enum Answer {
    Changed,
    Done(Revision),
    Found(CacheEntry),
    Missing,
}

impl Connection {
    /// Connects, and asks once who it is.
    pub(super) async fn open(address: &Address, limit: Duration) -> Result<Self, MemcachedError> {
        let open = async {
            let mut connection = Self {
                stream: BufReader::new(connect(address).await?),
                process: Process::default(),
                idle_since: Instant::now(),
            };
            connection.meet().await?;
            Ok(connection)
        };
        timeout(limit, open).await.unwrap_or(Err(MemcachedError::ConnectTimedOut))
    }

    async fn meet(&mut self) -> Result<(), MemcachedError> {
        self.stream.write_all(b"stats\r\n").await?;
        let (mut line, mut read) = (Vec::new(), 0);
        loop {
            self.read_line(&mut line).await?;
            read += line.len();
            if !self.process.read(&line)? {
                return Ok(());
            }
            if read > MAX_STATS {
                return Err(MemcachedError::MalformedReply);
            }
        }
    }

    /// Whether the server is still there, as far as that shows without asking it.
    pub(super) async fn is_open(&mut self) -> bool {
        let stream = &mut self.stream;
        let read = poll_fn(|context| {
            Poll::Ready(Pin::new(&mut *stream).poll_fill_buf(context).is_pending())
        });
        // Its end has come if nothing can be read; and what can be read nobody has asked for.
        read.await
    }

    /// Runs a request. After an error the connection must not be used again.
    pub(super) async fn run(
        &mut self,
        request: Request<'_>,
        revision: Option<&Revision>,
        max_value_size: usize,
    ) -> Result<Answer, MemcachedError> {
        // Unlike any other of this program, so that what answers another request is found out.
        static OPAQUE: AtomicU64 = AtomicU64::new(1);
        let opaque = OPAQUE.fetch_add(1, Ordering::Relaxed);
        let (request, expected) = match (revision, request) {
            (None, _) => (request, true),
            (Some(revision), _) => match (self.unique(revision), request) {
                (Some(unique), Request::Replace { key, value, exptime }) => {
                    (Request::ReplaceUnique { key, value, exptime, unique }, true)
                }
                (Some(unique), Request::Delete { key }) => {
                    (Request::DeleteUnique { key, unique }, true)
                }
                // What the revision was of went with the process that kept it.
                (_, request) => (Request::HasKey { key: request.key() }, false),
            },
        };
        self.stream.write_all(&request.encode(self.process.meta, opaque)).await?;
        self.stream.flush().await?;
        let answer = self.read_answer(request, opaque, max_value_size).await?;
        Ok(match answer {
            Answer::Missing => Answer::Missing,
            answer if expected => answer,
            _ => Answer::Changed,
        })
    }

    async fn read_answer(
        &mut self,
        request: Request<'_>,
        opaque: u64,
        max_value_size: usize,
    ) -> Result<Answer, MemcachedError> {
        let mut line = Vec::new();
        match request {
            Request::Get { key } => {
                Ok(match self.read_entry(key, opaque, max_value_size).await? {
                    Some(entry) => Answer::Found(entry),
                    None => Answer::Missing,
                })
            }
            Request::HasKey { key } if !self.process.meta => {
                let found = self.read_entry(key, opaque, max_value_size).await?;
                Ok(found.map_or(Answer::Missing, |entry| Answer::Done(entry.revision)))
            }
            Request::Add { key, value, .. }
            | Request::Replace { key, value, .. }
            | Request::ReplaceUnique { key, value, .. } => {
                self.read_line(&mut line).await?;
                let written = protocol::parse(&line, opaque)?;
                let answer = match (written, request) {
                    (Line::Done, _) => None,
                    (Line::NotStored, Request::Add { .. })
                    | (Line::Changed, Request::ReplaceUnique { .. }) => Some(Answer::Changed),
                    (Line::NotStored, Request::Replace { .. })
                    | (Line::Missing, Request::ReplaceUnique { .. }) => Some(Answer::Missing),
                    _ => return Err(MemcachedError::MalformedReply),
                };
                let entry = self.read_entry(key, opaque, max_value_size).await?;
                Ok(answer.unwrap_or_else(|| {
                    // Somebody else may have come between the two commands. A revision like no other
                    // then says that this is not what is stored.
                    let ours = entry.filter(|entry| entry.value == value);
                    Answer::Done(ours.map_or_else(no_revision, |entry| entry.revision))
                }))
            }
            Request::Delete { .. }
            | Request::DeleteUnique { .. }
            | Request::HasKey { .. }
            | Request::Touch { .. } => {
                self.read_line(&mut line).await?;
                match (protocol::parse(&line, opaque)?, request) {
                    (Line::Done, _) => Ok(Answer::Done(no_revision())),
                    (Line::Missing, _) => Ok(Answer::Missing),
                    (Line::Changed, Request::DeleteUnique { .. }) => Ok(Answer::Changed),
                    _ => Err(MemcachedError::MalformedReply),
                }
            }
        }
    }

    /// Reads the reply to `mg` or `gets`.
    async fn read_entry(
        &mut self,
        key: &str,
        opaque: u64,
        max_value_size: usize,
    ) -> Result<Option<CacheEntry>, MemcachedError> {
        let mut line = Vec::new();
        self.read_line(&mut line).await?;
        let ValueLine { size, flags, unique, time_to_live, key: named } =
            match protocol::parse(&line, opaque)? {
                Line::Value(value) => value,
                Line::End if !self.process.meta => return Ok(None),
                Line::Missing if self.process.meta => return Ok(None),
                _ => return Err(MemcachedError::MalformedReply),
            };
        if named.is_some() == self.process.meta
            || named.is_some_and(|named| named != key.as_bytes())
        {
            return Err(MemcachedError::MalformedReply);
        }
        if size > max_value_size {
            return Err(MemcachedError::ValueTooLarge { limit: max_value_size });
        }
        let mut entry = CacheEntry::new(self.read_block(size).await?);
        entry.flags = Some(flags);
        entry.timeout = if self.process.meta {
            let seconds = time_to_live.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
            seconds.map(SignedDuration::from_secs)
        } else {
            Some(UNKNOWN_TIME_TO_LIVE)
        };
        entry.revision = self.revision(unique);
        if !self.process.meta {
            self.read_line(&mut line).await?;
            if protocol::parse(&line, opaque)? != Line::End {
                return Err(MemcachedError::MalformedReply);
            }
        }
        Ok(Some(entry))
    }

    /// Reads so many bytes and the end of the line behind them. Memory is taken as they come, not as they
    /// are announced.
    async fn read_block(&mut self, size: usize) -> Result<Vec<u8>, MemcachedError> {
        let mut block = Vec::new();
        (&mut self.stream).take(size as u64 + 2).read_to_end(&mut block).await?;
        if block.len() < size + 2 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if !block.ends_with(b"\r\n") {
            return Err(MemcachedError::MalformedReply);
        }
        block.truncate(size);
        Ok(block)
    }

    /// Reads a line into `line`, without its end.
    async fn read_line(&mut self, line: &mut Vec<u8>) -> Result<(), MemcachedError> {
        line.clear();
        let limit = MAX_LINE as u64;
        (&mut self.stream).take(limit).read_until(b'\n', line).await?;
        match line.strip_suffix(b"\r\n").map(<[u8]>::len) {
            Some(length) => line.truncate(length),
            None if line.len() < MAX_LINE && !line.ends_with(b"\n") => {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            None => return Err(MemcachedError::MalformedReply),
        }
        Ok(())
    }

    /// The CAS unique, and whose it is: numbers begin anew when a server does.
    fn revision(&self, unique: u64) -> Revision {
        let Process { pid, started, .. } = self.process;
        Revision::new([unique, pid, started].map(u64::to_be_bytes).concat())
    }

    /// The CAS unique of a revision, if it is of this process.
    fn unique(&self, revision: &Revision) -> Option<u64> {
        let unique = u64::from_be_bytes(*revision.as_bytes().first_chunk()?);
        (self.revision(unique) == *revision).then_some(unique)
    }
}

/// One that no entry has.
fn no_revision() -> Revision {
    Revision::new([])
}

async fn connect(address: &Address) -> io::Result<Box<dyn Stream>> {
    match address {
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((&**host, *port)).await?;
            // A request and its reply are one packet each; waiting for more of them helps nobody.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        #[cfg(unix)]
        Address::Unix { path } => Ok(Box::new(tokio::net::UnixStream::connect(&**path).await?)),
        #[cfg(not(unix))]
        Address::Unix { .. } => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}
