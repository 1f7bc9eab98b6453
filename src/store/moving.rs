//! Sessions that move from one store to another while the site runs.
//!
//! A session is read from the new store, and from the old one if it is not there. Whoever writes one that
//! is in the old store alone moves it. What has to hold, whoever meets whom:
//!
//! * The new store is right about a session that it has. What the old one has beside it is a **copy**, and
//!   whoever saves the session sees to it that the copy is the same again, or that there is none.
//! * A session is moved in two steps: it is **created** in the new store, and what was read is taken out
//!   of the old one, or replaced there, **if it still is what was read**. If it is not, somebody was
//!   faster: what was created goes again, and the caller reads anew. Until the second step is done, what was
//!   created has a **mark**, and who reads it looks whether the old store still has the session.
//! * What is gone from the old store was deleted. A save never deletes there other than by moving, and
//!   a delete begins with the old store; so whoever brought a session into the new one, looks at the old
//!   one afterwards and finds nothing there, knows that it has to go.
//!
//! Which interleavings there are, and why this holds in each: `docs/adr/0022-a-session-is-moved-in-two-steps.md`.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use jiff::Timestamp;
use jiff::civil::date;

use crate::codec::SessionData;
use crate::session::{
    DateTime, Revision, Saved, SessionKey, SessionRecord, SessionStore, StoreError,
};

/// How often a step is taken again that others have overtaken.
const MAX_TRIES: usize = 64;
/// How often neither store has a session that is none.
const MAX_MISSES: usize = 3;
/// How often to look whether somebody is done who is moving a session.
const PATIENCE: usize = 512;
/// The name that a session has in the new store for as long as it may still be in the old one.
const MARK: &str = "_session_moving";

/// Two stores, of which the sessions of one are on their way into the other.
///
/// The two may be of any kind, as long as each keeps the sessions itself: not
/// [signed cookies](super::SignedCookieStore). Sessions keep their keys, so nobody is logged out, and a
/// session moves when it is first written. Moving back is the same store with the two exchanged, at any
/// time, and processes of both directions may run side by side. `docs/moving.md` has the steps of a move,
/// and what may run beside it.
///
/// | step | round trips |
/// |---|---|
/// | load a session that is in the new store | 1 |
/// | load one that is in the old store alone | 2 |
/// | load one that is in neither | 6 |
/// | create | 2 |
/// | save one that is in the old store alone | 3 |
/// | save another | 2; 3 if there is a copy in the old store |
/// | delete | 4 |
///
/// Both stores have to be there: what one of them cannot be asked for is an error, and never "no such
/// session".
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use django_session::store::{MemoryStore, MovingStore};
/// use django_session::{SecretKey, Session, SessionSettings, SessionStore};
///
/// let settings = SessionSettings::default().with_secret_key(SecretKey::new("the site's SECRET_KEY")?);
/// let (old, new) = (MemoryStore::new(settings.codec()?), MemoryStore::new(settings.codec()?));
/// let settings = Arc::new(settings);
///
/// let session = Session::new(Arc::new(old.clone()), settings.clone(), None);
/// session.insert("cart", &["tea"]).await?;
/// session.save().await?;
/// let key = session.session_key().await;
///
/// let moving = Arc::new(MovingStore::new(old.clone(), new.clone()));
/// let session = Session::new(moving, settings, key.clone());
/// assert_eq!(session.get::<Vec<String>>("cart").await?.unwrap(), ["tea"]);
/// assert!(old.exists(&key.clone().unwrap()).await?, "who only looks moves nothing");
///
/// session.insert("seen", &true).await?;
/// session.save().await?;
/// assert!(new.exists(&key.clone().unwrap()).await?);
/// assert!(!old.exists(&key.unwrap()).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MovingStore {
    old: Arc<dyn SessionStore>,
    new: Arc<dyn SessionStore>,
    write_both: bool,
}

impl MovingStore {
    /// Moves sessions out of `old` into `new`.
    pub fn new(old: impl SessionStore, new: impl SessionStore) -> Self {
        Self { old: Arc::new(old), new: Arc::new(new), write_both: false }
    }

    /// Sets whether the old store keeps the sessions that it has, as they are when they are written, and
    /// gets the new ones too: then programs that know nothing of the move still read every session there,
    /// and go on with it if the move is given up. They must not write there: nobody would see it.
    ///
    /// A session that has left the old store before does not come back into it.
    #[must_use]
    pub fn with_write_both(mut self, write_both: bool) -> Self {
        self.write_both = write_both;
        self
    }

