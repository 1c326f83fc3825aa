//! The end of the interpreter, as native code meets it.
//!
//! CPython before 3.14 ends a thread that asks for the GIL while the interpreter finalises by `pthread_exit`, which unwinds
//! its stack. Frames of Rust that catch panics, or may not unwind, abort the process then: the exit code of a program that
//! was done would be that of a crash. PyO3 0.30 guards the places where it takes the GIL itself; what runs Python code for
//! long, or schedules it, must guard the call. To be removed with support for 3.13.

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

mod unwinding {
    use pyo3::ffi::{PyObject, PySendResult};

    #[expect(unsafe_code, reason = "functions of CPython, which may unwind")]
    unsafe extern "C-unwind" {
        pub(super) fn PyIter_Send(
            iterator: *mut PyObject,
            value: *mut PyObject,
            result: *mut *mut PyObject,
        ) -> PySendResult;

        pub(super) fn PyObject_Vectorcall(
            callable: *mut PyObject,
            arguments: *const *mut PyObject,
            flags_and_count: usize,
            keyword_names: *mut PyObject,
        ) -> *mut PyObject;
    }
}

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
    // SAFETY: the caller's.
    let outcome = unsafe { unwinding::PyIter_Send(iterator, value, result) };
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
    // SAFETY: the caller's.
    let result = unsafe {
        unwinding::PyObject_Vectorcall(callable, arguments, flags_and_count, keyword_names)
    };
    stay.returned = true;
    result
}
