//! Sessions in Redis, as Django's own `RedisCache` and that of django-redis keep them.
//!
//! What is kept is the affair of [`CacheKeys`](crate::codec::cache::CacheKeys) and
//! [`CacheCodec`](crate::codec::cache::CacheCodec); this only moves bytes, each operation in one round
//! trip. Different from both: timeouts are in milliseconds, where Django has seconds; and a value is
//! replaced or removed only if it still is the one that was read, by a script, as Redis has no command
//! for that before version 8.

mod address;
mod error;
mod lane;
mod link;

#[cfg(feature = "cli")]
use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use redis::cluster::ClusterClient;
use redis::sentinel::SentinelClient;
use redis::{Client, Cmd, ErrorKind, Pipeline, ServerErrorKind, Value};
use sha1::{Digest as _, Sha1};

pub use self::address::RedisAddress;
pub use self::error::{RedisConnectError, RedisError};
#[cfg(feature = "cli")]
use self::link::To;
use self::link::{Answers, Limits, Link, Source};
use super::cache::{Cache, CacheEntry, Written};
use crate::session::{Revision, StoreError};

/// How long to wait for a connection, and for an answer, which usually takes less than a thousandth of
/// it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What the scripts answer, and what `EXISTS`, `DEL` and `PEXPIRE` do.
const MISSING: i64 = 0;
const CHANGED: i64 = 1;
const DONE: i64 = 2;
const TAKEN: i64 = 3;

// An error inside a script is handed on as it is: servers before version 7 would wrap it in text.

/// Reads a value and its timeout, by one command instead of two: in a cluster that is being changed only
/// one can be sent to where the key has gone.
const READ: &str = "\
local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'table' then return stored end
if not stored then return false end
return {stored, redis.pcall('PTTL', KEYS[1])}
";

/// Puts a value with a timeout in place of a certain other one.
const REPLACE: &str = "\
local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'table' then return stored end
if not stored then return 0 end
if stored ~= ARGV[1] then return 1 end
local done = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if done.err then return done end
return 2
";

/// Puts a value in place of a certain other one, which ends when that would have.
#[cfg(feature = "cli")]
const REPLACE_KEPT: &str = "\
local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'table' then return stored end
if not stored then return 0 end
if stored ~= ARGV[1] then return 1 end
local done = redis.pcall('SET', KEYS[1], ARGV[2], 'KEEPTTL')
if done.err then return done end
return 2
";

/// Moves an entry to another key, with another value: any, or one of a certain value.
const CYCLE_KEY: &str = "\
local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'table' then return stored end
if not stored then return 0 end
if ARGV[3] and stored ~= ARGV[3] then return 1 end
local done = redis.pcall('SET', KEYS[2], ARGV[1], 'PX', ARGV[2], 'NX')
if not done then return 3 end
if done.err then return done end
done = redis.pcall('DEL', KEYS[1])
if type(done) == 'table' then return done end
return 2
";

/// Removes a certain value.
const DELETE: &str = "\
local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'table' then return stored end
if not stored then return 0 end
if stored ~= ARGV[1] then return 1 end
local done = redis.pcall('DEL', KEYS[1])
if type(done) == 'table' then return done end
return 2
";

