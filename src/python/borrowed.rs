//! Scopes, messages and headers, read in place: borrowed, uncounted, without a line of Python.
//!
//! A request has some forty entries to look at, and a checked, counted access to each costs more than what is done with it. The
//! price is a rule: what is borrowed is used before anything can run Python code, so before anything is allocated in Python.

use std::sync::atomic::{AtomicIsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyString};

use super::convert::{ascii, with_text};

/// An entry of a scope or message.
///
/// Borrowed from the dict: it must not change while the entry is in use, so no Python code may run. A comparison of keys that
/// raises counts as "not there".
#[inline]
#[expect(
    unsafe_code,
    reason = "a dozen entries a request, each counted otherwise"
)]
pub(super) fn item<'a, 'py>(
    dict: &'a Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> Option<Borrowed<'a, 'py, PyAny>> {
    // SAFETY: attached; a dict and a string; a borrowed reference, or null, perhaps with an error set.
    unsafe {
        let value = ffi::PyDict_GetItemWithError(dict.as_ptr(), key.as_ptr());
        if value.is_null() {
            if !ffi::PyErr_Occurred().is_null() {
                ffi::PyErr_Clear();
            }
            return None;
        }
        Some(Borrowed::from_ptr(dict.py(), value))
    }
}

/// Where in its dict an entry was found last time.
///
/// A server makes every scope in the same way, so an entry is where it was in the last one: a look there costs a quarter of a
/// look-up. What is not there is looked up.
pub(super) struct Place(AtomicIsize);

impl Place {
    pub(super) const fn new() -> Self {
        Self(AtomicIsize::new(0))
    }

    /// [`item`], looked for at this place first.
    #[inline]
    #[expect(unsafe_code, reason = "a safe walk counts references")]
    pub(super) fn item<'a, 'py>(
        &self,
        dict: &'a Bound<'py, PyDict>,
        key: &Bound<'py, PyString>,
    ) -> Option<Borrowed<'a, 'py, PyAny>> {
        if cfg!(Py_GIL_DISABLED) {
            return item(dict, key);
        }
        // Relaxed: any place will do, it is only where to look first.
        let mut position = self.0.load(Ordering::Relaxed);
        let (mut found, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: attached; a dict, and a position that `PyDict_Next` checks against the dict's own size. What it finds is
        // borrowed.
        unsafe {
            if ffi::PyDict_Next(
                dict.as_ptr(),
                &raw mut position,
                &raw mut found,
                &raw mut value,
            ) != 0
                && found == key.as_ptr()
            {
                return Some(Borrowed::from_ptr(dict.py(), value));
            }
        }
        self.look_up(dict, key)
    }

    #[cold]
    #[expect(unsafe_code, reason = "a safe walk counts references")]
    fn look_up<'a, 'py>(
        &self,
        dict: &'a Bound<'py, PyDict>,
        key: &Bound<'py, PyString>,
    ) -> Option<Borrowed<'a, 'py, PyAny>> {
        let value = item(dict, key)?;
        let (mut position, mut found) = (0, std::ptr::null_mut());
        loop {
            let here = position;
            // SAFETY: attached; a dict, which does not change meanwhile: no Python code runs.
            let is_entry = unsafe {
                ffi::PyDict_Next(
                    dict.as_ptr(),
                    &raw mut position,
                    &raw mut found,
                    std::ptr::null_mut(),
                )
            } != 0;
            if !is_entry {
                break;
            }
            if found == key.as_ptr() {
                self.0.store(here, Ordering::Relaxed);
                break;
            }
        }
        Some(value)
    }
}

/// [`item`] of a scope, by a name that is known here, with a [`Place`] of its own.
macro_rules! entry {
    ($scope:expr, $name:literal) => {{
        static PLACE: $crate::python::borrowed::Place = $crate::python::borrowed::Place::new();
        PLACE.item($scope, pyo3::intern!($scope.py(), $name))
    }};
}
pub(super) use entry;

/// The members of a list or tuple, as they are stored.
#[inline]
#[expect(
    unsafe_code,
    reason = "eleven headers a request, and a checked access counts a reference each"
)]
pub(super) fn members<'a, 'py>(
    sequence: &'a Borrowed<'_, 'py, PyAny>,
) -> &'a [Borrowed<'a, 'py, PyAny>] {
    let object = sequence.as_ptr();
    // SAFETY: attached; a list or tuple keeps `ob_size` valid references in a row, which live while it is not changed, and
    // no Python code runs while they are read (see the module). `Borrowed` is a pointer to an object. An empty list may have
    // no row at all.
    unsafe {
        let first = if ffi::PyTuple_Check(object) != 0 {
            (&raw mut (*object.cast::<ffi::PyTupleObject>()).ob_item).cast()
        } else if ffi::PyList_Check(object) != 0 {
            (*object.cast::<ffi::PyListObject>()).ob_item
        } else {
            return &[];
        };
        let count = ffi::Py_SIZE(object).cast_unsigned();
        if count == 0 {
            return &[];
        }
        std::slice::from_raw_parts(first.cast::<Borrowed<'a, 'py, PyAny>>(), count)
    }
}

/// The contents of a `bytes` object, or of an instance of a subclass.
#[inline]
#[expect(unsafe_code, reason = "two checked calls a header otherwise")]
pub(super) fn bytes<'a>(object: &'a Borrowed<'_, '_, PyAny>) -> Option<&'a [u8]> {
    let pointer = object.as_ptr();
    // SAFETY: attached; a `bytes` has `ob_size` bytes from `ob_sval` on, which never change and live as long as the borrow.
    unsafe {
        if ffi::PyBytes_Check(pointer) == 0 {
            return None;
        }
        let first = (&raw const (*pointer.cast::<ffi::PyBytesObject>()).ob_sval).cast::<u8>();
        let count = ffi::Py_SIZE(pointer).cast_unsigned();
        Some(std::slice::from_raw_parts(first, count))
    }
}

/// Calls `then` with the text of `value`, if it is a string.
#[inline]
pub(super) fn with_str<R>(
    value: Option<Borrowed<'_, '_, PyAny>>,
    then: impl FnOnce(&str) -> R,
) -> Option<R> {
    let value = value?;
    if let Some(text) = ascii(&value) {
        return Some(then(text));
    }
    value
        .cast::<PyString>()
        .ok()
        .map(|text| with_text(&text, then))
}

/// The headers of a list or tuple of pairs; what is no pair of `bytes` is skipped, and an iterator is left alone.
#[inline]
pub(super) fn header_pairs<'a>(
    headers: &'a Borrowed<'_, '_, PyAny>,
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    members(headers)
        .iter()
        .filter_map(|pair| match members(pair) {
            [name, value, ..] => Some((bytes(name)?, bytes(value)?)),
            _ => None,
        })
}

/// The value of an `int` that fits.
#[inline]
pub(super) fn int(value: &Bound<'_, PyAny>) -> Option<i64> {
    value
        .cast::<PyInt>()
        .ok()
        .and_then(|value| value.extract().ok())
}
