//! The task factory.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTupleMethods;

use super::{arguments, give, keyword_names};
use crate::python::task::{Keywords, TaskFactory};

#[expect(unsafe_code, reason = "a C function")]
pub(super) unsafe extern "C" fn create_task(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, through the method descriptor of `TaskFactory`, with `nargs` positional arguments and
    // one more for every name.
    let (py, factory, names, values) = unsafe {
        let py = Python::assume_attached();
        let names = keyword_names(py, &kwnames);
        let count = nargs.cast_unsigned() + names.map_or(0, PyTupleMethods::len);
        (
            py,
            Bound::ref_from_ptr(py, &slf).cast_unchecked::<TaskFactory>(),
            names,
            arguments(args, count),
        )
    };
    let (positional, keywords) = values.split_at(nargs.cast_unsigned());
    let keywords = names.map(|names| Keywords {
        names,
        values: keywords,
    });
    let created = match positional {
        [event_loop, coroutine] => {
            factory
                .get()
                .create_task(event_loop, coroutine, keywords.as_ref())
        }
        _ => Err(PyTypeError::new_err(
            "a task factory is called with the event loop and a coroutine",
        )),
    };
    give(py, created)
}
