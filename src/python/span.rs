//! `Span`: the object that users hold, and the functions that make one.
//!
//! A span object is *pending* from `span(...)` until it is entered, so that one object can be a context manager or a
//! decorator; then it is recording, or not. Python code (a value's `__str__`, `traceback`) runs only while the mutex is
//! not held. Sampled and empty, `with span("op")` costs about as much as a `with` on an empty pure-Python class.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBaseException, PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::convert::{borrow_attributes, for_each_item, owned_attributes, span_kind, with_name, with_value};
use super::errors::guard;
use super::exception::{Ending, describe};
use super::span_context::{Context, SpanContext, python_bool};
use super::task::{Ready, SpanCoroutine};
use super::{current, imports, lifecycle};
use crate::clock::Start;
use crate::context;
use crate::exception;
use crate::span::{Span as Recording, SpanKind, Status};
use crate::tracer::Started;

/// What `span(...)` was called with, kept until the span starts.
pub(super) struct Pending {
    name: Py<PyAny>,
    attributes: Option<Py<PyAny>>,
    extra: Option<Py<PyDict>>,
    links: Option<Py<PyAny>>,
    kind: SpanKind,
}

impl Pending {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            name: self.name.clone_ref(py),
            attributes: self.attributes.as_ref().map(|attributes| attributes.clone_ref(py)),
            extra: self.extra.as_ref().map(|extra| extra.clone_ref(py)),
            links: self.links.as_ref().map(|links| links.clone_ref(py)),
            kind: self.kind,
        }
    }
}

enum Body {
    Pending(Pending),
    Recording(Recording),
    NonRecording(context::SpanContext),
}

struct State {
    body: Body,
    /// What was current before this span; meaningful while `depth` is not 0.
    previous: Option<Py<PyAny>>,
    /// How many scopes are open on it: more than one only when a span is entered again while it is current.
    depth: u32,
}

/// See the stub.
#[pyclass(frozen, subclass, weakref, module = "rvh_trace")]
pub(super) struct Span {
    state: Mutex<State>,
    /// Whether attributes are worth converting. Relaxed: the mutex decides.
    recording: AtomicBool,
    /// Whether its scope was left where it was not current (an async generator closed by another task): contexts that
    /// still hold it mean what was current before it.
    abandoned: AtomicBool,
}

impl Span {
    fn new(body: Body) -> Self {
        Self {
            recording: AtomicBool::new(matches!(body, Body::Recording(_))),
            abandoned: AtomicBool::new(false),
            state: Mutex::new(State {
                body,
                previous: None,
                depth: 0,
            }),
        }
    }

    /// A span that carries an identity and records nothing.
    pub(super) fn non_recording(context: context::SpanContext) -> Self {
        Self::new(Body::NonRecording(context))
    }

    /// A span that was just started.
    pub(super) fn recording(span: Recording) -> Self {
        Self::new(Body::Recording(span))
    }

    #[inline]
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn is_recording_now(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    /// Calls `then` with the span if it is being recorded. `then` must not run Python code.
    #[inline]
    pub(super) fn with_recording<R>(&self, then: impl FnOnce(&mut Recording) -> R) -> Option<R> {
        match &mut self.state().body {
            Body::Recording(span) => Some(then(span)),
            _ => None,
        }
    }

    /// Calls `then` with the span's identity, if it has one yet. `then` must not run Python code.
    #[inline]
    pub(super) fn with_context<R>(&self, then: impl FnOnce(Option<&context::SpanContext>) -> R) -> R {
        match &self.state().body {
            Body::Recording(span) => then(Some(span.context())),
            Body::NonRecording(context) => then(Some(context)),
            Body::Pending(_) => then(None),
        }
    }

    pub(super) fn clone_context(&self) -> context::SpanContext {
        self.with_context(|context| context.cloned().unwrap_or_default())
    }

    /// Whether it is recorded and has not ended.
    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.is_recording_now()
    }

