//! An OTLP/HTTP collector on a loopback socket, and tracers that send to it.
//!
//! Nothing here sleeps: a test waits for a condition, and a watchdog that no healthy run comes near fails it.

#![allow(dead_code, reason = "each test file uses its part")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Histogram, HistogramDataPoint, Metric, Sum, metric::Data,
};
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use rvh_trace::config::{Arguments, Config};
use rvh_trace::id::{SpanId, TraceId};
use rvh_trace::metrics::{Exemplar, HttpServerMetrics, Measured, Request};
use rvh_trace::pipeline::exporter::memory;
use rvh_trace::span::SpanKind;
use rvh_trace::tracer::{Started, Tracer};

/// Longer than anything takes on the slowest machine.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(120);

pub(crate) const TRACES: &str = "/v1/traces";
pub(crate) const METRICS: &str = "/v1/metrics";

/// What the collector says to one request.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// `200 OK`, or another status line.
    Status(&'static str),
    /// Nothing, ever.
    Never,
}

type Rule = Arc<dyn Fn(&str) -> Answer + Send + Sync>;
/// Path and body of every request, in the order they came.
type Heard = Arc<(Mutex<Vec<(String, Vec<u8>)>>, Condvar)>;

/// A collector under the test's control.
pub(crate) struct Collector {
    port: u16,
    heard: Heard,
}

impl Collector {
    /// Answers a request by its path.
    pub(crate) fn that(rule: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, rule): (Heard, Rule) = (Arc::default(), Arc::new(rule));
        let collector = Self {
            port,
            heard: Arc::clone(&heard),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (heard, rule) = (Arc::clone(&heard), Arc::clone(&rule));
                std::thread::spawn(move || serve(stream.unwrap(), &heard, &rule));
            }
        });
        collector
    }

    /// Takes everything.
    pub(crate) fn open() -> Self {
        Self::that(|_| Answer::Status("200 OK"))
    }

    /// `http://127.0.0.1:<port>`
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The bodies that came on this path so far.
    pub(crate) fn bodies(&self, path: &str) -> Vec<Vec<u8>> {
        let heard = self.heard.0.lock().unwrap();
        let on_path = heard.iter().filter(|(heard_on, _)| heard_on == path);
        on_path.map(|(_, body)| body.clone()).collect()
    }

    /// Waits until `count` requests have come on this path.
    pub(crate) fn wait_for(&self, path: &str, count: usize) {
        let enough = |heard: &Vec<(String, Vec<u8>)>| {
            heard
                .iter()
                .filter(|(heard_on, _)| heard_on == path)
                .count()
                >= count
        };
        let (_heard, waited) = self
            .heard
            .1
            .wait_timeout_while(self.heard.0.lock().unwrap(), WATCHDOG, |heard| {
                !enough(heard)
            })
            .unwrap();
        assert!(!waited.timed_out(), "{count} requests on {path} never came");
    }

    /// What the last request of metrics says.
    pub(crate) fn last_metrics(&self) -> Vec<Metric> {
        metrics(self.bodies(METRICS).last().unwrap())
    }

    /// The spans that came so far.
    pub(crate) fn spans(&self) -> Vec<OtlpSpan> {
        let requests = self.bodies(TRACES);
        let resources = requests
            .iter()
            .flat_map(|body| memory::decode(body).unwrap().resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

fn serve(stream: TcpStream, heard: &Heard, rule: &Rule) {
    let mut stream = BufReader::new(stream);
    while let Some((path, body)) = hear(&mut stream) {
        let answer = rule(&path);
        heard.0.lock().unwrap().push((path, body));
        heard.1.notify_all();
        match answer {
            Answer::Status(status) => {
                let response = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                // The other side may have gone: a deadline passed.
                let _ = stream.get_mut().write_all(response.as_bytes());
            }
            Answer::Never => {}
        }
    }
}

fn hear(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head.split(' ').nth(1)?.to_owned(), body))
}

/// The metrics of a request, which are all of our one scope.
pub(crate) fn metrics(body: &[u8]) -> Vec<Metric> {
    let request = memory::decode_metrics(body).unwrap();
    let [resource] = &request.resource_metrics[..] else {
        unreachable!("one resource a request: {request:?}")
    };
    let [scope] = &resource.scope_metrics[..] else {
        unreachable!("one scope a request: {request:?}")
    };
    scope.metrics.clone()
}

