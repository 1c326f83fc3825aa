//! `Exchange`: one request and what is known of its response so far, from the messages that pass.

use std::sync::Arc;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::asgi::ServerInstrumentation;
use super::channel::{Channel, Direction};
use super::message::Message;
use super::method::Method;
use super::request::RequestUrl;
use super::traffic::Traffic;
use super::websocket::{self, Websocket};
use crate::clock::Start;
use crate::metrics::HttpServerMetrics;

/// A request and its response; emptied when it is over.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the messages"
)]
pub(super) struct Exchange {
    /// Whose settings hold.
    pub(super) instrumentation: Option<Py<ServerInstrumentation>>,
    pub(super) scope: Option<Py<PyDict>>,
    pub(super) method: Method,
    /// What a trusted proxy said of the URL.
    pub(super) url: Option<Box<RequestUrl>>,
    /// What the application sends with and receives with, if it is watched.
    pub(super) send: Option<Py<Channel>>,
    pub(super) receive: Option<Py<Channel>>,
    pub(super) baggage: Option<(Py<PyAny>, Option<Py<PyAny>>)>,
    pub(super) start: Start,
    pub(super) metrics: Option<&'static HttpServerMetrics>,
    /// How many attributes the request made.
    pub(super) request_attributes: u32,
    /// Whether the start of the response is for more than its status: hooks, captured headers, headers to add.
    pub(super) decorates: bool,
    /// Whether the awaiting of `send` is watched.
    pub(super) times_send: bool,
    /// Counted if somebody asked for it.
    pub(super) traffic: Option<Box<Traffic>>,
    pub(super) websocket: Option<Box<Websocket>>,
    /// How many entries the scope had at first.
    pub(super) scope_len: usize,
    /// The route, if the framework's integration has told.
    pub(super) route: Option<Arc<str>>,
    pub(super) status: Option<i64>,
    pub(super) trailers: bool,
    /// The client went away before the last message.
    pub(super) is_disconnected: bool,
    /// The client was gone already when the response started.
    pub(super) is_unheard: bool,
    /// When the last message was handed to the server.
    pub(super) ended_unix_ns: Option<u64>,
    /// Status, name and metrics have been written.
    pub(super) is_written: bool,
}

/// What an exchange held of Python.
#[derive(Default)]
pub(super) struct Held {
    instrumentation: Option<Py<ServerInstrumentation>>,
    scope: Option<Py<PyDict>>,
    method: Method,
    send: Option<Py<Channel>>,
    receive: Option<Py<Channel>>,
    baggage: Option<(Py<PyAny>, Option<Py<PyAny>>)>,
}

impl Held {
    /// Lets go of the objects here and now, also where PyO3 does not know that we are attached; gives the baggage that is to be
    /// left.
    #[inline]
    pub(super) fn forget(self, py: Python<'_>) -> Option<(Py<PyAny>, Option<Py<PyAny>>)> {
        for channel in [self.send, self.receive].into_iter().flatten() {
            Channel::close(&channel.into_bound(py));
        }
        drop(self.scope.map(|scope| scope.into_bound(py)));
        drop(
            self.instrumentation
                .map(|instrumentation| instrumentation.into_bound(py)),
        );
        self.method.forget(py);
        self.baggage
    }
}

/// What a message means for the rest of the request.
#[derive(Clone, Copy, Default)]
pub(super) struct Noted {
    /// It is the last.
    pub(super) is_last: bool,
    /// It starts the response, and there is something to do about that.
    pub(super) decorates: bool,
    /// It has completed the handshake of a websocket.
    pub(super) accepts: bool,
}

impl Exchange {
    /// A message on its way to the server.
    #[inline]
    pub(super) fn note_sent(&mut self, read: Message, message: &Bound<'_, PyAny>) -> Noted {
        let mut noted = Noted::default();
        match read {
            Message::Start { status, trailers } => {
                self.status = status;
                self.trailers = trailers;
                self.is_unheard = self.is_disconnected;
                noted.decorates = self.decorates;
            }
            Message::Body { .. } => {
                noted.is_last = self.is_last(read);
                if self.traffic.is_some() {
                    self.count_sent(message);
                }
            }
            Message::Trailers { .. } => noted.is_last = self.is_last(read),
            Message::Accept | Message::Data | Message::Close { .. } => {
                self.note_websocket(Direction::Send, read, message, &mut noted);
            }
            Message::Request | Message::Disconnect | Message::Other => {}
        }
        noted
    }

