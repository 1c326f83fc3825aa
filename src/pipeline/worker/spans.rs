//! The loop that sends spans.
//!
//! It sleeps until a batch is complete, the schedule delay has passed or somebody asks for a flush; then it swaps the
//! queue out and sends it in requests of at most `max_export_batch_size` spans. Every request has one deadline
//! (`OTEL_BSP_EXPORT_TIMEOUT`). Every span it takes is counted exactly once: exported, or dropped with a reason.
//!
//! A single destination is served in this loop, in memory that is used again; several have a [`Lanes`].

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::Command;
use super::lane::Lanes;
use crate::config::Signal;
use crate::pipeline::batch::{KEPT_CAPACITY, Spans};
use crate::pipeline::delivery::{Delivery, Destination, Tally};
use crate::pipeline::timer::Timer;
use crate::pipeline::{BuildExporters, LONGEST_TIMEOUT, Pipeline, spool};
use crate::stats::DropReason;
use crate::wire::span::take_spans;

/// Where requests go from here.
enum Way {
    /// To no destination, or to one, which the loop waits for.
    Direct(Option<Destination>),
    /// To several, which nothing waits for.
    Lanes(Lanes),
}

pub(super) struct Loop {
    pipeline: &'static Pipeline,
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
        build_exporters: &BuildExporters,
        commands: UnboundedReceiver<Command>,
        delivery: Delivery,
    ) -> Self {
        let mut destinations: Vec<_> = build_exporters()
            .into_iter()
            .map(|exporter| spool::around(exporter, pipeline, &delivery.shutdown))
            .map(|exporter| Destination::new(exporter, Signal::Traces).counted_in(pipeline))
            .collect();
        let way = if destinations.len() > 1 {
            let settle = move |tallies: &[Tally], count| {
                pipeline.batch.settle_handed_over(count, || {
                    count_tallies(pipeline, tallies, count as u64);
                });
                settle_spooled(pipeline, tallies);
            };
            let settle = Arc::new(settle);
            Way::Lanes(Lanes::start(
                destinations,
                &pipeline.config,
                &delivery,
                settle,
            ))
        } else {
            Way::Direct(destinations.pop())
        };
        Self {
            pipeline,
            way,
            commands,
            delivery,
            timer: Timer::default(),
            spare: Spans::default(),
            spare_request: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let due = Instant::now() + self.pipeline.config.schedule_delay.min(LONGEST_TIMEOUT);
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
                        return;
                    }
                    None => return,
                },
                () = self.pipeline.batch.woken() => self.send_waiting().await,
                () = self.timer.passed(due) => self.send_waiting().await,
            }
        }
    }

    /// Sends what waits and carries the command out. Whoever drops the command last is the last that is done.
    async fn flush(&mut self, command: Command) {
        self.send_waiting().await;
        match &mut self.way {
            Way::Lanes(lanes) => lanes.command(&command),
            Way::Direct(destination) => {
                let is_last = matches!(command, Command::Shutdown { .. });
                let timeout = self.pipeline.config.export_timeout;
                if let Some(destination) = destination {
                    self.delivery.flush(destination, timeout, is_last).await;
                }
            }
        }
    }

    async fn send_waiting(&mut self) {
        let spans = self.pipeline.batch.take(std::mem::take(&mut self.spare));
        let (mut rest, mut left) = (spans.bytes.as_slice(), spans.count);
        while !rest.is_empty() {
            let config = &self.pipeline.config;
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
        let pipeline = self.pipeline;
        let destination = match &mut self.way {
            Way::Direct(destination) => destination,
            Way::Lanes(lanes) => {
                let request = self.delivery.envelope.request(spans);
                pipeline.batch.hand_over(spans.len(), count);
                lanes.deliver(request, spans.len(), count);
                return;
            }
        };
        let deadline = Instant::now() + pipeline.config.export_timeout;
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
        pipeline.batch.settle(spans.len(), count, || {
            count_tallies(pipeline, &tallies, count as u64);
        });
        settle_spooled(pipeline, &tallies);
    }
}

/// A span counts as exported when every destination took it. Else it is counted once, for the first reason in this order
/// that any destination had: failed, rejected, no room in the destination's queue, none on disk, on disk.
fn count_tallies(pipeline: &Pipeline, tallies: &[Tally], count: u64) {
    let most = |lost: fn(&Tally) -> u64| tallies.iter().map(lost).max().unwrap_or(0);
    let mut rest = count;
    let mut take = |spans: u64| {
        let taken = spans.min(rest);
        rest -= taken;
        taken
    };
    let failed = take(most(|tally| tally.failed));
    let rejected = take(most(|tally| tally.rejected + tally.unsupported));
    let queue_full = take(most(|tally| tally.queue_full));
    let spool_full = take(most(|tally| tally.spool_full));
    let spooled = take(most(|tally| tally.spooled));
    let stats = &pipeline.stats;
    stats.count_dropped(DropReason::Failed, failed);
    stats.count_dropped(DropReason::Rejected, rejected);
    stats.count_dropped(DropReason::QueueFull, queue_full);
    stats.count_dropped(DropReason::SpoolFull, spool_full);
    stats.count_spooled(spooled);
    stats.count_exported(rest, most(|tally| tally.delivered_bytes));
}

/// What the sender of a spool waits for: that requests on disk are counted as being there.
fn settle_spooled(pipeline: &Pipeline, tallies: &[Tally]) {
    let written = tallies.iter().map(|tally| tally.spooled).sum();
    pipeline.stats.settle_spooled(written);
}
