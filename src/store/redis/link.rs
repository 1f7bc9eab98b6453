//! The way to a Redis server: a connection that is kept, and replaced when it is of no more use.
//!
//! One connection carries the operations of all tasks at once. The driver's own `ConnectionManager` does
//! less: it neither looks for another master nor gives up a connection on which nothing comes back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, SingleNodeRoutingInfo, SlotAddr};
use redis::sentinel::SentinelClient;
use redis::{AsyncConnectionConfig, Client, Pipeline, Value};

use super::error::{RedisError, Trouble};
use crate::store::retry::{Failure, Tries};

/// How many connections are made one after the other until there is one that can be used: to a Sentinel,
/// to the server for its role, and to the server; or to one node of a cluster, then to all.
const STEPS: u32 = 3;
/// The least time between two attempts to replace the connections to a cluster.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);

/// What connections are made of.
pub(super) enum Source {
    Cluster {
        client: ClusterClient,
        /// The nodes that are named in the address, to be asked why there is no connection.
        nodes: Vec<Client>,
    },
    Sentinel(tokio::sync::Mutex<SentinelClient>),
    Server(Client),
}

impl Source {
    pub(super) fn sentinel(client: SentinelClient) -> Self {
        Self::Sentinel(tokio::sync::Mutex::new(client))
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster { .. })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Cluster { .. } => "cluster",
            Self::Sentinel(_) => "sentinel",
            Self::Server(_) => "server",
        }
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For a connection, or for a step on the way to it.
    pub(super) connection: Duration,
    /// For an answer.
    pub(super) answer: Duration,
}

/// The answers to some commands.
pub(super) struct Answers {
    /// One for each; the first is no error.
    pub(super) values: Vec<Value>,
    /// Whether the commands may have been carried out once before.
    pub(super) repeated: bool,
}

/// A connection, the same for everybody.
pub(super) struct Link {
    source: Arc<Source>,
    limits: Limits,
    state: Mutex<State>,
    /// Held by whoever is making a connection.
    turn: tokio::sync::Mutex<()>,
}

struct State {
    connection: Option<Connection>,
    /// How many there have been.
    generation: u64,
    /// How many attempts to make one have failed, and why the last one did.
    failures: u64,
    failure: Option<RedisError>,
    renewed: Option<Instant>,
}

#[derive(Clone)]
enum Connection {
    Cluster(ClusterConnection),
    Server(MultiplexedConnection),
}

struct Kept {
    connection: Connection,
    generation: u64,
    /// Whether it was there before it was asked for.
    from_before: bool,
}

