//! The few functions of Python's C API that finding the capsule takes.
//!
//! They are looked up at run time: so the crate needs no binding, goes with any version of one, and links into programs
//! without Python too.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use super::{ConnectError, checked};
use crate::abi::{Api, CAPSULE};

/// Where the capsule is: the two halves of its name.
const MODULE: &CStr = c"rvh_trace._rvh_trace";
const ATTRIBUTE: &CStr = c"_C_API";

/// What the import system says when there is no such package.
const NO_MODULE: &str = "No module named 'rvh_trace'";

type Object = *mut c_void;

/// Declares the functions and looks all of them up: `None` if one is missing, as all are in a program without Python.
macro_rules! c_api {
    ($(fn $name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        #[expect(non_snake_case, reason = "the names of the C API")]
        struct CApi {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl CApi {
            #[expect(unsafe_code, reason = "the address of a function")]
            fn find() -> Option<Self> {
                Some(Self {
                    $($name: {
                        const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                            Ok(name) => name,
                            Err(_) => c"",
                        };
                        let address = address_of(NAME);
                        if address.is_null() {
                            return None;
                        }
                        // SAFETY: the signature that the function has in every version (the limited API).
                        unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(address)
                        }
                    },)*
                })
            }
        }
    };
}

c_api! {
    fn Py_IsInitialized() -> c_int;
    fn PyGILState_Check() -> c_int;
    fn PyGILState_GetThisThreadState() -> *mut c_void;
    fn PyImport_ImportModule(*const c_char) -> Object;
    fn PyObject_GetAttrString(Object, *const c_char) -> Object;
    fn PyCapsule_GetPointer(Object, *const c_char) -> *mut c_void;
    fn PyErr_Fetch(*mut Object, *mut Object, *mut Object);
    fn PyErr_NormalizeException(*mut Object, *mut Object, *mut Object);
    fn PyErr_Clear();
    fn PyObject_Str(Object) -> Object;
    fn PyUnicode_AsUTF8AndSize(Object, *mut isize) -> *const c_char;
    fn Py_DecRef(Object);
}

/// Where a function of the process is that may or may not have it; the same search as the linker's for this module.
#[cfg(unix)]
#[expect(unsafe_code, reason = "a system call")]
fn address_of(name: &CStr) -> *mut c_void {
    // SAFETY: a NUL-terminated name.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

/// Not yet elsewhere: there the DLL of Python would have to be found first.
#[cfg(not(unix))]
fn address_of(_name: &CStr) -> *mut c_void {
    null_mut()
}

/// Imports rvh_trace and takes the table out of its capsule.
#[expect(unsafe_code, reason = "the C API is called without a binding")]
pub(super) fn find_table() -> Result<*const Api, ConnectError> {
    let python = CApi::find().ok_or(ConnectError::NotAttached)?;
    // SAFETY: all three may be called at any time. Once there are sub-interpreters, `PyGILState_Check` says yes to everybody.
    let is_attached = unsafe {
        (python.Py_IsInitialized)() != 0
            && !(python.PyGILState_GetThisThreadState)().is_null()
            && (python.PyGILState_Check)() != 0
    };
    if !is_attached {
        return Err(ConnectError::NotAttached);
    }
    let table = python.import_table();
    if table.is_null() {
        let reason = python.take_exception();
        return Err(if reason == NO_MODULE {
            ConnectError::NotInstalled
        } else {
            ConnectError::Unusable { reason }
        });
    }
    // SAFETY: what a capsule of this name holds.
    unsafe { checked(table) }
}

impl CApi {
    /// What the capsule holds; null with an exception set if there is none.
    ///
    /// `PyCapsule_Import` would do it in one call, and not say why it cannot.
    #[expect(unsafe_code, reason = "the C API is called without a binding")]
    fn import_table(&self) -> *const Api {
        // SAFETY: attached; NUL-terminated names; each a new reference, or null with an exception set.
        unsafe {
            let module = (self.PyImport_ImportModule)(MODULE.as_ptr());
            if module.is_null() {
                return std::ptr::null();
            }
            let capsule = (self.PyObject_GetAttrString)(module, ATTRIBUTE.as_ptr());
            (self.Py_DecRef)(module);
            if capsule.is_null() {
                return std::ptr::null();
            }
            let table = (self.PyCapsule_GetPointer)(capsule, CAPSULE.as_ptr());
            // The table stays where it is.
            (self.Py_DecRef)(capsule);
            table.cast()
        }
    }

    /// The text of the exception that is set, which no longer is.
    #[expect(unsafe_code, reason = "the C API is called without a binding")]
    fn take_exception(&self) -> String {
        let (mut class, mut value, mut traceback) = (null_mut(), null_mut(), null_mut());
        // SAFETY: attached; three places to write to, which then hold references or null.
        unsafe {
            (self.PyErr_Fetch)(&raw mut class, &raw mut value, &raw mut traceback);
            (self.PyErr_NormalizeException)(&raw mut class, &raw mut value, &raw mut traceback);
        }
        let reason = if value.is_null() {
            String::new()
        } else {
            self.text_of(value)
        };
        for object in [class, value, traceback] {
            // SAFETY: a reference of ours, or null, which this one allows.
            unsafe { (self.Py_DecRef)(object) };
        }
        reason
    }

    /// `str(object)`, or nothing if that fails.
    #[expect(unsafe_code, reason = "the C API is called without a binding")]
    fn text_of(&self, object: Object) -> String {
        // SAFETY: attached; a valid object; a new reference, or null with an exception set.
        let text = unsafe { (self.PyObject_Str)(object) };
        if text.is_null() {
            // SAFETY: attached.
            unsafe { (self.PyErr_Clear)() };
            return String::new();
        }
        let mut size = 0;
        // SAFETY: a `str`; its UTF-8, which lives as long as it, or null with an exception set.
        let start = unsafe { (self.PyUnicode_AsUTF8AndSize)(text, &raw mut size) };
        let result = if start.is_null() {
            // SAFETY: attached.
            unsafe { (self.PyErr_Clear)() };
            String::new()
        } else {
            // SAFETY: so many bytes, alive until `text` is given up.
            let bytes = unsafe { std::slice::from_raw_parts(start.cast(), size.unsigned_abs()) };
            String::from_utf8_lossy(bytes).into_owned()
        };
        // SAFETY: a reference of ours.
        unsafe { (self.Py_DecRef)(text) };
        result
    }
}
