//! The session object: Django's `SessionBase`, step for step.
//!
//! Decisions are pure (`SessionState`, [`Expiry`]); [`Session`] adds the store, the clock and a
//! lock. It is what `django.contrib.sessions.backends.base` is in Django 6.1, with the async names of
//! 5.1 stripped of their `a`. Different: values are typed, an error of the store is never "no
//! session", and a new key is drawn without asking first whether it is taken, because
//! [`SessionStore::create`] tells.

mod auth;
mod datetime;
mod error;
mod expiry;
#[cfg(any(feature = "auth", feature = "tower"))]
mod exported;
mod interface;
mod key;
mod merge;
mod settings;
mod state;

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{Mutex, MutexGuard};

pub use self::auth::{
    AuthHashMatch, BACKEND_KEY, HASH_KEY, USER_ID_KEY, session_auth_hash, session_auth_hash_with,
    verify_session_auth_hash, verify_session_auth_hash_with,
};
pub use self::datetime::DateTime;
pub use self::error::{SessionError, StoreError};
pub(crate) use self::expiry::Stored;
pub use self::expiry::{EXPIRY_KEY, Expiry, ExpiryError};
#[cfg(any(feature = "auth", feature = "tower"))]
pub(crate) use self::exported::Exported;
pub use self::interface::{Revision, Saved, SessionRecord, SessionStore};
pub use self::key::SessionKey;
#[cfg(not(feature = "python"))]
use self::merge::Changes;
#[cfg(feature = "python")]
pub(crate) use self::merge::Changes;
pub use self::merge::{Conflict, OnConflict, Resolution};
pub use self::settings::{SameSite, SessionSettings, SettingsError};
#[cfg(feature = "tower")]
pub(crate) use self::state::Flags;
#[cfg(not(feature = "python"))]
use self::state::{SessionState, Snapshot};
#[cfg(feature = "python")]
pub(crate) use self::state::{SessionState, Snapshot};
use crate::codec::{self, SessionData};

/// How often a new key is drawn before the store is taken for broken; Django's number for caches.
const MAX_CREATE_TRIES: usize = 10_000;
/// How often a save that others have overtaken is merged and tried again. Each time one of them got
/// through, and they are those of other processes: in this one they wait for each other.
const MAX_SAVE_TRIES: usize = 1_000;
const TEST_COOKIE_NAME: &str = "testcookie";
const TEST_COOKIE_VALUE: &str = "worked";

/// Tells the time. The system does by default; tests bring their own.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present.
    fn now(&self) -> Timestamp;
}

/// The clock of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A session, loaded when it is first looked at and saved when asked.
///
/// Clones are handles to the same session. The methods are Django's; a change is kept in memory until
/// [`Session::save`], which the web layer calls at the end of a request.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use django_session::{SecretKey, Session, SessionCodec, SessionSettings, store::MemoryStore};
///
/// let store = Arc::new(MemoryStore::new(SessionCodec::new(&SecretKey::new("secret")?)));
/// let settings = Arc::new(SessionSettings::default());
///
/// let session = Session::new(store.clone(), settings.clone(), None);
/// session.insert("cart", &["tea", "milk"]).await?;
/// session.save().await?;
///
/// let later = Session::new(store, settings, session.session_key().await);
/// assert_eq!(later.get::<Vec<String>>("cart").await?.unwrap(), ["tea", "milk"]);
/// assert!(later.accessed().await && !later.modified().await);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn SessionStore>,
    settings: Arc<SessionSettings>,
    clock: Arc<dyn Clock>,
    state: Mutex<SessionState>,
}

impl Session {
    /// The session with this key, or a new one. Nothing is loaded yet.
    pub fn new(
        store: Arc<dyn SessionStore>,
        settings: Arc<SessionSettings>,
        session_key: Option<SessionKey>,
    ) -> Self {
        Self::with_clock(store, settings, session_key, Arc::new(SystemClock))
    }

    /// As [`Session::new`], with another clock.
    pub fn with_clock(
        store: Arc<dyn SessionStore>,
        settings: Arc<SessionSettings>,
        session_key: Option<SessionKey>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let state = Mutex::new(SessionState::new(session_key));
        Self { inner: Arc::new(Inner { store, settings, clock, state }) }
    }