impl Link {
    pub(super) fn new(source: Arc<Source>, limits: Limits) -> Arc<Self> {
        let state =
            State { connection: None, generation: 0, failures: 0, failure: None, renewed: None };
        Arc::new(Self { source, limits, state: state.into(), turn: ().into() })
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Sends commands for a key in one go, again if the connection that was kept is broken or leads to
    /// a server that is no master any more.
    ///
    /// An error as the first answer is an error, those that follow are among the answers.
    pub(super) async fn send(
        self: &Arc<Self>,
        key: &str,
        commands: &Pipeline,
    ) -> Result<Answers, RedisError> {
        let mut tries = Tries::default();
        let mut repeated = false;
        loop {
            let kept = self.connection().await?;
            let error = match self.exchange(&kept.connection, key, commands).await {
                Ok(values) => return Ok(Answers { values, repeated }),
                Err(error) => error,
            };
            let trouble = error.trouble();
            let failure = self.judge(&kept, trouble);
            if !tries.again(failure).await {
                return Err(error);
            }
            repeated |= trouble == Trouble::Broken;
        }
    }

    /// Does what a failure asks for, and says what it means for another try.
    fn judge(self: &Arc<Self>, kept: &Kept, trouble: Trouble) -> Failure {
        if self.source.is_cluster() {
            // The driver has tried again. It finds the new master of a node that is down, but not that
            // of one which does not answer; all others are to be reached meanwhile.
            if matches!(trouble, Trouble::Broken | Trouble::Silent) {
                self.renew(kept.generation);
            }
            return Failure::Final;
        }
        if trouble != Trouble::None {
            let mut state = self.state();
            if state.generation == kept.generation {
                state.connection = None;
            }
        }
        match trouble {
            Trouble::Broken | Trouble::NotTheMaster if kept.from_before => Failure::Broken,
            _ => Failure::Final,
        }
    }

    async fn exchange(
        &self,
        connection: &Connection,
        key: &str,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, RedisError> {
        let sent = async {
            match connection.clone() {
                Connection::Cluster(mut connection) => {
                    let route = Route::with_key(key, SlotAddr::Master);
                    let route = SingleNodeRoutingInfo::SpecificNode(route);
                    connection.route_pipeline(commands.clone(), 0, commands.len(), route).await
                }
                Connection::Server(mut connection) => {
                    connection.send_packed_commands(commands, 0, commands.len()).await
                }
            }
        };
        let Ok(values) = tokio::time::timeout(self.limits.answer, sent).await else {
            return Err(RedisError::timed_out());
        };
        let error = match values {
            Ok(values) => match values.first() {
                Some(Value::ServerError(error)) => redis::RedisError::from(error.clone()),
                _ => return Ok(values),
            },
            Err(error) => error,
        };
        Err(match connection {
            Connection::Cluster(_) => RedisError::of_cluster(error),
            Connection::Server(_) => error.into(),
        })
    }

    /// The connection that is kept, or a new one.
    async fn connection(&self) -> Result<Kept, RedisError> {
        let failures = {
            let state = self.state();
            if let Some(kept) = state.kept() {
                return Ok(kept);
            }
            state.failures
        };
        let _turn = self.turn.lock().await;
        {
            let state = self.state();
            if let Some(kept) = state.kept() {
                return Ok(kept);
            }
            // Those who have waited for an attempt in vain do not all wait for one of their own.
            if let Some(failure) = state.failure.as_ref().filter(|_| state.failures != failures) {
                return Err(failure.clone());
            }
        }
        let connected = self.connect().await;
        let mut state = self.state();
        match connected {
            Ok(connection) => {
                state.keep(connection.clone());
                Ok(Kept { connection, generation: state.generation, from_before: false })
            }
            Err(error) => {
                state.failures += 1;
                state.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Makes another connection, behind the back of those who use the one of this generation.
    fn renew(self: &Arc<Self>, generation: u64) {
        {
            let mut state = self.state();
            let pause = state.renewed.is_some_and(|renewed| renewed.elapsed() < RENEWAL_PAUSE);
            if pause || state.generation != generation {
                return;
            }
            state.renewed = Some(Instant::now());
        }
        let link = Arc::clone(self);
        tokio::spawn(async move {
            if let Ok(connection) = link.connect().await {
                link.state().keep(connection);
            }
        });
    }

    async fn connect(&self) -> Result<Connection, RedisError> {
        let Limits { connection: step, answer } = self.limits;
        // Answers are waited for here. The connections of a cluster have commands of their own, too.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(step))
            .set_response_timeout(None);
        let connected = async {
            match &*self.source {
                Source::Cluster { client, nodes } => {
                    let cluster = ClusterConfig::new()
                        .set_connection_timeout(step)
                        .set_response_timeout(answer);
                    let connected = client.get_async_connection_with_config(cluster).await;
                    match connected {
                        Ok(connection) => Ok(Connection::Cluster(connection)),
                        Err(error) => Err(reason(nodes, &config).await.unwrap_or(error)),
                    }
                }
                Source::Sentinel(client) => {
                    let client = client.lock().await.async_get_client().await?;
                    let connection = client.get_multiplexed_async_connection_with_config(&config);
                    Ok(Connection::Server(connection.await?))
                }
                Source::Server(client) => {
                    let connection = client.get_multiplexed_async_connection_with_config(&config);
                    Ok(Connection::Server(connection.await?))
                }
            }
        };
        match tokio::time::timeout(step * STEPS, connected).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(RedisError::timed_out()),
        }
    }

    /// No code that holds the lock can panic half way through a change.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn kept(&self) -> Option<Kept> {
        let connection = self.connection.clone()?;
        Some(Kept { connection, generation: self.generation, from_before: true })
    }

    fn keep(&mut self, connection: Connection) {
        self.connection = Some(connection);
        self.generation += 1;
    }
}

/// Why a cluster cannot be connected to, of which the driver's error has only the text: what any node
/// says that can be reached.
async fn reason(nodes: &[Client], config: &AsyncConnectionConfig) -> Option<redis::RedisError> {
    for node in nodes {
        match node.get_multiplexed_async_connection_with_config(config).await {
            Err(error) if error.is_timeout() || !error.is_io_error() => return Some(error),
            _ => {}
        }
    }
    None
}
