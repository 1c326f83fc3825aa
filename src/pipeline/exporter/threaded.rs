//! An exporter that works on a thread of its own, because its work blocks or needs what the worker must not touch.
//!
//! The worker hands one job over and waits for its answer, without blocking; at most one more waits in between. A job that
//! the worker has given up on is not begun. The thread starts with the worker, so again in a forked child, and ends when the
//! exporter goes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::{Exporter, Outcome};
use crate::bridge::suppress_thread;

/// What the thread is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Take this encoded `ExportTraceServiceRequest`.
    Export(Bytes),
    /// Write out what is held back.
    ForceFlush,
    /// The same, and nothing comes after it.
    Shutdown,
}

/// One thing to do, and whom to tell what came of it.
#[derive(Debug)]
pub struct Job {
    /// What to do.
    pub task: Task,
    answer: oneshot::Sender<Outcome>,
}

impl Job {
    /// Tells the worker what came of it. One that has stopped waiting does not hear it.
    pub fn answer(self, outcome: Outcome) {
        let _ = self.answer.send(outcome);
    }
}

/// Where the thread gets its jobs.
#[derive(Debug)]
pub struct Jobs(mpsc::Receiver<Job>);

impl Jobs {
    /// Waits for the next job that somebody waits for; `None` when there will be none. Blocks.
    pub fn take(&mut self) -> Option<Job> {
        loop {
            let job = self.0.blocking_recv()?;
            if !job.answer.is_closed() {
                return Some(job);
            }
        }
    }
}

/// Starts the thread. Called on the worker, so it must not wait; if it fails or drops the jobs, spans are lost and counted.
pub type StartThread = Arc<dyn Fn(Jobs) + Send + Sync>;

/// The worker's end.
pub struct ThreadedExporter {
    name: String,
    start: StartThread,
    jobs: Option<mpsc::Sender<Job>>,
    /// Whether it was ever given spans.
    has_exported: bool,
    logs_refusals: bool,
}

impl fmt::Debug for ThreadedExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadedExporter")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ThreadedExporter {
    /// An exporter whose thread `start` starts.
    pub fn new(name: String, start: StartThread) -> Self {
        Self {
            name,
            start,
            jobs: None,
            has_exported: false,
            logs_refusals: true,
        }
    }

    fn jobs(&mut self) -> &mpsc::Sender<Job> {
        let start = &self.start;
        self.jobs.get_or_insert_with(|| {
            let (jobs, received) = mpsc::channel(1);
            start(Jobs(received));
            jobs
        })
    }

    /// `exporter`, which never waits for anything but blocks, on a native thread. Standard output that nobody reads must not
    /// keep spans from the other destinations.
    pub fn off_worker(exporter: Box<dyn Exporter>) -> Self {
        let name = exporter.name().to_owned();
        let logs_refusals = exporter.logs_refusals();
        let exporter = Mutex::new(Some(exporter));
        let start = move |jobs| {
            let exporter = exporter
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(exporter) = exporter {
                // If there is no thread to be had, the jobs are dropped and the spans are counted as refused.
                let _ = std::thread::Builder::new()
                    .name("rvh-trace-output".into())
                    .spawn(|| {
                        suppress_thread();
                        serve(exporter, jobs);
                    });
            }
        };
        Self {
            logs_refusals,
            ..Self::new(name, Arc::new(start))
        }
    }

    async fn ask(&mut self, task: Task) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let asked = self.jobs().send(Job { task, answer }).await.is_ok();
        let outcome = if asked { answered.await.ok() } else { None };
        outcome.unwrap_or_else(|| Outcome::Rejected {
            error: format!("the thread of {} has ended", self.name),
        })
    }
}

impl Exporter for ThreadedExporter {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&mut self) {
        self.jobs();
    }

    fn export(&mut self, request: Bytes, _items: usize) -> BoxFuture<'_, Outcome> {
        self.has_exported = true;
        Box::pin(self.ask(Task::Export(request)))
    }

    fn force_flush(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // It holds nothing back if it has never got anything.
            if self.has_exported {
                self.ask(Task::ForceFlush).await;
            }
        })
    }

    fn shutdown(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if self.has_exported {
                self.ask(Task::Shutdown).await;
            }
        })
    }

    fn logs_refusals(&self) -> bool {
        self.logs_refusals
    }
}

