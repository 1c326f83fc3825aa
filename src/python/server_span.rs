//! `ServerSpan`: the span of a request, from its first message to its last.
//!
//! It ends when the last message is with the server, whatever background tasks do afterwards; spans that they start link it. A
//! 5xx alone is written a moment later, with that end: the exception that made it may still be on its way out. Metrics are
//! recorded with the same end, whether the span is recorded or not.

use std::sync::Arc;

use pyo3::PyTraverseError;
use pyo3::exceptions::PyBaseException;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::asgi::ServerInstrumentation;
use super::cell::AttachedCell;
use super::channel::Direction;
use super::convert::with_text;
use super::creation::LastTwo;
use super::errors::guard;
use super::exchange::{Exchange, Noted};
use super::message::Message;
use super::message_coroutine::MessageCoroutine;
use super::span::{Body, Span};
use super::{current, layers, open_spans, response, response_start, websocket};
use crate::clock::monotonic_ns;
use crate::span::take_buffer;

/// The server span of a request.
#[pyclass(frozen, extends = Span, module = "rvh_trace")]
pub(super) struct ServerSpan {
    pub(super) exchange: AttachedCell<Exchange>,
}

static LAST: LastTwo<ServerSpan> = LastTwo::new();

impl ServerSpan {
    /// An object of an earlier request that nobody holds.
    #[inline]
    pub(super) fn unused(py: Python<'_>) -> Option<Bound<'_, Self>> {
        LAST.unused(py)
    }

    /// The objects of earlier requests that nobody holds.
    pub(super) fn all_unused(py: Python<'_>) -> Vec<Bound<'_, Self>> {
        LAST.all_unused(py)
    }

    /// The buffer of that object, or another one.
    #[inline]
    pub(super) fn take_buffer(py: Python<'_>, unused: Option<&Bound<'_, Self>>) -> Vec<u8> {
        unused.map_or_else(take_buffer, |unused| {
            unused.as_super().get().take_buffer(py)
        })
    }

    /// The object for a request: `unused` if there is one.
    #[inline]
    pub(super) fn make<'py>(
        py: Python<'py>,
        unused: Option<Bound<'py, Self>>,
        body: Body,
    ) -> PyResult<Bound<'py, Self>> {
        if let Some(unused) = unused {
            unused.as_super().get().reuse(py, body);
            return Ok(unused);
        }
        let server = Self {
            exchange: AttachedCell::new(Exchange::default()),
        };
        let initializer = PyClassInitializer::from(Span::new(body)).add_subclass(server);
        let server = Bound::new(py, initializer)?;
        open_spans::list(py, server.as_super().get());
        LAST.keep(&server);
        Ok(server)
    }

    /// Calls `then` with the exchange. `then` must not run Python code.
    #[inline]
    pub(super) fn with<R: Default>(
        slf: &Bound<'_, Self>,
        then: impl FnOnce(&mut Exchange) -> R,
    ) -> R {
        slf.get().exchange.with(slf.py(), then).unwrap_or_default()
    }

    /// The scope of the request, until it is over.
    pub(super) fn scope<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyDict>> {
        let py = slf.py();
        Self::with(slf, |exchange| {
            exchange.scope.as_ref().map(|scope| scope.bind(py).clone())
        })
    }

