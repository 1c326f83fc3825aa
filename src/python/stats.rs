//! `stats()`: what was counted, as a dict.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::lifecycle::tracer;
use crate::bridge;
use crate::diagnostic;
use crate::stats::{LogSnapshot, Snapshot};
use crate::tracer::Tracer;

/// What this process has counted; `ended` is always exported + dropped + spooled + pending.
#[pyfunction]
pub(super) fn stats(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    to_dict(py, tracer().map(Tracer::stats).unwrap_or_default())
}

pub(super) fn to_dict(py: Python<'_>, snapshot: Snapshot) -> PyResult<Bound<'_, PyDict>> {
    let dropped = PyDict::new(py);
    dropped.set_item("queue_full", snapshot.dropped_queue_full)?;
    dropped.set_item("rejected", snapshot.dropped_rejected)?;
    dropped.set_item("failed", snapshot.dropped_failed)?;
    dropped.set_item("exit", snapshot.dropped_exit)?;
    dropped.set_item("spool_full", snapshot.dropped_spool_full)?;
    dropped.set_item("spool_damaged", snapshot.dropped_spool_damaged)?;
    let logs = log_stats(py, &snapshot.logs)?;
    let stats = PyDict::new(py);
    stats.set_item("started", snapshot.started)?;
    stats.set_item("ended", snapshot.ended)?;
    stats.set_item("not_sampled", snapshot.not_sampled)?;
    stats.set_item("pending", snapshot.pending())?;
    stats.set_item("queued", snapshot.queued)?;
    stats.set_item("queued_bytes", snapshot.queued_bytes)?;
    stats.set_item("in_flight", snapshot.in_flight)?;
    stats.set_item("exported", snapshot.exported)?;
    stats.set_item("dropped", dropped)?;
    stats.set_item("spooled", snapshot.spooled)?;
    stats.set_item("spooled_bytes", snapshot.spooled_bytes)?;
    stats.set_item("recovered", snapshot.recovered)?;
    stats.set_item("damaged_spool_files", snapshot.damaged_spool_files)?;
    stats.set_item("retries", snapshot.retries)?;
    stats.set_item("exported_bytes", snapshot.exported_bytes)?;
    stats.set_item("metric_exports", snapshot.metric_exports)?;
    stats.set_item("metric_exports_failed", snapshot.metric_exports_failed)?;
    stats.set_item("logs", logs)?;
    stats.set_item("worker_alive", snapshot.worker_alive)?;
    stats.set_item("swallowed_errors", diagnostic::swallowed_count())?;
    stats.set_item("rust_events_dropped", bridge::queue::dropped())?;
    stats.set_item("last_error", snapshot.last_error)?;
    Ok(stats)
}

/// `created` is always exported + dropped + pending.
fn log_stats<'py>(py: Python<'py>, logs: &LogSnapshot) -> PyResult<Bound<'py, PyDict>> {
    let dropped = PyDict::new(py);
    dropped.set_item("queue_full", logs.dropped_queue_full)?;
    dropped.set_item("rejected", logs.dropped_rejected)?;
    dropped.set_item("unsupported", logs.dropped_unsupported)?;
    dropped.set_item("failed", logs.dropped_failed)?;
    dropped.set_item("exit", logs.dropped_exit)?;
    let stats = PyDict::new(py);
    stats.set_item("created", logs.created)?;
    stats.set_item("pending", logs.pending())?;
    stats.set_item("queued", logs.queued)?;
    stats.set_item("queued_bytes", logs.queued_bytes)?;
    stats.set_item("in_flight", logs.in_flight)?;
    stats.set_item("exported", logs.exported)?;
    stats.set_item("exported_bytes", logs.exported_bytes)?;
    stats.set_item("dropped", dropped)?;
    Ok(stats)
}