    /// The session, wherever it is.
    async fn find(
        &self,
        session_key: &SessionKey,
        now: DateTime,
        latest: bool,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let (mut misses, mut seen) = (0, None);
        for _ in 0..MAX_TRIES {
            let new = load(&*self.new, session_key, now, latest).await?;
            let (new, is_marked) = without_mark(new);
            if let Some(found) = new.as_ref().filter(|_| !is_marked) {
                let state = |new| State::New { new, copy: OldCopy::Unknown };
                return Ok(Some(with_state(found.clone(), state)));
            }
            let old = load(&*self.old, session_key, now, latest).await?;
            // A server that ends sessions by a clock of its own takes the other one's word for it.
            let (old, is_old_marked) =
                without_mark(old.filter(|old| is_after(old.expire_date, now)));
            let found = match (old, new) {
                (Some(found), _) => {
                    let any_time = any_time(&found);
                    let found = with_state(found, |old| State::Old { old, any_time });
                    if !is_old_marked {
                        return Ok(Some(found));
                    }
                    found
                }
                (None, Some(found)) => {
                    with_state(found, |new| State::New { new, copy: OldCopy::Unknown })
                }
                (None, None) => {
                    // Asked again: somebody may move it between the two questions, and where both
                    // directions run side by side somebody else may move it back.
                    misses += 1;
                    if misses == MAX_MISSES {
                        return Ok(None);
                    }
                    continue;
                }
            };
            // Whoever marked it is done, if it is the same after the other store had none.
            if seen.is_some() && seen == found.revision {
                return Ok(Some(found));
            }
            seen = found.revision;
            give_way().await;
        }
        Err(StoreError::Conflict)
    }

    /// The copy that the old store has, expired or not.
    async fn look_at_copy(&self, record: &SessionRecord) -> Result<OldCopy, StoreError> {
        let copy = as_it_is(&*self.old, &record.session_key, any_time(record)).await?;
        Ok(match copy {
            // Somebody moves the session the other way, and sees to it himself.
            Some(copy) if copy.is_marked && !self.write_both => OldCopy::Absent,
            Some(copy) => OldCopy::Present(copy.revision()),
            None => OldCopy::Absent,
        })
    }

    /// Sees to the copy, once the new store has the session as `saved`.
    ///
    /// Where there is none there will be none, also if both are written: somebody may just be deleting the
    /// session, who has begun with the copy, and another one would bring it back.
    async fn keep_copy(
        &self,
        record: &SessionRecord,
        saved: Saved,
        mut copy: OldCopy,
    ) -> Result<Saved, StoreError> {
        let done = |copy| Ok(saved_in_new(saved.revision.clone(), copy));
        for _ in 0..MAX_TRIES {
            let OldCopy::Present(revision) = copy else { return done(copy) };
            let replaced = SessionRecord { revision, ..record.clone() };
            match self.old.save(&replaced).await {
                Ok(replaced) => return done(OldCopy::Present(replaced.revision)),
                Err(StoreError::Conflict | StoreError::Update) => {}
                Err(error) => return Err(error),
            }
            // It was another one. Whoever saved the session last sees to the copy. In this order: a copy
            // that was there before is none of somebody who has saved it later.
            copy = self.look_at_copy(record).await?;
            match as_it_is(&*self.new, &record.session_key, any_time(record)).await? {
                None => return done(OldCopy::Absent),
                Some(now) if now.revision() != saved.revision => return done(OldCopy::Unknown),
                Some(_) => {}
            }
            give_way().await;
        }
        Err(StoreError::Conflict)
    }

