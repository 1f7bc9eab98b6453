//! `django-session migrate`: all sessions of one store into another.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::json;

use super::checkpoint::Checkpoint;
use super::copy::{Choice, Copied, Copier, Policy, TOLERANCE, again, is_same, is_same_end};
use super::error::CliError;
use super::handle::handle;
use super::keys::KeyArguments;
use super::objects::{Dropped, Objects};
use super::output::{Output, Table, grouped};
use super::progress::Progress;
use super::rejects::Rejects;
use super::replicas::ReplicaArguments;
use super::site::address;
use super::work::{Ended, Stop, Walk, WorkArguments};
use crate::session::SessionSettings;
use crate::store::bulk::{self, BulkStore, Coding, Filter, KeyRange, StoredSession};

/// Copy the sessions of a store into another one
///
/// Between any two of PostgreSQL, MySQL, MariaDB, SQLite, Redis, files and the table of a DatabaseCache, into
/// memcached, also from and to the tables of django-user-sessions and django-qsessions
/// (?table=user_sessions_session, ?table=qsessions_session).
/// Sessions keep their keys, so that nobody is logged out, and are written as the settings say.
///
/// The source stays as it is. It may be in use: what is deleted there meanwhile is not brought back. With
/// --checkpoint the command can be stopped or killed at any time, and goes on where it was.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    stores: StoreArguments,
    #[command(flatten)]
    keys: KeyArguments,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    work: WorkArguments,
    #[command(flatten)]
    replicas: ReplicaArguments,
    #[command(flatten)]
    objects: Objects,
    #[command(flatten)]
    how: HowArguments,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Stores")]
struct StoreArguments {
    /// The address of the store to read, without a password
    ///
    /// One with a password goes into the environment variable FROM_SESSION_STORE_URL or into a file.
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// A file that holds the address of the store to read
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    from_file: Option<PathBuf>,
    /// The address of the store to write, without a password
    ///
    /// One with a password goes into the environment variable TO_SESSION_STORE_URL or into a file.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// A file that holds the address of the store to write
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    to_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "How")]
#[expect(clippy::struct_excessive_bools, reason = "they are options")]
struct HowArguments {
    /// What happens to a session that the target has already
    #[arg(long, value_enum, default_value_t)]
    on_conflict: Policy,
    /// Copy those too that have expired
    #[arg(long)]
    include_expired: bool,
    /// Read and convert everything, look what the target has, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Read both stores afterwards and compare every session
    #[arg(long, conflicts_with = "dry_run")]
    verify: bool,
    /// Note in this file how far it is, and go on from there if it exists
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    checkpoint: Option<PathBuf>,
    /// Write what could not be copied into this file, a line of JSON each
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Copy this part of N only, such as 1/4: each of N commands copies another one
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    shard: Option<Shard>,
    /// Write the summary as one JSON document, for programs
    #[arg(long)]
    json: bool,
}

/// One of several equal parts of the keys, from one on.
#[derive(Clone, Copy, Debug)]
struct Shard {
    index: u32,
    count: u32,
}

fn parse_shard(text: &str) -> Result<Shard, &'static str> {
    const EXPECTED: &str =
        "such as 1/4: a number from 1 to N, and how many there are, 1296 at most";
    let (index, count) = text.split_once('/').ok_or(EXPECTED)?;
    let (index, count) =
        (index.parse().map_err(|_| EXPECTED)?, count.parse().map_err(|_| EXPECTED)?);
    if (1..=1296).contains(&count) && (1..=count).contains(&index) {
        Ok(Shard { index, count })
    } else {
        Err(EXPECTED)
    }
}