/// One Redis server, a Redis Cluster, or the master that Sentinels name.
///
/// Make a [`CacheStore`](super::CacheStore) of it. Clones share the connections: one to a server or to
/// each node of a cluster, on which the operations of all tasks travel side by side, and to a server
/// without TLS another one, which is faster, for one operation at a time. They are made when they are
/// needed, and again when they break; by way of the Sentinels if there are any.
///
/// It speaks to Redis from version 6.0 on, and to what is compatible with it. A user needs the commands
/// `GET`, `PTTL`, `EXISTS`, `SET`, `PEXPIRE`, `DEL`, `EVALSHA` and `EVAL`, `WAIT` for
/// [`with_wait`](RedisCache::with_wait), `ROLE` where there are Sentinels, and `CLUSTER SLOTS` in a
/// cluster.
///
/// # What a failover may lose
///
/// Redis acknowledges a write before its replicas have it. If a master is lost in that moment, so is the
/// write: the last change of a session, or that somebody has logged out. This is what the server
/// promises, to Django too. [`RedisCache::with_wait`] makes it rare. It never makes it impossible: a
/// master that is cut off may go on for a while beside its successor, unless it is told by
/// `min-replicas-to-write` to stop, and Redis keeps nothing over a restart that it was not told to.
///
/// Until there is a new master, operations fail, as [`StoreError::is_outage`] says. They succeed again
/// when it is there, without any doing.
///
/// # When the connection breaks
///
/// An operation whose connection broke is tried once more, if the connection had been kept from before.
/// Whether it has been carried out the first time is then seen from the value that is stored, and where
/// it cannot be seen, the answer is [`StoreError::Unreachable`]. In a cluster the driver itself repeats
/// operations, so there it may look as if somebody else had written the same at the same time.
///
/// # Example
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use django_session::codec::cache::{CacheBackend, CacheCodec, CacheEngine, CacheKeys};
/// use django_session::store::{CacheStore, RedisCache};
/// use django_session::{Session, SessionSettings};
///
/// // What LOCATION of Django's CACHES says.
/// let cache = RedisCache::connect("redis://:password@localhost:6379/1").await?;
/// let keys = CacheKeys::new(CacheEngine::Cache).with_key_prefix("site");
/// let store = Arc::new(CacheStore::new(cache, keys, CacheCodec::new(CacheBackend::Redis)));
///
/// let session = Session::new(store, Arc::new(SessionSettings::default()), None);
/// session.insert("cart", &["tea"]).await?;
/// session.save().await?;
/// # Ok(())
/// # }
/// ```
///
/// Three Sentinels, a certificate authority of one's own, and no hurry:
///
/// ```no_run
/// # use django_session::store::{RedisAddress, RedisCache};
/// # use std::time::Duration;
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// let address = "rediss+sentinel://user:password@one,two,three/sessions/0";
/// let address = address.parse::<RedisAddress>()?.with_ca(std::fs::read("ca.pem")?);
/// let cache = RedisCache::new(&address)?
///     .with_timeout(Duration::from_secs(10))
///     .with_wait(1, Duration::from_millis(500));
/// cache.ping().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisCache {
    source: Arc<Source>,
    limits: Limits,
    wait: Option<Wait>,
    link: Arc<Link>,
    /// For writes. Another one if they wait for replicas, because all that is sent after a `WAIT` waits
    /// too.
    writes: Arc<Link>,
    scripts: Arc<Scripts>,
}

struct Scripts {
    read: Script,
    replace: Script,
    #[cfg(feature = "cli")]
    replace_kept: Script,
    cycle_key: Script,
    delete: Script,
}

/// How many replicas have to have a write, and how long to wait for them.
#[derive(Clone, Copy, Debug)]
struct Wait {
    replicas: u32,
    timeout: Duration,
}

/// A client of the driver, for [`RedisCache::with_client`].
#[non_exhaustive]
pub enum RedisClient {
    /// A client of a cluster.
    Cluster(ClusterClient),
    /// A client that asks Sentinels. It should ask for the master.
    Sentinel(SentinelClient),
    /// A client of one server.
    Server(Client),
}

impl From<ClusterClient> for RedisClient {
    fn from(client: ClusterClient) -> Self {
        Self::Cluster(client)
    }
}

impl From<SentinelClient> for RedisClient {
    fn from(client: SentinelClient) -> Self {
        Self::Sentinel(client)
    }
}

impl From<Client> for RedisClient {
    fn from(client: Client) -> Self {
        Self::Server(client)
    }
}

/// Without addresses and logins.
impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster(_) => "Cluster(..)",
            Self::Sentinel(_) => "Sentinel(..)",
            Self::Server(_) => "Server(..)",
        })
    }
}

