//! What waits and what is on its way share one room, in bytes and in spans. What finds none is dropped and counted.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod exporters;

use std::thread;

use exporters::{
    Answer, Destination, Gate, WATCHDOG, balanced, decoded, end_spans, names, settled, start,
    tracer, wait_until,
};
use prost::Message;
use rvh_trace::attribute::Value;
use rvh_trace::pipeline::exporter::Outcome;
use rvh_trace::tracer::Tracer;

/// A destination that keeps everybody waiting until the gate opens.
fn behind(gate: &Gate) -> Destination {
    let gate = gate.clone();
    Destination::that(move |_| Answer::When(gate.clone(), Outcome::DELIVERED))
}

/// How many bytes a span with a name of this length takes in the queue.
fn encoded_len(name: &str) -> usize {
    let destination = Destination::open();
    let tracer = tracer(&[&destination], |_| {});
    end_spans(tracer, [name]);
    assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
    let span = decoded(&destination.attempts()[0].request).remove(0);
    let len = span.encoded_len();
    1 + prost::length_delimiter_len(len) + len
}

/// Fills the room while the first batch of four is on its way, and finds it free again afterwards.
#[track_caller]
fn holds_exactly_ten(tracer: &'static Tracer, destination: &Destination, gate: &Gate) {
    let all = names("n", 10);
    end_spans(tracer, &all[..4]);
    destination.wait_for_attempts(1);
    end_spans(tracer, &all[4..]);
    assert_eq!(
        balanced(tracer).dropped_queue_full,
        0,
        "there is room for ten"
    );
    end_spans(tracer, names("o", 10));
    assert_eq!(
        balanced(tracer).dropped_queue_full,
        10,
        "there is room for no more than ten"
    );
    assert_eq!(balanced(tracer).pending(), 10);

    gate.open();
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(
        destination.delivered(),
        all,
        "the newest are dropped, not the oldest"
    );
    end_spans(tracer, names("p", 10));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(settled(tracer), [20, 10, 0, 0, 0]);
}

#[test]
fn a_number_of_spans() {
    let gate = Gate::default();
    let destination = behind(&gate);
    let tracer = tracer(&[&destination], |batch| {
        batch.max_queue_spans = Some(10);
        batch.max_export_batch_size = 4;
    });
    holds_exactly_ten(tracer, &destination, &gate);
}

#[test]
fn a_number_of_bytes_that_they_fill_exactly() {
    let gate = Gate::default();
    let destination = behind(&gate);
    let len = encoded_len("n0");
    let tracer = tracer(&[&destination], |batch| {
        batch.max_queue_bytes = 10 * len;
        batch.max_export_batch_size = 4;
    });
    holds_exactly_ten(tracer, &destination, &gate);
}

#[test]
fn a_number_of_bytes_that_one_more_would_just_pass() {
    let gate = Gate::default();
    let destination = behind(&gate);
    let len = encoded_len("n0");
    let tracer = tracer(&[&destination], |batch| {
        batch.max_queue_bytes = 11 * len - 1;
        batch.max_export_batch_size = 4;
    });
    holds_exactly_ten(tracer, &destination, &gate);
}

#[test]
fn also_when_many_threads_fill_it_while_it_is_emptied() {
    // The moment when the worker takes the first batch is the one that matters: it comes once a round.
    for _ in 0..50 {
        let gate = Gate::default();
        let destination = behind(&gate);
        let tracer = tracer(&[&destination], |batch| {
            batch.max_queue_spans = Some(64);
            batch.max_export_batch_size = 60;
        });
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| end_spans(tracer, names("n", 100)));
            }
        });
        destination.wait_for_attempts(1);
        let stats = balanced(tracer);
        assert_eq!(
            (stats.ended, stats.pending(), stats.dropped_queue_full),
            (800, 64, 736)
        );
        gate.open();
        assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
        assert_eq!(settled(tracer), [64, 736, 0, 0, 0]);
    }
}

#[test]
fn a_span_larger_than_the_queue_is_dropped_alone() {
    let destination = Destination::open();
    let tracer = tracer(&[&destination], |batch| batch.max_queue_bytes = 1000);
    end_spans(tracer, ["before", &"x".repeat(1000), "after"]);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(destination.delivered(), ["before", "after"]);
    assert_eq!(settled(tracer), [2, 1, 0, 0, 0]);
}

#[test]
fn spans_whose_bytes_fill_it_before_a_batch_is_complete_are_sent_without_delay() {
    let destination = Destination::open();
    let tracer = tracer(&[&destination], |batch| batch.max_queue_bytes = 100_000);
    let text = "x".repeat(9_000);
    let end = |tracer| {
        let mut span = start(tracer, "large");
        span.push_attribute("exception.stacktrace", &Value::Str(&text));
        span.end();
    };
    // Far less than `max_export_batch_size` spans; nobody asks for a flush and the schedule delay is a day.
    (0..11).for_each(|_| end(tracer));
    wait_until("the first batch", || tracer.stats().exported > 0);
    wait_until("room for another span", || {
        let before = tracer.stats().dropped_queue_full;
        end(tracer);
        tracer.stats().dropped_queue_full == before
    });
}

#[test]
fn the_schedule_delay_sends_what_fills_nothing() {
    let destination = Destination::open();
    let tracer = tracer(&[&destination], |batch| {
        batch.schedule_delay = std::time::Duration::from_millis(1);
    });
    for round in 1..4 {
        end_spans(tracer, ["alone"]);
        destination.wait_for_delivered(round);
    }
    destination.wait_for_delivered(3);
    let span = decoded(&destination.attempts().pop().unwrap().request);
    assert_eq!(span.len(), 1);
}
