//! A span that rvh_trace records.

use std::ffi::c_void;
use std::ptr::NonNull;

use crate::abi;
use crate::attribute::{Attribute, Value, raw, text};
use crate::context::{Context, with_innermost};
use crate::host::{host, recording_host};

/// The role of a span (OpenTelemetry specification, "`SpanKind`").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u32)]
pub enum SpanKind {
    /// Work inside the application.
    #[default]
    Internal = 1,
    /// Handles a remote request.
    Server = 2,
    /// Makes a remote request and waits for it.
    Client = 3,
    /// Starts work that others do later.
    Producer = 4,
    /// Does work that others started earlier.
    Consumer = 5,
}

/// The status of a span (OpenTelemetry specification, "Set Status").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status<'a> {
    /// Explicitly fine: final.
    Ok,
    /// The operation failed, and why.
    Error(&'a str),
}

/// A hold on a span that is being recorded. The span ends by [`Self::end`], or with the last hold on it.
///
/// Every thread may annotate it. What is set once it has ended, or in a forked child, is ignored.
#[derive(Debug)]
pub struct Span(NonNull<c_void>);

#[expect(unsafe_code, reason = "holds a pointer that is not bound to a thread")]
// SAFETY: a handle that rvh_trace lets every thread use.
unsafe impl Send for Span {}
#[expect(unsafe_code, reason = "holds a pointer that is not bound to a thread")]
// SAFETY: as above; rvh_trace locks what is behind it.
unsafe impl Sync for Span {}

impl Clone for Span {
    #[inline]
    #[expect(unsafe_code, reason = "calls through the table")]
    fn clone(&self) -> Self {
        if let Some(host) = host() {
            // SAFETY: a handle of this host's, which is held.
            unsafe { (host.span_retain)(self.0.as_ptr()) };
        }
        Self(self.0)
    }
}

impl Drop for Span {
    #[inline]
    #[expect(unsafe_code, reason = "calls through the table")]
    fn drop(&mut self) {
        if let Some(host) = host() {
            // SAFETY: a handle of this host's; this hold on it ends here.
            unsafe { (host.span_release)(self.0.as_ptr(), false) };
        }
    }
}

