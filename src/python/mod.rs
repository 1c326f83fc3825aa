//! The PyO3 bindings: one file a Python-visible type or protocol, thin over the core.
//!
//! Rules of this layer: no lock is held while Python code can run; everything a user calls after set-up goes through
//! [`errors::guard`]; classes are frozen, their state sits in an [`cell::AttachedCell`]; a finished span holds no Python object.

mod abi;
mod arguments;
mod asgi;
mod baggage_scope;
mod borrowed;
mod carried;
mod cell;
mod channel;
mod convert;
mod coroutine;
mod creation;
mod current;
mod deferred;
mod errors;
mod exception;
mod exchange;
mod exit;
mod exporter;
mod finalisation;
mod future;
mod hook;
mod imports;
mod instrumented;
mod interpreter;
mod layers;
mod lifecycle;
mod log_record;
mod loop_watch;
mod measurement;
mod message;
mod message_coroutine;
mod method;
mod open_spans;
mod outer;
mod output;
mod propagate;
mod python_thread;
mod request;
mod response;
mod response_start;
mod route;
mod rust_events;
mod scope;
mod scoped;
mod server_span;
mod span;
mod span_context;
mod start;
mod stats;
mod task;
mod task_coroutine;
mod task_ending;
mod task_options;
mod task_spans;
mod task_timings;
mod template;
mod testing;
mod thread_state;
mod traffic;
mod vectorcall;
mod websocket;

use pyo3::prelude::*;

/// The native module of `rvh_trace`.
#[pymodule(name = "_rvh_trace")]
mod native {
    // Before everything that makes a type.
    #[pymodule_export]
    use super::interpreter::main_only;

    #[pymodule_export]
    use super::asgi::{ServerInstrumentation, call_directly};
    #[pymodule_export]
    use super::carried::{CarriedCall, carry, time_wait};
    #[pymodule_export]
    use super::coroutine::SpanCoroutine;
    #[pymodule_export]
    use super::creation::{current_span, new_span, step_in, step_out};
    #[pymodule_export]
    use super::exit::{at_exit, flush_before_exit};
    #[pymodule_export]
    use super::exporter::{OtlpExporter, SpanBatch, SpanQueue};
    #[pymodule_export]
    use super::future::span_future;
    #[pymodule_export]
    use super::instrumented::{
        await_instrumented, call_instrumented, call_suppressed, log_instrumented, static_max_level,
        time_instrumented,
    };
    #[pymodule_export]
    use super::layers::{layer_records, log_layer, read_layer_counts, set_layers};
    #[pymodule_export]
    use super::lifecycle::{
        after_fork_in_child, force_flush, init_tracing, open_span_interval, shutdown,
    };
    #[pymodule_export]
    use super::log_record::{emit_log_record, log_trace_context};
    #[pymodule_export]
    use super::loop_watch::{LoopWatch, watch_loop};
    #[pymodule_export]
    use super::message_coroutine::MessageCoroutine;
    #[pymodule_export]
    use super::open_spans::{export_pending, list_open_spans};
    #[pymodule_export]
    use super::output::{ConsoleExporter, OtlpFileExporter};
    #[pymodule_export]
    use super::propagate::{UseContext, extract, inject, use_context};
    #[pymodule_export]
    use super::rust_events::{close_rust_events, has_rust_events, take_rust_events};
    #[pymodule_export]
    use super::scoped::ScopedTracer;
    #[pymodule_export]
    use super::server_span::ServerSpan;
    #[pymodule_export]
    use super::span::Span;
    #[pymodule_export]
    use super::span_context::{Context, SpanContext};
    #[pymodule_export]
    use super::stats::stats;
    #[pymodule_export]
    use super::task::TaskFactory;
    #[pymodule_export]
    use super::task_coroutine::TaskCoroutine;
    #[pymodule_export]
    use super::template::SpanTemplate;
    #[pymodule_export]
    use super::testing::{MemoryTracer, decode_spans, render_waterfall};

    use super::{
        Bound, PyModule, PyModuleMethods, PyResult, abi, channel, current, errors, task, vectorcall,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        errors::read_strictness();
        current::initialise(module.py())?;
        task::initialise(module.py())?;
        channel::Channel::initialise(module.py())?;
        ServerInstrumentation::initialise(module.py())?;
        vectorcall::install(module)?;
        abi::export(module)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
