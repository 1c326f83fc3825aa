//! An extension module that is traced through rvh_trace_client, as its tests need it.

mod bad_use;
mod bench;
mod context;
mod held;
mod layer;

use pyo3::prelude::*;
use rvh_trace_client::LayerOptions;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Why there is no connection; `None` if there is one.
#[pyfunction]
fn connect() -> Option<String> {
    rvh_trace_client::connect()
        .err()
        .map(|error| error.to_string())
}

#[pyfunction]
fn is_connected() -> bool {
    rvh_trace_client::is_connected()
}

#[pymodule]
fn traced_extension(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // What is measured may need another subscriber: one that is only current on a thread costs a search more.
    let what = std::env::var("TRACED_EXTENSION").unwrap_or_default();
    if what != "unconnected" {
        let _ = rvh_trace_client::connect();
    }
    let registry = tracing_subscriber::registry();
    let errors_alone = LayerOptions::new().max_level(LevelFilter::ERROR);
    let _ = match what.as_str() {
        "none" => Ok(()),
        "registry" => registry.try_init(),
        "filtered" => registry.with(errors_alone.layer()).try_init(),
        _ => registry.with(rvh_trace_client::layer()).try_init(),
    };

    module.add_function(wrap_pyfunction!(connect, module)?)?;
    module.add_function(wrap_pyfunction!(is_connected, module)?)?;
    bad_use::add_to(module)?;
    bench::add_to(module)?;
    context::add_to(module)?;
    held::add_to(module)?;
    layer::add_to(module)
}
