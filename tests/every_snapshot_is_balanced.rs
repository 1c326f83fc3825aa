//! Created = exported + dropped + on disk + queued + in flight, in every reading, whatever happens while it is taken.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod exporters;
mod spool;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use exporters::{Answer, Destination, balanced, end_spans, start, wait_until};
use rvh_trace::pipeline::exporter::Outcome;
use rvh_trace::tracer::Tracer;
use spool::{Directory, unreachable_collector};

/// Takes, refuses, fails, splits and keeps waiting in turn.
fn moody() -> Destination {
    Destination::that(|attempt| {
        Answer::Now(match attempt.number % 11 {
            0 | 1 => unreachable_collector(),
            2 => Outcome::Rejected { error: "no".into() },
            3 => Outcome::TooLarge {
                error: "large".into(),
            },
            4 => Outcome::Delivered {
                rejected: 2,
                message: None,
            },
            5 => Outcome::Retryable {
                after: Some(Duration::from_millis(1)),
                error: "again".into(),
            },
            6 => return Answer::Never,
            _ => Outcome::DELIVERED,
        })
    })
}

/// Two threads make spans, one flushes, one shuts down in the end, and this one reads.
fn under_fire(tracer: &'static Tracer) {
    let (stop, readings) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let made: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut made = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let open = start(tracer, "open meanwhile");
                        end_spans(tracer, ["n"]);
                        drop(open);
                        made += 1;
                    }
                    made
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                balanced(tracer);
                readings.fetch_add(1, Ordering::Relaxed);
            }
        });
        wait_until("every outcome", || {
            let _ = tracer.force_flush(Duration::from_millis(10));
            let stats = tracer.stats();
            stats.exported > 0 && stats.dropped_rejected > 0 || reader.is_finished()
        });
        let _ = tracer.shutdown(Duration::from_millis(100));
        let read = readings.load(Ordering::Relaxed);
        wait_until("readings after the shutdown", || {
            readings.load(Ordering::Relaxed) > read + 10 || reader.is_finished()
        });
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        let made: u64 = made.into_iter().map(|thread| thread.join().unwrap()).sum();
        let stats = balanced(tracer);
        assert_eq!((stats.ended, stats.started), (made, 2 * made));
        assert_eq!(stats.live(), made, "those that are never ended");
        assert_eq!(stats.pending(), 0, "{stats:?}");
        assert!(stats.exported > 0 && stats.dropped() > 0, "{stats:?}");
    });
}

#[test]
fn in_memory() {
    let tracer = exporters::tracer(&[&moody(), &moody()], |batch| {
        batch.max_export_batch_size = 20;
        batch.max_queue_spans = Some(200);
        batch.export_timeout = Duration::from_millis(20);
    });
    under_fire(tracer);
}

#[test]
fn and_on_disk() {
    for destinations in 1..=2 {
        let directory = Directory::new();
        let moody = [moody(), moody()];
        let destinations: Vec<_> = moody.iter().take(destinations).collect();
        let tracer = directory.tracer(&destinations, |batch, spool| {
            batch.max_export_batch_size = 20;
            batch.max_queue_spans = Some(200);
            batch.export_timeout = Duration::from_millis(20);
            spool.max_bytes = 100_000;
        });
        under_fire(tracer);
    }
}
