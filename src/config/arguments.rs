//! The keyword arguments of `init_tracing`, as the core takes them.

use std::path::PathBuf;

use super::source::without_password;
use super::{CustomExporter, OutputConfig};
use crate::error::Error;
use crate::resource::ResourceValue;

/// What a program says in code. Everything may be left out; the field names are the argument names that errors use.
///
/// Numbers are signed and unchecked, so that [`Config::load`](super::Config::load) can say what is wrong with them.
#[derive(Clone, Default, PartialEq)]
pub struct Arguments {
    /// Records and exports nothing; context is still propagated. `OTEL_SDK_DISABLED`
    pub disabled: Option<bool>,
    /// `service.name`; wins over the resource attribute of that name. `OTEL_SERVICE_NAME`
    pub service_name: Option<String>,
    /// Further attributes of the resource. `OTEL_RESOURCE_ATTRIBUTES`
    pub resource_attributes: Vec<(String, ResourceValue)>,
    /// What the host language's runtime knows of itself, such as `process.runtime.*`; yields to every other source.
    pub runtime_attributes: Vec<(String, ResourceValue)>,
    /// `telemetry.sdk.language`; `rust` unless a binding says otherwise.
    pub sdk_language: Option<String>,

    /// `otlp`, `console`, or `none` alone. `OTEL_TRACES_EXPORTER`
    pub exporter: Option<Vec<String>>,
    /// As `exporter`, for metrics. `OTEL_METRICS_EXPORTER`
    pub metrics_exporter: Option<Vec<String>>,
    /// As `exporter`, for log records. `OTEL_LOGS_EXPORTER`
    pub logs_exporter: Option<Vec<String>>,
    /// Further OTLP destinations of spans, beside those of `exporter`.
    pub otlp_exporters: Vec<OtlpArguments>,
    /// Further OTLP destinations of metrics, beside those of `metrics_exporter`.
    pub otlp_metrics_exporters: Vec<OtlpArguments>,
    /// Streams and files that spans are written to, beside those of `exporter`.
    pub outputs: Vec<OutputConfig>,
    /// The same for metrics, in OTLP/JSON.
    pub metrics_outputs: Vec<OutputConfig>,
    /// The same for log records, in OTLP/JSON.
    pub logs_outputs: Vec<OutputConfig>,
    /// Further OTLP destinations of log records, beside those of `logs_exporter`.
    pub otlp_logs_exporters: Vec<OtlpArguments>,
    /// Exporters of spans that the program brings.
    pub custom_exporters: Vec<CustomExporter>,
    /// Where OTLP goes. With HTTP a base URL, to which each signal appends its path; one that ends in `/v1/traces`,
    /// `/v1/metrics` or `/v1/logs` is a full URL, and for that signal alone. `OTEL_EXPORTER_OTLP_ENDPOINT`
    pub endpoint: Option<String>,
    /// `http/protobuf`, `http/json` or `grpc`. `OTEL_EXPORTER_OTLP_PROTOCOL`
    pub protocol: Option<String>,
    /// Sent with every request, in place of those of `OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: Option<Vec<(String, String)>>,
    /// Milliseconds that one request may take; 0 is no limit. `OTEL_EXPORTER_OTLP_TIMEOUT`
    pub timeout_ms: Option<f64>,
    /// `gzip` or `none`. `OTEL_EXPORTER_OTLP_COMPRESSION`
    pub compression: Option<String>,
    /// Whether a gRPC endpoint without a scheme is plain text. `OTEL_EXPORTER_OTLP_INSECURE`
    pub insecure: Option<bool>,
    /// PEM file of the authorities to trust. `OTEL_EXPORTER_OTLP_CERTIFICATE`
    pub certificate: Option<PathBuf>,
    /// PEM file of our own certificate. `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`
    pub client_certificate: Option<PathBuf>,
    /// PEM file of its key. `OTEL_EXPORTER_OTLP_CLIENT_KEY`
    pub client_key: Option<PathBuf>,

    /// A name of `OTEL_TRACES_SAMPLER`.
    pub sampler: Option<String>,
    /// The share of traces to keep, 0 to 1; alone it means `parentbased_traceidratio`. `OTEL_TRACES_SAMPLER_ARG`
    pub sampler_ratio: Option<f64>,
    /// Names of [`Propagator`](crate::propagation::Propagator), or `none` alone. `OTEL_PROPAGATORS`
    pub propagators: Option<Vec<String>>,

