//! The one native thread that exports. It runs a single-threaded Tokio runtime and never takes the GIL.
//!
//! Each signal has a loop of its own on that thread, [`batching`] for spans and for log records, and [`metrics`], so that a
//! destination that hangs for one signal holds up no other. All answer the same commands and share the deadline of a shutdown.

mod batching;
mod lane;
mod metrics;

use std::io;
use std::sync::mpsc::SyncSender;
use std::thread;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Pipeline;
use super::delivery::Delivery;
use crate::bridge::suppress_thread;
use crate::config::Signal;
use crate::stats::Stats;
use batching::Queue;

/// What other threads ask of the worker. A loop drops `done` when it is done: whoever holds the other end knows when all are.
#[derive(Clone)]
pub enum Command {
    /// Send everything that waits.
    Flush {
        /// Dropped when the loop is done.
        done: SyncSender<()>,
    },
    /// Send everything that waits until the deadline, then stop.
    Shutdown {
        /// When to give up.
        deadline: std::time::Instant,
        /// Dropped when the loop is done.
        done: SyncSender<()>,
    },
}

/// Says in `stats()` that the worker runs, until it is dropped, also by a panic.
struct Alive(&'static Stats);

impl Alive {
    fn new(stats: &'static Stats) -> Self {
        stats.set_worker_alive(true);
        Self(stats)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.set_worker_alive(false);
    }
}

/// A handle on the worker thread; dropping it leaves the thread running.
pub struct Worker {
    loops: Vec<UnboundedSender<Command>>,
    shutdown: watch::Sender<Option<Instant>>,
}

impl Worker {
    /// Starts the thread.
    pub fn start(pipeline: &'static Pipeline) -> io::Result<Self> {
        let (shutdown, shutdown_asked) = watch::channel(None);
        let delivery = Delivery {
            envelope: &pipeline.envelope,
            stats: &pipeline.stats,
            shutdown: shutdown_asked,
        };
        let mut loops = Vec::new();
        let mut commands = || {
            let (sender, received) = unbounded_channel();
            loops.push(sender);
            received
        };
        let spans = pipeline
            .build_span_exporters
            .as_ref()
            .map(|build_exporters| {
                let queue = Queue {
                    signal: Signal::Traces,
                    config: &pipeline.config,
                    batch: &pipeline.batch,
                    stats: &pipeline.stats,
                    build_exporters,
                };
                (queue, commands(), delivery.clone())
            });
        let logs = pipeline.logs.as_ref().map(|logs| {
            let queue = Queue {
                signal: Signal::Logs,
                config: &logs.config,
                batch: &logs.batch,
                stats: &logs.stats,
                build_exporters: &logs.build_exporters,
            };
            let delivery = Delivery {
                envelope: &logs.envelope,
                ..delivery.clone()
            };
            (queue, commands(), delivery)
        });
        let metrics = pipeline
            .metrics
            .as_ref()
            .map(|metrics| (metrics, commands(), delivery));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Those that look up names.
            .on_thread_start(suppress_thread)
            .build()?;
        let run = async move {
            let batched = async |signal: Option<(Queue, _, _)>| {
                if let Some((queue, commands, delivery)) = signal {
                    batching::Loop::new(pipeline, queue, commands, delivery)
                        .run()
                        .await;
                }
            };
            let metrics = async {
                if let Some((metrics, commands, delivery)) = metrics {
                    metrics::Loop::new(pipeline, metrics, commands, delivery)
                        .run()
                        .await;
                }
            };
            tokio::join!(batched(spans), metrics, batched(logs));
        };
        thread::Builder::new()
            .name("rvh-trace-export".into())
            .spawn(move || {
                suppress_thread();
                let _alive = Alive::new(&pipeline.stats);
                // Dropped first: then nothing of the worker is left.
                let runtime = runtime;
                runtime.block_on(run);
            })?;
        Ok(Self { loops, shutdown })
    }

    /// Passes a command on to every loop; one that is gone drops it.
    pub fn send(&self, command: &Command) {
        if let Command::Shutdown { deadline, .. } = command {
            // Seen by the export in progress, before the command itself is.
            self.shutdown.send_replace(Some((*deadline).into()));
        }
        for commands in &self.loops {
            let _ = commands.send(command.clone());
        }
    }

    /// Holds everything that is sent to `deadline`, as a shutdown does, or no longer does. A shutdown goes before it.
    pub fn hurry(&self, deadline: std::time::Instant, wanted: bool) {
        let ours: Instant = deadline.into();
        self.shutdown.send_if_modified(|asked| {
            let (from, to) = if wanted {
                (None, Some(ours))
            } else {
                (Some(ours), None)
            };
            let changes = *asked == from;
            if changes {
                *asked = to;
            }
            changes
        });
    }
}
