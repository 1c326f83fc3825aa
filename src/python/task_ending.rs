//! `TaskEnding`: how a task ended, on its span.
//!
//! Of a cancellation asyncio keeps the message and the number of requests that were not taken back, not who made them:
//! what cannot be known is not guessed.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;

use super::convert::with_name;
use super::errors::guard;
use super::exception::{Ending, OUTCOME};
use super::span::{Body, Span};
use super::task_timings::Timings;
use super::{imports, layers};
use crate::span::Span as Recording;

/// How far a task came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its coroutine returned or raised, or was closed.
    Ran,
    /// Its coroutine was never stepped.
    NeverStarted,
    /// It was destroyed while it was suspended.
    Destroyed,
}

/// What an exception, or an end without one, means for the span of a task.
struct TaskEnding {
    fate: Fate,
    ending: Ending,
    cancellation: Option<&'static str>,
    message: Option<String>,
}

impl TaskEnding {
    /// Reads the exception. Runs Python code.
    #[cold]
    fn of(
        coroutine: Option<&Bound<'_, PyAny>>,
        raised: Option<&Bound<'_, PyBaseException>>,
        fate: Fate,
    ) -> PyResult<Self> {
        let ending = Ending::of(raised)?;
        let (mut cancellation, mut message) = (None, None);
        if let (Ending::Cancelled, Some(raised)) = (&ending, raised) {
            cancellation = coroutine
                .map_or(Ok(None), asked_to_cancel)?
                .map(|asked| if asked { "requested" } else { "propagated" });
            message = cancel_message(raised)?;
        }
        Ok(Self {
            fate,
            ending,
            cancellation,
            message,
        })
    }

    fn write(&self, span: &mut Recording) {
        match (self.fate, &self.ending) {
            (Fate::NeverStarted, Ending::Returned | Ending::Cancelled) => {
                span.set_attribute(OUTCOME, &"never_started".into());
            }
            (Fate::Destroyed, Ending::Returned) => {
                span.set_attribute(OUTCOME, &"destroyed".into());
            }
            (_, ending) => ending.write(span),
        }
        if let Some(cancellation) = self.cancellation {
            span.set_attribute("rvh_trace.task.cancellation", &cancellation.into());
        }
        if let Some(message) = &self.message {
            span.set_attribute("rvh_trace.task.cancel_message", &message.as_str().into());
        }
    }
}

/// Whether `Task.cancel()` was called on the task of this coroutine and not taken back by `uncancel()`; `None` if the task that
/// runs here is another one, because somebody wrapped the coroutine.
fn asked_to_cancel(coroutine: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
    let py = coroutine.py();
    let task = imports::current_task(py)?.call0()?;
    if task.is_none() {
        return Ok(None);
    }
    let running = task.call_method0(pyo3::intern!(py, "get_coro"))?;
    if !running.is(coroutine) {
        return Ok(None);
    }
    let requests: usize = task
        .call_method0(pyo3::intern!(py, "cancelling"))?
        .extract()?;
    Ok(Some(requests > 0))
}

/// What was given to `cancel()`: an exception's only argument.
fn cancel_message(raised: &Bound<'_, PyBaseException>) -> PyResult<Option<String>> {
    let arguments = raised.getattr(pyo3::intern!(raised.py(), "args"))?;
    if arguments.len()? != 1 {
        return Ok(None);
    }
    with_name(&arguments.get_item(0)?, str::to_owned).map(Some)
}

/// Ends the span of a task with what came of its coroutine. Never fails.
#[inline]
pub(super) fn end_task(
    span: &Bound<'_, Span>,
    coroutine: Option<&Bound<'_, PyAny>>,
    raised: Option<&Bound<'_, PyBaseException>>,
    fate: Fate,
    timings: Option<&Timings>,
) -> PyResult<()> {
    let py = span.py();
    guard(py, "ending the span of a task", || {
        let mut ending = Ok(None);
        if (raised.is_some() || fate != Fate::Ran) && span.get().is_live() {
            ending = TaskEnding::of(coroutine, raised, fate).map(Some);
        }
        let scope = span.get().state.with(py, |state| {
            if let Body::Recording(recording) = &mut state.body
                && recording.is_recording()
            {
                let start = recording.start_time();
                let end_unix_ns = start.later_unix_ns();
                if let Some(timings) = timings {
                    timings.write(recording, end_unix_ns.saturating_sub(start.unix_ns()));
                }
                if let Ok(Some(ending)) = &ending {
                    ending.write(recording);
                }
                recording.end_at(end_unix_ns);
            }
            state.depth = 0;
            state.scope.take()
        });
        span.get().recording.store(false, Ordering::Relaxed);
        // It holds the span around the task, which must not live as long as whoever keeps this one.
        if let Some(scope) = scope.flatten() {
            scope.forget(py);
        }
        layers::deliver(py);
        ending.map(drop)
    })
    .map(drop)
}
