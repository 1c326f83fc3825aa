//! `span()`, and `__enter__`, `__exit__` and `set_attribute` of a span.

use pyo3::exceptions::{PyBaseException, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyString, PyTuple, PyTupleMethods};

use super::{arguments, give, keyword_names};
use crate::python::creation;
use crate::python::span::Span;

/// The span that a method was called on.
///
/// # Safety
///
/// `slf` is a valid `Span`: a method descriptor has checked it before it calls.
#[inline]
#[expect(unsafe_code, reason = "the descriptor has checked the type")]
unsafe fn receiver<'a, 'py>(py: Python<'py>, slf: &'a *mut ffi::PyObject) -> &'a Bound<'py, Span> {
    // SAFETY: promised by the caller; a borrow of the pointer is a borrow of a `Bound`, which has the same layout.
    unsafe { Bound::ref_from_ptr(py, slf).cast_unchecked() }
}

#[expect(unsafe_code, reason = "a C function")]
pub(super) unsafe extern "C" fn span(
    _module: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, with `nargs` positional arguments and one more for every name.
    let (py, names, values) = unsafe {
        let py = Python::assume_attached();
        let names = keyword_names(py, &kwnames);
        let count = nargs.cast_unsigned() + names.map_or(0, PyTupleMethods::len);
        (py, names, arguments(args, count))
    };
    let (values, keywords) = values.split_at(nargs.cast_unsigned());
    give(py, creation::span(py, values, keywords, names))
}

#[expect(unsafe_code, reason = "a C function")]
pub(super) unsafe extern "C" fn enter(
    slf: *mut ffi::PyObject,
    _none: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, through the method descriptor of `Span`.
    let (py, span) = unsafe {
        let py = Python::assume_attached();
        (py, receiver(py, &slf))
    };
    give(py, Span::enter(span).map(|()| span.clone()))
}

#[expect(unsafe_code, reason = "a C function")]
pub(super) unsafe extern "C" fn exit(
    slf: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, through the method descriptor of `Span`, with `nargs` arguments.
    let (py, span, arguments) = unsafe {
        let py = Python::assume_attached();
        (
            py,
            receiver(py, &slf),
            arguments(args, nargs.cast_unsigned()),
        )
    };
    let exited = match arguments {
        [_, raised, _] => Span::exit(span, raised.cast::<PyBaseException>().ok().as_deref()),
        _ => Err(PyTypeError::new_err(format!(
            "__exit__() takes 3 arguments, but {nargs} were given"
        ))),
    };
    give(py, exited.map(|()| PyBool::new(py, false).to_owned()))
}

#[expect(unsafe_code, reason = "a C function")]
pub(super) unsafe extern "C" fn set_attribute(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, through the method descriptor of `Span`, with `nargs` positional arguments and one
    // more for every name.
    let (py, span, names, values) = unsafe {
        let py = Python::assume_attached();
        let names = keyword_names(py, &kwnames);
        let count = nargs.cast_unsigned() + names.map_or(0, PyTupleMethods::len);
        (py, receiver(py, &slf), names, arguments(args, count))
    };
    let set = match (values, names) {
        ([key, value], None) => span.get().put_attribute(key, value),
        _ => set_attribute_by_name(
            span,
            &values[..nargs.cast_unsigned()],
            &values[nargs.cast_unsigned()..],
            names,
        ),
    };
    give(py, set.map(|()| py.None().into_bound(py)))
}

/// `set_attribute(key=..., value=...)`, and the errors.
#[cold]
fn set_attribute_by_name<'py>(
    span: &Bound<'py, Span>,
    positional: &[Borrowed<'_, 'py, PyAny>],
    keywords: &[Borrowed<'_, 'py, PyAny>],
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<()> {
    let (mut key, mut value) = (positional.first(), positional.get(1));
    for (name, keyword) in names.iter().flat_map(|names| names.iter()).zip(keywords) {
        let slot = match name.cast::<PyString>()?.to_str()? {
            "key" => &mut key,
            "value" => &mut value,
            other => {
                return Err(PyTypeError::new_err(format!(
                    "set_attribute() got an unexpected keyword argument '{other}'"
                )));
            }
        };
        if slot.replace(keyword).is_some() {
            return Err(PyTypeError::new_err(format!(
                "set_attribute() got multiple values for argument '{name}'"
            )));
        }
    }
    match (key, value) {
        (Some(key), Some(value)) if positional.len() <= 2 => span.get().put_attribute(key, value),
        _ => Err(PyTypeError::new_err(
            "set_attribute() takes two arguments, key and value",
        )),
    }
}
