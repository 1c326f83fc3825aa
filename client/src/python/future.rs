//! Rust futures that Python awaits.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::FutureExt as _;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyBaseException, PyException, PyRuntimeError};
use pyo3::prelude::*;
use pyo3_async_runtimes::TaskLocals;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::ending::Ending;
use super::glue::glue;
use super::inbox::{ByInbox, Inbox, deliver_to, interrupt, is_on_loop};
use super::runtime::{Alive, UntilEnd, task_locals, with_locals};
use crate::task::FutureExt as _;
use crate::{Context, SpanBuilder};

/// How many threads hand results to loops without an inbox at a time. They take turns with the GIL; pyo3-async-runtimes
/// would start one for every result, up to hundreds.
static HANDING_OVER: Semaphore = Semaphore::const_new(4);

/// Makes a Rust future awaitable in Python, inside of a span.
///
/// The span is a child of what is [current](Context::current): in a function that Python calls, of the current span of
/// Python. It starts now and ends with the future. Inside of the future it is current, at every poll; Python code that
/// is [awaited there](super::into_future) sees it as its current span, along with the context variables of the caller.
///
/// - The exception of the future is raised by the awaitable, the same object, and recorded on the span.
/// - A panic is a `RuntimeError` with the panic's message.
/// - Cancelling the awaitable, or the task that awaits it, drops the future at its next await point. Its span ends
///   then, with `rvh_trace.outcome` "cancelled".
/// - A loop that is closed before the future has a result never hears of it; the future goes on. When the process ends
///   it is dropped.
///
/// The future runs on the Tokio runtime of pyo3-async-runtimes. Its result is made a Python object on the thread of the
/// event loop. A round trip takes less time than by `pyo3_async_runtimes::tokio::future_into_py`: see decision 31.
///
/// # Errors
///
/// `RuntimeError` without a running event loop, in a process that was forked after Tokio was started, and while the
/// interpreter shuts down.
///
/// ```no_run
/// use pyo3::prelude::*;
/// use rvh_trace_client::{Span, python};
///
/// #[pyfunction]
/// fn quote<'py>(py: Python<'py>, item: &str) -> PyResult<Bound<'py, PyAny>> {
///     let span = Span::builder("quote").attribute("item", item);
///     let item = item.to_owned();
///     python::future_into_py(py, span, async move { Ok(item.len()) })
/// }
/// ```
pub fn future_into_py<'py, 'a, F, T>(
    py: Python<'py>,
    span: impl Into<SpanBuilder<'a>>,
    future: F,
) -> PyResult<Bound<'py, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'any> IntoPyObject<'any> + Send + 'static,
{
    let locals = task_locals(py)?;
    let context = span.into().start();
    let ending = Ending::of(&context);
    awaitable(py, locals, context, ending, future)
}

