//! `Span`, `Span.Event`, `Span.Link` and `Status`, field by field (`opentelemetry/proto/trace/v1/trace.proto`).
//!
//! A span's name and attributes are written while it lives; [`put_span`] adds the rest around them when it ends.

use super::{
    attribute::{find_key, put_key_value},
    bytes_key, bytes_len, fixed32_key, fixed64_key, put_bytes, put_fixed32, put_fixed64,
    put_varint, put_varint_field, varint_key, varint_len,
};
use crate::attribute::Value;
use crate::context::SpanContext;
use crate::id::SpanId;
use crate::limits::SpanLimits;
use crate::span::{SpanKind, Status};

/// `ScopeSpans.spans`: what every finished span starts with in a batch.
pub(crate) const SCOPE_SPANS_SPAN: u32 = bytes_key(2);

const TRACE_ID: u32 = bytes_key(1);
const SPAN_ID: u32 = bytes_key(2);
const TRACE_STATE: u32 = bytes_key(3);
const PARENT_SPAN_ID: u32 = bytes_key(4);
const NAME: u32 = bytes_key(5);
const KIND: u32 = varint_key(6);
const START: u32 = fixed64_key(7);
const END: u32 = fixed64_key(8);
/// `Span.attributes`
pub(crate) const ATTRIBUTE: u32 = bytes_key(9);
const DROPPED_ATTRIBUTES: u32 = varint_key(10);
const EVENT: u32 = bytes_key(11);
const DROPPED_EVENTS: u32 = varint_key(12);
const LINK: u32 = bytes_key(13);
const DROPPED_LINKS: u32 = varint_key(14);
const STATUS: u32 = bytes_key(15);
const FLAGS: u32 = fixed32_key(16);

const EVENT_TIME: u32 = fixed64_key(1);
const EVENT_NAME: u32 = bytes_key(2);
const EVENT_ATTRIBUTE: u32 = bytes_key(3);
const EVENT_DROPPED_ATTRIBUTES: u32 = varint_key(4);

const LINK_TRACE_ID: u32 = bytes_key(1);
const LINK_SPAN_ID: u32 = bytes_key(2);
const LINK_TRACE_STATE: u32 = bytes_key(3);
const LINK_ATTRIBUTE: u32 = bytes_key(4);
const LINK_DROPPED_ATTRIBUTES: u32 = varint_key(5);
const LINK_FLAGS: u32 = fixed32_key(6);

const STATUS_MESSAGE: u32 = bytes_key(2);
const STATUS_CODE: u32 = varint_key(3);

/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` and `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

fn flags(trace_flags: u8, is_remote: bool) -> u32 {
    u32::from(trace_flags) | HAS_IS_REMOTE | if is_remote { IS_REMOTE } else { 0 }
}

/// Appends the name field; it starts a span's running fields.
#[inline]
pub(crate) fn put_name(out: &mut Vec<u8>, name: &str) {
    put_bytes(out, NAME, name.as_bytes());
}

/// [`put_name`] of a name in parts.
pub(crate) fn put_name_of(out: &mut Vec<u8>, parts: &[&str]) {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    put_varint(out, u64::from(NAME));
    put_varint(out, len as u64);
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// How many spans `bytes`, a run of `ScopeSpans.spans` fields (or metrics, a run of `ScopeMetrics.metrics`), holds from its start, taking at most `max_spans` whole ones
/// and, after the first, none that would pass `max_bytes`. Gives the count and where they end.
pub(crate) fn take_spans(bytes: &[u8], max_spans: usize, max_bytes: usize) -> (usize, usize) {
    let (mut count, mut end) = (0, 0);
    while end < bytes.len() && count < max_spans {
        let Some((len, len_len)) = super::read_varint(&bytes[end + 1..]) else {
            break;
        };
        let next = end + 1 + len_len + len as usize;
        if count > 0 && next > max_bytes {
            break;
        }
        (count, end) = (count + 1, next);
    }
    (count, end)
}

/// Everything a finished span is made of.
pub(crate) struct Finished<'a> {
    pub context: &'a SpanContext,
    pub parent_span_id: SpanId,
    pub parent_is_remote: bool,
    pub kind: SpanKind,
    pub start_unix_ns: u64,
    pub end_unix_ns: u64,
    /// The name and the attributes, already encoded.
    pub fields: &'a [u8],
    /// Events and links, already encoded.
    pub entries: &'a [u8],
    pub dropped_attributes: u32,
    pub dropped_events: u32,
    pub dropped_links: u32,
    pub status: Status,
    pub status_message: &'a str,
}

