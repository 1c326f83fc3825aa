//! A flush and a shutdown return when everything is sent or when their time is up, whatever the destination does.

mod exporters;

use std::thread;
use std::time::Duration;

use exporters::{
    Answer, Destination, Gate, WATCHDOG, balanced, end_spans, in_time, names, settled, tracer,
    wait_until,
};
use rvh_trace::error::Error;
use rvh_trace::pipeline::exporter::Outcome;

const SHORT: Duration = Duration::from_millis(50);

fn timed_out(operation: &'static str, timeout: Duration, pending: u64) -> Result<(), Error> {
    Err(Error::Timeout {
        operation,
        timeout,
        pending,
    })
}

fn never() -> Destination {
    Destination::that(|_| Answer::Never)
}

#[test]
fn a_flush_gives_up_on_a_destination_that_never_answers() {
    let tracer = tracer(&[&never()], |_| {});
    end_spans(tracer, names("n", 3));
    assert_eq!(
        in_time("flush", || tracer.force_flush(SHORT)),
        timed_out("force_flush", SHORT, 3)
    );
    assert_eq!(
        balanced(tracer).pending(),
        3,
        "giving up on waiting is not giving up on sending"
    );
}

#[test]
fn a_shutdown_gives_up_and_counts_what_is_left_once() {
    for timeout in [Duration::ZERO, SHORT] {
        let destination = never();
        let tracer = tracer(&[&destination], |batch| batch.max_export_batch_size = 2);
        end_spans(tracer, names("n", 2));
        destination.wait_for_attempts(1);
        end_spans(tracer, names("queued", 3));
        let ended = in_time("shutdown", move || tracer.shutdown(timeout));
        // The worker may give up first and count them as failed; either way nothing is left, and the caller is told.
        let [exported, full, rejected, failed, exit] = settled(tracer);
        assert_eq!((exported, full, rejected, failed + exit), (0, 0, 0, 5));
        assert_eq!(ended, timed_out("shutdown", timeout, 5));
    }
}

#[test]
fn nothing_is_counted_twice_when_the_destination_answers_after_all() {
    let gate = Gate::default();
    let late = gate.clone();
    let destination = Destination::that(move |_| Answer::When(late.clone(), Outcome::DELIVERED));
    let tracer = tracer(&[&destination], |_| {});
    end_spans(tracer, names("n", 3));
    assert_eq!(
        in_time("flush", || tracer.force_flush(SHORT)),
        timed_out("force_flush", SHORT, 3)
    );
    gate.open();
    wait_until("late delivery", || tracer.stats().exported == 3);
    assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
    assert_eq!(settled(tracer), [3, 0, 0, 0, 0]);
}

#[test]
fn a_deadline_too_far_to_be_a_date_is_no_deadline() {
    let destination = Destination::open();
    let tracer = tracer(&[&destination], |_| {});
    end_spans(tracer, ["one"]);
    assert_eq!(
        in_time("flush", || tracer.force_flush(Duration::MAX)),
        Ok(())
    );
    end_spans(tracer, ["two"]);
    assert_eq!(
        in_time("shutdown", || tracer.shutdown(Duration::MAX)),
        Ok(())
    );
    assert_eq!(destination.delivered(), ["one", "two"]);
}

#[test]
fn before_the_first_span_and_after_a_shutdown_there_is_nothing_to_wait_for() {
    let destination = never();
    let tracer = tracer(&[&destination], |_| {});
    assert_eq!(tracer.force_flush(Duration::ZERO), Ok(()));
    assert_eq!(tracer.shutdown(Duration::ZERO), Ok(()));
    assert_eq!(tracer.shutdown(Duration::ZERO), Ok(()));
    assert_eq!(tracer.force_flush(Duration::ZERO), Ok(()));
    end_spans(tracer, names("late", 3));
    assert_eq!(tracer.force_flush(Duration::ZERO), Ok(()));
    assert!(
        destination.attempts().is_empty(),
        "no worker starts after a shutdown"
    );
    assert_eq!(settled(tracer), [0, 0, 0, 0, 3]);
}

#[test]
fn a_flush_sends_what_ended_before_it_on_any_thread() {
    let destination = Destination::open();
    let tracer = tracer(&[&destination], |batch| batch.max_export_batch_size = 7);
    thread::scope(|scope| {
        for number in 0..8 {
            let destination = &destination;
            scope.spawn(move || {
                for round in 0..20 {
                    let name = format!("{number}.{round}");
                    end_spans(tracer, [&name]);
                    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
                    assert!(
                        destination.delivered().contains(&name),
                        "{name} was not sent"
                    );
                }
            });
        }
    });
    assert_eq!(settled(tracer), [160, 0, 0, 0, 0]);
}

#[test]
fn a_flush_that_meets_a_shutdown_does_not_fail() {
    for _ in 0..300 {
        let tracer = tracer(&[&Destination::open()], |_| {});
        end_spans(tracer, names("n", 3));
        thread::scope(|scope| {
            let flush = scope.spawn(|| tracer.force_flush(WATCHDOG));
            assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
            assert!(matches!(flush.join(), Ok(Ok(()))), "the flush failed");
        });
        assert_eq!(settled(tracer), [3, 0, 0, 0, 0]);
    }
}

#[test]
fn what_an_exporter_holds_back_is_written_out_by_both() {
    let destination = Destination::open();
    let tracer = tracer(&[&destination], |_| {});
    end_spans(tracer, ["n"]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(
        (destination.delivered().len(), destination.flushes()),
        (1, 1)
    );
    assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
    assert_eq!(destination.flushes(), 2);
}

#[test]
fn an_exporter_that_panics_loses_its_request_and_no_other() {
    let destination = Destination::that(|attempt| {
        assert!(
            attempt.number > 0,
            "an exporter panics, as a test wants it to"
        );
        Answer::Now(Outcome::DELIVERED)
    });
    let tracer = tracer(&[&destination], |_| {});
    end_spans(tracer, ["lost"]);
    assert!(
        tracer.force_flush(WATCHDOG).is_err(),
        "a loss is not a success"
    );
    end_spans(tracer, ["sent"]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(destination.delivered(), ["sent"]);
    assert_eq!(settled(tracer), [1, 0, 0, 1, 0]);
}