    /// Brings a session into the new store that the old one has as `before`; without, whatever it has.
    ///
    /// [`StoreError::Conflict`] if that is not so any more, or the new store has it by now.
    async fn bring_over(
        &self,
        record: &SessionRecord,
        before: Option<Revision>,
    ) -> Result<Saved, StoreError> {
        let created = match self.new.create(&with_mark(record)?).await {
            Err(StoreError::Create) => {
                let taken = self.take_over(&record.session_key, any_time(record)).await?;
                // Should he wake up after all, this is not what he has read. From here on it is saved.
                let copy = SessionRecord { revision: before, ..record.clone() };
                let copy = self.old.save(&copy).await?.revision;
                let replaced = SessionRecord { revision: Some(taken), ..record.clone() };
                return match self.new.save(&replaced).await {
                    Ok(saved) => Ok(saved_in_new(saved.revision, OldCopy::Present(copy))),
                    // Somebody has gone on from what is in the old store.
                    Err(StoreError::Conflict | StoreError::Update) => {
                        let any_time = any_time(record);
                        let revision = copy.map(|old| State::Old { old, any_time }.to_revision());
                        Ok(Saved { revision, ..Saved::default() })
                    }
                    Err(error) => Err(error),
                };
            }
            created => created?.revision,
        };
        match self.take_out(record, before).await {
            Ok(copy) => {
                let unmarked = SessionRecord { revision: created.clone(), ..record.clone() };
                return match self.new.save(&unmarked).await {
                    Ok(saved) => Ok(saved_in_new(saved.revision, copy)),
                    // It is moved, and somebody has gone on from here. Or the mark stays, which costs
                    // those a look who read it.
                    Err(error) => {
                        tracing::debug!(target: "django_session", %error, "a mark is left");
                        Ok(saved_in_new(created, OldCopy::Unknown))
                    }
                };
            }
            Err(StoreError::Conflict | StoreError::Update) => {}
            Err(error) => return Err(error),
        }
        let session_key = &record.session_key;
        match (self.look_at_copy(record).await?, &created) {
            // It was deleted. Whatever others have made of what was created here goes too.
            (OldCopy::Absent, _) => self.delete(session_key).await?,
            // What lives no longer was not even created.
            (_, None) => {}
            (_, Some(created)) => match self.new.delete_revision(session_key, created).await {
                Ok(()) => {}
                // Somebody has saved it by now: that stays, and the caller reads it.
                Err(StoreError::Conflict) if self.new.exists(session_key).await? => {}
                // Somebody has moved it the other way, where there was nothing in its way: what was there
                // had been deleted.
                Err(StoreError::Conflict) => self.delete(session_key).await?,
                Err(error) => return Err(error),
            },
        }
        Err(StoreError::Conflict)
    }

    /// Puts a mark of our own on a marked session that nobody goes on with: whoever moved it was killed,
    /// or is slow. Nobody else takes it over then.
    ///
    /// It stays what it was. He may still take his second step, and then it is the session.
    async fn take_over(
        &self,
        session_key: &SessionKey,
        any_time: DateTime,
    ) -> Result<Revision, StoreError> {
        let mut before: Option<SessionRecord> = None;
        for _ in 0..PATIENCE {
            let found = as_it_is(&*self.new, session_key, any_time).await?;
            let Some(Found { record: Some(record), is_marked: true }) = found else {
                return Err(StoreError::Conflict);
            };
            if before.as_ref().is_some_and(|before| before.revision != record.revision) {
                return Err(StoreError::Conflict);
            }
            before = Some(record);
            give_way().await;
        }
        let abandoned = before.ok_or(StoreError::Conflict)?;
        self.new.save(&with_mark(&abandoned)?).await?.revision.ok_or(StoreError::Conflict)
    }

    /// The second step of moving.
    async fn take_out(
        &self,
        record: &SessionRecord,
        before: Option<Revision>,
    ) -> Result<OldCopy, StoreError> {
        if self.write_both {
            let replaced = SessionRecord { revision: before, ..record.clone() };
            return Ok(OldCopy::Present(self.old.save(&replaced).await?.revision));
        }
        let session_key = &record.session_key;
        match before {
            Some(before) => self.old.delete_revision(session_key, &before).await?,
            None if self.old.exists(session_key).await? => self.old.delete(session_key).await?,
            None => return Err(StoreError::Update),
        }
        Ok(OldCopy::Absent)
    }

    /// Saves a session whatever it is by now, wherever it is.
    async fn save_any(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        for _ in 0..MAX_TRIES {
            let copy = self.look_at_copy(record).await?;
            match (self.new.save(record).await, copy) {
                (Ok(saved), copy) => return self.keep_copy(record, saved, copy).await,
                (Err(StoreError::Update), OldCopy::Present(before)) => {
                    match self.bring_over(record, before).await {
                        Err(StoreError::Conflict) => {}
                        done => return done,
                    }
                }
                (Err(error), _) => return Err(error),
            }
            give_way().await;
        }
        Err(StoreError::Conflict)
    }
}

#[async_trait]
impl SessionStore for MovingStore {
    async fn exists(&self, session_key: &SessionKey) -> Result<bool, StoreError> {
        // Asked again, as in `find`.
        Ok(self.new.exists(session_key).await?
            || self.old.exists(session_key).await?
            || self.new.exists(session_key).await?)
    }

