//! Something done to every session of a store: read in parts, worked on side by side, stopped at any time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::checkpoint::Checkpoint;
use super::error::CliError;
use super::progress::Progress;
use super::rejects::{self, Reasons};
use super::replicas::Watch;
use crate::store::bulk::{Batches, BulkStore, Filter, Sink, StoredSession};

/// How many times a second something is done where there is a rate.
const GOES: u32 = 50;

/// How much at a time, and how fast.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Work")]
pub(super) struct WorkArguments {
    /// How many batches are worked on side by side
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    workers: Option<u8>,
    /// How many sessions per second at most
    #[arg(long, value_name = "SESSIONS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

impl WorkArguments {
    pub(super) fn workers(&self) -> usize {
        let default = || std::thread::available_parallelism().map_or(2, |it| it.get().clamp(2, 4));
        self.workers.map_or_else(default, usize::from)
    }

    pub(super) fn quiet(&self) -> bool {
        self.quiet
    }

    pub(super) fn pace(&self) -> Pace {
        Pace::new(self.rate)
    }
}

/// Ctrl-C: the first one lets what is under way come to its end.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens for the signals that end a program; the second one ends it at once.
    pub(super) fn listen() -> Self {
        let stop = Self::default();
        let flag = stop.clone();
        let mut is_second = false;
        tokio::spawn(on_signals(move || {
            if is_second {
                leave();
            }
            is_second = true;
            flag.set();
        }));
        stop
    }

    /// Stops by itself.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Does something for each signal that ends a program.
async fn on_signals(mut heard: impl FnMut()) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};

        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        loop {
            let signal = tokio::select! {
                signal = interrupt.recv() => signal,
                signal = terminate.recv() => signal,
            };
            if signal.is_none() {
                return;
            }
            heard();
        }
    }
    #[cfg(not(unix))]
    {
        while tokio::signal::ctrl_c().await.is_ok() {
            heard();
        }
    }
}

/// Ends the program as a shell expects it after Ctrl-C.
#[expect(clippy::exit, reason = "whatever hangs is not waited for")]
fn leave() {
    std::process::exit(130);
}

/// No more sessions per second than were allowed.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<u32>,
    /// When the next may begin.
    next: Mutex<Instant>,
}

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        Self { rate, next: Mutex::new(Instant::now()) }
    }

    /// How many sessions are done in one go, of so many. Where there is a rate they are few, so that the store's
    /// other users wait for little at a time and not once in a while for much.
    pub(super) fn few(&self, most: usize) -> usize {
        let rate = self.rate.map_or(most, |rate| (rate / GOES).max(1) as usize);
        rate.min(most).max(1)
    }

    /// Waits until there is time for so many.
    pub(super) async fn turn(&self, sessions: usize) {
        let Some(rate) = self.rate else { return };
        let begin = {
            let mut next = self.next.lock().await;
            let begin = (*next).max(Instant::now());
            #[expect(clippy::cast_precision_loss, reason = "there are no so large batches")]
            let time = sessions as f64 / f64::from(rate);
            *next = begin + Duration::from_secs_f64(time);
            begin
        };
        tokio::time::sleep_until(begin.into()).await;
    }
}

/// How a walk over a store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everything has been seen.
    Complete,
    /// Somebody wanted it to stop.
    Stopped,
}

/// A walk over all sessions of a store.
pub(super) struct Walk {
    pub(super) store: Arc<dyn BulkStore>,
    pub(super) filter: Filter,
    pub(super) arguments: WorkArguments,
    pub(super) stop: Stop,
    /// Where it is noted which parts are done, if it is.
    pub(super) checkpoint: Option<Arc<Checkpoint>>,
    /// The replicas that it waits for.
    pub(super) replicas: Arc<Watch>,
}

impl Walk {
    pub(super) fn new(
        store: &Arc<dyn BulkStore>,
        filter: Filter,
        arguments: &WorkArguments,
        stop: &Stop,
    ) -> Self {
        Self {
            store: Arc::clone(store),
            filter,
            arguments: arguments.clone(),
            stop: stop.clone(),
            checkpoint: None,
            replicas: Arc::default(),
        }
    }

