//! A live span: the small object between start and end.
//!
//! Name and attributes are encoded as they come, into one pooled buffer; ending a span puts the rest around them and
//! appends the result to the batch. A span belongs to one owner at a time; the bindings keep it in a cell of their own.
//! An empty span costs two clock reads, one id and one append.

mod block;
mod observed;
mod open;

use std::cell::RefCell;

use crate::attribute::Value;
use crate::clock::Start;
use crate::context::{SpanContext, TraceFlags, TraceState};
use crate::id::{SpanId, TraceId, process_generation};
use crate::layer::{self, Kind, Route};
use crate::tracer::Tracer;
use crate::wire::attribute::{Key, find_key, put_key_value, read_float};
use crate::wire::span::{ATTRIBUTE, Finished, put_event, put_link, put_name, put_name_of};
use block::OpenBlock;

pub use block::{BLOCKED_TIME, GC_SHARE, LOOP_BLOCKED};

pub use open::OpenSpan;

/// The role of a span (OpenTelemetry specification, "`SpanKind`"); the values are OTLP's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
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

/// The status of a span; the values are OTLP's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Status {
    /// Nothing was said.
    #[default]
    Unset = 0,
    /// Explicitly fine: final.
    Ok = 1,
    /// The operation failed.
    Error = 2,
}

/// In an order that lets one comparison say that there is nothing but the span itself to think of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Phase {
    Created,
    Started,
    /// Started, and shown to layers, which its owner calls: see [`observed`]. A phase, because a byte more is 8 in a span.
    Attended,
    /// Started, and shown to layers by the queue.
    Observed,
    Ended,
}

/// Events, links, the status message and dropped counts: most spans have none. Apart, to keep a span in 128 bytes.
#[derive(Debug, Default, Clone)]
struct Extra {
    dropped_attributes: u32,
    entries: Vec<u8>,
    events: u32,
    links: u32,
    dropped_events: u32,
    dropped_links: u32,
    status_message: String,
    blocks: Vec<OpenBlock>,
}

/// A span that is being recorded.
#[derive(Debug)]
pub struct Span {
    tracer: &'static Tracer,
    context: SpanContext,
    parent_span_id: SpanId,
    parent_is_remote: bool,
    kind: SpanKind,
    status: Status,
    phase: Phase,
    /// The process it was started in: a span that was alive across `fork` ends only in the parent.
    generation: u32,
    start: Start,
    /// The name field, then `Span.attributes` fields.
    fields: Vec<u8>,
    name_end: u32,
    attributes: u32,
    extra: Option<Box<Extra>>,
}

// Larger ones are moved by calls of `memcpy`.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Span>() <= 128);

impl Span {
    /// Makes a span that [`Tracer::decide`] wants recorded. It starts with [`Self::begin`].
    #[inline]
    pub(crate) fn new(
        tracer: &'static Tracer,
        context: SpanContext,
        parent: Option<&SpanContext>,
        kind: SpanKind,
        name: &str,
    ) -> Self {
        Self::new_in(take_buffer(), tracer, context, parent, kind, name)
    }

