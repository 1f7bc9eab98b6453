//! memcached, as Django's `PyMemcacheCache` and `PyLibMCCache` use it.
//!
//! Values, flags, keys, expiry and the choice of a server are Django's, so that both find each other's
//! sessions. Different: a server that is down is an error, where pymemcache moves its keys to another one
//! after a while and back again later; a session that is too large is an error that leaves the old
//! one, where Django removes it; and a write looks at the CAS unique. Why the client is our own says
//! `docs/adr/0014-memcached-client.md`.

mod address;
mod connection;
mod distribution;
mod error;
mod protocol;
mod server;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use self::address::Address;
use self::connection::Answer;
pub use self::distribution::MemcachedDistribution;
pub use self::error::{MemcachedError, MemcachedLocationError};
use self::protocol::Request;
use self::server::Server;
use crate::codec::DEFAULT_MAX_SIZE;
use crate::codec::cache::{check_memcached_key, memcached_exptime};
use crate::session::{Revision, StoreError};
use crate::store::cache::{Cache, CacheEntry, Written};
use crate::store::retry::{Failure, Tries};

/// The servers of a `LOCATION` that have a host and a port; none if it is not one.
#[cfg(feature = "cli")]
pub(super) fn tcp_addresses(location: &str) -> Option<Vec<(Box<str>, u16)>> {
    let addresses: Option<Vec<_>> = location.split([';', ',']).map(Address::parse).collect();
    let tcp = addresses?.into_iter().filter_map(|address| match address {
        Address::Tcp { host, port } => Some((host, port)),
        Address::Unix { .. } => None,
    });
    Some(tcp.collect())
}

/// How many connections to one server there are at most.
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(10).expect("it is not zero");
/// How long to wait for a connection to be made; servers are near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for a free connection, and for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One or several memcached servers that Django shares.
///
/// Each operation is one round trip; a new connection takes one more, in which the server says who it
/// is. Clones share the connections.
///
/// # What a server promises
///
/// memcached keeps everything in memory and forgets it when it is stopped, and whatever it likes
/// when memory gets scarce: a session may be gone at any time, which nobody can tell from a
/// session that expired. An acknowledged write is thus one that was true at that moment. Where that is too
/// little, let a database stand behind it.
///
/// * A write that fails leaves what was there, with one exception: after [`MemcachedError::TimedOut`] or
///   a broken connection it may have happened.
/// * What was loaded from a server that was started anew meanwhile is another revision, also if the
///   numbers that the server counts happen to be the same: a [`Revision`] names the process. Not told apart
///   are processes of the same number that were started in the same second, states of one machine that
///   was set back to an earlier one, and servers behind a proxy that shows its own statistics.
/// * `flush_all` and eviction are deletions, after which a save with a revision fails as it should.
///
/// # Several servers
///
/// Give them as in Django's `LOCATION`, in the same spelling (which pymemcache hashes) and order (which
/// libmemcached counts), and set [`MemcachedDistribution`] to that of the backend. Weights and other options
/// of the clients are not supported. A server that is down is [`StoreError::Unreachable`] for the sessions
/// it has: moving them, as pymemcache does after some failures, would log their users out, and let
/// deleted sessions come back when the server does.
///
/// # Time
///
/// Timeouts are whole seconds, rounded, and the server's clock steps once a second, so that an entry ends
/// up to a second and a half beside what was asked for. Ends beyond January 2038 are taken as that
/// month, the last that all versions understand.
///
/// # Older servers
///
/// memcached before 1.6.10, and other programs that speak its protocol, do not tell how long an entry
/// lives: it counts as about to end, so that every [`Session::touch`](crate::Session::touch) is
/// due. They need `stats`, if only to refuse it, `gets` and `cas`.
///
/// # Keys
///
/// A key of more than 250 bytes, or with a space or a control character, is one that is not there; adding
/// it is [`MemcachedError::InvalidKey`].
///
/// # Example
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
/// use django_session::store::{CacheStore, MemcachedCache};
/// use django_session::{Session, SessionSettings};
///
/// // CACHES = {"default": {
/// //     "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
/// //     "LOCATION": "127.0.0.1:11211",
/// // }}
/// let cache = MemcachedCache::new(["127.0.0.1:11211"])?;
/// let keys = CacheKeys::new(CacheEngine::Cache);
/// let store = Arc::new(CacheStore::new(cache, keys, CacheCodec::new(CacheBackend::Memcached)));
///
/// let session = Session::new(store, Arc::new(SessionSettings::default()), None);
/// session.insert("cart", &["tea"]).await?;
/// session.save().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemcachedCache {
    servers: Arc<[Server]>,
    nodes: Arc<[String]>,
    distribution: MemcachedDistribution,
    connect_timeout: Duration,
    timeout: Duration,
    max_value_size: usize,
}

