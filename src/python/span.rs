//! `Span`: the object that users hold.
//!
//! A span is made with its name and attributes already encoded, starts when it is entered, and ends when it is left. The
//! object holds no Python object of the user's (see [`super::deferred::DeferredSpan`] for the one that must), so the
//! garbage collector has nothing to look for in it, and does not track one of `span(...)` or of a task that is recorded. Python code (a value's
//! `__str__`, `traceback`) runs only while the cell is not entered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use pyo3::exceptions::{PyBaseException, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::abi::SharedSpan;
use super::cell::AttachedCell;
use super::convert;
use super::convert::{
    ascii, borrow_attributes, for_each_item, linked_context, owned_attributes, with_name,
    with_plain_value, with_value,
};
use super::coroutine::{Ready, SpanCoroutine};
use super::current::Scope;
use super::errors::guard;
use super::exception::describe;
use super::layers;
use super::open_spans;
use super::span_context::{SpanContext, python_bool};
use super::template::decorate;
use crate::context::{self, TraceFlags};
use crate::exception;
use crate::span::{Span as Recording, Status, take_buffer};
use crate::tracer::Tracer;

pub(super) enum Body {
    /// Recorded, or made to be.
    Recording(Recording),
    /// Not recorded. The identity is its own, or its parent's when it has none of its own.
    NonRecording(context::SpanContext),
    /// A [`DeferredSpan`] that has not started.
    Deferred,
    /// Recorded by another extension module, which ends it.
    Shared {
        context: context::SpanContext,
        span: Arc<SharedSpan>,
    },
}

impl Body {
    #[inline]
    fn is_recording(&self) -> bool {
        matches!(self, Self::Recording(_) | Self::Shared { .. })
    }

    #[inline]
    fn is_unsampled(&self) -> bool {
        match self {
            Self::NonRecording(context) => {
                !context.is_sampled()
                    && context.is_valid()
                    && !context.flags.contains(TraceFlags::DEFERRED)
            }
            _ => false,
        }
    }
}

pub(super) struct State {
    pub(super) body: Body,
    /// The way back from its scope, while `depth` is not 0.
    pub(super) scope: Option<Scope>,
    /// What contexts that hold it mean, if not itself.
    pub(super) way_back: Option<Py<PyAny>>,
    /// How many scopes are open on it: more than one only when a span is entered again while it is current.
    pub(super) depth: u32,
}

/// The span means itself.
pub(super) const ITSELF: u8 = 0;
/// Its scope was left where it was not current (an async generator closed by another task): contexts that still hold it mean
/// what was current before it.
pub(super) const ANOTHER: u8 = 1;
/// It was made to be what a context holds for another span, see `use_context`.
pub(super) const STANDS_IN: u8 = 2;

/// A span. Made by `span`, `new_span` and `current_span`, never by calling the class.
#[pyclass(frozen, subclass, module = "rvh_trace")]
pub(super) struct Span {
    pub(super) state: AttachedCell<State>,
    /// Whether what is set on it will be exported. Relaxed: the cell decides, this only saves entering it.
    pub(super) recording: AtomicBool,
    /// Whether it stands for a trace that is not sampled: spans below it that follow their parents have nothing to decide.
    unsampled: AtomicBool,
    /// Whether what it stands for is over although it is still current: spans started below it now link it.
    past: AtomicBool,
    /// What a context that holds it means by it: [`ITSELF`], [`ANOTHER`] or [`STANDS_IN`].
    pub(super) means: AtomicU8,
    /// Where it stands on the list of [`super::open_spans`].
    pub(super) listed: AtomicU32,
}

impl Span {
    pub(super) fn new(body: Body) -> Self {
        Self {
            recording: AtomicBool::new(body.is_recording()),
            unsampled: AtomicBool::new(body.is_unsampled()),
            past: AtomicBool::new(false),
            means: AtomicU8::new(ITSELF),
            listed: AtomicU32::new(open_spans::NOT_LISTED),
            state: AttachedCell::new(State {
                body,
                scope: None,
                way_back: None,
                depth: 0,
            }),
        }
    }

