//! Tokio inside of a Python process: whose it is, and how it comes to rest.
//!
//! Two things end a Python process that Tokio knows nothing of. After `os.fork()` its threads exist in the parent
//! alone: [`claim`] refuses to work in the child. And CPython before 3.14 ends a thread that asks for the GIL while the
//! interpreter finalises, by unwinding through frames of Rust, which aborts the process: an `atexit` function drops
//! every future that still is pending, as if it was cancelled, and waits for those that are on their way to Python, for
//! [`SETTLE`] at most.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3_async_runtimes::TaskLocals;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::{inbox, mailbox};

/// How long the end of the process waits for what is on its way between Tokio and Python.
const SETTLE: Duration = Duration::from_millis(250);

/// Whose Tokio is: nobody's yet, this process's, or that of a process which this one was forked from.
static OWNER: AtomicU8 = AtomicU8::new(NOBODY);
const NOBODY: u8 = 0;
const THIS_PROCESS: u8 = 1;
const A_PARENT: u8 = 2;
/// How much there is that may ask for the GIL, see [`Alive`].
static ALIVE: AtomicUsize = AtomicUsize::new(0);
/// Whether the process ends. Sequentially consistent with [`ALIVE`]: who has counted itself after this was set will see
/// it.
static ENDING: AtomicBool = AtomicBool::new(false);
/// Wakes what is pending when the process ends.
static END: Notify = Notify::const_new();

/// Makes Tokio this process's, or says why it cannot be used here.
fn claim(py: Python<'_>) -> PyResult<()> {
    match OWNER.load(Ordering::Relaxed) {
        THIS_PROCESS => Ok(()),
        NOBODY => {
            let options = PyDict::new(py);
            options.set_item("after_in_child", wrap_pyfunction!(disown, py)?)?;
            py.import("os")?
                .call_method("register_at_fork", (), Some(&options))?;
            let settle = wrap_pyfunction!(settle, py)?;
            py.import("atexit")?.call_method1("register", (settle,))?;
            OWNER.store(THIS_PROCESS, Ordering::Relaxed);
            Ok(())
        }
        _ => Err(PyRuntimeError::new_err(
            "a Rust future was awaited before os.fork(): Tokio's threads exist only in the parent process. Start worker \
             processes by multiprocessing's 'spawn' or 'forkserver', or fork before the first Rust future",
        )),
    }
}

/// Runs in a child after `os.fork()`.
#[pyfunction]
fn disown() {
    OWNER.store(A_PARENT, Ordering::Relaxed);
}

/// The event loop and the context variables that Rust work started here belongs to: those of the Rust future that runs
/// here, else of the Python task that does.
pub(super) fn task_locals(py: Python<'_>) -> PyResult<TaskLocals> {
    claim(py)?;
    if let Some(carried) = carried_locals() {
        return Ok(carried);
    }
    pyo3_async_runtimes::tokio::get_current_locals(py).map_err(|error| {
        let explained = PyRuntimeError::new_err(
            "there is no event loop here: call it in a coroutine, or in a Rust future that Python awaits. Tasks and \
             blocking threads know of their future's loop when they are started by rvh_trace_client::task::spawn or \
             spawn_blocking",
        );
        explained.set_cause(py, Some(error));
        explained
    })
}

thread_local! {
    /// Of the future that is polled. Beside the one of pyo3-async-runtimes, which can only be asked with the GIL.
    static CARRIED: RefCell<Option<TaskLocals>> = const { RefCell::new(None) };
}

/// What is carried in the Tokio task that runs here, if it carries something.
pub(super) fn carried_locals() -> Option<TaskLocals> {
    CARRIED.try_with(|carried| carried.borrow().clone()).ok()?
}

/// Carries what it was made of until it is dropped.
struct Carrying(Option<TaskLocals>);

impl Carrying {
    fn new(locals: Option<TaskLocals>) -> Self {
        Self(Self::swap(locals))
    }

    fn swap(locals: Option<TaskLocals>) -> Option<TaskLocals> {
        CARRIED.try_with(|carried| carried.replace(locals)).ok()?
    }
}

impl Drop for Carrying {
    fn drop(&mut self) {
        Self::swap(self.0.take());
    }
}

pin_project! {
    struct Carrier<F> {
        locals: TaskLocals,
        // Taken out of it to be dropped where it belongs.
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for Carrier<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _carrying = Carrying::new(Some(this.locals.clone()));
            this.future.set(None);
        }
    }
}

impl<F: Future> Future for Carrier<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _carrying = Carrying::new(Some(this.locals.clone()));
        this.future
            .as_pin_mut()
            .map_or(Poll::Pending, |future| future.poll(cx))
    }
}

/// Carries `locals` in a future, for this crate and for pyo3-async-runtimes.
pub(super) fn with_locals<F>(
    locals: TaskLocals,
    future: F,
) -> impl Future<Output = F::Output> + Send + 'static
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Carrier {
        locals: locals.clone(),
        future: Some(pyo3_async_runtimes::tokio::scope(locals, future)),
    }
}

/// Something that may ask for the GIL without being asked to: the end of the process waits until it is dropped.
#[derive(Debug)]
pub(super) struct Alive(());

impl Alive {
    /// `None` if the process ends: then nothing may be started any more.
    pub(super) fn new() -> Option<Self> {
        ALIVE.fetch_add(1, Ordering::SeqCst);
        let alive = Self(());
        (!ENDING.load(Ordering::SeqCst)).then_some(alive)
    }

    /// [`Self::new`], or what to tell Python.
    pub(super) fn required() -> PyResult<Self> {
        Self::new().ok_or_else(|| {
            PyRuntimeError::new_err(
                "a Rust future cannot be started while the interpreter shuts down",
            )
        })
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether Tokio's threads are in this process.
pub(super) fn is_ours() -> bool {
    OWNER.load(Ordering::Relaxed) == THIS_PROCESS
}

/// Whether the process ends: no thread of Tokio's may take the GIL.
pub(super) fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// Runs at exit, see the module.
#[pyfunction]
fn settle(py: Python<'_>) {
    if !is_ours() {
        return;
    }
    ENDING.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + SETTLE;
    END.notify_waiters();
    loop {
        inbox::empty_all();
        if ALIVE.load(Ordering::SeqCst) == 0 || Instant::now() >= deadline {
            break;
        }
        py.detach(|| std::thread::sleep(Duration::from_millis(1)));
    }
    mailbox::empty(py);
}

pin_project! {
    /// A future that is dropped, and never heard of again, when the process ends.
    pub(super) struct UntilEnd<F> {
        #[pin]
        future: Option<F>,
        // Waits only once the future does.
        #[pin]
        end: Option<Notified<'static>>,
    }
}

impl<F: Future> UntilEnd<F> {
    pub(super) fn new(future: F) -> Self {
        Self {
            future: Some(future),
            end: None,
        }
    }
}

impl<F: Future> Future for UntilEnd<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if ENDING.load(Ordering::SeqCst) {
            this.future.set(None);
        }
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let polled = future.poll(cx);
        if polled.is_ready() {
            this.future.set(None);
            return polled;
        }
        if this.end.is_none() {
            this.end.set(Some(END.notified()));
        }
        // The flag may have been set before there was anything to notify.
        let has_ended = this
            .end
            .as_pin_mut()
            .is_some_and(|end| end.poll(cx).is_ready());
        if has_ended || ENDING.load(Ordering::SeqCst) {
            this.future.set(None);
        }
        Poll::Pending
    }
}
