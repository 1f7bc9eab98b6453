//! Work that waits for replicas which fall behind.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::error::CliError;
use super::site::address;
use super::work::Stop;
use crate::store::bulk::Replicas;
use crate::store::{ConnectError, StoreUrl};

/// How long to wait for a replica that is behind before it is asked again.
const CATCH_UP: Duration = Duration::from_millis(500);
/// For how long it counts that none is behind.
const HOLDS: Duration = Duration::from_millis(100);
/// How long a replica may be away before the work ends.
const AWAY: Duration = Duration::from_mins(1);
/// The environment variable with addresses of replicas.
const URLS: &str = "REPLICA_SESSION_STORE_URLS";

/// Which replicas are waited for.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Replicas")]
pub(super) struct ReplicaArguments {
    /// Rest as long as a replica is further behind than so many seconds
    ///
    /// Of PostgreSQL the primary says how far those are that are connected; the user needs the role pg_monitor
    /// to see it. Those of MySQL and MariaDB are asked themselves: name them by --replica.
    #[arg(long, value_name = "SECONDS", value_parser = parse_lag)]
    max_lag: Option<Duration>,
    /// The address of a replica to wait for, without a password; may be given more than once
    ///
    /// Only those are waited for, also while they are away, a minute at most. Those with a password go into the
    /// environment variable REPLICA_SESSION_STORE_URLS, with spaces between them, or into a file. The user needs
    /// the right REPLICATION CLIENT (MySQL) or SLAVE MONITOR (MariaDB).
    #[arg(long, value_name = "URL", requires = "max_lag")]
    replica: Vec<String>,
    /// A file that holds the addresses of the replicas to wait for, a line each
    #[arg(long, value_name = "FILE", requires = "max_lag", conflicts_with = "replica")]
    replica_file: Option<PathBuf>,
}

fn parse_lag(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok().filter(|&seconds: &f64| seconds > 0.0);
    seconds.and_then(|it| Duration::try_from_secs_f64(it).ok()).ok_or("seconds, such as 2 or 0.5")
}

impl ReplicaArguments {
    /// Begins to watch the replicas of a store, if they are to be waited for.
    pub(super) async fn watch(&self, store: &StoreUrl) -> Result<Arc<Watch>, CliError> {
        let Some(most) = self.max_lag else { return Ok(Arc::default()) };
        let replicas = Some(Replicas::connect(store, &self.urls()?).await?);
        Ok(Arc::new(Watch { most, replicas, near: Mutex::default() }))
    }

    fn urls(&self) -> Result<Vec<StoreUrl>, CliError> {
        if !self.replica.is_empty() {
            let parse = |text: &String| address(Some(text), None, "replica", URLS);
            return self.replica.iter().map(parse).collect();
        }
        let text = match &self.replica_file {
            Some(path) => fs::read_to_string(path).map_err(|source| CliError::Input {
                what: "the file with the addresses of the replicas",
                source,
            })?,
            None => env::var(URLS).unwrap_or_default(),
        };
        let parse = |text: &str| Ok(text.parse().map_err(ConnectError::from)?);
        text.split_whitespace().map(parse).collect()
    }
}

/// Replicas that are waited for, if any are.
#[derive(Debug, Default)]
pub(super) struct Watch {
    most: Duration,
    replicas: Option<Replicas>,
    /// When none was behind.
    near: Mutex<Option<Instant>>,
}

impl Watch {
    /// Waits until no replica is too far behind, or somebody wants it to stop.
    pub(super) async fn wait(&self, stop: &Stop) -> Result<(), CliError> {
        let Some(replicas) = &self.replicas else { return Ok(()) };
        let mut near = self.near.lock().await;
        let mut away: Option<Instant> = None;
        while !near.is_some_and(|at| at.elapsed() < HOLDS) && !stop.is_set() {
            match replicas.lag().await {
                Ok(Some(lag)) if lag <= self.most => {
                    *near = Some(Instant::now());
                    break;
                }
                Ok(_) => away = None,
                Err(error) if error.is_retryable() => {
                    if away.get_or_insert_with(Instant::now).elapsed() >= AWAY {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(CATCH_UP).await;
        }
        Ok(())
    }

    /// Ends the connections.
    pub(super) async fn close(&self) {
        if let Some(replicas) = &self.replicas {
            replicas.close().await;
        }
    }
}
