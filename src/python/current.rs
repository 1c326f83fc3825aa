//! The current span: one `contextvars.ContextVar`, set and restored through the C API.
//!
//! Leaving a scope restores by value and only if the variable still holds the span that is left. It therefore cannot
//! raise "was created in a different Context", whoever closes an async generator and wherever.

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::baggage_scope::BaggageScope;
use super::span::Span;
use super::span_context::Context;
use crate::bridge;

/// A context variable that is only reached from Rust.
struct ContextVar {
    name: &'static std::ffi::CStr,
    cell: PyOnceLock<Py<PyAny>>,
}

static SPAN: ContextVar = ContextVar {
    name: c"rvh_trace.current_span",
    cell: PyOnceLock::new(),
};

static BAGGAGE: ContextVar = ContextVar {
    name: c"rvh_trace.baggage",
    cell: PyOnceLock::new(),
};

impl ContextVar {
    #[inline]
    fn object<'py>(&'py self, py: Python<'py>) -> PyResult<&'py Bound<'py, PyAny>> {
        match self.cell.get(py) {
            Some(var) => Ok(var.bind(py)),
            None => Err(PyRuntimeError::new_err("rvh_trace is not initialised")),
        }
    }

    #[expect(unsafe_code, reason = "contextvars have no safe binding")]
    fn create(&self, py: Python<'_>) -> PyResult<()> {
        // SAFETY: attached; the name is NUL-terminated; the result is a new reference or null with an error set.
        let var = unsafe {
            Bound::from_owned_ptr_or_err(
                py,
                ffi::PyContextVar_New(self.name.as_ptr(), std::ptr::null_mut()),
            )?
        };
        // A second import keeps the variable of the first.
        let _ = self.cell.set(py, var.unbind());
        Ok(())
    }

    /// The value in the current context, `None` when unset or Python's `None`.
    #[inline]
    #[expect(unsafe_code, reason = "contextvars have no safe binding")]
    fn get<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let var = self.object(py)?;
        let mut value = std::ptr::null_mut();
        // SAFETY: attached; `var` is a ContextVar; `value` receives a new reference, or null when unset.
        let failed =
            unsafe { ffi::PyContextVar_Get(var.as_ptr(), std::ptr::null_mut(), &raw mut value) }
                < 0;
        if failed {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: a new reference or null, see above.
        let value = unsafe { Bound::from_owned_ptr_or_opt(py, value) };
        Ok(value.filter(|value| !value.is_none()))
    }

    /// The value in a context that may be another thread's. No bytecode runs.
    #[cold]
    fn get_in<'py>(&'py self, context: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = context.py();
        let value = context.call_method1(pyo3::intern!(py, "get"), (self.object(py)?,))?;
        Ok((!value.is_none()).then_some(value))
    }

    /// Sets `value` and gives the token that [`Self::reset`] takes.
    #[inline]
    #[expect(unsafe_code, reason = "contextvars have no safe binding")]
    fn set<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = value.py();
        let var = self.object(py)?;
        let _collector = CollectorPaused::new();
        // SAFETY: attached; both are valid objects; the token is a new reference or null with an error set.
        unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyContextVar_Set(var.as_ptr(), value.as_ptr()))
        }
    }

    /// Undoes the [`Self::set`] that gave `token`; `false` if that was in another context.
    #[inline]
    #[expect(unsafe_code, reason = "contextvars have no safe binding")]
    fn reset(&self, token: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = token.py();
        let var = self.object(py)?;
        let _collector = CollectorPaused::new();
        // SAFETY: attached; a variable and a token; an error is set unless the result is 0.
        if unsafe { ffi::PyContextVar_Reset(var.as_ptr(), token.as_ptr()) } == 0 {
            return Ok(true);
        }
        let error = PyErr::fetch(py);
        // A token of another context, or one that was used: never the user's concern.
        if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyRuntimeError>(py) {
            Ok(false)
        } else {
            Err(error)
        }
    }

    /// Sets `value` and gives what was there.
    #[inline]
    fn replace<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let previous = self.get(value.py())?;
        self.set(value).map(drop)?;
        Ok(previous)
    }

    /// Puts `previous` back if the variable still holds `value`; whether it did.
    #[inline]
    fn restore(
        &self,
        value: &Bound<'_, PyAny>,
        previous: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let py = value.py();
        if !self.get(py)?.is_some_and(|current| current.is(value)) {
            return Ok(false);
        }
        match previous {
            Some(previous) => self.set(previous),
            None => self.set(py.None().bind(py)),
        }
        .map(|_token| true)
    }
}

