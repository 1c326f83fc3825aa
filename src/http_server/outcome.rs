//! How a request can go, and which ways are errors.

use super::named_set::named_set;

/// How a request ended if neither a response nor an exception says so; `rvh_trace.outcome` on the span.
///
/// Both are kept apart from success and from failure: a client that goes away is no fault of the server's, and what it
/// would have got is not known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// The server, or the application, cancelled the task that served the request, for instance at a timeout.
    Cancelled,
    /// The client was gone before the response was complete.
    Disconnected,
}

impl Outcome {
    /// The value of `rvh_trace.outcome`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Disconnected => "disconnected",
        }
    }
}

named_set! {
    /// The outcomes that make the span's status Error. The default is `5xx,exception` (semantic conventions, "Status").
    pub struct ErrorOutcomes(u8) {
        /// A response status from 400 to 499.
        CLIENT_ERROR = "4xx",
        /// A response status of 500 and above.
        SERVER_ERROR = "5xx",
        /// An exception that left the application.
        EXCEPTION = "exception",
        /// [`Outcome::Disconnected`].
        DISCONNECTED = "disconnected",
        /// [`Outcome::Cancelled`].
        CANCELLED = "cancelled",
    }
}

impl Default for ErrorOutcomes {
    fn default() -> Self {
        Self::SERVER_ERROR.union(Self::EXCEPTION)
    }
}

impl ErrorOutcomes {
    /// Whether a response with this status is an error.
    #[inline]
    pub const fn has_status(self, status: i64) -> bool {
        match status {
            400..=499 => self.has(Self::CLIENT_ERROR),
            500.. => self.has(Self::SERVER_ERROR),
            _ => false,
        }
    }

    /// Whether this outcome is an error.
    #[inline]
    pub const fn has_outcome(self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Cancelled => self.has(Self::CANCELLED),
            Outcome::Disconnected => self.has(Self::DISCONNECTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_an_error_by_its_class() {
        let both = ErrorOutcomes::CLIENT_ERROR.union(ErrorOutcomes::SERVER_ERROR);
        for (status, by_default, with_both) in [
            (200, false, false),
            (399, false, false),
            (400, false, true),
            (499, false, true),
            (500, true, true),
            (599, true, true),
            (-1, false, false),
        ] {
            assert_eq!(ErrorOutcomes::default().has_status(status), by_default);
            assert_eq!(both.has_status(status), with_both);
            assert!(!ErrorOutcomes::NONE.has_status(status));
        }
    }

    #[test]
    fn a_request_that_was_given_up_is_an_error_only_if_asked_for() {
        for outcome in [Outcome::Cancelled, Outcome::Disconnected] {
            assert!(!ErrorOutcomes::default().has_outcome(outcome));
            let asked: Result<ErrorOutcomes, _> = outcome.as_str().parse();
            assert!(asked.is_ok_and(|asked| asked.has_outcome(outcome)));
        }
        assert!(!ErrorOutcomes::CANCELLED.has_outcome(Outcome::Disconnected));
        assert!(ErrorOutcomes::default().has(ErrorOutcomes::EXCEPTION));
    }
}
