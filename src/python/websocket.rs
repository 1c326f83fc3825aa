//! What a websocket span counts, and the spans that show a long connection before it ends.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::borrowed::item;
use super::channel::Direction;
use super::convert::with_text;
use super::traffic::len;
use crate::clock::Start;
use crate::span::{Span as Recording, SpanKind};
use crate::tracer::Started;

/// Status of the handshake once the application has accepted (RFC 6455, section 4.2.2).
pub(super) const SWITCHING_PROTOCOLS: i64 = 101;
/// What servers answer when the application closes before it accepts (ASGI specification, "Close - `send` event").
pub(super) const FORBIDDEN: i64 = 403;

/// A websocket connection.
#[derive(Default)]
pub(super) struct Websocket {
    pub(super) is_accepted: bool,
    sent: Count,
    received: Count,
    close: Option<(i64, String)>,
}

#[derive(Default)]
struct Count {
    messages: u64,
    bytes: u64,
}

impl Websocket {
    /// A message with data has passed.
    pub(super) fn count(&mut self, direction: Direction, message: &Bound<'_, PyDict>) {
        let count = match direction {
            Direction::Send => &mut self.sent,
            Direction::Receive => &mut self.received,
        };
        count.messages += 1;
        count.bytes += data(message).map_or(0, |(_, bytes)| bytes);
    }

    /// Either side has closed; the first one counts.
    pub(super) fn close(&mut self, code: i64, message: &Bound<'_, PyDict>) {
        let reason = item(message, pyo3::intern!(message.py(), "reason"))
            .and_then(|reason| reason.to_owned().cast_into::<PyString>().ok())
            .map(|reason| with_text(&reason, str::to_owned));
        self.close
            .get_or_insert_with(|| (code, reason.unwrap_or_default()));
    }

    /// Writes what was counted; nothing for a handshake that was refused.
    pub(super) fn write(&self, span: &mut Recording) {
        if !self.is_accepted {
            return;
        }
        for (key, count) in [
            ("rvh_trace.websocket.messages.sent", self.sent.messages),
            (
                "rvh_trace.websocket.messages.received",
                self.received.messages,
            ),
            ("rvh_trace.websocket.bytes.sent", self.sent.bytes),
            ("rvh_trace.websocket.bytes.received", self.received.bytes),
        ] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            span.set_attribute(key, &count.into());
        }
        if let Some((code, reason)) = &self.close {
            span.set_attribute("rvh_trace.websocket.close_code", &(*code).into());
            if !reason.is_empty() {
                span.set_attribute("rvh_trace.websocket.close_reason", &reason.into());
            }
        }
    }
}

/// The payload of a data message: whether it is text, and its length in bytes.
fn data(message: &Bound<'_, PyDict>) -> Option<(bool, u64)> {
    let py = message.py();
    let bytes = item(message, pyo3::intern!(py, "bytes"));
    let text = item(message, pyo3::intern!(py, "text"));
    bytes
        .filter(|bytes| bytes.is_instance_of::<PyBytes>())
        .map(|bytes| (false, len(&bytes)))
        .or_else(|| text.map(|text| (true, len(&text))))
}

/// The span of the handshake, exported at once: a connection that lasts for a day is seen from its first second on
/// (open-telemetry/opentelemetry-python-contrib#505).
pub(super) fn record_handshake(connection: &Recording) {
    let started = connection.tracer().create(
        Some(connection.context()),
        SpanKind::Internal,
        "websocket.handshake",
    );
    if let Started::Recording(mut span) = started {
        span.begin(connection.start_time());
        span.push_attribute("http.response.status_code", &SWITCHING_PROTOCOLS.into());
        span.end();
    }
}

/// The span of one message, from when it was waited for until it had passed.
pub(super) fn record_message(
    connection: &Recording,
    direction: Direction,
    message: &Bound<'_, PyDict>,
    waited_ns: u64,
) {
    let name = match direction {
        Direction::Send => "websocket.send",
        Direction::Receive => "websocket.receive",
    };
    let started = connection
        .tracer()
        .create(Some(connection.context()), SpanKind::Internal, name);
    if let Started::Recording(mut span) = started {
        let now = connection.start_time().later_unix_ns();
        span.begin(Start::at(now.saturating_sub(waited_ns)));
        if let Some((is_text, bytes)) = data(message) {
            let kind = if is_text { "text" } else { "binary" };
            span.push_attribute("rvh_trace.websocket.message.type", &kind.into());
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            span.push_attribute("rvh_trace.websocket.message.size", &bytes.into());
        }
        span.end_at(now);
    }
}
