//! Exceptions on spans: the one place that decides how they are recorded.
//!
//! Today a span event named `exception` (semantic conventions, "Exceptions on spans"). They are being moved to log records
//! (`OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN`); when logs exist, [`record`] is where the switch goes.

use crate::attribute::Value;
use crate::span::Span;

/// Members of an exception group that are recorded one by one; the rest is in the group's stack trace.
pub const MAX_GROUP_MEMBERS: usize = 32;

/// One exception, already turned into text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exception {
    /// The fully-qualified class name; built-in classes without their module.
    pub type_name: String,
    /// `str(exception)`
    pub message: String,
    /// As the language prints it.
    pub stacktrace: String,
    /// Where it stands in the exception group that was raised: `""` for the exception itself, `"0"` for its first member,
    /// `"0.1"` for the second member of the first.
    pub group_path: String,
}

/// Records `exceptions`, the one that was raised first and then the members of its group, on the span.
///
/// `exception.escaped` is deprecated and not sent.
pub fn record(span: &mut Span, exceptions: &[Exception], unix_ns: u64) {
    for exception in exceptions {
        let mut attributes: Vec<(&str, Value<'_>)> = vec![
            ("exception.type", Value::Str(&exception.type_name)),
            ("exception.message", Value::Str(&exception.message)),
        ];
        // The group's own trace already prints its members': sent once.
        if !exception.stacktrace.is_empty() {
            attributes.push(("exception.stacktrace", Value::Str(&exception.stacktrace)));
        }
        if !exception.group_path.is_empty() {
            attributes.push((
                "rvh_trace.exception.group_path",
                Value::Str(&exception.group_path),
            ));
        }
        span.add_event("exception", unix_ns, &attributes);
    }
}
