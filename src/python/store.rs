//! Stores for Python: each step once for a thread that waits, and once to be awaited.
//!
//! Nothing is waited for with the interpreter's lock; a runtime that belongs to the store watches its
//! connections and its clock. Whoever stops waiting, because a task was
//! cancelled, stops nothing: a step that has begun is carried out, and its connection is fit for the next.
//!
//! A process that is forked inherits neither threads nor connections that it could use, so a store knows
//! the process in which it was made, and touches nothing of it in another.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::OnceCell;

use super::awaitable::{Awaitable, Begun, Outcome};
use super::{convert, error, pickle};
use crate::codec::pickle::{HIGHEST_PROTOCOL, Limits};
use crate::codec::{DEFAULT_MAX_SIZE, Serializer, SessionData};
use crate::session::{
    Changes, Session, SessionError, SessionKey, SessionRecord, SessionSettings, SessionState,
    SessionStore, Snapshot, StoreError,
};
use crate::store::{self, ConnectError, SqlRows, Texts};

/// How long the connections have to say good-bye.
const CLOSE: Duration = Duration::from_secs(1);

/// A store of the crate, of a site with certain settings.
#[pyclass(frozen, name = "Store", module = "django_session_rs._native")]
pub(super) struct PyStore {
    process: u32,
    handle: Handle,
    /// None once it is closed.
    runtime: Mutex<Option<Runtime>>,
    steps: Arc<Steps>,
    begun: Arc<Begun>,
}

#[pymethods]
impl PyStore {
    #[new]
    #[pyo3(signature = (url, settings, *, merges = true))]
    fn new(py: Python<'_>, url: String, settings: &str, merges: bool) -> PyResult<Self> {
        let settings = SessionSettings::from_json(settings)
            .map_err(|failure| error::improperly_configured(py, &failure))?;
        if url.to_ascii_lowercase().starts_with("sqlite:") {
            // Python's library is in this process, and each would undo the locks of the other.
            let refused = "a store in SQLite needs a process without Python's own SQLite";
            return Err(PyRuntimeError::new_err(refused));
        }
        let keeps_objects = store::keeps_objects(&url) || settings.serializer == Serializer::Pickle;
        // One is enough: it waits, and what it does is little beside what Python does with it.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("django-session")
            .enable_all()
            .build()
            .map_err(|_| PyRuntimeError::new_err("no thread can be started for the store"))?;
        let settings = Arc::new(settings);
        let steps = Steps { url, settings, keeps_objects, merges, store: OnceCell::new() };
        Ok(Self {
            process: std::process::id(),
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            steps: Arc::new(steps),
            begun: Arc::default(),
        })
    }

    fn load(&self, py: Python<'_>, session_key: &str) -> PyResult<Option<StoredSession>> {
        let Some(session_key) = SessionKey::parse(session_key) else { return Ok(None) };
        self.wait(py, |steps| async move { steps.load(session_key).await })
    }

    fn aload(&self, session_key: &str) -> PyResult<Awaitable> {
        let session_key = SessionKey::parse(session_key);
        self.start(|steps| async move {
            match session_key {
                Some(session_key) => steps.load(session_key).await,
                None => Ok(None),
            }
        })
    }

    /// The session as it is stored by now, past any copy, for one who is to merge it.
    fn load_latest(&self, py: Python<'_>, session_key: &str) -> PyResult<Option<StoredSession>> {
        let Some(session_key) = SessionKey::parse(session_key) else { return Ok(None) };
        self.wait(py, |steps| async move { steps.load_latest(session_key).await })
    }

    fn aload_latest(&self, session_key: &str) -> PyResult<Awaitable> {
        let session_key = SessionKey::parse(session_key);
        self.start(|steps| async move {
            match session_key {
                Some(session_key) => steps.load_latest(session_key).await,
                None => Ok(None),
            }
        })
    }

