//! What has come out of Rust futures, on its way to the thread of the event loop.
//!
//! pyo3-async-runtimes has a thread take the GIL for every result, to call `call_soon_threadsafe`: three threads are woken
//! for one future, and two of them compete for the GIL. Here a result is put into the [`Inbox`] of its loop, which the
//! loop empties itself, woken through a pipe that it reads (`add_reader`).
//!
//! Without an inbox a loop gets its results as pyo3-async-runtimes has it: on Windows, where loops do not read pipes, if
//! its own thread has not yet awaited a Rust future, and when it is closed, which is noticed by its letting go of the
//! [`Bell`].

#![cfg_attr(not(unix), allow(dead_code, reason = "there no loop has an inbox"))]

use std::cell::{Cell, RefCell};
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic::{ContextExt, Runtime};
use pyo3_async_runtimes::tokio::get_runtime;
use tokio::task::{JoinError, JoinHandle};

use super::runtime::{carried_locals, is_ending, is_ours};

/// Hands one result over. Attaches to the interpreter by itself.
type Delivery = Box<dyn FnOnce() + Send>;

/// What waits for one event loop.
pub(super) struct Inbox(Mutex<Contents>);

struct Contents {
    deliveries: Vec<Delivery>,
    /// The end of the pipe that wakes the loop; `None` when the loop is closed.
    rope: Option<PipeWriter>,
    /// Whether there is a byte in the pipe.
    rung: bool,
}

/// An event loop that has an inbox, or cannot have one.
struct Known {
    event_loop: Py<PyWeakrefReference>,
    inbox: Option<Arc<Inbox>>,
}

/// Locked by threads that hold the GIL, and no Python object is made or ends its life meanwhile.
static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

fn known() -> MutexGuard<'static, Vec<Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// The inbox of a loop, if it can have one.
    pub(super) fn of(event_loop: &Bound<'_, PyAny>) -> Option<Arc<Self>> {
        let py = event_loop.py();
        let is_this = |known: &&Known| {
            let known = known.event_loop.bind(py).upgrade();
            known.is_some_and(|known| known.is(event_loop))
        };
        if let Some(known) = known().iter().find(is_this) {
            return known.inbox.clone();
        }
        Self::open(event_loop)
    }

    #[cold]
    fn open(event_loop: &Bound<'_, PyAny>) -> Option<Arc<Self>> {
        let py = event_loop.py();
        // Only its own thread may tell a loop what to read.
        let running = pyo3_async_runtimes::get_running_loop(py).ok()?;
        if !running.is(event_loop) {
            return None;
        }
        let weak = PyWeakrefReference::new(event_loop).ok()?.unbind();
        let inbox = Bell::hang(event_loop).ok();
        let mut known = known();
        let gone: Vec<Known> = known
            .extract_if(.., |known| known.event_loop.bind(py).upgrade().is_none())
            .collect();
        known.push(Known {
            event_loop: weak,
            inbox: inbox.clone(),
        });
        drop((known, gone));
        inbox
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the loop is there to empty it.
    pub(super) fn is_open(&self) -> bool {
        self.contents().rope.is_some()
    }

    /// Gives the delivery back if the loop is closed.
    fn put(&self, delivery: Delivery) -> Result<(), Delivery> {
        let mut contents = self.contents();
        let rung = contents.rung;
        let Some(rope) = &mut contents.rope else {
            return Err(delivery);
        };
        if !rung && rope.write_all(&[0]).is_err() {
            return Err(delivery);
        }
        contents.rung = true;
        contents.deliveries.push(delivery);
        Ok(())
    }

    fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.contents().deliveries)
    }
}

/// Hands over what waits for loops that may never run again. For the end of the process; to be called with the GIL.
pub(super) fn empty_all() {
    let inboxes: Vec<_> = known()
        .iter()
        .filter_map(|known| known.inbox.clone())
        .collect();
    for inbox in inboxes {
        deliver(inbox.take());
    }
}

/// A panic, as of a value that is dropped, is that of one alone, as it would be on a thread of Tokio's.
fn deliver(deliveries: Vec<Delivery>) {
    for delivery in deliveries {
        let _ = catch_unwind(AssertUnwindSafe(delivery));
    }
}

/// What a loop calls when there is something in its inbox. The loop alone holds it, and tracebacks of what it raised.
#[pyclass(frozen)]
struct Bell {
    inbox: Arc<Inbox>,
    pipe: Mutex<PipeReader>,
}