impl Arguments {
    pub(super) async fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let settings = self.keys.settings()?;
        let from = address(
            self.stores.from.as_deref(),
            self.stores.from_file.as_ref(),
            "from",
            "FROM_SESSION_STORE_URL",
        )?;
        let to = address(
            self.stores.to.as_deref(),
            self.stores.to_file.as_ref(),
            "to",
            "TO_SESSION_STORE_URL",
        )?;
        if from == to {
            return Err(CliError::SameStore);
        }
        let source: Arc<dyn BulkStore> = bulk::connect(&from, &settings).await?.into();
        let target: Arc<dyn BulkStore> = bulk::connect(&to, &settings).await?.into();
        let now = settings.datetime(Timestamp::now());
        let filter = Filter {
            expires_from: (!self.how.include_expired).then_some(now),
            keys: self.how.shard.map(|shard| KeyRange::share(shard.index, shard.count)),
            ..Filter::default()
        };
        let checkpoint = match &self.how.checkpoint {
            None => None,
            Some(path) => Some(Arc::new(Checkpoint::open(path, self.subject(&from, &to))?)),
        };
        let rejected = checkpoint.as_ref().and_then(|it| it.rejected());
        let estimate = source.estimate().await?;
        let replicas = self.replicas.watch(&to).await?;
        let walk = Walk {
            checkpoint: checkpoint.clone(),
            replicas: Arc::clone(&replicas),
            ..Walk::new(&source, filter, &self.work, &Stop::listen())
        };
        let copier = Arc::new(Copier {
            source: Some(Arc::clone(&source)),
            target: Arc::clone(&target),
            settings: settings.clone(),
            choice: self.choice.clone(),
            policy: self.how.on_conflict,
            objects: self.objects.clone(),
            dropped: Dropped::default(),
            dry_run: self.how.dry_run,
            copied: Copied::default(),
            rejects: Arc::new(Rejects::new(self.how.rejects.as_deref(), rejected)?),
        });
        let coding = Arc::new(source.coding().clone());
        let progress = Progress::new("migrate", estimate.sessions, self.work.quiet());
        let (working, reading) = (Arc::clone(&copier), Arc::clone(&coding));
        let work = move |sessions| {
            let (copier, coding) = (Arc::clone(&working), Arc::clone(&reading));
            async move { copier.copy(sessions, &coding).await }
        };
        let mut ended = walk.run(&progress, work).await?;
        drop(progress);
        let mut verified = None;
        if self.how.verify && ended == Ended::Complete {
            verified = self.verify(&walk, &copier, &settings, estimate.sessions).await?;
            if verified.is_none() {
                ended = Ended::Stopped;
            }
        }
        if ended == Ended::Complete
            && let Some(checkpoint) = &checkpoint
        {
            checkpoint.finish()?;
        }
        let summary = Summary {
            copier: &copier,
            ended,
            verified,
            resumed: checkpoint.is_some_and(|it| it.is_resumed()),
            from: source.name(),
            to: target.name(),
        };
        output.report(&if self.how.json { summary.to_json() } else { summary.to_text() })?;
        source.close().await;
        target.close().await;
        replicas.close().await;
        summary.result()
    }

    /// What a checkpoint is of: the stores, told by a hash, and what is chosen of them.
    fn subject(&self, from: &crate::store::StoreUrl, to: &crate::store::StoreUrl) -> String {
        let shard = self.how.shard.map(|it| format!(" {}/{}", it.index, it.count));
        let choice = format!("{:?} {:?} {:?}", self.choice, self.objects, self.how.on_conflict);
        format!(
            "migrate {} {} {}{}{}",
            handle(&from.in_full()),
            handle(&to.in_full()),
            handle(&choice),
            shard.unwrap_or_default(),
            if self.how.include_expired { " include-expired" } else { "" },
        )
    }

    /// Compares what is in both stores; none if it was stopped.
    async fn verify(
        &self,
        walk: &Walk,
        copier: &Arc<Copier>,
        settings: &SessionSettings,
        expected: Option<u64>,
    ) -> Result<Option<Verified>, CliError> {
        let walk = Walk::new(&walk.store, walk.filter, &walk.arguments, &walk.stop);
        let progress = Progress::new("verify", expected, self.work.quiet());
        let counts = Arc::new(Compared::default());
        let (copier, sum) = (Arc::clone(copier), Arc::clone(&counts));
        let (source, settings) =
            (Arc::new(walk.store.coding().clone()), Arc::new(settings.clone()));
        let work = move |sessions: Vec<StoredSession>| {
            let (copier, sum) = (Arc::clone(&copier), Arc::clone(&sum));
            let (source, settings) = (Arc::clone(&source), Arc::clone(&settings));
            async move { compare(&copier, &sum, &source, &settings, sessions).await }
        };
        let ended = walk.run(&progress, work).await?;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok((ended == Ended::Complete).then(|| Verified {
            equal: get(&counts.equal),
            different: get(&counts.different),
            missing: get(&counts.missing),
        }))
    }
}

#[derive(Debug, Default)]
struct Compared {
    equal: AtomicU64,
    different: AtomicU64,
    missing: AtomicU64,
}

/// How the two stores compare.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verified {
    equal: u64,
    different: u64,
    missing: u64,
}

