//! Log records of extensions.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rvh_trace_client::abi::{self, Attribute, Text};

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
                "a log record of {target} was dropped: its thread does not hold the GIL. Later cases are counted in rvh_trace.stats()"
            )
        });
    };
    guarded_attached(py, "logging", || {
        let logger = py
            .import("logging")?
            .call_method1("getLogger", (target.replace("::", "."),))?;
        let level = level(severity);
        if !logger.call_method1("isEnabledFor", (level,))?.is_truthy()? {
            return Ok(());
        }
        let mut message = message.to_owned();
        for (key, value) in attributes {
            message.push(' ');
            message.push_str(key);
            message.push('=');
            push_value(&mut message, value);
        }
        let extra = PyDict::new(py);
        if context.is_valid() {
            extra.set_item("trace_id", context.trace_id.to_string())?;
            extra.set_item("span_id", context.span_id.to_string())?;
        }
        let named = PyDict::new(py);
        named.set_item("extra", extra)?;
        logger.call_method("log", (level, message), Some(&named))?;
        Ok(())
    });
}

fn push_value(text: &mut String, value: &Value<'_>) {
    match value {
        Value::Str(value) => text.push_str(value),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => text.push_str(&value.to_string()),
        Value::Float(value) => text.push_str(&value.to_string()),
        // The interface has no others.
        Value::Bytes(_) | Value::Array(_) => {}
    }
}

/// The level of `logging` for a severity number (OpenTelemetry logs data model, "Mapping of `SeverityNumber`"); 5 is below DEBUG.
fn level(severity: u32) -> u8 {
    match severity {
        0..=4 => 5,
        5..=8 => 10,
        9..=12 => 20,
        13..=16 => 30,
        17..=20 => 40,
        _ => 50,
    }
}