    /// Starts a pending span as a child of what is current here. Whether it has an identity of its own.
    #[inline]
    fn start(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        let pending = {
            let mut state = this.state();
            if !matches!(state.body, Body::Pending(_)) {
                return Ok(true);
            }
            let taken = Body::NonRecording(context::SpanContext::INVALID);
            let Body::Pending(pending) = std::mem::replace(&mut state.body, taken) else { return Ok(true) };
            pending
        };
        let Some(tracer) = lifecycle::tracer() else { return Ok(false) };
        let parent = current::span(py)?;
        let name = pending.name.bind(py);
        let (started, inherited) = with_name(name, |name| match &parent {
            Some(parent) => parent.get().with_context(|context| {
                let started = tracer.start(context, pending.kind, name);
                let inherited = matches!(started, Started::Parent).then(|| context.cloned()).flatten();
                (started, inherited)
            }),
            None => (tracer.start(None, pending.kind, name), None),
        })?;
        match started {
            Started::Recording(mut span) => {
                // Set before the attributes: what they run (`__str__`) sees a span, and an error leaves it usable.
                let filled = pending.fill(py, &mut span);
                this.state().body = Body::Recording(span);
                this.recording.store(true, Ordering::Relaxed);
                filled.map(|()| true)
            }
            Started::NonRecording(context) => {
                this.state().body = Body::NonRecording(context);
                Ok(true)
            }
            Started::Parent => {
                this.state().body = Body::NonRecording(inherited.unwrap_or_default());
                Ok(false)
            }
        }
    }

    /// Starts the span if need be and makes it current. Never fails.
    #[inline]
    pub(super) fn enter(slf: &Bound<'_, Self>) -> PyResult<()> {
        guard(slf.py(), "starting a span", || {
            {
                let mut state = slf.get().state();
                if state.depth > 0 {
                    state.depth += 1;
                    return Ok(());
                }
            }
            let mut own_identity = true;
            let started = Self::start(slf).map(|own| own_identity = own);
            if own_identity {
                let previous = current::enter_span(slf)?;
                let mut state = slf.get().state();
                state.previous = previous.map(Bound::unbind);
                state.depth = 1;
            }
            started
        })
        .map(drop)
    }

    /// Leaves the scope: what was current before is current again.
    #[inline]
    pub(super) fn leave(slf: &Bound<'_, Self>) -> PyResult<()> {
        let previous = {
            let mut state = slf.get().state();
            match state.depth {
                0 => return Ok(()),
                1 => {
                    state.depth = 0;
                    state.previous.take()
                }
                _ => {
                    state.depth -= 1;
                    return Ok(());
                }
            }
        };
        if !current::leave_span(slf, previous.as_ref().map(|previous| previous.bind(slf.py())))? {
            slf.get().state().previous = previous;
            slf.get().abandoned.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Where an abandoned span's context leads: `None` if it is not abandoned, else what was current before it.
    #[inline]
    pub(super) fn way_back<'py>(slf: &Bound<'py, Self>) -> Option<Option<Bound<'py, PyAny>>> {
        if !slf.get().abandoned.load(Ordering::Relaxed) {
            return None;
        }
        Some(slf.get().state().previous.as_ref().map(|previous| previous.bind(slf.py()).clone()))
    }

    /// Leaves the scope and, with the outermost one, ends the span with what was raised.
    #[inline]
    pub(super) fn exit(slf: &Bound<'_, Self>, raised: Option<&Bound<'_, PyBaseException>>) -> PyResult<()> {
        guard(slf.py(), "ending a span", || {
            Self::leave(slf)?;
            let this = slf.get();
            if !this.is_recording_now() || this.state().depth > 0 {
                return Ok(());
            }
            if raised.is_some() {
                let ending = Ending::of(raised)?;
                this.with_recording(|span| ending.write(span));
            }
            this.end_now();
            Ok(())
        })
        .map(drop)
    }

    /// Ends the span with what was raised, from outside the context it was entered in.
    pub(super) fn finish_detached(slf: &Bound<'_, Self>, raised: Option<&Bound<'_, PyBaseException>>) -> PyResult<()> {
        let previous = {
            let mut state = slf.get().state();
            state.depth = 0;
            state.previous.take()
        };
        drop(previous);
        Self::exit(slf, raised)
    }

    /// Ends the span, if it is recording.
    #[inline]
    pub(super) fn end_now(&self) {
        self.with_recording(Recording::end);
        self.recording.store(false, Ordering::Relaxed);
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector may run on the thread that holds the lock: skipping an object only delays its collection.
        let Ok(state) = self.state.try_lock() else { return Ok(()) };
        visit.call(state.previous.as_ref())?;
        if let Body::Pending(pending) = &state.body {
            visit.call(&pending.name)?;
            visit.call(pending.attributes.as_ref())?;
            visit.call(pending.extra.as_ref())?;
            visit.call(pending.links.as_ref())?;
        }
        Ok(())
    }
}