/// The histogram of this name.
#[track_caller]
pub(crate) fn histogram<'a>(metrics: &'a [Metric], name: &str) -> &'a Histogram {
    match find(metrics, name).data.as_ref() {
        Some(Data::Histogram(histogram)) => histogram,
        other => unreachable!("{name} is {other:?}"),
    }
}

/// The sum of this name.
#[track_caller]
pub(crate) fn sum<'a>(metrics: &'a [Metric], name: &str) -> &'a Sum {
    match find(metrics, name).data.as_ref() {
        Some(Data::Sum(sum)) => sum,
        other => unreachable!("{name} is {other:?}"),
    }
}

#[track_caller]
pub(crate) fn find<'a>(metrics: &'a [Metric], name: &str) -> &'a Metric {
    let named: Vec<_> = metrics
        .iter()
        .filter(|metric| metric.name == name)
        .collect();
    assert_eq!(named.len(), 1, "{name} in {metrics:?}");
    named[0]
}

/// The only data point of the durations.
#[track_caller]
pub(crate) fn only_duration(metrics: &[Metric]) -> &HistogramDataPoint {
    let durations = histogram(metrics, "http.server.request.duration");
    assert_eq!(durations.data_points.len(), 1, "{durations:?}");
    &durations.data_points[0]
}

/// Attributes as text, in order of their keys.
pub(crate) fn attributes(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |value: any_value::Value| match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(int) => format!("int {int}"),
        any_value::Value::BoolValue(bool) => format!("bool {bool}"),
        other => format!("{other:?}"),
    };
    let mut pairs: Vec<_> = attributes
        .iter()
        .map(|attribute| {
            let value = attribute.value.clone().unwrap().value.unwrap();
            (attribute.key.clone(), text(value))
        })
        .collect();
    pairs.sort();
    pairs
}

/// The default settings for this collector. What is exported is exported when somebody asks.
pub(crate) fn config(endpoint: Option<String>, variables: &[(&str, &str)]) -> Config {
    let variables: Vec<(String, String)> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let arguments = Arguments {
        endpoint,
        ..Arguments::default()
    };
    let (mut config, warnings) = Config::load(&arguments, &|name| {
        let variable = variables.iter().find(|(known, _)| known == name);
        variable.map(|(_, value)| value.clone())
    })
    .unwrap();
    assert_eq!(warnings, [""; 0]);
    config.batch.schedule_delay = Duration::from_secs(24 * 3600);
    config.metrics.interval = Duration::from_secs(24 * 3600);
    config
}

/// A tracer that sends spans and metrics to this collector.
pub(crate) fn tracer(collector: &Collector) -> &'static Tracer {
    Tracer::new(config(Some(collector.endpoint()), &[])).unwrap()
}

/// The instruments of a tracer that exports metrics.
pub(crate) fn instruments(tracer: &Tracer) -> &'static HttpServerMetrics {
    tracer.http_server_metrics().unwrap()
}

/// `GET /items/{id}`, answered with 200.
pub(crate) const GET: Request<'static> = Request {
    status_code: Some(200),
    route: Some("/items/{id}"),
    method: "GET",
    scheme: "http",
    error_type: None,
    protocol_version: Some("1.1"),
    server: None,
};

/// A request that took so long, and nothing else about it.
pub(crate) fn took(duration_ns: u64) -> Measured {
    Measured {
        duration_ns,
        ..Measured::default()
    }
}

/// An exemplar of a new span.
pub(crate) fn exemplar(is_sampled: bool, unix_ns: u64) -> Exemplar {
    Exemplar {
        trace_id: TraceId::random(),
        span_id: SpanId::random(),
        is_sampled,
        unix_ns,
    }
}

/// Starts and ends a span of this name.
pub(crate) fn end_span(tracer: &'static Tracer, name: &str) {
    match tracer.start(None, SpanKind::Internal, name) {
        Started::Recording(mut span) => span.end(),
        other => unreachable!("every span is recorded, and this one is {other:?}"),
    }
}
