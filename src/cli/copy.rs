//! Sessions from one store into another, batch by batch, with nothing lost and nothing brought back.
//!
//! What is to become of a session that is in both is decided by [`Policy`], a pure function. A session that
//! was deleted from the source while it was copied is removed from the target again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};

use super::error::CliError;
use super::objects::{Dropped, Kinds, Objects};
use super::rejects::Rejects;
use crate::codec::SessionData;
use crate::session::{DateTime, SessionKey, SessionRecord, SessionSettings, StoreError};
use crate::store::bulk::{
    self, BulkStore, Change, Coding, OpenError, Opened, Place, StoredSession,
};

/// How often an outage is waited for, and how long at first.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// How far apart ends are that are the same: Redis counts milliseconds from when it was told.
pub(super) const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// What happens to a session that the target has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Policy {
    /// The one in the target stays
    #[default]
    Keep,
    /// The one from the source replaces it
    Replace,
    /// The one that was saved later wins; if that is not known, the one that expires later
    Newer,
    /// The entries of both, and of those that both have the newer ones; of two users the newer session
    Merge,
}

/// Which sessions are copied.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which sessions")]
pub(super) struct Choice {
    /// Only those of this user, by primary key; may be given more than once
    #[arg(long, value_name = "ID")]
    user: Vec<String>,
    /// Only those of users
    #[arg(long, conflicts_with = "anonymous")]
    authenticated: bool,
    /// Only those of nobody
    #[arg(long, conflicts_with = "user")]
    anonymous: bool,
    /// Leave out those without any entry
    #[arg(long)]
    skip_empty: bool,
}

impl Choice {
    pub(super) fn takes(&self, data: &SessionData) -> bool {
        if self.skip_empty && data.is_empty() {
            return false;
        }
        if self.user.is_empty() && !self.authenticated && !self.anonymous {
            return true;
        }
        match bulk::user(data) {
            None => self.anonymous,
            Some(_) if self.anonymous => false,
            Some(user) => self.user.is_empty() || self.user.contains(&user),
        }
    }
}

/// What was done, added up.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) read: AtomicU64,
    pub(super) passed_over: AtomicU64,
    pub(super) created: AtomicU64,
    /// There already, and the same.
    pub(super) same: AtomicU64,
    pub(super) kept: AtomicU64,
    pub(super) replaced: AtomicU64,
    pub(super) merged: AtomicU64,
    /// Deleted from the source meanwhile.
    pub(super) deleted: AtomicU64,
}

impl Copied {
    pub(super) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// From where to where, and how.
pub(super) struct Copier {
    /// None if they come out of an archive, from which nobody deletes.
    pub(super) source: Option<Arc<dyn BulkStore>>,
    pub(super) target: Arc<dyn BulkStore>,
    pub(super) settings: SessionSettings,
    pub(super) choice: Choice,
    pub(super) policy: Policy,
    pub(super) objects: Objects,
    pub(super) dropped: Dropped,
    pub(super) dry_run: bool,
    pub(super) copied: Copied,
    pub(super) rejects: Arc<Rejects>,
}

/// A session on its way.
struct Carried {
    /// As the target stores it.
    stored: StoredSession,
    /// Where the source has it.
    came_from: Place,
    opened: Opened,
    /// What was in entries that are left out.
    dropped: Kinds,
}

impl Copier {
    /// Copies sessions as the source has them.
    pub(super) async fn copy(
        &self,
        sessions: Vec<StoredSession>,
        coding: &Coding,
    ) -> Result<(), CliError> {
        let mut found = Vec::with_capacity(sessions.len());
        for session in sessions {
            match coding.open(&session) {
                Ok(opened) => found.push((session, opened)),
                Err(error) => {
                    add(&self.copied.read, 1);
                    self.rejects.add(&session, &error)?;
                }
            }
        }
        self.carry_as(found, Some(coding)).await
    }

    /// Copies sessions out of an archive.
    pub(super) async fn carry(
        &self,
        sessions: Vec<(StoredSession, Opened)>,
    ) -> Result<(), CliError> {
        self.carry_as(sessions, None).await
    }

