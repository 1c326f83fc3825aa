//! What CPython calls by itself, where PyO3 offers nothing or much more than is needed.

use std::ffi::{c_int, c_void};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::{Fate, Scope, Step, Stepped, TaskCoroutine, Ticks};
use crate::python::finalisation::iter_send;

/// Puts them into the class, of which there are no objects yet.
#[expect(unsafe_code, reason = "slots that PyO3 does not offer")]
pub(super) fn fill(class: &Bound<'_, PyType>) {
    // SAFETY: attached; a heap type of ours, whose `tp_as_async` is part of it; nobody has an object of it yet.
    unsafe {
        let class = class.as_type_ptr();
        (*class).tp_traverse = Some(traverse);
        (*class).tp_clear = Some(clear);
        let slots = (*class).tp_as_async;
        if !slots.is_null() {
            (*slots).am_send = Some(am_send);
        }
        ffi::PyType_Modified(class);
    }
}

/// What CPython calls to step it (PEP 492; `PyIter_Send`).
#[expect(unsafe_code, reason = "a C function")]
unsafe extern "C" fn am_send(
    slf: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: CPython calls attached, with an object of this class, a value and a place for a new reference.
    unsafe {
        let py = Python::assume_attached();
        let slf = Bound::ref_from_ptr(py, &slf).cast_unchecked::<TaskCoroutine>();
        let stepped = if let Some((inner, is_timed)) = slf.get().plain(py) {
            // As `TaskCoroutine::step`, with nothing in between for what was yielded: there are many more steps than tasks.
            let from = is_timed.then(Ticks::now);
            result.write(std::ptr::null_mut());
            let outcome = iter_send(inner.as_ptr(), value, result);
            if let Some(from) = from {
                slf.get().count(py, from);
            }
            if matches!(outcome, ffi::PySendResult::PYGEN_NEXT) {
                return outcome;
            }
            let ended = Stepped::of(py, outcome, *result);
            TaskCoroutine::finish(slf, ended, Fate::Ran)
        } else {
            TaskCoroutine::take_turn(slf, &Step::Send(Bound::ref_from_ptr(py, &value)))
        };
        match stepped {
            Stepped::Yielded(value) => {
                result.write(value.into_ptr());
                ffi::PySendResult::PYGEN_NEXT
            }
            Stepped::Returned(value) => {
                result.write(value.into_ptr());
                ffi::PySendResult::PYGEN_RETURN
            }
            Stepped::Raised(error) => {
                error.restore(py);
                result.write(std::ptr::null_mut());
                ffi::PySendResult::PYGEN_ERROR
            }
        }
    }
}

/// What the collector and `gc.get_referents` call: six or seven times for a task that lives through three collections. PyO3's own
/// looks for base classes and takes locks: some 100 instructions, and this 34.
#[expect(unsafe_code, reason = "a C function")]
unsafe extern "C" fn traverse(
    slf: *mut ffi::PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: CPython calls with the GIL, an object of this class, and what to call for each that it holds; no reference
    // count is changed.
    unsafe {
        let slf = Bound::ref_from_ptr(Python::assume_attached(), &slf);
        let coroutine = slf.cast_unchecked::<TaskCoroutine>().get();
        let visited = coroutine.state.with_collecting(|state| {
            // The collector has no use for the span; `gc.get_referents` shows it to `open_spans`.
            let held = [
                state.inner.as_ref().map(Py::as_ptr),
                state.span.as_ref().map(Py::as_ptr),
                state.inside.as_ref().map(Py::as_ptr),
                state.way_back.as_ref().map(Scope::as_ptr),
            ];
            let visits = held.into_iter().flatten().map(|held| visit(held, argument));
            visits.into_iter().find(|&result| result != 0).unwrap_or(0)
        });
        match visited {
            None | Some(0) => visit(ffi::Py_TYPE(slf.as_ptr()).cast(), argument),
            Some(result) => result,
        }
    }
}

/// What the collector calls when only a cycle holds it.
#[expect(unsafe_code, reason = "a C function")]
unsafe extern "C" fn clear(slf: *mut ffi::PyObject) -> c_int {
    // SAFETY: the collector calls with the GIL, and an object of this class.
    unsafe {
        let py = Python::assume_attached();
        let slf = Bound::ref_from_ptr(py, &slf).cast_unchecked::<TaskCoroutine>();
        let inner = slf
            .get()
            .state
            .with_collecting(|state| state.inner.take())
            .flatten();
        drop(inner.map(|inner| inner.into_bound(py)));
    }
    0
}
