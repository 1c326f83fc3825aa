//! The end of a span, encoding and appending to the batch, beside other ways to hand bytes to a worker thread.
//!
//! The baselines get the span already encoded: what they cost is the least that a queue of their kind can.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

mod discard;

use std::hint::black_box;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use discard::{assert_nothing_was_dropped, start, tracer};
use rvh_trace::sampler::Sampler;

/// As many as a thread's pool has buffers for, so that no span of a round allocates.
const ROUND: BatchSize = BatchSize::NumIterations(64);
/// About what an empty span takes.
const ENCODED: [u8; 88] = [7; 88];
/// Where the baselines drop what they have, as the worker would take it.
const BATCH_BYTES: usize = 512 * ENCODED.len();

/// Appends to a buffer behind a lock.
fn append(buffer: &Mutex<Vec<u8>>, encoded: &[u8]) {
    let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
    if buffer.len() >= BATCH_BYTES {
        buffer.clear();
    }
    buffer.extend_from_slice(encoded);
}

fn one_thread(criterion: &mut Criterion) {
    let tracer = tracer(Sampler::default());
    let mut group = criterion.benchmark_group("batch/one thread");
    group.bench_function("ours: encode and push", |bencher| {
        bencher.iter_batched_ref(
            || start(tracer),
            |span| span.end_at(black_box(u64::MAX)),
            ROUND,
        );
    });
    let buffer = Mutex::new(Vec::with_capacity(2 * BATCH_BYTES));
    group.bench_function("baseline: push of encoded bytes under a mutex", |bencher| {
        bencher.iter_batched_ref(|| (), |()| append(&buffer, black_box(&ENCODED)), ROUND);
    });
    let (sender, receiver) = mpsc::channel::<Box<[u8]>>();
    let worker = thread::spawn(move || {
        receiver
            .into_iter()
            .map(|encoded| encoded.len())
            .sum::<usize>()
    });
    group.bench_function("baseline: a box through a channel", |bencher| {
        bencher.iter_batched_ref(
            || (),
            |()| sender.send(Box::from(black_box(&ENCODED[..]))),
            ROUND,
        );
    });
    drop(sender);
    let _ = worker.join();
    assert_nothing_was_dropped(tracer);
}

fn two_threads(criterion: &mut Criterion) {
    let tracer = tracer(Sampler::default());
    let buffer = Mutex::new(Vec::with_capacity(2 * BATCH_BYTES));
    let both = |iterations: u64, work: &(dyn Fn() + Sync)| {
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..iterations).for_each(|_| work()));
            }
        });
        started.elapsed()
    };
    let mut group = criterion.benchmark_group("batch/two threads at once");
    group.bench_function("ours: a whole span", |bencher| {
        bencher.iter_custom(|iterations| both(iterations, &|| start(tracer).end()));
    });
    group.bench_function("baseline: push of encoded bytes under a mutex", |bencher| {
        bencher
            .iter_custom(|iterations| both(iterations, &|| append(&buffer, black_box(&ENCODED))));
    });
    assert_nothing_was_dropped(tracer);
}

criterion_group!(benches, one_thread, two_threads);
criterion_main!(benches);
