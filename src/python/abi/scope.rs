//! A span of an extension as the current span of Python.

use std::ffi::c_void;

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use rvh_trace_client::abi;

use super::super::current;
use super::super::exception::Ending;
use super::super::propagate::UseContext;
use super::super::span::{Body, Span};
use super::super::span_context::Context;
use super::context::Place;
use super::span::SharedSpan;
use super::{attached, guarded_attached};

/// The object of Python's for a span of an extension, and the baggage that goes with it.
///
/// # Safety
///
/// A handle that is held or null, and a context or null.
#[expect(unsafe_code, reason = "the interface passes pointers")]
unsafe fn objects(
    py: Python<'_>,
    span: *mut c_void,
    context: *const abi::Context,
) -> PyResult<(Bound<'_, Span>, Option<Bound<'_, Context>>)> {
    // SAFETY: the caller's.
    let (shared, place) = unsafe { (SharedSpan::clone_of(span), Place::read(context)) };
    let context = place.unwrap_or_default().context;
    let identity = shared
        .as_ref()
        .and_then(|shared| Some(shared.lock()?.context().clone()));
    let body = match (shared, identity) {
        (Some(span), Some(context)) => Body::Shared { context, span },
        _ => Body::NonRecording(context.span.clone()),
    };
    let baggage = (!context.baggage.is_empty())
        .then(|| Bound::new(py, Context { inner: context }))
        .transpose()?;
    Ok((Bound::new(py, Span::new(body))?, baggage))
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn enter(
    span: *mut c_void,
    context: *const abi::Context,
) -> *mut c_void {
    let Some(py) = attached() else {
        return std::ptr::null_mut();
    };
    let mut entered = std::ptr::null_mut();
    guarded_attached(py, "using a context", &mut || {
        // SAFETY: the caller's.
        let (span, baggage) = unsafe { objects(py, span, context)? };
        let scope = Bound::new(
            py,
            UseContext::new(span.unbind(), baggage.map(Bound::unbind)),
        )?;
        scope.get().enter(py)?;
        entered = scope.into_ptr().cast();
        Ok(())
    });
    entered
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn leave(scope: *mut c_void) {
    if scope.is_null() {
        return;
    }
    // A thread that is not attached cannot let go of it either: it is left to the end of the process.
    let Some(py) = attached() else {
        return crate::diagnostic::swallowed("leaving a context", || {
            "an extension left a context of Python's without the GIL: it stays current there".into()
        });
    };
    guarded_attached(py, "leaving a context", &mut || {
        // SAFETY: the reference that `enter` gave.
        let scope = unsafe { Bound::from_owned_ptr(py, scope.cast()) };
        scope.cast::<UseContext>()?.get().leave(py)
    });
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn set(span: *mut c_void, context: *const abi::Context) -> bool {
    let Some(py) = attached() else { return false };
    guarded_attached(py, "using a context", &mut || {
        // SAFETY: the caller's.
        let (span, baggage) = unsafe { objects(py, span, context)? };
        current::swap(span.as_any())?;
        if let Some(baggage) = baggage {
            current::enter_baggage(baggage.as_any())?;
        }
        Ok(())
    })
}

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn raised(span: *mut c_void, exception: *mut c_void) {
    let Some(py) = attached() else { return };
    guarded_attached(py, "recording an exception", &mut || {
        // SAFETY: a handle that is held or null, and a borrowed reference.
        let (shared, raised) = unsafe {
            (
                SharedSpan::clone_of(span),
                Bound::from_borrowed_ptr(py, exception.cast()),
            )
        };
        let Some(shared) = shared else { return Ok(()) };
        let raised = raised.cast_into::<PyBaseException>()?;
        // Runs Python code: before the lock.
        let ending = Ending::of(Some(&raised))?;
        if let Some(mut recording) = shared.lock() {
            ending.write(&mut recording);
        }
        Ok(())
    });
}
