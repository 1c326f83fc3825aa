//! `Span`: the object that users hold.
//!
//! A span is made with its name and attributes already encoded, starts when it is entered, and ends when it is left. The
//! object holds no Python object of the user's (see [`super::creation::DeferredSpan`] for the one that must), so the
//! garbage collector does not track it: that alone is a fifth of the cost of `with span("op")`. Python code (a value's
//! `__str__`, `traceback`) runs only while the cell is not entered.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyBaseException, PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::cell::AttachedCell;
use super::convert::{
    ascii, borrow_attributes, for_each_item, owned_attributes, with_name, with_plain_value,
    with_value,
};
use super::creation::{DeferredSpan, decorate};
use super::current::{self, Scope};
use super::errors::guard;
use super::exception::{Ending, describe};
use super::lifecycle;
use super::span_context::{Context, SpanContext, python_bool};
use super::task::{Ready, SpanCoroutine};
use crate::clock::Start;
use crate::context;
use crate::exception;
use crate::span::{Span as Recording, Status};
use crate::tracer::Decision;

pub(super) enum Body {
    /// Recorded, or made to be.
    Recording(Recording),
    /// Not recorded. The identity is its own, or its parent's when it has none of its own.
    NonRecording(context::SpanContext),
    /// A [`DeferredSpan`] that has not started.
    Deferred,
}

struct State {
    body: Body,
    /// The way back from its scope, while `depth` is not 0.
    scope: Option<Scope>,
    /// What was current before it, once it is abandoned.
    way_back: Option<Py<PyAny>>,
    /// How many scopes are open on it: more than one only when a span is entered again while it is current.
    depth: u32,
}

/// A span. Made by `span`, `new_span` and `current_span`, never by calling the class.
#[pyclass(frozen, subclass, module = "rvh_trace")]
pub(super) struct Span {
    state: AttachedCell<State>,
    /// Whether what is set on it will be exported. Relaxed: the cell decides, this only saves entering it.
    recording: AtomicBool,
    /// Whether its scope was left where it was not current (an async generator closed by another task): contexts that
    /// still hold it mean what was current before it.
    abandoned: AtomicBool,
}

impl Span {
    pub(super) fn new(body: Body) -> Self {
        Self {
            recording: AtomicBool::new(matches!(body, Body::Recording(_))),
            abandoned: AtomicBool::new(false),
            state: AttachedCell::new(State {
                body,
                scope: None,
                way_back: None,
                depth: 0,
            }),
        }
    }

    /// A span that carries an identity and records nothing.
    pub(super) fn non_recording(context: context::SpanContext) -> Self {
        Self::new(Body::NonRecording(context))
    }

    /// Makes a new span of an object that nobody else holds.
    #[inline]
    pub(super) fn reuse(&self, py: Python<'_>, body: Body) {
        self.recording
            .store(matches!(body, Body::Recording(_)), Ordering::Relaxed);
        self.abandoned.store(false, Ordering::Relaxed);
        let old = self.state.with(py, |state| {
            if let Body::Recording(span) = &mut state.body {
                span.end();
            }
            state.depth = 0;
            state.body = body;
            (state.scope.take(), state.way_back.take())
        });
        let (scope, way_back) = old.unwrap_or_default();
        drop((
            scope.map(|scope| scope.forget(py)),
            way_back.map(|way_back| way_back.into_bound(py)),
        ));
    }

    /// Replaces what it is, before it starts.
    pub(super) fn become_body(&self, py: Python<'_>, body: Body) {
        self.recording
            .store(matches!(body, Body::Recording(_)), Ordering::Relaxed);
        let old = self
            .state
            .with(py, |state| std::mem::replace(&mut state.body, body));
        drop(old);
    }

    /// Calls `then` with the span if it is being recorded. `then` must not run Python code.
    #[inline]
    pub(super) fn with_recording<R>(
        &self,
        py: Python<'_>,
        then: impl FnOnce(&mut Recording) -> R,
    ) -> Option<R> {
        self.state
            .with(py, |state| match &mut state.body {
                Body::Recording(span) => Some(then(span)),
                _ => None,
            })
            .flatten()
    }

