//! Where a span belongs: what is current in Python, or was attached to a thread of Rust's.

mod attached;
mod python;

use crate::abi;
use crate::host::host;
use crate::span::Span;

pub use attached::Attached;
#[cfg(feature = "tracing")]
pub(crate) use attached::{attach_span, detach_span};
pub(crate) use attached::{innermost, with_innermost};
pub use python::PythonScope;

/// The place of a span in a trace, to hand on to another thread, task or process.
///
/// Cheap to clone. The default is no place at all: a span that is started there is the root of a trace.
#[derive(Clone, Debug, Default)]
pub struct Context {
    raw: Raw,
    /// The span itself, where it was started in Rust: Python code that runs below it may then annotate it.
    span: Option<Span>,
}

/// The ids, and a counted hold on what travels with them.
#[derive(Debug)]
struct Raw(abi::Context);

#[expect(unsafe_code, reason = "holds a pointer that is not bound to a thread")]
// SAFETY: plain data, and `extra`, which rvh_trace counts and lets every thread use.
unsafe impl Send for Raw {}
#[expect(unsafe_code, reason = "holds a pointer that is not bound to a thread")]
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Default for Raw {
    fn default() -> Self {
        Self(Context::NO_PLACE)
    }
}

impl Clone for Raw {
    #[inline]
    #[expect(unsafe_code, reason = "calls through the table")]
    fn clone(&self) -> Self {
        if !self.0.extra.is_null()
            && let Some(host) = host()
        {
            // SAFETY: `extra` came from this host and is held.
            unsafe { (host.context_retain)(self.0.extra) };
        }
        Self(self.0)
    }
}

impl Drop for Raw {
    #[inline]
    #[expect(unsafe_code, reason = "calls through the table")]
    fn drop(&mut self) {
        if !self.0.extra.is_null()
            && let Some(host) = host()
        {
            // SAFETY: `extra` came from this host, and this hold on it ends here.
            unsafe { (host.context_release)(self.0.extra) };
        }
    }
}

impl Context {
    /// No place at all.
    pub(crate) const NO_PLACE: abi::Context = abi::Context {
        trace_id: [0; 16],
        span_id: [0; 8],
        flags: 0,
        is_remote: 0,
        is_past: 0,
        reserved: [0; 5],
        extra: std::ptr::null(),
    };

    /// What is current here: what was [attached](Self::attach) last to this thread or [entered](Self::enter_python) in
    /// Python, else what is current in Python if this thread holds the GIL, else no place at all.
    ///
    /// A `tracing` span that was entered on this thread is attached to it where the [layer](crate::layer()) is installed.
    pub fn current() -> Self {
        innermost().or_else(Self::of_python).unwrap_or_default()
    }

    /// What is current in Python; `None` if this thread does not hold the GIL, or nothing is.
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn of_python() -> Option<Self> {
        let host = host()?;
        let mut context = Self::NO_PLACE;
        // SAFETY: a place to write to.
        unsafe { (host.current)(&raw mut context) }.then(|| Self::from_raw(context, None))
    }

    /// A context that the host has written, of `span` where there is one.
    #[inline]
    pub(crate) fn from_raw(raw: abi::Context, span: Option<Span>) -> Self {
        Self {
            raw: Raw(raw),
            span,
        }
    }

    /// As it crosses the interface, for the time of a call.
    #[inline]
    pub(crate) fn as_raw(&self) -> &abi::Context {
        &self.raw.0
    }

    /// The span that it is of, if that was started here and is recorded.
    #[inline]
    pub fn span(&self) -> Option<&Span> {
        self.span.as_ref()
    }

    /// [`Self::span`], taken out.
    #[cfg(feature = "tracing")]
    #[inline]
    pub(crate) fn take_span(&mut self) -> Option<Span> {
        self.span.take()
    }

    /// The trace id, big-endian; zeros when there is no trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.raw.0.trace_id
    }

    /// The span id, big-endian; zeros when there is no span.
    pub fn span_id(&self) -> [u8; 8] {
        self.raw.0.span_id
    }

    /// The W3C trace flags.
    pub fn trace_flags(&self) -> u8 {
        self.raw.0.flags
    }

    /// Whether it came from another process.
    pub fn is_remote(&self) -> bool {
        self.raw.0.is_remote != 0
    }

    /// Whether it names a span.
    pub fn is_valid(&self) -> bool {
        self.raw.0.trace_id != [0; 16] && self.raw.0.span_id != [0; 8]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_connection_there_is_no_place() {
        let context = Context::current();
        assert!(!context.is_valid() && context.span().is_none());
        assert!(Context::of_python().is_none());
        let below = Span::builder("op")
            .attribute("a", 1)
            .parent(&context)
            .start();
        assert!(!below.is_valid());
    }
}
