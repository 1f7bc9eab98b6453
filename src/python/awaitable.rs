//! What an event loop waits for: a step of a store, and the bell that says it can go on.
//!
//! The event loop takes a step itself, as far as it goes without waiting: no thread has to be woken for it.
//! Where many wait already it has other things to do, and the runtime that watches the connections takes the
//! step. The runtime rings when the loop can go on: it writes a byte to a socket that the loop watches, and
//! touches neither the interpreter nor its lock, which the loop would otherwise have to get back from it. What
//! is left of a step when nobody waits for it any more, or when its store is closed, the runtime carries out.

use std::collections::HashMap;
use std::future::Future;
#[cfg(unix)]
use std::io::{Read, Write};
#[cfg(unix)]
use std::os::{fd::AsRawFd, unix::net::UnixStream};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt as _;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

/// How many of a store's steps the loop waits for before the runtime takes the others.
const MANY: usize = 2;

/// A step that ends in something that becomes a Python object.
type Step = Pin<Box<dyn Future<Output = Outcome> + Send>>;
/// Makes the object, once there is a Python to make it in.
pub(super) type Outcome = Box<dyn for<'py> FnOnce(Python<'py>) -> PyResult<Py<PyAny>> + Send>;

/// A step of a store, for `await`.
#[pyclass(frozen, name = "Step", module = "django_session_rs._native")]
pub(super) struct Awaitable {
    state: Arc<Mutex<State>>,
    begun: Arc<Begun>,
    handle: Handle,
}

/// The steps of a store that have begun, by their tokens.
#[derive(Default)]
pub(super) struct Begun(Mutex<HashMap<u64, Weak<Mutex<State>>>>);

impl Begun {
    /// Carries out what is left of all of them: no event loop has to, which may have ended.
    pub(super) async fn finish(&self) {
        let mut steps = JoinSet::new();
        // Not locked any longer: who takes a step locks that first.
        let begun = std::mem::take(&mut *lock(&self.0));
        for state in begun.into_values().filter_map(|state| state.upgrade()) {
            let mut locked = lock(&state);
            let State { step, waiting } = &mut *locked;
            match (step.take(), waiting) {
                (Some(Running::Here(taken)), Some(waiting)) => {
                    let waking = Waking::new(waiting.waker.clone());
                    *step = Some(Running::There { task: None, is_over: waking.is_over() });
                    steps.spawn(carry_out(taken, Arc::clone(&state), waking));
                }
                (Some(Running::There { task: Some(task), is_over }), _) => {
                    *step = Some(Running::There { task: None, is_over });
                    steps.spawn(async move { drop(task.await) });
                }
                (other, _) => *step = other,
            }
        }
        while steps.join_next().await.is_some() {}
    }
}

#[derive(Default)]
struct State {
    /// None once its outcome is known, or in other hands.
    step: Option<Running>,
    waiting: Option<Waiting>,
}

enum Running {
    /// The event loop takes it.
    Here(Step),
    /// The runtime takes it.
    There { task: Option<JoinHandle<()>>, is_over: Arc<AtomicBool> },
    /// The runtime has taken it.
    Done(Outcome),
}

/// Wakes when it goes, also if the runtime ends before the step.
struct Waking {
    waker: Waker,
    is_over: Arc<AtomicBool>,
}

impl Waking {
    fn new(waker: Waker) -> Self {
        Self { waker, is_over: Arc::default() }
    }

    fn is_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_over)
    }
}

impl Drop for Waking {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.waker.wake_by_ref();
    }
}

/// A place at the bell of a loop.
struct Waiting {
    bell: Py<Bell>,
    token: u64,
    waker: Waker,
}

impl Awaitable {
    pub(super) fn new(
        handle: Handle,
        begun: Arc<Begun>,
        step: impl Future<Output = Outcome> + Send + 'static,
    ) -> Self {
        let state = State { step: Some(Running::Here(Box::pin(step))), waiting: None };
        Self { state: Arc::new(Mutex::new(state)), begun, handle }
    }

