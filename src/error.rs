//! The errors of set-up and of flushing. Nothing on the span path returns an error: see [`crate::diagnostic`].

use std::time::Duration;

/// What [`crate::config`], flush and shutdown report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument has an impossible value. Names it and says what would be right.
    #[error("{name}: {problem}")]
    Configuration {
        /// The argument or environment variable.
        name: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Spans, log records or metrics could not be delivered.
    #[error("export failed: {0}")]
    Export(String),
    /// A flush or shutdown did not finish in its deadline.
    #[error("{operation} did not finish within {} ms; {pending} spans were still to be sent", timeout.as_millis())]
    Timeout {
        /// `force_flush` or `shutdown`.
        operation: &'static str,
        /// The deadline that was given.
        timeout: Duration,
        /// Spans and log records queued or in flight when it passed.
        pending: u64,
    },
    /// Layers were not done in the deadline of a flush or shutdown.
    #[error("layers were not done within {} ms; {pending} records were still to be delivered", timeout.as_millis())]
    Layers {
        /// The deadline that was given.
        timeout: Duration,
        /// Records that no layer had seen when it passed.
        pending: u64,
    },
}

impl Error {
    /// A configuration error on `name`.
    pub fn configuration(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Configuration {
            name: name.into(),
            problem: problem.into(),
        }
    }
}