impl Finished<'_> {
    fn status_len(&self) -> usize {
        let message = if self.status_message.is_empty() {
            0
        } else {
            bytes_len(self.status_message.len())
        };
        message + 2
    }

    /// Whether there is nothing but ids, name, attributes, kind, times and flags.
    #[inline]
    fn is_ordinary(&self) -> bool {
        self.context.trace_state.is_empty()
            && self.entries.is_empty()
            && self.dropped_attributes | self.dropped_events | self.dropped_links == 0
            && self.status == Status::Unset
    }

    #[inline]
    fn body_len(&self) -> usize {
        let parent = if self.parent_span_id.is_valid() {
            10
        } else {
            0
        };
        // 28 bytes of ids, 26 of kind, times and flags.
        54 + parent
            + self.fields.len()
            + if self.is_ordinary() {
                0
            } else {
                self.rest_len()
            }
    }

    #[cold]
    fn rest_len(&self) -> usize {
        let dropped = |count: u32| {
            if count == 0 {
                0
            } else {
                1 + varint_len(u64::from(count))
            }
        };
        let trace_state = self.context.trace_state.as_str();
        self.entries.len()
            + if trace_state.is_empty() {
                0
            } else {
                bytes_len(trace_state.len())
            }
            + dropped(self.dropped_attributes)
            + dropped(self.dropped_events)
            + dropped(self.dropped_links)
            + if self.status == Status::Unset {
                0
            } else {
                bytes_len(self.status_len())
            }
    }

    /// How many bytes [`put_span`] will append.
    #[inline]
    pub(crate) fn encoded_len(&self) -> usize {
        bytes_len(self.body_len())
    }
}

/// Appends the span as a `ScopeSpans.spans` field.
///
/// What every span has stands in two blocks of fixed layout, so that an ordinary span is five copies.
#[inline]
pub(crate) fn put_span(out: &mut Vec<u8>, span: &Finished<'_>) {
    let body_len = span.body_len();
    out.reserve(bytes_len(body_len));
    put_varint(out, u64::from(SCOPE_SPANS_SPAN));
    put_varint(out, body_len as u64);
    let body_start = out.len();

    let mut ids = [0; 38];
    ids[0] = TRACE_ID as u8;
    ids[1] = 16;
    ids[2..18].copy_from_slice(&span.context.trace_id.to_bytes());
    ids[18] = SPAN_ID as u8;
    ids[19] = 8;
    ids[20..28].copy_from_slice(&span.context.span_id.to_bytes());
    ids[28] = PARENT_SPAN_ID as u8;
    ids[29] = 8;
    ids[30..38].copy_from_slice(&span.parent_span_id.to_bytes());
    out.extend_from_slice(if span.parent_span_id.is_valid() {
        &ids
    } else {
        &ids[..28]
    });

    out.extend_from_slice(span.fields);

    let mut fixed = [0; 26];
    fixed[0] = KIND as u8;
    fixed[1] = span.kind as u8;
    fixed[2] = START as u8;
    fixed[3..11].copy_from_slice(&span.start_unix_ns.to_le_bytes());
    fixed[11] = END as u8;
    fixed[12..20].copy_from_slice(&span.end_unix_ns.to_le_bytes());
    // The one key that takes two bytes.
    fixed[20] = FLAGS as u8 | 0x80;
    fixed[21] = (FLAGS >> 7) as u8;
    fixed[22..26]
        .copy_from_slice(&flags(span.context.flags.to_byte(), span.parent_is_remote).to_le_bytes());
    out.extend_from_slice(&fixed);

    if !span.is_ordinary() {
        put_rest(out, span);
    }
    debug_assert_eq!(out.len() - body_start, body_len);
}

