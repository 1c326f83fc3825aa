//! What a message between application and server means for the span (ASGI specification, "HTTP & WebSocket").

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::borrowed::{int, item};
use super::convert::ascii;

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
        let found = Found::walk(message).unwrap_or_else(|| Found::look_up(message));
        let Some(kind) = found.kind else {
            return Ok(Self::Other);
        };
        Ok(match ascii(&kind).unwrap_or_default() {
            "http.response.start" | "websocket.http.response.start" => Self::Start {
                status: found.status.and_then(|status| int(&status)),
                trailers: is_true(found.trailers)?,
            },
            "http.response.body"
            | "http.response.zerocopysend"
            | "websocket.http.response.body" => Self::Body {
                more: is_true(found.more_body)?,
            },
            "http.response.pathsend" => Self::Body { more: false },
            "http.response.trailers" => {
                let more = item(message, pyo3::intern!(message.py(), "more_trailers"));
                Self::Trailers {
                    more: is_true(more)?,
                }
            }
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

/// The entries of a message that matter, borrowed.
#[derive(Default)]
struct Found<'a, 'py> {
    kind: Option<Borrowed<'a, 'py, PyAny>>,
    status: Option<Borrowed<'a, 'py, PyAny>>,
    trailers: Option<Borrowed<'a, 'py, PyAny>>,
    more_body: Option<Borrowed<'a, 'py, PyAny>>,
}

impl<'a, 'py> Found<'a, 'py> {
    /// In one walk, by the addresses of the keys: messages have two to four entries, whose names are interned wherever they
    /// are written as literals. `None` if a key is not recognised.
    #[inline]
    #[expect(unsafe_code, reason = "a safe walk counts references")]
    fn walk(message: &'a Bound<'py, PyDict>) -> Option<Self> {
        if cfg!(Py_GIL_DISABLED) {
            return None;
        }
        let py = message.py();
        let mut found = Self::default();
        let (mut position, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: attached; a dict, which does not change meanwhile: no Python code runs.
        while unsafe {
            ffi::PyDict_Next(
                message.as_ptr(),
                &raw mut position,
                &raw mut key,
                &raw mut value,
            )
        } != 0
        {
            // SAFETY: a valid object, which lives as long as the dict is not changed.
            let value = Some(unsafe { Borrowed::from_ptr(py, value) });
            if key == pyo3::intern!(py, "type").as_ptr() {
                found.kind = value;
            } else if key == pyo3::intern!(py, "status").as_ptr() {
                found.status = value;
            } else if key == pyo3::intern!(py, "more_body").as_ptr() {
                found.more_body = value;
            } else if key == pyo3::intern!(py, "trailers").as_ptr() {
                found.trailers = value;
            } else if key != pyo3::intern!(py, "body").as_ptr()
                && key != pyo3::intern!(py, "headers").as_ptr()
            {
                return None;
            }
        }
        Some(found)
    }

    #[cold]
    fn look_up(message: &'a Bound<'py, PyDict>) -> Self {
        let py = message.py();
        Self {
            kind: item(message, pyo3::intern!(py, "type")),
            status: item(message, pyo3::intern!(py, "status")),
            trailers: item(message, pyo3::intern!(py, "trailers")),
            more_body: item(message, pyo3::intern!(py, "more_body")),
        }
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
