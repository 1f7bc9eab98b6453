//! `django-session list`: the sessions of a store, a line each, as they are read.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::json;

use super::error::CliError;
use super::output::{Output, duration, grouped, repr};
use super::progress::Progress;
use super::select::{Listed, SelectArguments};
use super::site::SiteArguments;
use super::work::{Ended, Stop, Walk, WorkArguments};
use crate::store::bulk::{Filter, StoredSession};

/// List the sessions of a store: whose they are, how old, how large
///
/// Each has a handle, a part of a hash of its key, by which `show` and `revoke` find it; nobody gets in by
/// it. Session keys themselves are shown with --keys only. Lines come as they are read, in no certain order.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    site: SiteArguments,
    #[command(flatten)]
    select: SelectArguments,
    #[command(flatten)]
    work: WorkArguments,
    /// Those too that have expired
    #[arg(long)]
    expired: bool,
    /// Show session keys, by which anybody gets in
    #[arg(long)]
    keys: bool,
    /// Write a line of JSON for each, for programs
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) async fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let settings = Arc::new(self.site.settings()?);
        let store = self.site.connect(&settings).await?;
        self.select.check(store.coding())?;
        let now = Timestamp::now();
        let from = (!self.expired).then(|| settings.datetime(now));
        let filter = Filter { expires_from: from, ..Filter::default() };
        let walk = Walk::new(&store, filter, &self.work, &Stop::listen());
        if !self.json {
            output.write(HEADING)?;
            output.flush()?;
        }
        let progress = Progress::new("list", None, true);
        let coding = Arc::new(store.coding().clone());
        let (select, keys, json) = (Arc::new(self.select.clone()), self.keys, self.json);
        let stdout = Arc::new(Mutex::new(io::stdout()));
        let work = move |sessions: Vec<StoredSession>| {
            let mut text = String::new();
            for session in &sessions {
                let found = coding.open(session);
                if select.takes(session, &found, now) == Some(true) {
                    let listed = Listed::new(session, &found, &coding, &settings, now);
                    let key = keys.then_some(session.session_key.as_str());
                    text.push_str(&if json { listed.to_json(key) } else { listed.to_text(key) });
                }
            }
            let mut stdout = stdout.lock().unwrap_or_else(PoisonError::into_inner);
            let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
            std::future::ready(written.map_err(CliError::Output))
        };
        let ended = walk.run(&progress, work).await?;
        store.close().await;
        match ended {
            Ended::Complete => Ok(()),
            Ended::Stopped => Err(CliError::Stopped("there are more")),
        }
    }
}

const HEADING: &str =
    "handle            user          expires                 saved                   bytes  form\n";

impl Listed {
    fn to_text(&self, key: Option<&str>) -> String {
        let user = self.user.as_deref().map_or_else(|| "-".to_owned(), repr::plain);
        let expires = self.expires_in.map_or_else(
            || "never".to_owned(),
            |left| {
                if left < 0 {
                    format!("{} ago", duration(left))
                } else {
                    format!("in {}", duration(left))
                }
            },
        );
        let saved =
            self.saved_ago.map_or_else(|| "-".to_owned(), |ago| format!("{} ago", duration(ago)));
        let key = key.map(|key| format!("  {}", repr::plain(key))).unwrap_or_default();
        format!(
            "{}  {user:12}  {expires:22}  {saved:20}  {:>7}  {}{key}\n",
            self.handle,
            grouped(self.bytes),
            self.form,
        )
    }

    fn to_json(&self, key: Option<&str>) -> String {
        let mut document = json!({
            "session": self.handle,
            "user": self.user,
            "expires_in": self.expires_in,
            "saved_ago": self.saved_ago,
            "bytes": self.bytes,
            "form": self.form,
        });
        if let (Some(key), Some(object)) = (key, document.as_object_mut()) {
            object.insert("session_key".to_owned(), key.into());
        }
        format!("{document}\n")
    }
}
