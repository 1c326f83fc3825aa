//! Whatever a log record is made of, the official protobuf definitions decode exactly that, in protobuf and in JSON; and a
//! request has the records of each scope together, in their order.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord as OtlpLogRecord;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use rvh_trace::attribute::Value;
use rvh_trace::config::{Arguments, Config};
use rvh_trace::context::{SpanContext, TraceFlags};
use rvh_trace::id::{SpanId, TraceId};
use rvh_trace::log::{LogRecord, Severity};
use rvh_trace::pipeline::exporter::memory::MemoryExporter;
use rvh_trace::tracer::{SignalExporters, Tracer};
use rvh_trace::wire::json;
use rvh_trace::wire::request::SCHEMA_URL;

const WATCHDOG: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
enum Val {
    Str(String),
    Int(i64),
    Bool(bool),
    Float(f64),
    Array(Vec<String>),
}

impl Val {
    fn as_value(&self) -> Value<'_> {
        match self {
            Self::Str(text) => Value::Str(text),
            Self::Int(int) => Value::Int(*int),
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Float(float) => Value::Float(*float),
            Self::Array(texts) => texts.as_slice().into(),
        }
    }

    fn official(&self) -> AnyValue {
        use any_value::Value as Any;
        let text = |text: &String| Any::StringValue(text.clone());
        let value = match self {
            Self::Str(string) => text(string),
            Self::Int(int) => Any::IntValue(*int),
            Self::Bool(bool) => Any::BoolValue(*bool),
            Self::Float(float) => Any::DoubleValue(*float),
            Self::Array(texts) => Any::ArrayValue(ArrayValue {
                values: texts
                    .iter()
                    .map(|one| AnyValue {
                        value: Some(text(one)),
                    })
                    .collect(),
            }),
        };
        AnyValue { value: Some(value) }
    }
}

#[derive(Clone, Debug)]
struct Model {
    scope: String,
    severity: u8,
    severity_text: String,
    unix_ns: u64,
    body: String,
    event_name: String,
    context: Option<SpanContext>,
    attributes: BTreeMap<String, Val>,
}

impl Model {
    fn log(&self, tracer: &'static Tracer) {
        let mut attributes = tracer.log_attributes();
        let limit = tracer.config().logs.limits.attributes as usize;
        for (index, (key, value)) in self.attributes.iter().enumerate() {
            assert!(!attributes.contains(key));
            attributes.push(key, &value.as_value());
            assert_eq!(attributes.contains(key), index < limit);
        }
        let record = LogRecord {
            scope: &self.scope,
            severity: Severity::from_number(self.severity),
            severity_text: &self.severity_text,
            unix_ns: Some(self.unix_ns),
            body: &self.body,
            event_name: &self.event_name,
            context: self.context.as_ref(),
        };
        tracer.log(&record, attributes);
    }

    fn expected(&self, limit: usize) -> OtlpLogRecord {
        let context = self.context.as_ref();
        OtlpLogRecord {
            time_unix_nano: self.unix_ns,
            severity_number: self.severity.min(24).into(),
            severity_text: self.severity_text.clone(),
            body: Some(Val::Str(self.body.clone()).official()),
            attributes: self
                .attributes
                .iter()
                .take(limit)
                .map(|(key, value)| KeyValue {
                    key: key.clone(),
                    value: Some(value.official()),
                    ..KeyValue::default()
                })
                .collect(),
            dropped_attributes_count: self.attributes.len().saturating_sub(limit) as u32,
            flags: context.map_or(0, |context| context.flags.to_byte().into()),
            trace_id: context.map_or(Vec::new(), |context| context.trace_id.to_bytes().into()),
            span_id: context.map_or(Vec::new(), |context| context.span_id.to_bytes().into()),
            event_name: self.event_name.clone(),
            ..OtlpLogRecord::default()
        }
    }
}

/// Now and then long enough for lengths of two and three bytes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => any::<String>(),
        1 => "[a-zü]{100,140}",
        1 => "x{16370,16400}",
    ]
}

fn value() -> impl Strategy<Value = Val> {
    prop_oneof![
        text().prop_map(Val::Str),
        any::<i64>().prop_map(Val::Int),
        any::<bool>().prop_map(Val::Bool),
        // JSON has no bits of a NaN to compare.
        (-1e300..1e300).prop_map(Val::Float),
        vec(".{0,9}", 0..4).prop_map(Val::Array),
    ]
}

fn context() -> impl Strategy<Value = SpanContext> {
    (1u128.., 1u64.., 0u8..4).prop_map(|(trace, span, flags)| SpanContext {
        trace_id: TraceId::from_bytes(trace.to_be_bytes()),
        span_id: SpanId::from_bytes(span.to_be_bytes()),
        flags: TraceFlags::from_byte(flags),
        ..SpanContext::default()
    })
}

