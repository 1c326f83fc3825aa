//! Log records of extensions.

use rvh_trace_client::abi::{self, Attribute, Text};
use tracing::Level;

use super::super::rust_events;
use super::attribute::{Attributes, read_text};
use super::context::Place;
use super::{attached, guarded, guarded_attached};
use crate::bridge::queue::{self, KeptRecord, Record};
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
        log_from_extension(&Record {
            level: level(severity),
            target: &target,
            message: &message,
            fields: &attributes.borrow(),
            span: place.unwrap_or_default().context.span,
            file: None,
            line: 0,
        });
    });
}

/// Hands a record to `logging`: through the queue, if `init_tracing` has opened it; at once, if this thread may run Python
/// code; else it is dropped and counted.
fn log_from_extension(record: &Record<'_>) {
    if queue::is_open() {
        return queue::log(record);
    }
    let Some(py) = attached() else {
        return diagnostic::swallowed("logging without the GIL", || {
            format!(
                "a log record of {} was dropped: its thread does not hold the GIL. init_tracing(rust_events=\"info\") has such records handed \
                 over. Later cases are counted in rvh_trace.stats()",
                record.target
            )
        });
    };
    guarded_attached(py, "logging", &mut || {
        rust_events::handle(py, &KeptRecord::new(record))
    });
}

/// The level of `tracing` for a severity number (OpenTelemetry logs data model, "`SeverityNumber`").
fn level(severity: u32) -> Level {
    match severity {
        0..=4 => Level::TRACE,
        5..=8 => Level::DEBUG,
        9..=12 => Level::INFO,
        13..=16 => Level::WARN,
        _ => Level::ERROR,
    }
}
