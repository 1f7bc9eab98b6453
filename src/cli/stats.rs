//! `django-session stats`: how many sessions there are, of whom, how old, how large, and in which forms.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::error::CliError;
use super::output::{Output, Table, duration, grouped, repr, style, styled};
use super::progress::Progress;
use super::site::SiteArguments;
use super::work::{Ended, Stop, Walk, WorkArguments};
use crate::codec::KeyMatch;
use crate::session::{SessionSettings, USER_ID_KEY};
use crate::store::bulk::{Coding, Filter, OpenError, StoredSession};

/// How many users are told apart; beyond, those with few sessions are forgotten.
const USERS: usize = 100_000;

/// Count the sessions of a store: live and expired, of whom, how old and how large
///
/// Every session is read and its signature checked, in parallel and in a few megabytes of memory. Nothing is
/// changed.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    site: SiteArguments,
    #[command(flatten)]
    work: WorkArguments,
    /// Leave out what has expired
    #[arg(long)]
    live: bool,
    /// How many of the users with the most sessions are shown
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Write one JSON document, for programs
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) async fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let settings = self.site.settings()?;
        let store = self.site.connect(&settings).await?;
        let now = Timestamp::now();
        let date = settings.datetime(now);
        let filter = if self.live {
            Filter { expires_from: Some(date), ..Filter::default() }
        } else {
            Filter::default()
        };
        let estimate = store.estimate().await?;
        let walk = Walk::new(&store, filter, &self.work, &Stop::listen());
        let progress = Progress::new("stats", estimate.sessions, self.work.quiet());
        let total = Arc::new(Mutex::new(Stats::default()));
        let (sum, settings) = (Arc::clone(&total), Arc::new(settings));
        let coding = Arc::new(store.coding().clone());
        let ended = walk
            .run(&progress, move |sessions| {
                let mut stats = Stats::default();
                for session in &sessions {
                    stats.count(session, &coding, &settings, now);
                }
                sum.lock().unwrap_or_else(PoisonError::into_inner).add(stats);
                std::future::ready(Ok(()))
            })
            .await?;
        drop(progress);
        let stats = std::mem::take(&mut *total.lock().unwrap_or_else(PoisonError::into_inner));
        let text = if self.json {
            format!("{}\n", stats.to_json(self.top, estimate.bytes, ended))
        } else {
            stats.to_text(self.top, store.name(), estimate.bytes)
        };
        output.report(&text)?;
        store.close().await;
        match ended {
            Ended::Complete => Ok(()),
            Ended::Stopped => Err(CliError::Stopped("what is shown was counted until then")),
        }
    }
}

/// What is counted.
#[derive(Debug, Default)]
struct Stats {
    sessions: u64,
    expired: u64,
    bytes: u64,
    /// Of those that are live: without a user, and without anything.
    anonymous: u64,
    empty: u64,
    unreadable: BTreeMap<String, u64>,
    formats: BTreeMap<&'static str, u64>,
    serializers: BTreeMap<&'static str, u64>,
    keys: BTreeMap<String, u64>,
    users: Users,
    /// By the number of bits of the length, and of the age in seconds.
    sizes: Histogram,
    ages: Histogram,
}

impl Stats {
    fn count(
        &mut self,
        session: &StoredSession,
        coding: &Coding,
        settings: &SessionSettings,
        now: Timestamp,
    ) {
        self.sessions += 1;
        let length = session.value.len() as u64;
        self.bytes += length;
        self.sizes.count(length);
        let end = session.end(settings);
        let is_live = end.is_none_or(|end| end > now);
        self.expired += u64::from(!is_live);
        let opened = match coding.open(session) {
            Ok(opened) => opened,
            Err(error) => {
                *self.unreadable.entry(reason(&error)).or_default() += 1;
                return;
            }
        };
        if let Some(format) = opened.format {
            *self.formats.entry(format.name()).or_default() += 1;
        }
        *self.serializers.entry(opened.serializer).or_default() += 1;
        if let Some(key) = opened.key {
            let name = match key {
                KeyMatch::Primary => "SECRET_KEY".to_owned(),
                KeyMatch::Fallback(index) => format!("SECRET_KEY_FALLBACKS[{index}]"),
            };
            *self.keys.entry(name).or_default() += 1;
        }
        if let Some(signed_at) = opened.signed_at {
            self.ages.count(u64::try_from(now.as_second() - signed_at).unwrap_or_default());
        }
        if !is_live {
            return;
        }
        self.empty += u64::from(opened.data.is_empty());
        match opened.data.get_raw(USER_ID_KEY) {
            Ok(Some(user)) => self.users.count(&user),
            _ => self.anonymous += 1,
        }
    }

