//! `LoopWatch`: finds out while an event loop is blocked, by whom.
//!
//! The heart of a loop beats through `call_later`, from Python (`rvh_trace._loop`): a daemon thread that has to wait for the GIL
//! while the interpreter finalises is unwound there, and through frames of Rust that ends in a crash (CPython before 3.14). For
//! the same reason a beat runs no bytecode here.
//!
//! When a beat is late the watcher's thread attaches, once, looks where the
//! loop's thread is and which span is current there, and puts the event on that span at once: the span may end before the
//! loop comes back. What is not known by then, how long it took, is written when the span ends or with the next beat.
//!
//! A loop that is well is never disturbed from another thread. All that is here happens under the GIL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::cell::AttachedCell;
use super::errors::{guard, to_python};
use super::span::Span;
use super::thread_state::{Stack, ThreadState};
use super::{arguments, current, lifecycle};
use crate::attribute::Value;
use crate::clock::monotonic_ns;
use crate::error::Error;
use crate::event_loop::{
    Block, Heart, PerProcess, Watched, Watcher, begin_collection, end_collection,
};
use crate::id::process_generation;
use crate::span::{BLOCKED_TIME, GC_SHARE, LOOP_BLOCKED, Span as Recording, SpanKind};
use crate::tracer::{Started, Tracer};

/// How long the end of the process waits for the watcher's thread. CPython before 3.14 ends a thread that attaches while it
/// finalises, and with it, through frames of Rust, the process.
const SETTLE: Duration = Duration::from_secs(1);

static WATCHER: PerProcess<Py<LoopWatch>> = PerProcess::new();

fn watcher() -> &'static Watcher<Py<LoopWatch>> {
    WATCHER.get()
}

/// What was said about a block that is not over.
enum Report {
    /// An event of the span that was current.
    Event { span: Py<Span>, event: u32 },
    /// A span for the block alone.
    Span { span: Recording, block: Block },
    /// Nothing: tracing is off, the trace is not sampled, or the span has all the events it may have.
    Nothing,
}

impl Report {
    /// The block is over.
    fn finish(self, py: Python<'_>) {
        match self {
            Self::Event { span, event } => {
                // Bound, so that it is let go of here and now.
                let span = span.into_bound(py);
                span.get().with_recording(py, |span| span.end_block(event));
            }
            Self::Span { mut span, block } => {
                let (seconds, share) = block.measure();
                span.push_attribute(BLOCKED_TIME, &Value::Float(seconds));
                span.push_attribute(GC_SHARE, &Value::Float(share));
                span.end();
            }
            Self::Nothing => {}
        }
    }
}

#[derive(Default)]
struct State {
    /// The thread that the loop was run by at the last beat.
    thread: Option<ThreadState>,
    report: Option<Report>,
    generation: u32,
}

/// A loop that is watched. Made by `watch_loop`.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct LoopWatch {
    heart: Heart,
    /// Weak: a watch does not keep its loop alive.
    event_loop: Py<PyWeakrefReference>,
    state: AttachedCell<State>,
}

impl Watched for Py<LoopWatch> {
    fn heart(&self) -> &Heart {
        &self.get().heart
    }

    fn examine(&self, due_ns: u64) {
        Python::try_attach(|py| {
            let watch = self.bind(py);
            let examined = guard(py, "looking at a blocked event loop", || {
                LoopWatch::examine(watch, due_ns)
            });
            if let Err(error) = examined {
                error.write_unraisable(py, Some(watch.as_any()));
            }
        });
    }
}

