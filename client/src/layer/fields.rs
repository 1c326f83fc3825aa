//! The fields of a `tracing` span or event on their way to the table.
//!
//! What they borrow is not promised to outlive their visit, so text is copied once, into memory that a thread keeps: no
//! allocation in the long run. Formatting a field may run code that opens spans itself; it gets fields of its own.

use std::cell::RefCell;
use std::error::Error;
use std::fmt::{Debug, Write};
use std::ops::Range;

use tracing_core::Metadata;
use tracing_core::field::{Field, Visit};

use crate::abi::{self, Text, value_kind};
use crate::attribute::{Attribute, text};
use crate::span::{Span, SpanKind, Status};

/// More than this is not kept between spans.
const KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    static SPARE: RefCell<Fields> = const { RefCell::new(Fields::new()) };
}

/// An error that a field held.
struct Exception {
    message: Range<usize>,
    /// The error with its sources, if it has any.
    chain: Option<Range<usize>>,
}

/// What the fields said.
pub(super) struct Fields {
    /// All text, one after the other.
    text: String,
    /// Until [`Self::finish`], a text begins at an offset.
    attributes: Vec<abi::Attribute>,
    /// `otel.name`, or the message of an event.
    name: Option<Range<usize>>,
    kind: Option<SpanKind>,
    is_ok: Option<bool>,
    status_description: Option<Range<usize>>,
    exceptions: Vec<Exception>,
    /// The target of a record of the `log` crate.
    log_target: Option<Range<usize>>,
    /// What went wrong, in an event, by its place among the attributes.
    error: Option<usize>,
    pub(super) is_event: bool,
}

impl Fields {
    const fn new() -> Self {
        Self {
            text: String::new(),
            attributes: Vec::new(),
            name: None,
            kind: None,
            is_ok: None,
            status_description: None,
            exceptions: Vec::new(),
            log_target: None,
            error: None,
            is_event: false,
        }
    }

    /// Calls `then` with empty fields.
    #[inline]
    pub(super) fn with<R>(then: impl FnOnce(&mut Self) -> R) -> R {
        let mut then = Some(then);
        let done = SPARE.try_with(|spare| {
            let mut fields = spare.try_borrow_mut().ok()?;
            fields.clear();
            then.take().map(|then| then(&mut fields))
        });
        match (done.ok().flatten(), then) {
            (Some(done), _) => done,
            // In use further up the stack, or gone with the thread.
            (None, Some(then)) => then(&mut Self::new()),
            (None, None) => unreachable!("`then` is taken only to be called"),
        }
    }

    #[inline]
    fn clear(&mut self) {
        let Self {
            text, attributes, ..
        } = self;
        text.clear();
        text.shrink_to(KEPT_BYTES);
        attributes.clear();
        self.name = None;
        self.kind = None;
        self.is_ok = None;
        self.status_description = None;
        self.exceptions.clear();
        self.log_target = None;
        self.error = None;
        self.is_event = false;
    }

    #[inline]
    fn push(&mut self, key: &'static str, kind: u32, value: abi::Value) {
        // What `tracing-log` passes on beside the record: it belongs to the metadata.
        if self.is_event && key.starts_with("log.") {
            return;
        }
        self.attributes.push(abi::Attribute {
            key: text(key.strip_prefix("r#").unwrap_or(key)),
            kind,
            reserved: 0,
            value,
        });
    }

    #[inline]
    pub(super) fn push_int(&mut self, key: &'static str, int: i64) {
        self.push(key, value_kind::INT, abi::Value { int });
    }

    #[inline]
    pub(super) fn push_text(&mut self, key: &'static str, value: &str) {
        let range = self.keep(value);
        self.push_range(key, &range);
    }

