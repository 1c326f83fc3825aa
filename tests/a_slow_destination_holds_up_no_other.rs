//! Several destinations get the same requests, each at its own pace and into a queue of its own.

mod exporters;

use std::time::Duration;

use exporters::{
    Answer, Destination, Gate, WATCHDOG, balanced, end_spans, in_time, names, settled, tracer,
    wait_until,
};
use rvh_trace::error::Error;
use rvh_trace::pipeline::exporter::Outcome;

/// Takes nothing before its gate opens.
fn gated(gate: &Gate) -> Destination {
    let gate = gate.clone();
    Destination::that(move |_| Answer::When(gate.clone(), Outcome::DELIVERED))
}

#[test]
fn one_that_never_answers_keeps_nothing_from_the_others() {
    let (silent, open) = (Destination::that(|_| Answer::Never), Destination::open());
    let tracer = tracer(&[&silent, &open], |batch| batch.max_export_batch_size = 10);
    for round in 0..20 {
        end_spans(tracer, names(&format!("{round}-"), 10));
        // The next round begins only when the open destination has this one.
        open.wait_for_delivered((round + 1) * 10);
    }
    let expected: Vec<_> = (0..20)
        .flat_map(|round| names(&format!("{round}-"), 10))
        .collect();
    assert_eq!(open.delivered(), expected);
    assert_eq!(silent.attempts().len(), 1, "it still has the first request");
    assert_eq!(
        balanced(tracer).pending(),
        200,
        "one destination has none of them"
    );
}

#[test]
fn each_gets_everything_in_order_and_a_flush_waits_for_all() {
    let gate = Gate::default();
    let (slow, open) = (gated(&gate), Destination::open());
    let tracer = tracer(&[&slow, &open], |batch| batch.max_export_batch_size = 7);
    end_spans(tracer, names("n", 50));
    let too_short = tracer.force_flush(Duration::ZERO);
    assert!(
        matches!(too_short, Err(Error::Timeout { pending: 50, .. })),
        "{too_short:?}"
    );
    open.wait_for_delivered(50);
    slow.wait_for_attempts(1);
    assert_eq!(slow.delivered(), [""; 0]);
    gate.open();
    assert_eq!(in_time("flush", || tracer.force_flush(WATCHDOG)), Ok(()));
    assert_eq!(
        (slow.delivered(), open.delivered()),
        (names("n", 50), names("n", 50))
    );
    assert!(slow.flushes() >= 1 && open.flushes() >= 1);
    assert_eq!(settled(tracer), [50, 0, 0, 0, 0]);
}

#[test]
fn a_request_is_encoded_once_for_all() {
    let (one, other) = (Destination::open(), Destination::open());
    let tracer = tracer(&[&one, &other], |_| {});
    end_spans(tracer, names("n", 3));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let start = |destination: &Destination| destination.attempts()[0].request.as_ptr();
    assert_eq!(start(&one), start(&other));
}

#[test]
fn what_finds_no_room_in_the_queue_of_one_is_lost_for_that_one_alone() {
    let gate = Gate::default();
    let (slow, open) = (gated(&gate), Destination::open());
    let tracer = tracer(&[&slow, &open], |batch| {
        batch.max_export_batch_size = 10;
        batch.max_queue_spans = Some(30);
    });
    for round in 0..8 {
        end_spans(tracer, names(&format!("{round}-"), 10));
        open.wait_for_delivered((round + 1) * 10);
    }
    // Counted when the open destination has them, a moment after it says so.
    wait_until("50 of 80 are lost", || {
        let stats = balanced(tracer);
        (stats.dropped_queue_full, stats.pending()) == (50, 30)
    });
    gate.open();
    assert_eq!(in_time("flush", || tracer.force_flush(WATCHDOG)), Ok(()));
    let first: Vec<_> = (0..3)
        .flat_map(|round| names(&format!("{round}-"), 10))
        .collect();
    assert_eq!(slow.delivered(), first, "the newest are dropped");
    assert_eq!(open.delivered().len(), 80);
    assert_eq!(settled(tracer), [30, 50, 0, 0, 0]);
    // There is room again.
    end_spans(tracer, names("later", 10));
    slow.wait_for_delivered(40);
}

#[test]
fn bytes_bound_the_queue_of_one_too() {
    let gate = Gate::default();
    let (slow, open) = (gated(&gate), Destination::open());
    let tracer = tracer(&[&slow, &open], |batch| {
        batch.max_export_batch_size = 10;
        batch.max_queue_bytes = 4096;
    });
    for round in 0..20 {
        end_spans(tracer, names(&format!("{round}-"), 10));
        open.wait_for_delivered((round + 1) * 10);
    }
    gate.open();
    assert_eq!(in_time("flush", || tracer.force_flush(WATCHDOG)), Ok(()));
    let [exported, queue_full, ..] = settled(tracer);
    assert_eq!(exported + queue_full, 200);
    let taken: usize = slow
        .attempts()
        .iter()
        .map(|attempt| attempt.request.len())
        .sum();
    assert!(
        exported >= 10 && queue_full >= 10 && taken < 4096 * 3,
        "{exported} {taken}"
    );
}

#[test]
fn a_failure_is_retried_for_its_destination_alone() {
    let moody = Destination::that(|attempt| {
        Answer::Now(if attempt.number == 0 {
            Outcome::Retryable {
                after: Some(Duration::ZERO),
                error: "again".into(),
            }
        } else {
            Outcome::DELIVERED
        })
    });
    let open = Destination::open();
    let tracer = tracer(&[&moody, &open], |_| {});
    end_spans(tracer, names("n", 5));
    assert_eq!(in_time("flush", || tracer.force_flush(WATCHDOG)), Ok(()));
    assert_eq!((moody.attempts().len(), open.attempts().len()), (2, 1));
    assert_eq!(settled(tracer), [5, 0, 0, 0, 0]);
}

#[test]
fn one_that_splits_does_so_alone() {
    let small = Destination::that(|attempt| {
        Answer::Now(if attempt.spans > 2 {
            Outcome::TooLarge {
                error: "large".into(),
            }
        } else {
            Outcome::DELIVERED
        })
    });
    let open = Destination::open();
    let tracer = tracer(&[&small, &open], |_| {});
    end_spans(tracer, names("n", 5));
    assert_eq!(in_time("flush", || tracer.force_flush(WATCHDOG)), Ok(()));
    assert_eq!(
        (small.delivered(), open.delivered()),
        (names("n", 5), names("n", 5))
    );
    assert_eq!(open.attempts().len(), 1);
    assert_eq!(settled(tracer), [5, 0, 0, 0, 0]);
}

#[test]
fn a_shutdown_keeps_its_deadline_and_the_others_deliver_before_it() {
    let (silent, open) = (Destination::that(|_| Answer::Never), Destination::open());
    let tracer = tracer(&[&silent, &open], |batch| batch.max_export_batch_size = 4);
    end_spans(tracer, names("n", 10));
    let timeout = Duration::from_millis(300);
    let result = in_time("shutdown", move || tracer.shutdown(timeout));
    assert!(
        matches!(result, Err(Error::Timeout { pending: 10, .. })),
        "{result:?}"
    );
    assert_eq!(open.delivered(), names("n", 10));
    wait_until("every span is counted", || balanced(tracer).pending() == 0);
    let [exported, _, _, failed, exit] = settled(tracer);
    assert_eq!((exported, failed + exit), (0, 10));
}
