//! `inject`, `extract` and `use_context`: propagation over whatever carries headers in Python.
//!
//! Carriers: a dict (or any mutable mapping) of strings, or a list of `(name, value)` byte pairs as ASGI has them. Nothing
//! here raises on what a peer sent: what cannot be read is not there.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use pyo3::PyTraverseError;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyMapping, PyString, PyTuple};

use super::baggage_scope::BaggageScope;
use super::convert::linked_context;
use super::current::{self, Scope};
use super::errors::guard;
use super::lifecycle;
use super::span::Span;
use super::span_context::{Context, SpanContext};
use crate::context;
use crate::propagation::{Carrier, CarrierMut, Propagators};

/// The propagators of the current tracer, or the default ones before `init_tracing`.
pub(super) fn with_propagators<R>(then: impl FnOnce(&Propagators) -> R) -> R {
    match lifecycle::tracer() {
        Some(tracer) => then(tracer.propagators()),
        None => then(&Propagators::default()),
    }
}

/// Header names and values, copied out of a Python carrier: reading one may run Python code.
pub(super) struct Headers(Vec<(Vec<u8>, Vec<u8>)>);

impl Headers {
    /// Reads the headers that any propagator wants; the others are skipped.
    fn read(carrier: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut headers = Self(Vec::new());
        if let Ok(mapping) = carrier.cast::<PyMapping>() {
            for item in mapping.items()?.iter() {
                headers.push_item(&item)?;
            }
        } else {
            for item in carrier.try_iter()? {
                headers.push_item(&item?)?;
            }
        }
        Ok(headers)
    }

    fn push_item(&mut self, item: &Bound<'_, PyAny>) -> PyResult<()> {
        let (Ok(name), Ok(value)) = (item.get_item(0), item.get_item(1)) else {
            return Ok(());
        };
        let Some(mut name) = header_bytes(&name) else {
            return Ok(());
        };
        name.make_ascii_lowercase();
        if let Some(value) = header_bytes(&value) {
            self.0.push((name, value));
        } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
            // Some frameworks keep repeated headers as one list.
            for value in value.try_iter()? {
                if let Some(value) = header_bytes(&value?) {
                    self.0.push((name.clone(), value));
                }
            }
        }
        Ok(())
    }
}

/// The bytes of a header name or value. A `str` is encoded as Latin-1, as WSGI and ASGI frameworks decode it.
fn header_bytes(value: &Bound<'_, PyAny>) -> Option<Vec<u8>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Some(bytes.as_bytes().to_vec());
    }
    let text = value.cast::<PyString>().ok()?;
    // What is outside Latin-1 is outside every header syntax too; `?` keeps it invalid.
    Some(
        text.to_string_lossy()
            .chars()
            .map(|char| u8::try_from(char).unwrap_or(b'?'))
            .collect(),
    )
}

impl Carrier for Headers {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for (_, value) in self
            .0
            .iter()
            .filter(|(header, _)| header == name.as_bytes())
        {
            each(value);
        }
    }

    fn values_below(&self, prefix: &str, each: &mut dyn FnMut(&[u8], &[u8])) {
        for (header, value) in &self.0 {
            if let Some(rest) = header.strip_prefix(prefix.as_bytes()) {
                each(rest, value);
            }
        }
    }
}

/// Collects what propagators write.
#[derive(Default)]
struct Injected(Vec<(Cow<'static, str>, String)>);

impl CarrierMut for Injected {
    fn set(&mut self, name: &'static str, value: &str) {
        self.0.push((name.into(), value.to_owned()));
    }

    fn set_named(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned().into(), value.to_owned()));
    }
}

/// Writes the current context (`traceparent`, `tracestate`, `baggage`, or what `propagators` names) into headers to send.
#[pyfunction]
#[pyo3(signature = (carrier, context=None))]
pub(super) fn inject(
    carrier: &Bound<'_, PyAny>,
    context: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let py = carrier.py();
    guard(py, "injecting context", || {
        let context = match context {
            Some(context) => read_context(context)?,
            None => here(py)?,
        };
        let mut injected = Injected::default();
        with_propagators(|propagators| propagators.inject(&context, &mut injected));
        for (name, value) in injected.0 {
            write_header(carrier, &name, &value)?;
        }
        Ok(())
    })
    .map(drop)
}

fn write_header(carrier: &Bound<'_, PyAny>, name: &str, value: &str) -> PyResult<()> {
    let py = carrier.py();
    if let Ok(headers) = carrier.cast::<PyList>() {
        // Ours replaces one that was copied from an incoming request.
        for index in (0..headers.len()).rev() {
            let taken = headers
                .get_item(index)?
                .get_item(0)
                .ok()
                .and_then(|name| header_bytes(&name));
            if taken.is_some_and(|taken| taken.eq_ignore_ascii_case(name.as_bytes())) {
                headers.del_item(index)?;
            }
        }
        return headers.append((
            PyBytes::new(py, name.as_bytes()),
            PyBytes::new(py, value.as_bytes()),
        ));
    }
    if let Ok(dict) = carrier.cast::<PyDict>() {
        let same = |key: &Bound<'_, PyAny>| {
            header_bytes(key).is_some_and(|key| {
                key != name.as_bytes() && key.eq_ignore_ascii_case(name.as_bytes())
            })
        };
        for key in dict.keys().iter().filter(same) {
            dict.del_item(key)?;
        }
        return dict.set_item(name, value);
    }
    if carrier.hasattr(pyo3::intern!(py, "__setitem__"))? {
        return carrier.set_item(name, value);
    }
    Err(PyTypeError::new_err(format!(
        "inject() needs a dict, a mutable mapping or a list of (name, value) byte pairs, not {}",
        carrier.get_type().name()?
    )))
}

