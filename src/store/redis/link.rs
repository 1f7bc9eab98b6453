//! The way to a Redis server: a connection that is kept, and replaced when it is of no more use.
//!
//! One connection carries the operations of all tasks at once; beside it there is a [`Lane`] for one at a
//! time. The driver's own `ConnectionManager` does less: it neither looks for another master nor gives up
//! a connection on which nothing comes back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, SingleNodeRoutingInfo, SlotAddr};
use redis::sentinel::SentinelClient;
use redis::{AsyncConnectionConfig, Client, Pipeline, Value};

use super::error::{RedisError, Trouble};
use super::lane::Lane;
use crate::store::retry::{Failure, Tries};

/// How many connections are made one after the other until there is one that can be used: to a Sentinel,
/// to the server for its role, and to the server; or to one node of a cluster, then to all.
const STEPS: u32 = 3;
/// The least time between two attempts to replace the connections to a cluster.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);

/// Whom commands are for, where there are several servers.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    /// Who has this key.
    Key(&'a str),
    /// Who has this slot.
    #[cfg(feature = "cli")]
    Slot(u16),
}

impl<'a> From<&'a str> for To<'a> {
    fn from(key: &'a str) -> Self {
        Self::Key(key)
    }
}

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
    /// Of the same generation.
    lane: LaneState,
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

/// Where the lane is.
enum LaneState {
    Free(Box<Lane>),
    /// Who had it was dropped in the middle of an operation; this is where it led to.
    Lost(Box<Client>),
    /// There is none, or somebody uses or makes it.
    None,
}

/// The way that one operation takes.
enum Way {
    Lane(Borrowed),
    Shared(Connection),
}

/// The lane while an operation has it.
struct Borrowed {
    /// None once it is given back.
    lane: Option<Box<Lane>>,
    generation: u64,
    link: Arc<Link>,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let mut state = self.link.state();
        if let Some(lane) = self.lane.take()
            && state.generation == self.generation
        {
            state.lane = LaneState::Lost(lane.into_client());
        }
    }
}

/// What [`Link::connect`] makes.
struct Connected {
    connection: Connection,
    lane: Option<Box<Lane>>,
}

struct Kept {
    way: Way,
    generation: u64,
    /// Whether it was there before it was asked for.
    from_before: bool,
}

