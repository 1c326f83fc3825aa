//! `Span` of the `opentelemetry` crate, over ours.
//!
//! A span belongs to one owner, or sits behind the lock of an `opentelemetry::Context`. Dropping it ends it.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{self as api, SpanBuilder, Status as ApiStatus};
use opentelemetry::{Array, KeyValue, Value as ApiValue};

use super::context::{from_api, to_api};
use crate::attribute::Value;
use crate::span::{self, Status};

/// A span that is recorded, or one that only carries an identity.
#[derive(Debug)]
pub struct Span {
    context: api::SpanContext,
    recording: Option<span::Span>,
}

impl Span {
    /// A span that has started, with what its builder says beside name, kind and start.
    pub(super) fn recording(span: span::Span, builder: &SpanBuilder) -> Self {
        let mut span = Self {
            context: to_api(span.context()),
            recording: Some(span),
        };
        if let Some(recording) = &mut span.recording {
            for KeyValue { key, value, .. } in builder.attributes.iter().flatten() {
                recording.set_attribute(key.as_str(), &value_of(value));
            }
            for link in builder.links.iter().flatten() {
                recording.add_link(&from_api(&link.span_context), &values(&link.attributes));
            }
            for event in builder.events.iter().flatten() {
                let attributes = values(&event.attributes);
                recording.add_event(&event.name, unix_ns(event.timestamp), &attributes);
            }
        }
        span
    }

    pub(super) const fn non_recording(context: api::SpanContext) -> Self {
        Self {
            context,
            recording: None,
        }
    }
}

impl api::Span for Span {
    fn add_event<T: Into<Cow<'static, str>>>(&mut self, name: T, attributes: Vec<KeyValue>) {
        if let Some(span) = &mut self.recording {
            let now = span.start_time().later_unix_ns();
            span.add_event(&name.into(), now, &values(&attributes));
        }
    }

    fn add_event_with_timestamp<T: Into<Cow<'static, str>>>(
        &mut self,
        name: T,
        timestamp: SystemTime,
        attributes: Vec<KeyValue>,
    ) {
        if let Some(span) = &mut self.recording {
            span.add_event(&name.into(), unix_ns(timestamp), &values(&attributes));
        }
    }

    fn span_context(&self) -> &api::SpanContext {
        &self.context
    }

    fn is_recording(&self) -> bool {
        self.recording
            .as_ref()
            .is_some_and(span::Span::is_recording)
    }

    fn set_attribute(&mut self, attribute: KeyValue) {
        if let Some(span) = &mut self.recording {
            span.set_attribute(attribute.key.as_str(), &value_of(&attribute.value));
        }
    }

    fn set_status(&mut self, status: ApiStatus) {
        if let Some(span) = &mut self.recording {
            match status {
                ApiStatus::Unset => {}
                ApiStatus::Ok => span.set_status(Status::Ok, ""),
                ApiStatus::Error { description } => span.set_status(Status::Error, &description),
            }
        }
    }

    fn update_name<T: Into<Cow<'static, str>>>(&mut self, new_name: T) {
        if let Some(span) = &mut self.recording {
            span.update_name(&new_name.into());
        }
    }

    fn add_link(&mut self, span_context: api::SpanContext, attributes: Vec<KeyValue>) {
        if let Some(span) = &mut self.recording {
            span.add_link(&from_api(&span_context), &values(&attributes));
        }
    }

    fn end(&mut self) {
        if let Some(span) = &mut self.recording {
            span.end();
        }
    }

    fn end_with_timestamp(&mut self, timestamp: SystemTime) {
        if let Some(span) = &mut self.recording {
            span.end_at(unix_ns(timestamp));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        api::Span::end(self);
    }
}

/// Nanoseconds since the Unix epoch; 0 for what was before it.
pub(super) fn unix_ns(time: SystemTime) -> u64 {
    // They last until the year 2554.
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

fn values(attributes: &[KeyValue]) -> Vec<(&str, Value<'_>)> {
    attributes
        .iter()
        .map(|attribute| (attribute.key.as_str(), value_of(&attribute.value)))
        .collect()
}

fn value_of(value: &ApiValue) -> Value<'_> {
    match value {
        ApiValue::Bool(bool) => Value::Bool(*bool),
        ApiValue::I64(int) => Value::Int(*int),
        ApiValue::F64(float) => Value::Float(*float),
        ApiValue::String(text) => Value::Str(text.as_str()),
        ApiValue::Array(Array::Bool(items)) => array(items, |item| Value::Bool(*item)),
        ApiValue::Array(Array::I64(items)) => array(items, |item| Value::Int(*item)),
        ApiValue::Array(Array::F64(items)) => array(items, |item| Value::Float(*item)),
        ApiValue::Array(Array::String(items)) => array(items, |item| Value::Str(item.as_str())),
        // Kinds that later versions of the crate may add.
        _ => Value::Array(Vec::new()),
    }
}

fn array<'a, T>(items: &'a [T], value: impl Fn(&'a T) -> Value<'a>) -> Value<'a> {
    Value::Array(items.iter().map(value).collect())
}
