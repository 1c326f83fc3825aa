//! Sends what is kept on disk, oldest first, and counts what became of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::FutureExt;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tokio::time::Instant;

use super::directory::{Directory, Kept, Oldest};
use super::{Spool, diagnostic};
use crate::pipeline::delivery::before_deadline;
use crate::pipeline::exporter::Outcome;
use crate::stats::SpoolOutcome;

/// How often the files of dead processes are looked for.
const ADOPT_EVERY: Duration = Duration::from_secs(60);
/// How long the worker may take to count what it has written.
const UNSETTLED: Duration = Duration::from_secs(1);

/// What became of a request from the spool.
enum Sent {
    /// It need not be sent any more.
    Settled(SpoolOutcome),
    /// Another time.
    Later,
}

/// The task of one spool. It ends with the worker.
pub(super) async fn run(spool: Arc<Spool>) {
    let mut next_adoption = Instant::now();
    let mut shutdown = spool.shutdown.clone();
    loop {
        let now = Instant::now();
        if now >= next_adoption {
            next_adoption = now + ADOPT_EVERY;
            spool.adopt().await;
        }
        if spool.is_down().is_none() {
            spool.send_kept().await;
        }
        let until = spool.outage().until.filter(|until| *until > now);
        let stops = tokio::select! {
            () = spool.wake.notified() => false,
            () = tokio::time::sleep_until(until.unwrap_or(next_adoption).min(next_adoption)) => false,
            _ = shutdown.wait_for(Option::is_some) => true,
        };
        // A flush before the exit looks like a shutdown until it is over.
        if stops && shutdown.wait_for(Option::is_none).await.is_err() {
            return;
        }
    }
}

impl Spool {
    async fn adopt(&self) {
        if let Some(Err(error)) = self.run(Directory::adopt).await {
            self.complain("spool-read", "it cannot be read", &error);
        }
    }

    /// Sends what is kept, for a flush; at a shutdown only waits for the request that is on its way.
    pub(super) async fn catch_up(&self) {
        {
            let mut outage = self.outage();
            if !outage.was_asked {
                outage.until = None;
            }
        }
        if self.is_down().is_none() {
            self.send_kept().await;
        } else {
            drop(self.sending.lock().await);
        }
    }

    fn is_stopping(&self) -> bool {
        self.shutdown.borrow().is_some()
    }

    /// Sends requests until none is left or one is not taken.
    async fn send_kept(&self) {
        let _only = self.sending.lock().await;
        while !self.is_stopping() {
            let oldest = self.run(Directory::oldest).await;
            let Some(Some(oldest)) = oldest else {
                return;
            };
            self.count_damage(&oldest);
            for kept in oldest.requests {
                if self.is_stopping() || !self.is_settled().await {
                    return;
                }
                let (spans, offset) = (kept.spans, kept.offset);
                match self.send(kept).await {
                    Sent::Settled(outcome) => {
                        let settled = self.run(move |directory| directory.settle(offset, spans));
                        settled.await;
                        self.count(oldest.is_ours, &outcome);
                    }
                    Sent::Later => return,
                }
            }
            if self.run(Directory::finish).await.is_none() {
                return;
            }
        }
    }

