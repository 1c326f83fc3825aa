//! `ExportTraceServiceRequest`: resource and scope put before a run of finished spans.
//!
//! `ExportMetricsServiceRequest` has the same fields under the same numbers, so the same envelope goes around metrics.
//! `ExportLogsServiceRequest` has them too, but the scope is that of each logger: [`Envelope::of_logs`].

use bytes::Bytes;

use super::log::Grouped;
use super::{attribute::put_key_value, bytes_key, bytes_len, put_bytes, put_varint, varint_len};
use crate::resource::Resource;

/// The version of the semantic conventions that the instrumentation follows.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

const RESOURCE_SPANS: u32 = bytes_key(1);
const RESOURCE_SPANS_RESOURCE: u32 = bytes_key(1);
const RESOURCE_SPANS_SCOPE_SPANS: u32 = bytes_key(2);
const RESOURCE_SPANS_SCHEMA_URL: u32 = bytes_key(3);
const RESOURCE_ATTRIBUTE: u32 = bytes_key(1);
const SCOPE_SPANS_SCOPE: u32 = bytes_key(1);
const SCOPE_SPANS_SCHEMA_URL: u32 = bytes_key(3);
const SCOPE_NAME: u32 = bytes_key(1);
const SCOPE_VERSION: u32 = bytes_key(2);

/// What stands before the spans of every request, encoded once.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// `ResourceSpans` up to `scope_spans`.
    resource: Vec<u8>,
    /// `ScopeSpans` up to `spans`; `None` if every item brings its own.
    scope: Option<Vec<u8>>,
}

impl Envelope {
    /// The envelope of every span and metric of this process.
    pub fn new(resource: &Resource) -> Self {
        let mut name = Vec::new();
        put_bytes(&mut name, SCOPE_NAME, env!("CARGO_PKG_NAME").as_bytes());
        put_bytes(
            &mut name,
            SCOPE_VERSION,
            env!("CARGO_PKG_VERSION").as_bytes(),
        );
        let mut scope = Vec::new();
        put_bytes(&mut scope, SCOPE_SPANS_SCOPE, &name);
        put_bytes(&mut scope, SCOPE_SPANS_SCHEMA_URL, SCHEMA_URL.as_bytes());
        Self {
            scope: Some(scope),
            ..Self::of_logs(resource)
        }
    }

    /// The envelope of every log record of this process.
    pub fn of_logs(resource: &Resource) -> Self {
        let mut attributes = Vec::new();
        for (key, value) in &resource.attributes {
            put_key_value(
                &mut attributes,
                RESOURCE_ATTRIBUTE,
                key,
                &value.into(),
                None,
            );
        }
        let mut encoded_resource = Vec::new();
        put_bytes(&mut encoded_resource, RESOURCE_SPANS_RESOURCE, &attributes);
        put_bytes(
            &mut encoded_resource,
            RESOURCE_SPANS_SCHEMA_URL,
            SCHEMA_URL.as_bytes(),
        );
        Self {
            resource: encoded_resource,
            scope: None,
        }
    }

    /// Whether a request ends in the very bytes of its items. Those of log records are grouped by scope.
    pub fn keeps_items(&self) -> bool {
        self.scope.is_some()
    }

    /// The request for `spans`, a run of `ScopeSpans.spans` or of `ScopeMetrics.metrics` fields; or, in an envelope of logs,
    /// of `ResourceLogs.scope_logs` fields.
    pub fn request(&self, spans: &[u8]) -> Bytes {
        self.request_in(Vec::new(), spans)
    }

    /// [`Self::request`] in the memory of `out`, whose contents are lost.
    pub fn request_in(&self, mut out: Vec<u8>, spans: &[u8]) -> Bytes {
        out.clear();
        let Some(scope) = &self.scope else {
            let grouped = Grouped::of(spans);
            self.put_resource(&mut out, grouped.len());
            grouped.put(&mut out);
            return out.into();
        };
        let scope_spans_len = scope.len() + spans.len();
        self.put_resource(&mut out, bytes_len(scope_spans_len));
        put_varint(&mut out, u64::from(RESOURCE_SPANS_SCOPE_SPANS));
        put_varint(&mut out, scope_spans_len as u64);
        out.extend_from_slice(scope);
        out.extend_from_slice(spans);
        out.into()
    }

    /// Appends everything up to `scope_spans`, which will take `rest_len` bytes, and makes room for those.
    fn put_resource(&self, out: &mut Vec<u8>, rest_len: usize) {
        let resource_spans_len = self.resource.len() + rest_len;
        out.reserve(1 + varint_len(resource_spans_len as u64) + resource_spans_len);
        put_varint(out, u64::from(RESOURCE_SPANS));
        put_varint(out, resource_spans_len as u64);
        out.extend_from_slice(&self.resource);
    }
}
