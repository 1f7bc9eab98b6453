//! `django-session show`: what is in one session of a store.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::decode;
use super::error::CliError;
use super::handle::handle;
use super::input::InputArguments;
use super::output::tree::{Tree, TreeLimits};
use super::output::{Output, Table, grouped, style, styled};
use super::progress::Progress;
use super::select::Listed;
use super::site::SiteArguments;
use super::work::{Ended, Stop, Walk, WorkArguments};
use crate::codec::Diagnosis;
use crate::codec::graph::Graph;
use crate::codec::pickle::{self, Limits};
use crate::session::SessionSettings;
use crate::store::bulk::{BulkStore, Coding, Filter, StoredSession};

/// Bytes of the longest input that may be a session key.
const LONGEST_KEY: usize = 4096;

/// Show what is in one session of a store
///
/// It is found by its handle, as `list` shows it, for which all sessions are read. Without, its key is read
/// from standard input or asked for: as an argument, other users of the machine would see it.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The handle of the session; without, its key is read from standard input
    handle: Option<String>,
    #[command(flatten)]
    site: SiteArguments,
    #[command(flatten)]
    work: WorkArguments,
    /// Write one JSON document, for programs
    #[arg(long)]
    json: bool,
    /// Show long sessions and long texts to their end
    #[arg(long, conflicts_with = "json")]
    full: bool,
}

impl Arguments {
    pub(super) async fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let settings = self.site.settings()?;
        let store = self.site.connect(&settings).await?;
        let found = if let Some(handle) = &self.handle {
            self.find(&store, handle).await?
        } else {
            let input = InputArguments::standard_input().read(LONGEST_KEY)?;
            let key = String::from_utf8_lossy(&input);
            store.bulk_get(&[key.trim()]).await?.into_iter().next().flatten()
        };
        let shown = match &found {
            None => Err(CliError::NoSession),
            Some(session) => self.show(session, store.coding(), &settings, output),
        };
        store.close().await;
        shown
    }

    async fn find(
        &self,
        store: &Arc<dyn BulkStore>,
        wanted: &str,
    ) -> Result<Option<StoredSession>, CliError> {
        let stop = Stop::listen();
        let walk = Walk::new(store, Filter::default(), &self.work, &stop);
        let progress = Progress::new("show", store.estimate().await?.sessions, self.work.quiet());
        let found = Arc::new(Mutex::new(None));
        let (place, wanted) = (Arc::clone(&found), wanted.to_ascii_lowercase());
        let work = move |sessions: Vec<StoredSession>| {
            let is_it = |it: &StoredSession| handle(&it.session_key) == wanted;
            if let Some(session) = sessions.into_iter().find(is_it) {
                *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
                // Nothing else is looked for.
                stop.set();
            }
            std::future::ready(Ok(()))
        };
        let ended = walk.run(&progress, work).await?;
        drop(progress);
        let found = found.lock().unwrap_or_else(PoisonError::into_inner).take();
        if found.is_none() && ended == Ended::Stopped {
            return Err(CliError::Stopped("it has not been found so far; run it again"));
        }
        Ok(found)
    }

    fn show(
        &self,
        session: &StoredSession,
        coding: &Coding,
        settings: &SessionSettings,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let now = Timestamp::now();
        let opened = coding.open(session);
        let listed = Listed::new(session, &opened, coding, settings, now);
        if !self.json {
            let mut table = Table::new();
            listed.push_to(&mut table);
            let mut out = String::new();
            table.push_to(&mut out);
            output.write(&out)?;
        }
        if let Coding::Signed(codec) = coding {
            let text = String::from_utf8_lossy(&session.value);
            return decode::show_stored(codec, &text, self.json, self.full, now, output);
        }
        let data = opened.map_err(|error| CliError::Unreadable(error.to_string()))?.data;
        let limits = if self.full { TreeLimits::FULL } else { TreeLimits::default() };
        let graph = if data.is_python() {
            let pickle = data.to_pickle(pickle::HIGHEST_PROTOCOL);
            let pickle = pickle.map_err(|error| CliError::Encode(error.into()))?;
            let graph = Graph::from_pickle(&pickle, &Limits::default());
            Some(graph.map_err(|error| CliError::Unreadable(error.to_string()))?)
        } else {
            None
        };
        if self.json {
            let text = match &graph {
                Some(graph) => super::tagged::write(graph)?,
                None => data.to_json().map_err(CliError::Encode)?,
            };
            return output.write(&format!("{{\"django_session_document\":1,\"data\":{text}}}\n"));
        }
        let tree = match &graph {
            Some(graph) => Tree::of_graph(graph, limits),
            None => Tree::of_json(&data.to_json().map_err(CliError::Encode)?, limits)
                .map_err(|error| CliError::Decode(Diagnosis::NotJson(error)))?,
        };
        let mut out = format!(
            "\n{}\n",
            styled(style::HEADING, format_args!("session: {} entries", grouped(data.len())))
        );
        tree.push_to(&mut out);
        output.write(&out)
    }
}