    /// Calls `then` with the span's identity, if it has one yet. `then` must not run Python code.
    #[inline]
    pub(super) fn with_context<R>(
        &self,
        py: Python<'_>,
        then: impl FnOnce(Option<&context::SpanContext>) -> R,
    ) -> R {
        let mut then = Some(then);
        let seen = self.state.with(py, |state| {
            let context = match &state.body {
                Body::Recording(span) => Some(span.context()),
                Body::NonRecording(context) => Some(context),
                Body::Deferred => None,
            };
            then.take().map(|then| then(context))
        });
        // A cell that is entered already belongs to a caller up the stack, who is not asking who it is.
        match (seen.flatten(), then) {
            (Some(seen), _) => seen,
            (None, Some(then)) => then(None),
            (None, None) => unreachable!("`then` is taken only to be called"),
        }
    }

    pub(super) fn clone_context(&self, py: Python<'_>) -> context::SpanContext {
        self.with_context(py, |context| context.cloned().unwrap_or_default())
    }

    /// Whether what is set on it will be exported.
    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    /// Starts the span, as a child of `parent`, if it has not started; whether it is current from now on.
    #[inline]
    fn start(slf: &Bound<'_, Self>, parent: Option<&Bound<'_, Self>>) -> PyResult<bool> {
        /// What is left to do outside of the cell.
        enum Next {
            Nothing { enter: bool },
            Deferred,
            Reparent,
        }
        let py = slf.py();
        let next = slf.get().state.with(py, |state| match &mut state.body {
            Body::Recording(span) => {
                if span.is_created() {
                    let unchanged = match parent {
                        Some(parent) => parent
                            .get()
                            .with_context(py, |parent| span.is_child_of(parent)),
                        None => span.is_child_of(None),
                    };
                    if !unchanged {
                        return Next::Reparent;
                    }
                    span.begin(Start::now());
                }
                Next::Nothing { enter: true }
            }
            Body::NonRecording(_) => Next::Nothing { enter: true },
            Body::Deferred => Next::Deferred,
        });
        match next.unwrap_or(Next::Nothing { enter: false }) {
            Next::Nothing { enter } => Ok(enter),
            Next::Deferred => DeferredSpan::start(slf, parent),
            Next::Reparent => Ok(Self::reparent(slf, parent)),
        }
    }

    /// Starts a span that was made under another parent than the one it is entered under.
    #[cold]
    fn reparent(slf: &Bound<'_, Self>, parent: Option<&Bound<'_, Self>>) -> bool {
        let py = slf.py();
        let context = parent.map(|parent| parent.get().clone_context(py));
        let Some(tracer) = lifecycle::tracer() else {
            return false;
        };
        match tracer.decide(context.as_ref()) {
            Decision::Record(own) => {
                slf.get().with_recording(py, |span| {
                    span.reparent(own, context.as_ref().filter(|context| context.is_valid()));
                    span.begin(Start::now());
                });
                true
            }
            Decision::Drop(own) => {
                tracer.count_not_sampled();
                slf.get().become_body(py, Body::NonRecording(own));
                true
            }
            Decision::Inherit => {
                tracer.count_not_sampled();
                slf.get()
                    .become_body(py, Body::NonRecording(context.unwrap_or_default()));
                false
            }
        }
    }

    /// Starts the span here without making it current.
    pub(super) fn start_here(slf: &Bound<'_, Self>) -> PyResult<()> {
        let parent = current::span(slf.py())?;
        Self::start(slf, parent.as_ref()).map(drop)
    }

