//! What runs for every span, with CPython's vectorcall convention by hand: `span()`, `__enter__`, `__exit__`,
//! `set_attribute`, the `send` of a server span and the task factory.
//!
//! PyO3 gives a function with `**attrs` a tuple and a dict of its arguments, and keeps books about the interpreter around
//! every call: together a sixth of the cost of an empty span. The functions here replace those that PyO3 makes and do
//! the same. Two rules follow from their freedom: what they call catches panics ([`super::errors::guard`]), and a reference
//! that dies in them is a `Bound`, because PyO3 would put off letting go of a `Py` until its next own call.

use std::ffi::CStr;

use pyo3::PyClass;
use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::{PyString, PyTuple, PyType};

use super::asgi::ServerInstrumentation;
use super::channel::{Callee, Channel, Direction};
use super::creation;
use super::message_coroutine::MessageCoroutine;
use super::server_span::ServerSpan;
use super::span::Span;
use super::task::{Keywords, TaskFactory};

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
        add_method(&class, method)?;
    }
    add_start(&py.get_type::<ServerInstrumentation>())?;
    add_method(
        &py.get_type::<ServerSpan>(),
        define(
            c"finish",
            c"finish($self, error=None, /)\n--\n\nThe application has returned or raised.",
            ffi::PyMethodDefPointer {
                PyCFunctionFast: finish,
            },
            ffi::METH_FASTCALL,
        ),
    )?;
    let create_task = define(
        c"create_task",
        c"create_task($self, event_loop, coroutine, /, **kwargs)\n--\n\nWhat `loop.create_task` calls.",
        ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: create_task,
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
            PyCFunctionFast: start,
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

/// Tells CPython where objects of `class` keep the function that they are called by (PEP 590). At import, before there are
/// any others than `probe`.
#[expect(unsafe_code, reason = "a slot that PyO3 does not offer")]
pub(super) fn set_offset<T>(
    class: &Bound<'_, PyType>,
    probe: &Bound<'_, T>,
    field: impl FnOnce(&T) -> &Callee,
) where
    T: PyClass<Frozen = True> + Sync,
{
    let field = std::ptr::from_ref(field(probe.get())) as usize;
    let offset = field - probe.as_ptr() as usize;
    // SAFETY: attached; a class of ours. The field is at the same offset in every object, and always holds a function.
    unsafe { (*class.as_type_ptr()).tp_vectorcall_offset = offset.cast_signed() };
}

/// Makes other calls of `class` go the same way.
#[expect(unsafe_code, reason = "a slot that PyO3 does not offer")]
pub(super) fn set_call(class: &Bound<'_, PyType>) {
    // SAFETY: attached; a class whose offset was set.
    unsafe { (*class.as_type_ptr()).tp_call = Some(ffi::PyVectorcall_Call) };
}

/// Lets CPython use the offset of `class`, its own or that of its base.
#[expect(unsafe_code, reason = "a slot that PyO3 does not offer")]
pub(super) fn set_flag(class: &Bound<'_, PyType>) {
    let class = class.as_type_ptr();
    // SAFETY: attached; a class with an offset, whose objects always hold a function there.
    unsafe {
        #[cfg(not(Py_GIL_DISABLED))]
        {
            (*class).tp_flags |= ffi::Py_TPFLAGS_HAVE_VECTORCALL;
        }
        #[cfg(Py_GIL_DISABLED)]
        (*class).tp_flags.fetch_or(
            ffi::Py_TPFLAGS_HAVE_VECTORCALL,
            std::sync::atomic::Ordering::Relaxed,
        );
        ffi::PyType_Modified(class);
    }
}

/// What CPython calls for an `RvhTraceMiddleware`: the `__call__` of its class, with the object before the arguments.
#[expect(unsafe_code, reason = "a C function")]
pub(super) unsafe extern "C" fn middleware(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, with an object of a subclass of `ServerInstrumentation` and the arguments of a vectorcall.
    // Where the flag says so, the place before the arguments may be written to, if it is restored (PEP 590).
    unsafe {
        let py = Python::assume_attached();
        let instrumentation =
            Bound::ref_from_ptr(py, &slf).cast_unchecked::<ServerInstrumentation>();
        let function = match ServerInstrumentation::function(instrumentation) {
            Ok(function) => function,
            Err(error) => return give::<PyAny>(py, Err(error)),
        };
        let nargs = ffi::PyVectorcall_NARGS(nargsf).cast_unsigned();
        if nargsf & ffi::PY_VECTORCALL_ARGUMENTS_OFFSET != 0 {
            let with_self = args.sub(1).cast_mut();
            let before = with_self.replace(slf);
            let result = ffi::PyObject_Vectorcall(function.as_ptr(), with_self, nargs + 1, kwnames);
            with_self.write(before);
            return result;
        }
        let keywords = if kwnames.is_null() {
            0
        } else {
            ffi::PyTuple_GET_SIZE(kwnames).cast_unsigned()
        };
        let mut with_self = vec![slf];
        if nargs + keywords > 0 {
            with_self.extend_from_slice(std::slice::from_raw_parts(args, nargs + keywords));
        }
        ffi::PyObject_Vectorcall(function.as_ptr(), with_self.as_ptr(), nargs + 1, kwnames)
    }
}

/// What CPython calls for a channel.
pub(super) fn channel(direction: Direction) -> ffi::vectorcallfunc {
    match direction {
        Direction::Send => send,
        Direction::Receive => receive,
    }
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
unsafe extern "C" fn start(
    slf: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, through the method descriptor of `ServerInstrumentation`, with `nargs` arguments.
    let (py, instrumentation, arguments) = unsafe {
        let py = Python::assume_attached();
        (
            py,
            Bound::ref_from_ptr(py, &slf).cast_unchecked::<ServerInstrumentation>(),
            arguments(args, nargs.cast_unsigned()),
        )
    };
    let started = match arguments {
        [scope, receive, send] => {
            ServerInstrumentation::start(instrumentation, scope, receive, send)
        }
        _ => Err(PyTypeError::new_err(format!(
            "_start() takes scope, receive and send, but {nargs} were given"
        ))),
    };
    match started {
        Ok(None) => py.None().into_ptr(),
        Ok(Some(started)) => started.into_ptr(),
        Err(error) => give::<PyAny>(py, Err(error)),
    }
}

#[expect(unsafe_code, reason = "a C function")]
unsafe extern "C" fn finish(
    slf: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, through the method descriptor of `ServerSpan`, with `nargs` arguments.
    let (py, span, arguments) = unsafe {
        let py = Python::assume_attached();
        (
            py,
            Bound::ref_from_ptr(py, &slf).cast_unchecked::<ServerSpan>(),
            arguments(args, nargs.cast_unsigned()),
        )
    };
    let error = arguments.first();
    let error = error.and_then(|error| error.cast::<PyBaseException>().ok());
    let finished = ServerSpan::finish(span, error.as_deref());
    give(py, finished.map(|()| py.None().into_bound(py)))
}

/// A channel that was called, its span and the server's callable.
type Called<'py> = (Option<Bound<'py, ServerSpan>>, Option<Bound<'py, PyAny>>);

/// # Safety
///
/// CPython calls attached, and `slf` is a [`Channel`].
#[inline]
#[expect(unsafe_code, reason = "the argument of a C function")]
unsafe fn called(py: Python<'_>, slf: *mut ffi::PyObject) -> Called<'_> {
    // SAFETY: promised by the caller.
    let channel = unsafe { Bound::ref_from_ptr(py, &slf).cast_unchecked::<Channel>() };
    channel.get().ends(py)
}

/// Calls the server's own callable with exactly what the channel was called with.
///
/// # Safety
///
/// The arguments are those of a vectorcall.
#[expect(unsafe_code, reason = "the arguments of a C function")]
unsafe fn pass_on<'py>(
    py: Python<'py>,
    server: Option<Bound<'py, PyAny>>,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(server) = server else {
        return Err(PyRuntimeError::new_err(
            "this channel was already collected",
        ));
    };
    // SAFETY: promised by the caller; a new reference or null with an error set.
    unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyObject_Vectorcall(server.as_ptr(), args, nargsf, kwnames),
        )
    }
}

