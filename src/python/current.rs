//! The current span: one `contextvars.ContextVar`, set and restored through the C API.
//!
//! Leaving a scope restores by value and only if the variable still holds the span that is left. It therefore cannot
//! raise "was created in a different Context", whoever closes an async generator and wherever.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::span::Span;

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
        if let Some(var) = self.cell.get(py) {
            return Ok(var.bind(py));
        }
        self.create(py)
    }

    #[cold]
    #[expect(unsafe_code, reason = "contextvars have no safe binding")]
    fn create<'py>(&'py self, py: Python<'py>) -> PyResult<&'py Bound<'py, PyAny>> {
        self.cell
            .get_or_try_init(py, || {
                // SAFETY: attached; the name is NUL-terminated; the result is a new reference or null with an error set.
                unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContextVar_New(self.name.as_ptr(), std::ptr::null_mut())) }
                    .map(Bound::unbind)
            })
            .map(|var| var.bind(py))
    }

    /// The value in the current context, `None` when unset or Python's `None`.
    #[inline]
    #[expect(unsafe_code, reason = "contextvars have no safe binding")]
    fn get<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let var = self.object(py)?;
        let mut value = std::ptr::null_mut();
        // SAFETY: attached; `var` is a ContextVar; `value` receives a new reference, or null when unset.
        let failed = unsafe { ffi::PyContextVar_Get(var.as_ptr(), std::ptr::null_mut(), &raw mut value) } < 0;
        if failed {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: a new reference or null, see above.
        let value = unsafe { Bound::from_owned_ptr_or_opt(py, value) };
        Ok(value.filter(|value| !value.is_none()))
    }

    #[inline]
    #[expect(unsafe_code, reason = "contextvars have no safe binding")]
    fn set(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = value.py();
        let var = self.object(py)?;
        // Before 3.12 a garbage collection may run inside the allocations of PyContextVar_Set; a finaliser that sets a
        // variable of the same context then frees the map that is being copied. Later versions collect between
        // bytecodes. Two flag writes, about 3 ns.
        #[cfg(not(Py_3_12))]
        // SAFETY: attached.
        let collecting = unsafe { ffi::PyGC_Disable() };
        // SAFETY: attached; both are valid objects; the token is a new reference or null with an error set.
        let token = unsafe { ffi::PyContextVar_Set(var.as_ptr(), value.as_ptr()) };
        #[cfg(not(Py_3_12))]
        if collecting == 1 {
            // SAFETY: attached.
            unsafe { ffi::PyGC_Enable() };
        }
        // SAFETY: a new reference or null with an error set, see above. Dropping the token forgets the way back.
        unsafe { Bound::from_owned_ptr_or_err(py, token) }.map(drop)
    }

    /// Sets `value` and gives what was there.
    #[inline]
    fn replace<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let previous = self.get(value.py())?;
        self.set(value)?;
        Ok(previous)
    }

    /// Puts `previous` back if the variable still holds `value`; whether it did.
    #[inline]
    fn restore(&self, value: &Bound<'_, PyAny>, previous: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let py = value.py();
        if !self.get(py)?.is_some_and(|current| current.is(value)) {
            return Ok(false);
        }
        match previous {
            Some(previous) => self.set(previous),
            None => self.set(py.None().bind(py)),
        }
        .map(|()| true)
    }
}

/// The span that is current here, if any.
#[inline]
pub(super) fn span(py: Python<'_>) -> PyResult<Option<Bound<'_, Span>>> {
    // Only spans are ever set.
    let mut current = SPAN.get(py)?.and_then(|value| value.cast_into::<Span>().ok());
    while let Some(back) = current.as_ref().and_then(Span::way_back) {
        current = back.and_then(|value| value.cast_into::<Span>().ok());
    }
    Ok(current)
}

/// Makes `span` current.
#[inline]
pub(super) fn set_span(span: &Bound<'_, Span>) -> PyResult<()> {
    SPAN.set(span.as_any())
}

/// Makes `span` current and gives the span that was.
#[inline]
pub(super) fn enter_span<'py>(span: &Bound<'py, Span>) -> PyResult<Option<Bound<'py, PyAny>>> {
    SPAN.replace(span.as_any())
}

/// Sets what is current, whatever was, and gives what was: for generators, whose body and consumer take turns.
pub(super) fn swap<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    SPAN.replace(value)
}

/// Undoes [`enter_span`]; `false` when something else is current here, which then stays.
#[inline]
pub(super) fn leave_span(span: &Bound<'_, Span>, previous: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
    SPAN.restore(span.as_any(), previous)
}

/// The [`super::span_context::Context`] whose baggage is current here, if any.
pub(super) fn baggage(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    BAGGAGE.get(py)
}

/// Makes the baggage of `context` current and gives what was.
pub(super) fn enter_baggage<'py>(context: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    BAGGAGE.replace(context)
}

/// Undoes [`enter_baggage`].
pub(super) fn leave_baggage(context: &Bound<'_, PyAny>, previous: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    BAGGAGE.restore(context, previous).map(drop)
}
