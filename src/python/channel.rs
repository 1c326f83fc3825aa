//! `Channel`: the `send` and the `receive` that an application gets in place of the server's.
//!
//! CPython calls them through the vectorcall protocol (PEP 590), which PyO3 does not offer: no tuple of arguments is made
//! and no method is bound. The objects are used again for the next request, when nobody else holds them. After its request
//! a channel only passes on.

use pyo3::PyTraverseError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::cell::AttachedCell;
use super::creation::LastTwo;
use super::server_span::ServerSpan;
use super::vectorcall;

/// Which way messages go.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Direction {
    /// From the application to the server.
    Send,
    /// From the server to the application.
    Receive,
}

/// Between whom.
#[derive(Default)]
struct Ends {
    /// Whose messages are noted; `None` once its request is over.
    span: Option<Py<ServerSpan>>,
    /// The server's own callable.
    server: Option<Py<PyAny>>,
}

/// The `send` or `receive` of a request.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct Channel {
    /// Where CPython finds what to call.
    call: Callee,
    ends: AttachedCell<Ends>,
}

/// The C function behind a channel.
pub(super) struct Callee(#[expect(dead_code, reason = "CPython reads it")] ffi::vectorcallfunc);

impl Callee {
    /// What is behind an `RvhTraceMiddleware`.
    pub(super) const MIDDLEWARE: Self = Self(vectorcall::middleware);
}

impl Channel {
    fn new(direction: Direction) -> Self {
        Self {
            call: Callee(vectorcall::channel(direction)),
            ends: AttachedCell::new(Ends::default()),
        }
    }

    /// A channel for the messages of `span`.
    pub(super) fn open<'py>(
        direction: Direction,
        span: &Bound<'py, ServerSpan>,
        server: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        static LAST_SEND: LastTwo<Channel> = LastTwo::new();
        static LAST_RECEIVE: LastTwo<Channel> = LastTwo::new();
        let py = span.py();
        let last = match direction {
            Direction::Send => &LAST_SEND,
            Direction::Receive => &LAST_RECEIVE,
        };
        let channel = if let Some(unused) = last.unused(py) {
            unused
        } else {
            let new = Bound::new(py, Self::new(direction))?;
            last.keep(&new);
            new
        };
        let ends = Ends {
            span: Some(span.clone().unbind()),
            server: Some(server.clone().unbind()),
        };
        let old = channel
            .get()
            .ends
            .with(py, |slot| std::mem::replace(slot, ends))
            .unwrap_or_default();
        old.forget(py);
        Ok(channel)
    }

    /// The request is over. What the application may still hold goes on working, without a span.
    pub(super) fn close(channel: &Bound<'_, Self>) {
        let py = channel.py();
        // The pool and the caller: the application has let go.
        #[expect(unsafe_code, reason = "the reference count has no safe binding")]
        // SAFETY: attached; a valid object.
        let unused = unsafe { ffi::Py_REFCNT(channel.as_ptr()) } <= 2;
        let old = channel.get().ends.with(py, |ends| Ends {
            span: ends.span.take(),
            server: if unused { ends.server.take() } else { None },
        });
        old.unwrap_or_default().forget(py);
    }

    /// The span and the server's callable.
    #[inline]
    pub(super) fn ends<'py>(
        &self,
        py: Python<'py>,
    ) -> (Option<Bound<'py, ServerSpan>>, Option<Bound<'py, PyAny>>) {
        self.ends
            .with(py, |ends| {
                (
                    ends.span.as_ref().map(|span| span.bind(py).clone()),
                    ends.server.as_ref().map(|server| server.bind(py).clone()),
                )
            })
            .unwrap_or_default()
    }

    /// Tells CPython where an object of this class keeps what to call. Once, at import.
    pub(super) fn initialise(py: Python<'_>) -> PyResult<()> {
        let probe = Bound::new(py, Self::new(Direction::Send))?;
        let class = py.get_type::<Self>();
        vectorcall::set_offset(&class, &probe, |probe| &probe.call);
        vectorcall::set_call(&class);
        vectorcall::set_flag(&class);
        Ok(())
    }
}

impl Ends {
    /// Lets go of them here and now, also where PyO3 does not know that we are attached.
    fn forget(self, py: Python<'_>) {
        drop((
            self.span.map(|span| span.into_bound(py)),
            self.server.map(|server| server.into_bound(py)),
        ));
    }
}

#[pymethods]
impl Channel {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.ends
            .with_collecting(|ends| {
                visit.call(ends.span.as_ref())?;
                visit.call(ends.server.as_ref())
            })
            .unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        let ends = self.ends.with_collecting(std::mem::take);
        drop(ends);
    }
}