    async fn create(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        if !self.write_both {
            if self.old.exists(&record.session_key).await? {
                return Err(StoreError::Create);
            }
            let created = self.new.create(record).await?;
            return Ok(saved_in_new(created.revision, OldCopy::Absent));
        }
        // The copy first: that the key is taken shows in either, before anybody could read another's session.
        let copy = self.old.create(record).await?.revision;
        match self.new.create(record).await {
            Ok(created) => Ok(saved_in_new(created.revision, OldCopy::Present(copy))),
            Err(error) => {
                if let Some(copy) = copy {
                    // If that fails too, a session is left that nobody knows the key of.
                    let _ = self.old.delete_revision(&record.session_key, &copy).await;
                }
                Err(error)
            }
        }
    }

    async fn load(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.find(session_key, now, false).await
    }

    async fn load_latest(
        &self,
        session_key: &SessionKey,
        now: DateTime,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.find(session_key, now, true).await
    }

    async fn save(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let Some(revision) = &record.revision else { return self.save_any(record).await };
        match State::of(revision).ok_or(StoreError::Conflict)? {
            State::Old { old: before, .. } => self.bring_over(record, Some(before)).await,
            State::New { new, copy } => {
                let copy = match copy {
                    OldCopy::Unknown => self.look_at_copy(record).await?,
                    known => known,
                };
                let replaced = SessionRecord { revision: Some(new), ..record.clone() };
                let saved = self.new.save(&replaced).await?;
                self.keep_copy(record, saved, copy).await
            }
        }
    }

