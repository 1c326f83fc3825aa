//! The method of a request, as it is reported (HTTP semantic conventions 1.44, `http.request.method`).

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::borrowed::{entry, with_str};
use super::convert::{ascii, with_text};
use crate::http_server::is_known_method;

/// The name of a span whose method is not known (HTTP semantic conventions, "Name").
const UNKNOWN_METHOD_NAME: &str = "HTTP";

/// The request method, and how it is reported.
#[derive(Default)]
pub(super) struct Method {
    sent: Option<Py<PyString>>,
    known: Known,
}

#[derive(Clone, Copy, PartialEq, Default)]
enum Known {
    #[default]
    No,
    Yes,
    /// The handshake of a websocket, whose scope has no method.
    Get,
}

impl Method {
    #[inline]
    pub(super) fn read(
        scope: &Bound<'_, PyDict>,
        is_websocket: bool,
        known_methods: Option<&[String]>,
    ) -> Self {
        if is_websocket {
            return Self {
                sent: None,
                known: Known::Get,
            };
        }
        let method = entry!(scope, "method");
        let known = with_str(method, |sent| is_known_method(sent, known_methods));
        let sent = method.and_then(|sent| sent.to_owned().cast_into::<PyString>().ok());
        Self {
            known: if known == Some(true) {
                Known::Yes
            } else {
                Known::No
            },
            sent: sent.map(Bound::unbind),
        }
    }

    #[inline]
    fn with_sent(&self, py: Python<'_>, then: impl FnOnce(&str)) {
        let sent = self.sent.as_ref().map(|sent| sent.bind(py).as_any());
        with_str(sent.map(Bound::as_borrowed), then);
    }

    /// Calls `then` with `http.request.method`.
    #[inline]
    pub(super) fn with_reported(&self, py: Python<'_>, then: impl FnOnce(&str)) {
        match self.known {
            Known::No => then("_OTHER"),
            Known::Yes => self.with_sent(py, then),
            Known::Get => then("GET"),
        }
    }

    /// Whether the response has no body, whatever the application sends.
    pub(super) fn is_head(&self, py: Python<'_>) -> bool {
        let sent = self.sent.as_ref().map(|sent| sent.bind(py).as_any());
        with_str(sent.map(Bound::as_borrowed), |sent| sent == "HEAD") == Some(true)
    }

    /// Calls `then` with `http.request.method_original`, if that is something else.
    #[inline]
    pub(super) fn with_original(&self, py: Python<'_>, then: impl FnOnce(&str)) {
        if self.known == Known::No {
            self.with_sent(py, then);
        }
    }

    /// Calls `then` with what stands in the span's name.
    #[inline]
    pub(super) fn with_name<R>(&self, py: Python<'_>, then: impl FnOnce(&str) -> R) -> R {
        if self.known == Known::Yes
            && let Some(sent) = &self.sent
        {
            let sent = sent.bind(py);
            return match ascii(sent) {
                Some(sent) => then(sent),
                None => with_text(sent, then),
            };
        }
        then(match self.known {
            Known::Get => "GET",
            _ => UNKNOWN_METHOD_NAME,
        })
    }

    /// Lets go of it here and now.
    pub(super) fn forget(self, py: Python<'_>) {
        drop(self.sent.map(|sent| sent.into_bound(py)));
    }
}