    /// A session of which a caller keeps the parts between one call and the next.
    #[cfg(feature = "python")]
    pub(crate) fn from_state(
        store: Arc<dyn SessionStore>,
        settings: Arc<SessionSettings>,
        state: SessionState,
    ) -> Self {
        let (clock, state) = (Arc::new(SystemClock), Mutex::new(state));
        Self { inner: Arc::new(Inner { store, settings, clock, state }) }
    }

    /// The parts after a step.
    #[cfg(feature = "python")]
    pub(crate) async fn parts(&self) -> (Option<SessionKey>, Arc<SessionData>, Option<Snapshot>) {
        let state = self.inner.state.lock().await;
        (state.session_key.clone(), state.data(), state.snapshot().cloned())
    }

    /// The settings this session follows.
    pub fn settings(&self) -> &SessionSettings {
        &self.inner.settings
    }

    /// The key; `None` for a session that was never saved or turned out not to exist.
    pub async fn session_key(&self) -> Option<SessionKey> {
        self.inner.state.lock().await.session_key.clone()
    }

    /// The session that the store has under the same key, of which nothing is loaded yet and nothing
    /// changed: what a long connection asks to see what has become of its session.
    pub async fn reopen(&self) -> Self {
        Self::with_clock(
            Arc::clone(&self.inner.store),
            Arc::clone(&self.inner.settings),
            self.session_key().await,
            Arc::clone(&self.inner.clock),
        )
    }

    /// Whether the data was looked at. Responses then depend on the cookie.
    pub async fn accessed(&self) -> bool {
        self.inner.state.lock().await.accessed
    }

    /// Whether there is something to save.
    pub async fn modified(&self) -> bool {
        self.inner.state.lock().await.modified
    }

    /// Marks the session as changed, or as not (`session.modified = True`).
    pub async fn set_modified(&self, modified: bool) {
        self.inner.state.lock().await.modified = modified;
    }

    /// Whether there is neither key nor data. A session that was cleared but has a key is not empty.
    pub async fn is_empty(&self) -> bool {
        self.inner.state.lock().await.is_empty()
    }

    /// The value of this name, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`SessionError::Value`] if it is of another type, [`SessionError::Store`] if loading failed.
    pub async fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, SessionError> {
        Ok(self.accessed_state().await?.data().get(name)?)
    }

    /// Whether there is a value of this name, `None` included.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] if loading failed.
    #[doc(alias = "has_key")]
    pub async fn contains_key(&self, name: &str) -> Result<bool, SessionError> {
        Ok(self.accessed_state().await?.data().contains_key(name))
    }

