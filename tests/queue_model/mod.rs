//! What the queue uses of the library, small enough for loom, and what its threads meet at, in loom's form.

/// In the place of `crate::config`.
pub(crate) mod config {
    #[expect(clippy::struct_field_names, reason = "of the original")]
    pub(crate) struct BatchConfig {
        pub(crate) max_queue_spans: Option<usize>,
        pub(crate) max_queue_bytes: usize,
        pub(crate) max_export_batch_size: usize,
    }
}

/// In the place of `crate::wire`.
pub(crate) mod wire {
    /// A span of [`LEN`] bytes.
    pub(crate) mod span {
        use std::marker::PhantomData;

        pub(crate) const LEN: usize = 3;

        pub(crate) struct Finished<'a>(PhantomData<&'a ()>);

        impl Finished<'_> {
            pub(crate) const ONE: Self = Self(PhantomData);

            #[expect(clippy::unused_self, reason = "of the original")]
            pub(crate) fn encoded_len(&self) -> usize {
                LEN
            }
        }

        pub(crate) fn put_span(out: &mut Vec<u8>, _span: &Finished<'_>) {
            out.extend([7; LEN]);
        }
    }
}

/// In the place of `crate::stats`: relaxed counters, as there.
pub(crate) mod stats {
    use loom::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use rvh_trace::stats::DropReason;

    #[derive(Default)]
    pub(crate) struct Stats {
        exported: AtomicU64,
        queue_full: AtomicU64,
        exit: AtomicU64,
    }

    impl Stats {
        pub(crate) fn count_dropped(&self, reason: DropReason, spans: u64) {
            let counter = match reason {
                DropReason::QueueFull => &self.queue_full,
                DropReason::Exit => &self.exit,
                other => unreachable!("the queue drops nothing as {other:?}"),
            };
            counter.fetch_add(spans, Ordering::Relaxed);
        }

        pub(crate) fn count_exported(&self) {
            self.exported.fetch_add(1, Ordering::Relaxed);
        }

        pub(crate) fn count_exit(&self, spans: u64) {
            self.count_dropped(DropReason::Exit, spans);
        }
    }

    /// Exported, dropped because the queue was full, dropped at exit.
    pub(crate) fn read(stats: &Stats) -> [u64; 3] {
        [&stats.exported, &stats.queue_full, &stats.exit]
            .map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// In the place of `crate::sync`.
pub(crate) mod sync {
    use std::future::poll_fn;
    use std::task::{Poll, Waker};

    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    /// Tokio's, with its one permit for whoever asks next.
    #[derive(Debug, Default)]
    pub(crate) struct Notify(Mutex<Notified>);

    #[derive(Debug, Default)]
    struct Notified {
        permit: bool,
        waiting: Option<Waker>,
    }

    impl Notify {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn notify_one(&self) {
            let mut notified = self.0.lock().unwrap();
            notified.permit = true;
            let waiting = notified.waiting.take();
            drop(notified);
            if let Some(waiting) = waiting {
                waiting.wake();
            }
        }

        pub(crate) async fn notified(&self) {
            poll_fn(|context| {
                let mut notified = self.0.lock().unwrap();
                if std::mem::take(&mut notified.permit) {
                    return Poll::Ready(());
                }
                notified.waiting = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
        }
    }
}
