//! What a process measures: the instruments of HTTP servers, aggregated by `opentelemetry_sdk`, exemplars added.
//!
//! Any thread records; the [worker](crate::pipeline::worker) collects, and nothing else here runs by itself. There is no
//! second thread: the SDK's reader is a manual one. The worker starts with the first measurement, and a process that
//! measures nothing exports nothing. A forked child has metrics of its own, which start at zero.
//!
//! [`HttpServerMetrics::record`] is the hot path. A collection costs the worker some microseconds a series and holds up
//! recording only while exemplars change hands.

mod active_requests;
mod encoding;
mod exemplar;
mod http_server;
mod recording;
mod series;

pub use exemplar::Exemplar;
pub use http_server::{HttpServerMetrics, Measured};
pub use series::Request;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    Instrument, InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Stream, Temporality,
};

use crate::config::MetricsConfig;
use recording::Recording;

/// The metrics of one process.
pub struct Metrics {
    config: MetricsConfig,
    recording: Arc<Recording>,
    reader: Reader,
    http_server: HttpServerMetrics,
    /// Keeps alive what the reader reads.
    _provider: SdkMeterProvider,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Metrics {
    /// Instruments that have measured nothing.
    pub fn new(config: MetricsConfig) -> Self {
        let reader = ManualReader::builder()
            .with_temporality(config.temporality)
            .build();
        let reader = Reader(Arc::new(reader));
        // Our own tables are the bound. The SDK's is above what they bind at any moment: with delta temporality it lets go of
        // a series one collection after we do.
        let limit = config.cardinality_limit.saturating_mul(2).saturating_add(2);
        let provider = SdkMeterProvider::builder()
            // Resource and scope are put before the metrics when they are exported, the same bytes as the spans'.
            .with_resource(Resource::builder_empty().build())
            .with_reader(reader.clone())
            .with_view(move |_: &Instrument| {
                Stream::builder().with_cardinality_limit(limit).build().ok()
            })
            .build();
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME")).build();
        let recording = Arc::new(Recording::default());
        Self {
            http_server: HttpServerMetrics::new(
                &provider.meter_with_scope(scope),
                &config,
                Arc::clone(&recording),
            ),
            reader,
            recording,
            config,
            _provider: provider,
        }
    }

    /// The settings it was made with.
    pub fn config(&self) -> &MetricsConfig {
        &self.config
    }

    /// The instruments of HTTP servers.
    #[inline]
    pub fn http_server(&self) -> &HttpServerMetrics {
        &self.http_server
    }

    /// Sets what is called once, on the thread of the first measurement and before it counts.
    pub(crate) fn when_first_recorded(&self, begin: Box<dyn Fn() + Send + Sync>) {
        self.recording.when_begun(begin);
    }

    /// Measures nothing from now on; what was measured can still be collected.
    pub(crate) fn close(&self) {
        self.recording.close();
    }

    /// Everything measured so far, or since the last collection if the temporality is delta, as a run of encoded
    /// `ScopeMetrics.metrics` fields. Empty when there is nothing to say.
    pub(crate) fn collect(&self) -> Vec<u8> {
        if !self.recording.has_begun() {
            return Vec::new();
        }
        let forgets = self.config.temporality != Temporality::Cumulative;
        // Exemplars before the numbers: every exemplar then belongs to a measurement that the numbers contain.
        let exemplars = self.http_server.take_exemplars(forgets);
        let mut collected = ResourceMetrics::default();
        if self.reader.0.collect(&mut collected).is_err() {
            return Vec::new();
        }
        let mut out = Vec::new();
        for metric in collected
            .scope_metrics()
            .flat_map(opentelemetry_sdk::metrics::data::ScopeMetrics::metrics)
        {
            encoding::put_metric(&mut out, metric, &exemplars);
        }
        out
    }
}

/// The SDK wants to own its reader, and so do we.
#[derive(Clone, Debug)]
struct Reader(Arc<ManualReader>);

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}
