//! What the tests of Rust futures under Python need of an extension module.

use pyo3::prelude::*;

mod crossing;
mod outcomes;
mod streams;
mod trees;

#[pymodule]
mod futures_extension {
    use super::*;

    #[pymodule_export]
    use crossing::{Crossing, abandon, call_blocking, call_in_bare_task, call_in_task, steps};
    #[pymodule_export]
    use outcomes::{
        bare, echo, panics, pending, raises, ready, returns_what_cannot_be_converted, sleep,
        without_span,
    };
    #[pymodule_export]
    use streams::{Produced, Reader, collect};
    #[pymodule_export]
    use trees::{call, call_within_two_spans, identities, tree};

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