impl Link {
    pub(super) fn new(source: Arc<Source>, limits: Limits) -> Arc<Self> {
        let state = State {
            connection: None,
            lane: LaneState::None,
            generation: 0,
            failures: 0,
            failure: None,
            renewed: None,
        };
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
        to: impl Into<To<'_>>,
        commands: &Pipeline,
    ) -> Result<Answers, RedisError> {
        let to = to.into();
        let mut tries = Tries::default();
        let mut repeated = false;
        loop {
            let mut kept = self.connection().await?;
            let outcome = self.exchange(&mut kept.way, to, commands).await;
            let trouble = outcome.as_ref().err().map_or(Trouble::None, RedisError::trouble);
            if let (Way::Lane(borrowed), Trouble::None) = (&mut kept.way, trouble) {
                self.state().give_back(borrowed);
            }
            let error = match outcome {
                Ok(values) => return Ok(Answers { values, repeated }),
                Err(error) => error,
            };
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
                state.lane = LaneState::None;
            }
        }
        match trouble {
            Trouble::Broken | Trouble::NotTheMaster if kept.from_before => Failure::Broken,
            _ => Failure::Final,
        }
    }

    async fn exchange(
        &self,
        way: &mut Way,
        to: To<'_>,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, RedisError> {
        let sent = async {
            match way {
                Way::Lane(Borrowed { lane: Some(lane), .. }) => lane.send(commands).await,
                // Not reached: it is given back afterwards.
                Way::Lane(_) => Err((redis::ErrorKind::Client, "the lane is given back").into()),
                Way::Shared(Connection::Cluster(connection)) => {
                    let route = match to {
                        To::Key(key) => Route::with_key(key, SlotAddr::Master),
                        #[cfg(feature = "cli")]
                        To::Slot(slot) => Route::new(slot, SlotAddr::Master),
                    };
                    let route = SingleNodeRoutingInfo::SpecificNode(route);
                    connection.route_pipeline(commands.clone(), 0, commands.len(), route).await
                }
                Way::Shared(Connection::Server(connection)) => {
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
        Err(match way {
            Way::Shared(Connection::Cluster(_)) => RedisError::of_cluster(error),
            Way::Lane(_) | Way::Shared(Connection::Server(_)) => error.into(),
        })
    }

    /// The connection that is kept, or a new one.
    async fn connection(self: &Arc<Self>) -> Result<Kept, RedisError> {
        let failures = {
            if let Some(kept) = self.kept() {
                return Ok(kept);
            }
            self.state().failures
        };
        let _turn = self.turn.lock().await;
        {
            if let Some(kept) = self.kept() {
                return Ok(kept);
            }
            let state = self.state();
            // Those who have waited for an attempt in vain do not all wait for one of their own.
            if let Some(failure) = state.failure.as_ref().filter(|_| state.failures != failures) {
                return Err(failure.clone());
            }
        }
        let connected = self.connect().await;
        let mut state = self.state();
        match connected {
            Ok(connected) => {
                let way = Way::Shared(connected.connection.clone());
                state.keep(connected);
                Ok(Kept { way, generation: state.generation, from_before: false })
            }
            Err(error) => {
                state.failures += 1;
                state.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// The lane if it is free, otherwise the connection that is shared.
    fn kept(self: &Arc<Self>) -> Option<Kept> {
        let mut state = self.state();
        let connection = state.connection.as_ref()?.clone();
        let generation = state.generation;
        let way = match std::mem::replace(&mut state.lane, LaneState::None) {
            LaneState::Free(lane) => {
                Way::Lane(Borrowed { lane: Some(lane), generation, link: Arc::clone(self) })
            }
            LaneState::Lost(client) => {
                self.make_lane(client, generation);
                Way::Shared(connection)
            }
            LaneState::None => Way::Shared(connection),
        };
        Some(Kept { way, generation, from_before: true })
    }

    /// Makes another lane, for later.
    fn make_lane(self: &Arc<Self>, client: Box<Client>, generation: u64) {
        let link = Arc::clone(self);
        tokio::spawn(async move {
            let lane = link.connect_lane(&client).await;
            let mut state = link.state();
            if let Some(lane) = lane
                && state.generation == generation
            {
                state.lane = LaneState::Free(lane);
            }
        });
    }

    /// A lane, unless there is something in the way: it is not needed.
    async fn connect_lane(&self, client: &Client) -> Option<Box<Lane>> {
        let connected = tokio::time::timeout(self.limits.connection, Lane::connect(client)).await;
        connected.ok()?.ok()?.map(Box::new)
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
            if let Ok(connected) = link.connect().await {
                link.state().keep(connected);
            }
        });
    }

    async fn connect(&self) -> Result<Connected, RedisError> {
        let Limits { connection: step, answer } = self.limits;
        // Answers are waited for here. The connections of a cluster have commands of their own, too.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(step))
            .set_response_timeout(None);
        let connected = async {
            let client = match &*self.source {
                Source::Cluster { client, nodes } => {
                    let cluster = ClusterConfig::new()
                        .set_connection_timeout(step)
                        .set_response_timeout(answer);
                    let connected = client.get_async_connection_with_config(cluster).await;
                    return match connected {
                        Ok(connection) => {
                            let connection = Connection::Cluster(connection);
                            Ok(Connected { connection, lane: None })
                        }
                        Err(error) => Err(reason(nodes, &config).await.unwrap_or(error)),
                    };
                }
                Source::Sentinel(client) => &client.lock().await.async_get_client().await?,
                Source::Server(client) => client,
            };
            let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            let connection = Connection::Server(connection);
            let lane = self.connect_lane(client).await;
            Ok(Connected { connection, lane })
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
    /// Takes a lane back on which all is well, unless there are other connections by now.
    fn give_back(&mut self, borrowed: &mut Borrowed) {
        if let Some(lane) = borrowed.lane.take()
            && self.generation == borrowed.generation
            && self.connection.is_some()
        {
            self.lane = LaneState::Free(lane);
        }
    }

    fn keep(&mut self, connected: Connected) {
        self.connection = Some(connected.connection);
        self.lane = connected.lane.map_or(LaneState::None, LaneState::Free);
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