impl RedisCache {
    /// The cache at an address. Nothing is sent before the first operation.
    ///
    /// # Errors
    ///
    /// [`RedisConnectError::Address`] if the certificates that it names are none.
    pub fn new(address: &RedisAddress) -> Result<Self, RedisConnectError> {
        Ok(Self::from_source(address.source()?))
    }

    /// The cache that a client of yours leads to, in whatever way it is set up. Nothing is sent before
    /// the first operation.
    ///
    /// The timeouts are those of the cache. A client for TLS needs a default
    /// [provider of cryptography](https://docs.rs/rustls/latest/rustls/crypto/struct.CryptoProvider.html).
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::store::{RedisCache, redis};
    ///
    /// let client = redis::Client::open("redis://localhost/1?protocol=resp3")?;
    /// let cache = RedisCache::with_client(client);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_client(client: impl Into<RedisClient>) -> Self {
        Self::from_source(match client.into() {
            RedisClient::Cluster(client) => Source::Cluster { client, nodes: Vec::new() },
            RedisClient::Sentinel(client) => Source::sentinel(client),
            RedisClient::Server(client) => Source::Server(client),
        })
    }

    /// The cache at an address, as [`RedisAddress`] has it, to which there is a connection.
    ///
    /// # Errors
    ///
    /// [`RedisConnectError`]; see there.
    pub async fn connect(url: &str) -> Result<Self, RedisConnectError> {
        let cache = Self::new(&url.parse()?)?;
        cache.ping().await.map_err(RedisConnectError::Connect)?;
        Ok(cache)
    }

    fn from_source(source: Source) -> Self {
        let source = Arc::new(source);
        let limits = Limits { connection: TIMEOUT, answer: TIMEOUT };
        let link = Link::new(Arc::clone(&source), limits);
        Self {
            source,
            limits,
            wait: None,
            writes: Arc::clone(&link),
            link,
            scripts: Arc::new(Scripts {
                read: Script::new(READ),
                replace: Script::new(REPLACE),
                #[cfg(feature = "cli")]
                replace_kept: Script::new(REPLACE_KEPT),
                cycle_key: Script::new(CYCLE_KEY),
                delete: Script::new(DELETE),
            }),
        }
    }

    /// Sets how long to wait for a connection, two seconds at first. Where there are several to be made,
    /// to find the master or the nodes of a cluster, it is the time for each, and three times as much for
    /// all.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connection = timeout;
        self.linked()
    }

    /// Sets how long to wait for an answer, two seconds at first.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.limits.answer = timeout;
        self.linked()
    }

    /// Has each write wait until this many replicas have it too, for so long at most (`WAIT`). At first
    /// none is waited for.
    ///
    /// A write that they do not confirm in time fails with [`StoreError::TimedOut`], though the master
    /// has it: it is not undone. See [what a failover may lose](RedisCache#what-a-failover-may-lose).
    #[must_use]
    pub fn with_wait(mut self, replicas: u32, timeout: Duration) -> Self {
        self.wait = (replicas > 0).then_some(Wait { replicas, timeout });
        self.linked()
    }

    /// The same with new connections.
    fn linked(mut self) -> Self {
        self.link = Link::new(Arc::clone(&self.source), self.limits);
        self.writes = match self.wait {
            None => Arc::clone(&self.link),
            Some(wait) => {
                let answer = self.limits.answer.saturating_add(wait.timeout);
                Link::new(Arc::clone(&self.source), Limits { answer, ..self.limits })
            }
        };
        self
    }

    /// Connects, unless there is a connection, and asks the server for an answer.
    ///
    /// # Errors
    ///
    /// [`StoreError::is_outage`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        match self.link.send("", &pipeline([redis::cmd("PING")])).await {
            Ok(_) => Ok(()),
            // It was let in, if not for this.
            Err(error) if is_kind(&error, ServerErrorKind::NoPerm) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The servers that have keys: each by one of its slots, of which there is one where there is one server.
    #[cfg(feature = "cli")]
    pub(in crate::store) async fn servers(&self) -> Result<Vec<u16>, StoreError> {
        const SLOTS: u32 = 16_384;
        if !self.source.is_cluster() {
            return Ok(vec![0]);
        }
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let [answer] = self.ask(0, [command]).await?;
        let ranges = slot_ranges(&answer).ok_or_else(RedisError::unexpected)?;
        if ranges.iter().map(|range| u32::from(range.last - range.first) + 1).sum::<u32>() != SLOTS
        {
            return Err(StoreError::Busy("no server of the cluster has some of the slots".into()));
        }
        let mut seen = HashSet::new();
        let first = ranges.iter().filter(|range| seen.insert(range.master));
        Ok(first.map(|range| range.first).collect())
    }

    /// Sends commands in one go to the server that has a slot. The first is not refused; if another one is,
    /// that is its answer.
    #[cfg(feature = "cli")]
    pub(in crate::store) async fn ask<const N: usize>(
        &self,
        slot: u16,
        commands: [Cmd; N],
    ) -> Result<[Value; N], StoreError> {
        let answers = self.writes.send(To::Slot(slot), &pipeline(commands)).await?;
        answers.values.try_into().map_err(|_| RedisError::unexpected().into())
    }

    /// Sends commands about many keys in one go, in a cluster some at a time, and returns as many answers.
    #[cfg(feature = "cli")]
    pub(in crate::store) async fn send_many(
        &self,
        commands: Vec<(String, Cmd)>,
    ) -> Result<Vec<Value>, StoreError> {
        use futures_util::{StreamExt as _, TryStreamExt as _};

        const AT_A_TIME: usize = 64;
        let values: Vec<Value> = if self.source.is_cluster() {
            let sent = commands.into_iter().map(|(key, command)| async move {
                let answers = self.writes.send(key.as_str(), &pipeline([command])).await?;
                answers.values.into_iter().next().ok_or_else(RedisError::unexpected)
            });
            futures_util::stream::iter(sent).buffered(AT_A_TIME).try_collect().await?
        } else {
            let mut pipeline = Pipeline::with_capacity(commands.len());
            for (_, command) in commands {
                pipeline.add_command(command);
            }
            if pipeline.is_empty() {
                return Ok(Vec::new());
            }
            self.writes.send("", &pipeline).await?.values
        };
        match values.iter().find_map(|value| match value {
            Value::ServerError(error) => Some(error),
            _ => None,
        }) {
            Some(error) => Err(RedisError::from(redis::RedisError::from(error.clone())).into()),
            None => Ok(values),
        }
    }

    /// Runs a script for each of many keys, which come first among its arguments.
    #[cfg(feature = "cli")]
    async fn run_many<'a>(
        &self,
        script: &Script,
        keys: impl Iterator<Item = (String, Vec<&'a [u8]>)> + Clone + Send,
    ) -> Result<Vec<Value>, StoreError> {
        let commands = |by_hash: bool| {
            let commands = keys.clone().map(|(key, arguments)| {
                let keys = [key.as_str()];
                let mut command =
                    if by_hash { script.by_hash(&keys) } else { script.in_full(&keys) };
                command.arg(arguments);
                (key, command)
            });
            commands.collect::<Vec<_>>()
        };
        let sent = commands(true);
        match self.send_many(sent).await {
            Err(StoreError::Backend(error))
                if error
                    .downcast_ref()
                    .is_some_and(|it| is_kind(it, ServerErrorKind::NoScript)) =>
            {
                // Once is enough for a server to know it; of a cluster, there are several.
                let sent = commands(false);
                self.send_many(sent).await
            }
            values => values,
        }
    }

    /// Replaces values that still are what they were, and keeps their timeouts; returns the places of those
    /// that are not.
    #[cfg(feature = "cli")]
    pub(in crate::store) async fn replace_many(
        &self,
        changes: Vec<(String, &[u8], &[u8])>,
    ) -> Result<Vec<usize>, StoreError> {
        let keys = changes.iter().map(|(key, before, after)| (key.clone(), vec![*before, *after]));
        let answers = self.run_many(&self.scripts.replace_kept, keys).await?;
        let missed = answers.iter().enumerate().filter(|(_, it)| !matches!(it, Value::Int(DONE)));
        Ok(missed.map(|(index, _)| index).collect())
    }

    /// Removes values that still are what they were; returns how many.
    #[cfg(feature = "cli")]
    pub(in crate::store) async fn delete_many(
        &self,
        entries: Vec<(String, &[u8])>,
    ) -> Result<u64, StoreError> {
        let keys = entries.iter().map(|(key, value)| (key.clone(), vec![*value]));
        let answers = self.run_many(&self.scripts.delete, keys).await?;
        Ok(answers.iter().filter(|answer| matches!(answer, Value::Int(DONE))).count() as u64)
    }

    /// Sends a command that changes something, and has the replicas confirm it.
    async fn write(&self, key: &str, command: Cmd) -> Result<Outcome, RedisError> {
        let mut commands = pipeline([command]);
        if let Some(Wait { replicas, timeout }) = self.wait {
            // None at all would mean for ever.
            let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
            commands.cmd("WAIT").arg(replicas).arg(millis);
        }
        let Answers { values, repeated } = self.writes.send(key, &commands).await?;
        let mut values = values.into_iter();
        let value = values.next().ok_or_else(RedisError::unexpected)?;
        let confirmed = match (self.wait, values.next()) {
            (None, _) => true,
            (Some(wait), Some(Value::Int(replicas))) => replicas >= i64::from(wait.replicas),
            _ => false,
        };
        Ok(Outcome { value, confirmed, repeated })
    }

    /// Reads a value and how many milliseconds it has left.
    async fn read(&self, key: &str) -> Result<Option<(Value, Value)>, RedisError> {
        let mut values = if self.source.is_cluster() {
            let script = &self.scripts.read;
            let read = self.link.send(key, &pipeline([script.by_hash(&[key])])).await;
            let answers = match read {
                Err(error) if is_kind(&error, ServerErrorKind::NoScript) => {
                    self.link.send(key, &pipeline([script.in_full(&[key])])).await?
                }
                answers => answers?,
            };
            match answers.values.into_iter().next() {
                Some(Value::Array(values)) => values,
                Some(Value::Nil) => return Ok(None),
                _ => return Err(RedisError::unexpected()),
            }
        } else {
            let commands = pipeline([command("GET", key), command("PTTL", key)]);
            self.link.send(key, &commands).await?.values
        }
        .into_iter();
        match (values.next(), values.next()) {
            (Some(Value::Nil), _) => Ok(None),
            (Some(value), Some(millis)) => Ok(Some((value, millis))),
            _ => Err(RedisError::unexpected()),
        }
    }

    /// Runs a script that answers as the constants above say.
    async fn run(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: impl Fn(&mut Cmd),
    ) -> Result<Outcome, RedisError> {
        let key = keys.first().copied().unwrap_or_default();
        let with_arguments = |mut command| {
            arguments(&mut command);
            command
        };
        match self.write(key, with_arguments(script.by_hash(keys))).await {
            Err(error) if is_kind(&error, ServerErrorKind::NoScript) => {
                self.write(key, with_arguments(script.in_full(keys))).await
            }
            done => done,
        }
    }

    /// Whether a write whose first try came to nothing has been carried out all the same.
    async fn holds(&self, key: &str, value: &[u8]) -> Result<bool, StoreError> {
        Ok(self.get(key).await?.is_some_and(|entry| entry.value == value))
    }
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache")
            .field("kind", &format_args!("{}", self.source.name()))
            .field("limits", &self.link.limits())
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Cache for RedisCache {
    async fn get(&self, key: &str) -> Result<Option<CacheEntry>, StoreError> {
        match self.read(key).await? {
            // It may end between the two.
            None | Some((_, Value::Int(-2))) => Ok(None),
            Some((Value::BulkString(value), Value::Int(millis))) => {
                let mut entry = CacheEntry::new(value);
                entry.timeout = (millis >= 0).then(|| SignedDuration::from_millis(millis));
                Ok(Some(entry))
            }
            Some((_, Value::ServerError(error))) => {
                Err(RedisError::from(redis::RedisError::from(error)).into())
            }
            Some(_) => Err(RedisError::unexpected().into()),
        }
    }

    async fn has_key(&self, key: &str) -> Result<bool, StoreError> {
        let commands = pipeline([command("EXISTS", key)]);
        let values = self.link.send(key, &commands).await?.values;
        match values.first() {
            Some(Value::Int(number)) => Ok(*number != 0),
            _ => Err(RedisError::unexpected().into()),
        }
    }

    async fn add(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
    ) -> Result<Written, StoreError> {
        let mut command = command("SET", key);
        command.arg(value).arg("NX").arg("PX").arg(millis(timeout));
        let outcome = self.write(key, command).await?;
        match &outcome.value {
            Value::Okay => outcome.done(value),
            Value::Nil if outcome.repeated && self.holds(key, value).await? => outcome.done(value),
            Value::Nil => Ok(Written::Changed),
            _ => Err(RedisError::unexpected().into()),
        }
    }

    async fn replace(
        &self,
        key: &str,
        value: &[u8],
        timeout: SignedDuration,
        revision: Option<&Revision>,
    ) -> Result<Written, StoreError> {
        let Some(revision) = revision else {
            let mut command = command("SET", key);
            command.arg(value).arg("XX").arg("PX").arg(millis(timeout));
            let outcome = self.write(key, command).await?;
            return match outcome.value {
                Value::Okay => outcome.done(value),
                Value::Nil => Ok(Written::Missing),
                _ => Err(RedisError::unexpected().into()),
            };
        };
        let keys = [key];
        let outcome = self.run(&self.scripts.replace, &keys, |command| {
            command.arg(revision.as_bytes()).arg(value).arg(millis(timeout));
        });
        let outcome = outcome.await?;
        match outcome.value {
            Value::Int(DONE) => outcome.done(value),
            Value::Int(CHANGED) if outcome.repeated && self.holds(key, value).await? => {
                outcome.done(value)
            }
            Value::Int(CHANGED) => Ok(Written::Changed),
            Value::Int(MISSING) => Ok(Written::Missing),
            _ => Err(RedisError::unexpected().into()),
        }
    }

    async fn touch(&self, key: &str, timeout: SignedDuration) -> Result<bool, StoreError> {
        let mut command = command("PEXPIRE", key);
        command.arg(millis(timeout));
        let outcome = self.write(key, command).await?;
        match outcome.value {
            Value::Int(MISSING) => Ok(false),
            Value::Int(_) => outcome.done(&[]).map(|_| true),
            _ => Err(RedisError::unexpected().into()),
        }
    }

    async fn delete(&self, key: &str, revision: Option<&Revision>) -> Result<Written, StoreError> {
        let outcome = match revision {
            None => self.write(key, command("DEL", key)).await?,
            Some(revision) => {
                let keys = [key];
                let outcome = self.run(&self.scripts.delete, &keys, |command| {
                    command.arg(revision.as_bytes());
                });
                outcome.await?
            }
        };
        match outcome.value {
            // By us or by somebody else, which is not the same to whoever asks for a revision.
            Value::Int(MISSING) if outcome.repeated && revision.is_some() => {
                Err(RedisError::unknown().into())
            }
            // It may be a second try, the first of which no replica has confirmed.
            Value::Int(MISSING) => outcome.done(&[]).map(|_| Written::Missing),
            Value::Int(CHANGED) if revision.is_some() => Ok(Written::Changed),
            Value::Int(_) => outcome.done(&[]),
            _ => Err(RedisError::unexpected().into()),
        }
    }

    /// In a cluster the two keys are on two servers as a rule. And where replicas are waited for, two steps
    /// are better: the first may not be confirmed, and the old key is still good then.
    async fn cycle_key(
        &self,
        key: &str,
        new_key: &str,
        value: &[u8],
        timeout: SignedDuration,
        revision: Option<&Revision>,
    ) -> Result<Written, StoreError> {
        if self.source.is_cluster() || self.wait.is_some() {
            return Err(StoreError::Unsupported { operation: "cycle_key" });
        }
        let keys = [key, new_key];
        let outcome = self.run(&self.scripts.cycle_key, &keys, |command| {
            command.arg(value).arg(millis(timeout));
            if let Some(revision) = revision {
                command.arg(revision.as_bytes());
            }
        });
        let outcome = outcome.await?;
        match outcome.value {
            Value::Int(DONE) => outcome.done(value),
            Value::Int(_) if outcome.repeated && self.holds(new_key, value).await? => {
                outcome.done(value)
            }
            Value::Int(MISSING) => Ok(Written::Missing),
            Value::Int(CHANGED) => Ok(Written::Changed),
            Value::Int(TAKEN) => Err(StoreError::Create),
            _ => Err(RedisError::unexpected().into()),
        }
    }
}