impl Pending {
    /// Writes attributes and links on the span; an item that cannot be read does not keep the others from it.
    #[inline]
    fn fill(&self, py: Python<'_>, span: &mut Recording) -> PyResult<()> {
        let mut failed = None;
        let mut keep = |result: PyResult<()>| {
            if let Err(error) = result {
                failed.get_or_insert(error);
            }
        };
        if let Some(attributes) = &self.attributes {
            keep(push_attributes(span, attributes.bind(py), true));
        }
        if let Some(extra) = &self.extra {
            keep(push_attributes(span, extra.bind(py), self.attributes.is_none()));
        }
        if let Some(links) = &self.links {
            keep(push_links(span, links.bind(py)));
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Writes the items of a mapping. `fresh` says that the span has no attributes yet, so string keys need no search.
#[inline]
fn push_attributes(span: &mut Recording, attributes: &Bound<'_, PyAny>, fresh: bool) -> PyResult<()> {
    let mut failed = None;
    for_each_item(attributes, |key, value| {
        let pushed = with_name(key, |name| {
            with_value(value, |value| {
                if fresh && key.is_exact_instance_of::<PyString>() {
                    span.push_attribute(name, value);
                } else {
                    span.set_attribute(name, value);
                }
            })
        });
        if let Err(error) = pushed.and_then(|inner| inner) {
            failed.get_or_insert(error);
        }
        Ok(())
    })?;
    failed.map_or(Ok(()), Err)
}

fn push_links(span: &mut Recording, links: &Bound<'_, PyAny>) -> PyResult<()> {
    for link in links.try_iter()? {
        let link = link?;
        if let Ok(pair) = link.cast::<PyTuple>() {
            let attributes = owned_attributes(Some(&pair.get_item(1)?))?;
            span.add_link(&linked_context(&pair.get_item(0)?)?, &borrow_attributes(&attributes));
        } else {
            span.add_link(&linked_context(&link)?, &[]);
        }
    }
    Ok(())
}

/// The identity of a `SpanContext`, `Span` or `Context`.
pub(super) fn linked_context(link: &Bound<'_, PyAny>) -> PyResult<context::SpanContext> {
    if let Ok(context) = link.cast::<SpanContext>() {
        return Ok(context.get().inner.clone());
    }
    if let Ok(span) = link.cast::<Span>() {
        return Ok(span.get().clone_context());
    }
    if let Ok(context) = link.cast::<Context>() {
        return Ok(context.get().inner.span.clone());
    }
    Err(PyTypeError::new_err(format!(
        "expected a SpanContext, Span or Context, got {}",
        link.get_type().name()?
    )))
}

fn parse_kind(py: Python<'_>, kind: Option<&Bound<'_, PyAny>>) -> PyResult<SpanKind> {
    let Some(kind) = kind else { return Ok(SpanKind::Internal) };
    let parsed = guard(py, "an unknown span kind", || {
        span_kind(kind)?.ok_or_else(|| {
            let right = "'internal', 'server', 'client', 'producer' or 'consumer'";
            PyValueError::new_err(format!("kind must be {right}, not {kind}"))
        })
    })?;
    Ok(parsed.unwrap_or_default())
}

/// See the stub.
#[pyfunction]
#[pyo3(signature = (name, attributes=None, /, *, kind=None, links=None, **attrs))]
pub(super) fn span(
    py: Python<'_>,
    name: Py<PyAny>,
    attributes: Option<Py<PyAny>>,
    kind: Option<&Bound<'_, PyAny>>,
    links: Option<Py<PyAny>>,
    attrs: Option<Py<PyDict>>,
) -> PyResult<Span> {
    Ok(Span::new(Body::Pending(Pending {
        name,
        attributes,
        extra: attrs,
        links,
        kind: parse_kind(py, kind)?,
    })))
}

/// See the stub.
#[pyfunction]
#[pyo3(signature = (name, attributes=None, /, *, kind=None, links=None, start_unix_ns=None, **attrs))]
#[expect(clippy::too_many_arguments, reason = "the signature of the Python function")]
pub(super) fn new_span<'py>(
    py: Python<'py>,
    name: Py<PyAny>,
    attributes: Option<Py<PyAny>>,
    kind: Option<&Bound<'py, PyAny>>,
    links: Option<Py<PyAny>>,
    start_unix_ns: Option<u64>,
    attrs: Option<Py<PyDict>>,
) -> PyResult<Bound<'py, Span>> {
    let span = Bound::new(py, span(py, name, attributes, kind, links, attrs)?)?;
    guard(py, "starting a span", || {
        Span::start(&span)?;
        if let Some(start_unix_ns) = start_unix_ns {
            span.get().with_recording(|span| span.set_start(Start::at(start_unix_ns)));
        }
        Ok(())
    })?;
    Ok(span)
}

/// Sets what is current and gives what was; `None` for nothing. Only for the generators of `@trace`.
#[pyfunction]
pub(super) fn swap_current<'py>(current: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    guard(current.py(), "switching the current span", || current::swap(current)).map(Option::flatten)
}

