//! A request: its begin and its end, the middleware, and the `receive` and `send` of the application.

use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::{arguments, give};
use crate::python::asgi::ServerInstrumentation;
use crate::python::channel::{Channel, Direction};
use crate::python::message_coroutine::MessageCoroutine;
use crate::python::server_span::ServerSpan;

#[expect(unsafe_code, reason = "a C function")]
pub(super) unsafe extern "C" fn start(
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
pub(super) unsafe extern "C" fn finish(
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

/// What CPython calls for an `RvhTraceMiddleware`: the `__call__` of its class, with the object before the arguments.
#[expect(unsafe_code, reason = "a C function")]
pub(in crate::python) unsafe extern "C" fn middleware(
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
pub(in crate::python) fn channel(direction: Direction) -> ffi::vectorcallfunc {
    match direction {
        Direction::Send => send,
        Direction::Receive => receive,
    }
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