    fn add(&mut self, other: Self) {
        fn sum<K: Ord>(to: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
            for (key, count) in from {
                *to.entry(key).or_default() += count;
            }
        }
        self.sessions += other.sessions;
        self.expired += other.expired;
        self.bytes += other.bytes;
        self.anonymous += other.anonymous;
        self.empty += other.empty;
        sum(&mut self.unreadable, other.unreadable);
        sum(&mut self.formats, other.formats);
        sum(&mut self.serializers, other.serializers);
        sum(&mut self.keys, other.keys);
        self.users.add(other.users);
        self.sizes.add(&other.sizes);
        self.ages.add(&other.ages);
    }

    fn live(&self) -> u64 {
        self.sessions - self.expired
    }

    fn to_json(&self, top: usize, disk: Option<u64>, ended: Ended) -> Value {
        json!({
            "django_session_stats": 1,
            "complete": ended == Ended::Complete,
            "sessions": self.sessions,
            "live": self.live(),
            "expired": self.expired,
            "live_anonymous": self.anonymous,
            "live_empty": self.empty,
            "bytes": self.bytes,
            "bytes_on_disk": disk,
            "unreadable": self.unreadable,
            "formats": self.formats,
            "serializers": self.serializers,
            "keys": self.keys,
            "users": self.users.counts.len(),
            "users_exact": !self.users.is_full,
            "top_users": self.users.top(top).iter().map(|(user, count)| {
                let user = serde_json::from_str(user).unwrap_or_else(|_| Value::from(*user));
                json!({"user": user, "sessions": count})
            }).collect::<Vec<_>>(),
            "sizes": self.sizes.to_json(),
            "ages": self.ages.to_json(),
        })
    }

    fn to_text(&self, top: usize, store: &str, disk: Option<u64>) -> String {
        let mut table = Table::new();
        let part = |count: u64, of: u64| {
            let count_text = grouped(usize::try_from(count).unwrap_or(usize::MAX));
            if of == 0 { count_text } else { format!("{count_text}  ({})", percent(count, of)) }
        };
        table.row("store", store);
        table.row("sessions", part(self.sessions, 0));
        table.row("live", part(self.live(), self.sessions));
        table.row("expired", part(self.expired, self.sessions));
        table.row("of users", part(self.users.sessions, self.live()));
        table.row("anonymous", part(self.anonymous, self.live()));
        table.row("empty", part(self.empty, self.live()));
        let sizes = format!("{} in values", bytes(self.bytes));
        table.row(
            "size",
            disk.map_or_else(
                || sizes.clone(),
                |disk| format!("{sizes}, {} on the disk", bytes(disk)),
            ),
        );
        let mut out = String::new();
        table.push_to(&mut out);
        for (heading, counts) in [
            (
                "Forms",
                self.formats.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            ),
            ("Keys", self.keys.clone().into_iter().collect::<Vec<_>>()),
            (
                "Serializers",
                self.serializers.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            ),
            ("Unreadable", self.unreadable.clone().into_iter().collect()),
        ] {
            push_counts(&mut out, heading, &counts, self.sessions);
        }
        let sizes = self.sizes.bars(bytes);
        push_counts(&mut out, "Sizes", &sizes, self.sessions);
        let ages = self.ages.bars(|age| duration(i64::try_from(age).unwrap_or(i64::MAX)));
        push_counts(&mut out, "Time since they were saved", &ages, self.sessions);
        let users: Vec<_> = self
            .users
            .top(top)
            .into_iter()
            .map(|(user, count)| (repr::plain(user), count))
            .collect();
        let heading = if self.users.is_full {
            "Users with the most sessions, about".to_owned()
        } else {
            let count = grouped(self.users.counts.len());
            format!("Users with the most sessions, of {count}")
        };
        push_counts(&mut out, &heading, &users, self.live());
        out
    }
}