/// What most spans do not have.
#[cold]
fn put_rest(out: &mut Vec<u8>, span: &Finished<'_>) {
    let trace_state = span.context.trace_state.as_str();
    if !trace_state.is_empty() {
        put_bytes(out, TRACE_STATE, trace_state.as_bytes());
    }
    out.extend_from_slice(span.entries);
    for (key, count) in [
        (DROPPED_ATTRIBUTES, span.dropped_attributes),
        (DROPPED_EVENTS, span.dropped_events),
        (DROPPED_LINKS, span.dropped_links),
    ] {
        if count > 0 {
            put_varint_field(out, key, u64::from(count));
        }
    }
    if span.status != Status::Unset {
        put_varint(out, u64::from(STATUS));
        put_varint(out, span.status_len() as u64);
        if !span.status_message.is_empty() {
            put_bytes(out, STATUS_MESSAGE, span.status_message.as_bytes());
        }
        put_varint_field(out, STATUS_CODE, span.status as u64);
    }
}

/// Appends an event as a `Span.events` field; attributes over the limit are counted as dropped.
pub(crate) fn put_event(
    out: &mut Vec<u8>,
    name: &str,
    unix_ns: u64,
    attributes: &[(&str, Value<'_>)],
    limits: &SpanLimits,
) {
    let mut body = Vec::with_capacity(64);
    put_fixed64(&mut body, EVENT_TIME, unix_ns);
    put_bytes(&mut body, EVENT_NAME, name.as_bytes());
    let dropped = put_attributes(
        &mut body,
        EVENT_ATTRIBUTE,
        attributes,
        limits.attributes_per_event,
        limits.value_length,
    );
    if dropped > 0 {
        put_varint_field(&mut body, EVENT_DROPPED_ATTRIBUTES, dropped);
    }
    put_bytes(out, EVENT, &body);
}

/// [`put_event`] with two numbers in front of the attributes, to be written later: gives where in `out` the eight bytes of
/// each are, little-endian. `None`, and an event without them, if the limit is too low.
pub(crate) fn put_event_with_numbers(
    out: &mut Vec<u8>,
    name: &str,
    unix_ns: u64,
    numbers: [&str; 2],
    attributes: &[(&str, Value<'_>)],
    limits: &SpanLimits,
) -> Option<[usize; 2]> {
    let mut all = Vec::with_capacity(numbers.len() + attributes.len());
    all.extend(numbers.map(|key| (key, Value::Float(0.0))));
    all.extend(attributes.iter().cloned());
    let event = out.len();
    put_event(out, name, unix_ns, &all, limits);
    if limits.attributes_per_event < 2 {
        return None;
    }
    let (_, len_len) = super::read_varint(&out[event + 1..])?;
    // The time is a key and eight bytes.
    let run = event + 1 + len_len + 9 + bytes_len(name.len());
    // A double is the end of its `KeyValue`.
    let place_of = |key| find_key(&out[run..], key).map(|found| run + found.end - 8);
    Some([place_of(numbers[0])?, place_of(numbers[1])?])
}

/// Appends a link as a `Span.links` field; attributes over the limit are counted as dropped.
pub(crate) fn put_link(
    out: &mut Vec<u8>,
    to: &SpanContext,
    attributes: &[(&str, Value<'_>)],
    limits: &SpanLimits,
) {
    let mut body = Vec::with_capacity(64);
    put_bytes(&mut body, LINK_TRACE_ID, &to.trace_id.to_bytes());
    put_bytes(&mut body, LINK_SPAN_ID, &to.span_id.to_bytes());
    if !to.trace_state.is_empty() {
        put_bytes(
            &mut body,
            LINK_TRACE_STATE,
            to.trace_state.as_str().as_bytes(),
        );
    }
    let dropped = put_attributes(
        &mut body,
        LINK_ATTRIBUTE,
        attributes,
        limits.attributes_per_link,
        limits.value_length,
    );
    if dropped > 0 {
        put_varint_field(&mut body, LINK_DROPPED_ATTRIBUTES, dropped);
    }
    put_fixed32(
        &mut body,
        LINK_FLAGS,
        flags(to.flags.to_byte(), to.is_remote),
    );
    put_bytes(out, LINK, &body);
}

fn put_attributes(
    out: &mut Vec<u8>,
    field_key: u32,
    attributes: &[(&str, Value<'_>)],
    max: u32,
    limit: Option<u32>,
) -> u64 {
    let kept = attributes.len().min(max as usize);
    for (key, value) in &attributes[..kept] {
        put_key_value(out, field_key, key, value, limit);
    }
    (attributes.len() - kept) as u64
}
