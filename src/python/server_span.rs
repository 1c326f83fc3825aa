//! `ServerSpan`: the span of a request from its first message to its last, and the `send` that the application gets.
//!
//! It ends when the last message is with the server, whatever background tasks do afterwards. A 5xx alone is written a
//! moment later, with that end: the exception that made it may still be on its way out.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyBaseException;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::cell::AttachedCell;
use super::channel::Channel;
use super::creation::LastTwo;
use super::errors::guard;
use super::exception::Ending;
use super::message::Message;
use super::request::Method;
use super::span::{Body, Span};
use super::{current, imports};
use crate::attribute::Value;
use crate::span::{Status, take_buffer};
use crate::wire::attribute::key;

/// A request and what is known of its response so far; emptied when it is over.
#[derive(Default)]
pub(super) struct Exchange {
    pub(super) scope: Option<Py<PyDict>>,
    pub(super) method: Method,
    /// What the application sends with, if it is watched.
    pub(super) send: Option<Py<Channel>>,
    /// How many attributes the request made.
    pub(super) request_attributes: u32,
    status: Option<i64>,
    trailers: bool,
    /// When the last message was handed to the server, while the application may still raise what made it a 5xx.
    ended_unix_ns: Option<u64>,
    pub(super) baggage: Option<(Py<PyAny>, Option<Py<PyAny>>)>,
}

/// The server span of a request.
#[pyclass(frozen, extends = Span, module = "rvh_trace")]
pub(super) struct ServerSpan {
    exchange: AttachedCell<Exchange>,
}

static LAST: LastTwo<ServerSpan> = LastTwo::new();

