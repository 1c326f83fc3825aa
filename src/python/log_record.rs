//! `logging.LogRecord` to an OTLP log record, for `rvh_trace.logging`.
//!
//! The handler takes no lock, so records of several threads are encoded at the same time; the batch has the only one. What
//! Python code a record's parts run (`__str__`) may log in turn: such a record inside a record is not exported, or one that
//! logs itself would never end.

use std::borrow::Cow;
use std::cell::Cell;

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::convert::{ascii, for_each_item, with_name, with_text, with_value};
use super::errors::guard;
use super::exception::describe;
use super::{current, imports, lifecycle};
use crate::attribute::Value;
use crate::diagnostic;
use crate::log::{LogAttributes, LogRecord, Severity};
use crate::resource::ResourceValue;

thread_local! {
    static IS_EMITTING: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, records of this thread are records inside a record.
struct Emitting;

impl Emitting {
    fn begin() -> Option<Self> {
        IS_EMITTING
            .with(|is_emitting| !is_emitting.replace(true))
            .then_some(Self)
    }
}

impl Drop for Emitting {
    fn drop(&mut self) {
        IS_EMITTING.with(|is_emitting| is_emitting.set(false));
    }
}

/// What a record has that is not an attribute of ours yet.
#[derive(Default)]
struct Parts<'py> {
    name: Option<Bound<'py, PyAny>>,
    message: Option<Bound<'py, PyAny>>,
    arguments: Option<Bound<'py, PyAny>>,
    level: i64,
    level_name: Option<Bound<'py, PyAny>>,
    path: Option<Bound<'py, PyAny>>,
    line: Option<Bound<'py, PyAny>>,
    function: Option<Bound<'py, PyAny>>,
    created: f64,
    exception: Option<Bound<'py, PyAny>>,
    exception_text: Option<Bound<'py, PyAny>>,
    stack: Option<Bound<'py, PyAny>>,
    event_name: Option<Bound<'py, PyAny>>,
    /// What `extra=` added.
    extra: Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>,
    /// Whether `extra` has keys that may be ours too.
    may_collide: bool,
}

impl<'py> Parts<'py> {
    fn of(record: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = record.py();
        let mut parts = Self::default();
        let fields = record.getattr(pyo3::intern!(py, "__dict__"))?;
        for_each_item(fields.cast::<PyDict>()?.as_any(), |key, value| {
            let kept = || Some(value.clone()).filter(|value| !value.is_none());
            with_name(key, |name| match name {
                "name" => parts.name = kept(),
                "msg" => parts.message = kept(),
                "args" => parts.arguments = kept(),
                "levelno" => parts.level = value.extract().unwrap_or_default(),
                "levelname" => parts.level_name = kept(),
                "pathname" => parts.path = kept(),
                "lineno" => parts.line = kept(),
                "funcName" => parts.function = kept(),
                "created" => parts.created = value.extract().unwrap_or_default(),
                "exc_info" => parts.exception = kept(),
                "exc_text" => parts.exception_text = kept(),
                "stack_info" => parts.stack = kept(),
                "otel.event.name" => parts.event_name = kept(),
                // The rest of what `logging` itself sets, and what `TraceContextFilter` does.
                "filename" | "module" | "msecs" | "relativeCreated" | "thread" | "threadName"
                | "processName" | "process" | "taskName" | "message" | "asctime"
                | "otelTraceID" | "otelSpanID" | "otelServiceName" | "otelTraceSampled" => {}
                name => {
                    parts.may_collide |=
                        name.starts_with("code.") || name.starts_with("exception.");
                    parts.extra.extend(kept().map(|value| (key.clone(), value)));
                }
            })
        })?;
        Ok(parts)
    }

    /// What `logging.Handler.format` makes of the record without a formatter. Raises what formatting raises.
    fn message(&self, record: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
        let py = record.py();
        // What `LogRecord.getMessage` does, unless it is another class's.
        if let Some(message) = &self.message
            && let Ok(text) = message.cast_exact::<PyString>()
            && record.get_type().is(imports::log_record(py)?)
        {
            return match &self.arguments {
                Some(arguments) if arguments.is_truthy()? => text.as_any().rem(arguments)?.str(),
                _ => Ok(text.clone()),
            };
        }
        record.call_method0(pyo3::intern!(py, "getMessage"))?.str()
    }

    /// Whether `extra` has this key, which is then the program's to set.
    fn is_overridden(&self, key: &str) -> bool {
        let is_key =
            |name: &Bound<'py, PyAny>| with_name(name, |name| name == key).unwrap_or(false);
        self.may_collide && self.extra.iter().any(|(name, _)| is_key(name))
    }

    /// Adds what the conventions have names for, then what `extra=` brought.
    fn put_attributes(&self, py: Python<'py>, attributes: &mut LogAttributes) -> PyResult<()> {
        let unknown = |text: &str| text.is_empty() || text.starts_with("(unknown ");
        for (key, text) in [
            ("code.file.path", &self.path),
            ("code.function.name", &self.function),
            ("code.stacktrace", &self.stack),
        ] {
            if let Some(text) = text
                && !self.is_overridden(key)
            {
                with_name(text, |text| {
                    if !unknown(text) {
                        attributes.push(key, &Value::Str(text));
                    }
                })?;
            }
        }
        let line = self.line.as_ref().and_then(|line| line.extract().ok());
        if let Some(line @ 1i64..) = line
            && !self.is_overridden("code.line.number")
        {
            attributes.push("code.line.number", &Value::Int(line));
        }
        guard(py, "an exception in a log record", || {
            self.put_exception(attributes)
        })?;
        for (key, value) in &self.extra {
            guard(py, "an attribute of a log record", || {
                with_name(key, |key| {
                    with_value(value, |value| attributes.push(key, value))
                })?
            })?;
        }
        Ok(())
    }

