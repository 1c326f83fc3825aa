//! The C interface between rvh_trace and other extension modules: one table of functions in a `PyCapsule`.
//!
//! Both sides compile this file. Nothing in it depends on another crate, on a version of Rust, or on a panic strategy: what
//! crosses is plain data with C layout. The rules (docs/decisions/0028):
//!
//! - **Version.** [`Api::major`] is compared for equality; a client refuses any other. Functions are only ever added, at the
//!   end; [`Api::size`] says how many bytes of the table there are.
//! - **Life.** The table and what its pointers lead to live as long as the process.
//! - **Threads.** Every function may be called from every thread, with and without the GIL. One that says "attached" does
//!   nothing unless the calling thread holds the GIL (is attached to the main interpreter).
//! - **Ownership.** A [`Text`] and a list of [`Attribute`]s is borrowed for the call. A [`Context`] that is written to
//!   an `out` pointer belongs to the caller, who gives its [`Context::extra`] back with [`Api::context_release`]. A
//!   span handle that is not null is a counted hold on the span, given back with [`Api::span_release`]; the last one to
//!   go ends the span.
//! - **Errors.** There are none: what cannot be done is counted by rvh_trace and is a no-op here. No function unwinds, and
//!   none leaves a Python exception set or touches one that is.
//! - **Time.** Nothing waits, and no function but [`Api::log`] and the `python_*` ones can run Python code.

use std::ffi::{CStr, c_void};
use std::sync::atomic::AtomicU32;

/// The name of the capsule, which is also where it is found: an attribute of the native module.
pub const CAPSULE: &CStr = c"rvh_trace._rvh_trace._C_API";

/// The version of this interface.
pub const MAJOR: u32 = 1;

/// UTF-8 text, borrowed. What is no UTF-8 is read with replacement characters.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// The first byte; may be null when `len` is 0.
    pub start: *const u8,
    /// How many bytes.
    pub len: usize,
}

/// What kind of value an [`Attribute`] has.
pub mod value_kind {
    /// `int` is 0 or 1.
    pub const BOOL: u32 = 0;
    /// `int`.
    pub const INT: u32 = 1;
    /// `double`.
    pub const DOUBLE: u32 = 2;
    /// `text`.
    pub const TEXT: u32 = 3;
}

/// The value of an [`Attribute`]; [`Attribute::kind`] says which member is meant.
#[repr(C)]
#[derive(Clone, Copy)]
pub union Value {
    /// Of [`value_kind::BOOL`] and [`value_kind::INT`].
    pub int: i64,
    /// Of [`value_kind::DOUBLE`].
    pub double: f64,
    /// Of [`value_kind::TEXT`].
    pub text: Text,
}

/// A key and its value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Attribute {
    /// The key.
    pub key: Text,
    /// One of [`value_kind`]; an attribute of another kind is ignored.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// The value.
    pub value: Value,
}

/// What identifies a span to others, and what travels with it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Big-endian, as on the wire; all zero when there is no trace.
    pub trace_id: [u8; 16],
    /// Big-endian; all zero when there is no span.
    pub span_id: [u8; 8],
    /// The W3C trace flags.
    pub flags: u8,
    /// 1 if it came from another process.
    pub is_remote: u8,
    /// 1 if what it stands for is over (a request that was answered): spans below it are roots that link it.
    pub is_past: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// Trace state and baggage; null when there are none. Counted: see [`Api::context_retain`].
    pub extra: *const c_void,
}

/// How a span is to be.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SpanStart {
    /// Its parent. Null stands for what is current in Python, if the thread is attached, else for none; so does a context
    /// without ids for none.
    pub parent: *const Context,
    /// Its name.
    pub name: Text,
    /// OTLP's `SpanKind`: 1 internal, 2 server, 3 client, 4 producer, 5 consumer; anything else is internal.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// Nanoseconds since the Unix epoch; 0 for now.
    pub start_unix_ns: u64,
    /// The first of its attributes.
    pub attributes: *const Attribute,
    /// How many attributes.
    pub attribute_count: usize,
}

/// Called with the name and the value of a header to send. `data` is what the caller gave.
pub type PutHeader = unsafe extern "C" fn(data: *mut c_void, name: Text, value: Text);

/// A header that was received.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Its name, in any case.
    pub name: Text,
    /// Its value, which need not be UTF-8.
    pub value: Text,
}

/// The table.
#[repr(C)]
pub struct Api {
    /// [`MAJOR`] of the side that made the table.
    pub major: u32,
    /// The size of the table in bytes.
    pub size: u32,
    /// Not 0 while spans that are started may be recorded. A relaxed load tells.
    pub enabled: *const AtomicU32,

    /// The context that is current in Python. False, and nothing is written, if the thread is not attached or nothing
    /// is current.
    pub current: unsafe extern "C" fn(out: *mut Context) -> bool,
    /// Another hold on `extra`. Null is allowed.
    pub context_retain: unsafe extern "C" fn(extra: *const c_void),
    /// Gives up a hold on `extra`. Null is allowed.
    pub context_release: unsafe extern "C" fn(extra: *const c_void),
    /// Writes the headers that carry `context` to another process, by the propagators that rvh_trace is set to.
    pub inject: unsafe extern "C" fn(context: *const Context, put: PutHeader, data: *mut c_void),
    /// Reads what another process sent. False, and nothing is written, if there is no context in the headers.
    pub extract:
        unsafe extern "C" fn(headers: *const Header, count: usize, out: *mut Context) -> bool,