impl LoopWatch {
    fn event_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.event_loop.bind(py).upgrade()
    }

    /// The watch of a loop, if there is one.
    fn of<'py>(event_loop: &Bound<'py, PyAny>) -> Option<Bound<'py, Self>> {
        let py = event_loop.py();
        watcher().watched().iter().find_map(|watch| {
            let watched = watch.get().event_loop(py)?;
            watched.is(event_loop).then(|| watch.bind(py).clone())
        })
    }

    fn begin(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        slf.get()
            .state
            .with(py, |state| state.generation = process_generation());
        observe_collections(py)?;
        watcher().add(Arc::new(slf.clone().unbind()))?;
        Ok(())
    }

    /// The loop is alive. Whether it shall beat again.
    fn beat(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        if this.heart.is_stopped() {
            return Ok(false);
        }
        if this.state.with(py, |state| state.generation) != Some(process_generation()) {
            // In a forked child that goes on with its parent's loop.
            this.heart.rest();
            drop(this.state.with(py, |state| state.report.take()));
            Self::begin(slf)?;
        }
        let thread = ThreadState::of_this_thread(py);
        this.state.with(py, |state| state.thread = thread);
        let beat = this.heart.beat();
        // The watcher rests while there is nothing to await, and while a block that it has found goes on.
        if beat.as_ref().is_none_or(|beat| beat.block.is_some()) {
            watcher().look_again();
        }
        if let Some(beat) = beat {
            let report = this.state.with(py, |state| state.report.take()).flatten();
            match (report, beat.block) {
                (Some(report), _) => report.finish(py),
                // The watcher could not get the GIL before the loop was back: there is no stack any more.
                (None, Some(block)) => {
                    own_span(py, block, None, None).finish(py);
                }
                (None, None) => {}
            }
            if let Some(metrics) = lifecycle::tracer().and_then(Tracer::event_loop_metrics) {
                metrics.record_lag(beat.lag_ns);
            }
        }
        Ok(true)
    }

    /// Looks why the beat that was due has not come.
    fn examine(slf: &Bound<'_, Self>, due_ns: u64) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let asked = |question| -> PyResult<bool> {
            match this.event_loop(py) {
                Some(event_loop) => event_loop.call_method0(question)?.is_truthy(),
                None => Ok(question == "is_closed"),
            }
        };
        if asked("is_closed")? {
            return Self::stop(slf);
        }
        if !asked("is_running")? {
            if this.heart.is_awaited(due_ns) {
                this.heart.rest();
            }
            this.finish_report(py);
            return Ok(());
        }
        let known = this
            .state
            .with(py, |state| (state.thread, state.report.is_some()));
        let Some((Some(thread), false)) = known else {
            return Ok(());
        };
        // The questions above ran Python, so the loop may have come back.
        if !this.heart.is_awaited(due_ns) {
            return Ok(());
        }
        let block = this.heart.block(due_ns);
        // A finaliser would give the other thread a chance to move on.
        let collector = current::CollectorPaused::new();
        let stack = thread.stack(py)?;
        let context = thread.context(py)?;
        let current = match &context {
            Some(context) => current::span_in(context)?,
            None => None,
        };
        drop(collector);
        let report = report(py, block, stack.as_ref(), current.as_ref());
        this.state.with(py, |state| state.report = Some(report));
        Ok(())
    }

    fn finish_report(&self, py: Python<'_>) {
        if let Some(report) = self.state.with(py, |state| state.report.take()).flatten() {
            report.finish(py);
        }
    }
}

/// Puts the event on the span that is current in the blocked thread, or makes a span if none is recorded there.
fn report(
    py: Python<'_>,
    block: Block,
    stack: Option<&Stack>,
    current: Option<&Bound<'_, Span>>,
) -> Report {
    let event = current.and_then(|span| {
        let attributes = stack.map(attributes);
        let attributes = attributes.as_ref().map_or(&[][..], |some| &some[..]);
        // Over the limit of events it is counted as dropped, and nothing else is said.
        span.get()
            .with_recording(py, |span| {
                span.is_recording()
                    .then(|| span.begin_block(block, attributes))
            })
            .flatten()
    });
    match (event, current) {
        (Some(Some(event)), Some(span)) => Report::Event {
            span: span.clone().unbind(),
            event,
        },
        (Some(None), _) => Report::Nothing,
        _ => own_span(py, block, stack, current),
    }
}

fn own_span(
    py: Python<'_>,
    block: Block,
    stack: Option<&Stack>,
    current: Option<&Bound<'_, Span>>,
) -> Report {
    let Some(tracer) = lifecycle::tracer() else {
        return Report::Nothing;
    };
    let parent = current.map(|span| span.get().clone_context(py));
    let started = tracer.create(parent.as_ref(), SpanKind::Internal, LOOP_BLOCKED);
    let Started::Recording(mut span) = started else {
        tracer.count_not_sampled();
        return Report::Nothing;
    };
    if let Some(current) = current {
        current.get().adopt(py, &mut span);
    }
    for (key, value) in stack.map(attributes).into_iter().flatten() {
        span.push_attribute(key, &value);
    }
    span.begin(block.start());
    Report::Span { span, block }
}

/// Semantic conventions, "Code".
fn attributes(stack: &Stack) -> [(&'static str, Value<'_>); 4] {
    [
        ("code.function.name", Value::Str(&stack.function)),
        ("code.file.path", Value::Str(&stack.file)),
        ("code.line.number", Value::Int(stack.line)),
        ("code.stacktrace", Value::Str(&stack.text)),
    ]
}

#[pymethods]
impl LoopWatch {
    /// Ends the watch. Later calls do nothing.
    #[pyo3(name = "stop")]
    fn stop_watching(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::stop(slf)
    }