impl ServerSpan {
    /// An object of an earlier request that nobody holds.
    #[inline]
    pub(super) fn unused(py: Python<'_>) -> Option<Bound<'_, Self>> {
        LAST.unused(py)
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
        LAST.keep(&server);
        Ok(server)
    }

    /// Hands it what it has to remember.
    #[inline]
    pub(super) fn begin_exchange(slf: &Bound<'_, Self>, exchange: Exchange) {
        let old = slf
            .get()
            .exchange
            .with(slf.py(), |slot| std::mem::replace(slot, exchange));
        drop(old);
    }

    /// The scope of the request, until it is over.
    pub(super) fn scope<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyDict>> {
        let py = slf.py();
        slf.get()
            .exchange
            .with(py, |exchange| {
                exchange.scope.as_ref().map(|scope| scope.bind(py).clone())
            })
            .flatten()
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
        let last = slf.as_super().get().is_live()
            && guard(py, "reading a response message", || {
                Message::read(message).map(|message| slf.get().note(py, &message))
            })? == Some(true);
        // SAFETY: attached; both are valid objects; a new reference or null with an error set.
        let awaitable = unsafe {
            Bound::from_owned_ptr_or_err(
                py,
                ffi::PyObject_CallOneArg(send.as_ptr(), message.as_ptr()),
            )?
        };
        if last {
            guard(py, "ending a server span", || Self::end_response(slf))?;
        }
        Ok(awaitable)
    }

    /// Reads a message on its way out; whether it is the last of the response.
    #[inline]
    fn note(&self, py: Python<'_>, message: &Message) -> bool {
        let last = self.exchange.with(py, |exchange| match *message {
            Message::Start { status, trailers } => {
                exchange.status = status;
                exchange.trailers = trailers;
                false
            }
            Message::Body { more } => !more && !exchange.trailers,
            Message::Trailers { more } => !more,
            Message::Other => false,
        });
        last.unwrap_or_default()
    }

    /// The last message is with the server: the request is over. A 5xx waits for the exception that may have made it.
    fn end_response(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let span = slf.as_super().get();
        let ended_before = slf
            .get()
            .exchange
            .with(py, |exchange| exchange.ended_unix_ns.is_some());
        if !span.is_live() || ended_before.unwrap_or_default() {
            return Ok(());
        }
        let ended_unix_ns = span.with_recording(py, |span| span.start_time().later_unix_ns());
        let written = Self::write_response(slf);
        let waits = slf.get().exchange.with(py, |exchange| {
            let waits = exchange.status.is_some_and(|status| status >= 500);
            if waits {
                exchange.ended_unix_ns = ended_unix_ns;
            }
            waits
        });
        if !waits.unwrap_or_default() {
            span.with_recording(py, |span| span.end_at(ended_unix_ns.unwrap_or_default()));
            span.end_now(py);
        }
        written
    }

    /// Status, route and name, as they are when the response is over.
    fn write_response(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let route = Self::route(slf);
        slf.get().exchange.with(py, |exchange| {
            slf.as_super().get().with_recording(py, |span| {
                if let Some(status) = exchange.status {
                    let key = "http.response.status_code";
                    // Nobody has added an attribute meanwhile, so nobody can have set this one: no search for it.
                    if span.attribute_count() == exchange.request_attributes {
                        span.push_known_int(&key!("http.response.status_code"), status);
                    } else {
                        span.set_attribute(key, &Value::Int(status));
                    }
                    if status >= 500 {
                        span.set_attribute("error.type", &Value::Str(&status.to_string()));
                        span.set_status(Status::Error, "");
                    }
                }
                if let Ok(Some(route)) = &route {
                    span.set_attribute("http.route", &Value::Str(route));
                    exchange
                        .method
                        .with_name(py, |method| span.update_name(&format!("{method} {route}")));
                }
            })
        });
        route.map(drop)
    }

    /// The template of the route that was dispatched to, from what the framework left in the scope.
    fn route(slf: &Bound<'_, Self>) -> PyResult<Option<String>> {
        let py = slf.py();
        let Some(scope) = Self::scope(slf) else {
            return Ok(None);
        };
        // Starlette and FastAPI leave what they dispatched to.
        if !scope.contains(pyo3::intern!(py, "endpoint"))? {
            return Ok(None);
        }
        imports::route_template(py)?.call1((scope,))?.extract()
    }

    fn finish_span(
        slf: &Bound<'_, Self>,
        error: Option<&Bound<'_, PyBaseException>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let span = slf.as_super().get();
        if !span.is_live() {
            return Ok(());
        }
        let ending = Ending::of(error);
        let ended_unix_ns = slf
            .get()
            .exchange
            .with(py, |exchange| exchange.ended_unix_ns)
            .flatten();
        let written = if ended_unix_ns.is_none() {
            Self::write_response(slf)
        } else {
            Ok(())
        };
        let status = slf
            .get()
            .exchange
            .with(py, |exchange| exchange.status)
            .flatten();
        span.with_recording(py, |span| {
            if let Ok(ending) = &ending {
                ending.write(span);
            }
            // Once a 5xx was sent, that is the error; the exception is how it came about (semantic conventions, `error.type`).
            if let Some(status) = status.filter(|status| *status >= 500) {
                span.set_attribute("error.type", &Value::Str(&status.to_string()));
            }
            match ended_unix_ns {
                Some(ended_unix_ns) => span.end_at(ended_unix_ns),
                None => span.end(),
            }
        });
        span.end_now(py);
        written.and(ending.map(drop))
    }
}

impl ServerSpan {
    /// The application has returned, or raised `error`: ends what is still open and restores the context.
    #[inline]
    pub(super) fn finish(
        slf: &Bound<'_, Self>,
        error: Option<&Bound<'_, PyBaseException>>,
    ) -> PyResult<()> {
        let py = slf.py();
        guard(py, "ending a server span", || {
            let written = Self::finish_span(slf, error);
            Span::leave(slf.as_super())?;
            // The request is over: what it held must not be kept by whoever keeps the span.
            let held = slf
                .get()
                .exchange
                .with(py, std::mem::take)
                .unwrap_or_default();
            if let Some(send) = held.send {
                Channel::close(&send.into_bound(py));
            }
            drop(held.scope.map(|scope| scope.into_bound(py)));
            held.method.forget(py);
            if let Some((context, previous)) = held.baggage {
                let (context, previous) = (
                    context.into_bound(py),
                    previous.map(|previous| previous.into_bound(py)),
                );
                current::leave_baggage(&context, previous.as_ref())?;
            }
            written
        })
        .map(drop)
    }
}

// `finish` is in `super::vectorcall`.
#[pymethods]
impl ServerSpan {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let visited = self.exchange.with_collecting(|exchange| {
            visit.call(exchange.send.as_ref())?;
            visit.call(exchange.scope.as_ref())?;
            match &exchange.baggage {
                Some((context, previous)) => visit
                    .call(context)
                    .and_then(|()| visit.call(previous.as_ref())),
                None => Ok(()),
            }
        });
        visited.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        let held = self.exchange.with_collecting(std::mem::take);
        drop(held);
    }
}