    async fn carry_as(
        &self,
        sessions: Vec<(StoredSession, Opened)>,
        coding: Option<&Coding>,
    ) -> Result<(), CliError> {
        add(&self.copied.read, sessions.len());
        let mut carried = Vec::with_capacity(sessions.len());
        for (session, mut opened) in sessions {
            if !self.choice.takes(&opened.data) {
                add(&self.copied.passed_over, 1);
                continue;
            }
            let settled = self
                .settle(&mut opened.data)
                .and_then(|dropped| Ok((dropped, self.sealed(&session, &opened, coding)?)));
            match settled {
                Ok((dropped, value)) => {
                    let came_from = session.place;
                    let stored = StoredSession { value, place: Place::Key, ..session };
                    carried.push(Carried { stored, came_from, opened, dropped });
                }
                Err(error) => self.rejects.add(&session, &error)?,
            }
        }
        if self.dry_run {
            return self.look(carried).await;
        }
        let created = self.create(&carried).await?;
        self.forget_deleted(&created).await
    }

    /// Does about objects what was asked for, if the target has only JSON.
    pub(super) fn settle(&self, data: &mut SessionData) -> Result<Kinds, OpenError> {
        if self.target.coding().is_json() {
            return Ok(self.objects.settle(data)?);
        }
        Ok(Kinds::new())
    }

    /// The value for the target; the same one if it is what the target would write.
    fn sealed(
        &self,
        session: &StoredSession,
        opened: &Opened,
        coding: Option<&Coding>,
    ) -> Result<Vec<u8>, OpenError> {
        let target = self.target.coding();
        if coding.is_some_and(|coding| coding.writes_as(target, opened)) {
            return Ok(session.value.clone());
        }
        target.seal(&opened.data, opened.signed_at)
    }

    /// What would be done.
    async fn look(&self, carried: Vec<Carried>) -> Result<(), CliError> {
        let keys: Vec<&str> = carried.iter().map(|it| it.stored.session_key.as_str()).collect();
        let found = self.target.bulk_get(&keys).await?;
        for (carried, found) in carried.iter().zip(found) {
            match found {
                None => {
                    add(&self.copied.created, 1);
                    self.dropped.add(&carried.dropped);
                }
                Some(found) => self.count(carried, &self.decision(carried, &found)),
            }
        }
        Ok(())
    }