impl MemcachedCache {
    /// A cache on these servers, each `host`, `host:port`, `[address]:port`, `unix:/path` or `/path`.
    /// Nothing is connected before it is needed.
    ///
    /// # Errors
    ///
    /// [`MemcachedLocationError`].
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::store::{MemcachedCache, MemcachedLocationError};
    ///
    /// MemcachedCache::new(["10.0.0.1:11211", "10.0.0.2:11211"])?;
    /// MemcachedCache::new(["unix:/run/memcached/memcached.sock"])?;
    ///
    /// let error = MemcachedCache::new(["10.0.0.1:http"]).unwrap_err();
    /// assert_eq!(error, MemcachedLocationError::Malformed { number: 1 });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new<S: AsRef<str>>(
        servers: impl IntoIterator<Item = S>,
    ) -> Result<Self, MemcachedLocationError> {
        let mut addresses = Vec::new();
        for (index, text) in servers.into_iter().enumerate() {
            let malformed = MemcachedLocationError::Malformed { number: index + 1 };
            addresses.push(Address::parse(text.as_ref()).ok_or(malformed)?);
        }
        if addresses.is_empty() {
            return Err(MemcachedLocationError::Empty);
        }
        Ok(Self {
            nodes: addresses.iter().map(Address::node).collect(),
            servers: servers_with(addresses, MAX_CONNECTIONS),
            distribution: MemcachedDistribution::default(),
            connect_timeout: CONNECT_TIMEOUT,
            timeout: TIMEOUT,
            max_value_size: DEFAULT_MAX_SIZE,
        })
    }

    /// As [`MemcachedCache::new`], from a `LOCATION` that is one text, in which `;` or `,` part the servers.
    ///
    /// # Errors
    ///
    /// [`MemcachedLocationError`].
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::store::MemcachedCache;
    ///
    /// let cache = MemcachedCache::from_location("10.0.0.1:11211;10.0.0.2:11211")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_location(location: &str) -> Result<Self, MemcachedLocationError> {
        if location.is_empty() {
            return Err(MemcachedLocationError::Empty);
        }
        Self::new(location.split([';', ',']))
    }

    /// Sets how keys are spread over several servers, [`MemcachedDistribution::Rendezvous`] at first.
    #[must_use]
    pub fn with_distribution(mut self, distribution: MemcachedDistribution) -> Self {
        self.distribution = distribution;
        self
    }

    /// Sets how many connections to each server there may be, ten at first. Of clones, those made
    /// before keep theirs.
    #[must_use]
    pub fn with_max_connections(mut self, connections: NonZeroUsize) -> Self {
        let addresses = self.servers.iter().map(|server| server.address.clone()).collect();
        self.servers = servers_with(addresses, connections);
        self
    }

    /// Sets how long connecting to a server may take, two seconds at first.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long an answer may take, five seconds at first. As long is waited for a connection if
    /// all are in use.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the largest value in bytes that is read or written, [`DEFAULT_MAX_SIZE`] at first. Servers have
    /// a limit of their own, a megabyte unless they are told otherwise.
    #[must_use]
    pub fn with_max_value_size(mut self, bytes: usize) -> Self {
        self.max_value_size = bytes;
        self
    }

    async fn run(&self, request: Request<'_>) -> Result<Answer, StoreError> {
        self.run_with(request, None).await.map(|(answer, _)| answer)
    }

    /// Says also whether the request was sent before by a connection that broke, so that what it met may
    /// be its own work.
    async fn run_with(
        &self,
        request: Request<'_>,
        revision: Option<&Revision>,
    ) -> Result<(Answer, bool), StoreError> {
        if request.value().is_some_and(|value| value.len() > self.max_value_size) {
            return Err(MemcachedError::ValueTooLarge { limit: self.max_value_size }.into());
        }
        let server = &self.servers[self.distribution.server(&self.nodes, request.key())];
        let mut tries = Tries::default();
        let mut repeated = false;
        loop {
            let mut lease = server.connection(self.timeout, self.connect_timeout).await?;
            let run = lease.connection.run(request, revision, self.max_value_size);
            let error = match timeout(self.timeout, run).await {
                Ok(Ok(answer)) => {
                    lease.keep();
                    return Ok((answer, repeated));
                }
                Ok(Err(error)) => error,
                Err(_) => MemcachedError::TimedOut,
            };
            let is_broken = lease.is_old && matches!(error, MemcachedError::Io(_));
            let failure = if is_broken { Failure::Broken } else { Failure::Final };
            if is_broken {
                server.close_idle();
            }
            // Its place is free for whoever waits, the next try included.
            drop(lease);
            if !tries.again(failure).await {
                return Err(error.into());
            }
            repeated = true;
        }
    }

    /// What came of a write that found another entry than it was for: done, if it is its own.
    async fn changed(
        &self,
        key: &str,
        value: &[u8],
        repeated: bool,
    ) -> Result<Written, StoreError> {
        let found = if repeated { self.get(key).await? } else { None };
        let own = found.filter(|entry| entry.value == value);
        Ok(own.map_or(Written::Changed, |entry| Written::Done(entry.revision)))
    }
}