    /// Adds, after [`Self::finish`], what an event says of where it comes from.
    pub(super) fn push_origin(&mut self, metadata: &Metadata<'_>) {
        // Both live as long as the callsite or the text, and so through the call.
        let target = text(self.log_target().unwrap_or(metadata.target()));
        let level = text(metadata.level().as_str());
        self.push("level", value_kind::TEXT, abi::Value { text: level });
        self.push("target", value_kind::TEXT, abi::Value { text: target });
    }

    fn push_range(&mut self, key: &'static str, range: &Range<usize>) {
        let text = Text {
            start: std::ptr::without_provenance(range.start),
            len: range.len(),
        };
        self.push(key, value_kind::TEXT, abi::Value { text });
    }

    #[inline]
    fn keep(&mut self, value: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(value);
        start..self.text.len()
    }

    fn keep_formatted(&mut self, value: std::fmt::Arguments<'_>) -> Range<usize> {
        let start = self.text.len();
        // One that fails to format keeps what it has written.
        let _ = self.text.write_fmt(value);
        start..self.text.len()
    }

    /// Text that was kept under a name: for what it stands there.
    fn put(&mut self, field: &Field, range: Range<usize>) {
        let name = field.name();
        if self.is_event {
            match name {
                "message" => return self.name = Some(range),
                "error" => self.error = Some(self.attributes.len()),
                "log.target" => return self.log_target = Some(range),
                _ => {}
            }
        } else if let Some(special) = name.strip_prefix("otel.") {
            match special {
                "name" => return self.name = Some(range),
                "kind" => return self.kind = self.text.get(range).and_then(span_kind),
                "status_code" => return self.is_ok = self.text.get(range).and_then(is_ok),
                "status_description" | "status_message" => {
                    return self.status_description = Some(range);
                }
                _ => {}
            }
        }
        self.push_range(name, &range);
    }

    /// Gives every text its address. No text may be added afterwards.
    #[inline]
    #[expect(unsafe_code, reason = "which member of a union is meant")]
    pub(super) fn finish(&mut self) {
        if self.is_event {
            self.tell_exception();
        }
        for attribute in &mut self.attributes {
            if attribute.kind == value_kind::TEXT {
                // SAFETY: the kind says that it is text.
                let range = unsafe { attribute.value.text };
                attribute.value.text.start = self.text.as_ptr().wrapping_add(range.start.addr());
            }
        }
    }

    /// An event with an error says so in the words of the semantic conventions for exceptions.
    fn tell_exception(&mut self) {
        if let Some(exception) = self.exceptions.pop() {
            self.error = Some(self.attributes.len());
            self.push_range("exception.message", &exception.message);
            if let Some(chain) = &exception.chain {
                self.push_range("exception.stacktrace", chain);
            }
        } else if self.name.is_none()
            && let Some(error) = self.error.and_then(|index| self.attributes.get_mut(index))
        {
            // `#[instrument(err)]`.
            error.key = text("exception.message");
        }
    }

    fn str_of(&self, range: Option<&Range<usize>>) -> Option<&str> {
        self.text.get(range?.clone())
    }

    /// `otel.name`, or the message of an event.
    pub(super) fn name(&self) -> Option<&str> {
        self.str_of(self.name.as_ref())
    }

    /// The target of a record of the `log` crate, which came by way of `tracing-log`.
    pub(super) fn log_target(&self) -> Option<&str> {
        self.str_of(self.log_target.as_ref())
    }

    /// The message of an event; `exception` if it has an error instead.
    pub(super) fn event_name(&self) -> Option<&str> {
        self.name().or(self.error.map(|_| "exception"))
    }

    /// `otel.kind`
    pub(super) fn kind(&self) -> Option<SpanKind> {
        self.kind
    }

    /// What an event says of what went wrong.
    #[expect(unsafe_code, reason = "text is reached by a pointer")]
    pub(super) fn description(&self) -> Option<&str> {
        self.name().or_else(|| {
            let error = self.attributes.get(self.error?)?;
            if error.kind != value_kind::TEXT {
                return None;
            }
            // SAFETY: text, which `finish` has made point into `self.text`.
            unsafe {
                let text = error.value.text;
                let offset = text.start.addr().checked_sub(self.text.as_ptr().addr())?;
                self.text.get(offset..offset + text.len)
            }
        })
    }