    fn put_exception(&self, attributes: &mut LogAttributes) -> PyResult<()> {
        // `(None, None, None)` where there was no exception to speak of.
        let raised = self
            .exception
            .as_ref()
            .and_then(|info| info.cast::<PyTuple>().ok())
            .and_then(|info| info.get_item(1).ok())
            .and_then(|raised| raised.cast_into::<PyBaseException>().ok());
        let Some(raised) = raised else {
            // A record that came through a socket has the text alone.
            if let Some(text) = &self.exception_text
                && !self.is_overridden("exception.stacktrace")
            {
                with_name(text, |text| {
                    attributes.push("exception.stacktrace", &Value::Str(text));
                })?;
            }
            return Ok(());
        };
        // The stack trace of a group has its members in it.
        if let Some(exception) = describe(&raised)?.first() {
            for (key, text) in [
                ("exception.type", &exception.type_name),
                ("exception.message", &exception.message),
                ("exception.stacktrace", &exception.stacktrace),
            ] {
                if !text.is_empty() && !self.is_overridden(key) {
                    attributes.push(key, &Value::Str(text));
                }
            }
        }
        Ok(())
    }
}

/// The text of a part; empty if it is not there.
fn text<'a>(part: Option<&'a Bound<'_, PyAny>>) -> PyResult<Cow<'a, str>> {
    let Some(part) = part else {
        return Ok(Cow::Borrowed(""));
    };
    match ascii(part) {
        Some(ascii) => Ok(Cow::Borrowed(ascii)),
        None => with_name(part, |text| Cow::Owned(text.to_owned())),
    }
}

/// The severity of a level of `logging`: the five standard ones begin a range each, up to three levels above one are told
/// apart, and what is below DEBUG is TRACE (Logs Data Model, "Field: `SeverityNumber`").
fn severity(level: i64) -> Severity {
    let Ok(level @ 1..) = u64::try_from(level) else {
        return Severity::UNSPECIFIED;
    };
    let range = (level / 10).min(5);
    let above = if range == 0 {
        0
    } else {
        (level - range * 10).min(3)
    };
    Severity::from_number((range * 4 + 1 + above) as u8)
}

/// Seconds since the Unix epoch as `time.time()` gives them, in nanoseconds; `None` for what is none.
#[expect(
    clippy::cast_sign_loss,
    reason = "a float is cut to what the integer can hold, and a negative one is not taken"
)]
fn unix_ns(seconds: f64) -> Option<u64> {
    (seconds > 0.0).then_some((seconds * 1e9) as u64)
}

/// Exports a `logging.LogRecord`, if log records go anywhere. Raises what formatting it raises, and nothing else.
#[pyfunction]
pub(super) fn emit_log_record(
    py: Python<'_>,
    record: &Bound<'_, PyAny>,
    formatter: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let Some(tracer) = lifecycle::tracer().filter(|tracer| tracer.exports_logs()) else {
        return Ok(());
    };
    let Some(_emitting) = Emitting::begin() else {
        diagnostic::swallowed("log-recursion", || {
            "a log record was not exported: it was made while another one was read, by a __str__ or a formatter".to_owned()
        });
        return Ok(());
    };
    let parts = Parts::of(record)?;
    let body = match formatter {
        Some(formatter) => formatter
            .call_method1(pyo3::intern!(py, "format"), (record,))?
            .str()?,
        None => parts.message(record)?,
    };
    guard(py, "a log record", || {
        let mut attributes = tracer.log_attributes();
        parts.put_attributes(py, &mut attributes)?;
        let context = current::span(py)?.map(|span| span.get().clone_context(py));
        let (scope, severity_text) = (text(parts.name.as_ref())?, text(parts.level_name.as_ref())?);
        let event_name = text(parts.event_name.as_ref())?;
        with_text(&body, |body| {
            let record = LogRecord {
                scope: &scope,
                severity: severity(parts.level),
                severity_text: &severity_text,
                unix_ns: unix_ns(parts.created),
                body,
                event_name: &event_name,
                context: context.as_ref(),
            };
            tracer.log(&record, attributes);
        });
        Ok(())
    })
    .map(drop)
}

/// What `TraceContextFilter` sets on a record: trace id, span id, service name, and whether the span is sampled.
#[pyfunction]
pub(super) fn log_trace_context(py: Python<'_>) -> PyResult<(String, String, String, bool)> {
    let service_name =
        match lifecycle::tracer().and_then(|tracer| tracer.config().resource.get("service.name")) {
            Some(ResourceValue::Str(name)) => name.clone(),
            _ => String::new(),
        };
    let context = current::span(py)?
        .map(|span| span.get().clone_context(py))
        .filter(crate::context::SpanContext::is_valid);
    Ok(match context {
        Some(context) => (
            context.trace_id.to_string(),
            context.span_id.to_string(),
            service_name,
            context.is_sampled(),
        ),
        None => ("0".to_owned(), "0".to_owned(), service_name, false),
    })
}
