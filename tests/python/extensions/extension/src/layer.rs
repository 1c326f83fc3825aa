//! Spans and events of `tracing`.

use std::fmt;

use pyo3::prelude::*;
use rvh_trace_client::{layer, Context, LayerOptions};
use tracing::{
    debug, debug_span, error, event, info, info_span, instrument, trace, warn, Level, Span,
};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};

#[derive(Debug)]
struct Cause;

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the disk is full")
    }
}

impl std::error::Error for Cause {}

#[derive(Debug)]
struct Failure(Cause);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not written")
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[instrument(level = "info")]
fn outer(items: u32) -> u32 {
    (0..items).map(middle).sum()
}

#[instrument(level = "info")]
fn middle(item: u32) -> u32 {
    info!(item, "looked at");
    inner()
}

#[instrument(level = "debug")]
fn inner() -> u32 {
    1
}

/// Three spans deep.
#[pyfunction]
fn tree(items: u32) -> u32 {
    outer(items)
}

/// A field of every type.
#[pyfunction]
fn fields() {
    let span = info_span!(
        "fields",
        cart.id = "c-1729",
        cart.size = 3_u64,
        large = u64::MAX,
        negative = -1_i64,
        small = 7_u8,
        wide = 5_i128,
        price = 12.5,
        paid = true,
        r#type = "raw",
        debugged = ?Some(1),
        displayed = %Cause,
        late = tracing::field::Empty,
        never = tracing::field::Empty,
    );
    span.record("late", "recorded");
    span.record("cart.size", 4_u64);
}

/// The fields that OpenTelemetry gives a meaning.
#[pyfunction]
fn otel_fields(status: &str) {
    let span = info_span!(
        "callsite",
        otel.name = "GET /cart",
        otel.kind = "Client",
        otel.status_code = tracing::field::Empty,
        otel.status_description = tracing::field::Empty,
    );
    span.record("otel.status_code", status);
    if status == "error" {
        span.record("otel.status_description", "told late");
    }
    let renamed = info_span!(
        "renamed",
        otel.name = tracing::field::Empty,
        otel.kind = "nonsense"
    );
    renamed.record("otel.name", tracing::field::debug("by record"));
}

#[instrument(level = "info", err)]
fn fails() -> Result<(), Failure> {
    Err(Failure(Cause))
}

/// Errors in fields and events.
#[pyfunction]
fn errors() {
    let failure: &(dyn std::error::Error + 'static) = &Failure(Cause);
    info_span!("field", failure);
    info_span!("event").in_scope(|| error!(failure, "could not go on"));
    info_span!("unnamed event").in_scope(|| error!(failure));
    let _ = fails();
}

/// Events at every level, each with a field.
#[pyfunction]
fn events() {
    info_span!("events").in_scope(|| {
        trace!(n = 1, "a trace");
        debug!(n = 2, "a debug");
        info!(n = 3, "an info");
        warn!(n = 4, "a warning");
        error!(n = 5, "an error");
    });
}

/// An event outside of any span of Rust's.
#[pyfunction]
fn lone_event() {
    warn!(n = 1, "alone");
}

/// A record of the `log` crate.
#[pyfunction]
fn log_record() {
    let _ = tracing_log::LogTracer::init();
    info_span!("logs").in_scope(|| log::warn!("from log"));
}

/// Links, explicit parents and explicit roots.
#[pyfunction]
fn relations() {
    let first = info_span!("first");
    info_span!("follower").follows_from(&first);
    info_span!("unrelated").in_scope(|| {
        info_span!(parent: &first, "child of first");
        info_span!(parent: None, "root");
        event!(parent: &first, Level::INFO, "told to first");
    });
}

/// A span that is entered, left, and entered again while another is.
#[pyfunction]
fn interleaved() {
    let (first, second) = (info_span!("first"), info_span!("second"));
    let in_first = first.enter();
    let in_second = second.enter();
    drop(in_first);
    info_span!("in second");
    drop(in_second);
    first.in_scope(|| info_span!("in first"));
    info_span!("in neither");
}

/// A debug formatter that opens a span itself.
#[pyfunction]
fn formats_in_spans() {
    struct Traced;
    impl fmt::Debug for Traced {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            info_span!("formatting", depth = "inner");
            f.write_str("traced")
        }
    }
    info_span!("formatted", before = "b", value = ?Traced, after = "a");
}

