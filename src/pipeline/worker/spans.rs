//! The loop that sends spans.
//!
//! It sleeps until a batch is complete, the schedule delay has passed or somebody asks for a flush; then it swaps the
//! queue out and sends it in requests of at most `max_export_batch_size` spans. Every request has one deadline
//! (`OTEL_BSP_EXPORT_TIMEOUT`). Every span it takes is counted exactly once: exported, or dropped with a reason.

use futures::future::join_all;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::Command;
use crate::config::Signal;
use crate::pipeline::batch::{KEPT_CAPACITY, Spans};
use crate::pipeline::delivery::{Delivery, Destination, Tally};
use crate::pipeline::{BuildExporters, Pipeline, spool};
use crate::stats::DropReason;
use crate::wire::span::take_spans;

pub(super) struct Loop {
    pipeline: &'static Pipeline,
    destinations: Vec<Destination>,
    commands: UnboundedReceiver<Command>,
    delivery: Delivery,
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
        let destinations = build_exporters()
            .into_iter()
            .map(|exporter| spool::around(exporter, pipeline, &delivery.shutdown))
            .map(|exporter| Destination::new(exporter, Signal::Traces).counted_in(pipeline))
            .collect();
        Self {
            pipeline,
            destinations,
            commands,
            delivery,
            spare: Spans::default(),
            spare_request: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                // In order: a command that is there is answered before another wait begins.
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Flush { done }) => {
                        self.flush().await;
                        drop(done);
                    }
                    Some(Command::Shutdown { done, .. }) => {
                        self.flush().await;
                        drop(done);
                        return;
                    }
                    None => return,
                },
                () = self.pipeline.batch.woken() => self.send_waiting().await,
                () = tokio::time::sleep(self.pipeline.config.schedule_delay) => self.send_waiting().await,
            }
        }
    }

    async fn flush(&mut self) {
        self.send_waiting().await;
        join_all(self.destinations.iter_mut().map(Destination::catch_up)).await;
        for destination in &mut self.destinations {
            destination.flush();
        }
    }

    async fn send_waiting(&mut self) {
        let spans = self.pipeline.batch.take(std::mem::take(&mut self.spare));
        let mut rest = spans.bytes.as_slice();
        while !rest.is_empty() {
            let (count, end) = take_spans(
                rest,
                self.pipeline.config.max_export_batch_size,
                self.pipeline.config.max_request_bytes,
            );
            if count == 0 {
                break;
            }
            self.send(&rest[..end], count).await;
            rest = &rest[end..];
        }
        self.spare = spans;
    }

    /// Sends `spans` to every destination and counts what became of them.
    async fn send(&mut self, spans: &[u8], count: usize) {
        let deadline = Instant::now() + self.pipeline.config.export_timeout;
        let buffer = std::mem::take(&mut self.spare_request);
        let request = self.delivery.envelope.request_in(buffer, spans);
        let delivery = &self.delivery;
        let tallies = join_all(self.destinations.iter_mut().map(|destination| {
            delivery
                .clone()
                .deliver_in_parts(destination, request.clone(), spans, count, deadline)
        }))
        .await;
        // Not if an exporter still holds it, as one that ran into the deadline may.
        if let Ok(buffer) = request.try_into_mut() {
            self.spare_request = buffer.into();
            self.spare_request.clear();
            self.spare_request.shrink_to(KEPT_CAPACITY);
        }
        let pipeline = self.pipeline;
        pipeline.batch.settle(spans.len(), count, || {
            count_tallies(pipeline, &tallies, count as u64);
        });
        let written = tallies.iter().map(|tally| tally.spooled).sum();
        pipeline.stats.settle_spooled(written);
    }
}

/// A span counts as exported when every destination took it, and as spooled when it is lost to none and on disk for some.
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
    let spool_full = take(most(|tally| tally.spool_full));
    let spooled = take(most(|tally| tally.spooled));
    let stats = &pipeline.stats;
    stats.count_dropped(DropReason::Failed, failed);
    stats.count_dropped(DropReason::Rejected, rejected);
    stats.count_dropped(DropReason::SpoolFull, spool_full);
    stats.count_spooled(spooled);
    stats.count_exported(rest, most(|tally| tally.delivered_bytes));
}