    /// Data as it is once it was stored and loaded.
    fn as_stored<'py>(&self, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        to_python(data.py(), &self.steps.data(data)?)
    }

    fn exists(&self, py: Python<'_>, session_key: &str) -> PyResult<bool> {
        let Some(session_key) = SessionKey::parse(session_key) else { return Ok(false) };
        self.wait(py, |steps| async move { steps.exists(session_key).await })
    }

    fn aexists(&self, session_key: &str) -> PyResult<Awaitable> {
        let session_key = SessionKey::parse(session_key);
        self.start(|steps| async move {
            match session_key {
                Some(session_key) => steps.exists(session_key).await,
                None => Ok(false),
            }
        })
    }

    fn create(
        &self,
        session_key: &str,
        data: &Bound<'_, PyAny>,
        cookie_age: i64,
    ) -> PyResult<StoredSession> {
        let py = data.py();
        let session = self.steps.unsaved(session_key, data, None, cookie_age)?;
        self.wait(py, |steps| async move { steps.create(session).await })
    }

    fn acreate(
        &self,
        session_key: &str,
        data: &Bound<'_, PyAny>,
        cookie_age: i64,
    ) -> PyResult<Awaitable> {
        let session = self.steps.unsaved(session_key, data, None, cookie_age)?;
        self.start(|steps| async move { steps.create(session).await })
    }

    fn save(
        &self,
        session_key: &str,
        data: &Bound<'_, PyAny>,
        stored: Option<&StoredSession>,
        touched: Vec<PyBackedStr>,
        cookie_age: i64,
    ) -> PyResult<StoredSession> {
        let py = data.py();
        let mut session = self.steps.unsaved(session_key, data, stored, cookie_age)?;
        session.touch(touched);
        self.wait(py, |steps| async move { steps.save(session).await })
    }

    fn asave(
        &self,
        session_key: &str,
        data: &Bound<'_, PyAny>,
        stored: Option<&StoredSession>,
        touched: Vec<PyBackedStr>,
        cookie_age: i64,
    ) -> PyResult<Awaitable> {
        let mut session = self.steps.unsaved(session_key, data, stored, cookie_age)?;
        session.touch(touched);
        self.start(|steps| async move { steps.save(session).await })
    }

    fn cycle_key(
        &self,
        session_key: &str,
        data: &Bound<'_, PyAny>,
        stored: Option<&StoredSession>,
        touched: Vec<PyBackedStr>,
        cookie_age: i64,
    ) -> PyResult<StoredSession> {
        let py = data.py();
        let mut session = self.steps.unsaved(session_key, data, stored, cookie_age)?;
        session.touch(touched);
        self.wait(py, |steps| async move { steps.cycle_key(session).await })
    }

    fn acycle_key(
        &self,
        session_key: &str,
        data: &Bound<'_, PyAny>,
        stored: Option<&StoredSession>,
        touched: Vec<PyBackedStr>,
        cookie_age: i64,
    ) -> PyResult<Awaitable> {
        let mut session = self.steps.unsaved(session_key, data, stored, cookie_age)?;
        session.touch(touched);
        self.start(|steps| async move { steps.cycle_key(session).await })
    }

    fn delete(&self, py: Python<'_>, session_key: &str) -> PyResult<()> {
        let Some(session_key) = SessionKey::parse(session_key) else { return Ok(()) };
        self.wait(py, |steps| async move { steps.delete(session_key).await })
    }

    fn adelete(&self, session_key: &str) -> PyResult<Awaitable> {
        let session_key = SessionKey::parse(session_key);
        self.start(|steps| async move {
            match session_key {
                Some(session_key) => steps.delete(session_key).await,
                None => Ok(()),
            }
        })
    }

    fn delete_stored(
        &self,
        py: Python<'_>,
        session_key: &str,
        stored: &StoredSession,
    ) -> PyResult<bool> {
        let Some(session_key) = SessionKey::parse(session_key) else { return Ok(false) };
        let stored = stored.snapshot.clone();
        self.wait(py, |steps| async move { steps.delete_stored(session_key, stored).await })
    }

    fn adelete_stored(&self, session_key: &str, stored: &StoredSession) -> PyResult<Awaitable> {
        let session_key = SessionKey::parse(session_key);
        let stored = stored.snapshot.clone();
        self.start(|steps| async move {
            match session_key {
                Some(session_key) => steps.delete_stored(session_key, stored).await,
                None => Ok(false),
            }
        })
    }

    fn clear_expired(&self, py: Python<'_>) -> PyResult<u64> {
        self.wait(py, |steps| async move { steps.clear_expired().await })
    }

    fn aclear_expired(&self) -> PyResult<Awaitable> {
        self.start(|steps| async move { steps.clear_expired().await })
    }

    /// The columns of a row of another table in the store's database, as texts.
    fn afind_row(&self, statement: &str, key: &str) -> PyResult<Awaitable> {
        let (statement, key) = (Arc::from(statement), key.to_owned());
        self.start(|steps| async move { steps.find_row(statement, &key).await })
    }

    /// Ends threads and connections, after what has begun.
    fn close(&self, py: Python<'_>) {
        if self.process != std::process::id() {
            return;
        }
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(runtime) = runtime else { return };
        py.detach(|| {
            let end = async {
                self.begun.finish().await;
                if let Some((store, _)) = self.steps.store.get() {
                    store.close().await;
                }
            };
            // What does not end in time ends with the process.
            let _ = runtime.block_on(async { tokio::time::timeout(CLOSE, end).await });
            runtime.shutdown_timeout(CLOSE);
        });
    }

    fn __repr__(&self) -> String {
        let scheme = self.steps.url.split(':').next().unwrap_or_default();
        format!("<Store {scheme}>")
    }
}

