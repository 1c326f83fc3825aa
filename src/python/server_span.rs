//! `ServerSpan`: the span of a request from its first message to its last, and the `send` that the application gets.
//!
//! It ends when the last message is with the server, whatever background tasks do afterwards. A 5xx alone is written a
//! moment later, with that end: the exception that made it may still be on its way out.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyBaseException;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::cell::AttachedCell;
use super::convert::with_text;
use super::coroutine::Ready;
use super::errors::guard;
use super::exception::Ending;
use super::request::Method;
use super::span::Span;
use super::{current, imports, vectorcall};
use crate::attribute::Value;
use crate::span::Status;

/// What is known of the response so far, and what is held until it is over.
#[derive(Default)]
pub(super) struct Response {
    pub(super) send: Option<Py<PyAny>>,
    pub(super) scope: Option<Py<PyDict>>,
    pub(super) method: Method,
    /// How many attributes the request made.
    pub(super) request_attributes: u32,
    /// What the framework's integration said it dispatched to; nothing is looked up in the scope then.
    route: Option<String>,
    status: Option<i64>,
    trailers: bool,
    /// When the last message was handed to the server, while the application may still raise what made it a 5xx.
    ended_unix_ns: Option<u64>,
    pub(super) baggage: Option<(Py<PyAny>, Option<Py<PyAny>>)>,
}

/// The server span of a request.
#[pyclass(frozen, extends = Span, module = "rvh_trace")]
pub(super) struct ServerSpan {
    pub(super) response: AttachedCell<Response>,
}

/// What a message to the server means for the span.
#[derive(PartialEq)]
enum Noted {
    Nothing,
    /// The last of the response.
    Last,
}

