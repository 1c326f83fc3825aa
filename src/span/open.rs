//! What is seen of a span before it ends: its state so far, and the marker that stands for it in a backend.

use opentelemetry_proto::tonic::trace::v1 as otlp;
use prost::Message;

use super::{Phase, Span, SpanKind, Status, give_buffer, take_buffer};
use crate::attribute::Value;
use crate::clock::Start;
use crate::context::SpanContext;
use crate::id::{SpanId, process_generation};
use crate::wire::attribute::put_key_value;
use crate::wire::span::{ATTRIBUTE, Finished, put_name_of};

/// Seconds that the span has been open.
const AGE: &str = "rvh_trace.pending.age";
/// The parent of the span that is open; the marker's own parent is that span.
const PARENT_SPAN_ID: &str = "rvh_trace.pending.parent_span_id";

/// The state of a span that has started and not ended.
#[derive(Debug, Clone)]
pub struct OpenSpan {
    /// What identifies it to others.
    pub context: SpanContext,
    /// Its parent; invalid for a root.
    pub parent_span_id: SpanId,
    /// Its kind.
    pub kind: SpanKind,
    /// When it started.
    pub start: Start,
    /// Its name and its attributes so far: fields of an encoded `Span`.
    pub fields: Vec<u8>,
}

impl OpenSpan {
    /// Name, kind and attributes, decoded.
    pub fn decode(&self) -> otlp::Span {
        // Written by us, and name and attributes are whole fields.
        let mut decoded = otlp::Span::decode(self.fields.as_slice()).unwrap_or_default();
        decoded.kind = self.kind as i32;
        decoded
    }
}

impl Span {
    /// Whether it has started, has not ended, and ends in this process.
    #[inline]
    pub fn is_open(&self) -> bool {
        (Phase::Started..Phase::Ended).contains(&self.phase)
            && self.generation == process_generation()
    }

    /// Its state, while it is open.
    pub fn open(&self) -> Option<OpenSpan> {
        self.is_open().then(|| OpenSpan {
            context: self.context.clone(),
            parent_span_id: self.parent_span_id,
            kind: self.kind,
            start: self.start,
            fields: self.fields.clone(),
        })
    }

    /// Exports a marker of this span if it has been open for `least_age_ns`; whether it did.
    ///
    /// The marker is a span of its own, a child of this one, of length zero: OTLP has no spans that are not over, and a
    /// span id that is sent twice is kept twice by some backends and dropped by others.
    pub fn export_pending(&self, least_age_ns: u64) -> bool {
        let now = self.start.later_unix_ns();
        let age_ns = now.saturating_sub(self.start.unix_ns());
        if !self.is_open() || age_ns < least_age_ns || self.tracer.is_closed() {
            return false;
        }
        let mut fields = take_buffer();
        put_name_of(&mut fields, &["pending ", &self.name()]);
        fields.extend_from_slice(&self.fields[self.name_end as usize..]);
        #[expect(clippy::cast_precision_loss, reason = "104 days are exact")]
        let age = age_ns as f64 / 1e9;
        put_key_value(&mut fields, ATTRIBUTE, AGE, &Value::Float(age), None);
        if self.parent_span_id.is_valid() {
            let parent = self.parent_span_id.to_string();
            let parent = Value::Str(&parent);
            put_key_value(&mut fields, ATTRIBUTE, PARENT_SPAN_ID, &parent, None);
        }
        self.tracer.finish(&Finished {
            context: &SpanContext {
                span_id: SpanId::random(),
                is_remote: false,
                ..self.context.clone()
            },
            parent_span_id: self.context.span_id,
            parent_is_remote: false,
            kind: SpanKind::Internal,
            start_unix_ns: now,
            end_unix_ns: now,
            fields: &fields,
            entries: &[],
            dropped_attributes: 0,
            dropped_events: 0,
            dropped_links: 0,
            status: Status::Unset,
            status_message: "",
        });
        give_buffer(fields);
        true
    }

    /// The name as it was written: a field key, a length and the text.
    fn name(&self) -> String {
        let field = &self.fields[..self.name_end as usize];
        let text = match crate::wire::read_varint(field.get(1..).unwrap_or_default()) {
            Some((_, len_len)) => field.get(1 + len_len..).unwrap_or_default(),
            None => &[],
        };
        String::from_utf8_lossy(text).into_owned()
    }
}
