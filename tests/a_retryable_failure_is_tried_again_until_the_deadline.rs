//! One attempt after another until the destination takes the request, refuses it for good, or time is up.

mod exporters;

use std::time::Duration;

use exporters::{
    Answer, Destination, WATCHDOG, end_spans, in_time, names, settled, tracer, wait_until,
};
use rvh_trace::error::Error;
use rvh_trace::pipeline::exporter::Outcome;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn retryable(after: Option<Duration>) -> Answer {
    Answer::Now(Outcome::Retryable {
        after,
        error: "busy".into(),
    })
}

/// Answers the first `count` attempts by this rule, and takes what comes later.
fn first(count: usize, answer: impl Fn() -> Answer + Send + Sync + 'static) -> Destination {
    Destination::that(move |attempt| {
        if attempt.number < count {
            answer()
        } else {
            Answer::Now(Outcome::DELIVERED)
        }
    })
}

fn lost(spans: u64, why: &str) -> Result<(), Error> {
    Err(Error::Export(format!("{spans} spans were lost: {why}")))
}

#[test]
fn the_same_request_until_it_is_delivered() {
    let destination = first(3, || retryable(Some(Duration::from_millis(1))));
    let tracer = tracer(&[&destination], |_| {});
    end_spans(tracer, names("n", 3));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let attempts = destination.attempts();
    assert_eq!(attempts.len(), 4);
    assert!(
        attempts
            .iter()
            .all(|attempt| attempt.request == attempts[0].request)
    );
    assert_eq!(settled(tracer), [3, 0, 0, 0, 0]);
    assert_eq!(tracer.stats().retries, 3);
    assert_eq!(tracer.stats().last_error.as_deref(), Some("busy"));
}

#[test]
fn after_a_wait_of_its_own_when_the_destination_names_none() {
    let destination = first(1, || retryable(None));
    let tracer = tracer(&[&destination], |_| {});
    end_spans(tracer, ["n"]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(
        (settled(tracer), tracer.stats().retries),
        ([1, 0, 0, 0, 0], 1)
    );
}

#[test]
fn until_the_export_timeout_and_then_they_are_counted_as_failed() {
    let destination = Destination::that(|_| retryable(Some(Duration::from_millis(1))));
    let tracer = tracer(&[&destination], |batch| {
        batch.export_timeout = Duration::from_millis(50);
    });
    end_spans(tracer, names("n", 3));
    assert_eq!(tracer.force_flush(WATCHDOG), lost(3, "busy"));
    assert_eq!(settled(tracer), [0, 0, 0, 3, 0]);
    assert!(tracer.stats().retries > 0);
}

#[test]
fn an_answer_that_never_comes_fails_and_the_next_request_is_sent() {
    let destination = first(1, || Answer::Never);
    let tracer = tracer(&[&destination], |batch| {
        batch.export_timeout = Duration::from_millis(50);
    });
    end_spans(tracer, ["never answered"]);
    assert_eq!(
        tracer.force_flush(WATCHDOG),
        lost(1, "no answer before the deadline")
    );
    end_spans(tracer, ["taken"]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(destination.delivered(), ["taken"]);
    assert_eq!(settled(tracer), [1, 0, 0, 1, 0]);
}

#[test]
fn a_wait_that_would_pass_the_deadline_is_not_begun() {
    for after in [DAY, Duration::from_secs(u64::MAX), Duration::MAX] {
        let destination = first(1, move || retryable(Some(after)));
        let tracer = tracer(&[&destination], |batch| batch.export_timeout = DAY / 2);
        end_spans(tracer, ["n"]);
        assert_eq!(
            tracer.force_flush(WATCHDOG),
            lost(1, "busy"),
            "asked to wait {after:?}"
        );
        end_spans(tracer, ["the worker goes on"]);
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
        assert_eq!(settled(tracer), [1, 0, 0, 1, 0]);
    }
}

#[test]
fn what_is_refused_for_good_is_not_sent_again() {
    let destination = first(1, || {
        Answer::Now(Outcome::Rejected {
            error: "no such tenant".into(),
        })
    });
    let tracer = tracer(&[&destination], |_| {});
    end_spans(tracer, names("n", 2));
    assert_eq!(tracer.force_flush(WATCHDOG), lost(2, "no such tenant"));
    assert_eq!(destination.attempts().len(), 1);
    assert_eq!(settled(tracer), [0, 0, 2, 0, 0]);
}

#[test]
fn a_shutdown_ends_a_long_wait_with_one_last_attempt() {
    let destination = first(1, || retryable(Some(DAY)));
    let tracer = tracer(&[&destination], |batch| {
        batch.export_timeout = 2 * DAY;
        batch.max_export_batch_size = 2;
    });
    end_spans(tracer, names("n", 2));
    wait_until("the wait between attempts", || tracer.stats().retries == 1);
    end_spans(tracer, ["queued behind it"]);
    assert_eq!(in_time("shutdown", || tracer.shutdown(WATCHDOG)), Ok(()));
    assert_eq!(destination.delivered(), ["n0", "n1", "queued behind it"]);
    assert_eq!(settled(tracer), [3, 0, 0, 0, 0]);
}

#[test]
fn a_shutdown_with_the_collector_down_waits_for_no_second_attempt() {
    let destination = Destination::that(|_| retryable(Some(DAY)));
    let tracer = tracer(&[&destination], |batch| {
        batch.export_timeout = 2 * DAY;
        batch.max_export_batch_size = 2;
    });
    end_spans(tracer, names("n", 2));
    wait_until("the wait between attempts", || tracer.stats().retries == 1);
    end_spans(tracer, names("queued", 4));
    let ended = in_time("shutdown", || tracer.shutdown(WATCHDOG));
    assert!(matches!(ended, Err(Error::Export(_))), "{ended:?}");
    assert_eq!(settled(tracer), [0, 0, 0, 6, 0]);
    let sizes: Vec<_> = destination
        .attempts()
        .iter()
        .map(|attempt| attempt.spans)
        .collect();
    assert_eq!(
        sizes,
        [2, 2, 2, 2],
        "the first request twice, those behind it once"
    );
}

#[test]
fn a_flush_before_the_exit_ends_a_long_wait_and_leaves_the_pipeline_open() {
    let destination = first(2, || retryable(Some(DAY)));
    let tracer = tracer(&[&destination], |batch| {
        batch.export_timeout = 2 * DAY;
        batch.max_export_batch_size = 1;
    });
    end_spans(tracer, ["tried twice"]);
    wait_until("the wait between attempts", || tracer.stats().retries == 1);
    let ran_out = in_time("flush", || tracer.flush_before_exit(WATCHDOG / 2));
    assert!(!ran_out);
    assert_eq!(settled(tracer), [0, 0, 0, 1, 0]);
    end_spans(tracer, ["taken"]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(destination.delivered(), ["taken"]);
    assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
}
