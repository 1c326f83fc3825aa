//! How CPython finds the function that an object is called by (PEP 590).

use pyo3::PyClass;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::PyType;

use crate::python::channel::Callee;

/// Tells CPython where objects of `class` keep the function that they are called by (PEP 590). At import, before there are
/// any others than `probe`.
#[expect(unsafe_code, reason = "a slot that PyO3 does not offer")]
pub(in crate::python) fn set_offset<T>(
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
pub(in crate::python) fn set_call(class: &Bound<'_, PyType>) {
    // SAFETY: attached; a class whose offset was set.
    unsafe { (*class.as_type_ptr()).tp_call = Some(ffi::PyVectorcall_Call) };
}

/// Lets CPython use the offset of `class`, its own or that of its base.
#[expect(unsafe_code, reason = "a slot that PyO3 does not offer")]
pub(in crate::python) fn set_flag(class: &Bound<'_, PyType>) {
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
