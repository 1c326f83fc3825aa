//! Exported, or dropped for one reason: nothing is lost without a trace, and nothing is counted twice.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod exporters;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use exporters::{
    Answer, Destination, WATCHDOG, balanced, config, end_spans, in_time, names, settled, tracer,
};
use rvh_trace::config::Config;
use rvh_trace::error::Error;
use rvh_trace::pipeline::exporter::Outcome;
use rvh_trace::sampler::{Root, Sampler};
use rvh_trace::span::SpanKind;
use rvh_trace::tracer::{Started, Tracer};

const THREADS: usize = 4;

fn answers(outcome: Outcome) -> Destination {
    Destination::that(move |_| Answer::Now(outcome.clone()))
}

fn partial(rejected: u64) -> Outcome {
    Outcome::Delivered {
        rejected,
        message: Some("too old".into()),
    }
}

fn rejected() -> Outcome {
    Outcome::Rejected { error: "no".into() }
}

/// Too far in the future to wait for: given up at once.
fn failed() -> Outcome {
    Outcome::Retryable {
        after: Some(Duration::from_secs(3600)),
        error: "down".into(),
    }
}

/// How five spans that these destinations get are counted.
fn five_spans_to(destinations: &[&Destination]) -> [u64; 5] {
    let tracer = tracer(destinations, |_| {});
    end_spans(tracer, names("n", 5));
    let flushed = tracer.force_flush(WATCHDOG);
    let counted = settled(tracer);
    assert_eq!(
        flushed.is_ok(),
        counted[0] == 5,
        "a flush says whether anything was lost"
    );
    for destination in destinations {
        assert_eq!(
            destination.attempts()[0].names(),
            names("n", 5),
            "every destination gets everything"
        );
    }
    counted
}

#[test]
fn what_a_partial_success_rejects_is_not_exported() {
    assert_eq!(five_spans_to(&[&answers(partial(2))]), [3, 0, 2, 0, 0]);
    assert_eq!(five_spans_to(&[&answers(partial(0))]), [5, 0, 0, 0, 0]);
    assert_eq!(five_spans_to(&[&answers(partial(99))]), [0, 0, 5, 0, 0]);

    let tracer = tracer(&[&answers(partial(1))], |_| {});
    end_spans(tracer, ["n"]);
    assert_eq!(
        tracer
            .force_flush(WATCHDOG)
            .map_err(|error| error.to_string()),
        Err("export failed: 1 spans were lost: too old".into())
    );
    assert_eq!(tracer.stats().last_error.as_deref(), Some("too old"));
}

#[test]
fn with_several_destinations_a_span_is_exported_when_all_have_it() {
    let (open, more, no, down) = (
        Destination::open(),
        Destination::open(),
        answers(rejected()),
        answers(failed()),
    );
    assert_eq!(five_spans_to(&[&open, &more]), [5, 0, 0, 0, 0]);
    assert_eq!(five_spans_to(&[&no]), [0, 0, 5, 0, 0]);
    assert_eq!(
        five_spans_to(&[&open, &answers(rejected())]),
        [0, 0, 5, 0, 0]
    );
    assert_eq!(five_spans_to(&[&down]), [0, 0, 0, 5, 0]);
    assert_eq!(
        five_spans_to(&[
            &answers(rejected()),
            &Destination::open(),
            &answers(failed())
        ]),
        [0, 0, 0, 5, 0]
    );
    assert_eq!(
        five_spans_to(&[&answers(partial(1)), &answers(partial(3))]),
        [2, 0, 3, 0, 0]
    );
}

#[test]
fn the_bytes_of_what_is_exported_are_counted_once() {
    let (one, other) = (Destination::open(), Destination::open());
    let tracer = tracer(&[&one, &other], |_| {});
    end_spans(tracer, names("n", 5));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let sent: usize = one
        .attempts()
        .iter()
        .map(|attempt| attempt.request.len())
        .sum();
    assert_eq!(tracer.stats().exported_bytes, sent as u64);
}