    /// Adds sessions; returns those that are in the target now by our doing.
    async fn create<'a>(&self, carried: &'a [Carried]) -> Result<Vec<&'a Carried>, CliError> {
        let mut created = Vec::with_capacity(carried.len());
        let whole = 0..carried.len();
        let mut ranges = Vec::from([whole]);
        while let Some(range) = ranges.pop() {
            if range.is_empty() {
                continue;
            }
            let part = &carried[range.clone()];
            let stored: Vec<StoredSession> = part.iter().map(|it| it.stored.clone()).collect();
            match again(|| self.target.bulk_create(&stored)).await {
                Ok(taken) => {
                    let taken: HashSet<usize> = taken.into_iter().collect();
                    let added = part.iter().enumerate().filter(|(index, _)| !taken.contains(index));
                    for (_, carried) in added {
                        self.dropped.add(&carried.dropped);
                        created.push(carried);
                    }
                    add(&self.copied.created, part.len() - taken.len());
                    let met: Vec<&Carried> = taken.iter().map(|&index| &part[index]).collect();
                    created.extend(self.meet(&met).await?);
                }
                // One that the target cannot hold keeps no other out.
                Err(error) if part.len() > 1 && bulk::is_of_one_session(&error) => {
                    let middle = range.start + part.len() / 2;
                    ranges.push(range.start..middle);
                    ranges.push(middle..range.end);
                }
                Err(error) if bulk::names_nobody(&error) => {
                    let reason = "its user is not in the table of users that the target refers to";
                    self.rejects.add(&part[0].stored, &reason)?;
                }
                Err(error) if bulk::is_of_one_session(&error) => {
                    let error = CliError::from(error);
                    self.rejects.add(&part[0].stored, &error)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(created)
    }

    /// Decides about sessions that are in the target already, and carries it out; returns those that are there
    /// by our doing, as what was there had expired. Another one that is gone from the source may have been
    /// moved by the site.
    async fn meet<'a>(&self, met: &[&'a Carried]) -> Result<Vec<&'a Carried>, CliError> {
        let mut created = Vec::new();
        if met.is_empty() {
            return Ok(created);
        }
        let keys: Vec<&str> = met.iter().map(|it| it.stored.session_key.as_str()).collect();
        let found = again(|| self.target.bulk_get(&keys)).await?;
        for (carried, found) in met.iter().zip(found) {
            // One that has gone meanwhile was deleted there, and stays so.
            let Some(found) = found else { continue };
            let decision = self.decision(carried, &found);
            if let Decision::Write(written) = &decision {
                match self.overwrite(carried, found, written).await? {
                    Some(true) => {}
                    Some(false) => {
                        add(&self.copied.kept, 1);
                        continue;
                    }
                    None => continue,
                }
            }
            if matches!(&decision, Decision::Write(written) if written.over_expired) {
                created.push(*carried);
            }
            self.count(carried, &decision);
        }
        Ok(created)
    }

    fn decision(&self, carried: &Carried, found: &StoredSession) -> Decision {
        let ours = Side::new(&carried.stored, Some(&carried.opened), &self.settings);
        let opened = self.target.coding().open(found);
        let theirs = Side::new(found, opened.as_ref().ok(), &self.settings);
        decide(self.policy, &ours, &theirs, Timestamp::now())
    }

    fn count(&self, carried: &Carried, decision: &Decision) {
        if matches!(decision, Decision::Write(..)) {
            self.dropped.add(&carried.dropped);
        }
        let counter = match decision {
            Decision::Same => &self.copied.same,
            Decision::Keep => &self.copied.kept,
            Decision::Write(..) if self.policy == Policy::Merge => &self.copied.merged,
            Decision::Write(..) => &self.copied.replaced,
        };
        add(counter, 1);
    }

    /// Writes over the session that was found, if it still is that; false if somebody else was faster, none if it
    /// cannot be stored.
    async fn overwrite(
        &self,
        carried: &Carried,
        found: StoredSession,
        written: &Written,
    ) -> Result<Option<bool>, CliError> {
        let stored = &carried.stored;
        let Some(session_key) = SessionKey::parse(&stored.session_key) else {
            self.rejects.add(stored, &"the session key is none that Django takes")?;
            return Ok(None);
        };
        let Written { data, expire_date, signed_at, .. } = written;
        let record = SessionRecord {
            session_key,
            data: Arc::new(data.clone()),
            expire_date: *expire_date,
            revision: None,
        };
        let saved = again(|| self.target.save(&found, record.clone())).await;
        match saved {
            Ok(()) => {
                again(|| self.target.note_user(&stored.session_key, data)).await?;
                if let Some(signed_at) = signed_at {
                    self.sign_as_before(&stored.session_key, data, *signed_at).await?;
                }
                return Ok(Some(true));
            }
            Err(StoreError::Conflict | StoreError::Update) => return Ok(Some(false)),
            Err(StoreError::Encode(error)) => self.rejects.add(stored, &error)?,
            Err(error) if bulk::is_of_one_session(&error) => {
                self.rejects.add(stored, &CliError::from(error))?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(None)
    }

    /// Gives a session that was saved just now the time stamp that it had: it is as old as before, and who
    /// compares it next time has to see that. If somebody else has saved it meanwhile, it is as old as that.
    async fn sign_as_before(
        &self,
        session_key: &str,
        data: &SessionData,
        signed_at: i64,
    ) -> Result<(), CliError> {
        let coding = self.target.coding();
        if !coding.is_signed() {
            return Ok(());
        }
        let keys = [session_key];
        let found = again(|| self.target.bulk_get(&keys)).await?;
        let Some(stored) = found.into_iter().next().flatten() else { return Ok(()) };
        if !coding.open(&stored).is_ok_and(|now| is_same(&now.data, data)) {
            return Ok(());
        }
        let Ok(value) = coding.seal(data, Some(signed_at)) else { return Ok(()) };
        let change = [Change { stored: &stored, value }];
        // Who was faster has made it another one.
        again(|| self.target.bulk_update(&change)).await?;
        Ok(())
    }

    /// Whoever logged out while the session was copied stays logged out.
    async fn forget_deleted(&self, created: &[&Carried]) -> Result<(), CliError> {
        let Some(source) = &self.source else { return Ok(()) };
        if created.is_empty() {
            return Ok(());
        }
        let places: Vec<(&str, Place)> =
            created.iter().map(|it| (it.stored.session_key.as_str(), it.came_from)).collect();
        let exists = again(|| source.bulk_exists(&places)).await?;
        let gone = created.iter().zip(exists).filter(|(_, exists)| !exists);
        let gone: Vec<&StoredSession> = gone.map(|(it, _)| &it.stored).collect();
        if !gone.is_empty() {
            // Whatever others have made of it meanwhile: they went on with a session that had ended.
            again(|| self.target.bulk_delete(&gone, false)).await?;
            add(&self.copied.deleted, gone.len());
        }
        Ok(())
    }
}

/// Does it again after a while if the store could not be reached: everything here may be done twice.
pub(super) async fn again<T, F, W>(mut work: F) -> Result<T, StoreError>
where
    F: FnMut() -> W,
    W: Future<Output = Result<T, StoreError>>,
{
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match work().await {
            Err(StoreError::Busy(_) | StoreError::TimedOut(_) | StoreError::Unreachable(_)) => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            done => return done,
        }
    }
    work().await
}