    /// An object for a span that is recorded.
    #[inline]
    #[expect(
        unsafe_code,
        reason = "PyO3 has every object tracked, and many at once are much to look through for nothing"
    )]
    pub(super) fn object(py: Python<'_>, body: Body) -> PyResult<Bound<'_, Self>> {
        let span = Bound::new(py, Self::new(body))?;
        // SAFETY: attached; an object of a class that the collector may track, as PyO3's all are. Its `tp_dealloc` takes ones
        // that are not.
        unsafe { ffi::PyObject_GC_UnTrack(span.as_ptr().cast()) };
        open_spans::list(py, span.get());
        Ok(span)
    }

    /// A span that carries an identity and records nothing.
    pub(super) fn non_recording(context: context::SpanContext) -> Self {
        Self::new(Body::NonRecording(context))
    }

    /// The buffer of an object that nobody else holds, for the span that will be made of it.
    #[inline]
    pub(super) fn take_buffer(&self, py: Python<'_>) -> Vec<u8> {
        self.with_recording(py, Recording::take_buffer)
            .unwrap_or_else(take_buffer)
    }

    /// Makes a new span of an object that nobody else holds.
    #[inline]
    pub(super) fn reuse(&self, py: Python<'_>, body: Body) {
        self.describe(&body);
        self.past.store(false, Ordering::Relaxed);
        self.means.store(ITSELF, Ordering::Relaxed);
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

    /// Makes a deferred span of an object that nobody else holds.
    #[inline]
    pub(super) fn reuse_deferred(&self, py: Python<'_>) {
        let done = self.state.with(py, |state| {
            let plain = state.scope.is_none()
                && state.way_back.is_none()
                && !matches!(state.body, Body::Recording(_));
            if plain {
                state.depth = 0;
                state.body = Body::Deferred;
            }
            plain
        });
        if done == Some(true) {
            self.describe(&Body::Deferred);
        } else {
            self.reuse(py, Body::Deferred);
        }
    }

    /// Gives a deferred span the identity of its parent, which is not sampled.
    #[inline]
    pub(super) fn become_hidden(&self, py: Python<'_>, parent: &Self) {
        let context = parent.clone_context(py);
        self.unsampled.store(true, Ordering::Relaxed);
        self.state.with(py, |state| {
            if let Body::Deferred = state.body {
                state.body = Body::NonRecording(context);
            }
        });
    }

    /// Replaces what it is, before it starts.
    pub(super) fn become_body(&self, py: Python<'_>, body: Body) {
        self.describe(&body);
        let old = self
            .state
            .with(py, |state| std::mem::replace(&mut state.body, body));
        drop(old);
    }

    /// Says at a glance what the body says at length.
    #[inline]
    fn describe(&self, body: &Body) {
        self.recording.store(body.is_recording(), Ordering::Relaxed);
        self.unsampled.store(body.is_unsampled(), Ordering::Relaxed);
    }

    /// Whether a span below this one is not recorded and has this one's identity, whatever it is called.
    #[inline]
    pub(super) fn hides_children(&self, tracer: &Tracer) -> bool {
        self.unsampled.load(Ordering::Relaxed) && tracer.follows_parents()
    }

    /// What it stands for is over: see [`Self::is_past`].
    pub(super) fn pass(&self) {
        self.past.store(true, Ordering::Relaxed);
    }

    /// Whether spans below it, started now, are roots that link it: a child of a request that was answered would stand
    /// outside of its parent's time (open-telemetry/opentelemetry-python-contrib#4251).
    #[inline]
    pub(super) fn is_past(&self) -> bool {
        self.past.load(Ordering::Relaxed)
    }

    /// Puts a span that was made a child of this one where it belongs.
    #[inline]
    pub(super) fn adopt(&self, py: Python<'_>, child: &mut Recording) {
        if self.is_past() {
            child.detach(&self.clone_context(py));
        }
    }

    /// Calls `then` with the span if it is being recorded. `then` must not run Python code.
    #[inline]
    pub(super) fn with_recording<R>(
        &self,
        py: Python<'_>,
        then: impl FnOnce(&mut Recording) -> R,
    ) -> Option<R> {
        self.state
            .with(py, |state| {
                let mut locked;
                let span = match &mut state.body {
                    Body::Recording(span) => span,
                    // The holders of the lock never wait for the GIL.
                    Body::Shared { span, .. } => {
                        locked = span.lock()?;
                        &mut *locked
                    }
                    _ => return None,
                };
                Some(then(span))
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
                Body::NonRecording(context) | Body::Shared { context, .. } => Some(context),
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
        let put = self.put_attribute_quietly(key, value);
        layers::deliver(key.py());
        put
    }

    /// [`Self::put_attribute`] without calling layers.
    #[inline]
    fn put_attribute_quietly(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
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

    /// Ends the span, if it is recording. One that has not started may still be entered.
    #[inline]
    pub(super) fn end_now(&self, py: Python<'_>) {
        let is_created = self.with_recording(py, |span| {
            span.end();
            span.is_created()
        });
        if is_created != Some(true) {
            self.recording.store(false, Ordering::Relaxed);
        }
    }
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
        let put = guard(attributes.py(), "setting attributes", || {
            // No layer may change the mapping meanwhile.
            for_each_item(attributes, |key, value| {
                self.put_attribute_quietly(key, value)
            })
        });
        layers::deliver(attributes.py());
        put.map(drop)
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
            convert::unix_ns(unix_ns)
        })?
        .flatten();
        let added = guard(py, "adding an event", || {
            let owned = owned_attributes(attributes)?;
            let attributes = borrow_attributes(&owned);
            with_name(name, |name| {
                self.with_recording(py, |span| {
                    let unix_ns = unix_ns.unwrap_or_else(|| span.start_time().later_unix_ns());
                    span.add_event(name, unix_ns, &attributes);
                })
            })
        });
        layers::deliver(py);
        added.map(drop)
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
        let recorded = guard(py, "recording an exception", || {
            let described = describe(exception.cast::<PyBaseException>()?)?;
            self.with_recording(py, |span| {
                exception::record(span, &described, span.start_time().later_unix_ns());
            });
            Ok(())
        });
        layers::deliver(py);
        recorded.map(drop)
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
        let end_unix_ns = guard(py, "reading the end of a span", || {
            convert::unix_ns(end_unix_ns)
        })?
        .flatten();
        if let Some(end_unix_ns) = end_unix_ns {
            self.with_recording(py, |span| {
                if !span.is_created() {
                    span.end_at(end_unix_ns);
                }
            });
        }
        self.end_now(py);
        layers::deliver(py);
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
        self.is_live() && self.with_recording(py, |span| span.is_open()) == Some(true)
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
        open_spans::unlist(self);
        if let Body::Recording(span) = &mut self.state.get_mut().body {
            span.end_unattended();
        }
    }
}