    /// Whether the loop is blocked now, as far as the watch has found.
    #[getter]
    fn is_blocked(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.report.is_some()) == Some(true)
    }

    /// What a timer of the loop calls. Whether there shall be another.
    fn _beat(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let again = guard(slf.py(), "watching an event loop", || Self::beat(slf))?;
        Ok(again.unwrap_or(false))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (exc_type, exc, traceback, /))]
    fn __exit__(
        slf: &Bound<'_, Self>,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let _ = (exc_type, exc, traceback);
        Self::stop(slf)?;
        Ok(false)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let event_loop = match self.event_loop(py) {
            Some(event_loop) => event_loop.repr()?.to_string(),
            None => "a loop that is gone".to_owned(),
        };
        let state = if self.heart.is_stopped() {
            "stopped"
        } else {
            "watching"
        };
        Ok(format!("<rvh_trace.LoopWatch {state} {event_loop}>"))
    }
}

impl LoopWatch {
    fn stop(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if slf.get().heart.stop() {
            watcher().look_again();
            slf.get().finish_report(py);
            if watcher().watched().is_empty() {
                ignore_collections(py)?;
            }
        }
        Ok(())
    }
}

/// The watch of a loop; if it has none, a new one, and after how many seconds its heart is to beat again.
#[pyfunction]
pub(super) fn watch_loop<'py>(
    event_loop: &Bound<'py, PyAny>,
    threshold_ms: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, LoopWatch>, Option<f64>)> {
    let py = event_loop.py();
    let threshold = threshold(threshold_ms)?;
    if let Some(watch) = LoopWatch::of(event_loop) {
        return Ok((watch, None));
    }
    stop_at_exit(py)?;
    let watch = LoopWatch {
        heart: Heart::new(threshold),
        event_loop: PyWeakrefReference::new(event_loop)?.unbind(),
        state: AttachedCell::new(State::default()),
    };
    let watch = Bound::new(py, watch)?;
    LoopWatch::begin(&watch)?;
    let period = watch.get().heart.period();
    Ok((watch, Some(period.as_secs_f64())))
}

fn threshold(threshold_ms: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let number: f64 = arguments::argument(threshold_ms, "threshold_ms", "a number")?;
    match Duration::try_from_secs_f64(number / 1000.0) {
        Ok(threshold) if !threshold.is_zero() => Ok(threshold),
        _ => {
            let problem = format!("must be a number of milliseconds above 0, not {number}");
            let error = Error::configuration("threshold_ms", problem);
            Err(to_python(threshold_ms.py(), &error))
        }
    }
}

/// What `gc.callbacks` are called for: see `gc` in the library reference.
#[pyfunction]
fn note_collection(phase: &str, info: &Bound<'_, PyAny>) {
    let _ = info;
    if phase == "start" {
        begin_collection(monotonic_ns());
    } else {
        end_collection(monotonic_ns());
    }
}

fn collection_callback(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CALLBACK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CALLBACK
        .get_or_try_init(py, || {
            Ok(wrap_pyfunction!(note_collection, py)?.into_any().unbind())
        })
        .map(|callback| callback.bind(py))
}

/// Measures collections while loops are watched. Costs some 300 ns a collection.
fn observe_collections(py: Python<'_>) -> PyResult<()> {
    let callbacks = py.import("gc")?.getattr("callbacks")?;
    let callback = collection_callback(py)?;
    if !callbacks.contains(callback)? {
        callbacks.call_method1("append", (callback,))?;
    }
    Ok(())
}

fn ignore_collections(py: Python<'_>) -> PyResult<()> {
    let callbacks = py.import("gc")?.getattr("callbacks")?;
    let callback = collection_callback(py)?;
    if callbacks.contains(callback)? {
        callbacks.call_method1("remove", (callback,))?;
    }
    Ok(())
}

fn stop_at_exit(py: Python<'_>) -> PyResult<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        let stop = wrap_pyfunction!(stop_watcher, py)?;
        py.import("atexit")?.call_method1("register", (stop,))?;
    }
    Ok(())
}

/// Registered with `atexit`: no thread of ours attaches from here on, and blocks that are not over are reported as they are.
#[pyfunction]
fn stop_watcher(py: Python<'_>) -> PyResult<()> {
    guard(py, "ending the watch over event loops", || {
        let watched = watcher().watched();
        py.detach(|| watcher().close(SETTLE));
        for watch in watched {
            LoopWatch::stop(watch.bind(py))?;
        }
        Ok(())
    })
    .map(drop)
}