fn servers_with(addresses: Vec<Address>, connections: NonZeroUsize) -> Arc<[Server]> {
    addresses.into_iter().map(|address| Server::new(address, connections.get())).collect()
}

/// What is sent for a timeout: whole seconds, of which there is at least one.
fn exptime(timeout: SignedDuration) -> i64 {
    let seconds = timeout.round(jiff::Unit::Second).unwrap_or(timeout).as_secs().max(1);
    #[expect(clippy::cast_precision_loss, reason = "beyond any date")]
    let exptime = memcached_exptime(seconds as f64, Timestamp::now().as_second() as f64);
    exptime.min(i32::MAX.into())
}

impl fmt::Debug for MemcachedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedCache")
            .field("servers", &self.nodes)
            .field("distribution", &self.distribution)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Cache for MemcachedCache {
    async fn get(&self, key: &str) -> Result<Option<CacheEntry>, StoreError> {
        if check_memcached_key(key).is_err() {
            return Ok(None);
        }
        match self.run(Request::Get { key }).await? {
            Answer::Found(entry) => Ok(Some(entry)),
            _ => Ok(None),
        }
    }

    async fn has_key(&self, key: &str) -> Result<bool, StoreError> {
        if check_memcached_key(key).is_err() {
            return Ok(false);
        }
        Ok(!matches!(self.run(Request::HasKey { key }).await?, Answer::Missing))
    }

    async fn add(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
    ) -> Result<Written, StoreError> {
        check_memcached_key(key).map_err(MemcachedError::InvalidKey)?;
        let request = Request::Add { key, value, exptime: exptime(timeout) };
        match self.run_with(request, None).await? {
            (Answer::Changed, repeated) => self.changed(key, value, repeated).await,
            (answer, _) => Ok(answer.into()),
        }
    }

    async fn replace(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
        revision: Option<&Revision>,
    ) -> Result<Written, StoreError> {
        if check_memcached_key(key).is_err() {
            return Ok(Written::Missing);
        }
        let request = Request::Replace { key, value, exptime: exptime(timeout) };
        match self.run_with(request, revision).await? {
            (Answer::Changed, repeated) => self.changed(key, value, repeated).await,
            (answer, _) => Ok(answer.into()),
        }
    }

    async fn touch(&self, key: &str, timeout: SignedDuration) -> Result<bool, StoreError> {
        if check_memcached_key(key).is_err() {
            return Ok(false);
        }
        let request = Request::Touch { key, exptime: exptime(timeout) };
        Ok(!matches!(self.run(request).await?, Answer::Missing))
    }

    async fn delete(&self, key: &str, revision: Option<&Revision>) -> Result<Written, StoreError> {
        if check_memcached_key(key).is_err() {
            return Ok(Written::Missing);
        }
        match self.run_with(Request::Delete { key }, revision).await? {
            // By us or by somebody else, which is not the same to whoever asks for a revision.
            (Answer::Missing, true) if revision.is_some() => Err(MemcachedError::Unknown.into()),
            (answer, _) => Ok(answer.into()),
        }
    }
}

impl From<Answer> for Written {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Changed => Self::Changed,
            Answer::Done(revision) => Self::Done(revision),
            Answer::Found(entry) => Self::Done(entry.revision),
            Answer::Missing => Self::Missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_whole_seconds_and_at_least_one() {
        for (milliseconds, seconds) in
            [(1, 1), (999, 1), (1499, 1), (1500, 2), (599_999, 600), (2_592_000_000, 2_592_000)]
        {
            assert_eq!(
                exptime(SignedDuration::from_millis(milliseconds)),
                seconds,
                "{milliseconds}"
            );
        }
        let now = Timestamp::now().as_second();
        let month = exptime(SignedDuration::from_hours(31 * 24));
        assert!((now..now + 5).contains(&(month - 31 * 86_400)), "beyond 30 days it is a date");
        assert_eq!(exptime(SignedDuration::from_hours(24 * 365 * 100)), i64::from(i32::MAX));
        assert_eq!(exptime(SignedDuration::MAX), i64::from(i32::MAX));
    }
}