/// A session as one of the two stores has it.
struct Side<'a> {
    /// None if it cannot be read.
    data: Option<&'a SessionData>,
    signed_at: Option<i64>,
    expire_date: DateTime,
    /// As [`StoredSession::end`] says.
    end: Option<Timestamp>,
}

impl<'a> Side<'a> {
    fn new(stored: &StoredSession, opened: Option<&'a Opened>, settings: &SessionSettings) -> Self {
        Self {
            data: opened.map(|it| &it.data),
            signed_at: opened.and_then(|it| it.signed_at),
            expire_date: stored.expire_date,
            end: stored.end(settings),
        }
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|end| end <= now)
    }

    fn ends_later_than(&self, other: &Self) -> bool {
        self.end.unwrap_or(Timestamp::MAX) > other.end.unwrap_or(Timestamp::MAX)
    }
}

/// What becomes of the session in the target.
#[derive(Debug)]
enum Decision {
    Same,
    Keep,
    Write(Written),
}

/// What is to be in the target.
#[derive(Debug)]
struct Written {
    data: SessionData,
    expire_date: DateTime,
    /// When it was saved, as far as that is known.
    signed_at: Option<i64>,
    /// Whether what was there before has expired.
    over_expired: bool,
}

/// Decides between a session from the source, which can be read, and that of the target.
fn decide(policy: Policy, ours: &Side<'_>, theirs: &Side<'_>, now: Timestamp) -> Decision {
    let Some(our_data) = ours.data else { return Decision::Keep };
    let over_expired = theirs.has_expired(now) && !ours.has_expired(now);
    let write = || {
        let (data, expire_date, signed_at) = (our_data.clone(), ours.expire_date, ours.signed_at);
        Decision::Write(Written { data, expire_date, signed_at, over_expired })
    };
    // Nobody is given it any more, so it is as good as not there.
    if over_expired {
        return write();
    }
    let Some(their_data) = theirs.data else {
        return if policy == Policy::Keep { Decision::Keep } else { write() };
    };
    let holds_same = is_same(our_data, their_data);
    if holds_same && is_same_end(ours.end, theirs.end) {
        return Decision::Same;
    }
    let is_newer = match (ours.signed_at, theirs.signed_at) {
        (Some(ours), Some(theirs)) if !holds_same => ours > theirs,
        // The end may have been moved without another signature.
        _ => ours.ends_later_than(theirs),
    };
    match policy {
        Policy::Replace => write(),
        Policy::Newer if is_newer => write(),
        Policy::Keep | Policy::Newer => Decision::Keep,
        Policy::Merge if holds_same && !is_newer => Decision::Keep,
        // What one user left there is none of another's business.
        Policy::Merge if are_of_two_users(our_data, their_data) => {
            if is_newer {
                write()
            } else {
                Decision::Keep
            }
        }
        Policy::Merge => {
            let (mut data, newer) = if is_newer {
                (their_data.clone(), our_data)
            } else {
                (our_data.clone(), their_data)
            };
            data.update(newer);
            let later = if ours.ends_later_than(theirs) { ours } else { theirs };
            let signed_at = ours.signed_at.max(theirs.signed_at);
            let expire_date = later.expire_date;
            Decision::Write(Written { data, expire_date, signed_at, over_expired })
        }
    }
}