    /// Gives a step to the runtime.
    fn give(&self, step: Step, waker: Waker) -> Running {
        let waking = Waking::new(waker);
        let is_over = waking.is_over();
        let task = self.handle.spawn(carry_out(step, Arc::clone(&self.state), waking));
        Running::There { task: Some(task), is_over }
    }
}

/// Takes a step to its end, and wakes whoever waits for it.
async fn carry_out(step: Step, state: Arc<Mutex<State>>, waking: Waking) {
    let outcome = AssertUnwindSafe(step).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|panic| Box::new(|_| resume_unwind(panic)));
    lock(&state).step = Some(Running::Done(outcome));
    drop(waking);
}

#[pymethods]
impl Awaitable {
    fn __await__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    /// Returns a future of the loop to wait for, or raises `StopIteration` with the outcome.
    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let mut state = lock(&self.state);
        let State { step, waiting } = &mut *state;
        let (waiting, others) = match waiting {
            Some(waiting) => (waiting, 0),
            waiting => {
                let found = waiting.insert(Bell::of_running_loop(py)?);
                let mut begun = lock(&self.begun.0);
                begun.insert(found.token, Arc::downgrade(&self.state));
                (found, begun.len() - 1)
            }
        };
        let polled = match step.take().ok_or_else(cannot_go_on)? {
            Running::Here(taken) if others >= MANY => {
                *step = Some(self.give(taken, waiting.waker.clone()));
                Poll::Pending
            }
            Running::Here(mut taken) => {
                let _entered = self.handle.enter();
                let polled = taken.as_mut().poll(&mut Context::from_waker(&waiting.waker));
                if polled.is_pending() {
                    *step = Some(Running::Here(taken));
                }
                polled
            }
            Running::There { is_over, .. } if is_over.load(Ordering::Acquire) => {
                return Err(cannot_go_on());
            }
            there @ Running::There { .. } => {
                *step = Some(there);
                Poll::Pending
            }
            Running::Done(outcome) => Poll::Ready(outcome),
        };
        match polled {
            Poll::Ready(outcome) => {
                drop(state);
                Err(PyStopIteration::new_err((outcome(py)?,)))
            }
            Poll::Pending => waiting.bell.get().future(py, waiting.token),
        }
    }
}

fn cannot_go_on() -> PyErr {
    PyRuntimeError::new_err("a step can be awaited once, and not while its store is closed")
}

impl Drop for Awaitable {
    fn drop(&mut self) {
        let State { step, waiting } = std::mem::take(&mut *lock(&self.state));
        // One that nobody has waited for was not begun.
        let Some(waiting) = waiting else { return };
        lock(&waiting.bell.get().waiting).remove(&waiting.token);
        lock(&self.begun.0).remove(&waiting.token);
        if let Some(Running::Here(step)) = step {
            self.handle.spawn(async move { drop(step.await) });
        }
    }
}

/// The bell of an event loop.
#[pyclass(frozen, module = "django_session_rs._native")]
pub(super) struct Bell {
    rope: Arc<Rope>,
    #[cfg(unix)]
    sound: UnixStream,
    /// The futures of the loop that wait for a token.
    waiting: Mutex<HashMap<u64, Py<PyAny>>>,
}

/// By which the threads of a runtime ring.
struct Rope {
    rung: Mutex<Vec<u64>>,
    #[cfg(unix)]
    clapper: UnixStream,
    /// A weak reference to the loop.
    #[cfg(not(unix))]
    event_loop: Py<PyAny>,
}

struct Ringer {
    token: u64,
    rope: Arc<Rope>,
}

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let is_first = {
            let mut rung = lock(&self.rope.rung);
            rung.push(self.token);
            rung.len() == 1
        };
        if is_first {
            self.rope.pull();
        }
    }
}

#[cfg(unix)]
impl Rope {
    fn pull(&self) {
        // If there is no room, there is more to be heard than is needed; if nobody listens, the loop
        // has ended.
        let _ = (&self.clapper).write(&[1]);
    }
}

static BELLS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

