//! Keeps what it is given, for tests.
//!
//! Clones share the same store: one goes to the worker, one stays with the test. Nothing bounds it: whoever uses it takes
//! out what came in.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use super::{Exporter, Outcome};

/// An exporter whose destination is memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryExporter {
    requests: Arc<Mutex<Vec<Bytes>>>,
}

impl MemoryExporter {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes out every request received so far, oldest first, as it was received; see [`decode`] and [`decode_metrics`].
    pub fn take(&self) -> Vec<Bytes> {
        std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Exporter for MemoryExporter {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn export(&mut self, request: Bytes, _items: usize) -> BoxFuture<'_, Outcome> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        Box::pin(std::future::ready(Outcome::DELIVERED))
    }
}

/// Decodes what an exporter of metrics received, with the official protobuf definitions.
pub fn decode_metrics(request: &[u8]) -> Result<ExportMetricsServiceRequest, prost::DecodeError> {
    ExportMetricsServiceRequest::decode(request)
}

/// Decodes what an exporter of spans received, with the official protobuf definitions.
pub fn decode(request: &[u8]) -> Result<ExportTraceServiceRequest, prost::DecodeError> {
    ExportTraceServiceRequest::decode(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_clone_takes_out_what_the_worker_put_in_once_and_in_order() {
        let kept = MemoryExporter::new();
        let mut given: Box<dyn Exporter> = Box::new(kept.clone());
        for request in [&b"first"[..], b"second"] {
            let outcome = given.export(Bytes::from_static(request), 1).now_or_never();
            assert_eq!(outcome, Some(Outcome::DELIVERED));
        }
        assert_eq!(kept.take(), ["first", "second"]);
        assert!(kept.take().is_empty());
    }

    #[test]
    fn decode_reads_a_request_and_refuses_rubbish() {
        assert_eq!(decode(b""), Ok(ExportTraceServiceRequest::default()));
        assert!(decode(b"\x0a\x7f").is_err());
    }
}
