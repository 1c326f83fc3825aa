//! The end of the interpreter, as native code meets it.
//!
//! CPython before 3.14 ends a thread that asks for the GIL while the interpreter finalises by `pthread_exit`, which unwinds
//! its stack. Frames of Rust that catch panics, or may not unwind, abort the process then: the exit code of a program that
//! was done would be that of a crash. PyO3 0.30 guards the places where it takes the GIL itself; what runs Python code for
//! long, or schedules it, must guard the call. To be removed with support for 3.13.

use std::hint::black_box;
use std::mem::transmute;

use pyo3::ffi;

/// Whether the interpreter has run the exit functions and is taking itself down, finalisers and all.
#[expect(unsafe_code, reason = "a flag of the runtime")]
pub(super) fn is_finalising() -> bool {
    // SAFETY: may be called at any time, from any thread.
    unsafe { ffi::Py_IsInitialized() == 0 }
}

/// Parks the thread for good, unless it is told that the call has returned.
struct StayHere {
    returned: bool,
}

impl Drop for StayHere {
    #[inline]
    fn drop(&mut self) {
        // Python code does not panic, so this is the unwinding of `pthread_exit`.
        if !self.returned {
            loop {
                std::thread::park();
            }
        }
    }
}

/// `PyIter_Send` and `PyObject_Vectorcall`, which may unwind.
type IterSend = unsafe extern "C-unwind" fn(
    *mut ffi::PyObject,
    *mut ffi::PyObject,
    *mut *mut ffi::PyObject,
) -> ffi::PySendResult;
type Vectorcall = unsafe extern "C-unwind" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    usize,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// `PyIter_Send`, which does not come back when the thread is ended inside.
///
/// # Safety
///
/// As for the original.
#[inline]
#[expect(unsafe_code, reason = "a function of CPython")]
pub(super) unsafe fn iter_send(
    iterator: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    let mut stay = StayHere { returned: false };
    // PyO3 declares the function as one that never unwinds. Link-time optimisation believes that of every call of this name, and
    // leaves the guard out: so it must not know which function this is.
    let send = black_box(ffi::PyIter_Send as *const ());
    // SAFETY: the function's own signature, which an ABI that may unwind does not change; the rest is the caller's.
    let outcome = unsafe { transmute::<*const (), IterSend>(send)(iterator, value, result) };
    stay.returned = true;
    outcome
}

/// `PyObject_Vectorcall`, which does not come back when the thread is ended inside.
///
/// # Safety
///
/// As for the original.
#[inline]
#[expect(unsafe_code, reason = "a function of CPython")]
pub(super) unsafe fn vectorcall(
    callable: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    flags_and_count: usize,
    keyword_names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let mut stay = StayHere { returned: false };
    let call = black_box(ffi::PyObject_Vectorcall as *const ());
    // SAFETY: as in `iter_send`.
    let result = unsafe {
        transmute::<*const (), Vectorcall>(call)(
            callable,
            arguments,
            flags_and_count,
            keyword_names,
        )
    };
    stay.returned = true;
    result
}