impl ServerSpan {
    /// Reads one message on its way out.
    #[inline]
    fn note(&self, message: &Bound<'_, PyAny>) -> PyResult<Noted> {
        let py = message.py();
        let Ok(message) = message.cast::<PyDict>() else {
            return Ok(Noted::Nothing);
        };
        let flag = |key: &Bound<'_, PyString>| -> PyResult<bool> {
            message
                .get_item(key)?
                .map_or(Ok(false), |value| value.is_truthy())
        };
        let trailers = || {
            self.response
                .with(py, |response| response.trailers)
                .unwrap_or_default()
        };
        let kind = message.get_item(pyo3::intern!(py, "type"))?;
        let Some(kind) = kind.as_ref().and_then(|kind| kind.cast::<PyString>().ok()) else {
            return Ok(Noted::Nothing);
        };
        let last = match kind.to_str().unwrap_or_default() {
            "http.response.start" => {
                let status = message
                    .get_item(pyo3::intern!(py, "status"))?
                    .and_then(|status| status.extract().ok());
                let trailers = flag(pyo3::intern!(py, "trailers"))?;
                self.response.with(py, |response| {
                    response.status = status;
                    response.trailers = trailers;
                });
                false
            }
            "http.response.body" | "http.response.zerocopysend" => {
                !flag(pyo3::intern!(py, "more_body"))? && !trailers()
            }
            "http.response.pathsend" => !trailers(),
            "http.response.trailers" => !flag(pyo3::intern!(py, "more_trailers"))?,
            _ => false,
        };
        Ok(if last { Noted::Last } else { Noted::Nothing })
    }

    /// `await send(message)`: notes the message and returns the inner awaitable itself.
    #[inline]
    pub(super) fn send<'py>(
        slf: &Bound<'py, Self>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let send = this.response.with(py, |response| {
            response.send.as_ref().map(|send| send.bind(py).clone())
        });
        // After the request a late `send` goes nowhere, as servers treat it.
        let Some(send) = send.flatten() else {
            return Ok(Bound::new(py, Ready::new(py.None()))?.into_any());
        };
        let noted = if slf.as_super().get().is_live() {
            guard(py, "reading a response message", || this.note(message))?
                .unwrap_or(Noted::Nothing)
        } else {
            Noted::Nothing
        };
        let awaitable = send.call1((message,))?;
        if noted == Noted::Last {
            guard(py, "ending a server span", || Self::end_response(slf))?;
        }
        Ok(awaitable)
    }

    /// The last message is with the server: the request is over. A 5xx waits for the exception that may have made it.
    fn end_response(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let span = slf.as_super().get();
        let ended_before = slf
            .get()
            .response
            .with(py, |response| response.ended_unix_ns.is_some());
        if !span.is_live() || ended_before.unwrap_or_default() {
            return Ok(());
        }
        let ended_unix_ns = span.with_recording(py, |span| span.start_time().later_unix_ns());
        let written = Self::write_response(slf);
        let waits = slf.get().response.with(py, |response| {
            let waits = response.status.is_some_and(|status| status >= 500);
            if waits {
                response.ended_unix_ns = ended_unix_ns;
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
        slf.get().response.with(py, |response| {
            slf.as_super().get().with_recording(py, |span| {
                if let Some(status) = response.status {
                    let key = "http.response.status_code";
                    // Nobody has added an attribute meanwhile, so nobody can have set this one: no search for it.
                    if span.attribute_count() == response.request_attributes {
                        span.push_attribute(key, &Value::Int(status));
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
                    response
                        .method
                        .with_name(py, |method| span.update_name(&format!("{method} {route}")));
                }
            })
        });
        route.map(drop)
    }

    /// The template of the route that was dispatched to: given with [`Self::set_route`], or from what the framework left in
    /// the scope.
    fn route(slf: &Bound<'_, Self>) -> PyResult<Option<String>> {
        let py = slf.py();
        let given = slf
            .get()
            .response
            .with(py, |response| response.route.take());
        if let Some(route) = given.flatten() {
            return Ok(Some(route));
        }
        let scope = slf.get().response.with(py, |response| {
            response.scope.as_ref().map(|scope| scope.bind(py).clone())
        });
        let Some(scope) = scope.flatten() else {
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
            .response
            .with(py, |response| response.ended_unix_ns)
            .flatten();
        let written = if ended_unix_ns.is_none() {
            Self::write_response(slf)
        } else {
            Ok(())
        };
        let status = slf
            .get()
            .response
            .with(py, |response| response.status)
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

#[pymethods]
impl ServerSpan {
    /// What the application gets to send with: the server's own `send` when nothing is recorded.
    #[getter(send)]
    fn get_send<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if slf.as_super().get().is_live() {
            return vectorcall::bound_send(slf);
        }
        let send = slf.get().response.with(py, |response| {
            response.send.as_ref().map(|send| send.bind(py).clone())
        });
        Ok(send.flatten().unwrap_or_else(|| py.None().into_bound(py)))
    }

    /// The template that the request was dispatched to, prefixes included, for frameworks that leave nothing in the scope.
    /// It counts until the response is over.
    #[pyo3(signature = (route, /))]
    fn set_route(slf: &Bound<'_, Self>, route: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        guard(py, "setting the route of a server span", || {
            let route = with_text(route.cast()?, ToOwned::to_owned);
            slf.get()
                .response
                .with(py, |response| response.route = Some(route));
            Ok(())
        })
        .map(drop)
    }

    /// The application has returned, or raised `error`: ends what is still open and restores the context.
    #[pyo3(signature = (error=None, /))]
    fn finish(slf: &Bound<'_, Self>, error: Option<&Bound<'_, PyBaseException>>) -> PyResult<()> {
        let py = slf.py();
        guard(py, "ending a server span", || {
            let written = Self::finish_span(slf, error);
            Span::leave(slf.as_super())?;
            // The request is over: what it held must not be kept by whoever keeps the span.
            let held = slf
                .get()
                .response
                .with(py, std::mem::take)
                .unwrap_or_default();
            if let Some((context, previous)) = &held.baggage {
                current::leave_baggage(
                    context.bind(py),
                    previous.as_ref().map(|previous| previous.bind(py)),
                )?;
            }
            drop(held);
            written
        })
        .map(drop)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let visited = self.response.with_collecting(|response| {
            visit.call(response.send.as_ref())?;
            visit.call(response.scope.as_ref())?;
            match &response.baggage {
                Some((context, previous)) => visit
                    .call(context)
                    .and_then(|()| visit.call(previous.as_ref())),
                None => Ok(()),
            }
        });
        visited.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        let held = self.response.with_collecting(std::mem::take);
        drop(held);
    }
}