fn serve(mut exporter: Box<dyn Exporter>, mut jobs: Jobs) {
    while let Some(job) = jobs.take() {
        let outcome = match &job.task {
            Task::Export(request) => exporter.export(request.clone(), 0).now_or_never(),
            Task::ForceFlush => exporter
                .force_flush()
                .now_or_never()
                .map(|()| Outcome::DELIVERED),
            Task::Shutdown => exporter
                .shutdown()
                .now_or_never()
                .map(|()| Outcome::DELIVERED),
        };
        job.answer(outcome.unwrap_or_else(|| Outcome::Rejected {
            error: "the exporter waits, and has nothing to wait on".to_owned(),
        }));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::super::testing::runtime;
    use super::*;

    /// An exporter whose jobs come out here.
    fn exporter() -> (ThreadedExporter, std::sync::mpsc::Receiver<Jobs>) {
        let (sender, started) = channel();
        let sender = Mutex::new(sender);
        let start = move |jobs| sender.lock().unwrap().send(jobs).unwrap();
        (
            ThreadedExporter::new("a thread".into(), Arc::new(start)),
            started,
        )
    }

    #[test]
    fn jobs_are_answered_in_order_and_the_thread_ends_with_the_exporter() {
        let (mut exporter, started) = exporter();
        assert!(
            started.try_recv().is_err(),
            "no thread before it is started"
        );
        exporter.start();
        let thread = std::thread::spawn(move || {
            let mut jobs = started.recv().unwrap();
            let mut seen = Vec::new();
            while let Some(job) = jobs.take() {
                seen.push(job.task.clone());
                job.answer(Outcome::Delivered {
                    rejected: seen.len() as u64,
                    message: None,
                });
            }
            seen
        });
        runtime().block_on(async {
            for rejected in 1..=2 {
                let outcome = exporter.export(Bytes::from_static(b"spans"), 1).await;
                let message = None;
                assert_eq!(outcome, Outcome::Delivered { rejected, message });
            }
            exporter.force_flush().await;
            exporter.shutdown().await;
        });
        drop(exporter);
        let export = || Task::Export(Bytes::from_static(b"spans"));
        assert_eq!(
            thread.join().unwrap(),
            [export(), export(), Task::ForceFlush, Task::Shutdown]
        );
    }

    #[test]
    fn what_is_given_up_on_is_not_begun() {
        let (mut exporter, started) = exporter();
        let request = Bytes::from_static;
        runtime().block_on(async {
            let given_up = exporter.export(request(b"first"), 1);
            assert!(
                tokio::time::timeout(Duration::ZERO, given_up)
                    .await
                    .is_err()
            );
            let mut jobs = started.recv().unwrap();
            let thread = std::thread::spawn(move || {
                let job = jobs.take().unwrap();
                let task = job.task.clone();
                job.answer(Outcome::DELIVERED);
                task
            });
            assert_eq!(
                exporter.export(request(b"second"), 1).await,
                Outcome::DELIVERED
            );
            assert_eq!(thread.join().unwrap(), Task::Export(request(b"second")));
        });
    }

    #[test]
    fn a_thread_that_never_was_or_is_gone_refuses() {
        let mut nowhere = ThreadedExporter::new("nowhere".into(), Arc::new(drop));
        let outcome = nowhere.export(Bytes::new(), 1).now_or_never();
        assert!(
            matches!(outcome, Some(Outcome::Rejected { .. })),
            "{outcome:?}"
        );
        let mut unused = ThreadedExporter::new("unused".into(), Arc::new(drop));
        unused.start();
        assert_eq!(unused.force_flush().now_or_never(), Some(()));
        assert_eq!(unused.shutdown().now_or_never(), Some(()));
        assert!(
            !unused.has_exported,
            "answered at once, although nobody would"
        );
    }
}
