//! The loop that collects and sends metrics.
//!
//! It sleeps until the interval has passed or somebody asks for a flush, and does nothing before the first measurement.
//! Every export has one deadline (`OTEL_METRIC_EXPORT_TIMEOUT`). What a cumulative export loses, the next one makes good.

use futures::future::join_all;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::Command;
use crate::config::Signal;
use crate::metrics::{Metrics, put_sdk_metrics};
use crate::pipeline::delivery::{Delivery, Destination, MAX_REQUEST_BYTES, Tally};
use crate::pipeline::{MetricsPipeline, Pipeline};
use crate::wire::span::take_spans;

pub(super) struct Loop {
    pipeline: &'static Pipeline,
    metrics: &'static Metrics,
    destinations: Vec<Destination>,
    commands: UnboundedReceiver<Command>,
    delivery: Delivery,
}

impl Loop {
    pub(super) fn new(
        pipeline: &'static Pipeline,
        metrics: &'static MetricsPipeline,
        commands: UnboundedReceiver<Command>,
        delivery: Delivery,
    ) -> Self {
        let destinations = (metrics.build_exporters)()
            .into_iter()
            .map(|exporter| Destination::new(exporter, Signal::Metrics))
            .collect();
        Self {
            pipeline,
            metrics: &metrics.metrics,
            destinations,
            commands,
            delivery,
        }
    }

    pub(super) async fn run(mut self) {
        let interval = self.metrics.config().interval;
        let mut next = Instant::now() + interval;
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Flush { done }) => {
                        self.flush(false).await;
                        drop(done);
                    }
                    Some(Command::Shutdown { done, .. }) => {
                        self.flush(true).await;
                        drop(done);
                        return;
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(next) => {
                    self.collect_and_send().await;
                    // An export that took longer than the interval is followed by one, not by all that it delayed.
                    next = (next + interval).max(Instant::now());
                }
            }
        }
    }

    async fn flush(&mut self, is_last: bool) {
        self.collect_and_send().await;
        let timeout = self.metrics.config().timeout;
        for destination in &mut self.destinations {
            self.delivery.flush(destination, timeout, is_last).await;
        }
    }

    async fn collect_and_send(&mut self) {
        let mut metrics = self.metrics.collect();
        if self.metrics.config().self_metrics {
            put_sdk_metrics(&mut metrics, self.pipeline);
        }
        let deadline = Instant::now() + self.metrics.config().timeout;
        let mut rest = metrics.as_slice();
        while !rest.is_empty() {
            let (count, end) = take_spans(rest, usize::MAX, MAX_REQUEST_BYTES);
            if count == 0 {
                break;
            }
            self.send(&rest[..end], count, deadline).await;
            rest = &rest[end..];
        }
    }

    /// Sends `metrics` to every destination and counts the requests that not every one took.
    async fn send(&mut self, metrics: &[u8], count: usize, deadline: Instant) {
        let request = self.delivery.envelope.request(metrics);
        let delivery = &self.delivery;
        let tallies = join_all(self.destinations.iter_mut().map(|destination| {
            delivery.clone().deliver_in_parts(
                destination,
                request.clone(),
                metrics,
                count,
                deadline,
            )
        }))
        .await;
        // A destination that takes no metrics has been complained of, and is no loss.
        let lost = |tally: &Tally| tally.failed + tally.rejected > 0;
        if tallies.iter().any(lost) {
            delivery.stats.count_metric_export_failed();
        } else if tallies.iter().any(|tally| tally.delivered_bytes > 0) {
            delivery.stats.count_metric_export();
        }
    }
}
