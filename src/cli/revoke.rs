//! `django-session revoke`: sessions end, wherever they are kept.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::json;

use super::copy::again;
use super::error::CliError;
use super::output::{Output, grouped};
use super::progress::Progress;
use super::rejects::{Reasons, Rejects};
use super::replicas::ReplicaArguments;
use super::select::SelectArguments;
use super::site::SiteArguments;
use super::work::{Ended, Stop, Walk, WorkArguments};
use crate::store::bulk::{Filter, StoredSession};

/// How often all sessions are looked at, at most, until one time none is found.
const PASSES: u32 = 5;

/// Delete sessions: one, all of a user, all but one, all signed under an old key, all older than a time
///
/// Whose a session is stands in the session itself, so all of them are read, in parallel, until none is found
/// any more: a session may change its key while they are read. A copy that the cache of a cached_db has goes
/// too. Nothing is deleted without --yes.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are options")]
pub(super) struct Arguments {
    #[command(flatten)]
    site: SiteArguments,
    #[command(flatten)]
    select: SelectArguments,
    #[command(flatten)]
    work: WorkArguments,
    #[command(flatten)]
    replicas: ReplicaArguments,
    /// Every session that there is, so that everybody is logged out
    #[arg(long)]
    all: bool,
    /// Count what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Delete
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Write the summary as one JSON document, for programs
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) async fn run(&self, output: &mut Output) -> Result<(), CliError> {
        if self.select.is_all() != self.all {
            return Err(CliError::NothingSelected);
        }
        if !self.yes && !self.dry_run {
            return Err(CliError::NotConfirmed { what: "sessions would end".to_owned() });
        }
        let settings = self.site.settings()?;
        let store = self.site.connect(&settings).await?;
        self.select.check(store.coding())?;
        let now = Timestamp::now();
        let filter = Filter { expires_from: Some(settings.datetime(now)), ..Filter::default() };
        let replicas = self.replicas.watch(&self.site.url()?).await?;
        let walk = Walk {
            replicas: Arc::clone(&replicas),
            ..Walk::new(&store, filter, &self.work, &Stop::listen())
        };
        let expected = store.estimate().await?.sessions;
        let select = Arc::new(self.select.clone());
        let coding = Arc::new(store.coding().clone());
        let rejects = Arc::new(Rejects::new(None, None)?);
        let mut total = 0;
        let mut passes = 0;
        let (ended, left) = loop {
            passes += 1;
            rejects.begin()?;
            let progress = Progress::new("revoke", expected, self.work.quiet());
            let count = Arc::new(AtomicU64::new(0));
            let (store, sum, dry_run) = (Arc::clone(&store), Arc::clone(&count), self.dry_run);
            let (select, coding) = (Arc::clone(&select), Arc::clone(&coding));
            let unreadable = Arc::clone(&rejects);
            // Whoever saves a session makes it young again, and signs it anew; its user stays the same.
            let unchanged = self.select.older_than.is_some() || self.select.fallback.is_some();
            let work = move |sessions: Vec<StoredSession>| {
                let (store, sum) = (Arc::clone(&store), Arc::clone(&sum));
                let (select, coding) = (Arc::clone(&select), Arc::clone(&coding));
                let unreadable = Arc::clone(&unreadable);
                async move {
                    let mut meant = Vec::new();
                    for session in &sessions {
                        let found = coding.open(session);
                        match (select.takes(session, &found, now), found) {
                            (Some(true), _) => meant.push(session),
                            (None, Err(error)) => unreadable.add(session, &error)?,
                            _ => {}
                        }
                    }
                    let gone = if dry_run || meant.is_empty() {
                        meant.len() as u64
                    } else {
                        again(|| store.bulk_delete(&meant, unchanged)).await?
                    };
                    sum.fetch_add(gone, Ordering::Relaxed);
                    Ok(())
                }
            };
            let ended = walk.run(&progress, work).await?;
            let found = count.load(Ordering::Relaxed);
            total += found;
            if ended == Ended::Stopped || self.dry_run || found == 0 || passes == PASSES {
                break (ended, if self.dry_run { 0 } else { found });
            }
        };
        store.close().await;
        replicas.close().await;
        let summary = Summary {
            dry_run: self.dry_run,
            complete: ended == Ended::Complete,
            passes,
            revoked: total,
            left,
            unreadable: rejects.reasons(),
        };
        output.report(&if self.json { summary.to_json() } else { summary.to_text() })?;
        summary.result()
    }
}

struct Summary {
    dry_run: bool,
    complete: bool,
    passes: u32,
    revoked: u64,
    /// What the last pass still found.
    left: u64,
    unreadable: Reasons,
}

impl Summary {
    fn to_json(&self) -> String {
        let document = json!({
            "django_session_revoke": 1,
            "dry_run": self.dry_run,
            "complete": self.complete,
            "passes": self.passes,
            "revoked": self.revoked,
            "found_in_last_pass": self.left,
            "unreadable": self.unreadable,
        });
        format!("{document}\n")
    }

    fn to_text(&self) -> String {
        let count = |number: u64| grouped(usize::try_from(number).unwrap_or(usize::MAX));
        let would = if self.dry_run { "would end" } else { "have ended" };
        let end = if self.complete { "" } else { " so far; run it again to go on" };
        let mut text = format!("{} sessions {would}{end}\n", count(self.revoked));
        for (reason, number) in &self.unreadable {
            let _ = writeln!(text, "{} sessions cannot be read: {reason}", count(*number));
        }
        text
    }

    fn result(&self) -> Result<(), CliError> {
        if !self.complete {
            return Err(CliError::Stopped("run it again to go on"));
        }
        let unreadable: u64 = self.unreadable.values().sum();
        if unreadable > 0 {
            return Err(CliError::Partial(format!(
                "{unreadable} sessions cannot be read, so that nobody knows whether they are meant; they go on"
            )));
        }
        if self.left > 0 {
            return Err(CliError::Partial(
                "the last pass still found sessions that were meant: run it again".to_owned(),
            ));
        }
        Ok(())
    }
}
