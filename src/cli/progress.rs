//! How far a long command is: a bar on a terminal, otherwise now and then a line of JSON on standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio::task::JoinHandle;

/// How often a line is written where there is no terminal.
const LINES: Duration = Duration::from_secs(10);
const REDRAWN: Duration = Duration::from_millis(120);

/// Counts what is done, and shows it until it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    counted: Arc<Counted>,
    shown: Option<JoinHandle<()>>,
    bar: Option<ProgressBar>,
}

#[derive(Debug, Default)]
struct Counted {
    sessions: AtomicU64,
    bytes: AtomicU64,
}

/// What [`Progress`] adds up, for those who work side by side.
#[derive(Clone, Debug)]
pub(super) struct Counter(Arc<Counted>);

impl Counter {
    pub(super) fn add(&self, sessions: usize, bytes: usize) {
        self.0.sessions.fetch_add(sessions as u64, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Progress {
    /// Begins to show it, as `what` is done to about so many sessions.
    pub(super) fn new(what: &'static str, expected: Option<u64>, quiet: bool) -> Self {
        let counted = Arc::<Counted>::default();
        if quiet {
            return Self { counted, shown: None, bar: None };
        }
        if !io::stderr().is_terminal() {
            let shown = tokio::spawn(lines(what, expected, Arc::clone(&counted)));
            return Self { counted, shown: Some(shown), bar: None };
        }
        let bar = ProgressBar::with_draw_target(expected, ProgressDrawTarget::stderr());
        let template = if expected.is_some() {
            "{msg} {wide_bar} {human_pos} of about {human_len} sessions  {rate}  {eta_text}"
        } else {
            "{msg} {spinner} {human_pos} sessions  {rate}  {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(
                style
                    .progress_chars("━╸ ")
                    .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                        let _ = write!(out, "{:.0}/s", state.per_sec());
                    })
                    .with_key(
                        "eta_text",
                        |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                            let _ = write!(
                                out,
                                "{} left",
                                super::output::duration(
                                    i64::try_from(state.eta().as_secs()).unwrap_or(i64::MAX),
                                )
                            );
                        },
                    ),
            );
        }
        bar.set_message(what);
        let (shown_bar, seen) = (bar.clone(), Arc::clone(&counted));
        let shown = tokio::spawn(async move {
            loop {
                let done = seen.sessions.load(Ordering::Relaxed);
                if shown_bar.length().is_some_and(|length| length < done) {
                    shown_bar.set_length(done);
                }
                shown_bar.set_position(done);
                tokio::time::sleep(REDRAWN).await;
            }
        });
        Self { counted, shown: Some(shown), bar: Some(bar) }
    }

    pub(super) fn counter(&self) -> Counter {
        Counter(Arc::clone(&self.counted))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(shown) = &self.shown {
            shown.abort();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn lines(what: &'static str, expected: Option<u64>, counted: Arc<Counted>) {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(LINES).await;
        let done = counted.sessions.load(Ordering::Relaxed);
        let seconds = begun.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "it is shown without fractions")]
        let rate = (done as f64 / seconds).round();
        let expected = expected.map_or_else(|| "null".to_owned(), |it| it.to_string());
        let _ = writeln!(
            io::stderr(),
            "{{\"progress\":\"{what}\",\"sessions\":{done},\"expected\":{expected},\
             \"bytes\":{},\"seconds\":{seconds:.1},\"per_second\":{rate}}}",
            counted.bytes.load(Ordering::Relaxed),
        );
    }
}
