//! The loop that sends what waits in a batch: one for spans, one for log records.
//!
//! It sleeps until a batch is complete, the schedule delay has passed or somebody asks for a flush; then it swaps the
//! queue out and sends it in requests of at most `max_export_batch_size` items. What is more than whole batches waits for the
//! next one, or for the delay or the flush. Every request has one deadline
//! (`OTEL_BSP_EXPORT_TIMEOUT`, `OTEL_BLRP_EXPORT_TIMEOUT`). Every item it takes is counted exactly once: exported, or dropped
//! with a reason. The loop of log records makes its exporters, and begins to wake up by itself, with the first record: most
//! processes have none.
//!
//! A single destination is served in this loop, in memory that is used again; several have a [`Lanes`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::Command;
use super::lane::Lanes;
use crate::config::{BatchConfig, Signal};
use crate::pipeline::batch::{Batch, KEPT_CAPACITY, Spans};
use crate::pipeline::delivery::{Delivery, Destination, Tally};
use crate::pipeline::timer::Timer;
use crate::pipeline::{BuildExporters, LONGEST_TIMEOUT, Pipeline, spool};
use crate::stats::{DropReason, Stats};
use crate::wire::span::take_spans;

/// What a loop empties, and where it counts what became of it.
#[derive(Clone, Copy)]
pub(super) struct Queue {
    pub(super) signal: Signal,
    pub(super) config: &'static BatchConfig,
    pub(super) batch: &'static Batch,
    pub(super) stats: &'static Stats,
    pub(super) build_exporters: &'static BuildExporters,
}

/// Where requests go from here.
enum Way {
    /// Not known before the first log record.
    Unopened,
    /// To no destination, or to one, which the loop waits for.
    Direct(Option<Destination>),
    /// To several, which nothing waits for.
    Lanes(Lanes),
}

pub(super) struct Loop {
    pipeline: &'static Pipeline,
    queue: Queue,
    way: Way,
    commands: UnboundedReceiver<Command>,
    delivery: Delivery,
    /// Of the schedule delay.
    timer: Timer,
    /// The buffer that goes back into the queue at the next swap.
    spare: Spans,
    /// The memory of the last request, for the next one: mapped anew it costs a page fault every 4 KiB.
    spare_request: Vec<u8>,
}

impl Loop {
    pub(super) fn new(
        pipeline: &'static Pipeline,
        queue: Queue,
        commands: UnboundedReceiver<Command>,
        delivery: Delivery,
    ) -> Self {
        let mut this = Self {
            pipeline,
            queue,
            way: Way::Unopened,
            commands,
            delivery,
            timer: Timer::default(),
            spare: Spans::default(),
            spare_request: Vec::new(),
        };
        if queue.signal != Signal::Logs {
            this.open();
        }
        this
    }

    /// Makes the exporters.
    fn open(&mut self) {
        let (pipeline, queue) = (self.pipeline, self.queue);
        let exporters = (queue.build_exporters)().into_iter();
        let mut destinations: Vec<_> = match queue.signal {
            Signal::Traces => exporters
                .map(|exporter| spool::around(exporter, pipeline, &self.delivery.shutdown))
                .map(|exporter| Destination::new(exporter, queue.signal).counted_in(pipeline))
                .collect(),
            signal => exporters
                .map(|exporter| Destination::new(exporter, signal))
                .collect(),
        };
        self.way = if destinations.len() > 1 {
            let settle = move |tallies: &[Tally], count| {
                queue.batch.settle_handed_over(count, || {
                    queue.count_tallies(tallies, count as u64);
                });
                queue.settle_spooled(tallies);
            };
            Way::Lanes(Lanes::start(
                destinations,
                queue.signal,
                queue.config,
                &self.delivery,
                Arc::new(settle),
            ))
        } else {
            Way::Direct(destinations.pop())
        };
    }

    pub(super) async fn run(mut self) {
        loop {
            let is_open = !matches!(self.way, Way::Unopened);
            let due = Instant::now() + self.queue.config.schedule_delay.min(LONGEST_TIMEOUT);
            tokio::select! {
                // In order: a command that is there is answered before another wait begins.
                biased;
                command = self.commands.recv() => match command {
                    Some(command @ Command::Flush { .. }) => self.flush(command).await,
                    Some(command @ Command::Shutdown { .. }) => {
                        self.flush(command).await;
                        if let Way::Lanes(lanes) = self.way {
                            lanes.ended().await;
                        }
                        // The pipeline outlives its shutdown, and nothing is queued after it: a process may have many.
                        drop(self.queue.batch.take(Spans::default()));
                        return;
                    }
                    None => return,
                },
                () = self.queue.batch.woken() => self.woken().await,
                () = self.timer.passed(due), if is_open => self.send_waiting().await,
            }
        }
    }

    async fn woken(&mut self) {
        if matches!(self.way, Way::Unopened) {
            self.open();
            // The first record is worth no request of its own. One that completes a batch may have been the next.
            if self.queue.batch.unsettled() < self.queue.config.max_export_batch_size as u64 {
                return;
            }
        }
        let complete = self
            .queue
            .batch
            .take_complete(std::mem::take(&mut self.spare));
        self.send_all(complete).await;
    }

