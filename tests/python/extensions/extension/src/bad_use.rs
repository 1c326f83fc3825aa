//! What nobody should do.

use std::sync::mpsc;
use std::sync::Mutex;
use std::time::Duration;

use pyo3::prelude::*;
use rvh_trace_client::{log, Attribute, Context, Severity, Span};
use tracing::info_span;

static FORGOTTEN: Mutex<Vec<Context>> = Mutex::new(Vec::new());

/// Looks for rvh_trace without the GIL.
#[pyfunction]
fn connect_detached(py: Python<'_>) -> Option<String> {
    py.detach(|| {
        rvh_trace_client::connect()
            .err()
            .map(|error| error.to_string())
    })
}

/// Starts spans that nobody ends.
#[pyfunction]
fn forget(count: usize) {
    let spans = (0..count).map(|_| Span::builder("forgotten").start());
    FORGOTTEN.lock().unwrap().extend(spans);
}

/// Ends what [`forget`] started.
#[pyfunction]
fn remember() {
    FORGOTTEN.lock().unwrap().clear();
}

/// A thread that opens spans, logs and asks Python what is current for as long as the process lives.
#[pyfunction]
fn never_stop(py: Python<'_>) {
    let (running, is_running) = mpsc::channel();
    std::thread::spawn(move || loop {
        info_span!("endless").in_scope(|| {
            let _ = Context::of_python();
            let _scope = Context::current().enter_python();
            log(
                Severity::Info,
                "endless",
                "still here",
                &[Attribute::new("n", 1)],
            );
        });
        let _ = running.send(());
        std::thread::sleep(Duration::from_micros(50));
    });
    py.detach(move || is_running.recv_timeout(Duration::from_secs(30)).unwrap());
}

/// Logs without the GIL.
#[pyfunction]
fn log_detached(py: Python<'_>) {
    py.detach(|| log(Severity::Warn, "extension::detached", "unheard", &[]));
}

pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(connect_detached, module)?)?;
    module.add_function(wrap_pyfunction!(forget, module)?)?;
    module.add_function(wrap_pyfunction!(remember, module)?)?;
    module.add_function(wrap_pyfunction!(never_stop, module)?)?;
    module.add_function(wrap_pyfunction!(log_detached, module)?)
}
