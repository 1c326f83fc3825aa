//! `tracing` events and `log` records on their way to the queue, and `log` records on their way to the current span.
//!
//! Events of `tracing` become events of their span in tracing-opentelemetry's layer; `log` has no spans, so its records are
//! added here to the one that is current, in the same form.

use std::fmt;

use opentelemetry::trace::{Status, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer;

use super::queue::{self, Record};
use super::suppression::is_suppressed;
use super::{context, log};
use crate::attribute::Value;
use crate::config::Filter;

/// The layer that queues events for `logging`.
#[derive(Debug)]
pub(super) struct EventLayer;

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &Event<'_>, _context: layer::Context<'_, S>) {
        let metadata = event.metadata();
        if !queue::is_enabled(*metadata.level()) {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let fields: Vec<_> = said
            .fields
            .iter()
            .map(|(key, value)| (*key, value.borrow()))
            .collect();
        log(&Record {
            level: *metadata.level(),
            target: metadata.target(),
            message: &said.message,
            fields: &fields,
            span: context::current(),
            file: metadata.file(),
            line: metadata.line().unwrap_or_default(),
        });
    }
}

/// Message and fields of an event.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Owned)>,
}

enum Owned {
    Text(String),
    Bool(bool),
    Int(i64),
    Float(f64),
}

impl Owned {
    fn borrow(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Str(text),
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Int(int) => Value::Int(*int),
            Self::Float(float) => Value::Float(*float),
        }
    }
}

impl Said {
    fn text(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.push((field.name(), Owned::Text(text)));
        }
    }
}

impl Visit for Said {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Owned::Bool(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), Owned::Int(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(int) => self.fields.push((field.name(), Owned::Int(int))),
            Err(_) => self.text(field, value.to_string()),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), Owned::Float(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }
}

/// The `log` crate's logger: its records become events of the current span, and are queued as events are.
#[derive(Debug)]
pub(super) struct Records(pub(super) Filter);

impl ::log::Log for Records {
    fn enabled(&self, metadata: &::log::Metadata<'_>) -> bool {
        !is_suppressed()
            && self
                .0
                .enables(metadata.target(), level_of(metadata.level()))
    }

    fn log(&self, record: &::log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = level_of(record.level());
        let message = record.args().to_string();
        let current = Context::current();
        let span = current.span();
        if span.is_recording() {
            if level == Level::ERROR {
                span.set_status(Status::error(""));
            }
            let attributes = vec![
                KeyValue::new("level", level.as_str()),
                KeyValue::new("target", record.target().to_owned()),
            ];
            span.add_event(message.clone(), attributes);
        }
        log(&Record {
            level,
            target: record.target(),
            message: &message,
            fields: &[],
            span: context::from_api(span.span_context()),
            file: record.file(),
            line: record.line().unwrap_or_default(),
        });
    }

    fn flush(&self) {}
}

fn level_of(level: ::log::Level) -> Level {
    match level {
        ::log::Level::Error => Level::ERROR,
        ::log::Level::Warn => Level::WARN,
        ::log::Level::Info => Level::INFO,
        ::log::Level::Debug => Level::DEBUG,
        ::log::Level::Trace => Level::TRACE,
    }
}
