//! Exporters that do as a test tells them, and a tracer that sends to them.
//!
//! Nothing here sleeps: a test waits for a condition, and a watchdog that no healthy run comes near fails it.

#![allow(dead_code, reason = "each test file uses its part")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, pending, ready};
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use rvh_trace::config::{Arguments, BatchConfig, Config};
use rvh_trace::pipeline::exporter::{Exporter, Outcome, memory};
use rvh_trace::span::{Span, SpanKind};
use rvh_trace::stats::Snapshot;
use rvh_trace::tracer::{Started, Tracer};

/// Longer than anything takes on the slowest machine.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(120);

/// What an exporter does with one request.
pub(crate) enum Answer {
    /// Gives this outcome at once.
    Now(Outcome),
    /// Gives this outcome when the gate opens.
    When(Gate, Outcome),
    /// Never gives any.
    Never,
}

/// One attempt to deliver a request, as the exporter saw it.
#[derive(Clone)]
pub(crate) struct Attempt {
    /// How many came before it.
    pub(crate) number: usize,
    /// The encoded request.
    pub(crate) request: Bytes,
    /// How many spans the worker said it holds.
    pub(crate) spans: usize,
}

impl Attempt {
    /// The names of the spans in it, after checking that there are as many as the worker said.
    pub(crate) fn names(&self) -> Vec<String> {
        let spans = decoded(&self.request);
        assert_eq!(
            spans.len(),
            self.spans,
            "the worker said how many spans the request holds"
        );
        spans.into_iter().map(|span| span.name).collect()
    }
}

type Rule = Arc<dyn Fn(&Attempt) -> Answer + Send + Sync>;

/// A destination under the test's control. Clones are the same destination.
#[derive(Clone)]
pub(crate) struct Destination {
    rule: Rule,
    heard: Arc<(Mutex<Heard>, Condvar)>,
}

#[derive(Default)]
struct Heard {
    /// How often it was started, and how often it was told that nothing follows.
    started_and_ended: [usize; 2],
    attempts: Vec<Attempt>,
    delivered: Vec<String>,
    flushes: usize,
}

impl Destination {
    /// Answers every attempt by this rule.
    pub(crate) fn that(rule: impl Fn(&Attempt) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            rule: Arc::new(rule),
            heard: Arc::default(),
        }
    }

    /// Takes everything.
    pub(crate) fn open() -> Self {
        Self::that(|_| Answer::Now(Outcome::DELIVERED))
    }

    /// Every attempt so far.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.heard.0.lock().unwrap().attempts.clone()
    }

    /// How often it was started, and how often it was told that nothing follows.
    pub(crate) fn started_and_ended(&self) -> [usize; 2] {
        self.heard.0.lock().unwrap().started_and_ended
    }

    /// The names of the spans it took, in order.
    pub(crate) fn delivered(&self) -> Vec<String> {
        self.heard.0.lock().unwrap().delivered.clone()
    }

    /// How often it was told to write out what it holds back.
    pub(crate) fn flushes(&self) -> usize {
        self.heard.0.lock().unwrap().flushes
    }

    /// Waits until `count` attempts have begun.
    pub(crate) fn wait_for_attempts(&self, count: usize) {
        self.wait(&format!("{count} attempts"), |heard| {
            heard.attempts.len() >= count
        });
    }

    /// Waits until `count` spans were taken.
    pub(crate) fn wait_for_delivered(&self, count: usize) {
        self.wait(&format!("{count} delivered spans"), |heard| {
            heard.delivered.len() >= count
        });
    }

    fn wait(&self, what: &str, enough: impl Fn(&Heard) -> bool) {
        let heard = self.heard.0.lock().unwrap();
        let (_heard, waited) = self
            .heard
            .1
            .wait_timeout_while(heard, WATCHDOG, |heard| !enough(heard))
            .unwrap();
        assert!(!waited.timed_out(), "{what} never came");
    }

    fn note(&self, note: impl FnOnce(&mut Heard)) {
        note(&mut self.heard.0.lock().unwrap());
        self.heard.1.notify_all();
    }
}