impl Span {
    /// A span that starts when [`SpanBuilder::start`] is called.
    ///
    /// # Example
    ///
    /// ```
    /// use rvh_trace_client::{Span, SpanKind};
    ///
    /// let context = Span::builder("GET").kind(SpanKind::Client).attribute("server.port", 443).start();
    /// let _current = context.attach();
    /// // Spans that are started here, on this thread, are its children.
    /// ```
    pub fn builder(name: &str) -> SpanBuilder<'_> {
        SpanBuilder {
            name,
            kind: SpanKind::Internal,
            parent: None,
            start_unix_ns: 0,
            attributes: Vec::new(),
        }
    }

    /// The handle, for a call through the table.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr()
    }

    /// Ends the span and gives up this hold on it, in one call.
    #[cfg(feature = "tracing")]
    #[inline]
    #[expect(unsafe_code, reason = "calls through the table")]
    pub(crate) fn close(self) {
        let span = std::mem::ManuallyDrop::new(self);
        if let Some(host) = host() {
            // SAFETY: a handle of this host's; this hold on it ends here, and is not given up again.
            unsafe { (host.span_release)(span.0.as_ptr(), true) };
        }
    }

    /// Sets an attribute; one with the same key is replaced.
    pub fn set_attribute<'a>(&self, key: &'a str, value: impl Into<Value<'a>>) {
        self.set_attributes(&[Attribute::new(key, value)]);
    }

    /// Sets attributes; one with the same key is replaced.
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn set_attributes(&self, attributes: &[Attribute<'_>]) {
        if let Some(host) = host() {
            let (first, count) = raw(attributes);
            // SAFETY: a handle that is held, and attributes that live through the call.
            unsafe { (host.span_set_attributes)(self.as_ptr(), first, count) };
        }
    }

    /// Replaces the name.
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn set_name(&self, name: &str) {
        if let Some(host) = host() {
            // SAFETY: a handle that is held, and text that lives through the call.
            unsafe { (host.span_set_name)(self.as_ptr(), text(name)) };
        }
    }

    /// Sets the status. Ok is final.
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn set_status(&self, status: Status<'_>) {
        if let Some(host) = host() {
            let (code, description) = match status {
                Status::Ok => (1, ""),
                Status::Error(description) => (2, description),
            };
            // SAFETY: a handle that is held, and text that lives through the call.
            unsafe { (host.span_set_status)(self.as_ptr(), code, text(description)) };
        }
    }

    /// Adds an event, now.
    pub fn add_event(&self, name: &str, attributes: &[Attribute<'_>]) {
        self.add_event_at(name, 0, attributes);
    }

    /// Adds an event at a time in nanoseconds since the Unix epoch.
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn add_event_at(&self, name: &str, unix_ns: u64, attributes: &[Attribute<'_>]) {
        if let Some(host) = host() {
            let (first, count) = raw(attributes);
            // SAFETY: a handle that is held; text and attributes live through the call.
            unsafe {
                (host.span_add_event)(self.as_ptr(), text(name), unix_ns, first, count);
            }
        }
    }

    /// Links another span.
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn add_link(&self, to: &Context, attributes: &[Attribute<'_>]) {
        if let Some(host) = host() {
            let (first, count) = raw(attributes);
            // SAFETY: a handle that is held; context and attributes live through the call.
            unsafe { (host.span_add_link)(self.as_ptr(), to.as_raw(), first, count) };
        }
    }

    /// Records an exception of Python's that leaves the span, as on a span of Python's: an exception event and status
    /// error; for a cancellation `rvh_trace.outcome`. The span goes on.
    #[cfg(feature = "pyo3")]
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn record_python_exception(
        &self,
        exception: &pyo3::Bound<'_, pyo3::exceptions::PyBaseException>,
    ) {
        if let Some(host) = host() {
            // SAFETY: a handle that is held, a reference that lives through the call, and a thread that is attached.
            unsafe { (host.python_raised)(self.as_ptr(), exception.as_ptr().cast()) };
        }
    }

    /// Ends the span now, whoever still has a hold on it. Later calls do nothing.
    pub fn end(&self) {
        self.end_at(0);
    }

    /// Ends the span at a time in nanoseconds since the Unix epoch; a time before its start is taken as its start.
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn end_at(&self, end_unix_ns: u64) {
        if let Some(host) = host() {
            // SAFETY: a handle that is held.
            unsafe { (host.span_end)(self.as_ptr(), end_unix_ns) };
        }
    }
}

impl<'a> From<&'a str> for SpanBuilder<'a> {
    /// A span of this name.
    fn from(name: &'a str) -> Self {
        Span::builder(name)
    }
}

/// How a span is to be; see [`Span::builder`].
#[derive(Clone, Debug)]
#[must_use = "a span starts with `start()`"]
pub struct SpanBuilder<'a> {
    name: &'a str,
    kind: SpanKind,
    parent: Option<&'a Context>,
    start_unix_ns: u64,
    attributes: Vec<Attribute<'a>>,
}

impl<'a> SpanBuilder<'a> {
    /// Its kind; internal if nothing is said.
    pub fn kind(mut self, kind: SpanKind) -> Self {
        self.kind = kind;
        self
    }

    /// Its parent; what is [current](Context::current) if nothing is said. The default context makes it the root of a trace.
    pub fn parent(mut self, parent: &'a Context) -> Self {
        self.parent = Some(parent);
        self
    }

    /// One attribute more.
    pub fn attribute(mut self, key: &'a str, value: impl Into<Value<'a>>) -> Self {
        self.attributes.push(Attribute::new(key, value));
        self
    }

    /// When it started, in nanoseconds since the Unix epoch; now if nothing is said.
    pub fn start_unix_ns(mut self, unix_ns: u64) -> Self {
        self.start_unix_ns = unix_ns;
        self
    }

    /// Starts it. Its context, which holds it: the span ends when that and its clones are gone, or by [`Span::end`].
    ///
    /// If it is not recorded, the context has no [span](Context::span) and is the one to hand on. Without a connection it is
    /// that of the parent.
    pub fn start(&self) -> Context {
        start(
            self.name,
            self.kind,
            self.parent,
            self.start_unix_ns,
            raw(&self.attributes),
        )
        .unwrap_or_else(|| self.parent.map_or_else(Context::current, Context::clone))
    }
}

/// Starts a span below `parent`, or below what is current; `None` if nothing may be recorded.
#[inline]
pub(crate) fn start(
    name: &str,
    kind: SpanKind,
    parent: Option<&Context>,
    start_unix_ns: u64,
    attributes: (*const abi::Attribute, usize),
) -> Option<Context> {
    let host = recording_host()?;
    let start =
        |parent: Option<&Context>| start_below(host, name, kind, parent, start_unix_ns, attributes);
    Some(match parent {
        Some(parent) => start(Some(parent)),
        None => with_innermost(start),
    })
}

#[inline]
#[expect(unsafe_code, reason = "calls through the table")]
fn start_below(
    host: &'static abi::Api,
    name: &str,
    kind: SpanKind,
    parent: Option<&Context>,
    start_unix_ns: u64,
    (attributes, attribute_count): (*const abi::Attribute, usize),
) -> Context {
    let start = abi::SpanStart {
        parent: parent.map_or(std::ptr::null(), |parent| parent.as_raw()),
        name: text(name),
        kind: kind as u32,
        reserved: 0,
        start_unix_ns,
        attributes,
        attribute_count,
    };
    let mut context = Context::NO_PLACE;
    // SAFETY: what `start` leads to lives through the call, and `context` is a place to write to.
    let handle = unsafe { (host.span_start)(&raw const start, &raw mut context) };
    Context::from_raw(context, NonNull::new(handle).map(Span))
}
