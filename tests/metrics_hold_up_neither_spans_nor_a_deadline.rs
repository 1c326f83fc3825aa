//! A destination that hangs on metrics delays no span, and a flush and a shutdown return when their time is up.

mod collector;

use std::time::Duration;

use collector::{
    Answer, Collector, GET, METRICS, TRACES, WATCHDOG, end_span, instruments, took, tracer,
};
use rvh_trace::error::Error;
use rvh_trace::tracer::Tracer;

const SHORT: Duration = Duration::from_millis(50);

fn hanging_on(hangs: &'static str) -> Collector {
    Collector::that(move |path| {
        if path == hangs {
            Answer::Never
        } else {
            Answer::Status("200 OK")
        }
    })
}

fn measure_and_end_a_span(tracer: &'static Tracer) {
    end_span(tracer, "span");
    instruments(tracer).record(&GET, &took(1));
}

/// Runs `work` on a thread of its own, and fails instead of waiting forever for what it gives.
#[track_caller]
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    wait.recv_timeout(WATCHDOG)
        .unwrap_or_else(|_| unreachable!("it failed or never came"))
}

#[test]
fn spans_pass_metrics_that_hang() {
    let collector = hanging_on(METRICS);
    let tracer = tracer(&collector);
    measure_and_end_a_span(tracer);
    let flushed = in_time(|| tracer.force_flush(SHORT));
    assert!(matches!(flushed, Err(Error::Timeout { .. })), "{flushed:?}");
    collector.wait_for(METRICS, 1);
    for round in 2..5 {
        end_span(tracer, "span");
        let _ = in_time(|| tracer.force_flush(SHORT));
        collector.wait_for(TRACES, round);
    }
    assert_eq!(collector.bodies(METRICS).len(), 1, "the first still hangs");
}

#[test]
fn metrics_pass_spans_that_hang() {
    let collector = hanging_on(TRACES);
    let tracer = tracer(&collector);
    measure_and_end_a_span(tracer);
    assert!(in_time(|| tracer.force_flush(SHORT)).is_err());
    collector.wait_for(TRACES, 1);
    let _ = in_time(|| tracer.force_flush(SHORT));
    collector.wait_for(METRICS, 2);
    assert_eq!(collector.bodies(TRACES).len(), 1, "the first still hangs");
}

#[test]
fn a_shutdown_gives_up_on_metrics_that_hang_and_has_sent_the_spans() {
    for timeout in [Duration::ZERO, SHORT] {
        let collector = hanging_on(METRICS);
        let tracer = tracer(&collector);
        end_span(tracer, "sent before");
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
        instruments(tracer).record(&GET, &took(1));
        // The export that a flush began is cut short too.
        assert!(in_time(|| tracer.force_flush(SHORT)).is_err());
        let ended = in_time(move || tracer.shutdown(timeout));
        let error = Error::Timeout {
            operation: "shutdown",
            timeout,
            pending: 0,
        };
        assert_eq!(ended, Err(error));
        assert_eq!(
            in_time(|| tracer.shutdown(WATCHDOG)),
            Ok(()),
            "once is enough"
        );
        let stats = tracer.stats();
        assert_eq!((stats.exported, stats.dropped()), (1, 0));
        assert_eq!(stats.metric_exports, 0);
    }
}

#[test]
fn an_export_of_metrics_has_a_timeout_of_its_own() {
    let collector = hanging_on(METRICS);
    let variables = [("OTEL_METRIC_EXPORT_TIMEOUT", "50")];
    let config = collector::config(Some(collector.endpoint()), &variables);
    let Ok(tracer) = Tracer::new(config) else {
        unreachable!("the configuration is right")
    };
    instruments(tracer).record(&GET, &took(1));
    let flushed = in_time(|| tracer.force_flush(WATCHDOG));
    assert!(matches!(flushed, Err(Error::Export(_))), "{flushed:?}");
    assert_eq!(tracer.stats().metric_exports_failed, 1);
}
