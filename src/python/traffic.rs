//! What passed between application and server: bytes, chunks, and the time spent waiting for the other side.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::borrowed::{int, item};
use super::convert::ascii;
use crate::http_server::{HttpServerSettings, OptIn};
use crate::span::Span as Recording;

/// Counted only if somebody asked for it.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) request_bytes: u64,
    response_bytes: u64,
    /// A part of the response whose size only the server knows has passed.
    is_unmeasured: bool,
    request_chunks: u32,
    response_chunks: u32,
    send_ns: u64,
    receive_ns: u64,
    first_byte_unix_ns: Option<u64>,
}

impl Traffic {
    /// Nothing was counted.
    pub(super) const NONE: Self = Self {
        request_bytes: 0,
        response_bytes: 0,
        is_unmeasured: false,
        request_chunks: 0,
        response_chunks: 0,
        send_ns: 0,
        receive_ns: 0,
        first_byte_unix_ns: None,
    };

    /// Whether any of it is wanted.
    pub(super) fn is_wanted(settings: &HttpServerSettings) -> bool {
        let sizes = [
            OptIn::REQUEST_BODY_SIZE,
            OptIn::RESPONSE_BODY_SIZE,
            OptIn::REQUEST_BODY_SIZE_METRIC,
            OptIn::RESPONSE_BODY_SIZE_METRIC,
        ];
        settings.phases || sizes.into_iter().any(|size| settings.opt_in.has(size))
    }

    /// A part of the request body arrived after `waited_ns`.
    pub(super) fn count_request(&mut self, message: &Bound<'_, PyDict>, waited_ns: u64) {
        self.request_bytes += body_len(message);
        self.request_chunks += 1;
        self.receive_ns += waited_ns;
    }

    /// A part of the response body is on its way; `is_kept_back`: the server does not send it on.
    pub(super) fn count_response(
        &mut self,
        message: &Bound<'_, PyDict>,
        is_kept_back: bool,
        now_unix_ns: u64,
    ) {
        if !is_kept_back {
            match part_len(message) {
                Some(len) => self.response_bytes += len,
                None => self.is_unmeasured = true,
            }
        }
        self.response_chunks += 1;
        self.first_byte_unix_ns.get_or_insert(now_unix_ns);
    }

    /// The size of the response body, if it is known.
    pub(super) fn response_bytes(&self) -> Option<u64> {
        (!self.is_unmeasured).then_some(self.response_bytes)
    }

    /// `await send(...)` took this long.
    pub(super) fn count_send_wait(&mut self, waited_ns: u64) {
        self.send_ns += waited_ns;
    }

    /// Writes what is wanted on the span.
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds, exact to the nanosecond for 104 days"
    )]
    pub(super) fn write(
        &self,
        span: &mut Recording,
        settings: &HttpServerSettings,
        start_unix_ns: u64,
    ) {
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        if settings.opt_in.has(OptIn::REQUEST_BODY_SIZE) {
            span.set_attribute("http.request.body.size", &size(self.request_bytes).into());
        }
        if settings.opt_in.has(OptIn::RESPONSE_BODY_SIZE)
            && let Some(bytes) = self.response_bytes()
        {
            span.set_attribute("http.response.body.size", &size(bytes).into());
        }
        if !settings.phases {
            return;
        }
        let seconds = |ns: u64| ns as f64 / 1e9;
        if let Some(first_byte) = self.first_byte_unix_ns {
            span.set_attribute(
                "rvh_trace.http.time_to_first_byte",
                &seconds(first_byte.saturating_sub(start_unix_ns)).into(),
            );
        }
        for (key, ns) in [
            ("rvh_trace.http.send_time", self.send_ns),
            ("rvh_trace.http.receive_time", self.receive_ns),
        ] {
            span.set_attribute(key, &seconds(ns).into());
        }
        for (key, chunks) in [
            ("rvh_trace.http.request.chunks", self.request_chunks),
            ("rvh_trace.http.response.chunks", self.response_chunks),
        ] {
            span.set_attribute(key, &chunks.into());
        }
    }
}

/// The length of a part of a response; `None` for a file that the server reads.
fn part_len(message: &Bound<'_, PyDict>) -> Option<u64> {
    let py = message.py();
    let kind = item(message, pyo3::intern!(py, "type"));
    match kind.as_deref().and_then(ascii) {
        Some("http.response.pathsend") => None,
        Some("http.response.zerocopysend") => {
            let count = item(message, pyo3::intern!(py, "count"));
            count.and_then(|count| int(&count)?.try_into().ok())
        }
        _ => Some(body_len(message)),
    }
}

/// The length of a message's body, of whatever type servers take.
fn body_len(message: &Bound<'_, PyDict>) -> u64 {
    item(message, pyo3::intern!(message.py(), "body")).map_or(0, |body| len(&body))
}

/// The length of a `bytes`, `bytearray`, `memoryview` or `str` in bytes; 0 for anything else. Runs no Python code.
#[expect(unsafe_code, reason = "one call for all of them")]
pub(super) fn len(data: &Bound<'_, PyAny>) -> u64 {
    let data = data.as_ptr();
    // SAFETY: attached; a valid object, whose type is tested before its length is read.
    unsafe {
        let len = if ffi::PyBytes_Check(data) != 0 {
            ffi::PyBytes_Size(data)
        } else if ffi::PyUnicode_Check(data) != 0 {
            let mut len = 0;
            if ffi::PyUnicode_AsUTF8AndSize(data, &raw mut len).is_null() {
                ffi::PyErr_Clear();
                len = ffi::PyUnicode_GET_LENGTH(data);
            }
            len
        } else if ffi::PyByteArray_Check(data) != 0 {
            ffi::PyByteArray_Size(data)
        } else if ffi::PyMemoryView_Check(data) != 0 {
            let mut view = ffi::Py_buffer::new();
            if ffi::PyObject_GetBuffer(data, &raw mut view, ffi::PyBUF_FULL_RO) == 0 {
                let len = view.len;
                ffi::PyBuffer_Release(&raw mut view);
                len
            } else {
                ffi::PyErr_Clear();
                0
            }
        } else {
            0
        };
        u64::try_from(len).unwrap_or_default()
    }
}