    /// Starts the span if need be and makes it current. Never fails.
    #[inline]
    pub(super) fn enter(slf: &Bound<'_, Self>) -> PyResult<()> {
        guard(slf.py(), "starting a span", || {
            let py = slf.py();
            let parent = current::span(py)?;
            let again = slf.get().state.with(py, |state| {
                let again = state.depth > 0;
                state.depth += u32::from(again);
                again
            });
            if again.unwrap_or(true) {
                return Ok(());
            }
            let started = Self::start(slf, parent.as_ref());
            if *started.as_ref().unwrap_or(&true) {
                let scope = Scope::enter(slf, parent)?;
                slf.get().state.with(py, |state| {
                    state.depth = 1;
                    state.scope = Some(scope);
                });
            }
            started.map(drop)
        })
        .map(drop)
    }

    /// Leaves the scope: what was current before is current again. Whether no scope is open on it any more.
    #[inline]
    pub(super) fn leave(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let left = slf.get().state.with(py, |state| {
            let depth = state.depth;
            state.depth = depth.saturating_sub(1);
            (depth, if depth == 1 { state.scope.take() } else { None })
        });
        match left {
            Some((1, Some(scope))) => {
                if let Err(way_back) = scope.leave(slf)? {
                    slf.get().state.with(py, |state| state.way_back = way_back);
                    slf.get().abandoned.store(true, Ordering::Relaxed);
                }
                Ok(true)
            }
            // Never entered, or without an identity of its own to make current.
            Some((0, _)) => Ok(true),
            _ => Ok(false),
        }
    }

    /// Whether contexts that hold this span mean [`Self::way_back`] instead.
    #[inline]
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// What was current before an abandoned span.
    #[cold]
    pub(super) fn way_back<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, Self>> {
        let py = slf.py();
        let way_back = slf.get().state.with(py, |state| {
            state
                .way_back
                .as_ref()
                .map(|way_back| way_back.bind(py).clone())
        });
        way_back.flatten()?.cast_into().ok()
    }

    /// Leaves the scope and, with the outermost one, ends the span with what was raised.
    #[inline]
    pub(super) fn exit(
        slf: &Bound<'_, Self>,
        raised: Option<&Bound<'_, PyBaseException>>,
    ) -> PyResult<()> {
        guard(slf.py(), "ending a span", || {
            let py = slf.py();
            if !Self::leave(slf)? || !slf.get().is_live() {
                return Ok(());
            }
            let ending = raised.map_or(Ok(Ending::Returned), |raised| Ending::of(Some(raised)));
            slf.get().with_recording(py, |span| {
                if let Ok(ending) = &ending {
                    ending.write(span);
                }
                span.end();
            });
            slf.get().recording.store(false, Ordering::Relaxed);
            ending.map(drop)
        })
        .map(drop)
    }

    /// Ends the span with what was raised, from outside the context it was entered in.
    pub(super) fn finish_detached(
        slf: &Bound<'_, Self>,
        raised: Option<&Bound<'_, PyBaseException>>,
    ) -> PyResult<()> {
        let scope = slf.get().state.with(slf.py(), |state| {
            state.depth = 0;
            state.scope.take()
        });
        drop(scope);
        Self::exit(slf, raised)
    }

    /// Sets an attribute. Never fails.
    #[inline]
    pub(super) fn put_attribute(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if !self.is_live() {
            return Ok(());
        }
        let py = key.py();
        if let Some(key) = ascii(key)
            && with_plain_value(value, |value| {
                self.with_recording(py, |span| span.set_attribute(key, value))
            })
            .is_some()
        {
            return Ok(());
        }
        guard(py, "setting an attribute", || {
            with_name(key, |key| {
                with_value(value, |value| {
                    self.with_recording(py, |span| span.set_attribute(key, value))
                })
            })?
        })
        .map(drop)
    }

    /// Ends the span, if it is recording.
    #[inline]
    pub(super) fn end_now(&self, py: Python<'_>) {
        self.with_recording(py, Recording::end);
        self.recording.store(false, Ordering::Relaxed);
    }
}

