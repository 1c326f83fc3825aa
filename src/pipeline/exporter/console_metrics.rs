//! Prints metrics to standard output, one line a series: what a developer looks at before there is a collector.

use std::fmt::Write as _;
use std::io::Write;

use bytes::Bytes;
use futures::future::BoxFuture;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    HistogramDataPoint, Metric, NumberDataPoint, metric, number_data_point,
};

use super::response::excerpt;
use super::{Exporter, Outcome, memory};

/// Prints every collection.
pub struct ConsoleMetricsExporter {
    out: Box<dyn Write + Send>,
}

impl ConsoleMetricsExporter {
    /// Prints to standard output.
    pub fn new() -> Self {
        Self::to(Box::new(std::io::stdout()))
    }

    /// Prints to `out`.
    pub fn to(out: Box<dyn Write + Send>) -> Self {
        Self { out }
    }

    fn accept(&mut self, request: &[u8]) -> Outcome {
        let request = match memory::decode_metrics(request) {
            Ok(request) => request,
            Err(error) => {
                return Outcome::Rejected {
                    error: format!("not an ExportMetricsServiceRequest: {error}"),
                };
            }
        };
        let metrics = request
            .resource_metrics
            .iter()
            .flat_map(|resource| &resource.scope_metrics)
            .flat_map(|scope| &scope.metrics);
        let mut text = String::new();
        for metric in metrics {
            put_metric(&mut text, metric);
        }
        // A closed standard output is no reason to trouble a traced application.
        let _ = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush());
        Outcome::DELIVERED
    }
}

impl Default for ConsoleMetricsExporter {
    fn default() -> Self {
        Self::new()
    }
}

impl Exporter for ConsoleMetricsExporter {
    fn name(&self) -> &'static str {
        "console"
    }

    fn export(&mut self, request: Bytes, _items: usize) -> BoxFuture<'_, Outcome> {
        let outcome = self.accept(&request);
        Box::pin(std::future::ready(outcome))
    }
}

fn put_metric(out: &mut String, metric: &Metric) {
    match &metric.data {
        Some(metric::Data::Histogram(histogram)) => {
            for point in &histogram.data_points {
                put_line(out, metric, &point.attributes, &distribution(point, metric));
            }
        }
        Some(metric::Data::Sum(sum)) => {
            for point in &sum.data_points {
                put_line(out, metric, &point.attributes, &number(point));
            }
        }
        Some(metric::Data::Gauge(gauge)) => {
            for point in &gauge.data_points {
                put_line(out, metric, &point.attributes, &number(point));
            }
        }
        _ => put_line(out, metric, &[], "of a kind that is not shown"),
    }
}

/// `http.server.request.duration{http.request.method=GET, url.scheme=http} count=2 mean=0.01 min=0.005 max=0.015 s`
fn put_line(out: &mut String, metric: &Metric, attributes: &[KeyValue], value: &str) {
    let attributes: Vec<_> = attributes
        .iter()
        .map(|attribute| format!("{}={}", attribute.key, attribute_text(attribute)))
        .collect();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{}{{{}}} {value} {}",
        metric.name,
        attributes.join(", "),
        metric.unit
    );
}

fn attribute_text(attribute: &KeyValue) -> String {
    match attribute
        .value
        .as_ref()
        .and_then(|value| value.value.as_ref())
    {
        Some(any_value::Value::StringValue(text)) => excerpt(text),
        Some(any_value::Value::IntValue(value)) => value.to_string(),
        Some(any_value::Value::BoolValue(value)) => value.to_string(),
        Some(any_value::Value::DoubleValue(value)) => value.to_string(),
        _ => "…".to_owned(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a mean, to be read by people")]
fn distribution(point: &HistogramDataPoint, metric: &Metric) -> String {
    let places = if metric.unit == "s" { 6 } else { 0 };
    let mut text = format!("count={}", point.count);
    let mean = point.sum.map(|sum| sum / point.count.max(1) as f64);
    for (name, value) in [("mean", mean), ("min", point.min), ("max", point.max)] {
        if let Some(value) = value {
            let _ = write!(text, " {name}={value:.places$}");
        }
    }
    text
}

fn number(point: &NumberDataPoint) -> String {
    match point.value {
        Some(number_data_point::Value::AsInt(value)) => value.to_string(),
        Some(number_data_point::Value::AsDouble(value)) => value.to_string(),
        None => "no value".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::MetricsConfig;
    use crate::metrics::{Measured, Metrics, Request};
    use crate::resource::Resource;
    use crate::wire::request::Envelope;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_series_is_a_line() {
        let metrics = Metrics::new(MetricsConfig::default());
        let request = Request {
            status_code: Some(200),
            route: Some("/items\n/{id}"),
            method: "GET",
            scheme: "http",
            error_type: None,
            protocol_version: None,
            server: None,
        };
        for duration_ns in [1_000_000, 2_000_000] {
            let measured = Measured {
                duration_ns,
                response_body_bytes: Some(7),
                ..Measured::default()
            };
            metrics.http_server().record(&request, &measured);
        }
        metrics.http_server().active_requests("GET", "http", 3);
        let out = Shared::default();
        let mut exporter = ConsoleMetricsExporter::to(Box::new(out.clone()));
        let request = Envelope::new(&Resource::default()).request(&metrics.collect());
        assert_eq!(exporter.accept(&request), Outcome::DELIVERED);
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        let of = "{http.request.method=GET, http.response.status_code=200, http.route=/items /{id}, url.scheme=http}";
        assert_eq!(
            lines,
            [
                "http.server.active_requests{http.request.method=GET, url.scheme=http} 3 {request}",
                &format!(
                    "http.server.request.duration{of} count=2 mean=0.001500 min=0.001000 max=0.002000 s"
                ),
                &format!("http.server.response.body.size{of} count=2 mean=7 min=7 max=7 By"),
            ]
        );
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let mut exporter = ConsoleMetricsExporter::to(Box::new(std::io::sink()));
        assert!(matches!(
            exporter.accept(b"\x0a\x7f"),
            Outcome::Rejected { .. }
        ));
    }
}