async fn compare(
    copier: &Copier,
    sum: &Compared,
    source: &Coding,
    settings: &SessionSettings,
    sessions: Vec<StoredSession>,
) -> Result<(), CliError> {
    let keys: Vec<&str> = sessions.iter().map(|it| it.session_key.as_str()).collect();
    let found = again(|| copier.target.bulk_get(&keys)).await?;
    let now = Timestamp::now();
    for (session, found) in sessions.iter().zip(found) {
        // What cannot be read has been reported.
        let Ok(mut opened) = source.open(session) else { continue };
        if !copier.choice.takes(&opened.data) || copier.settle(&mut opened.data).is_err() {
            continue;
        }
        let counter = match &found {
            None if session.end(settings).is_some_and(|end| end <= now + TOLERANCE) => &sum.equal,
            None => &sum.missing,
            Some(found) => {
                let ends_same = is_same_end(session.end(settings), found.end(settings));
                let theirs = copier.target.coding().open(found);
                if ends_same && theirs.is_ok_and(|it| is_same(&opened.data, &it.data)) {
                    &sum.equal
                } else {
                    &sum.different
                }
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// What was copied, for whoever asked for it.
pub(super) struct Summary<'a> {
    pub(super) copier: &'a Copier,
    pub(super) ended: Ended,
    pub(super) verified: Option<Verified>,
    pub(super) resumed: bool,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
}

impl Summary<'_> {
    pub(super) fn to_json(&self) -> String {
        let copied = &self.copier.copied;
        let document = json!({
            "django_session_migration": 1,
            "from": self.from,
            "to": self.to,
            "dry_run": self.copier.dry_run,
            "complete": self.ended == Ended::Complete,
            "resumed": self.resumed,
            "read": Copied::get(&copied.read),
            "passed_over": Copied::get(&copied.passed_over),
            "created": Copied::get(&copied.created),
            "same": Copied::get(&copied.same),
            "kept": Copied::get(&copied.kept),
            "replaced": Copied::get(&copied.replaced),
            "merged": Copied::get(&copied.merged),
            "deleted_meanwhile": Copied::get(&copied.deleted),
            "entries_dropped": self.copier.dropped.entries(),
            "rejected": self.copier.rejects.reasons(),
            "verified": self.verified.map(|it| json!({
                "equal": it.equal, "different": it.different, "missing": it.missing,
            })),
        });
        format!("{document}\n")
    }

    pub(super) fn to_text(&self) -> String {
        let copied = &self.copier.copied;
        let count = |number: u64| grouped(usize::try_from(number).unwrap_or(usize::MAX));
        let mut table = Table::new();
        table.row("from", self.from);
        table.row("to", self.to);
        for (name, counter) in [
            ("read", &copied.read),
            ("not chosen", &copied.passed_over),
            (if self.copier.dry_run { "would be created" } else { "created" }, &copied.created),
            ("there already, the same", &copied.same),
            ("there already, kept", &copied.kept),
            ("replaced", &copied.replaced),
            ("merged", &copied.merged),
            ("deleted meanwhile", &copied.deleted),
        ] {
            let number = Copied::get(counter);
            if number > 0 || matches!(name, "read" | "created" | "would be created") {
                table.row(name, count(number));
            }
        }
        for (kind, number) in self.copier.dropped.entries() {
            table.row("entries left out", format!("{}: {kind}", count(number)));
        }
        for (reason, number) in self.copier.rejects.reasons() {
            table.row("not copied", format!("{}: {reason}", count(number)));
        }
        if let Some(Verified { equal, different, missing }) = self.verified {
            table.row("compared, equal", count(equal));
            table.row("compared, different", count(different));
            table.row("compared, missing", count(missing));
        }
        let mut out = String::new();
        table.push_to(&mut out);
        out.push_str(match (self.ended, self.copier.dry_run) {
            (Ended::Stopped, _) => "Stopped on the way. Run the same again to go on.\n",
            (Ended::Complete, true) => "Nothing was written.\n",
            (Ended::Complete, false) => "Every session of the source has been looked at.\n",
        });
        out
    }

    pub(super) fn result(&self) -> Result<(), CliError> {
        if self.ended == Ended::Stopped {
            return Err(CliError::Stopped("run the same command again to go on"));
        }
        if let Some(Verified { different, missing, .. }) = self.verified
            && different + missing > 0
        {
            return Err(CliError::Partial(format!(
                "{} sessions are not the same in both stores",
                different + missing
            )));
        }
        let rejected: u64 = self.copier.rejects.reasons().values().sum();
        if rejected > 0 {
            return Err(CliError::Partial(format!("{rejected} sessions could not be copied")));
        }
        Ok(())
    }
}