    /// Waits until the worker has counted as spooled what it wrote; whether it has.
    async fn is_settled(&self) -> bool {
        let deadline = Instant::now() + UNSETTLED;
        while self.pipeline.stats.unsettled_spooled() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// Sends one request, in halves while the destination says that it is too large.
    async fn send(&self, kept: Kept) -> Sent {
        let mut outcome = SpoolOutcome {
            spans: kept.spans,
            ..SpoolOutcome::default()
        };
        let mut parts = vec![(kept.request, kept.spans)];
        while let Some((request, spans)) = parts.pop() {
            match self.attempt(request.clone(), spans).await {
                Outcome::Delivered { rejected, .. } => {
                    let rejected = rejected.min(spans);
                    outcome.rejected += rejected;
                    outcome.delivered += spans - rejected;
                    outcome.bytes += request.len() as u64;
                }
                Outcome::Retryable { after, error } => {
                    self.failed(after, &error);
                    self.pipeline.stats.set_last_error(error);
                    parts.push((request, spans));
                    return self.keep_rest(parts, outcome).await;
                }
                Outcome::TooLarge { error } => {
                    if let Some([first, second]) = halves(&request) {
                        parts.extend([second, first]);
                    } else {
                        self.pipeline.stats.set_last_error(error);
                        outcome.rejected += spans;
                    }
                }
                Outcome::Rejected { error }
                | Outcome::Unsupported { error }
                | Outcome::Spooled { error }
                | Outcome::SpoolFull { error } => {
                    self.pipeline.stats.set_last_error(error);
                    outcome.rejected += spans;
                }
            }
            self.answered();
        }
        Sent::Settled(outcome)
    }

    /// Keeps the parts of a request of which others were sent, in its place; all of it where it is if none were.
    async fn keep_rest(&self, parts: Vec<(Bytes, u64)>, mut outcome: SpoolOutcome) -> Sent {
        if outcome.delivered + outcome.rejected == 0 {
            return Sent::Later;
        }
        for (request, spans) in parts {
            let written = self.run(move |directory| directory.append(&request, spans).is_ok());
            if written.await == Some(true) {
                outcome.spans -= spans;
            } else {
                outcome.damaged += spans;
            }
        }
        Sent::Settled(outcome)
    }

    async fn attempt(&self, request: Bytes, spans: u64) -> Outcome {
        self.pipeline.stats.count_retry();
        let attempt = async {
            let mut exporter = self.exporter.lock().await;
            exporter.export(request, spans as usize).await
        };
        let deadline = Instant::now() + self.pipeline.config.export_timeout;
        let attempt = AssertUnwindSafe(attempt).catch_unwind();
        match before_deadline(&mut self.shutdown.clone(), deadline, attempt).await {
            Some(Ok(outcome)) => outcome,
            // It would do so again.
            Some(Err(_)) => Outcome::Rejected {
                error: "the exporter panicked".to_owned(),
            },
            None => Outcome::Retryable {
                after: None,
                error: "no answer before the deadline".to_owned(),
            },
        }
    }

    fn count(&self, is_ours: bool, outcome: &SpoolOutcome) {
        let stats = &self.pipeline.stats;
        self.exporter_stats.count_spool_outcome(outcome);
        self.pipeline
            .batch
            .with_outcomes(|| stats.count_spool_outcome(is_ours, outcome));
    }

    fn count_damage(&self, oldest: &Oldest) {
        if !oldest.is_damaged && oldest.lost == 0 {
            return;
        }
        self.pipeline.stats.count_damaged_spool_file();
        diagnostic::log_once(diagnostic::Level::Warn, "spool-damaged", || {
            "a file in the spool directory is torn, not of rvh_trace or not there any more: what is intact before the damage \
             is sent, the rest is skipped and counted in rvh_trace.stats()"
                .to_owned()
        });
        let outcome = SpoolOutcome {
            spans: oldest.lost,
            damaged: oldest.lost,
            ..SpoolOutcome::default()
        };
        self.count(oldest.is_ours, &outcome);
    }
}

/// Two requests with half of the spans each; `None` for one span, and for what is no request of spans.
fn halves(request: &Bytes) -> Option<[(Bytes, u64); 2]> {
    let whole = ExportTraceServiceRequest::decode(request.clone()).ok()?;
    let count: usize = scopes(&whole).map(Vec::len).sum();
    let part = |takes: &dyn Fn(usize) -> bool| {
        let mut part = whole.clone();
        let mut index = 0;
        let scopes = part
            .resource_spans
            .iter_mut()
            .flat_map(|resource| &mut resource.scope_spans);
        for scope in scopes {
            scope.spans.retain(|_| {
                index += 1;
                takes(index - 1)
            });
        }
        let spans = scopes_len(&part);
        (Bytes::from(part.encode_to_vec()), spans)
    };
    (count > 1).then(|| {
        [
            part(&|index| index < count / 2),
            part(&|index| index >= count / 2),
        ]
    })
}

fn scopes(
    request: &ExportTraceServiceRequest,
) -> impl Iterator<Item = &Vec<opentelemetry_proto::tonic::trace::v1::Span>> {
    request
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans)
        .map(|scope| &scope.spans)
}

fn scopes_len(request: &ExportTraceServiceRequest) -> u64 {
    scopes(request).map(|spans| spans.len() as u64).sum()
}