    /// [`Self::new`], written into `fields`, an empty buffer.
    #[inline]
    pub(crate) fn new_in(
        mut fields: Vec<u8>,
        tracer: &'static Tracer,
        context: SpanContext,
        parent: Option<&SpanContext>,
        kind: SpanKind,
        name: &str,
    ) -> Self {
        put_name(&mut fields, name);
        Self {
            tracer,
            context,
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| parent.span_id),
            parent_is_remote: parent.is_some_and(|parent| parent.is_remote),
            kind,
            status: Status::Unset,
            phase: Phase::Created,
            generation: process_generation(),
            start: Start::NEVER,
            // A name of more than 4 GiB is not exported by anybody.
            name_end: fields.len() as u32,
            fields,
            attributes: 0,
            extra: None,
        }
    }

    /// Starts the span. Later calls do nothing.
    #[inline]
    pub fn begin(&mut self, start: Start) {
        self.begin_by(start, Route::Queue);
    }

    #[inline]
    fn begin_by(&mut self, start: Start, route: Route) {
        if self.phase == Phase::Created {
            self.phase = Phase::Started;
            self.start = start;
            self.tracer.count_started();
            if layer::is_listening() {
                self.show(route);
            }
        }
    }

    /// Whether `parent` is still what this span was made a child of.
    #[inline]
    pub fn is_child_of(&self, parent: Option<&SpanContext>) -> bool {
        match parent {
            Some(parent) if parent.is_valid() => {
                parent.span_id == self.parent_span_id && parent.trace_id == self.context.trace_id
            }
            _ => !self.parent_span_id.is_valid(),
        }
    }

    /// Makes this span, not yet started, a child of another parent.
    pub fn reparent(&mut self, context: SpanContext, parent: Option<&SpanContext>) {
        self.context = context;
        self.parent_span_id = parent.map_or(SpanId::INVALID, |parent| parent.span_id);
        self.parent_is_remote = parent.is_some_and(|parent| parent.is_remote);
    }

    /// Makes this span, not yet started, the root of a trace of its own that links what it was made a child of.
    pub fn detach(&mut self, parent: &SpanContext) {
        self.parent_span_id = SpanId::INVALID;
        self.parent_is_remote = false;
        self.context.trace_id = TraceId::random();
        self.context.flags = TraceFlags::RANDOM.with_sampled(self.context.is_sampled());
        self.context.trace_state = TraceState::EMPTY;
        self.add_link(parent, &[]);
    }

    /// A span of the same name, kind, attributes, events and links, not yet started, in a place of its own.
    #[must_use]
    pub fn copy_as(
        &self,
        tracer: &'static Tracer,
        context: SpanContext,
        parent: Option<&SpanContext>,
    ) -> Self {
        let mut copy = Self::new(tracer, context, parent, self.kind, "");
        copy.fields.clone_from(&self.fields);
        copy.name_end = self.name_end;
        copy.attributes = self.attributes;
        copy.extra.clone_from(&self.extra);
        copy
    }

    /// What identifies this span to others.
    #[inline]
    pub fn context(&self) -> &SpanContext {
        &self.context
    }

    /// When it started.
    pub fn start_time(&self) -> Start {
        self.start
    }

    /// How many attributes it has.
    #[inline]
    pub fn attribute_count(&self) -> u32 {
        self.attributes
    }

    /// The tracer that started it.
    pub fn tracer(&self) -> &'static Tracer {
        self.tracer
    }

    /// Whether it has not ended.
    pub fn is_recording(&self) -> bool {
        self.phase != Phase::Ended
    }

    /// Whether it was made and has neither started nor ended.
    #[inline]
    pub fn is_created(&self) -> bool {
        self.phase == Phase::Created
    }

    /// The status set so far.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Sets an attribute; one with the same key is replaced.
    pub fn set_attribute(&mut self, key: &str, value: &Value<'_>) {
        if self.phase == Phase::Ended {
            return;
        }
        let start = self.name_end as usize;
        if let Some(old) = find_key(&self.fields[start..], key) {
            self.fields.drain(start + old.start..start + old.end);
            self.attributes -= 1;
        }
        self.push_attribute(key, value);
    }

    /// Adds an attribute whose key the caller knows to be new.
    #[inline]
    pub fn push_attribute(&mut self, key: &str, value: &Value<'_>) {
        if self.phase >= Phase::Attended {
            return self.push_observed(key, value);
        }
        self.write_attribute(key, value);
    }

    /// [`Self::push_attribute`] of a span that has not ended. Apart: what calls itself is not inlined.
    #[inline]
    fn write_attribute(&mut self, key: &str, value: &Value<'_>) {
        let limits = self.tracer.limits();
        if self.attributes >= limits.attributes || key.is_empty() {
            self.extra.get_or_insert_default().dropped_attributes += 1;
            return;
        }
        put_key_value(&mut self.fields, ATTRIBUTE, key, value, limits.value_length);
        self.attributes += 1;
    }

    /// [`Self::push_attribute`] of a text, under a key of our own.
    #[inline]
    pub fn push_known_str<const N: usize>(&mut self, key: &Key<N>, text: &str) {
        let limits = self.tracer.limits();
        let room = self.phase < Phase::Attended
            && self.attributes < limits.attributes
            && limits.value_length.is_none();
        if room && key.put_str(&mut self.fields, text) {
            self.attributes += 1;
        } else {
            self.push_attribute(key.name(), &Value::Str(text));
        }
    }

    /// [`Self::push_attribute`] of a number, under a key of our own.
    #[inline]
    pub fn push_known_int<const N: usize>(&mut self, key: &Key<N>, value: i64) {
        let room =
            self.phase < Phase::Attended && self.attributes < self.tracer.limits().attributes;
        if room && key.put_int(&mut self.fields, value) {
            self.attributes += 1;
        } else {
            self.push_attribute(key.name(), &Value::Int(value));
        }
    }

    /// Adds to an attribute that is a number with a fraction; where there is no such number, it starts at 0.
    pub fn add_to_float(&mut self, key: &str, amount: f64) {
        if self.phase == Phase::Ended {
            return;
        }
        let fields = &self.fields[self.name_end as usize..];
        let before = find_key(fields, key).and_then(|found| read_float(&fields[found]));
        self.set_attribute(key, &Value::Float(before.unwrap_or_default() + amount));
    }

    /// [`Self::push_attribute`] of a number that has a fraction, under a key of our own.
    #[inline]
    pub fn push_known_double<const N: usize>(&mut self, key: &Key<N>, value: f64) {
        if self.phase < Phase::Attended && self.attributes < self.tracer.limits().attributes {
            key.put_double(&mut self.fields, value);
            self.attributes += 1;
        } else {
            self.push_attribute(key.name(), &Value::Float(value));
        }
    }

    /// Replaces the name.
    pub fn update_name(&mut self, name: &str) {
        self.update_name_with([name]);
    }

    /// Replaces the name by its parts, one after the other.
    pub fn update_name_with<const N: usize>(&mut self, parts: [&str; N]) {
        if self.phase == Phase::Ended {
            return;
        }
        // The new field is written behind everything, and then turned to the front: no other buffer is needed.
        let len = self.fields.len();
        put_name_of(&mut self.fields, &parts);
        let name_len = self.fields.len() - len;
        self.fields.rotate_right(name_len);
        self.fields
            .drain(name_len..name_len + self.name_end as usize);
        self.name_end = name_len as u32;
    }

    /// Adds an event at the given time.
    pub fn add_event(&mut self, name: &str, unix_ns: u64, attributes: &[(&str, Value<'_>)]) {
        if self.phase >= Phase::Attended {
            return self.change(Kind::Event, |span| {
                span.add_event(name, unix_ns, attributes);
            });
        }
        let limits = self.tracer.limits();
        let extra = self.extra.get_or_insert_default();
        if extra.events >= limits.events {
            extra.dropped_events += 1;
            return;
        }
        extra.events += 1;
        put_event(&mut extra.entries, name, unix_ns, attributes, limits);
    }

    /// Links another span; an invalid context without trace state or attributes is ignored.
    pub fn add_link(&mut self, to: &SpanContext, attributes: &[(&str, Value<'_>)]) {
        if self.phase == Phase::Ended
            || (!to.is_valid() && to.trace_state.is_empty() && attributes.is_empty())
        {
            return;
        }
        let limits = self.tracer.limits();
        let extra = self.extra.get_or_insert_default();
        if extra.links >= limits.links {
            extra.dropped_links += 1;
            return;
        }
        extra.links += 1;
        put_link(&mut extra.entries, to, attributes, limits);
    }

    /// Sets the status. Ok is final; Unset is ignored; only Error keeps a description (OpenTelemetry specification,
    /// "Set Status").
    pub fn set_status(&mut self, status: Status, description: &str) {
        if self.phase == Phase::Ended || self.status == Status::Ok || status == Status::Unset {
            return;
        }
        self.status = status;
        if status == Status::Error && !description.is_empty() {
            description.clone_into(&mut self.extra.get_or_insert_default().status_message);
        } else if let Some(extra) = &mut self.extra {
            extra.status_message.clear();
        }
    }

    /// Ends the span now: encodes it and appends it to the batch. Later calls do nothing.
    #[inline]
    pub fn end(&mut self) {
        if (Phase::Started..Phase::Ended).contains(&self.phase) {
            self.end_at(self.start.later_unix_ns());
        }
    }

    /// Ends the span at a time in nanoseconds since the Unix epoch; a time before its start is taken as its start.
    ///
    /// A span that never started, or was alive across `fork`, is not exported.
    pub fn end_at(&mut self, end_unix_ns: u64) {
        if self.phase >= Phase::Attended {
            return self.end_observed(end_unix_ns);
        }
        self.encode(end_unix_ns);
    }

    /// [`Self::end_at`] of a span that has not ended.
    #[inline]
    fn encode(&mut self, end_unix_ns: u64) {
        let started = std::mem::replace(&mut self.phase, Phase::Ended) == Phase::Started;
        if started && self.generation == process_generation() {
            let mut extra = self.extra.take();
            if let Some(extra) = &mut extra {
                for open in std::mem::take(&mut extra.blocks) {
                    open.write(&mut extra.entries);
                }
            }
            let extra = extra.as_deref();
            self.tracer.finish(&Finished {
                context: &self.context,
                parent_span_id: self.parent_span_id,
                parent_is_remote: self.parent_is_remote,
                kind: self.kind,
                start_unix_ns: self.start.unix_ns(),
                end_unix_ns: end_unix_ns.max(self.start.unix_ns()),
                fields: &self.fields,
                entries: extra.map_or(&[], |extra| &extra.entries),
                dropped_attributes: extra.map_or(0, |extra| extra.dropped_attributes),
                dropped_events: extra.map_or(0, |extra| extra.dropped_events),
                dropped_links: extra.map_or(0, |extra| extra.dropped_links),
                status: self.status,
                status_message: extra.map_or("", |extra| &extra.status_message),
            });
        }
        self.empty();
    }

    /// The memory stays for the span that is made of the same object next.
    #[inline]
    fn empty(&mut self) {
        self.fields.clear();
        self.fields.shrink_to(POOLED_CAPACITY);
    }

    /// Ends what has not ended, and gives its buffer to the next span.
    #[inline]
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.end();
        let mut buffer = std::mem::take(&mut self.fields);
        // One that never started still holds its name.
        buffer.clear();
        buffer
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        give_buffer(std::mem::take(&mut self.fields));
    }
}

/// Buffers kept a thread, and how large one may be to be kept.
const POOLED_BUFFERS: usize = 64;
const POOLED_CAPACITY: usize = 16 * 1024;
const NEW_CAPACITY: usize = 256;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

#[inline]
pub(crate) fn take_buffer() -> Vec<u8> {
    BUFFERS
        .try_with(|pool| pool.borrow_mut().pop())
        .ok()
        .flatten()
        .unwrap_or_else(|| Vec::with_capacity(NEW_CAPACITY))
}

#[inline]
pub(crate) fn give_buffer(mut buffer: Vec<u8>) {
    if (1..=POOLED_CAPACITY).contains(&buffer.capacity()) {
        buffer.clear();
        let _ = BUFFERS.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < POOLED_BUFFERS {
                pool.push(buffer);
            }
        });
    }
}