    /// As they cross the interface.
    #[inline]
    pub(super) fn raw(&self) -> (*const abi::Attribute, usize) {
        (self.attributes.as_ptr(), self.attributes.len())
    }

    /// Whether there is more to write than attributes.
    #[inline]
    pub(super) fn has_more(&self) -> bool {
        self.is_ok.is_some() || self.status_description.is_some() || !self.exceptions.is_empty()
    }

    /// `otel.status_code` and `otel.status_description`
    pub(super) fn write_status(&self, span: &Span) {
        match (self.is_ok, self.str_of(self.status_description.as_ref())) {
            (Some(true), _) => span.set_status(Status::Ok),
            (Some(false), description) => {
                span.set_status(Status::Error(description.unwrap_or_default()));
            }
            (None, Some(description)) => span.set_status(Status::Error(description)),
            (None, None) => {}
        }
    }

    /// An `exception` event for every field that held an error.
    pub(super) fn write_exceptions(&self, span: &Span) {
        for exception in &self.exceptions {
            let message = self.str_of(Some(&exception.message)).unwrap_or_default();
            let message = Attribute::new("exception.message", message);
            match self.str_of(exception.chain.as_ref()) {
                Some(chain) => {
                    let chain = Attribute::new("exception.stacktrace", chain);
                    span.add_event("exception", &[message, chain]);
                }
                None => span.add_event("exception", &[message]),
            }
        }
    }
}

impl Visit for Fields {
    #[inline]
    fn record_f64(&mut self, field: &Field, value: f64) {
        let value = abi::Value { double: value };
        self.push(field.name(), value_kind::DOUBLE, value);
    }

    #[inline]
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push_int(field.name(), value);
    }

    #[inline]
    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.push_int(field.name(), value),
            // OTLP has no larger integers.
            Err(_) => self.record_debug(field, &value),
        }
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.push_int(field.name(), value),
            Err(_) => self.record_debug(field, &value),
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        match i64::try_from(value) {
            Ok(value) => self.push_int(field.name(), value),
            Err(_) => self.record_debug(field, &value),
        }
    }

    #[inline]
    fn record_bool(&mut self, field: &Field, value: bool) {
        let value = abi::Value { int: value.into() };
        self.push(field.name(), value_kind::BOOL, value);
    }

    #[inline]
    fn record_str(&mut self, field: &Field, value: &str) {
        let range = self.keep(value);
        self.put(field, range);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let message = self.keep_formatted(format_args!("{value}"));
        let chain = value.source().map(|source| {
            let start = self
                .keep_formatted(format_args!("{value}\n\nCaused by:"))
                .start;
            let mut next = Some(source);
            while let Some(error) = next {
                self.keep_formatted(format_args!("\n    {error}"));
                next = error.source();
            }
            start..self.text.len()
        });
        self.put(field, message.clone());
        self.exceptions.push(Exception { message, chain });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let range = self.keep_formatted(format_args!("{value:?}"));
        self.put(field, range);
    }
}

fn span_kind(name: &str) -> Option<SpanKind> {
    let kinds = [
        ("internal", SpanKind::Internal),
        ("server", SpanKind::Server),
        ("client", SpanKind::Client),
        ("producer", SpanKind::Producer),
        ("consumer", SpanKind::Consumer),
    ];
    let found = kinds
        .iter()
        .find(|(kind, _)| kind.eq_ignore_ascii_case(name));
    found.map(|(_, kind)| *kind)
}

fn is_ok(code: &str) -> Option<bool> {
    match code {
        code if code.eq_ignore_ascii_case("ok") => Some(true),
        code if code.eq_ignore_ascii_case("error") => Some(false),
        _ => None,
    }
}
