//! Log records of extensions.

use pyo3::prelude::*;
use rvh_trace_client::abi::{self, Attribute, Text};

use super::super::imports;
use super::attribute::{Attributes, read_text};
use super::context::Place;
use super::{attached, guarded, guarded_attached};
use crate::attribute::Value;
use crate::context::SpanContext;
use crate::diagnostic;

#[expect(unsafe_code, reason = "the interface passes pointers")]
pub(super) unsafe extern "C" fn log(
    context: *const abi::Context,
    severity: u32,
    target: Text,
    message: Text,
    attributes: *const Attribute,
    count: usize,
) {
    guarded("logging", (), || {
        // SAFETY: all are the caller's, alive through the call.
        let (place, target, message, attributes) = unsafe {
            (
                Place::read(context),
                read_text(target),
                read_text(message),
                Attributes::read(attributes, count),
            )
        };
        let place = place.or_else(Place::current_if_attached);
        log_from_extension(
            severity,
            &target,
            &message,
            &attributes.borrow(),
            &place.unwrap_or_default().context.span,
        );
    });
}

/// Hands a record to `logging`, if this thread may run Python code; else it is dropped and counted.
fn log_from_extension(
    severity: u32,
    target: &str,
    message: &str,
    attributes: &[(&str, Value<'_>)],
    context: &SpanContext,
) {
    let Some(py) = attached() else {
        return diagnostic::swallowed("logging without the GIL", || {
            format!(
                "a log record of {target} was dropped: its thread does not hold the GIL. Later cases are counted in \
                 rvh_trace.stats()"
            )
        });
    };
    guarded_attached(py, "logging", &mut || {
        let mut message = message.to_owned();
        for (key, value) in attributes {
            push_attribute(&mut message, key, value);
        }
        let (trace_id, span_id) = if context.is_valid() {
            (context.trace_id.to_string(), context.span_id.to_string())
        } else {
            (String::new(), String::new())
        };
        let record = (target, severity, message, trace_id, span_id);
        imports::log_from_extension(py)?.call1(record).map(drop)
    });
}

/// Adds ` key=value`.
fn push_attribute(text: &mut String, key: &str, value: &Value<'_>) {
    text.push(' ');
    text.push_str(key);
    text.push('=');
    match value {
        Value::Str(value) => text.push_str(value),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => text.push_str(&value.to_string()),
        Value::Float(value) => text.push_str(&value.to_string()),
        // The interface has no others.
        Value::Bytes(_) | Value::Array(_) => {}
    }
}
