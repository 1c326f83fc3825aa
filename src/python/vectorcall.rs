//! What runs for every span, with CPython's vectorcall convention by hand: `span()`, `__enter__`, `__exit__`,
//! `set_attribute`, the `send` of a server span and the task factory.
//!
//! PyO3 gives a function with `**attrs` a tuple and a dict of its arguments, and keeps books about the interpreter around
//! every call: together a sixth of the cost of an empty span. The functions here replace those that PyO3 makes and do
//! the same. Two rules follow from their freedom: what they call catches panics ([`super::errors::guard`]), and a reference
//! that dies in them is a `Bound`, because PyO3 would put off letting go of a `Py` until its next own call.

use std::ffi::CStr;
use std::sync::OnceLock;

use pyo3::exceptions::{PyBaseException, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::creation;
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
            PyCFunctionFastWithKeywords: span,
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
            ffi::PyMethodDefPointer { PyCFunction: enter },
            ffi::METH_NOARGS,
        ),
        define(
            c"__exit__",
            c"__exit__($self, exc_type, exc, traceback, /)\n--\n\nMakes current what was before and ends the span.",
            ffi::PyMethodDefPointer {
                PyCFunctionFast: exit,
            },
            ffi::METH_FASTCALL,
        ),
        define(
            c"set_attribute",
            c"set_attribute($self, key, value)\n--\n\nSets an attribute; one with the same key is replaced.",
            ffi::PyMethodDefPointer {
                PyCFunctionFastWithKeywords: set_attribute,
            },
            keywords,
        ),
    ] {
        // SAFETY: attached; a class and a definition that is never freed; a new reference or null with an error set.
        let descriptor = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class.as_type_ptr(), method))?
        };
        class.setattr(
            descriptor.getattr("__name__")?.cast::<PyString>()?,
            &descriptor,
        )?;
    }
    let create_task = define(
        c"create_task",
        c"create_task($self, event_loop, coroutine, /, **kwargs)\n--\n\nWhat `loop.create_task` calls.",
        ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: create_task,
        },
        keywords,
    );
    let factory = py.get_type::<TaskFactory>();
    // SAFETY: as above.
    let descriptor = unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyDescr_NewMethod(factory.as_type_ptr(), create_task),
        )?
    };
    factory.setattr("create_task", descriptor)
}

/// The `send` of a server span, as a function of its own: calling it makes no tuple and looks nothing up.
#[expect(unsafe_code, reason = "a C function")]
pub(super) fn bound_send<'py>(span: &Bound<'py, ServerSpan>) -> PyResult<Bound<'py, PyAny>> {
    static DEFINITION: OnceLock<Definition> = OnceLock::new();
    let py = span.py();
    let definition = DEFINITION.get_or_init(|| {
        Definition(define(
            c"send",
            c"send(message, /)\n--\n\nSends a message to the server and notes what it says.",
            ffi::PyMethodDefPointer { PyCFunction: send },
            ffi::METH_O,
        ))
    });
    // SAFETY: attached; the definition is never freed; the function keeps the span alive; a new reference or null with an
    // error set.
    unsafe {
        let function = ffi::PyCFunction_NewEx(definition.0, span.as_ptr(), std::ptr::null_mut());
        Bound::from_owned_ptr_or_err(py, function)
    }
}

/// A definition that is only read.
struct Definition(*mut ffi::PyMethodDef);

#[expect(unsafe_code, reason = "see the type")]
// SAFETY: written once before it is shared, then only read.
unsafe impl Send for Definition {}
#[expect(unsafe_code, reason = "see the type")]
// SAFETY: as above.
unsafe impl Sync for Definition {}

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

#[expect(unsafe_code, reason = "a C function")]
unsafe extern "C" fn span(
    _module: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, with `nargs` positional arguments and one more for every name.
    let (py, names, values) = unsafe {
        let py = Python::assume_attached();
        let names = keyword_names(py, &kwnames);
        let count = nargs.cast_unsigned() + names.map_or(0, pyo3::types::PyTupleMethods::len);
        (py, names, arguments(args, count))
    };
    let (values, keywords) = values.split_at(nargs.cast_unsigned());
    give(py, creation::span(py, values, keywords, names))
}

#[expect(unsafe_code, reason = "a C function")]
unsafe extern "C" fn enter(
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
unsafe extern "C" fn exit(
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
    give(
        py,
        exited.map(|()| pyo3::types::PyBool::new(py, false).to_owned()),
    )
}

#[expect(unsafe_code, reason = "a C function")]
unsafe extern "C" fn send(
    slf: *mut ffi::PyObject,
    message: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, with the `ServerSpan` that the function was bound to and one argument.
    let (py, span, message) = unsafe {
        let py = Python::assume_attached();
        (
            py,
            Bound::ref_from_ptr(py, &slf).cast_unchecked::<ServerSpan>(),
            Bound::ref_from_ptr(py, &message),
        )
    };
    give(py, ServerSpan::send(span, message))
}

#[expect(unsafe_code, reason = "a C function")]
unsafe extern "C" fn set_attribute(
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
        let count = nargs.cast_unsigned() + names.map_or(0, pyo3::types::PyTupleMethods::len);
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

#[expect(unsafe_code, reason = "a C function")]
unsafe extern "C" fn create_task(
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
        let count = nargs.cast_unsigned() + names.map_or(0, pyo3::types::PyTupleMethods::len);
        (
            py,
            Bound::ref_from_ptr(py, &slf).cast_unchecked::<TaskFactory>(),
            names,
            arguments(args, count),
        )
    };
    let (positional, keywords) = values.split_at(nargs.cast_unsigned());
    let kwargs = names.map(|names| {
        let kwargs = PyDict::new(py);
        let filled = names
            .iter_borrowed()
            .zip(keywords)
            .try_for_each(|(name, value)| kwargs.set_item(name, value));
        filled.map(|()| kwargs)
    });
    let created = kwargs.transpose().and_then(|kwargs| match positional {
        [event_loop, coroutine] => {
            factory
                .get()
                .create_task(event_loop, coroutine, kwargs.as_ref())
        }
        _ => Err(PyTypeError::new_err(
            "a task factory is called with the event loop and a coroutine",
        )),
    });
    give(py, created)
}