impl PyStore {
    fn check(&self) -> PyResult<()> {
        if self.process != std::process::id() {
            return Err(PyRuntimeError::new_err(
                "the store was made before this process was forked; make another one",
            ));
        }
        if self.runtime.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return Err(PyRuntimeError::new_err("the store is closed"));
        }
        Ok(())
    }

    /// For a task.
    fn start<T, F>(&self, step: impl FnOnce(Arc<Steps>) -> F) -> PyResult<Awaitable>
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
        T: for<'py> IntoPyObjectExt<'py> + Send + 'static,
    {
        self.check()?;
        let step = step(Arc::clone(&self.steps));
        Ok(Awaitable::new(self.handle.clone(), Arc::clone(&self.begun), async move {
            let done = step.await;
            let outcome: Outcome = Box::new(move |py| match done {
                Ok(found) => found.into_py_any(py),
                Err(failure) => Err(failure.to_py(py)),
            });
            outcome
        }))
    }

    /// For a thread, which takes the step itself and lets others have the interpreter meanwhile.
    fn wait<T, F>(&self, py: Python<'_>, step: impl FnOnce(Arc<Steps>) -> F) -> PyResult<T>
    where
        F: Future<Output = Result<T, Failure>> + Send,
        T: Send,
    {
        self.check()?;
        let step = step(Arc::clone(&self.steps));
        py.detach(|| self.handle.block_on(step)).map_err(|failure| failure.to_py(py))
    }
}

impl Drop for PyStore {
    fn drop(&mut self) {
        let runtime = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if self.process == std::process::id() {
            if let Some(runtime) = runtime {
                runtime.shutdown_background();
            }
        } else {
            // Whose connections they are would be told good-bye by whoever lets go of them.
            std::mem::forget(runtime);
            std::mem::forget(Arc::clone(&self.steps));
        }
    }
}

/// What is asked of a store, which is connected when it is first asked.
struct Steps {
    url: String,
    settings: Arc<SessionSettings>,
    /// Whether sessions are pickled, and so may hold what JSON cannot.
    keeps_objects: bool,
    /// Whether a session that gets a new key takes along what others have saved.
    merges: bool,
    store: OnceCell<(Arc<dyn SessionStore>, Option<SqlRows>)>,
}