/// What is current here: the span and the baggage.
fn here(py: Python<'_>) -> PyResult<context::Context> {
    let span = current::span(py)?
        .map(|span| span.get().clone_context(py))
        .unwrap_or_default();
    Ok(context::Context {
        span,
        baggage: current_baggage(py)?,
    })
}

pub(super) fn current_baggage(py: Python<'_>) -> PyResult<crate::propagation::Baggage> {
    let current = current::baggage(py)?;
    let context = current
        .as_ref()
        .and_then(|current| current.cast::<Context>().ok());
    Ok(context
        .map(|context| context.get().inner.baggage.clone())
        .unwrap_or_default())
}

fn read_context(context: &Bound<'_, PyAny>) -> PyResult<context::Context> {
    if let Ok(context) = context.cast::<Context>() {
        return Ok(context.get().inner.clone());
    }
    Ok(context::Context {
        span: linked_context(context)?,
        baggage: current_baggage(context.py())?,
    })
}

/// Reads a context from headers that came in. Never raises: what is malformed is not there.
#[pyfunction]
pub(super) fn extract(carrier: &Bound<'_, PyAny>) -> PyResult<Context> {
    let extracted = guard(carrier.py(), "extracting context", || {
        let headers = Headers::read(carrier)?;
        Ok(with_propagators(|propagators| {
            propagators.extract(&headers)
        }))
    })?;
    Ok(Context {
        inner: extracted.unwrap_or_default(),
    })
}

/// Makes a context current for a `with` block: spans that start inside are children of it.
#[pyfunction]
pub(super) fn use_context<'py>(context: &Bound<'py, PyAny>) -> PyResult<Bound<'py, UseContext>> {
    let py = context.py();
    let (span, baggage) = guard(py, "using a context", || {
        if context.is_none() {
            return Ok((None, None));
        }
        if let Ok(span) = context.cast::<Span>() {
            return Ok((Some(span.clone().unbind()), None));
        }
        let span = Bound::new(py, Span::non_recording(linked_context(context)?))?.unbind();
        let baggage = context
            .cast::<Context>()
            .ok()
            .map(|context| context.clone().unbind());
        Ok((Some(span), baggage))
    })?
    .unwrap_or_default();
    let span = match span {
        Some(span) => span,
        // A span without identity: what starts inside is a new root.
        None => Bound::new(py, Span::non_recording(context::SpanContext::INVALID))?.unbind(),
    };
    Bound::new(py, UseContext::new(span, baggage))
}

/// A scope that is open on a [`UseContext`].
struct Entered {
    /// What the context variable holds: an object of its own, so that a scope that is left where it is not current can be
    /// abandoned without the span that it made current.
    stand_in: Py<Span>,
    way_back: Scope,
    baggage: Option<Py<BaggageScope>>,
}

/// What `use_context` returns: a context manager.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct UseContext {
    span: Py<Span>,
    baggage: Option<Py<Context>>,
    entered: Mutex<Vec<Entered>>,
}

impl UseContext {
    pub(super) fn new(span: Py<Span>, baggage: Option<Py<Context>>) -> Self {
        Self {
            span,
            baggage,
            entered: Mutex::default(),
        }
    }

    /// Makes the context current.
    pub(super) fn enter(&self, py: Python<'_>) -> PyResult<()> {
        let stand_in = Bound::new(py, Span::stand_in(self.span.bind(py)))?;
        let entered = Entered {
            way_back: Scope::enter(&stand_in)?,
            stand_in: stand_in.unbind(),
            baggage: match &self.baggage {
                Some(baggage) => Some(current::enter_baggage_scope(baggage.bind(py))?.unbind()),
                None => None,
            },
        };
        self.entered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(entered);
        Ok(())
    }

    /// Makes current again what was before.
    pub(super) fn leave(&self, py: Python<'_>) -> PyResult<()> {
        let Some(scope) = self.take_scope(py)? else {
            return Ok(());
        };
        if let Some(baggage) = scope.baggage {
            current::leave_baggage_scope(&baggage.into_bound(py))?;
        }
        let stand_in = scope.stand_in.into_bound(py);
        if let Err(previous) = scope.way_back.leave(&stand_in)? {
            Span::abandon(&stand_in, previous);
        }
        Ok(())
    }

    /// Takes out the scope that is current here, or else the last one.
    fn take_scope(&self, py: Python<'_>) -> PyResult<Option<Entered>> {
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, scope) in entered.iter().enumerate().rev() {
            if current::holds(scope.stand_in.bind(py))? {
                return Ok(Some(entered.remove(index)));
            }
        }
        Ok(entered.pop())
    }
}

#[pymethods]
impl UseContext {
    fn __enter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Span>> {
        guard(py, "using a context", || self.enter(py))?;
        Ok(self.span.bind(py).clone())
    }

    #[pyo3(signature = (exc_type, exc, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let _ = (exc_type, exc, traceback);
        guard(py, "leaving a context", || self.leave(py))?;
        Ok(false)
    }

    /// The span context that it makes current.
    #[getter]
    fn span_context(&self, py: Python<'_>) -> SpanContext {
        SpanContext {
            inner: self.span.get().clone_context(py),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.span)?;
        visit.call(self.baggage.as_ref())?;
        if let Ok(entered) = self.entered.try_lock() {
            for scope in entered.iter() {
                visit.call(&scope.stand_in)?;
                scope.way_back.traverse(&visit)?;
                visit.call(scope.baggage.as_ref())?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let entered = self
            .entered
            .try_lock()
            .map(|mut entered| std::mem::take(&mut *entered));
        drop(entered);
    }
}
