//! `django-session export`: the sessions of a store into a file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::json;

use super::frames::{self, Writer};
use super::line;
use crate::cli::copy::Choice;
use crate::cli::error::CliError;
use crate::cli::output::{Output, Table, grouped};
use crate::cli::progress::Progress;
use crate::cli::rejects::Rejects;
use crate::cli::site::SiteArguments;
use crate::cli::stats::bytes;
use crate::cli::work::{Ended, Stop, Walk, WorkArguments};
use crate::store::bulk::{Filter, StoredSession};

/// Write the sessions of a store into a compressed archive
///
/// Lines of JSON in frames of Zstandard (.jsonl.zst), each with a checksum. Session keys, hashes of passwords
/// and CSRF tokens are left out, and a handle stands for the key; with --include-secrets they are in it, and it
/// can be imported. The file is there, under its name, only when it is complete.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExportArguments {
    /// The file to write
    file: PathBuf,
    #[command(flatten)]
    site: SiteArguments,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    work: WorkArguments,
    /// Write session keys too, by which anybody gets in who reads the file
    #[arg(long)]
    include_secrets: bool,
    /// Those too that have expired
    #[arg(long)]
    include_expired: bool,
    /// Write what could not be read into this file, a line of JSON each
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Write the summary as one JSON document, for programs
    #[arg(long)]
    json: bool,
}

/// An archive on its way: unless it is renamed, nothing is left of it.
struct Unfinished(PathBuf);

impl Unfinished {
    /// A new file beside the archive, which is nobody else's.
    fn create(archive: &Path) -> io::Result<(File, Self)> {
        let mut name = archive.to_owned().into_os_string();
        let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        name.push(format!(".{random:016x}.part"));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;

            options.mode(0o600);
        }
        let file = options.open(&name)?;
        Ok((file, Self(name.into())))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It has been renamed, or there is nothing more to be done about it.
        let _ = fs::remove_file(&self.0);
    }
}

impl ExportArguments {
    pub(in crate::cli) async fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let settings = self.site.settings()?;
        let store = self.site.connect(&settings).await?;
        let now = settings.datetime(Timestamp::now());
        let rejects = Arc::new(Rejects::new(self.rejects.as_deref(), None)?);
        let (file, unfinished) = Unfinished::create(&self.file).map_err(CliError::WriteArchive)?;
        let mut writer = Writer::new(file);
        let header = line::header(self.include_secrets);
        let frame = frames::compress(&header).map_err(CliError::WriteArchive)?;
        writer.push(&frame, header.len()).map_err(CliError::WriteArchive)?;
        let expires_from = (!self.include_expired).then_some(now);
        let filter = Filter { expires_from, ..Filter::default() };
        let walk = Walk::new(&store, filter, &self.work, &Stop::listen());
        let progress = Progress::new("export", store.estimate().await?.sessions, self.work.quiet());
        let writer = Arc::new(Mutex::new(Some(writer)));
        let exported = Arc::new(AtomicU64::new(0));
        let coding = Arc::new(store.coding().clone());
        let work = {
            let (writer, rejects) = (Arc::clone(&writer), Arc::clone(&rejects));
            let (choice, exported) = (Arc::new(self.choice.clone()), Arc::clone(&exported));
            let with_secrets = self.include_secrets;
            move |sessions: Vec<StoredSession>| {
                let written = || -> Result<(), CliError> {
                    let mut lines = String::new();
                    let mut count = 0;
                    for session in &sessions {
                        let before = lines.len();
                        let pushed = match coding.open(session) {
                            Ok(opened) if !choice.takes(&opened.data) => continue,
                            Ok(opened) => line::push(&mut lines, session, &opened, with_secrets),
                            Err(error) => Err(CliError::Unreadable(error.to_string())),
                        };
                        match pushed {
                            Ok(()) => count += 1,
                            Err(error) => {
                                lines.truncate(before);
                                rejects.add(session, &error)?;
                            }
                        }
                    }
                    if count == 0 {
                        return Ok(());
                    }
                    let frame = frames::compress(&lines).map_err(CliError::WriteArchive)?;
                    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(writer) = &mut *writer {
                        writer.push(&frame, lines.len()).map_err(CliError::WriteArchive)?;
                    }
                    exported.fetch_add(count, Ordering::Relaxed);
                    Ok(())
                };
                std::future::ready(written())
            }
        };
        let ended = walk.run(&progress, work).await?;
        drop(progress);
        store.close().await;
        if ended == Ended::Stopped {
            return Err(CliError::Stopped("there is no archive; export again"));
        }
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let size = writer.map_or(Ok(0), Writer::finish).map_err(CliError::WriteArchive)?;
        fs::rename(&unfinished.0, &self.file).map_err(CliError::WriteArchive)?;
        let count = exported.load(Ordering::Relaxed);
        output.report(&self.summary(count, size, &rejects))?;
        let rejected: u64 = rejects.reasons().values().sum();
        if rejected > 0 {
            return Err(CliError::Partial(format!("{rejected} sessions could not be exported")));
        }
        Ok(())
    }

    fn summary(&self, count: u64, size: u64, rejects: &Rejects) -> String {
        if self.json {
            let document = json!({
                "django_session_export": 1,
                "sessions": count,
                "bytes": size,
                "secrets": self.include_secrets,
                "rejected": rejects.reasons(),
            });
            return format!("{document}\n");
        }
        let mut table = Table::new();
        table.row("sessions", grouped(usize::try_from(count).unwrap_or(usize::MAX)));
        table.row("size", bytes(size));
        table.row(
            "session keys",
            if self.include_secrets { "in it: whoever reads it gets in" } else { "left out" },
        );
        for (reason, number) in rejects.reasons() {
            table.row("not exported", format!("{number}: {reason}"));
        }
        let mut out = String::new();
        table.push_to(&mut out);
        out
    }
}