    /// Sends what waits and carries the command out. Whoever drops the command last is the last that is done.
    async fn flush(&mut self, command: Command) {
        self.send_waiting().await;
        match &mut self.way {
            Way::Lanes(lanes) => lanes.command(&command),
            Way::Direct(destination) => {
                let is_last = matches!(command, Command::Shutdown { .. });
                let timeout = self.queue.config.export_timeout;
                if let Some(destination) = destination {
                    self.delivery.flush(destination, timeout, is_last).await;
                }
            }
            // Nothing has come yet.
            Way::Unopened => {}
        }
    }

    async fn send_waiting(&mut self) {
        let spans = self.queue.batch.take(std::mem::take(&mut self.spare));
        self.send_all(spans).await;
    }

    async fn send_all(&mut self, spans: Spans) {
        let (mut rest, mut left) = (spans.bytes.as_slice(), spans.count);
        while !rest.is_empty() {
            let config = self.queue.config;
            let (max_spans, max_bytes) = (config.max_export_batch_size, config.max_request_bytes);
            let (count, end) = if left <= max_spans && rest.len() <= max_bytes {
                (left, rest.len())
            } else {
                take_spans(rest, max_spans, max_bytes)
            };
            if count == 0 {
                break;
            }
            self.send(&rest[..end], count).await;
            (rest, left) = (&rest[end..], left - count);
        }
        self.spare = spans;
    }

    /// Sends `spans` and counts what became of them, or leaves both to the lanes.
    async fn send(&mut self, spans: &[u8], count: usize) {
        let queue = self.queue;
        if matches!(self.way, Way::Unopened) {
            self.open();
        }
        let destination = match &mut self.way {
            Way::Direct(destination) => destination.as_mut(),
            Way::Lanes(lanes) => {
                let envelope = self.delivery.envelope;
                let request = envelope.request(spans);
                let items = if envelope.keeps_items() {
                    request.slice(request.len() - spans.len()..)
                } else {
                    Bytes::copy_from_slice(spans)
                };
                queue.batch.hand_over(spans.len(), count);
                lanes.deliver(request, items, count);
                return;
            }
            Way::Unopened => None,
        };
        let deadline = Instant::now() + queue.config.export_timeout;
        let buffer = std::mem::take(&mut self.spare_request);
        let request = self.delivery.envelope.request_in(buffer, spans);
        let tally = match destination {
            Some(destination) => {
                let (delivery, request) = (self.delivery.clone(), request.clone());
                delivery
                    .deliver_in_parts(destination, request, spans, count, deadline)
                    .await
            }
            None => Tally::default(),
        };
        // Not if an exporter still holds it, as one that ran into the deadline may.
        if let Ok(buffer) = request.try_into_mut() {
            self.spare_request = buffer.into();
            self.spare_request.clear();
            self.spare_request.shrink_to(KEPT_CAPACITY);
        }
        let tallies = [tally];
        queue.batch.settle(spans.len(), count, || {
            queue.count_tallies(&tallies, count as u64);
        });
        queue.settle_spooled(&tallies);
    }
}

impl Queue {
    /// An item counts as exported when every destination took it. Else it is counted once, for the first reason in this
    /// order that any destination had: failed, rejected, of a kind it does not take, no room in the destination's queue, none
    /// on disk, on disk.
    fn count_tallies(self, tallies: &[Tally], count: u64) {
        let most = |lost: fn(&Tally) -> u64| tallies.iter().map(lost).max().unwrap_or(0);
        let mut rest = count;
        let mut take = |items: u64| {
            let taken = items.min(rest);
            rest -= taken;
            taken
        };
        let failed = take(most(|tally| tally.failed));
        let rejected = take(most(|tally| tally.rejected));
        let unsupported = take(most(|tally| tally.unsupported));
        let queue_full = take(most(|tally| tally.queue_full));
        let spool_full = take(most(|tally| tally.spool_full));
        let spooled = take(most(|tally| tally.spooled));
        let stats = self.stats;
        stats.count_dropped(DropReason::Failed, failed);
        stats.count_dropped(DropReason::Rejected, rejected);
        stats.count_dropped(self.reason_for_unsupported(), unsupported);
        stats.count_dropped(DropReason::QueueFull, queue_full);
        stats.count_dropped(DropReason::SpoolFull, spool_full);
        stats.count_spooled(spooled);
        stats.count_exported(rest, most(|tally| tally.delivered_bytes));
    }

    /// Every collector takes spans: one that says otherwise has refused them.
    fn reason_for_unsupported(self) -> DropReason {
        match self.signal {
            Signal::Logs => DropReason::Unsupported,
            _ => DropReason::Rejected,
        }
    }

    /// What the sender of a spool waits for: that requests on disk are counted as being there.
    fn settle_spooled(self, tallies: &[Tally]) {
        let written = tallies.iter().map(|tally| tally.spooled).sum();
        self.stats.settle_spooled(written);
    }
}