/// See the stub.
#[pyfunction]
pub(super) fn current_span(py: Python<'_>) -> PyResult<Bound<'_, Span>> {
    match guard(py, "reading the current span", || current::span(py))?.flatten() {
        Some(span) => Ok(span),
        None => Bound::new(py, Span::non_recording(context::SpanContext::INVALID)),
    }
}

#[pymethods]
impl Span {
    #[inline]
    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        Self::enter(slf)?;
        Ok(slf.clone())
    }

    #[inline]
    #[pyo3(signature = (exc_type, exc, traceback, /))]
    fn __exit__(
        slf: &Bound<'_, Self>,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let _ = (exc_type, traceback);
        Self::exit(slf, exc.cast::<PyBaseException>().ok())?;
        Ok(false)
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Ready>> {
        Self::enter(slf)?;
        Bound::new(slf.py(), Ready::new(slf.clone().into_any().unbind()))
    }

    #[pyo3(signature = (exc_type, exc, traceback, /))]
    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        exc_type: &Bound<'py, PyAny>,
        exc: &Bound<'py, PyAny>,
        traceback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Ready>> {
        Self::__exit__(slf, exc_type, exc, traceback)?;
        Bound::new(slf.py(), Ready::new(slf.py().None()))
    }

    fn __call__<'py>(slf: &Bound<'py, Self>, function: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let template = match &slf.get().state().body {
            Body::Pending(pending) => Some(pending.clone_ref(py)),
            _ => None,
        };
        let wrapped = guard(py, "decorating a function", || {
            let Some(template) = template else {
                return Err(PyTypeError::new_err("a span that has started cannot decorate a function; use @span(...) directly"));
            };
            let fresh = Bound::new(py, SpanTemplate(template))?;
            imports::traced_function(py)?.call1((&function, fresh))
        })?;
        Ok(wrapped.unwrap_or(function))
    }

    fn run<'py>(slf: &Bound<'py, Self>, awaitable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, SpanCoroutine>> {
        SpanCoroutine::around(awaitable, slf.clone())
    }

    fn activate<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, super::propagate::UseContext>> {
        super::propagate::use_context(slf.as_any())
    }

    fn set_attribute(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.is_recording_now() {
            return Ok(());
        }
        guard(key.py(), "setting an attribute", || {
            with_name(key, |key| {
                with_value(value, |value| self.with_recording(|span| span.set_attribute(key, value)))
            })?
        })
        .map(drop)
    }

    fn set_attributes(&self, attributes: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.is_recording_now() {
            return Ok(());
        }
        guard(attributes.py(), "setting attributes", || {
            for_each_item(attributes, |key, value| self.set_attribute(key, value))
        })
        .map(drop)
    }

    #[pyo3(signature = (name, attributes=None, *, unix_ns=None))]
    fn add_event(&self, name: &Bound<'_, PyAny>, attributes: Option<&Bound<'_, PyAny>>, unix_ns: Option<u64>) -> PyResult<()> {
        if !self.is_recording_now() {
            return Ok(());
        }
        guard(name.py(), "adding an event", || {
            let owned = owned_attributes(attributes)?;
            let attributes = borrow_attributes(&owned);
            with_name(name, |name| {
                self.with_recording(|span| {
                    let unix_ns = unix_ns.unwrap_or_else(|| span.start_time().later_unix_ns());
                    span.add_event(name, unix_ns, &attributes);
                })
            })
        })
        .map(drop)
    }

    #[pyo3(signature = (context, attributes=None))]
    fn add_link(&self, context: &Bound<'_, PyAny>, attributes: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        if !self.is_recording_now() {
            return Ok(());
        }
        guard(context.py(), "adding a link", || {
            let to = linked_context(context)?;
            let owned = owned_attributes(attributes)?;
            self.with_recording(|span| span.add_link(&to, &borrow_attributes(&owned)));
            Ok(())
        })
        .map(drop)
    }

    #[pyo3(signature = (status, description=None))]
    fn set_status(&self, status: &Bound<'_, PyAny>, description: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        if !self.is_recording_now() {
            return Ok(());
        }
        guard(status.py(), "setting a status", || {
            let status = match with_name(status, str::to_ascii_lowercase)?.as_str() {
                "ok" => Status::Ok,
                "error" => Status::Error,
                "unset" => Status::Unset,
                other => {
                    return Err(PyValueError::new_err(format!("status must be 'ok', 'error' or 'unset', not '{other}'")));
                }
            };
            let description = description.map(|text| with_name(text, str::to_owned)).transpose()?;
            self.with_recording(|span| span.set_status(status, description.as_deref().unwrap_or_default()));
            Ok(())
        })
        .map(drop)
    }

    fn record_exception(&self, exception: &Bound<'_, PyBaseException>) -> PyResult<()> {
        if !self.is_recording_now() {
            return Ok(());
        }
        guard(exception.py(), "recording an exception", || {
            let described = describe(exception)?;
            self.with_recording(|span| exception::record(span, &described, span.start_time().later_unix_ns()));
            Ok(())
        })
        .map(drop)
    }

    fn update_name(&self, name: &Bound<'_, PyAny>) -> PyResult<()> {
        if !self.is_recording_now() {
            return Ok(());
        }
        guard(name.py(), "renaming a span", || with_name(name, |name| self.with_recording(|span| span.update_name(name))))
            .map(drop)
    }

    #[pyo3(signature = (end_unix_ns=None))]
    fn end(&self, end_unix_ns: Option<u64>) {
        if let Some(end_unix_ns) = end_unix_ns {
            self.with_recording(|span| span.end_at(end_unix_ns));
        }
        self.end_now();
    }

    #[pyo3(signature = (error=None, /))]
    fn finish(slf: &Bound<'_, Self>, error: Option<&Bound<'_, PyBaseException>>) -> PyResult<()> {
        Self::exit(slf, error)
    }

    #[getter]
    fn context(&self) -> SpanContext {
        SpanContext {
            inner: self.clone_context(),
        }
    }

    #[getter]
    fn is_recording(&self) -> bool {
        self.is_recording_now()
    }

    fn __repr__(&self) -> String {
        let recording = python_bool(self.is_recording_now());
        self.with_context(|context| match context {
            Some(context) => format!(
                "<rvh_trace.Span trace_id='{}' span_id='{}' recording={recording}>",
                context.trace_id, context.span_id
            ),
            None => "<rvh_trace.Span not started>".to_owned(),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.visit(&visit)
    }

    fn __clear__(&self) {
        let Ok(mut state) = self.state.try_lock() else { return };
        let previous = state.previous.take();
        let pending = match &state.body {
            Body::Pending(_) => Some(std::mem::replace(
                &mut state.body,
                Body::NonRecording(context::SpanContext::INVALID),
            )),
            _ => None,
        };
        drop(state);
        drop((previous, pending));
    }
}

/// What a decorated function makes a span of at every call.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct SpanTemplate(Pending);

#[pymethods]
impl SpanTemplate {
    fn span(&self, py: Python<'_>) -> Span {
        Span::new(Body::Pending(self.0.clone_ref(py)))
    }

    fn start<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Span>> {
        let span = Bound::new(py, self.span(py))?;
        guard(py, "starting a span", || Span::start(&span))?;
        Ok(span)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0.name)?;
        visit.call(self.0.attributes.as_ref())?;
        visit.call(self.0.extra.as_ref())?;
        visit.call(self.0.links.as_ref())
    }
}

impl Drop for Span {
    /// A span that nobody ended (a task that never ran, a forgotten `new_span`) ends when nobody can end it any more.
    fn drop(&mut self) {
        self.end_now();
    }
}