    /// Does something to each batch. The first error ends it, once the batches under way have come to their
    /// end.
    pub(super) async fn run<F, W>(&self, progress: &Progress, work: F) -> Result<Ended, CliError>
    where
        F: Fn(Vec<StoredSession>) -> W + Clone + Send + Sync + 'static,
        W: Future<Output = Result<(), CliError>> + Send,
    {
        let scan = Arc::<dyn crate::store::bulk::Scan>::from(self.store.scan(self.filter).await?);
        let checkpoint = match &self.checkpoint {
            Some(checkpoint) => Arc::clone(checkpoint),
            None => Arc::new(Checkpoint::unsaved()),
        };
        let parts = Arc::new(checkpoint.begin(scan.parts()));
        let (sink, batches) = Sink::new();
        let batches: Arc<Mutex<Batches>> = Arc::new(Mutex::new(batches));
        let workers = self.arguments.workers();
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..workers.min(parts.len()) {
            let (scan, parts, next) = (Arc::clone(&scan), Arc::clone(&parts), Arc::clone(&next));
            let (checkpoint, stop, sink) =
                (Arc::clone(&checkpoint), self.stop.clone(), sink.for_part(0));
            tasks.spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(part) = parts.get(index).filter(|_| !stop.is_set()) else {
                        return Ok(());
                    };
                    let mut sink = sink.for_part(index);
                    scan.read(part, &mut sink).await?;
                    checkpoint.read(index, sink.sent());
                }
            });
        }
        drop(sink);
        let pace = Arc::new(self.arguments.pace());
        for _ in 0..workers {
            let (batches, work, pace) = (Arc::clone(&batches), work.clone(), Arc::clone(&pace));
            let (checkpoint, stop, counter) =
                (Arc::clone(&checkpoint), self.stop.clone(), progress.counter());
            let replicas = Arc::clone(&self.replicas);
            tasks.spawn(async move {
                loop {
                    let batch = batches.lock().await.recv().await;
                    let Some(batch) = batch else { return Ok(()) };
                    let (part, number, rest) = (batch.part, batch.number, batch.rest);
                    let mut left = batch.sessions;
                    let mut rejected = Reasons::new();
                    while !left.is_empty() {
                        let later = left.split_off(pace.few(left.len()));
                        let few = std::mem::replace(&mut left, later);
                        let count = few.len();
                        let bytes = few.iter().map(|it| it.value.len()).sum();
                        pace.turn(count).await;
                        replicas.wait(&stop).await?;
                        if stop.is_set() {
                            // Nobody takes the rest, and the readers end.
                            batches.lock().await.close();
                            return Ok(());
                        }
                        let (done, more) = rejects::counted(async { work(few).await }).await;
                        done?;
                        rejects::merge(&mut rejected, &more);
                        counter.add(count, bytes);
                    }
                    checkpoint.done(part, number, rest, rejected)?;
                }
            });
        }
        let mut result: Result<(), CliError> = Ok(());
        while let Some(done) = tasks.join_next().await {
            let done = done.unwrap_or(Err(CliError::Panicked));
            if let Err(error) = done
                && result.is_ok()
            {
                result = Err(error);
                self.stop.set();
                // Readers end when nobody takes what they have.
                batches.lock().await.close();
            }
        }
        checkpoint.save()?;
        result?;
        Ok(if self.stop.is_set() { Ended::Stopped } else { Ended::Complete })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::session::SessionSettings;
    use crate::store::bulk;
    use crate::{SecretKey, SessionData};

    #[tokio::test(flavor = "multi_thread")]
    async fn an_error_lets_the_other_batches_come_to_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display()).parse().unwrap();
        let settings = SessionSettings {
            secret_key: Some(SecretKey::new("a key").unwrap()),
            ..SessionSettings::default()
        };
        let data = SessionData::from_json("{}").unwrap();
        let now = jiff::Timestamp::now().as_second();
        let text = settings.codec().unwrap().encode(&data, now).unwrap();
        for number in 0..2000 {
            std::fs::write(folder.path().join(format!("sessionid{number:032}")), &text).unwrap();
        }
        let store: Arc<dyn BulkStore> = bulk::connect(&url, &settings).await.unwrap().into();
        let arguments = WorkArguments { workers: Some(4), rate: None, quiet: true };
        let walk = Walk::new(&store, Filter::default(), &arguments, &Stop::default());
        let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (begins, ends) = (Arc::clone(&begun), Arc::clone(&ended));
        let work = move |_| {
            let (begins, ends) = (Arc::clone(&begins), Arc::clone(&ends));
            async move {
                let number = begins.fetch_add(1, Ordering::SeqCst);
                if number == 1 {
                    return Err(CliError::NoSession);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                ends.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        };
        let progress = Progress::new("test", None, true);
        let walked = walk.run(&progress, work);
        let result = tokio::time::timeout(Duration::from_secs(30), walked).await.unwrap();
        assert!(matches!(result, Err(CliError::NoSession)), "{result:?}");
        let begun = begun.load(Ordering::SeqCst);
        assert_eq!(ended.load(Ordering::SeqCst), begun - 1);
        assert!(begun < 20, "{begun}");
    }
}
