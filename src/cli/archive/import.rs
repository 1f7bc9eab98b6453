//! `django-session import`: the sessions of an archive into a store.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::frames::{self, Frame};
use super::line;
use crate::cli::copy::{Choice, Copied, Copier, Policy};
use crate::cli::error::CliError;
use crate::cli::migrate::Summary;
use crate::cli::objects::{Dropped, Objects};
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::rejects::Rejects;
use crate::cli::replicas::ReplicaArguments;
use crate::cli::site::SiteArguments;
use crate::cli::work::{Ended, Stop, WorkArguments};

/// Add the sessions of an archive to a store
///
/// Archives are those of `export --include-secrets`. What is in the store already stays, unless --on-conflict
/// says otherwise; so an import that was stopped is just run again.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ImportArguments {
    /// The archive
    file: PathBuf,
    #[command(flatten)]
    site: SiteArguments,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    work: WorkArguments,
    #[command(flatten)]
    replicas: ReplicaArguments,
    #[command(flatten)]
    objects: Objects,
    /// What happens to a session that the store has already
    #[arg(long, value_enum, default_value_t)]
    on_conflict: Policy,
    /// Read everything, look what the store has, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Write what could not be imported into this file, a line of JSON each
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Write the summary as one JSON document, for programs
    #[arg(long)]
    json: bool,
}

impl ImportArguments {
    pub(in crate::cli) async fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let mut file = File::open(&self.file)
            .map_err(|source| CliError::Input { what: "the archive", source })?;
        let frames = frames::frames(&mut file)?;
        let (header, frames) = frames.split_first().ok_or(CliError::Archive("it is empty"))?;
        let header = frames::read(&file, *header)?;
        if header.trim_end() != line::header(true).trim_end() {
            return Err(CliError::Archive(
                "it was written without session keys, by a later version of this command, or by \
                 something else; only one of `export --include-secrets` can be imported",
            ));
        }
        let settings = self.site.settings()?;
        let store = self.site.connect(&settings).await?;
        let copier = Arc::new(Copier {
            source: None,
            target: Arc::clone(&store),
            settings,
            choice: self.choice.clone(),
            policy: self.on_conflict,
            objects: self.objects.clone(),
            dropped: Dropped::default(),
            dry_run: self.dry_run,
            copied: Copied::default(),
            rejects: Arc::new(Rejects::new(self.rejects.as_deref(), None)?),
        });
        let progress = Progress::new("import", None, self.work.quiet());
        let stop = Stop::listen();
        let (file, frames, next) =
            (Arc::new(file), Arc::<[Frame]>::from(frames), Arc::new(AtomicUsize::new(0)));
        let pace = Arc::new(self.work.pace());
        let replicas = self.replicas.watch(&self.site.url()?).await?;
        let mut tasks = JoinSet::new();
        for _ in 0..self.work.workers() {
            let (file, frames, next) = (Arc::clone(&file), Arc::clone(&frames), Arc::clone(&next));
            let (copier, stop, pace) = (Arc::clone(&copier), stop.clone(), Arc::clone(&pace));
            let replicas = Arc::clone(&replicas);
            let counter = progress.counter();
            tasks.spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(frame) = frames.get(index).filter(|_| !stop.is_set()) else {
                        return Ok::<_, CliError>(());
                    };
                    let lines = frames::read(&file, *frame)?;
                    let mut sessions = Vec::new();
                    let mut count = 0;
                    for text in lines.lines() {
                        count += 1;
                        match line::read(text)? {
                            (session, Ok(opened)) => sessions.push((session, opened)),
                            (session, Err(error)) => copier.rejects.add(&session, &error)?,
                        }
                    }
                    pace.turn(count).await;
                    replicas.wait(&stop).await?;
                    if stop.is_set() {
                        return Ok(());
                    }
                    copier.carry(sessions).await?;
                    counter.add(count, lines.len());
                }
            });
        }
        let mut result = Ok(());
        while let Some(done) = tasks.join_next().await {
            if let Err(error) = done.unwrap_or(Err(CliError::Panicked))
                && result.is_ok()
            {
                result = Err(error);
                // What is under way comes to its end.
                stop.set();
            }
        }
        result?;
        drop(progress);
        let ended = if stop.is_set() { Ended::Stopped } else { Ended::Complete };
        let summary = Summary {
            copier: &copier,
            ended,
            verified: None,
            resumed: false,
            from: "an archive",
            to: store.name(),
        };
        output.report(&if self.json { summary.to_json() } else { summary.to_text() })?;
        store.close().await;
        replicas.close().await;
        summary.result()
    }
}