#[expect(unsafe_code, reason = "a C function")]
unsafe extern "C" fn send(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, with a channel and the arguments of a vectorcall.
    let (py, message, ends) = unsafe {
        let py = Python::assume_attached();
        let message = match arguments(args, ffi::PyVectorcall_NARGS(nargsf).cast_unsigned()) {
            [message] if kwnames.is_null() => Some(message),
            _ => None,
        };
        (py, message, called(py, slf))
    };
    give(
        py,
        match (message, ends) {
            (Some(message), (Some(span), Some(server))) => {
                ServerSpan::send(&span, &server, message)
            }
            // SAFETY: as above.
            (_, (_, server)) => unsafe { pass_on(py, server, args, nargsf, kwnames) },
        },
    )
}

#[expect(unsafe_code, reason = "a C function")]
unsafe extern "C" fn receive(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, with a channel and the arguments of a vectorcall.
    let (py, span, awaitable) = unsafe {
        let py = Python::assume_attached();
        let (span, server) = called(py, slf);
        (py, span, pass_on(py, server, args, nargsf, kwnames))
    };
    let watched = match (awaitable, span) {
        (Ok(awaitable), Some(span)) => {
            MessageCoroutine::watch(Direction::Receive, &span, awaitable, None)
        }
        (awaitable, _) => awaitable,
    };
    give(py, watched)
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