/// A session on its way into the store.
struct Unsaved {
    session_key: SessionKey,
    data: Arc<SessionData>,
    snapshot: Option<Snapshot>,
    changes: Changes,
    settings: Arc<SessionSettings>,
}

impl Steps {
    async fn connected(&self) -> Result<&(Arc<dyn SessionStore>, Option<SqlRows>), Failure> {
        let connect = || store::connect_with_rows(&self.url, &self.settings);
        self.store.get_or_try_init(connect).await.map_err(Failure::Connect)
    }

    async fn store(&self) -> Result<&Arc<dyn SessionStore>, Failure> {
        Ok(&self.connected().await?.0)
    }

    async fn find_row(&self, statement: Arc<str>, key: &str) -> Result<Option<Texts>, Failure> {
        match &self.connected().await?.1 {
            Some(rows) => Ok(rows.find(statement, key).await?),
            None => Err(StoreError::Unsupported { operation: "find_row" }.into()),
        }
    }

    async fn load(&self, session_key: SessionKey) -> Result<Option<StoredSession>, Failure> {
        let now = self.settings.datetime(jiff::Timestamp::now());
        let found = self.store().await?.load(&session_key, now).await?;
        Ok(found.map(StoredSession::loaded))
    }

    async fn load_latest(&self, session_key: SessionKey) -> Result<Option<StoredSession>, Failure> {
        let now = self.settings.datetime(jiff::Timestamp::now());
        match self.store().await?.load_latest(&session_key, now).await {
            // Nobody can read it, so there is nothing to merge.
            Err(error) if error.is_corrupt() => Ok(None),
            found => Ok(found?.map(StoredSession::loaded)),
        }
    }

    async fn exists(&self, session_key: SessionKey) -> Result<bool, Failure> {
        Ok(self.store().await?.exists(&session_key).await?)
    }

    async fn create(&self, unsaved: Unsaved) -> Result<StoredSession, Failure> {
        let store = self.store().await?;
        let (session_key, data) = (unsaved.session_key.clone(), Arc::clone(&unsaved.data));
        let session = unsaved.session(store);
        let record = session.record(session_key.clone(), Arc::clone(&data), None)?;
        let saved = store.create(&record).await?;
        let snapshot = Snapshot { revision: saved.revision, ..record.into() };
        Ok(StoredSession { session_key, data, snapshot: Some(snapshot), merged: false })
    }

    async fn save(&self, unsaved: Unsaved) -> Result<StoredSession, Failure> {
        let before = Arc::clone(&unsaved.data);
        let session = unsaved.session(self.store().await?);
        session.save().await?;
        StoredSession::of(&session, &before).await
    }

    async fn cycle_key(&self, unsaved: Unsaved) -> Result<StoredSession, Failure> {
        let before = Arc::clone(&unsaved.data);
        let session = unsaved.session(self.store().await?);
        if self.merges {
            session.cycle_key().await?;
        } else {
            session.cycle_key_unless_changed().await?;
        }
        StoredSession::of(&session, &before).await
    }

    async fn delete(&self, session_key: SessionKey) -> Result<(), Failure> {
        Ok(self.store().await?.delete(&session_key).await?)
    }