/// Why a value cannot be read, as `decode` names it where it does.
pub(super) fn reason(error: &OpenError) -> String {
    error.to_string()
}

fn push_counts(out: &mut String, heading: &str, counts: &[(String, u64)], of: u64) {
    const WIDTH: u64 = 32;
    if counts.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", styled(style::HEADING, heading));
    let names = counts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or_default().max(1);
    for (name, count) in counts {
        let width = (u128::from(*count) * u128::from(WIDTH) / u128::from(most)) as usize;
        let bar = if *count > 0 && width == 0 { "▏".to_owned() } else { "█".repeat(width) };
        let number = grouped(usize::try_from(*count).unwrap_or(usize::MAX));
        let _ = writeln!(
            out,
            "  {name:names$}  {number:>13}  {:>6}  {}",
            percent(*count, of),
            styled(style::NUMBER, bar),
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
fn percent(count: u64, of: u64) -> String {
    if of == 0 { "-".to_owned() } else { format!("{:.1} %", count as f64 * 100.0 / of as f64) }
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut amount = count as f64;
    let mut unit = 0;
    while amount >= 1000.0 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} bytes") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

/// How many sessions each user has; of the largest numbers if there are more users than there is room for.
#[derive(Debug, Default)]
struct Users {
    sessions: u64,
    counts: HashMap<Box<str>, u64>,
    is_full: bool,
}

impl Users {
    fn count(&mut self, user: &str) {
        self.sessions += 1;
        self.bump(user, 1);
    }

    fn bump(&mut self, user: &str, by: u64) {
        if let Some(count) = self.counts.get_mut(user) {
            *count += by;
            return;
        }
        if self.counts.len() >= USERS {
            // Whoever has one session is as good as any other who has; they make room for more.
            self.is_full = true;
            let least = self.counts.values().min().copied().unwrap_or_default();
            self.counts.retain(|_, count| {
                *count -= least;
                *count > 0
            });
        }
        self.counts.insert(user.into(), by);
    }

    fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.is_full |= other.is_full;
        for (user, count) in other.counts {
            self.bump(&user, count);
        }
    }

    fn top(&self, count: usize) -> Vec<(&str, u64)> {
        let mut users: Vec<_> = self.counts.iter().map(|(user, it)| (&**user, *it)).collect();
        users.sort_by(|(one, some), (other, more)| more.cmp(some).then(one.cmp(other)));
        users.truncate(count);
        users
    }
}

/// How often there are numbers of so many bits.
#[derive(Debug)]
struct Histogram([u64; 65]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; 65])
    }
}

impl Histogram {
    fn count(&mut self, number: u64) {
        self.0[(u64::BITS - number.leading_zeros()) as usize] += 1;
    }

    fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// The bounds and counts from the first to the last that is not empty.
    fn ranges(&self) -> Vec<(u64, u64)> {
        let first = self.0.iter().position(|&count| count > 0).unwrap_or(self.0.len());
        let last = self.0.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
        let below = |bits: usize| {
            let bits = u32::try_from(bits).unwrap_or(u32::MAX);
            1u64.checked_shl(bits).unwrap_or(u64::MAX)
        };
        (first..last.max(first)).map(|bits| (below(bits), self.0[bits])).collect()
    }

    fn bars(&self, shown: impl Fn(u64) -> String) -> Vec<(String, u64)> {
        let ranges = self.ranges().into_iter();
        ranges.map(|(below, count)| (format!("below {}", shown(below)), count)).collect()
    }

    fn to_json(&self) -> Value {
        let ranges = self.ranges().into_iter();
        ranges.map(|(below, count)| json!({"below": below, "sessions": count})).collect()
    }
}
