//! Where spans and Python code inside of a future belong.

use pyo3::prelude::*;
use rvh_trace_client::{Context, Span, python, task};
use tracing::Instrument;

/// A future with spans three deep, on several tasks and threads.
#[pyfunction]
pub(crate) fn tree(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    python::future_into_py(py, "future", async {
        first(1).await;
        Ok(())
    })
}

#[tracing::instrument]
async fn first(number: i64) {
    tracing::info!(number, "in first");
    tokio::task::yield_now().await;
    let (a, b) = tokio::join!(leaf("joined one"), leaf("joined two"));
    tokio::select! {
        _ = std::future::pending::<()>() => {}
        () = leaf("selected") => {}
    }
    let spawned = task::spawn(async {
        second().await;
    });
    let blocking = task::spawn_blocking(|| {
        tracing::info_span!("blocking").in_scope(|| tracing::info!("in blocking"));
    });
    let _ = (a, b, spawned.await, blocking.await);
}

#[tracing::instrument]
async fn second() {
    tokio::task::yield_now().await;
    third().await;
}

#[tracing::instrument]
async fn third() {
    tokio::task::yield_now().await;
    Span::builder("by hand").start();
}

async fn leaf(name: &'static str) {
    tokio::task::yield_now()
        .instrument(tracing::info_span!("leaf", name))
        .await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn own_identity() -> (String, String) {
    let context = Context::current();
    (hex(&context.trace_id()), hex(&context.span_id()))
}

fn opentelemetry_identity() -> (String, String) {
    use opentelemetry::trace::TraceContextExt;

    let context = opentelemetry::Context::current();
    let context = context.span().span_context().clone();
    (
        context.trace_id().to_string(),
        context.span_id().to_string(),
    )
}

/// Trace and span id of what is current in a future, after a step; twice, as this crate and as `opentelemetry` says.
#[pyfunction]
pub(crate) fn identities<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    python::future_into_py(py, name, async {
        tokio::task::yield_now().await;
        Ok((own_identity(), opentelemetry_identity()))
    })
}

/// A future that awaits `callback()`.
#[pyfunction]
pub(crate) fn call<'py>(
    py: Python<'py>,
    name: &str,
    callback: Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    python::future_into_py(py, name, await_call(callback))
}

/// The same below two spans of `tracing`.
#[pyfunction]
pub(crate) fn call_within_two_spans(
    py: Python<'_>,
    callback: Py<PyAny>,
) -> PyResult<Bound<'_, PyAny>> {
    python::future_into_py(py, "future", outer(callback))
}

#[tracing::instrument(skip_all)]
async fn outer(callback: Py<PyAny>) -> PyResult<Py<PyAny>> {
    tokio::task::yield_now().await;
    inner(callback).await
}

#[tracing::instrument(skip_all)]
async fn inner(callback: Py<PyAny>) -> PyResult<Py<PyAny>> {
    tokio::task::yield_now().await;
    await_call(callback).await
}

pub(crate) async fn await_call(callback: Py<PyAny>) -> PyResult<Py<PyAny>> {
    let awaited = Python::attach(|py| python::into_future(callback.bind(py).call0()?))?;
    awaited.await
}