    async fn touch(&self, record: &SessionRecord) -> Result<Saved, StoreError> {
        let state = record.revision.as_ref().and_then(State::of);
        let known = match &state {
            Some(State::New { new, .. }) => Some(new.clone()),
            _ => None,
        };
        let inner = SessionRecord { revision: known, ..record.clone() };
        let same = || Saved { revision: record.revision.clone(), ..Saved::default() };
        for _ in 0..MAX_TRIES {
            match self.new.touch(&inner).await {
                Ok(touched) => {
                    // A copy lives as long, so that no dead session comes back and no live one ends.
                    match self.old.touch(&SessionRecord { revision: None, ..record.clone() }).await
                    {
                        Ok(_) | Err(StoreError::Update) => {}
                        Err(error) => return Err(error),
                    }
                    return Ok(match (state, touched.revision) {
                        (Some(State::New { copy, .. }), new @ Some(_)) => saved_in_new(new, copy),
                        _ => same(),
                    });
                }
                Err(StoreError::Update) => {}
                Err(error) => return Err(error),
            }
            let found = self.old.load_latest(&record.session_key, any_time(record)).await?;
            let Some(found) = without_mark(found).0 else {
                // As in `find`.
                if self.new.exists(&record.session_key).await? {
                    continue;
                }
                return Err(StoreError::Update);
            };
            let before = found.revision;
            let is_loaded = matches!((&state, &before),
                (Some(State::Old { old: loaded, .. }), Some(before)) if loaded == before);
            let moved =
                SessionRecord { data: found.data, revision: before.clone(), ..record.clone() };
            match self.bring_over(&moved, before).await {
                Ok(saved) => return Ok(if is_loaded { saved } else { same() }),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
            give_way().await;
        }
        Err(StoreError::Conflict)
    }

    async fn delete(&self, session_key: &SessionKey) -> Result<(), StoreError> {
        // The old store first: whoever brings the session over looks there afterwards. And once more, for
        // those who move it the other way meanwhile, and back again.
        for _ in 0..2 {
            self.old.delete(session_key).await?;
            self.new.delete(session_key).await?;
        }
        Ok(())
    }

    async fn delete_revision(
        &self,
        session_key: &SessionKey,
        revision: &Revision,
    ) -> Result<(), StoreError> {
        match State::of(revision).ok_or(StoreError::Conflict)? {
            State::Old { old: before, any_time } => {
                if self.new.exists(session_key).await? {
                    self.take_over(session_key, any_time).await?;
                }
                self.old.delete_revision(session_key, &before).await?;
                // Whoever is bringing it over finds that it is gone, if nobody kills him before.
                if let Err(error) = self.new.delete(session_key).await {
                    tracing::warn!(target: "django_session", %error, "a moved session may be left");
                }
                Ok(())
            }
            State::New { new, .. } => {
                // The copy first: it would be the session as soon as the other one is gone.
                self.old.delete(session_key).await?;
                self.new.delete_revision(session_key, &new).await
            }
        }
    }

    async fn cycle_key(
        &self,
        session_key: &SessionKey,
        record: &SessionRecord,
    ) -> Result<Saved, StoreError> {
        const TWO_STEPS: StoreError = StoreError::Unsupported { operation: "cycle_key" };
        let before = match &record.revision {
            None => None,
            Some(revision) => match State::of(revision).ok_or(StoreError::Conflict)? {
                State::Old { .. } => return Err(TWO_STEPS),
                State::New { new, .. } => Some(new),
            },
        };
        // What is in the old store too, or alone, is not moved by the new one.
        if self.write_both || self.old.exists(session_key).await? {
            return Err(TWO_STEPS);
        }
        if self.old.exists(&record.session_key).await? {
            return Err(StoreError::Create);
        }
        let moved = SessionRecord { revision: before, ..record.clone() };
        let saved = self.new.cycle_key(session_key, &moved).await?;
        Ok(saved_in_new(saved.revision, OldCopy::Absent))
    }

    /// Sessions that both stores have are counted once if both are written, as far as that can be told.
    async fn clear_expired(&self, now: DateTime) -> Result<u64, StoreError> {
        let cleared = [self.new.clear_expired(now).await, self.old.clear_expired(now).await];
        match cleared {
            [Ok(new), Ok(old)] if self.write_both => Ok(new.max(old)),
            [Ok(new), Ok(old)] => Ok(new + old),
            // There they end by themselves.
            [done, Err(StoreError::Unsupported { .. })]
            | [Err(StoreError::Unsupported { .. }), done] => done,
            [Err(error), _] | [_, Err(error)] => Err(error),
        }
    }

    async fn close(&self) {
        self.new.close().await;
        self.old.close().await;
    }
}

/// What a revision of this store is made of.
enum State {
    /// It was loaded from the old store.
    Old {
        old: Revision,
        /// At which every session counts.
        any_time: DateTime,
    },
    /// It is in the new store.
    New { new: Revision, copy: OldCopy },
}

/// What is known of the copy in the old store.
enum OldCopy {
    Unknown,
    Absent,
    /// There is one, of this revision; without, it is to be replaced whatever it is.
    Present(Option<Revision>),
}

const OLD: u8 = 0;
const NEW: u8 = 1;
const OLD_NAIVE: u8 = 2;

const UNKNOWN: u8 = 0;
const ABSENT: u8 = 1;
const UNREADABLE: u8 = 2;
const PRESENT: u8 = 3;

impl State {
    /// Which store and what is known of the copy, the length of the first revision, both.
    fn to_revision(&self) -> Revision {
        let (store, first, copy) = match self {
            Self::Old { old, any_time: DateTime::Aware(_) } => (OLD, old, &OldCopy::Unknown),
            Self::Old { old, any_time: DateTime::Naive(_) } => (OLD_NAIVE, old, &OldCopy::Unknown),
            Self::New { new, copy } => (NEW, new, copy),
        };
        let (kind, second) = match copy {
            OldCopy::Unknown => (UNKNOWN, &[][..]),
            OldCopy::Absent => (ABSENT, &[][..]),
            OldCopy::Present(None) => (UNREADABLE, &[][..]),
            OldCopy::Present(Some(copy)) => (PRESENT, copy.as_bytes()),
        };
        let first = first.as_bytes();
        let mut bytes = Vec::with_capacity(10 + first.len() + second.len());
        bytes.extend([store, kind]);
        bytes.extend((first.len() as u64).to_le_bytes());
        bytes.extend(first);
        bytes.extend(second);
        Revision::new(bytes)
    }

