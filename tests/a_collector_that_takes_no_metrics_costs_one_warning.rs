//! Many collectors take traces alone. They answer metrics with 404, or with "unimplemented", and that is no loss.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod collector;

use std::process::Command;

use collector::{Answer, Collector, GET, METRICS, WATCHDOG, end_span, instruments, took, tracer};

/// Set in the process whose standard error is read.
const CHILD: &str = "RVH_TRACE_TEST_CHILD";

fn refusing(status: &'static str) -> Collector {
    Collector::that(move |path| Answer::Status(if path == METRICS { status } else { "200 OK" }))
}

/// What this test says on standard error when it runs in a process of its own; `None` in that process.
fn said_by(test: &str) -> Option<String> {
    if std::env::var_os(CHILD).is_some() {
        return None;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8(child.stderr).unwrap();
    assert!(child.status.success(), "{said}");
    Some(said)
}

#[test]
fn not_found_is_told_once_with_what_to_do_and_spans_arrive() {
    let name = "not_found_is_told_once_with_what_to_do_and_spans_arrive";
    if let Some(said) = said_by(name) {
        let warnings: Vec<_> = said
            .lines()
            .filter(|line| line.contains("rvh_trace: "))
            .collect();
        assert_eq!(warnings.len(), 1, "{said}");
        let warning = warnings[0];
        for part in [
            "warning",
            "/v1/metrics",
            "404",
            "OTEL_METRICS_EXPORTER=none",
        ] {
            assert!(warning.contains(part), "{warning}");
        }
        return;
    }
    let collector = refusing("404 Not Found");
    let tracer = tracer(&collector);
    for round in 1..=3 {
        end_span(tracer, "span");
        instruments(tracer).record(&GET, &took(1));
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()), "it is no loss");
        assert_eq!(collector.spans().len(), round);
        assert_eq!(collector.bodies(METRICS).len(), round);
    }
    assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
    let stats = tracer.stats();
    assert_eq!((stats.exported, stats.dropped(), stats.retries), (3, 0, 0));
    assert_eq!((stats.metric_exports, stats.metric_exports_failed), (0, 0));
}

#[test]
fn any_other_refusal_is_a_loss_that_a_flush_reports_and_spans_arrive() {
    let collector = refusing("403 Forbidden");
    let tracer = tracer(&collector);
    end_span(tracer, "span");
    instruments(tracer).record(&GET, &took(1));
    let error = tracer.force_flush(WATCHDOG).unwrap_err().to_string();
    assert!(
        error.contains("metrics") && error.contains("403"),
        "{error}"
    );
    assert_eq!(collector.spans().len(), 1);
    let stats = tracer.stats();
    assert_eq!((stats.exported, stats.dropped()), (1, 0));
    assert_eq!((stats.metric_exports, stats.metric_exports_failed), (0, 1));
}

#[test]
fn what_a_cumulative_export_lost_the_next_one_makes_good() {
    let refusals = std::sync::atomic::AtomicBool::new(true);
    let collector = Collector::that(move |_| {
        let refuses = refusals.swap(false, std::sync::atomic::Ordering::Relaxed);
        Answer::Status(if refuses { "400 Bad Request" } else { "200 OK" })
    });
    let tracer = tracer(&collector);
    instruments(tracer).record(&GET, &took(1));
    assert!(tracer.force_flush(WATCHDOG).is_err());
    instruments(tracer).record(&GET, &took(1));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(collector::only_duration(&collector.last_metrics()).count, 2);
    let stats = tracer.stats();
    assert_eq!((stats.metric_exports, stats.metric_exports_failed), (1, 1));
}