/// [`future_into_py`] without a span of its own: what is current where it is called is current inside of the future.
pub fn future_into_py_without_span<F, T>(py: Python<'_>, future: F) -> PyResult<Bound<'_, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'any> IntoPyObject<'any> + Send + 'static,
{
    let locals = task_locals(py)?;
    awaitable(py, locals, Context::current(), Ending::default(), future)
}

fn awaitable<F, T>(
    py: Python<'_>,
    locals: TaskLocals,
    context: Context,
    mut ending: Ending,
    future: F,
) -> PyResult<Bound<'_, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'any> IntoPyObject<'any> + Send + 'static,
{
    let alive = Alive::required()?;
    let inbox = Inbox::of(&locals.event_loop(py));
    let receiver = Bound::new(
        py,
        Receiver {
            event_loop: locals.event_loop(py).unbind(),
        },
    )?;
    let kept = locals.clone();
    let future = with_locals(locals, future.in_context(context));
    // Boxed, so that a pointer is what moves through the futures of pyo3-async-runtimes, and not what is as large as
    // all its locals.
    let future = Box::pin(UntilEnd::new(async move {
        let result = AssertUnwindSafe(future)
            .catch_unwind()
            .await
            .unwrap_or_else(|panic| Err(from_panic(&*panic)));
        if result.is_ok() {
            ending.returned();
        }
        // To describe an exception takes the GIL, and the span is to end now, not when the loop comes to it.
        let inbox = inbox.filter(|inbox| result.is_ok() && inbox.is_open());
        let permit = match inbox {
            Some(_) => None,
            None => HANDING_OVER.acquire().await.ok(),
        };
        let under_way = UnderWay {
            _permit: permit,
            _alive: alive,
        };
        deliver_to(inbox);
        Ok(Outcome {
            result,
            ending,
            under_way,
            _locals: kept,
        })
    }));
    // pyo3-async-runtimes tells this loop of its own what has come out, see `Receiver`.
    let locals = TaskLocals::new(receiver.into_any());
    pyo3_async_runtimes::generic::future_into_py_with_locals::<ByInbox, _, _>(py, locals, future)
}

/// What a panic is to Python.
pub(super) fn from_panic(panic: &(dyn Any + Send)) -> PyErr {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    PyRuntimeError::new_err(format!("a Rust future panicked: {message}"))
}

/// What has come out of a future, on its way to Python. pyo3-async-runtimes makes a Python object of it with the GIL: on
/// the thread of the loop, or on one where waiting for the GIL holds nobody up.
struct Outcome<T> {
    result: PyResult<T>,
    ending: Ending,
    under_way: UnderWay,
    /// The last to go: without the GIL, each of its objects would have to wait for a thread that has it.
    _locals: TaskLocals,
}

thread_local! {
    /// Of the result that this thread is handing over.
    static UNDER_WAY: Cell<Option<UnderWay>> = const { Cell::new(None) };
}

/// Held from the end of a future until the loop has been told.
struct UnderWay {
    _permit: Option<SemaphorePermit<'static>>,
    _alive: Alive,
}

impl<'py, T> IntoPyObject<'py> for Outcome<T>
where
    T: for<'any> IntoPyObject<'any>,
{
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Self {
            result,
            mut ending,
            under_way,
            _locals,
        } = self;
        UNDER_WAY.set(Some(under_way));
        let result = result.and_then(|value| {
            // Nobody would wake who waits if this unwound.
            catch_unwind(AssertUnwindSafe(|| value.into_bound_py_any(py)))
                .unwrap_or_else(|panic| Err(from_panic(&*panic)))
        });
        result.or_else(|error| {
            ending.raised(py, &error);
            let error = error.into_value(py);
            Bound::new(py, Failure { error }).map(Bound::into_any)
        })
    }
}

/// The exception of a future, as a value.
#[pyclass(frozen)]
struct Failure {
    error: Py<PyBaseException>,
}

/// What pyo3-async-runtimes takes for the event loop. It passes results on to the real one, except that one that is
/// closed is nothing to print a traceback about, and that every exception can be delivered.
#[pyclass(frozen)]
struct Receiver {
    event_loop: Py<PyAny>,
}

#[pymethods]
impl Receiver {
    fn create_future(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.event_loop
            .call_method0(py, pyo3::intern!(py, "create_future"))
    }

    #[pyo3(signature = (_check, future, _complete, value, *, context=None))]
    fn call_soon_threadsafe(
        &self,
        py: Python<'_>,
        _check: &Bound<'_, PyAny>,
        future: &Bound<'_, PyAny>,
        _complete: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        // The loop's default, which is what `succeed` and `fail` may run in.
        let _ = context;
        let _under_way = UNDER_WAY.take();
        let glue = glue(py)?;
        let (tell, value) = match value.cast::<Failure>() {
            Ok(failure) => (&glue.fail, failure.get().error.bind(py).as_any()),
            Err(_) => (&glue.succeed, value),
        };
        let event_loop = self.event_loop.bind(py);
        if !is_on_loop() {
            return call_soon(event_loop, (tell, future, value));
        }
        let told = tell.call1(py, (future, value)).map(drop);
        match told {
            Err(error) if !error.is_instance_of::<PyException>(py) => {
                // A signal handler has raised it, and pyo3-async-runtimes would print it.
                interrupt(error);
                call_soon(event_loop, (tell, future, value))
            }
            told => told,
        }
    }
}

/// Has something called on the thread of the loop, unless the loop is closed.
pub(super) fn call_soon<'py>(
    event_loop: &Bound<'py, PyAny>,
    call: impl pyo3::call::PyCallArgs<'py>,
) -> PyResult<()> {
    let py = event_loop.py();
    event_loop
        .call_method1(pyo3::intern!(py, "call_soon_threadsafe"), call)
        .map(drop)
        .or_else(|error| {
            if is_closed(event_loop) {
                Ok(())
            } else {
                Err(error)
            }
        })
}

/// Whether the loop will never run again.
pub(super) fn is_closed(event_loop: &Bound<'_, PyAny>) -> bool {
    event_loop
        .call_method0(pyo3::intern!(event_loop.py(), "is_closed"))
        .and_then(|is_closed| is_closed.is_truthy())
        .unwrap_or(true)
}