    fn of(revision: &Revision) -> Option<Self> {
        let (&[store, kind], rest) = revision.as_bytes().split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (first, second) = rest.split_at_checked(length)?;
        let first = Revision::new(first);
        let copy = match kind {
            UNKNOWN => OldCopy::Unknown,
            ABSENT => OldCopy::Absent,
            UNREADABLE => OldCopy::Present(None),
            PRESENT => OldCopy::Present(Some(Revision::new(second))),
            _ => return None,
        };
        match store {
            OLD => Some(Self::Old { old: first, any_time: AWARE }),
            OLD_NAIVE => Some(Self::Old { old: first, any_time: NAIVE }),
            NEW => Some(Self::New { new: first, copy }),
            _ => None,
        }
    }
}

fn is_after(this: DateTime, other: DateTime) -> bool {
    this.since(other).is_none_or(|left| left.is_positive())
}

fn with_mark(record: &SessionRecord) -> Result<SessionRecord, StoreError> {
    let mut data = SessionData::clone(&record.data);
    // Each is another one, even of the same session.
    data.insert(MARK, SessionKey::generate().as_str()).map_err(StoreError::Encode)?;
    Ok(SessionRecord { data: Arc::new(data), ..record.clone() })
}

/// The session as it was before it was marked, and whether it was.
fn without_mark(found: Option<SessionRecord>) -> (Option<SessionRecord>, bool) {
    match found {
        Some(mut found) if found.data.contains_key(MARK) => {
            Arc::make_mut(&mut found.data).remove(MARK);
            (Some(found), true)
        }
        found => (found, false),
    }
}

fn with_state(mut record: SessionRecord, state: impl FnOnce(Revision) -> State) -> SessionRecord {
    record.revision = record.revision.map(|revision| state(revision).to_revision());
    record
}

async fn load(
    store: &dyn SessionStore,
    session_key: &SessionKey,
    now: DateTime,
    latest: bool,
) -> Result<Option<SessionRecord>, StoreError> {
    if latest {
        store.load_latest(session_key, now).await
    } else {
        store.load(session_key, now).await
    }
}

fn saved_in_new(revision: Option<Revision>, copy: OldCopy) -> Saved {
    let revision = revision.map(|new| State::New { new, copy }.to_revision());
    Saved { revision, ..Saved::default() }
}

/// What a store has under a key, expired or not, readable or not.
struct Found {
    /// Without its mark; none if it cannot be read: nobody loses anything if that is replaced.
    record: Option<SessionRecord>,
    is_marked: bool,
}

impl Found {
    fn revision(&self) -> Option<Revision> {
        self.record.as_ref()?.revision.clone()
    }
}

async fn as_it_is(
    store: &dyn SessionStore,
    session_key: &SessionKey,
    any_time: DateTime,
) -> Result<Option<Found>, StoreError> {
    match store.load_latest(session_key, any_time).await {
        Ok(found) => {
            let (found, is_marked) = without_mark(found);
            Ok(found.map(|record| Found { record: Some(record), is_marked }))
        }
        Err(error) if error.is_corrupt() => Ok(Some(Found { record: None, is_marked: false })),
        Err(error) => Err(error),
    }
}

const AWARE: DateTime = DateTime::Aware(Timestamp::UNIX_EPOCH);
const NAIVE: DateTime = DateTime::Naive(date(1970, 1, 1).at(0, 0, 0, 0));

/// A time, of the kind that the record has, at which a session counts that has expired meanwhile.
fn any_time(record: &SessionRecord) -> DateTime {
    match record.expire_date {
        DateTime::Aware(_) => AWARE,
        DateTime::Naive(_) => NAIVE,
    }
}

/// Lets the others of this thread go on.
async fn give_way() {
    let mut has_waited = false;
    poll_fn(|context| {
        if has_waited {
            return Poll::Ready(());
        }
        has_waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_written_into_revisions_and_read_back() {
        let revision = |bytes: &[u8]| Revision::new(bytes);
        for bytes in [&b""[..], b"row", b"\0\x01"] {
            for time in [AWARE, NAIVE] {
                let written = State::Old { old: revision(bytes), any_time: time }.to_revision();
                let Some(State::Old { old, any_time }) = State::of(&written) else {
                    panic!("it is of the old one")
                };
                assert!(old == revision(bytes) && any_time == time);
            }
            for copy in [None, Some(&b""[..]), Some(b"copy")] {
                let copy = copy.map(revision);
                let state =
                    State::New { new: revision(bytes), copy: OldCopy::Present(copy.clone()) };
                let written = state.to_revision();
                let Some(State::New { new, copy: OldCopy::Present(read) }) = State::of(&written)
                else {
                    panic!("it is of the new one, with a copy")
                };
                assert!(new == revision(bytes) && read == copy);
            }
        }
        let broken = [&b""[..], b"\x01", b"\x03\0\0\0\0\0\0\0\0\0", b"\0\x09\0\0\0\0\0\0\0\0"];
        for broken in broken {
            assert!(State::of(&revision(broken)).is_none());
        }
        assert!(State::of(&revision(&[0xff; 30])).is_none());
    }
}