/// The identity of a `SpanContext`, `Span` or `Context`.
pub(super) fn linked_context(link: &Bound<'_, PyAny>) -> PyResult<context::SpanContext> {
    if let Ok(context) = link.cast::<SpanContext>() {
        return Ok(context.get().inner.clone());
    }
    if let Ok(span) = link.cast::<Span>() {
        return Ok(span.get().clone_context(span.py()));
    }
    if let Ok(context) = link.cast::<Context>() {
        return Ok(context.get().inner.span.clone());
    }
    Err(PyTypeError::new_err(format!(
        "expected a SpanContext, Span or Context, got {}",
        link.get_type().name()?
    )))
}

/// A time that a caller gives, in nanoseconds since the Unix epoch.
pub(super) fn unix_ns(time: Option<&Bound<'_, PyAny>>) -> PyResult<Option<u64>> {
    time.filter(|time| !time.is_none())
        .map(PyAnyMethods::extract)
        .transpose()
}

// `__enter__`, `__exit__` and `set_attribute` are in `super::vectorcall`.
#[pymethods]
impl Span {
    /// Starts the span and makes it current.
    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Ready>> {
        Self::enter(slf)?;
        Bound::new(slf.py(), Ready::new(slf.clone().into_any().unbind()))
    }

    /// Makes current what was before and ends the span.
    #[pyo3(signature = (exc_type, exc, traceback, /))]
    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        exc_type: &Bound<'py, PyAny>,
        exc: &Bound<'py, PyAny>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Ready>> {
        let _ = (exc_type, traceback);
        Self::exit(slf, exc.cast::<PyBaseException>().ok())?;
        Bound::new(slf.py(), Ready::new(slf.py().None()))
    }

    /// Decorates a function: every call gets a new span of this name and these attributes.
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        function: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let wrapped = guard(slf.py(), "decorating a function", || {
            decorate(slf, &function)
        })?;
        Ok(wrapped.unwrap_or(function))
    }

    /// Awaits `awaitable` inside the span: it starts with the first step and ends with the outcome.
    fn run<'py>(
        slf: &Bound<'py, Self>,
        awaitable: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, SpanCoroutine>> {
        SpanCoroutine::around(awaitable, slf.clone())
    }

    /// Makes the span current for a `with` block that does not end it.
    fn activate<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, super::propagate::UseContext>> {
        super::propagate::use_context(slf.as_any())
    }

    /// Sets several attributes.
    fn set_attributes(&self, attributes: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.is_live() {
            return Ok(());
        }
        guard(attributes.py(), "setting attributes", || {
            for_each_item(attributes, |key, value| self.put_attribute(key, value))
        })
        .map(drop)
    }

    /// Adds an event, now or at `unix_ns`, in nanoseconds since the Unix epoch.
    #[pyo3(signature = (name, attributes=None, *, unix_ns=None))]
    fn add_event(
        &self,
        name: &Bound<'_, PyAny>,
        attributes: Option<&Bound<'_, PyAny>>,
        unix_ns: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        if !self.is_live() {
            return Ok(());
        }
        let py = name.py();
        let unix_ns = guard(py, "reading the time of an event", || {
            self::unix_ns(unix_ns)
        })?
        .flatten();
        guard(py, "adding an event", || {
            let owned = owned_attributes(attributes)?;
            let attributes = borrow_attributes(&owned);
            with_name(name, |name| {
                self.with_recording(py, |span| {
                    let unix_ns = unix_ns.unwrap_or_else(|| span.start_time().later_unix_ns());
                    span.add_event(name, unix_ns, &attributes);
                })
            })
        })
        .map(drop)
    }

    /// Links a span of this or another trace.
    #[pyo3(signature = (context, attributes=None))]
    fn add_link(
        &self,
        context: &Bound<'_, PyAny>,
        attributes: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        if !self.is_live() {
            return Ok(());
        }
        guard(context.py(), "adding a link", || {
            let to = linked_context(context)?;
            let owned = owned_attributes(attributes)?;
            self.with_recording(context.py(), |span| {
                span.add_link(&to, &borrow_attributes(&owned));
            });
            Ok(())
        })
        .map(drop)
    }

    /// Sets the status. `ok` is final, `unset` is ignored, and only `error` keeps a description.
    #[pyo3(signature = (status, description=None))]
    fn set_status(
        &self,
        status: &Bound<'_, PyAny>,
        description: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        if !self.is_live() {
            return Ok(());
        }
        let py = status.py();
        guard(py, "setting a status", || {
            let status = match with_name(status, str::to_ascii_lowercase)?.as_str() {
                "ok" => Status::Ok,
                "error" => Status::Error,
                "unset" => Status::Unset,
                other => {
                    return Err(PyValueError::new_err(format!(
                        "status must be 'ok', 'error' or 'unset', not '{other}'"
                    )));
                }
            };
            let description = description
                .map(|text| with_name(text, str::to_owned))
                .transpose()?;
            self.with_recording(py, |span| {
                span.set_status(status, description.as_deref().unwrap_or_default());
            });
            Ok(())
        })
        .map(drop)
    }

    /// Adds the `exception` event of an exception that was handled inside. The status stays.
    fn record_exception(&self, exception: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.is_live() {
            return Ok(());
        }
        let py = exception.py();
        guard(py, "recording an exception", || {
            let described = describe(exception.cast::<PyBaseException>()?)?;
            self.with_recording(py, |span| {
                exception::record(span, &described, span.start_time().later_unix_ns());
            });
            Ok(())
        })
        .map(drop)
    }

    /// Replaces the name.
    fn update_name(&self, name: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.is_live() {
            return Ok(());
        }
        let py = name.py();
        guard(py, "renaming a span", || {
            with_name(name, |name| {
                self.with_recording(py, |span| span.update_name(name))
            })
        })
        .map(drop)
    }

    /// Ends the span; later calls do nothing. Its scope, if it has one, stays open.
    #[pyo3(signature = (end_unix_ns=None))]
    fn end(&self, py: Python<'_>, end_unix_ns: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let end_unix_ns =
            guard(py, "reading the end of a span", || unix_ns(end_unix_ns))?.flatten();
        if let Some(end_unix_ns) = end_unix_ns {
            self.with_recording(py, |span| span.end_at(end_unix_ns));
        }
        self.end_now(py);
        Ok(())
    }

    /// Ends the span as leaving its scope would: with `error` recorded, or as cancelled.
    #[pyo3(signature = (error=None, /))]
    fn finish(slf: &Bound<'_, Self>, error: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        Self::exit(
            slf,
            error.and_then(|error| error.cast::<PyBaseException>().ok()),
        )
    }

    /// What identifies it to others; invalid before it has started.
    #[getter]
    fn context(&self, py: Python<'_>) -> SpanContext {
        // A span that has not started may still find itself under another parent.
        let created = self.with_recording(py, |span| span.is_created());
        let inner = if created == Some(true) {
            context::SpanContext::INVALID
        } else {
            self.clone_context(py)
        };
        SpanContext { inner }
    }

    /// Whether it has started, has not ended, and will be exported.
    #[getter]
    fn is_recording(&self, py: Python<'_>) -> bool {
        self.is_live() && self.with_recording(py, |span| !span.is_created()) == Some(true)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let context = self.context(py).inner;
        if !context.is_valid() {
            let created = self.with_context(py, |context| {
                context.is_none_or(context::SpanContext::is_valid)
            });
            let state = if created {
                "not started"
            } else {
                "without identity"
            };
            return format!("<rvh_trace.Span {state}>");
        }
        let recording = python_bool(self.is_recording(py));
        format!(
            "<rvh_trace.Span trace_id='{}' span_id='{}' recording={recording}>",
            context.trace_id, context.span_id
        )
    }
}

impl Drop for Span {
    /// A span that started and that nobody can end any more (a task that never ran, a forgotten `new_span`) ends now.
    fn drop(&mut self) {
        if let Body::Recording(span) = &mut self.state.get_mut().body {
            span.end();
        }
    }
}