impl Exporter for Destination {
    fn name(&self) -> &'static str {
        "a destination of a test"
    }

    fn start(&mut self) {
        self.note(|heard| heard.started_and_ended[0] += 1);
    }

    fn shutdown(&mut self) -> BoxFuture<'_, ()> {
        self.note(|heard| heard.started_and_ended[1] += 1);
        self.force_flush()
    }

    fn export(&mut self, request: Bytes, spans: usize) -> BoxFuture<'_, Outcome> {
        let mut attempt = Attempt {
            number: 0,
            request,
            spans,
        };
        self.note(|heard| {
            attempt.number = heard.attempts.len();
            heard.attempts.push(attempt.clone());
        });
        let outcome = match (self.rule)(&attempt) {
            Answer::Now(outcome) => ready(outcome).boxed(),
            Answer::When(gate, outcome) => async move {
                gate.opened().await;
                outcome
            }
            .boxed(),
            Answer::Never => pending().boxed(),
        };
        async move {
            let outcome = outcome.await;
            if let Outcome::Delivered { .. } = outcome {
                self.note(|heard| heard.delivered.extend(attempt.names()));
            }
            outcome
        }
        .boxed()
    }

    fn flush(&mut self) {
        self.note(|heard| heard.flushes += 1);
    }
}

/// Holds exporters back until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(tokio::sync::Notify, std::sync::atomic::AtomicBool)>);

impl Gate {
    /// Lets everybody through, from now on.
    pub(crate) fn open(&self) {
        self.0.1.store(true, std::sync::atomic::Ordering::SeqCst);
        self.0.0.notify_waiters();
    }

    async fn opened(&self) {
        let notified = self.0.0.notified();
        if !self.0.1.load(std::sync::atomic::Ordering::SeqCst) {
            notified.await;
        }
    }
}

/// The default settings without the environment's, and a batch that is sent only when it is full or somebody asks.
pub(crate) fn config() -> Config {
    let (mut config, warnings) = Config::load(&Arguments::default(), &|_| None).unwrap();
    assert_eq!(warnings, [""; 0]);
    config.batch.schedule_delay = Duration::from_secs(24 * 3600);
    config
}

/// A tracer with these batch settings that sends to these destinations.
pub(crate) fn tracer(
    destinations: &[&Destination],
    set: impl FnOnce(&mut BatchConfig),
) -> &'static Tracer {
    let mut config = config();
    set(&mut config.batch);
    let destinations: Vec<Destination> = destinations
        .iter()
        .map(|destination| (*destination).clone())
        .collect();
    Tracer::with_exporters(
        config,
        Arc::new(move || {
            let boxed =
                |destination: &Destination| Box::new(destination.clone()) as Box<dyn Exporter>;
            destinations.iter().map(boxed).collect()
        }),
    )
}

/// A span that has started.
pub(crate) fn start(tracer: &'static Tracer, name: &str) -> Span {
    match tracer.start(None, SpanKind::Internal, name) {
        Started::Recording(span) => span,
        other => unreachable!("every span is recorded, and this one is {other:?}"),
    }
}

/// Starts and ends a span of each name.
pub(crate) fn end_spans<N: AsRef<str>>(
    tracer: &'static Tracer,
    names: impl IntoIterator<Item = N>,
) {
    for name in names {
        start(tracer, name.as_ref()).end();
    }
}

/// `<prefix>0`, `<prefix>1`, and so on.
pub(crate) fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{prefix}{number}"))
        .collect()
}

/// The spans of a request.
pub(crate) fn decoded(request: &[u8]) -> Vec<OtlpSpan> {
    let request = memory::decode(request).unwrap();
    let scopes = request
        .resource_spans
        .into_iter()
        .flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// Checks that every span that ended is exported, dropped, spooled or pending, and gives the counters.
#[track_caller]
pub(crate) fn balanced(tracer: &Tracer) -> Snapshot {
    let stats = tracer.stats();
    assert!(stats.is_balanced(), "{stats:?}");
    stats
}

/// The counters of spans, after checking that nothing is pending: exported, queue full, rejected, failed, exit.
#[track_caller]
pub(crate) fn settled(tracer: &Tracer) -> [u64; 5] {
    let stats = balanced(tracer);
    assert_eq!(stats.pending(), 0, "{stats:?}");
    [
        stats.exported,
        stats.dropped_queue_full,
        stats.dropped_rejected,
        stats.dropped_failed,
        stats.dropped_exit,
    ]
}

/// Waits until `done` is true.
#[track_caller]
pub(crate) fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + WATCHDOG;
    while !done() {
        assert!(std::time::Instant::now() < deadline, "{what}: never came");
        std::thread::yield_now();
    }
}

/// Runs `work` on a thread of its own, and fails instead of waiting forever for what it gives.
#[track_caller]
pub(crate) fn in_time<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    wait.recv_timeout(WATCHDOG)
        .unwrap_or_else(|_| unreachable!("{what} failed or never came"))
}