impl Bell {
    #[cfg(unix)]
    fn hang(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Inbox>> {
        use std::os::fd::AsRawFd as _;

        let py = event_loop.py();
        let (pipe, rope) = io::pipe()?;
        let fd = pipe.as_raw_fd();
        let inbox = Arc::new(Inbox(Mutex::new(Contents {
            deliveries: Vec::new(),
            rope: Some(rope),
            rung: false,
        })));
        let bell = Self {
            inbox: inbox.clone(),
            pipe: Mutex::new(pipe),
        };
        let add_reader = event_loop.getattr(pyo3::intern!(py, "add_reader"))?;
        // A loop keeps the context variables that a reader was added in, and those here belong to somebody's request.
        py.import("contextvars")?
            .call_method0("Context")?
            .call_method1("run", (add_reader, fd, bell))?;
        Ok(inbox)
    }

    #[cfg(not(unix))]
    fn hang(_event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Inbox>> {
        Err(io::Error::from(io::ErrorKind::Unsupported).into())
    }
}

#[pymethods]
impl Bell {
    fn __call__(&self) -> PyResult<()> {
        // A forked child that goes on with its parent's loop shares the pipe: what is in it is the parent's.
        if !is_ours() {
            return Ok(());
        }
        let deliveries = {
            let mut contents = self.inbox.contents();
            if contents.rung {
                let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
                pipe.read_exact(&mut [0])?;
                contents.rung = false;
            }
            std::mem::take(&mut contents.deliveries)
        };
        let here = OnLoop::new();
        deliver(deliveries);
        drop(here);
        INTERRUPT.take().map_or(Ok(()), Err)
    }
}

impl Drop for Bell {
    /// The loop is closed.
    fn drop(&mut self) {
        // A forked child has a copy of the loop, and of a lock that a thread of its parent's may have held.
        if !is_ours() {
            return;
        }
        let left = {
            let mut contents = self.inbox.contents();
            contents.rope = None;
            std::mem::take(&mut contents.deliveries)
        };
        if !left.is_empty() && !is_ending() {
            get_runtime().spawn_blocking(move || deliver(left));
        }
    }
}

thread_local! {
    /// What a signal handler raised while a result was delivered: for the loop, when the others have been.
    static INTERRUPT: RefCell<Option<PyErr>> = const { RefCell::new(None) };
    static ON_LOOP: Cell<bool> = const { Cell::new(false) };
    /// Where the result goes that this thread is about to hand over.
    static NEXT: RefCell<Option<Arc<Inbox>>> = const { RefCell::new(None) };
}

/// Within its life deliveries are made by the loop that they are for.
struct OnLoop(());

impl OnLoop {
    fn new() -> Self {
        ON_LOOP.set(true);
        Self(())
    }
}

impl Drop for OnLoop {
    fn drop(&mut self) {
        ON_LOOP.set(false);
    }
}

/// Whether a delivery that is made here is made by the loop that it is for.
pub(super) fn is_on_loop() -> bool {
    ON_LOOP.get()
}

/// Has the loop raise what is no `Exception`, such as a `KeyboardInterrupt`, when it has emptied its inbox.
pub(super) fn interrupt(error: PyErr) {
    INTERRUPT.set(Some(error));
}

/// To be called by a future of [`ByInbox`] when it is about to be ready.
pub(super) fn deliver_to(inbox: Option<Arc<Inbox>>) {
    NEXT.set(inbox);
}

/// The runtime of pyo3-async-runtimes, as it sees it, save that results go into an inbox.
pub(super) struct ByInbox;

impl Runtime for ByInbox {
    type JoinError = JoinError;
    type JoinHandle = Handle;

    fn spawn<F>(future: F) -> Handle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Handle(Some(get_runtime().spawn(future)))
    }

    /// Called in the same poll in which the future was ready.
    fn spawn_blocking<F>(deliver: F) -> Handle
    where
        F: FnOnce() + Send + 'static,
    {
        let Some(inbox) = NEXT.take() else {
            return Handle(Some(get_runtime().spawn_blocking(deliver)));
        };
        let refused = inbox.put(Box::new(deliver)).err();
        Handle(refused.map(|deliver| get_runtime().spawn_blocking(deliver)))
    }
}

impl ContextExt for ByInbox {
    /// The future carries those of its own, see `with_locals`.
    fn scope<F, R>(_locals: TaskLocals, future: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(future)
    }

    fn get_task_locals() -> Option<TaskLocals> {
        carried_locals()
    }
}

/// What was spawned, unless it was put into an inbox.
pub(super) struct Handle(Option<JoinHandle<()>>);

impl Future for Handle {
    type Output = Result<(), JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Some(spawned) => Pin::new(spawned).poll(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