    /// The middleware that made it, until the request is over.
    #[inline]
    pub(super) fn instrumentation<'py>(
        slf: &Bound<'py, Self>,
    ) -> Option<Bound<'py, ServerInstrumentation>> {
        let py = slf.py();
        Self::with(slf, |exchange| {
            let instrumentation = exchange.instrumentation.as_ref();
            instrumentation.map(|instrumentation| instrumentation.bind(py).clone())
        })
    }

    /// `await send(message)`: notes the message and returns the server's own awaitable.
    #[inline]
    #[expect(unsafe_code, reason = "PyO3 would make a tuple of the argument")]
    pub(super) fn send<'py>(
        slf: &Bound<'py, Self>,
        send: &Bound<'py, PyAny>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let read = guard(py, "reading a response message", || Message::read(message))?;
        let mut times = false;
        let noted = read.map_or_else(Noted::default, |read| {
            Self::with(slf, |exchange| {
                times = exchange.times_send;
                exchange.note_sent(read, message)
            })
        });
        let decorated = if noted.decorates {
            guard(py, "reading the start of a response", || {
                response_start::decorate(slf, message)
            })?
            .flatten()
        } else {
            None
        };
        let outgoing = decorated.as_ref().unwrap_or(message);
        // SAFETY: attached; both are valid objects; a new reference or null with an error set.
        let awaitable = unsafe {
            Bound::from_owned_ptr_or_err(
                py,
                ffi::PyObject_CallOneArg(send.as_ptr(), outgoing.as_ptr()),
            )?
        };
        if noted.accepts {
            let span = slf.as_super().get();
            span.with_recording(py, |span| websocket::record_handshake(span));
            layers::deliver(py);
        }
        if times {
            // The request is over when the server has taken the last message.
            return MessageCoroutine::watch(Direction::Send, slf, awaitable, Some(message));
        }
        if noted.is_last {
            guard(py, "ending a server span", || response::end(slf))?;
            layers::deliver(py);
        }
        Ok(awaitable)
    }

    /// The server has taken a message: only for those that time it.
    pub(super) fn sent(
        slf: &Bound<'_, Self>,
        message: &Bound<'_, PyAny>,
        began_ns: u64,
    ) -> PyResult<()> {
        let read = Message::read(message)?;
        let waited_ns = monotonic_ns().saturating_sub(began_ns);
        let is_last = Self::with(slf, |exchange| {
            if let Some(traffic) = &mut exchange.traffic {
                traffic.count_send_wait(waited_ns);
            }
            exchange.is_last(read)
        });
        Self::record_message(slf, Direction::Send, read, message, waited_ns);
        let ended = if is_last { response::end(slf) } else { Ok(()) };
        layers::deliver(slf.py());
        ended
    }

    /// The application has received a message.
    pub(super) fn received(
        slf: &Bound<'_, Self>,
        message: &Bound<'_, PyAny>,
        began_ns: u64,
    ) -> PyResult<()> {
        let read = Message::read(message)?;
        let waited_ns = monotonic_ns().saturating_sub(began_ns);
        let noted = Self::with(slf, |exchange| {
            exchange.note_received(read, message, waited_ns)
        });
        Self::record_message(slf, Direction::Receive, read, message, waited_ns);
        let ended = if noted.is_last {
            response::end(slf)
        } else {
            Ok(())
        };
        layers::deliver(slf.py());
        ended
    }

    /// A span for a message of a websocket, for those who want one each.
    fn record_message(
        slf: &Bound<'_, Self>,
        direction: Direction,
        read: Message,
        message: &Bound<'_, PyAny>,
        waited_ns: u64,
    ) {
        let wanted = read == Message::Data
            && Self::instrumentation(slf)
                .is_some_and(|middleware| middleware.get().settings().websocket_messages);
        if wanted && let Ok(message) = message.cast::<PyDict>() {
            slf.as_super().get().with_recording(slf.py(), |span| {
                websocket::record_message(span, direction, message, waited_ns);
            });
        }
    }

    /// The application has returned, or raised `error`: ends what is still open and restores the context.
    #[inline]
    pub(super) fn finish(
        slf: &Bound<'_, Self>,
        error: Option<&Bound<'_, PyBaseException>>,
    ) -> PyResult<()> {
        let py = slf.py();
        guard(py, "ending a server span", || {
            let written = response::finish(slf, error);
            Span::leave(slf.as_super())?;
            // The request is over: what it held must not be kept by whoever keeps the span.
            let held = Self::with(slf, Exchange::empty);
            let baggage = held.forget(py);
            if let Some((context, previous)) = baggage {
                let (context, previous) = (
                    context.into_bound(py),
                    previous.map(|previous| previous.into_bound(py)),
                );
                current::leave_baggage(&context, previous.as_ref())?;
            }
            layers::deliver(py);
            written
        })
        .map(drop)
    }
}

// `finish` is in `super::vectorcall`.
#[pymethods]
impl ServerSpan {
    /// Tells the route that the request was dispatched to, for frameworks whose scope does not.
    #[pyo3(signature = (route, /))]
    fn set_route(slf: &Bound<'_, Self>, route: &Bound<'_, PyAny>) -> PyResult<()> {
        guard(slf.py(), "setting the route of a server span", || {
            let route = with_text(route.cast::<PyString>()?, |route| Arc::from(route));
            Self::with(slf, |exchange| {
                // Not for the next request, if this one is over.
                if exchange.scope.is_some() {
                    exchange.route = Some(route);
                }
            });
            Ok(())
        })
        .map(drop)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.exchange
            .with_collecting(|exchange| exchange.traverse(&visit))
            .unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        let held = self.exchange.with_collecting(std::mem::take);
        drop(held);
    }
}