    async fn delete_stored(
        &self,
        session_key: SessionKey,
        stored: Option<Snapshot>,
    ) -> Result<bool, Failure> {
        let store = self.store().await?;
        let Some(Snapshot { data, revision: Some(mut revision), .. }) = stored else {
            return Ok(false);
        };
        let now = self.settings.datetime(jiff::Timestamp::now());
        for _ in 0..2 {
            match store.delete_revision(&session_key, &revision).await {
                Ok(()) => return Ok(true),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
            // What was loaded may have been a copy, or the same may have been written again.
            match store.load_latest(&session_key, now).await? {
                Some(SessionRecord { data: found, revision: Some(latest), .. })
                    if *found == *data =>
                {
                    revision = latest;
                }
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    async fn clear_expired(&self) -> Result<u64, Failure> {
        let now = self.settings.datetime(jiff::Timestamp::now());
        match self.store().await?.clear_expired(now).await {
            // Entries of caches end by themselves.
            Err(StoreError::Unsupported { .. }) => Ok(0),
            cleared => Ok(cleared?),
        }
    }

    fn data(&self, data: &Bound<'_, PyAny>) -> PyResult<SessionData> {
        let py = data.py();
        if self.keeps_objects {
            let found = SessionData::from_graph(pickle::graph(data)?);
            return found.map_err(|failure| error::to_py(py, &failure));
        }
        // It is what was written just now.
        SessionData::parse(convert::to_json(data)?).map_err(|_| error::unreadable_json(py))
    }

    fn unsaved(
        &self,
        session_key: &str,
        data: &Bound<'_, PyAny>,
        stored: Option<&StoredSession>,
        cookie_age: i64,
    ) -> PyResult<Unsaved> {
        let session_key = SessionKey::parse(session_key).unwrap_or_else(SessionKey::generate);
        let data = self.data(data)?;
        let settings = if cookie_age == self.settings.cookie_age {
            Arc::clone(&self.settings)
        } else {
            let mut settings = SessionSettings::clone(&self.settings);
            settings.cookie_age = cookie_age;
            Arc::new(settings)
        };
        let snapshot = stored.and_then(|stored| stored.snapshot.clone());
        let changes = Changes::default();
        Ok(Unsaved { session_key, data: Arc::new(data), snapshot, changes, settings })
    }
}

impl Unsaved {
    /// Takes note of the names that were set or removed.
    fn touch(&mut self, names: Vec<PyBackedStr>) {
        for name in names {
            self.changes.touch(&name);
        }
    }

    fn session(self, store: &Arc<dyn SessionStore>) -> Session {
        let Self { session_key, data, snapshot, changes, settings } = self;
        let parts = SessionState::from_parts(Some(session_key), data, snapshot, changes);
        Session::from_state(Arc::clone(store), settings, parts)
    }
}

/// A session as it was loaded or saved last; the next save says that it replaces this.
#[pyclass(frozen, module = "django_session_rs._native")]
pub(super) struct StoredSession {
    session_key: SessionKey,
    data: Arc<SessionData>,
    snapshot: Option<Snapshot>,
    merged: bool,
}

impl StoredSession {
    fn loaded(record: SessionRecord) -> Self {
        Self {
            session_key: record.session_key.clone(),
            data: Arc::clone(&record.data),
            snapshot: Some(record.into()),
            merged: false,
        }
    }

    async fn of(session: &Session, before: &SessionData) -> Result<Self, Failure> {
        let (session_key, data, snapshot) = session.parts().await;
        let session_key = session_key.ok_or(StoreError::Update)?;
        let merged = *data != *before;
        Ok(Self { session_key, data, snapshot, merged })
    }
}

#[pymethods]
impl StoredSession {
    #[getter]
    fn session_key(&self) -> &str {
        self.session_key.as_str()
    }

    #[getter]
    fn merged(&self) -> bool {
        self.merged
    }

    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &self.data)
    }
}

fn to_python<'py>(py: Python<'py>, data: &SessionData) -> PyResult<Bound<'py, PyAny>> {
    if data.is_python() {
        let pickle = data.to_pickle(HIGHEST_PROTOCOL);
        let pickle = pickle.map_err(|failure| error::pickle(py, failure))?;
        let limits = Limits::default().with_size(DEFAULT_MAX_SIZE);
        return pickle::load(py, &pickle, &limits, None);
    }
    let json = data.to_json().map_err(|_| error::unreadable_json(py))?;
    super::codec::load_json(py, json.as_bytes())
}

/// What can become of a step.
enum Failure {
    Connect(ConnectError),
    Session(SessionError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Session(error.into())
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl Failure {
    fn to_py(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::Connect(ConnectError::Connect(failure))
            | Self::Session(SessionError::Store(failure)) => error::store(py, failure),
            Self::Connect(failure) => error::improperly_configured(py, failure),
            Self::Session(failure) => error::session(py, failure),
        }
    }
}
