//! Several destinations for spans, or for log records: each has a queue and a loop of its own on the worker thread, a lane, so that one that is
//! slow or dead neither holds up the others nor makes them lose anything.
//!
//! A request is encoded once; all lanes hold the same bytes. A lane's queue has the bounds of the batch; what finds no room
//! in it is lost for this destination alone. When every lane has settled a request, its spans are counted: exported if
//! all took them, else dropped, for one reason. A single destination has no lane.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Command;
use crate::config::{BatchConfig, Signal};
use crate::diagnostic::{self, Level};
use crate::pipeline::delivery::{Delivery, Destination, Tally};

/// Told once for each request what became of it at every destination, and how many spans it held.
pub(super) type Settle = Arc<dyn Fn(&[Tally], usize) + Send + Sync>;

/// A request that every lane has.
struct Shipment {
    request: Bytes,
    /// The items in it, one after the other.
    items: Bytes,
    count: usize,
    tallies: Mutex<Vec<Tally>>,
    destinations: usize,
    settle: Settle,
}

impl Shipment {
    /// One destination is done with it; the last one settles it.
    fn settled_by_one(&self, tally: Tally) {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.push(tally);
        if tallies.len() == self.destinations {
            (self.settle)(&tallies, self.count);
        }
    }
}

enum Job {
    Deliver(Arc<Shipment>),
    Command(Command),
}

/// What a lane holds, with the request that it is delivering.
#[derive(Default)]
struct Held {
    bytes: AtomicUsize,
    spans: AtomicUsize,
}

struct Lane {
    name: String,
    jobs: UnboundedSender<Job>,
    held: Arc<Held>,
    task: JoinHandle<()>,
}

/// The lanes of all destinations.
pub(super) struct Lanes {
    each: Vec<Lane>,
    max_bytes: usize,
    max_spans: usize,
    signal: Signal,
    settle: Settle,
}

impl Lanes {
    /// Starts a lane for each destination. Called inside the worker's runtime, which runs them.
    pub(super) fn start(
        destinations: Vec<Destination>,
        signal: Signal,
        config: &BatchConfig,
        delivery: &Delivery,
        settle: Settle,
    ) -> Self {
        let lanes = destinations.into_iter().map(|destination| {
            let (jobs, received) = unbounded_channel();
            let held = Arc::new(Held::default());
            let name = destination.name().to_owned();
            let (timeout, delivery) = (config.export_timeout, delivery.clone());
            let run = run(destination, received, Arc::clone(&held), delivery, timeout);
            Lane {
                name,
                jobs,
                held,
                task: tokio::spawn(run),
            }
        });
        Self {
            each: lanes.collect(),
            max_bytes: config.max_queue_bytes,
            max_spans: config.max_queue_spans.unwrap_or(usize::MAX),
            signal,
            settle,
        }
    }

    /// Puts `request`, which holds `items`, which are `count`, into every lane that has room.
    pub(super) fn deliver(&self, request: Bytes, items: Bytes, count: usize) {
        let len = items.len();
        let shipment = Arc::new(Shipment {
            request,
            items,
            count,
            tallies: Mutex::default(),
            destinations: self.each.len(),
            settle: Arc::clone(&self.settle),
        });
        for lane in &self.each {
            let held = &lane.held;
            let has_room = held.bytes.load(Ordering::Relaxed) + len <= self.max_bytes
                && held.spans.load(Ordering::Relaxed) + count <= self.max_spans;
            if has_room {
                held.bytes.fetch_add(len, Ordering::Relaxed);
                held.spans.fetch_add(count, Ordering::Relaxed);
                if lane.jobs.send(Job::Deliver(Arc::clone(&shipment))).is_ok() {
                    continue;
                }
            }
            let cause = match self.signal {
                Signal::Logs => "destination-queue-full-logs",
                _ => "destination-queue-full",
            };
            diagnostic::log_once(Level::Warn, cause, || {
                format!(
                    "{} do not reach {}: its queue is full ({} bytes), and they are dropped for this destination. It takes \
                     them slower than they come, or cannot be reached; see rvh_trace.stats()",
                    self.signal.items(),
                    lane.name,
                    self.max_bytes
                )
            });
            shipment.settled_by_one(Tally {
                queue_full: count as u64,
                ..Tally::default()
            });
        }
    }

    /// Passes a command on to every lane, behind what it holds.
    pub(super) fn command(&self, command: &Command) {
        for lane in &self.each {
            let _ = lane.jobs.send(Job::Command(command.clone()));
        }
    }

    /// Waits until every lane has answered a shutdown.
    pub(super) async fn ended(self) {
        for lane in self.each {
            let _ = lane.task.await;
        }
    }
}

async fn run(
    mut destination: Destination,
    mut jobs: UnboundedReceiver<Job>,
    held: Arc<Held>,
    delivery: Delivery,
    timeout: Duration,
) {
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Deliver(shipment) => {
                let (request, count) = (shipment.request.clone(), shipment.count);
                let deadline = Instant::now() + timeout;
                let tally = delivery
                    .clone()
                    .deliver_in_parts(&mut destination, request, &shipment.items, count, deadline)
                    .await;
                held.bytes
                    .fetch_sub(shipment.items.len(), Ordering::Relaxed);
                held.spans.fetch_sub(count, Ordering::Relaxed);
                shipment.settled_by_one(tally);
            }
            Job::Command(Command::Flush { done }) => {
                delivery.flush(&mut destination, timeout, false).await;
                drop(done);
            }
            Job::Command(Command::Shutdown { done, .. }) => {
                delivery.flush(&mut destination, timeout, true).await;
                drop(done);
                return;
            }
        }
    }
}