fn model() -> impl Strategy<Value = Model> {
    (
        // Few, so that they come again.
        prop_oneof![Just(String::new()), "[ab]", text()],
        0u8..30,
        prop_oneof![Just(String::new()), Just("WARNING".to_owned()), text()],
        any::<u64>(),
        text(),
        prop_oneof![Just(String::new()), "[a-z.]{1,9}"],
        option::of(context()),
        btree_map(".{1,9}", value(), 0..9),
    )
        .prop_map(
            |(scope, severity, severity_text, unix_ns, body, event_name, context, attributes)| {
                Model {
                    scope,
                    severity,
                    severity_text,
                    unix_ns,
                    body,
                    event_name,
                    context,
                    attributes,
                }
            },
        )
}

fn config() -> Config {
    let arguments = Arguments {
        service_name: Some("shop".into()),
        ..Arguments::default()
    };
    let (mut config, _) = Config::load(&arguments, &|_| None).unwrap();
    config.logs.batch.max_queue_bytes = usize::MAX / 2;
    config
}

/// The requests that arrive of what `log` does.
fn exported(config: Config, log: impl FnOnce(&'static Tracer)) -> Vec<bytes::Bytes> {
    let memory = MemoryExporter::new();
    let given = memory.clone();
    let exporters = SignalExporters {
        logs: Some(Arc::new(move || vec![Box::new(given.clone())])),
        ..SignalExporters::default()
    };
    let tracer = Tracer::with_signal_exporters(config, exporters);
    log(tracer);
    assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
    let stats = tracer.stats().logs;
    assert!(stats.is_balanced(), "{stats:?}");
    assert_eq!(stats.created, stats.exported);
    memory.take()
}

/// Scope and records of a request, in which every scope is there once.
fn by_scope(request: &ExportLogsServiceRequest) -> Vec<(String, Vec<OtlpLogRecord>)> {
    let [resource_logs] = &request.resource_logs[..] else {
        unreachable!("one resource")
    };
    assert_eq!(resource_logs.schema_url, SCHEMA_URL);
    assert!(resource_logs.resource.is_some());
    let scopes: Vec<_> = resource_logs
        .scope_logs
        .iter()
        .map(|scope_logs| {
            let scope = scope_logs.scope.clone().unwrap();
            (scope.name, scope_logs.log_records.clone())
        })
        .collect();
    for (index, (scope, _)) in scopes.iter().enumerate() {
        assert!(scopes[..index].iter().all(|(other, _)| other != scope));
    }
    scopes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_field_arrives(models in vec(model(), 1..12), limit in 0u32..12, batch in 1usize..8) {
        let mut config = config();
        config.logs.limits.attributes = limit;
        config.logs.batch.max_export_batch_size = batch;
        let requests = exported(config, |tracer| models.iter().for_each(|model| model.log(tracer)));
        let mut rest = models.as_slice();
        for request in requests {
            let decoded = ExportLogsServiceRequest::decode(&request[..]).unwrap();
            let json = json::logs(&request).unwrap();
            let read: ExportLogsServiceRequest = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(&read, &decoded);

            let scopes = by_scope(&decoded);
            let count = scopes.iter().map(|(_, records)| records.len()).sum();
            prop_assert!((1..=batch).contains(&count));
            let (sent, later) = rest.split_at(count);
            rest = later;
            let mut expected: Vec<(String, Vec<OtlpLogRecord>)> = Vec::new();
            for model in sent {
                let record = model.expected(limit as usize);
                match expected.iter_mut().find(|(scope, _)| *scope == model.scope) {
                    Some((_, records)) => records.push(record),
                    None => expected.push((model.scope.clone(), vec![record])),
                }
            }
            let mut arrived = scopes;
            for record in arrived.iter_mut().flat_map(|(_, records)| records) {
                prop_assert!(record.observed_time_unix_nano > 0);
                record.observed_time_unix_nano = 0;
            }
            prop_assert_eq!(arrived, expected);
        }
        prop_assert!(rest.is_empty());
    }
}

#[test]
fn a_record_without_a_time_happened_when_it_was_seen() {
    let requests = exported(config(), |tracer| {
        tracer.log(&LogRecord::default(), tracer.log_attributes());
    });
    let decoded = ExportLogsServiceRequest::decode(&requests[0][..]).unwrap();
    let record = &by_scope(&decoded)[0].1[0];
    assert_eq!(record.time_unix_nano, record.observed_time_unix_nano);
}

#[test]
fn a_context_that_is_not_valid_is_none() {
    let requests = exported(config(), |tracer| {
        let record = LogRecord {
            context: Some(&SpanContext::INVALID),
            ..LogRecord::default()
        };
        tracer.log(&record, tracer.log_attributes());
    });
    let decoded = ExportLogsServiceRequest::decode(&requests[0][..]).unwrap();
    let record = &by_scope(&decoded)[0].1[0];
    assert!(record.trace_id.is_empty() && record.span_id.is_empty());
}

#[test]
fn without_an_exporter_of_logs_nothing_comes_of_a_record() {
    let tracer = Tracer::with_exporters_of(config(), Some(Arc::new(Vec::new)), None);
    assert!(!tracer.exports_logs());
    tracer.log(&LogRecord::default(), tracer.log_attributes());
    assert_eq!(tracer.stats().logs.created, 0);
    assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
}

#[test]
fn a_rubbish_request_is_no_json() {
    assert_eq!(json::logs(b"\x0a\x7f"), None);
}
