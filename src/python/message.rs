//! What a message between application and server means for the span (ASGI specification, "HTTP & WebSocket").

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert::ascii;
use super::request::{int, item};

/// A message, either way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Message {
    /// `http.response.start`, or the same for a refused websocket
    Start {
        status: Option<i64>,
        /// Trailers will follow the body.
        trailers: bool,
    },
    /// A part of the response body.
    Body {
        /// More of it will follow.
        more: bool,
    },
    /// `http.response.trailers`
    Trailers {
        /// More of them will follow.
        more: bool,
    },
    /// `http.request`
    Request,
    /// `http.disconnect`
    Disconnect,
    /// `websocket.accept`
    Accept,
    /// `websocket.send` or `websocket.receive`
    Data,
    /// `websocket.close` or `websocket.disconnect`
    Close {
        /// The close code; 1005 without one, as servers take it.
        code: i64,
    },
    /// Anything else.
    Other,
}

impl Message {
    /// Reads a message. Only `dict`s are looked into: that is what servers take.
    #[inline]
    pub(super) fn read(message: &Bound<'_, PyAny>) -> PyResult<Self> {
        let Ok(message) = message.cast::<PyDict>() else {
            return Ok(Self::Other);
        };
        let py = message.py();
        let Some(kind) = item(message, pyo3::intern!(py, "type")) else {
            return Ok(Self::Other);
        };
        let flag = |name| is_true(item(message, name));
        Ok(match ascii(&kind).unwrap_or_default() {
            "http.response.start" | "websocket.http.response.start" => Self::Start {
                status: item(message, pyo3::intern!(py, "status")).and_then(|status| int(&status)),
                trailers: flag(pyo3::intern!(py, "trailers"))?,
            },
            "http.response.body"
            | "http.response.zerocopysend"
            | "websocket.http.response.body" => Self::Body {
                more: flag(pyo3::intern!(py, "more_body"))?,
            },
            "http.response.pathsend" => Self::Body { more: false },
            "http.response.trailers" => Self::Trailers {
                more: flag(pyo3::intern!(py, "more_trailers"))?,
            },
            "http.request" => Self::Request,
            "http.disconnect" => Self::Disconnect,
            "websocket.accept" => Self::Accept,
            "websocket.send" | "websocket.receive" => Self::Data,
            "websocket.close" => Self::Close {
                code: code(message).unwrap_or(NORMAL_CLOSURE),
            },
            "websocket.disconnect" => Self::Close {
                code: code(message).unwrap_or(NO_STATUS),
            },
            _ => Self::Other,
        })
    }
}

/// What servers close with unless told otherwise (ASGI specification, "Close - `send` event").
const NORMAL_CLOSURE: i64 = 1000;
/// A close frame without a code (RFC 6455, section 7.4.1).
const NO_STATUS: i64 = 1005;

fn code(message: &Bound<'_, PyDict>) -> Option<i64> {
    item(message, pyo3::intern!(message.py(), "code")).and_then(|code| int(&code))
}

/// A flag of a message as servers read it. Asking an object for its truth may run code of the application's, so it is the last
/// use of what is borrowed.
#[inline]
fn is_true(flag: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<bool> {
    let Some(flag) = flag else {
        return Ok(false);
    };
    #[expect(unsafe_code, reason = "two comparisons by address")]
    // SAFETY: the singletons live for ever.
    let (yes, no) = unsafe { (ffi::Py_True(), ffi::Py_False()) };
    if flag.as_ptr() == yes {
        Ok(true)
    } else if flag.as_ptr() == no {
        Ok(false)
    } else {
        flag.to_owned().is_truthy()
    }
}