#[test]
fn after_a_shutdown_spans_are_dropped_at_exit() {
    let destination = Destination::open();
    let tracer = tracer(&[&destination], |_| {});
    end_spans(tracer, names("n", 2));
    let mut alive = exporters::start(tracer, "alive at the shutdown");
    assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
    alive.end();
    alive.end();
    end_spans(tracer, names("late", 3));
    assert_eq!(settled(tracer), [2, 0, 0, 0, 4]);
    assert_eq!(destination.delivered(), names("n", 2));
}

#[test]
fn a_span_that_is_not_recorded_never_ends() {
    let off = Config {
        sampler: Sampler::Always(Root::Off),
        ..config()
    };
    let disabled = Config {
        disabled: true,
        ..config()
    };
    for (config, identity) in [(off, true), (disabled, false)] {
        let tracer = Tracer::with_exporters(config, std::sync::Arc::new(Vec::new));
        let started = tracer.start(None, SpanKind::Internal, "n");
        assert_eq!(
            matches!(started, Started::NonRecording(_)),
            identity,
            "{started:?}"
        );
        assert_eq!(settled(tracer), [0; 5]);
    }
}

/// Ends spans on many threads until told to stop; gives how many.
fn under_fire(tracer: &'static Tracer, meanwhile: impl FnOnce()) -> u64 {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let fire = || {
            let mut ended = 0;
            while !stop.load(Ordering::Relaxed) {
                end_spans(tracer, ["n"]);
                ended += 1;
            }
            ended
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(fire)).collect();
        // Also when it fails: the scope waits for its threads.
        let done = catch_unwind(AssertUnwindSafe(meanwhile));
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|failure| resume_unwind(failure));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    })
}

#[test]
fn on_many_threads_with_a_destination_of_many_moods() {
    let destination = Destination::that(|attempt| {
        Answer::Now(match attempt.number % 7 {
            0 => partial(3),
            1 => rejected(),
            2 => failed(),
            3 => Outcome::TooLarge {
                error: "large".into(),
            },
            4 => Outcome::Retryable {
                after: Some(Duration::ZERO),
                error: "again".into(),
            },
            _ => Outcome::DELIVERED,
        })
    });
    let tracer = tracer(&[&destination, &Destination::open()], |batch| {
        batch.max_export_batch_size = 50;
        batch.max_queue_spans = Some(400);
    });
    let ended = under_fire(tracer, || {
        for _ in 0..40 {
            destination.wait_for_attempts(destination.attempts().len() + 1);
            balanced(tracer);
        }
        let shut_down = tracer.shutdown(WATCHDOG);
        assert!(
            matches!(shut_down, Ok(()) | Err(Error::Export(_))),
            "{shut_down:?}"
        );
    });
    let counted = settled(tracer);
    assert_eq!(counted.iter().sum::<u64>(), ended, "{counted:?}");
    let [exported, _, rejected, failed, _] = counted;
    assert!(
        exported > 0 && rejected > 0 && failed > 0,
        "every mood met a span: {counted:?}"
    );
}

#[test]
fn also_those_that_end_while_a_shutdown_succeeds() {
    for _ in 0..100 {
        let tracer = tracer(&[&Destination::open()], |batch| {
            batch.max_export_batch_size = 8;
            batch.max_queue_spans = Some(64);
        });
        let ended = under_fire(tracer, || {
            assert_eq!(
                in_time("shutdown", || tracer.shutdown(WATCHDOG)),
                Ok(()),
                "everything was sent"
            );
        });
        let counted = settled(tracer);
        assert_eq!(counted.iter().sum::<u64>(), ended, "{counted:?}");
    }
}

#[test]
fn also_those_that_end_while_a_shutdown_gives_up() {
    for _ in 0..100 {
        let destination = Destination::that(|_| Answer::Never);
        let tracer = tracer(&[&destination], |batch| {
            batch.max_export_batch_size = 8;
            batch.max_queue_spans = Some(16);
        });
        let ended = under_fire(tracer, || {
            destination.wait_for_attempts(1);
            let _ = in_time("shutdown", || tracer.shutdown(Duration::ZERO));
        });
        let counted = settled(tracer);
        assert_eq!(counted.iter().sum::<u64>(), ended, "{counted:?}");
    }
}
