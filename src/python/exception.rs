//! How a span ends when an exception leaves it.

use pyo3::exceptions::{PyBaseException, PyGeneratorExit, PySystemExit};
use pyo3::prelude::*;

use super::imports;
use crate::exception::{self, Exception};
use crate::span::{Span, Status};

/// Our own attribute for endings that are neither success nor failure; declared in `semconv/`.
pub(super) const OUTCOME: &str = "rvh_trace.outcome";

/// What an exception that leaves a span means for it.
pub(super) enum Ending {
    /// Nothing worth a word: it returned, or a generator was closed early.
    Returned,
    /// The task was cancelled. Not an error, but visible.
    Cancelled,
    /// An error, in words.
    Failed(Vec<Exception>),
}

impl Ending {
    /// Reads the exception. Runs Python code: hold no lock.
    pub(super) fn of(raised: Option<&Bound<'_, PyBaseException>>) -> PyResult<Self> {
        let Some(raised) = raised else {
            return Ok(Self::Returned);
        };
        if is_cancellation(raised) {
            return Ok(Self::Cancelled);
        }
        if is_return(raised) {
            return Ok(Self::Returned);
        }
        describe(raised).map(Self::Failed)
    }

    /// [`Self::of`] for a span that is not recorded.
    pub(super) fn without_details(raised: Option<&Bound<'_, PyBaseException>>) -> Self {
        match raised {
            None => Self::Returned,
            Some(raised) if is_cancellation(raised) => Self::Cancelled,
            Some(raised) if is_return(raised) => Self::Returned,
            Some(_) => Self::Failed(Vec::new()),
        }
    }

    /// Writes it on the span. The description of the status is the exception's message.
    pub(super) fn write(&self, span: &mut Span) {
        match self {
            Self::Returned => {}
            Self::Cancelled => span.set_attribute(OUTCOME, &"cancelled".into()),
            Self::Failed(exceptions) => {
                if let Some(raised) = exceptions.first() {
                    span.set_attribute("error.type", &raised.type_name.as_str().into());
                    span.set_status(Status::Error, &raised.message);
                }
                exception::record(span, exceptions, span.start_time().later_unix_ns());
            }
        }
    }
}

fn is_cancellation(raised: &Bound<'_, PyBaseException>) -> bool {
    imports::cancelled_error(raised.py())
        .is_some_and(|class| raised.is_instance(class).unwrap_or(false))
}

/// How a generator that is closed early, or a program that ends well, looks from inside.
fn is_return(raised: &Bound<'_, PyBaseException>) -> bool {
    raised.is_instance_of::<PyGeneratorExit>() || is_clean_exit(raised)
}

/// `error.type` of an exception: its fully-qualified class name, bare for built-in ones.
pub(super) fn type_name(raised: &Bound<'_, PyBaseException>) -> String {
    raised
        .get_type()
        .fully_qualified_name()
        .map(|name| name.to_string())
        .unwrap_or_default()
}

/// `sys.exit()` and `sys.exit(0)` are how programs end well.
fn is_clean_exit(raised: &Bound<'_, PyBaseException>) -> bool {
    raised.is_instance_of::<PySystemExit>()
        && raised
            .getattr(pyo3::intern!(raised.py(), "code"))
            .is_ok_and(|code| code.is_none() || code.extract::<i64>().is_ok_and(|code| code == 0))
}

/// The exception, and the members of its group, as text.
pub(super) fn describe(raised: &Bound<'_, PyBaseException>) -> PyResult<Vec<Exception>> {
    let described: Vec<(String, String, String, String)> =
        imports::describe_exception(raised.py())?
            .call1((raised, exception::MAX_GROUP_MEMBERS))?
            .extract()?;
    Ok(described
        .into_iter()
        .map(|(type_name, message, stacktrace, group_path)| Exception {
            type_name,
            message,
            stacktrace,
            group_path,
        })
        .collect())
}
