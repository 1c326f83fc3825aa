//! A tracer whose spans stay in memory, and the `tracing` subscriber that writes into it.

#![allow(dead_code, reason = "each test file uses its part")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use rvh_trace::bridge;
use rvh_trace::config::{Arguments, Config};
use rvh_trace::pipeline::exporter::memory::{self, MemoryExporter};
use rvh_trace::stats::Snapshot;
use rvh_trace::tracer::Tracer;
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;

/// A tracer, and what it exported.
pub(crate) struct Recorded {
    pub(crate) tracer: &'static Tracer,
    exporter: MemoryExporter,
}

impl Recorded {
    /// With the default settings, whatever the environment says.
    pub(crate) fn new() -> Self {
        Self::with(&Arguments::default())
    }

    /// With these settings.
    pub(crate) fn with(arguments: &Arguments) -> Self {
        let (config, warnings) = Config::load(arguments, &|_| None).unwrap();
        assert_eq!(warnings, [""; 0]);
        let exporter = MemoryExporter::new();
        let kept = exporter.clone();
        let build = Arc::new(move || vec![Box::new(kept.clone()) as _]);
        Self {
            tracer: Tracer::with_exporters(config, build),
            exporter,
        }
    }

    /// The tracer as users of the `opentelemetry` crate see it.
    pub(crate) fn api(&self) -> bridge::Tracer {
        bridge::Tracer::new(self.tracer)
    }

    /// Takes every span of `tracing`, of every level.
    pub(crate) fn subscriber(&self) -> impl Subscriber + Send + Sync {
        tracing_subscriber::registry().with(bridge::layer(self.api()))
    }

    /// Runs `work` with that subscriber, and gives the spans that ended in it.
    #[track_caller]
    pub(crate) fn spans(&self, work: impl FnOnce()) -> Spans {
        tracing::subscriber::with_default(self.subscriber(), work);
        self.take()
    }

    /// The spans that ended so far, oldest first.
    #[track_caller]
    pub(crate) fn take(&self) -> Spans {
        self.tracer.force_flush(Duration::from_secs(120)).unwrap();
        let requests = self.exporter.take();
        let decoded = requests.iter().map(|bytes| memory::decode(bytes).unwrap());
        let resources = decoded.flat_map(|request| request.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        Spans(scopes.flat_map(|scope| scope.spans).collect())
    }

    pub(crate) fn stats(&self) -> Snapshot {
        self.tracer.stats()
    }
}

/// Spans as they were exported.
#[derive(Debug)]
pub(crate) struct Spans(pub(crate) Vec<Span>);

impl Spans {
    /// The one span of this name.
    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> &Span {
        let mut found = self.0.iter().filter(|span| span.name == name);
        match (found.next(), found.next()) {
            (Some(span), None) => span,
            (None, _) => unreachable!("no span {name:?} among {:?}", self.names()),
            _ => unreachable!("several spans {name:?} among {:?}", self.names()),
        }
    }

    /// Their names, in the order in which they ended.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|span| span.name.as_str()).collect()
    }

    /// The name of each span's parent, by its own name; `""` for a parent that is not among them.
    pub(crate) fn parents(&self) -> BTreeMap<&str, &str> {
        let parent = |span: &Span| {
            let is_parent = |other: &&Span| {
                other.span_id == span.parent_span_id && other.trace_id == span.trace_id
            };
            let parent = self.0.iter().find(is_parent);
            parent.map_or("", |parent| parent.name.as_str())
        };
        self.0
            .iter()
            .map(|span| (span.name.as_str(), parent(span)))
            .collect()
    }
}

/// Attributes as text, by key.
pub(crate) fn attributes(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    fn text(value: &Value) -> String {
        match value {
            Value::StringValue(text) => format!("{text:?}"),
            Value::BoolValue(bool) => bool.to_string(),
            Value::IntValue(int) => int.to_string(),
            Value::DoubleValue(double) => format!("{double:?}"),
            Value::ArrayValue(array) => {
                let items = array.values.iter().filter_map(|item| item.value.as_ref());
                format!("[{}]", items.map(text).collect::<Vec<_>>().join(", "))
            }
            other => format!("{other:?}"),
        }
    }
    let value = |attribute: &KeyValue| {
        let value = attribute
            .value
            .as_ref()
            .and_then(|value| value.value.clone());
        value.as_ref().map(text).unwrap_or_default()
    };
    attributes
        .iter()
        .map(|attribute| (attribute.key.as_str(), value(attribute)))
        .collect()
}
