//! What a message to the server means for the span of its request (ASGI specification, "HTTP & WebSocket").

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert::ascii;
use super::request::{int, item};

/// A message of a response.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// `http.response.start`
    Start {
        status: Option<i64>,
        /// Trailers will follow the body.
        trailers: bool,
    },
    /// A part of the body.
    Body {
        /// More of it will follow.
        more: bool,
    },
    /// `http.response.trailers`
    Trailers {
        /// More of them will follow.
        more: bool,
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
            "http.response.start" => Self::Start {
                status: item(message, pyo3::intern!(py, "status")).and_then(|status| int(&status)),
                trailers: flag(pyo3::intern!(py, "trailers"))?,
            },
            "http.response.body" | "http.response.zerocopysend" => Self::Body {
                more: flag(pyo3::intern!(py, "more_body"))?,
            },
            "http.response.pathsend" => Self::Body { more: false },
            "http.response.trailers" => Self::Trailers {
                more: flag(pyo3::intern!(py, "more_trailers"))?,
            },
            _ => Self::Other,
        })
    }
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
