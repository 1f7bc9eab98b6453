//! Some of the stored sessions: under which keys they are signed, and what else can be seen of them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::catalogue as kinds;
use super::facts::SiteFacts;
use super::finding::{Finding, Severity};
use crate::cli::error::CliError;
use crate::cli::output::{grouped, repr};
use crate::codec::{Diagnosis, Format, KeyMatch};
use crate::session::SessionSettings;
use crate::store::bulk::{BulkStore, Coding, Filter, OpenError, Sink, StoredSession};

/// How many places of a store are looked at.
const PLACES: usize = 10;
/// A machine may be a minute ahead of another one.
const FUTURE: i64 = 60;
/// Fewer sessions say nothing about all.
const FEW: usize = 20;

/// What a sample of the sessions is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SampleFacts {
    pub(super) sessions: usize,
    /// Whether that was all of them.
    pub(super) is_complete: bool,
    pub(super) expired: usize,
    pub(super) without_end: usize,
    /// By the place among the keys, the primary one first.
    pub(super) keys: BTreeMap<usize, usize>,
    pub(super) unknown_key: usize,
    /// By the salt that fits.
    pub(super) other_salts: BTreeMap<String, usize>,
    /// In forms that the site does not read.
    pub(super) old_formats: BTreeMap<&'static str, usize>,
    pub(super) other_serializer: usize,
    pub(super) unreadable: usize,
    pub(super) in_future: usize,
}

/// Reads some sessions, from all over the store.
pub(super) async fn take(
    store: &dyn BulkStore,
    settings: &SessionSettings,
    most: usize,
    now: Timestamp,
) -> Result<SampleFacts, CliError> {
    let mut facts = SampleFacts::default();
    if most == 0 {
        return Ok(facts);
    }
    let scan = store.scan(Filter::default()).await?;
    let parts = scan.parts();
    let step = parts.len().div_ceil(PLACES).max(1);
    let chosen: Vec<_> = parts.iter().step_by(step).collect();
    let each = most.div_ceil(chosen.len().max(1));
    facts.is_complete = chosen.len() == parts.len();
    for part in chosen {
        let (mut sink, mut batches) = Sink::new();
        let mut left = each;
        let count = async {
            // When enough has been seen, the reader notices that nobody is there any more.
            while let Some(batch) = batches.recv().await {
                let more = batch.sessions.len() > left;
                for session in batch.sessions.iter().take(left) {
                    facts.count(session, store.coding(), settings, now);
                }
                left -= batch.sessions.len().min(left);
                if more || left == 0 {
                    facts.is_complete = false;
                    break;
                }
            }
            drop(batches);
        };
        let read = async {
            let read = scan.read(part, &mut sink).await;
            drop(sink);
            read
        };
        let (read, ()) = tokio::join!(read, count);
        read?;
    }
    Ok(facts)
}

impl SampleFacts {
    fn count(
        &mut self,
        session: &StoredSession,
        coding: &Coding,
        settings: &SessionSettings,
        now: Timestamp,
    ) {
        self.sessions += 1;
        let end = session.end(settings);
        if end.is_some_and(|end| end <= now) {
            // Nobody is given it any more, and no command makes it anew.
            self.expired += 1;
            return;
        }
        self.without_end += usize::from(end.is_none() && !coding.is_signed());
        let opened = match coding.open(session) {
            Ok(opened) => opened,
            Err(error) => return self.count_unread(session, coding, &error),
        };
        if let Some(key) = opened.key {
            let place = match key {
                KeyMatch::Primary => 0,
                KeyMatch::Fallback(index) => index + 1,
            };
            *self.keys.entry(place).or_default() += 1;
        }
        if let Some(format) = opened.format
            && format != Format::Signed
            && format != settings.format
            && !settings.accept.contains(&format)
        {
            *self.old_formats.entry(format.name()).or_default() += 1;
        }
        let differs = opened.serializer != settings.serializer.name();
        self.other_serializer += usize::from(coding.is_signed() && differs);
        let limit = now.as_second().saturating_add(FUTURE);
        self.in_future += usize::from(opened.signed_at.is_some_and(|at| at > limit));
    }

    fn count_unread(&mut self, session: &StoredSession, coding: &Coding, error: &OpenError) {
        let (Coding::Signed(codec), OpenError::Signed(_)) = (coding, error) else {
            self.unreadable += 1;
            return;
        };
        match codec.diagnose(&session.value) {
            Some(Diagnosis::WrongKey { .. }) => self.unknown_key += 1,
            Some(Diagnosis::WrongSalt { salt, .. }) => {
                *self.other_salts.entry(repr::plain(&salt)).or_default() += 1;
            }
            _ => self.unreadable += 1,
        }
    }
}

pub(super) fn check(sample: &SampleFacts, site: &SiteFacts, is_signed: bool) -> Vec<Finding> {
    let total = sample.sessions;
    if total == 0 {
        return Vec::new();
    }
    let of = |count: usize| {
        let all = if sample.is_complete { "" } else { " that were looked at" };
        format!("{} of {} sessions{all}", grouped(count), grouped(total))
    };
    let mut found = Vec::new();
    let known = sample.keys.values().sum::<usize>();
    if sample.unknown_key > 0 {
        // If it were but some, the site would work for the others.
        let severity = if known == 0 { Severity::Error } else { Severity::Warning };
        let seen = format!("{} are signed with none of the keys", of(sample.unknown_key));
        found.push(kinds::UNKNOWN_KEY.at(severity, seen));
    }
    for (salt, count) in &sample.other_salts {
        let severity = if known == 0 { Severity::Error } else { Severity::Warning };
        let seen = format!("{} fit the salt {salt}", of(*count));
        found.push(kinds::SALT_MISMATCH.at(severity, seen));
    }
    for at in 0..site.settings.secret_key_fallbacks.len() {
        if is_signed && known >= FEW && !sample.keys.contains_key(&(at + 1)) {
            let seen = format!("SECRET_KEY_FALLBACKS[{at}] fits {}", of(0));
            found.push(kinds::FALLBACK_UNUSED.note(seen));
        }
    }
    for (format, count) in &sample.old_formats {
        let seen = format!("{} are in the form {format}", of(*count));
        found.push(kinds::STORED_FORMAT.warning(seen));
    }
    if sample.other_serializer > 0 {
        let seen = format!("{} are of another serializer", of(sample.other_serializer));
        found.push(kinds::STORED_SERIALIZER.warning(seen));
    }
    if sample.unreadable > 0 {
        let seen = format!("{} cannot be read", of(sample.unreadable));
        found.push(kinds::UNREADABLE.warning(seen));
    }
    if sample.in_future > 0 {
        let seen = format!("{} were signed later than now", of(sample.in_future));
        found.push(kinds::SIGNED_IN_FUTURE.warning(seen));
    }
    if sample.without_end > 0 {
        let seen = format!("{} have no end", of(sample.without_end));
        found.push(kinds::REDIS_NO_TTL.warning(seen));
    }
    if total >= FEW && sample.expired * 2 > total {
        let seen = format!("{} have expired", of(sample.expired));
        found.push(kinds::EXPIRED_SHARE.warning(seen));
    }
    found
}
