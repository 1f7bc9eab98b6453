//! `django-session clear-expired`: what `manage.py clearsessions` does, a little at a time.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use super::copy::again;
use super::error::CliError;
use super::output::{Output, Table, duration, grouped};
use super::progress::Progress;
use super::replicas::{ReplicaArguments, Watch};
use super::site::SiteArguments;
use super::work::{Ended, Stop, Walk, WorkArguments};
use crate::session::{DateTime, SessionStore};
use crate::store::bulk::{self, BulkStore, Coding, Filter, StoredSession};

/// Delete sessions that have expired, in small steps along the index of their expiry
///
/// Each step is one short statement, so that no request waits for it, no log grows without bounds, and it
/// can be stopped at any time; run it again to go on. Sessions that somebody saves at that moment are left
/// alone. Also for files, which are deleted one by one, and for whatever has expired in the table of a
/// DatabaseCache.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    site: SiteArguments,
    #[command(flatten)]
    work: WorkArguments,
    #[command(flatten)]
    replicas: ReplicaArguments,
    /// How many sessions one statement deletes at most; with --rate as many as in a fiftieth of a second
    #[arg(long, value_name = "SESSIONS", default_value = "1000")]
    batch: NonZeroU32,
    /// How many milliseconds to rest after each statement
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pause: u64,
    /// Delete those too that are live and hold nothing at all
    #[arg(long)]
    empty: bool,
    /// Count what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Write the summary as one JSON document, for programs
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) async fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let settings = self.site.settings()?;
        let now = settings.datetime(Timestamp::now());
        let begun = Instant::now();
        let url = self.site.url()?;
        let mut deleted = Deleted::default();
        let ended = if bulk::is_listed(&url) {
            let store = self.site.connect(&settings).await?;
            let stop = Stop::listen();
            let replicas = self.replicas.watch(&url).await?;
            let mut ended = self.expired(&store, now, &stop, &replicas, &mut deleted).await?;
            if self.empty && ended == Ended::Complete {
                let live = Filter { expires_from: Some(now), ..Filter::default() };
                let is_empty = |coding: &Coding, session: &StoredSession| {
                    coding.open(session).is_ok_and(|opened| opened.data.is_empty())
                };
                (ended, deleted.empty) = self
                    .walk(&store, "clear-expired --empty", live, &stop, &replicas, is_empty)
                    .await?;
            }
            replicas.close().await;
            store.close().await;
            ended
        } else {
            if self.dry_run || self.empty {
                return Err(CliError::NotThere("--dry-run and --empty"));
            }
            let store = crate::store::connect::connect_to(&url, &settings).await?;
            deleted.expired = store.clear_expired(now).await?;
            store.close().await;
            Ended::Complete
        };
        let seconds = begun.elapsed().as_secs();
        output.report(&self.summary(&deleted, ended, seconds))?;
        match ended {
            Ended::Complete => Ok(()),
            Ended::Stopped => Err(CliError::Stopped("run it again to go on")),
        }
    }

    async fn expired(
        &self,
        store: &Arc<dyn BulkStore>,
        now: DateTime,
        stop: &Stop,
        replicas: &Arc<Watch>,
        deleted: &mut Deleted,
    ) -> Result<Ended, CliError> {
        let expected = store.count_expired(now).await?;
        if expected.is_none() && (self.dry_run || !store.has_expiry_index()) {
            let filter = Filter { expires_before: Some(now), ..Filter::default() };
            let (ended, count) =
                self.walk(store, "clear-expired", filter, stop, replicas, |_, _| true).await?;
            deleted.expired = count;
            if ended == Ended::Complete && !self.dry_run {
                // What a walk does not show, such as temporary files.
                deleted.expired += store.sessions().clear_expired(now).await?;
            }
            return Ok(ended);
        }
        if self.dry_run {
            deleted.expired = expected.unwrap_or_default();
            return Ok(Ended::Complete);
        }
        let progress = Progress::new("clear-expired", expected, self.work.quiet());
        let counter = progress.counter();
        let pace = self.work.pace();
        let most = usize::try_from(self.batch.get()).unwrap_or(usize::MAX);
        let batch = u32::try_from(pace.few(most)).unwrap_or(u32::MAX);
        let mut from = None;
        // Those that others held are looked at once more from the beginning.
        let mut is_again = false;
        loop {
            pace.turn(batch as usize).await;
            replicas.wait(stop).await?;
            if stop.is_set() {
                return Ok(Ended::Stopped);
            }
            let cleared = again(|| store.clear_expired(now, batch, from)).await?;
            deleted.expired += cleared.sessions;
            counter.add(usize::try_from(cleared.sessions).unwrap_or_default(), 0);
            if cleared.sessions < u64::from(batch) {
                if is_again {
                    return Ok(Ended::Complete);
                }
                is_again = true;
                from = None;
            } else {
                from = cleared.reached;
            }
            if self.pause > 0 {
                tokio::time::sleep(Duration::from_millis(self.pause)).await;
            }
        }
    }

    /// Deletes those that are meant, each if it still is what was read; only counts them in a dry run.
    async fn walk(
        &self,
        store: &Arc<dyn BulkStore>,
        name: &'static str,
        filter: Filter,
        stop: &Stop,
        replicas: &Arc<Watch>,
        is_meant: fn(&Coding, &StoredSession) -> bool,
    ) -> Result<(Ended, u64), CliError> {
        let walk =
            Walk { replicas: Arc::clone(replicas), ..Walk::new(store, filter, &self.work, stop) };
        let expected = store.estimate().await?.sessions;
        let progress = Progress::new(name, expected, self.work.quiet());
        let count = Arc::new(AtomicU64::new(0));
        let (store, sum, dry_run) = (Arc::clone(store), Arc::clone(&count), self.dry_run);
        let ended = walk
            .run(&progress, move |sessions: Vec<StoredSession>| {
                let (store, sum) = (Arc::clone(&store), Arc::clone(&sum));
                async move {
                    let coding = store.coding();
                    let meant: Vec<_> =
                        sessions.iter().filter(|session| is_meant(coding, session)).collect();
                    let gone = if dry_run {
                        meant.len() as u64
                    } else {
                        again(|| store.bulk_delete(&meant, true)).await?
                    };
                    sum.fetch_add(gone, Ordering::Relaxed);
                    Ok(())
                }
            })
            .await?;
        Ok((ended, count.load(Ordering::Relaxed)))
    }

    fn summary(&self, deleted: &Deleted, ended: Ended, seconds: u64) -> String {
        if self.json {
            let document = json!({
                "django_session_clear_expired": 1,
                "dry_run": self.dry_run,
                "complete": ended == Ended::Complete,
                "expired": deleted.expired,
                "empty": deleted.empty,
                "seconds": seconds,
            });
            return format!("{document}\n");
        }
        let count = |number: u64| grouped(usize::try_from(number).unwrap_or(usize::MAX));
        let mut table = Table::new();
        let name = if self.dry_run { "would be deleted" } else { "deleted" };
        table.row(name, format!("{} expired", count(deleted.expired)));
        if self.empty {
            table.row("", format!("{} live and empty", count(deleted.empty)));
        }
        table.row("time", duration(i64::try_from(seconds).unwrap_or(i64::MAX)));
        let mut out = String::new();
        table.push_to(&mut out);
        if ended == Ended::Stopped {
            out.push_str("Stopped on the way. Run it again to go on.\n");
        }
        out
    }
}

#[derive(Debug, Default)]
struct Deleted {
    expired: u64,
    empty: u64,
}