/// What came of a write.
struct Outcome {
    value: Value,
    /// Whether enough replicas have it.
    confirmed: bool,
    repeated: bool,
}

impl Outcome {
    fn done(&self, value: &[u8]) -> Result<Written, StoreError> {
        if self.confirmed {
            Ok(Written::Done(Revision::new(value)))
        } else {
            Err(RedisError::not_replicated().into())
        }
    }
}

/// A script. A server that has been started anew, or is another one, does not know it by its hash, and
/// learns it from its text.
struct Script {
    text: &'static str,
    sha1: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        let mut sha1 = String::with_capacity(40);
        for byte in Sha1::digest(text) {
            // Writing to a string does not fail.
            let _ = write!(sha1, "{byte:02x}");
        }
        Self { text, sha1 }
    }

    fn by_hash(&self, keys: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha1).arg(keys.len()).arg(keys);
        command
    }

    fn in_full(&self, keys: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(self.text).arg(keys.len()).arg(keys);
        command
    }
}

/// Commands that are sent together, all for one key.
/// Slots of a cluster that one server has, the last one included.
#[cfg(feature = "cli")]
struct SlotRange<'a> {
    first: u16,
    last: u16,
    /// Its identifier.
    master: &'a [u8],
}

/// What `CLUSTER SLOTS` says.
#[cfg(feature = "cli")]
fn slot_ranges(answer: &Value) -> Option<Vec<SlotRange<'_>>> {
    fn range(range: &Value) -> Option<SlotRange<'_>> {
        let Value::Array(parts) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &parts[..] else {
            return None;
        };
        let [_, _, Value::BulkString(master), ..] = &master[..] else { return None };
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        (first <= last).then_some(SlotRange { first, last, master })
    }
    let Value::Array(ranges) = answer else { return None };
    ranges.iter().map(range).collect()
}

fn pipeline<const N: usize>(commands: [Cmd; N]) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(N + 1);
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline
}

fn command(name: &str, key: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key);
    command
}

fn is_kind(error: &RedisError, kind: ServerErrorKind) -> bool {
    error.as_redis().is_some_and(|error| error.kind() == ErrorKind::Server(kind))
}

/// A timeout as the server takes it. It is positive, and stays so.
fn millis(timeout: SignedDuration) -> i64 {
    let nanos = timeout.as_nanos();
    i64::try_from(nanos.div_euclid(1_000_000) + i128::from(nanos % 1_000_000 != 0))
        .unwrap_or(i64::MAX)
        .max(1)
}