/// Makes the variables, at import: a collection during the first use could end in a finaliser that comes here again.
pub(super) fn initialise(py: Python<'_>) -> PyResult<()> {
    // Types that are not in the module are made at their first use otherwise.
    let _ = py.get_type::<BaggageScope>();
    SPAN.create(py)?;
    BAGGAGE.create(py)
}

/// Whether a span is current here, be it an abandoned one.
#[inline]
pub(super) fn is_set(py: Python<'_>) -> PyResult<bool> {
    SPAN.get(py).map(|span| span.is_some())
}

/// The span that is current here, if any.
#[inline]
pub(super) fn span(py: Python<'_>) -> PyResult<Option<Bound<'_, Span>>> {
    Ok(SPAN.get(py)?.and_then(held))
}

/// What the variable holds here, if anything: the way back from a scope in a copy of this context.
#[inline]
pub(super) fn value(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    SPAN.get(py)
}

/// The span that is current in `context`, a `contextvars.Context`, if any.
#[cold]
pub(super) fn span_in<'py>(context: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, Span>>> {
    Ok(SPAN.get_in(context)?.and_then(held))
}

/// The current span as Rust code sees it: what it makes `tracing` spans children of, while this is attached.
pub(super) fn rust_context(py: Python<'_>) -> PyResult<opentelemetry::Context> {
    let context = span(py)?.map(|span| span.get().clone_context(py));
    Ok(bridge::context_of(&context.unwrap_or_default()))
}

/// The span that is meant by a value of the variable. Only spans are ever set.
#[inline]
pub(super) fn held(value: Bound<'_, PyAny>) -> Option<Bound<'_, Span>> {
    meant(value.cast_into::<Span>().ok())
}

/// The span that is meant where `current` is held. The chain has an end: see [`Span::abandon`].
#[inline]
pub(super) fn meant(mut current: Option<Bound<'_, Span>>) -> Option<Bound<'_, Span>> {
    while let Some(other) = current.as_ref().filter(|span| span.get().means_another()) {
        let stands_in = other.get().stands_in();
        current = Span::way_back(other);
        if stands_in {
            break;
        }
    }
    current
}

/// Whether the current context holds this very object.
#[inline]
pub(super) fn holds(span: &Bound<'_, Span>) -> PyResult<bool> {
    Ok(SPAN.get(span.py())?.is_some_and(|current| current.is(span)))
}

/// The way back from a scope: the token that setting the variable gave, which holds what was there before; or that itself,
/// when the context ends with the scope. A token costs the collector time for as long as it lives.
pub(super) struct Scope(Py<PyAny>);

impl Scope {
    /// Makes `span` current.
    #[inline]
    pub(super) fn enter(span: &Bound<'_, Span>) -> PyResult<Self> {
        SPAN.set(span.as_any()).map(|token| Self(token.unbind()))
    }

    /// Makes `span` current in a context that ends with it, as a task's does. `known` is the way back, where that is known.
    #[inline]
    pub(super) fn enter_for_good(span: &Bound<'_, Span>, known: Option<Self>) -> PyResult<Self> {
        if let Some(known) = known {
            SPAN.set(span.as_any()).map(drop)?;
            return Ok(known);
        }
        let previous = SPAN.replace(span.as_any())?;
        let previous = previous.unwrap_or_else(|| span.py().None().into_bound(span.py()));
        Ok(Self(previous.unbind()))
    }

    /// The way back to what the variable holds, for a scope that is entered later, where nothing else was set meanwhile.
    #[inline]
    pub(super) fn back_to(py: Python<'_>, value: Option<Bound<'_, PyAny>>) -> Self {
        Self(value.map_or_else(|| py.None(), Bound::unbind))
    }

    /// Another hold on the same way back, to look where it leads.
    #[cold]
    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    /// The token, for those who look for the context in it.
    #[cold]
    pub(super) fn token<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.0.bind(py).clone()
    }

    /// The span that was current before.
    #[cold]
    pub(super) fn surrounding<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, Span>>> {
        Self::previous(self.0.bind(py)).map(meant)
    }

    /// Gives up the way back.
    pub(super) fn forget(self, py: Python<'_>) {
        drop(self.0.into_bound(py));
    }

    /// Makes what was current before `span` current again, if `span` is current here. Where that is not the context it was
    /// entered in, which then still holds it, `Err` gives what was current there before.
    #[inline]
    pub(super) fn leave<'py>(
        self,
        span: &Bound<'py, Span>,
    ) -> PyResult<Result<(), Option<Bound<'py, Span>>>> {
        let py = span.py();
        // Bound, so that it is let go of here and now, also where PyO3 does not know that we are attached.
        let token = self.0.into_bound(py);
        let is_here = holds(span)?;
        if is_here && is_token(&token) && SPAN.reset(&token)? {
            return Ok(Ok(()));
        }
        let previous = Self::previous(&token)?;
        if is_here {
            // The context ends with the span; or it is a copy, for which the token does not work.
            SPAN.restore(span.as_any(), previous.as_ref().map(Bound::as_any))?;
            if !is_token(&token) {
                return Ok(Ok(()));
            }
        }
        Ok(Err(previous))
    }

    /// What the variable held before; `None` if that was nothing.
    #[cold]
    fn previous<'py>(token: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, Span>>> {
        let previous = if is_token(token) {
            token.getattr(pyo3::intern!(token.py(), "old_value"))?
        } else {
            token.clone()
        };
        // `Token.MISSING` is no span, and neither is the `None` that stands for nothing.
        Ok(previous.cast_into().ok())
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }

    /// What it holds, for the collector.
    pub(super) fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }
}