fn are_of_two_users(one: &SessionData, other: &SessionData) -> bool {
    matches!((bulk::user(one), bulk::user(other)), (Some(one), Some(other)) if one != other)
}

/// Whether two sessions end at the same time, or nearly so, as far as that is known of both.
pub(super) fn is_same_end(one: Option<Timestamp>, other: Option<Timestamp>) -> bool {
    let ends = one.zip(other);
    ends.is_none_or(|(one, other)| one.duration_since(other).abs() <= TOLERANCE)
}

/// Whether two sessions hold the same, one perhaps as JSON and the other out of a pickle.
pub(super) fn is_same(one: &SessionData, other: &SessionData) -> bool {
    if let (Ok(one), Ok(other)) = (one.to_json(), other.to_json()) {
        return one == other;
    }
    matches!((one.to_pickle(4), other.to_pickle(4)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_600_000_000;

    fn side(data: Option<&SessionData>, end: Option<i64>) -> Side<'_> {
        let end = end.map(|end| Timestamp::from_second(NOW + end).unwrap());
        let expire_date = DateTime::Aware(end.unwrap_or(Timestamp::MAX));
        Side { data, signed_at: None, expire_date, end }
    }

    #[test]
    fn what_becomes_of_a_session_that_is_there() {
        use Policy::{Keep, Merge, Newer, Replace};
        let now = Timestamp::from_second(NOW).unwrap();
        let json = |text: &str| SessionData::from_json(text).unwrap();
        let (one, other) = (json(r#"{"a":1}"#), json(r#"{"a":2,"b":3}"#));
        let of_user = |id| json(&format!(r#"{{"_auth_user_id":"{id}"}}"#));
        let users = [of_user(1), of_user(2)];
        let decided = |policy, ours: (_, _), theirs: (_, _)| {
            let decision = decide(policy, &side(ours.0, ours.1), &side(theirs.0, theirs.1), now);
            match decision {
                Decision::Same => "same".to_owned(),
                Decision::Keep => "keep".to_owned(),
                Decision::Write(Written { data, expire_date, over_expired, .. }) => {
                    assert_eq!(over_expired, theirs.1 == Some(0));
                    let end = expire_date.to_timestamp(&jiff::tz::TimeZone::UTC).unwrap();
                    let end = (end != Timestamp::MAX).then(|| end.as_second() - NOW);
                    format!("{} {end:?}", data.to_json().unwrap())
                }
            }
        };
        let ours = r#"{"a":1} Some(60)"#;
        for policy in [Keep, Replace, Newer, Merge] {
            // Ends differ by what a store may round, or are not known.
            for end in [Some(60), Some(58), Some(62), None] {
                assert_eq!(decided(policy, (Some(&one), Some(60)), (Some(&one), end)), "same");
            }
            // What has expired is in nobody's way, readable or not.
            for theirs in [Some(&one), Some(&other), None] {
                assert_eq!(decided(policy, (Some(&one), Some(60)), (theirs, Some(0))), ours);
            }
        }
        for (policy, unreadable, older, newer) in [
            (Keep, "keep", "keep", "keep"),
            (Replace, ours, ours, ours),
            (Newer, ours, ours, "keep"),
            (Merge, ours, r#"{"a":1,"b":3} Some(60)"#, r#"{"a":2,"b":3} Some(90)"#),
        ] {
            assert_eq!(decided(policy, (Some(&one), Some(60)), (None, Some(90))), unreadable);
            assert_eq!(decided(policy, (Some(&one), Some(60)), (Some(&other), Some(30))), older);
            assert_eq!(decided(policy, (Some(&one), Some(60)), (Some(&other), Some(90))), newer);
        }
        let endless = r#"{"a":2,"b":3} None"#;
        assert_eq!(decided(Merge, (Some(&one), Some(60)), (Some(&other), None)), endless);
        let [first, second] = &users;
        assert_eq!(decided(Merge, (Some(first), Some(60)), (Some(second), Some(90))), "keep");
        let written = r#"{"_auth_user_id":"1"} Some(90)"#;
        assert_eq!(decided(Merge, (Some(first), Some(90)), (Some(second), Some(60))), written);
    }
}
