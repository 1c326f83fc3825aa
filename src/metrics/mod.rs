//! What a process measures: the instruments of HTTP servers and event loops, aggregated by `opentelemetry_sdk`, exemplars added.
//!
//! Any thread records; the [worker](crate::pipeline::worker) collects, and nothing else here runs by itself. There is no
//! second thread: the SDK's reader is a manual one. The worker starts with the first measurement, and a process that
//! measures nothing exports nothing. A forked child has metrics of its own, which start at zero.
//!
//! [`HttpServerMetrics::record`] is the hot path. A collection costs the worker some microseconds a series and holds up
//! recording only while exemplars change hands.

mod active_requests;
mod encoding;
mod event_loop;
mod exemplar;
mod http_server;
mod recording;
mod sdk;
mod series;

pub use event_loop::EventLoopMetrics;
pub use exemplar::Exemplar;
pub use http_server::{HttpServerMetrics, Measured};
pub(crate) use sdk::{ExporterStats, put_sdk_metrics};
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
    event_loop: EventLoopMetrics,
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
        let meter = provider.meter_with_scope(scope);
        Self {
            http_server: HttpServerMetrics::new(&meter, &config, Arc::clone(&recording)),
            event_loop: EventLoopMetrics::new(&meter, Arc::clone(&recording)),
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

    /// The instruments of event loops.
    pub fn event_loop(&self) -> &EventLoopMetrics {
        &self.event_loop
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::pipeline::exporter::memory;
    use crate::resource::Resource;
    use crate::wire::request::Envelope;
    use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, metric};
    use std::sync::atomic::{AtomicU32, Ordering};

    pub(super) const REQUEST: Request<'_> = Request {
        status_code: Some(200),
        route: None,
        method: "GET",
        scheme: "http",
        error_type: None,
        protocol_version: None,
        server: None,
    };

    /// Every data point of a collection.
    pub(super) fn collected(metrics: &Metrics) -> Vec<HistogramDataPoint> {
        let request = Envelope::new(&Resource::default()).request(&metrics.collect());
        let request = memory::decode_metrics(&request).unwrap();
        let scopes = request
            .resource_metrics
            .into_iter()
            .flat_map(|resource| resource.scope_metrics);
        scopes
            .flat_map(|scope| scope.metrics)
            .flat_map(|metric| match metric.data {
                Some(metric::Data::Histogram(histogram)) => histogram.data_points,
                other => unreachable!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn the_first_measurement_begins_and_none_counts_after_the_end() {
        let metrics = Metrics::new(MetricsConfig::default());
        let begun = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&begun);
        metrics.when_first_recorded(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        assert!(metrics.collect().is_empty());
        assert_eq!(begun.load(Ordering::Relaxed), 0);
        for _ in 0..3 {
            metrics.http_server().record(&REQUEST, &Measured::default());
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        metrics.close();
        metrics.http_server().record(&REQUEST, &Measured::default());
        assert_eq!(collected(&metrics)[0].count, 3);

        let unused = Metrics::new(MetricsConfig::default());
        unused.close();
        unused.http_server().record(&REQUEST, &Measured::default());
        assert!(unused.collect().is_empty());
    }

    #[test]
    fn more_series_than_one_metric_holds_go_into_several_that_can_be_split() {
        let metrics = Metrics::new(MetricsConfig::default());
        let routes: Vec<_> = (0..1_234).map(|number| format!("/{number}")).collect();
        for route in &routes {
            let request = Request {
                route: Some(route),
                ..REQUEST
            };
            metrics.http_server().record(&request, &Measured::default());
        }
        let run = metrics.collect();
        let (count, end) = crate::wire::span::take_spans(&run, usize::MAX, usize::MAX);
        assert_eq!((count, end), (3, run.len()));
        let points = collected(&metrics);
        assert_eq!(points.len(), routes.len());
        assert!(points.iter().all(|point| point.count == 1));
    }
}
