//! `AttachedCell`: the state of a Python object, reached only by threads that are attached to the interpreter.
//!
//! With a GIL no two threads are attached at once, so a lock (8 to 15 ns, several times a span) would guard against
//! nothing. A flag refuses the one thing that is left: entering the cell again from inside, also after the GIL went to
//! another thread in between. Without a GIL it is a mutex.

use pyo3::Python;

/// See the module.
#[cfg(not(Py_GIL_DISABLED))]
pub(super) struct AttachedCell<T> {
    entered: std::cell::Cell<bool>,
    value: std::cell::UnsafeCell<T>,
}

#[cfg(not(Py_GIL_DISABLED))]
#[expect(unsafe_code, reason = "the GIL is the lock")]
// SAFETY: both fields are touched only in `enter`, by a thread that holds the GIL (`Python` is its proof;
// `with_collecting` is called by the collector, which holds it too), so never by two at once, and handing the GIL over orders what
// they do. `T: Send` because each of them may be another thread.
unsafe impl<T: Send> Sync for AttachedCell<T> {}

#[cfg(not(Py_GIL_DISABLED))]
impl<T> AttachedCell<T> {
    pub(super) const fn new(value: T) -> Self {
        Self {
            entered: std::cell::Cell::new(false),
            value: std::cell::UnsafeCell::new(value),
        }
    }

    /// Calls `then` with the value; `None` when the cell is entered already. `then` should not run Python code.
    #[inline]
    pub(super) fn with<R>(
        &self,
        _attached: Python<'_>,
        then: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        self.enter(then)
    }

    /// The value of a cell that is nobody else's.
    pub(super) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// [`Self::with`] for `__traverse__` and `__clear__`, which the collector calls while it holds the GIL.
    pub(super) fn with_collecting<R>(&self, then: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.enter(then)
    }

    #[inline]
    #[expect(unsafe_code, reason = "see the flag")]
    fn enter<R>(&self, then: impl FnOnce(&mut T) -> R) -> Option<R> {
        /// Also leaves when `then` unwinds.
        struct Leave<'a>(&'a std::cell::Cell<bool>);
        impl Drop for Leave<'_> {
            #[inline]
            fn drop(&mut self) {
                self.0.set(false);
            }
        }

        if self.entered.replace(true) {
            return None;
        }
        let _leave = Leave(&self.entered);
        // SAFETY: the flag was down, so no other reference to the value is alive, on any thread (see `Sync` above).
        Some(then(unsafe { &mut *self.value.get() }))
    }
}

/// See the module.
#[cfg(Py_GIL_DISABLED)]
pub(super) struct AttachedCell<T>(std::sync::Mutex<T>);

#[cfg(Py_GIL_DISABLED)]
impl<T> AttachedCell<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Calls `then` with the value. `then` must not run Python code.
    #[inline]
    pub(super) fn with<R>(
        &self,
        _attached: Python<'_>,
        then: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        let mut value = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Some(then(&mut value))
    }

    /// The value of a cell that is nobody else's.
    pub(super) fn get_mut(&mut self) -> &mut T {
        self.0
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// [`Self::with`] for `__traverse__` and `__clear__`; the collector has stopped every other thread, so it must not wait.
    pub(super) fn with_collecting<R>(&self, then: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.try_lock().ok().map(|mut value| then(&mut value))
    }
}