    /// Whether a message that was noted is the last.
    pub(super) fn is_last(&self, read: Message) -> bool {
        match read {
            Message::Body { more } => !more && !self.trailers,
            Message::Trailers { more } => !more,
            Message::Close { .. } => self.websocket.is_some(),
            _ => false,
        }
    }

    /// A message that the application has received.
    pub(super) fn note_received(
        &mut self,
        read: Message,
        message: &Bound<'_, PyAny>,
        waited_ns: u64,
    ) -> Noted {
        let mut noted = Noted::default();
        match read {
            Message::Disconnect => self.is_disconnected |= self.ended_unix_ns.is_none(),
            Message::Request => {
                if let (Some(traffic), Ok(message)) = (&mut self.traffic, message.cast::<PyDict>())
                {
                    traffic.count_request(message, waited_ns);
                }
            }
            Message::Data | Message::Close { .. } => {
                self.note_websocket(Direction::Receive, read, message, &mut noted);
            }
            _ => {}
        }
        noted
    }

    #[cold]
    fn count_sent(&mut self, message: &Bound<'_, PyAny>) {
        let now = self.start.later_unix_ns();
        // What servers keep back (RFC 9110, section 6.4.1).
        let is_kept_back =
            matches!(self.status, Some(204 | 304)) || self.method.is_head(message.py());
        if let (Some(traffic), Ok(message)) = (&mut self.traffic, message.cast::<PyDict>()) {
            traffic.count_response(message, is_kept_back, now);
        }
    }

    fn note_websocket(
        &mut self,
        direction: Direction,
        read: Message,
        message: &Bound<'_, PyAny>,
        noted: &mut Noted,
    ) {
        let (Some(socket), Ok(message)) = (&mut self.websocket, message.cast::<PyDict>()) else {
            return;
        };
        match read {
            Message::Accept if !socket.is_accepted => {
                socket.is_accepted = true;
                self.status = Some(websocket::SWITCHING_PROTOCOLS);
                noted.accepts = true;
                noted.decorates = self.decorates;
            }
            Message::Data => socket.count(direction, message),
            Message::Close { code } => {
                if socket.is_accepted {
                    socket.close(code, message);
                } else if direction == Direction::Send {
                    self.status.get_or_insert(websocket::FORBIDDEN);
                } else {
                    self.is_disconnected = true;
                }
                noted.is_last = true;
            }
            _ => {}
        }
    }

    /// Makes it ready for another request; what it held of Python, to be let go of outside of the cell.
    ///
    /// Field by field, and every one by name: nothing of a request may be left for the next, and copying the whole costs more.
    #[inline]
    pub(super) fn empty(&mut self) -> Held {
        let Self {
            instrumentation,
            scope,
            method,
            url,
            send,
            receive,
            baggage,
            start: _,
            metrics,
            request_attributes,
            decorates,
            times_send,
            traffic,
            websocket,
            scope_len: _,
            route,
            status,
            trailers,
            is_disconnected,
            is_unheard,
            ended_unix_ns,
            is_written,
        } = self;
        (*url, *traffic, *websocket, *route) = (None, None, None, None);
        (*metrics, *status, *ended_unix_ns) = (None, None, None);
        (*decorates, *times_send, *trailers) = (false, false, false);
        (*is_disconnected, *is_unheard, *is_written) = (false, false, false);
        *request_attributes = 0;
        Held {
            instrumentation: instrumentation.take(),
            scope: scope.take(),
            method: std::mem::take(method),
            send: send.take(),
            receive: receive.take(),
            baggage: baggage.take(),
        }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.instrumentation.as_ref())?;
        visit.call(self.scope.as_ref())?;
        visit.call(self.send.as_ref())?;
        visit.call(self.receive.as_ref())?;
        match &self.baggage {
            Some((context, previous)) => visit
                .call(context)
                .and_then(|()| visit.call(previous.as_ref())),
            None => Ok(()),
        }
    }
}
