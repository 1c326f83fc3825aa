//! Whatever a span is made of, its JSON is read by the official definitions as its bytes are.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod exporters;
#[expect(dead_code, reason = "the strategies alone are of use here")]
mod model;

use std::sync::Arc;

use exporters::{WATCHDOG, config};
use model::{any_resource, any_spans};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use proptest::prelude::*;
use prost::Message;
use rvh_trace::clock::Start;
use rvh_trace::pipeline::exporter::memory::{MemoryExporter, decode};
use rvh_trace::sampler::{Root, Sampler};
use rvh_trace::tracer::{Started, Tracer};
use rvh_trace::wire::json;

/// The reader of the official crate knows no `"NaN"` in an attribute; how that is written is a test of its own.
fn without_infinities(attributes: &mut [KeyValue]) {
    fn finite(value: &mut AnyValue) {
        match &mut value.value {
            Some(Value::DoubleValue(double)) if !double.is_finite() => *double = 0.5,
            Some(Value::ArrayValue(array)) => array.values.iter_mut().for_each(finite),
            Some(Value::KvlistValue(list)) => without_infinities(&mut list.values),
            _ => {}
        }
    }
    attributes
        .iter_mut()
        .filter_map(|attribute| attribute.value.as_mut())
        .for_each(finite);
}

fn comparable(mut request: ExportTraceServiceRequest) -> ExportTraceServiceRequest {
    for resource_spans in &mut request.resource_spans {
        if let Some(resource) = &mut resource_spans.resource {
            without_infinities(&mut resource.attributes);
        }
        for scope_spans in &mut resource_spans.scope_spans {
            for span in &mut scope_spans.spans {
                without_infinities(&mut span.attributes);
                for event in &mut span.events {
                    without_infinities(&mut event.attributes);
                }
                for link in &mut span.links {
                    without_infinities(&mut link.attributes);
                }
            }
        }
    }
    request
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_reads_back(models in any_spans(), resource in any_resource()) {
        let mut config = config();
        config.sampler = Sampler::Always(Root::On);
        config.resource = resource;
        let memory = MemoryExporter::new();
        let given = memory.clone();
        let tracer = Tracer::with_exporters(config, Arc::new(move || vec![Box::new(given.clone())]));
        for model in &models {
            let Started::Recording(mut span) = tracer.create(model.parent.as_ref(), model.kind, &model.name) else {
                unreachable!("every span is recorded");
            };
            span.begin(Start::at(model.start_unix_ns));
            for op in &model.ops {
                op.apply(&mut span);
            }
            span.end_at(model.end_unix_ns);
        }
        prop_assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
        for request in memory.take() {
            // As it is: whatever there is in it, the JSON is JSON.
            let json = json::traces(&request).unwrap();
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());

            let expected = comparable(decode(&request).unwrap());
            let json = json::traces(&expected.encode_to_vec()).unwrap();
            let read: ExportTraceServiceRequest = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(read.encode_to_vec(), expected.encode_to_vec());
        }
    }
}
