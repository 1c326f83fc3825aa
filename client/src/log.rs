//! Log records, handed to Python's `logging`.

use crate::attribute::{Attribute, raw, text};
use crate::context::{Context, innermost};
use crate::host::host;

/// How severe a record is (OpenTelemetry logs data model, "`SeverityNumber`").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Severity {
    /// Below DEBUG in Python: 5.
    Trace = 1,
    /// DEBUG.
    Debug = 5,
    /// INFO.
    Info = 9,
    /// WARNING.
    Warn = 13,
    /// ERROR.
    Error = 17,
    /// CRITICAL.
    Fatal = 21,
}

/// Hands a record to the logger of Python's that is called `target`, with `::` as `.`, in the place that is current here.
///
/// Never waits for the GIL.
pub fn log(severity: Severity, target: &str, message: &str, attributes: &[Attribute<'_>]) {
    log_raw(severity, target, message, raw(attributes));
}

#[expect(unsafe_code, reason = "calls through the table")]
pub(crate) fn log_raw(
    severity: Severity,
    target: &str,
    message: &str,
    (first, count): (*const crate::abi::Attribute, usize),
) {
    let Some(host) = host() else { return };
    // A handler of Python's may come back here, so nothing is borrowed meanwhile.
    let context = innermost();
    let context = context.as_ref().map_or(std::ptr::null(), |context| {
        std::ptr::from_ref(Context::as_raw(context))
    });
    // SAFETY: a context or null, texts and attributes, all of which live through the call.
    unsafe {
        (host.log)(
            context,
            severity as u32,
            text(target),
            text(message),
            first,
            count,
        );
    }
}