/// Whether a way back is a token, and not what was there before.
#[inline]
#[expect(unsafe_code, reason = "a type comparison without a safe binding")]
fn is_token(way_back: &Bound<'_, PyAny>) -> bool {
    // SAFETY: attached; only the type of a valid object is read.
    unsafe { ffi::PyContextToken_CheckExact(way_back.as_ptr()) != 0 }
}

/// Keeps the garbage collector from running while a context variable is set, before CPython 3.12.
///
/// There it may run inside the allocations of `PyContextVar_Set`, and a finaliser that sets a variable of the same
/// context then frees the map that is being copied. Later versions collect between bytecodes. Costs two flag writes.
pub(super) struct CollectorPaused {
    #[cfg(not(Py_3_12))]
    was_enabled: bool,
}

impl CollectorPaused {
    #[inline]
    pub(super) fn new() -> Self {
        #[cfg(not(Py_3_12))]
        #[expect(unsafe_code, reason = "the collector's switch has no safe binding")]
        // SAFETY: only called while attached.
        let was_enabled = unsafe { ffi::PyGC_Disable() } == 1;
        Self {
            #[cfg(not(Py_3_12))]
            was_enabled,
        }
    }
}

#[cfg(not(Py_3_12))]
impl Drop for CollectorPaused {
    #[inline]
    #[expect(unsafe_code, reason = "the collector's switch has no safe binding")]
    fn drop(&mut self) {
        if self.was_enabled {
            // SAFETY: only called while attached.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}

/// Sets what is current, whatever was, and gives what was.
pub(super) fn swap<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    SPAN.replace(value)
}

/// [`swap`], with `None` for nothing.
pub(super) fn swap_to<'py>(
    py: Python<'py>,
    value: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    match value {
        Some(value) => swap(value),
        None => swap(py.None().bind(py)),
    }
}

/// Makes `inside` current for a step of a generator's body; gives the token that [`step_out`] takes.
pub(super) fn step_in<'py>(inside: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    SPAN.set(inside)
}

/// Ends a step: what was current before [`step_in`] is again, and what the body left is given back. In another context, where a
/// coroutine may be closed that awaits a step, nothing is changed.
pub(super) fn step_out<'py>(token: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let inside = SPAN.get(token.py())?;
    Ok(if SPAN.reset(token)? { inside } else { None })
}

/// The [`super::span_context::Context`] whose baggage is current here, if any.
pub(super) fn baggage(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    BAGGAGE.get(py).map(BaggageScope::meant)
}

/// Makes the baggage of `context` current until [`leave_baggage_scope`].
pub(super) fn enter_baggage_scope<'py>(
    context: &Bound<'py, Context>,
) -> PyResult<Bound<'py, BaggageScope>> {
    let py = context.py();
    let scope = BaggageScope::new(context.clone().unbind(), BAGGAGE.get(py)?);
    let scope = Bound::new(py, scope)?;
    BAGGAGE.set(scope.as_any()).map(drop)?;
    Ok(scope)
}

/// Undoes [`enter_baggage_scope`], also in contexts that are not this one.
pub(super) fn leave_baggage_scope(scope: &Bound<'_, BaggageScope>) -> PyResult<()> {
    scope.get().leave();
    let previous = scope.get().previous(scope.py());
    BAGGAGE.restore(scope.as_any(), previous.as_ref()).map(drop)
}

/// Makes the baggage of `context` current and gives what was.
pub(super) fn enter_baggage<'py>(
    context: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    BAGGAGE.replace(context)
}

/// Undoes [`enter_baggage`].
pub(super) fn leave_baggage(
    context: &Bound<'_, PyAny>,
    previous: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    BAGGAGE.restore(context, previous).map(drop)
}
