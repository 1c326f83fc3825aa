//! What runs for every span, with CPython's vectorcall convention by hand: `span()`, `__enter__`, `__exit__`,
//! `set_attribute`, the `send` of a server span and the task factory.
//!
//! PyO3 gives a function with `**attrs` a tuple and a dict of its arguments, and keeps books about the interpreter around
//! every call: together a sixth of the cost of an empty span. The functions here replace those that PyO3 makes and do
//! the same. Two rules follow from their freedom: what they call catches panics ([`super::errors::guard`]), and a reference
//! that dies in them is a `Bound`, because PyO3 would put off letting go of a `Py` until its next own call.

mod server;
mod slots;
mod spans;
mod tasks;

use std::ffi::CStr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};

pub(super) use server::{channel, middleware};
pub(super) use slots::{set_call, set_flag, set_offset};

use super::asgi::ServerInstrumentation;
use super::server_span::ServerSpan;
use super::span::Span;
use super::task::TaskFactory;

/// A function that CPython calls; its definition must live as long as the function, so it is never freed.
fn define(
    name: &'static CStr,
    signature: &'static CStr,
    method: ffi::PyMethodDefPointer,
    flags: i32,
) -> *mut ffi::PyMethodDef {
    Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: method,
        ml_flags: flags,
        ml_doc: signature.as_ptr(),
    }))
}

/// Adds `span` to the module and puts the methods in the place of PyO3's.
#[expect(unsafe_code, reason = "C functions")]
pub(super) fn install(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let keywords = ffi::METH_FASTCALL | ffi::METH_KEYWORDS;
    let span = define(
        c"span",
        c"span(name, attributes=None, /, *, kind=None, links=None, **attrs)\n--\n\nA span to use with `with`, `async with`, as a decorator, or with `.run(awaitable)`.",
        ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: spans::span,
        },
        keywords,
    );
    let module_name = module.name()?;
    // SAFETY: attached; the definition is never freed; the result is a new reference or null with an error set.
    let span = unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyCFunction_NewEx(span, std::ptr::null_mut(), module_name.as_ptr()),
        )?
    };
    module.add("span", span)?;

    let class = py.get_type::<Span>();
    for method in [
        define(
            c"__enter__",
            c"__enter__($self, /)\n--\n\nStarts the span and makes it current.",
            ffi::PyMethodDefPointer { PyCFunction: spans::enter },
            ffi::METH_NOARGS,
        ),
        define(
            c"__exit__",
            c"__exit__($self, exc_type, exc, traceback, /)\n--\n\nMakes current what was before and ends the span.",
            ffi::PyMethodDefPointer {
                PyCFunctionFast: spans::exit,
            },
            ffi::METH_FASTCALL,
        ),
        define(
            c"set_attribute",
            c"set_attribute($self, key, value)\n--\n\nSets an attribute; one with the same key is replaced.",
            ffi::PyMethodDefPointer {
                PyCFunctionFastWithKeywords: spans::set_attribute,
            },
            keywords,
        ),
    ] {
        add_method(&class, method)?;
    }
    add_start(&py.get_type::<ServerInstrumentation>())?;
    add_method(
        &py.get_type::<ServerSpan>(),
        define(
            c"finish",
            c"finish($self, error=None, /)\n--\n\nThe application has returned or raised.",
            ffi::PyMethodDefPointer {
                PyCFunctionFast: server::finish,
            },
            ffi::METH_FASTCALL,
        ),
    )?;
    let create_task = define(
        c"create_task",
        c"create_task($self, event_loop, coroutine, /, **kwargs)\n--\n\nWhat `loop.create_task` calls.",
        ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: tasks::create_task,
        },
        keywords,
    );
    add_method(&py.get_type::<TaskFactory>(), create_task)
}

/// Puts `_start` into `ServerInstrumentation` or a subclass. CPython calls a method straight only if the object is of the very
/// class that the method was made for.
pub(super) fn add_start(class: &Bound<'_, PyType>) -> PyResult<()> {
    let start = define(
        c"_start",
        c"_start($self, scope, receive, send, /)\n--\n\nThe span of a request, and the `receive` and `send` for the application.",
        ffi::PyMethodDefPointer {
            PyCFunctionFast: server::start,
        },
        ffi::METH_FASTCALL,
    );
    add_method(class, start)
}

/// Puts a method into a class.
#[expect(unsafe_code, reason = "a method descriptor has no safe constructor")]
fn add_method(class: &Bound<'_, PyType>, method: *mut ffi::PyMethodDef) -> PyResult<()> {
    // SAFETY: attached; a class and a definition that is never freed; a new reference or null with an error set.
    let descriptor = unsafe {
        Bound::from_owned_ptr_or_err(
            class.py(),
            ffi::PyDescr_NewMethod(class.as_type_ptr(), method),
        )?
    };
    class.setattr(
        descriptor.getattr("__name__")?.cast::<PyString>()?,
        &descriptor,
    )
}

/// Gives a result to CPython: a new reference, or null with the error set.
#[inline]
fn give<'py, T>(py: Python<'py>, result: PyResult<Bound<'py, T>>) -> *mut ffi::PyObject {
    match result {
        Ok(value) => value.into_ptr(),
        Err(error) => {
            error.restore(py);
            std::ptr::null_mut()
        }
    }
}

/// The arguments of a vectorcall.
///
/// # Safety
///
/// `args` holds `count` borrowed references that outlive `'a`.
#[inline]
#[expect(unsafe_code, reason = "arguments of a C function")]
unsafe fn arguments<'a, 'py>(
    args: *const *mut ffi::PyObject,
    count: usize,
) -> &'a [Borrowed<'a, 'py, PyAny>] {
    if count == 0 {
        return &[];
    }
    // SAFETY: promised by the caller; `Borrowed` is a pointer to an object.
    unsafe { std::slice::from_raw_parts(args.cast::<Borrowed<'_, 'py, PyAny>>(), count) }
}

/// The names of keyword arguments, if there are any.
///
/// # Safety
///
/// `kwnames` is null or a valid tuple.
#[inline]
#[expect(unsafe_code, reason = "arguments of a C function")]
unsafe fn keyword_names<'a, 'py>(
    py: Python<'py>,
    kwnames: &'a *mut ffi::PyObject,
) -> Option<&'a Bound<'py, PyTuple>> {
    if kwnames.is_null() {
        return None;
    }
    // SAFETY: promised by the caller.
    Some(unsafe { Bound::ref_from_ptr(py, kwnames).cast_unchecked() })
}