impl Bell {
    fn of_running_loop(py: Python<'_>) -> PyResult<Waiting> {
        static TOKENS: AtomicU64 = AtomicU64::new(0);
        let event_loop = running_loop(py)?;
        let bells = BELLS.get_or_try_init(py, || {
            py.import("weakref")?.call_method0("WeakKeyDictionary").map(Bound::unbind)
        })?;
        let found = bells.bind(py).call_method1("get", (&event_loop,))?;
        let bell = if found.is_none() {
            let bell = Self::hang(&event_loop)?;
            bells.bind(py).set_item(&event_loop, &bell)?;
            bell
        } else {
            found.cast_into::<Self>()?.unbind()
        };
        let token = TOKENS.fetch_add(1, Ordering::Relaxed);
        let rope = Arc::clone(&bell.get().rope);
        Ok(Waiting { token, waker: Arc::new(Ringer { token, rope }).into(), bell })
    }

    /// A future that is done when the bell rings for this token.
    fn future(&self, py: Python<'_>, token: u64) -> PyResult<Py<PyAny>> {
        let future = running_loop(py)?.call_method0(pyo3::intern!(py, "create_future"))?;
        lock(&self.waiting).insert(token, future.clone().unbind());
        // As `yield from future` begins: the task sees that it is meant to wait.
        Ok(future.try_iter()?.next().unwrap_or(Ok(future))?.unbind())
    }
}

#[cfg(unix)]
impl Bell {
    fn hang(event_loop: &Bound<'_, PyAny>) -> PyResult<Py<Self>> {
        let (clapper, sound) = UnixStream::pair()?;
        clapper.set_nonblocking(true)?;
        sound.set_nonblocking(true)?;
        let descriptor = sound.as_raw_fd();
        let rope = Arc::new(Rope { rung: Mutex::default(), clapper });
        let bell = Py::new(event_loop.py(), Self { rope, sound, waiting: Mutex::default() })?;
        event_loop.call_method1("add_reader", (descriptor, &bell))?;
        Ok(bell)
    }

    fn listen(&self) {
        let mut bytes = [0; 64];
        while (&self.sound).read(&mut bytes).is_ok_and(|read| read == bytes.len()) {}
    }
}

#[pymethods]
impl Bell {
    /// Called by the loop when it hears something.
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        // First what is heard, then what it means: what is rung after that is heard again.
        self.listen();
        let rung = std::mem::take(&mut *lock(&self.rope.rung));
        for token in rung {
            let Some(future) = lock(&self.waiting).remove(&token) else { continue };
            let future = future.bind(py);
            if !future.call_method0(pyo3::intern!(py, "done"))?.is_truthy()? {
                future.call_method1(pyo3::intern!(py, "set_result"), (py.None(),))?;
            }
        }
        Ok(())
    }
}

/// Where a loop cannot watch a socket.
#[cfg(not(unix))]
impl Rope {
    fn pull(&self) {
        Python::attach(|py| {
            let bells = BELLS.get(py);
            let rung = self.event_loop.bind(py).call0().and_then(|event_loop| {
                let bell = bells.map(|bells| bells.bind(py).get_item(&event_loop)).transpose()?;
                event_loop.call_method1("call_soon_threadsafe", (bell,))
            });
            // The loop has ended, and nobody waits.
            drop(rung);
        });
    }
}

#[cfg(not(unix))]
impl Bell {
    fn hang(event_loop: &Bound<'_, PyAny>) -> PyResult<Py<Self>> {
        let py = event_loop.py();
        let weak = py.import("weakref")?.call_method1("ref", (event_loop,))?.unbind();
        let rope = Arc::new(Rope { rung: Mutex::default(), event_loop: weak });
        Py::new(py, Self { rope, waiting: Mutex::default() })
    }

    #[expect(clippy::unused_self, reason = "it is that of the other one")]
    fn listen(&self) {}
}

fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    RUNNING.import(py, "asyncio", "get_running_loop")?.call0()
}

/// No code that holds a lock here can panic half way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