    /// Milliseconds between two exports. `OTEL_BSP_SCHEDULE_DELAY`
    pub schedule_delay_ms: Option<f64>,
    /// Spans that may wait for export. `OTEL_BSP_MAX_QUEUE_SIZE`
    pub max_queue_size: Option<i64>,
    /// Encoded bytes that may wait for export.
    pub max_queue_bytes: Option<i64>,
    /// Spans in one request. `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`
    pub max_export_batch_size: Option<i64>,
    /// Encoded bytes of spans in one request.
    pub max_request_bytes: Option<i64>,
    /// Where spans wait that a destination does not take. `RVH_TRACE_SPOOL_DIRECTORY`
    pub spool_directory: Option<PathBuf>,
    /// Bytes that all spool files in that directory may take. `RVH_TRACE_SPOOL_MAX_BYTES`
    pub spool_max_bytes: Option<i64>,
    /// Milliseconds for an export with its retries; 0 is no limit. `OTEL_BSP_EXPORT_TIMEOUT`
    pub export_timeout_ms: Option<f64>,
    /// Milliseconds that the exit of the process may be held up; 0 is not at all. `RVH_TRACE_EXIT_TIMEOUT`
    pub exit_timeout_ms: Option<f64>,

    /// Milliseconds between two markers of a span that is open; 0 is none. `RVH_TRACE_OPEN_SPAN_INTERVAL`
    pub open_span_interval_ms: Option<f64>,

    /// Milliseconds between two exports of metrics. `OTEL_METRIC_EXPORT_INTERVAL`
    pub metric_export_interval_ms: Option<f64>,
    /// Attribute sets that an instrument tells apart.
    pub metric_cardinality_limit: Option<i64>,

    /// Exports the library's own counters as `otel.sdk.*` metrics. `RVH_TRACE_SELF_METRICS`
    pub self_metrics: Option<bool>,

    /// Attributes on a span. `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`
    pub attribute_count_limit: Option<i64>,
    /// Characters of an attribute value. `OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`
    pub attribute_value_length_limit: Option<i64>,
    /// Events on a span. `OTEL_SPAN_EVENT_COUNT_LIMIT`
    pub event_count_limit: Option<i64>,
    /// Links on a span. `OTEL_SPAN_LINK_COUNT_LIMIT`
    pub link_count_limit: Option<i64>,
    /// Attributes on an event. `OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT`
    pub event_attribute_count_limit: Option<i64>,
    /// Attributes on a link. `OTEL_LINK_ATTRIBUTE_COUNT_LIMIT`
    pub link_attribute_count_limit: Option<i64>,

    /// Which spans, events and records of Rust code are taken: `info,hyper=warn`. `RVH_TRACE_RUST_LOG`
    pub rust_log: Option<String>,
    /// The least severe level of its events that go to the host language's log. `RVH_TRACE_RUST_EVENTS`
    pub rust_events: Option<String>,

    /// The methods that `http.request.method` may name. `OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS`
    pub http_known_methods: Option<Vec<String>>,
    /// `none`, `error`, `warn`, `info` or `debug`. `OTEL_LOG_LEVEL`
    pub log_level: Option<String>,
}

/// One OTLP destination, when there are several. What is left out comes from the variables, as for [`Arguments`].
#[derive(Clone, Default, PartialEq)]
#[expect(
    missing_docs,
    reason = "each field is the argument of that name, see `Arguments`"
)]
pub struct OtlpArguments {
    pub endpoint: Option<String>,
    pub protocol: Option<String>,
    pub headers: Option<Vec<(String, String)>>,
    pub timeout_ms: Option<f64>,
    pub compression: Option<String>,
    pub insecure: Option<bool>,
    pub certificate: Option<PathBuf>,
    pub client_certificate: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
}

impl OtlpArguments {
    /// Whether they make sense by themselves, whatever the variables say.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] for the first that does not.
    pub fn check(&self) -> Result<(), Error> {
        super::exporter::check(self)
    }

    /// The endpoint for people, without credentials.
    pub fn shown_endpoint(&self) -> Option<String> {
        let endpoint = without_password("endpoint", self.endpoint.as_deref()?);
        let end = endpoint.find(['?', '#']).unwrap_or(endpoint.len());
        Some(endpoint[..end].to_owned())
    }

    /// As if they were the program's only ones.
    pub(super) fn alone(&self) -> Arguments {
        let arguments = self.clone();
        Arguments {
            endpoint: arguments.endpoint,
            protocol: arguments.protocol,
            headers: arguments.headers,
            timeout_ms: arguments.timeout_ms,
            compression: arguments.compression,
            insecure: arguments.insecure,
            certificate: arguments.certificate,
            client_certificate: arguments.client_certificate,
            client_key: arguments.client_key,
            ..Arguments::default()
        }
    }
}