    /// Starts a span and writes its context. The handle; null if the span is not recorded, in which case the context still
    /// is the one to hand on.
    pub span_start: unsafe extern "C" fn(start: *const SpanStart, out: *mut Context) -> *mut c_void,
    /// Another hold on a span. Null is allowed.
    pub span_retain: unsafe extern "C" fn(span: *mut c_void),
    /// Gives up a hold on a span. It ends, if it has not, with the last one, or if `ends`. Null is allowed.
    pub span_release: unsafe extern "C" fn(span: *mut c_void, ends: bool),
    /// Sets attributes; one with the same key is replaced. A null span is, here and below, the one that is current in
    /// Python, if the thread is attached.
    pub span_set_attributes:
        unsafe extern "C" fn(span: *mut c_void, attributes: *const Attribute, count: usize),
    /// Replaces the name.
    pub span_set_name: unsafe extern "C" fn(span: *mut c_void, name: Text),
    /// Sets the status: 0 unset, 1 ok, 2 error, with a description for an error.
    pub span_set_status: unsafe extern "C" fn(span: *mut c_void, status: u32, description: Text),
    /// Adds an event, at `unix_ns` or, if that is 0, now.
    pub span_add_event: unsafe extern "C" fn(
        span: *mut c_void,
        name: Text,
        unix_ns: u64,
        attributes: *const Attribute,
        count: usize,
    ),
    /// Links another span.
    pub span_add_link: unsafe extern "C" fn(
        span: *mut c_void,
        to: *const Context,
        attributes: *const Attribute,
        count: usize,
    ),
    /// Ends the span, at `end_unix_ns` or, if that is 0, now. The hold on it stays. Null is a no-op.
    pub span_end: unsafe extern "C" fn(span: *mut c_void, end_unix_ns: u64),

    /// Hands a log record to Python's `logging`, as soon as a thread can that may. `severity` is OpenTelemetry's
    /// `SeverityNumber`.
    pub log: unsafe extern "C" fn(
        context: *const Context,
        severity: u32,
        target: Text,
        message: Text,
        attributes: *const Attribute,
        count: usize,
    ),

    /// Attached. Makes a span current in the current `contextvars.Context`: the one of `span`, which Python code can then
    /// annotate, or, if that is null, one that carries `context` and records nothing; with the baggage of `context`. What
    /// [`Api::python_leave`] takes; null if that was not possible.
    pub python_enter:
        unsafe extern "C" fn(span: *mut c_void, context: *const Context) -> *mut c_void,
    /// Attached. Makes current again what was before, if that span still is current here, and takes what `python_enter`
    /// gave. Null is allowed.
    pub python_leave: unsafe extern "C" fn(scope: *mut c_void),
    /// Attached. As `python_enter`, in a `contextvars.Context` that ends with the work: there is no way back. False if that
    /// was not possible.
    pub python_set: unsafe extern "C" fn(span: *mut c_void, context: *const Context) -> bool,
    /// Attached. Writes on the span what an exception that leaves it means, as on one of Python's: failed, cancelled or nothing.
    /// `exception` is a borrowed reference to a `BaseException`.
    pub python_raised: unsafe extern "C" fn(span: *mut c_void, exception: *mut c_void),
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// Modules that were built with another version of this file rely on it.
    #[test]
    fn the_layout_is_that_of_version_1() {
        assert_eq!(MAJOR, 1);
        assert_eq!(size_of::<Text>(), 16);
        assert_eq!(size_of::<Value>(), 16);
        assert_eq!(size_of::<Attribute>(), 40);
        assert_eq!(
            (offset_of!(Attribute, kind), offset_of!(Attribute, value)),
            (16, 24)
        );
        assert_eq!(size_of::<Context>(), 40);
        assert_eq!(
            (
                offset_of!(Context, span_id),
                offset_of!(Context, flags),
                offset_of!(Context, is_remote),
                offset_of!(Context, is_past),
                offset_of!(Context, extra),
            ),
            (16, 24, 25, 26, 32)
        );
        assert_eq!(size_of::<SpanStart>(), 56);
        assert_eq!(
            (
                offset_of!(SpanStart, name),
                offset_of!(SpanStart, kind),
                offset_of!(SpanStart, start_unix_ns),
                offset_of!(SpanStart, attributes),
            ),
            (8, 24, 32, 40)
        );
        assert_eq!(
            (
                offset_of!(Api, major),
                offset_of!(Api, size),
                offset_of!(Api, enabled),
                offset_of!(Api, current),
            ),
            (0, 4, 8, 16)
        );
        assert_eq!(
            (
                offset_of!(Api, span_start),
                offset_of!(Api, span_end),
                offset_of!(Api, log),
                offset_of!(Api, python_set),
                offset_of!(Api, python_raised),
            ),
            (56, 120, 128, 152, 160)
        );
        assert_eq!(size_of::<Api>(), 168);
    }
}
