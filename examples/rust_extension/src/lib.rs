//! Prices, worked out in Rust for Python services.

use pyo3::prelude::*;

mod quote;
mod rates;

#[pymodule]
mod pricing {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::quote::quote;

    /// Spans of this module join the trace of the Python code that calls it; without rvh_trace in the interpreter, none
    /// are made.
    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        use tracing_subscriber::layer::SubscriberExt;
        use tracing_subscriber::util::SubscriberInitExt;

        let _ = rvh_trace_client::connect();
        let _ = tracing_subscriber::registry()
            .with(rvh_trace_client::layer())
            .try_init();
        Ok(())
    }
}
