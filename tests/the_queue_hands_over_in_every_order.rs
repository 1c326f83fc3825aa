//! The queue's own source on loom's model of memory: every order in which threads that push, take, settle, close and give up
//! can meet, and every value that a relaxed load may see.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../src/pipeline/batch.rs"]
#[expect(
    unreachable_pub,
    dead_code,
    reason = "a module of the library there, which uses all of it"
)]
mod batch;
mod queue_model;

use loom::sync::Arc;
use loom::thread;

use batch::{Batch, Pushed, Spans};
// What `batch` finds at these places in the library.
use queue_model::{config, stats, sync, wire};
use stats::{Stats, read};

/// A queue, what is counted of it, and room for this many spans.
struct Shared {
    batch: Batch,
    stats: Stats,
}

fn shared(max_spans: usize) -> Arc<Shared> {
    Arc::new(Shared {
        batch: Batch::new(&config::BatchConfig {
            max_queue_spans: Some(max_spans),
            max_queue_bytes: 1000,
            max_export_batch_size: 2,
        }),
        stats: Stats::default(),
    })
}

impl Shared {
    fn push(&self) -> Pushed {
        let pushed = self.batch.push(&wire::span::Finished::ONE, &self.stats);
        if pushed == Pushed::Wake {
            self.batch.wake();
        }
        pushed
    }

    /// What the worker does with all that waits.
    fn export(&self) -> usize {
        self.settle(&self.batch.take(Spans::default()))
    }

    /// What it does with whole batches.
    fn export_complete(&self) -> usize {
        self.settle(&self.batch.take_complete(Spans::default()))
    }

    /// Span by span.
    fn settle(&self, taken: &Spans) -> usize {
        assert_eq!(taken.bytes.len(), taken.count * wire::span::LEN);
        for _ in 0..taken.count {
            self.batch
                .settle(wire::span::LEN, 1, || self.stats.count_exported());
        }
        taken.count
    }

    fn pushed(&self) -> u64 {
        self.batch.at_one_moment(|now| now.pushed)
    }

    fn assert_all_is_accounted_for(&self) {
        let [exported, full, exit] = read(&self.stats);
        assert_eq!(
            self.pushed(),
            exported + full + exit + self.batch.unsettled()
        );
    }
}

#[test]
fn every_span_is_taken_once_or_refused_and_the_bound_holds() {
    loom::model(|| {
        let shared = shared(1);
        let pushers = [(); 2].map(|()| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.push() != Pushed::Full)
        });
        let mut taken = shared.export();
        assert!(taken <= 1, "{taken} spans in a queue of one");
        let queued = pushers.into_iter().filter_map(|one| one.join().ok());
        let queued = queued.filter(|queued| *queued).count();
        assert!(shared.batch.unsettled() <= 1);
        taken += shared.export();
        assert_eq!(taken, queued);
        assert_eq!(shared.pushed(), 2);
        shared.assert_all_is_accounted_for();
        assert_eq!(shared.batch.unsettled(), 0);
    });
}

#[test]
fn what_the_worker_holds_takes_up_room_until_it_is_settled() {
    loom::model(|| {
        let shared = shared(1);
        shared.push();
        let pusher = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.push())
        };
        let taken = shared.batch.take(Spans::default());
        assert_eq!(taken.count, 1, "the second found no room yet");
        assert_eq!(shared.batch.unsettled(), 1);
        shared
            .batch
            .settle(taken.bytes.len(), 1, || shared.stats.count_exported());
        pusher.join().unwrap();
        shared.assert_all_is_accounted_for();
    });
}

/// loom fails a model in which a thread waits for good.
#[test]
fn a_complete_batch_always_wakes_the_worker() {
    loom::model(|| {
        let shared = shared(2);
        let pushers = [(); 2].map(|()| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.push())
        });
        loom::future::block_on(shared.batch.woken());
        assert_eq!(shared.export(), 2);
        for pusher in pushers {
            pusher.join().unwrap();
        }
    });
}

#[test]
fn what_is_less_than_a_batch_stays_and_the_next_that_is_whole_wakes_again() {
    loom::model(|| {
        let shared = shared(10);
        let pusher = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for _ in 0..3 {
                    shared.push();
                }
            })
        };
        loom::future::block_on(shared.batch.woken());
        assert_eq!(shared.export_complete(), 2);
        pusher.join().unwrap();
        assert_eq!(shared.batch.unsettled(), 1);
        assert_eq!(shared.push(), Pushed::Wake);
        assert_eq!(shared.export_complete(), 2);
        shared.assert_all_is_accounted_for();
        assert_eq!(shared.batch.unsettled(), 0);
    });
}

#[test]
fn a_span_that_meets_the_end_is_sent_or_counted_as_dropped() {
    loom::model(|| {
        let shared = shared(10);
        let pusher = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || [shared.push(), shared.push()])
        };
        shared.batch.close();
        let exported = shared.export();
        let outcomes = pusher.join().unwrap();
        let refused = outcomes.iter().filter(|one| **one == Pushed::Closed);
        assert_eq!(exported + refused.count(), 2);
        assert_eq!(shared.batch.unsettled(), 0, "nothing came after the close");
        shared.assert_all_is_accounted_for();
    });
}

#[test]
fn a_shutdown_that_gives_up_counts_no_span_twice_and_none_not_at_all() {
    loom::model(|| {
        let shared = shared(10);
        shared.push();
        shared.push();
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.export())
        };
        shared.batch.close();
        shared
            .batch
            .abandon(|unsettled| shared.stats.count_exit(unsettled));
        worker.join().unwrap();
        let [exported, _, exit] = read(&shared.stats);
        assert_eq!(exported + exit, 2);
    });
}

#[test]
fn a_reading_shows_every_span_once_whenever_it_is_made() {
    loom::model(|| {
        let shared = shared(1);
        let pusher = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.push())
        };
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.export())
        };
        shared.batch.at_one_moment(|now| {
            let outcomes: u64 = read(&shared.stats).iter().sum();
            assert_eq!(now.pushed, outcomes + now.queued + now.in_flight);
        });
        pusher.join().unwrap();
        worker.join().unwrap();
    });
}