/// The tree and the events, below a subscriber of their own.
#[pyfunction]
#[pyo3(signature = (what, callback=None))]
fn with_options(what: &str, callback: Option<Bound<'_, PyAny>>) -> PyResult<()> {
    let run = || -> PyResult<()> {
        tree(1);
        events();
        callback.map_or(Ok(()), |callback| callback.call0().map(drop))
    };
    let registry = tracing_subscriber::registry();
    let options = LayerOptions::new();
    macro_rules! below {
        ($layer:expr) => {
            tracing::subscriber::with_default(registry.with($layer), run)
        };
    }
    match what {
        "level" => below!(options.max_level(LevelFilter::INFO).layer()),
        "targets" => below!(layer().with_filter(Targets::new().with_target("other", Level::TRACE))),
        "code" => below!(options.code(true).thread(true).layer()),
        "log" => below!(options
            .events(LevelFilter::OFF)
            .log(LevelFilter::WARN)
            .layer()),
        "no error status" => below!(options.error_status(false).layer()),
        "two layers" => below!(layer().and_then(layer())),
        "beside another" => below!(layer().and_then(Counting)),
        _ => below!(layer()),
    }
}

/// Counts what it sees.
struct Counting;

static SEEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

impl<S: tracing::Subscriber> Layer<S> for Counting {
    fn on_new_span(
        &self,
        _: &tracing::span::Attributes<'_>,
        _: &tracing::Id,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        SEEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// How many spans the other layer has seen.
#[pyfunction]
fn seen() -> usize {
    SEEN.load(std::sync::atomic::Ordering::Relaxed)
}

/// Calls back inside a span, which Python then sees as current.
#[pyfunction]
fn call_inside(callback: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    info_span!("rust").in_scope(|| {
        let _python = Context::current().enter_python();
        callback.call0().map(Bound::unbind)
    })
}

/// Calls back inside a span that ends before Python lets go of it.
#[pyfunction]
fn call_and_end(callback: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let span = info_span!("rust");
    let context = span.in_scope(Context::current);
    drop(span);
    let _python = context.enter_python();
    callback.call0().map(Bound::unbind)
}

/// Many threads below one span, each with spans of its own.
#[pyfunction]
fn threads(py: Python<'_>, count: usize, spans: usize) {
    // Opened while Python can be asked what is current.
    let parent = info_span!("threads");
    py.detach(move || {
        let workers: Vec<_> = (0..count)
            .map(|worker| {
                let parent = parent.clone();
                std::thread::spawn(move || {
                    parent.in_scope(|| {
                        for n in 0..spans {
                            debug_span!("work", worker, n).in_scope(|| {
                                Span::current().record("n", n + 1);
                            });
                        }
                    });
                })
            })
            .collect();
        for worker in workers {
            let _ = worker.join();
        }
    });
}

pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(tree, module)?)?;
    module.add_function(wrap_pyfunction!(fields, module)?)?;
    module.add_function(wrap_pyfunction!(otel_fields, module)?)?;
    module.add_function(wrap_pyfunction!(errors, module)?)?;
    module.add_function(wrap_pyfunction!(events, module)?)?;
    module.add_function(wrap_pyfunction!(lone_event, module)?)?;
    module.add_function(wrap_pyfunction!(log_record, module)?)?;
    module.add_function(wrap_pyfunction!(relations, module)?)?;
    module.add_function(wrap_pyfunction!(interleaved, module)?)?;
    module.add_function(wrap_pyfunction!(formats_in_spans, module)?)?;
    module.add_function(wrap_pyfunction!(with_options, module)?)?;
    module.add_function(wrap_pyfunction!(seen, module)?)?;
    module.add_function(wrap_pyfunction!(call_inside, module)?)?;
    module.add_function(wrap_pyfunction!(call_and_end, module)?)?;
    module.add_function(wrap_pyfunction!(threads, module)?)
}