    /// Everything in the session, as it is now (`items()`, `keys()`, `values()`).
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] if loading failed.
    #[doc(alias = "items")]
    pub async fn data(&self) -> Result<Arc<SessionData>, SessionError> {
        Ok(self.accessed_state().await?.data())
    }

    /// Sets a value (`session[name] = value`).
    ///
    /// # Errors
    ///
    /// [`SessionError::Encode`] if the value has no form that Django reads; nothing changes then.
    pub async fn insert<T: Serialize + ?Sized>(
        &self,
        name: &str,
        value: &T,
    ) -> Result<(), SessionError> {
        let json = codec::value_to_json(value)?;
        self.accessed_state().await?.insert_json(name, json);
        Ok(())
    }

    /// Returns the value of this name; sets it first if there is none.
    ///
    /// # Errors
    ///
    /// As [`Session::get`] and [`Session::insert`].
    pub async fn setdefault<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        default: T,
    ) -> Result<T, SessionError> {
        let mut state = self.accessed_state().await?;
        // `None` stored under the name is a value too; the type decides what it makes of it.
        if let Some(json) = state.data().get_raw(name)? {
            return Ok(codec::value_from_json(&json)?);
        }
        state.insert_json(name, codec::value_to_json(&default)?);
        Ok(default)
    }

    /// Sets every entry of `other` (`dict.update`). The session counts as modified even if there is
    /// none.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] if loading failed.
    pub async fn update(&self, other: &SessionData) -> Result<(), SessionError> {
        self.accessed_state().await?.update(other);
        Ok(())
    }

    /// Removes a value and tells whether it was there (`del session[name]`). Without it the session
    /// does not count as modified.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] if loading failed.
    pub async fn remove(&self, name: &str) -> Result<bool, SessionError> {
        Ok(self.accessed_state().await?.remove(name))
    }

    /// Removes a value and returns it.
    ///
    /// # Errors
    ///
    /// As [`Session::get`]; a value of another type stays where it is.
    pub async fn pop<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, SessionError> {
        let mut state = self.accessed_state().await?;
        let value = state.data().get(name)?;
        state.remove(name);
        Ok(value)
    }

    /// Removes all values without loading them. The key stays: the session is saved as an empty one.
    pub async fn clear(&self) {
        self.inner.state.lock().await.clear();
    }

    /// Sets a value that only a client which keeps cookies brings back.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] if loading failed.
    pub async fn set_test_cookie(&self) -> Result<(), SessionError> {
        self.insert(TEST_COOKIE_NAME, TEST_COOKIE_VALUE).await
    }

    /// Whether the client brought the value of [`Session::set_test_cookie`] back.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] if loading failed.
    pub async fn test_cookie_worked(&self) -> Result<bool, SessionError> {
        let data = self.data().await?;
        Ok(data.get::<String>(TEST_COOKIE_NAME).ok().flatten().as_deref()
            == Some(TEST_COOKIE_VALUE))
    }

    /// Removes that value and tells whether it was there.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] if loading failed.
    pub async fn delete_test_cookie(&self) -> Result<bool, SessionError> {
        self.remove(TEST_COOKIE_NAME).await
    }

    /// Sets how long the session lives.
    ///
    /// # Errors
    ///
    /// [`SessionError::Expiry`] if the date is out of range.
    pub async fn set_expiry(&self, expiry: Expiry) -> Result<(), SessionError> {
        let date = match expiry {
            Expiry::Default => {
                self.remove(EXPIRY_KEY).await?;
                return Ok(());
            }
            Expiry::BrowserClose => return self.insert(EXPIRY_KEY, &0).await,
            Expiry::Age(seconds) => return self.insert(EXPIRY_KEY, &seconds).await,
            Expiry::In(duration) => {
                self.now().checked_add(duration).ok_or(ExpiryError::OutOfRange)?
            }
            Expiry::Date(date) => date,
        };
        self.insert(EXPIRY_KEY, &date.isoformat()).await
    }

    /// How long the session lives from now on.
    ///
    /// # Errors
    ///
    /// [`SessionError::Expiry`] if what is stored is no expiry.
    #[doc(alias = "get_expiry_age")]
    pub async fn expiry_age(&self) -> Result<SignedDuration, SessionError> {
        self.expiry_age_from(self.now()).await
    }

    /// How long the session lives from `modification` on.
    ///
    /// # Errors
    ///
    /// As [`Session::expiry_age`].
    pub async fn expiry_age_from(
        &self,
        modification: DateTime,
    ) -> Result<SignedDuration, SessionError> {
        let stored = self.stored_expiry().await?;
        Ok(stored.age(modification, self.settings().cookie_age)?)
    }

    /// When the session expires if it is saved now.
    ///
    /// # Errors
    ///
    /// As [`Session::expiry_age`].
    #[doc(alias = "get_expiry_date")]
    pub async fn expiry_date(&self) -> Result<DateTime, SessionError> {
        self.expiry_date_from(self.now()).await
    }

    /// When the session expires if it was saved at `modification`.
    ///
    /// # Errors
    ///
    /// As [`Session::expiry_age`].
    pub async fn expiry_date_from(&self, modification: DateTime) -> Result<DateTime, SessionError> {
        let stored = self.stored_expiry().await?;
        Ok(stored.date(modification, self.settings().cookie_age)?)
    }

    /// Whether the cookie ends with the browser.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`] if loading failed.
    #[doc(alias = "get_expire_at_browser_close")]
    pub async fn expire_at_browser_close(&self) -> Result<bool, SessionError> {
        let stored = self.stored_expiry().await?;
        Ok(stored.at_browser_close(self.settings().expire_at_browser_close))
    }

    /// Whether the store has a session of this key, expired or not.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`].
    pub async fn exists(&self, session_key: &SessionKey) -> Result<bool, SessionError> {
        Ok(self.inner.store.exists(session_key).await?)
    }

    /// Stores what is in memory under a new key. What an old key leads to is neither loaded nor
    /// removed.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`]; the key is the old one then.
    pub async fn create(&self) -> Result<(), SessionError> {
        let mut state = self.inner.state.lock().await;
        if self.inner.store.is_in_key() {
            // There is no place to be taken, so it is left to the save.
            state.modified = true;
            return Ok(());
        }
        self.create_locked(&mut state).await?;
        Ok(())
    }

    /// Writes the session back, under a new key if it has none.
    ///
    /// If another request has saved it since it was loaded, both keep what they changed, unless
    /// [`SessionSettings::on_conflict`] says otherwise.
    ///
    /// # Errors
    ///
    /// [`SessionError::is_interrupted`] tells that another request has deleted it: it stays deleted.
    pub async fn save(&self) -> Result<(), SessionError> {
        let mut state = self.inner.state.lock().await;
        self.save_locked(&mut state).await?;
        Ok(())
    }

    /// Moves the expiry of a session on, without writing its data, and tells whether it did: not if
    /// there is no session, and not before it moves by [`SessionSettings::touch_interval`]. What was
    /// changed is still to be saved.
    ///
    /// # Errors
    ///
    /// As [`Session::save`].
    pub async fn touch(&self) -> Result<bool, SessionError> {
        let mut state = self.inner.state.lock().await;
        self.load(&mut state).await?;
        let (Some(session_key), Some(stored)) = (state.session_key.clone(), state.snapshot())
        else {
            return Ok(false);
        };
        let interval = self.settings().touch_interval.unwrap_or_default();
        let revision = stored.revision.clone();
        let before = stored.expire_date;
        let record = self.record(session_key, Arc::clone(&stored.data), revision)?;
        let due = before.checked_add(interval).is_some_and(|due| {
            let zone = &self.settings().time_zone;
            record.expire_date.to_timestamp(zone) >= due.to_timestamp(zone)
        });
        if !due {
            return Ok(false);
        }
        let saved = self.inner.store.touch(&record).await?;
        state.touched(record.expire_date, saved);
        Ok(true)
    }

    /// Removes the session from the store. The object keeps key and data, unless the
    /// [key is the session](SessionStore::is_in_key).
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`].
    pub async fn delete(&self) -> Result<(), SessionError> {
        let mut state = self.inner.state.lock().await;
        if self.inner.store.is_in_key() {
            state.forget();
        }
        if let Some(session_key) = &state.session_key {
            self.inner.store.delete(session_key).await?;
        }
        Ok(())
    }

    /// Ends the session: data and key are gone, here and in the store. What logging out does.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`]; the key is kept then, so that it can be tried again.
    pub async fn flush(&self) -> Result<(), SessionError> {
        let mut state = self.inner.state.lock().await;
        state.clear();
        if let Some(session_key) = &state.session_key {
            self.inner.store.delete(session_key).await?;
        }
        state.session_key = None;
        Ok(())
    }

    /// Moves the session to a new key, which makes a stolen one useless. What logging in does.
    ///
    /// In a table it is one step. Elsewhere the new one is stored before the old one is removed: two steps,
    /// and no moment without. What others save under the old key in between moves along.
    ///
    /// # Errors
    ///
    /// [`SessionError::is_interrupted`] if the session of a user was deleted meanwhile: somebody has
    /// logged out, and there is no session under the new key either.
    pub async fn cycle_key(&self) -> Result<(), SessionError> {
        self.cycle(true).await
    }

    /// As [`Session::cycle_key`], but if there is no such session any more nothing becomes of this object,
    /// nor of what it holds; false then.
    #[cfg(feature = "auth")]
    pub(crate) async fn cycle_key_if_there(&self) -> Result<bool, SessionError> {
        let mut state = self.inner.state.lock().await;
        self.load(&mut state).await?;
        let before = state.clone();
        match self.cycle_locked(&mut state, true).await {
            Err(error) if error.is_interrupted() => {
                *state = before;
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }

    /// As [`Session::cycle_key`], but if others have saved the session since it was loaded, it keeps its
    /// key, and whoever asks merges.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] then, and those of [`Session::cycle_key`].
    #[cfg(feature = "python")]
    pub(crate) async fn cycle_key_unless_changed(&self) -> Result<(), SessionError> {
        self.cycle(false).await
    }

    async fn cycle(&self, merges: bool) -> Result<(), SessionError> {
        let mut state = self.inner.state.lock().await;
        let done = self.cycle_locked(&mut state, merges).await;
        if done.as_ref().is_err_and(SessionError::is_interrupted) {
            // As in Django after such a save, the object is left with a key that leads nowhere: the client
            // keeps the cookie, which may have become another session's meanwhile.
            state.clear();
            state.session_key = Some(SessionKey::generate());
        }
        done
    }

    async fn cycle_locked(
        &self,
        state: &mut SessionState,
        merges: bool,
    ) -> Result<(), SessionError> {
        if self.inner.store.is_in_key() {
            self.save_locked(state).await?;
            return Ok(());
        }
        self.load(state).await?;
        let Some(old) = state.session_key.clone() else {
            self.create_locked(state).await?;
            return Ok(());
        };
        let on_conflict = &self.settings().on_conflict;
        let store = &self.inner.store;
        let is_of_user = state.snapshot().is_some_and(|it| it.data.contains_key(USER_ID_KEY));
        let mut turn = None;
        for _ in 0..MAX_SAVE_TRIES {
            let revision = state.revision(on_conflict);
            let record = self.record(SessionKey::generate(), state.data(), revision)?;
            match store.cycle_key(&old, &record).await {
                Ok(saved) => {
                    state.created();
                    state.saved(record, saved);
                    return Ok(());
                }
                Err(StoreError::Unsupported { .. }) => {
                    return self.cycle_in_two_steps(state, merges).await;
                }
                Err(StoreError::Create) => continue,
                Err(StoreError::Conflict) => {}
                // It is gone, and whatever it was would have been replaced.
                Err(StoreError::Update) => {
                    self.create_locked(state).await?;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            if turn.is_none() {
                turn = Some(wait_for_turn(&old).await);
            }
            match store.load_latest(&old, self.now()).await {
                // Another request has moved it, as two clicks on one button do.
                Ok(None) if !is_of_user => {
                    self.create_locked(state).await?;
                    return Ok(());
                }
                Ok(None) => return Err(StoreError::Update.into()),
                Ok(Some(stored)) if merges => state.merge(stored, on_conflict),
                Ok(Some(stored)) if state.is_snapshot_of(&stored) => state.adopt(stored),
                Ok(Some(_)) => break,
                // Nobody can read it, so there is nothing in it to be moved.
                Err(error) if error.is_corrupt() => state.forget_snapshot(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Stores the session under a new key, and removes what is under the old one.
    async fn cycle_in_two_steps(
        &self,
        state: &mut SessionState,
        merges: bool,
    ) -> Result<(), SessionError> {
        let old = state.session_key.clone();
        let (before, changes) = (state.snapshot().cloned(), state.changes());
        self.create_locked(state).await?;
        match old {
            Some(old) => self.leave(state, old, before, &changes, merges).await,
            None => Ok(()),
        }
    }

    /// Removes what is under the old key, once everything in it is under the new one.
    async fn leave(
        &self,
        state: &mut SessionState,
        old: SessionKey,
        mut before: Option<Snapshot>,
        changes: &Changes,
        merges: bool,
    ) -> Result<(), SessionError> {
        let on_conflict = &self.settings().on_conflict;
        let is_of_user = before.as_ref().is_some_and(|it| it.data.contains_key(USER_ID_KEY));
        for _ in 0..MAX_SAVE_TRIES {
            let revision = match (on_conflict, &before) {
                (OnConflict::Overwrite, _) | (_, None) => None,
                (_, Some(before)) => before.revision.clone(),
            };
            let Some(revision) = revision else {
                self.inner.store.delete(&old).await?;
                return Ok(());
            };
            match self.inner.store.delete_revision(&old, &revision).await {
                Err(StoreError::Conflict) => {}
                done => return Ok(done?),
            }
            let found = match self.inner.store.load_latest(&old, self.now()).await {
                // Nobody can read it, so there is nothing in it to be moved.
                Err(error) if error.is_corrupt() => {
                    before = None;
                    continue;
                }
                found => found?,
            };
            let Some(found) = found else {
                if !is_of_user {
                    // Another request has moved it, as two clicks on one button do.
                    return Ok(());
                }
                if let Some(new) = state.session_key.take() {
                    self.inner.store.delete(&new).await?;
                }
                return Err(StoreError::Update.into());
            };
            if let Some(before) = before.filter(|before| *before.data != *found.data) {
                if !merges {
                    if let Some(new) = state.session_key.take() {
                        self.inner.store.delete(&new).await?;
                    }
                    break;
                }
                state.merge_old(&before.data, changes, &found.data, on_conflict);
                self.save_locked(state).await?;
            }
            before = Some(found.into());
        }
        Err(StoreError::Conflict.into())
    }

    /// Removes expired sessions from the store and returns their number.
    ///
    /// # Errors
    ///
    /// [`SessionError::Store`].
    pub async fn clear_expired(&self) -> Result<u64, SessionError> {
        Ok(self.inner.store.clear_expired(self.now()).await?)
    }

    pub(crate) fn now(&self) -> DateTime {
        self.inner.settings.datetime(self.inner.clock.now())
    }

    /// Counts as a look at the data: something of it is known without.
    #[cfg(feature = "auth")]
    pub(crate) async fn set_accessed(&self) {
        self.inner.state.lock().await.accessed = true;
    }

    /// The key, as long as nothing of the session is loaded.
    #[cfg(feature = "auth")]
    pub(crate) async fn unloaded_key(&self) -> Option<SessionKey> {
        let state = self.inner.state.lock().await;
        if state.is_loaded() { None } else { state.session_key.clone() }
    }

    /// The flags, all of one moment.
    #[cfg(feature = "tower")]
    pub(crate) async fn flags(&self) -> Flags {
        self.inner.state.lock().await.flags()
    }

    /// As [`Session::save`], and says under which key.
    #[cfg(feature = "tower")]
    pub(crate) async fn save_returning_key(&self) -> Result<SessionKey, SessionError> {
        let mut state = self.inner.state.lock().await;
        self.save_locked(&mut state).await
    }

    /// How many seconds from now on the cookie lives, and until when; `None` for one that ends with
    /// the browser.
    #[cfg(feature = "tower")]
    pub(crate) async fn cookie_expiry(&self) -> Result<Option<(i64, DateTime)>, SessionError> {
        let stored = self.stored_expiry().await?;
        let settings = self.settings();
        if stored.at_browser_close(settings.expire_at_browser_close) {
            return Ok(None);
        }
        let now = self.inner.clock.now();
        let age = stored.age(settings.datetime(now), settings.cookie_age)?;
        let expires = DateTime::Aware(now).checked_add(age).ok_or(ExpiryError::OutOfRange)?;
        Ok(Some((age.as_secs(), expires)))
    }

    async fn stored_expiry(&self) -> Result<Stored, SessionError> {
        let data = self.data().await?;
        Ok(Stored::of(&data))
    }

    async fn accessed_state(&self) -> Result<MutexGuard<'_, SessionState>, SessionError> {
        let mut state = self.inner.state.lock().await;
        self.load(&mut state).await?;
        Ok(state)
    }

    async fn load(&self, state: &mut SessionState) -> Result<(), SessionError> {
        if let Some(session_key) = state.access() {
            let outcome = self.inner.store.load(&session_key, self.now()).await;
            state.loaded(outcome, self.inner.store.is_in_key())?;
        }
        Ok(())
    }

    async fn save_locked(&self, state: &mut SessionState) -> Result<SessionKey, SessionError> {
        let is_in_key = self.inner.store.is_in_key();
        if state.session_key.is_none() && !is_in_key {
            return self.create_locked(state).await;
        }
        self.load(state).await?;
        if is_in_key {
            let session_key = state.session_key.clone().unwrap_or_else(SessionKey::generate);
            let record = self.record(session_key, state.data(), None)?;
            let saved = self.inner.store.save(&record).await?;
            state.modified = true;
            return Ok(state.saved(record, saved));
        }
        // Loading may have found that there is no such session. It is not brought back; as in Django,
        // the object is left with a key that leads nowhere.
        let Some(session_key) = state.session_key.clone() else {
            state.session_key = Some(SessionKey::generate());
            return Err(StoreError::Update.into());
        };
        let on_conflict = &self.settings().on_conflict;
        let store = &self.inner.store;
        let mut turn = None;
        for _ in 0..MAX_SAVE_TRIES {
            let revision = state.revision(on_conflict);
            let record = self.record(session_key.clone(), state.data(), revision)?;
            match store.save(&record).await {
                Ok(saved) => return Ok(state.saved(record, saved)),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
            if turn.is_none() {
                turn = Some(wait_for_turn(&session_key).await);
            }
            match store.load_latest(&session_key, self.now()).await {
                Ok(None) => return Err(StoreError::Update.into()),
                // Nobody can read it, so nobody loses anything.
                Err(error) if error.is_corrupt() => {
                    state.forget_snapshot();
                }
                Ok(Some(stored)) if matches!(on_conflict, OnConflict::Error) => {
                    if !state.is_snapshot_of(&stored) {
                        break;
                    }
                    // A copy that was loaded, or the same written again: nobody has changed anything.
                    state.adopt(stored);
                }
                Ok(Some(stored)) => state.merge(stored, on_conflict),
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn create_locked(&self, state: &mut SessionState) -> Result<SessionKey, SessionError> {
        state.accessed = true;
        let mut record = self.record(SessionKey::generate(), state.data(), None)?;
        for _ in 0..MAX_CREATE_TRIES {
            match self.inner.store.create(&record).await {
                Ok(saved) => {
                    state.created();
                    return Ok(state.saved(record, saved));
                }
                Err(StoreError::Create) => record.session_key = SessionKey::generate(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Create.into())
    }

    pub(crate) fn record(
        &self,
        session_key: SessionKey,
        data: Arc<SessionData>,
        revision: Option<Revision>,
    ) -> Result<SessionRecord, SessionError> {
        let cookie_age = self.settings().cookie_age;
        let expire_date = Stored::of(&data).date(self.now(), cookie_age)?;
        Ok(SessionRecord { session_key, data, expire_date, revision })
    }
}

/// Waits for those who save the same session, though in Python not for ever: the process may have been
/// forked while somebody held the lock, or whoever holds it belongs to an event loop that was stopped.
async fn wait_for_turn(session_key: &SessionKey) -> Option<MutexGuard<'static, ()>> {
    let turn = queue(session_key).lock();
    #[cfg(feature = "python")]
    let turn = async {
        // It is for fairness only.
        tokio::time::timeout(std::time::Duration::from_secs(1), turn).await.ok()
    };
    #[cfg(not(feature = "python"))]
    let turn = async { Some(turn.await) };
    turn.await
}

/// Where those wait in this process whose save was overtaken: they try again one after the other, not all
/// at once for one of them to succeed.
fn queue(session_key: &SessionKey) -> &'static Mutex<()> {
    const LENGTH: usize = 64;
    static QUEUES: [Mutex<()>; LENGTH] = [const { Mutex::const_new(()) }; LENGTH];
    let bytes = session_key.as_str().bytes();
    let sum = bytes.fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    &QUEUES[sum % LENGTH]
}

/// Shows nothing that is in the session.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("store", &self.inner.store).finish_non_exhaustive()
    }
}
