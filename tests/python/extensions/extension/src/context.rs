//! Contexts in headers and on threads.

use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::prelude::*;
use rvh_trace_client::{Context, Span};

use crate::held::Held;

fn header_map(headers: Vec<(String, Vec<u8>)>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::try_from(name).unwrap();
        map.append(name, HeaderValue::from_bytes(&value).unwrap());
    }
    map
}

/// The headers that carry what is current, into some that carry another context already.
#[pyfunction]
fn inject() -> Vec<(String, String)> {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", HeaderValue::from_static("stale"));
    headers.insert("accept", HeaderValue::from_static("*/*"));
    Context::current().inject(&mut headers);
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

/// The headers of a request below `headers`, sent in a span; `None` if those carry nothing.
#[pyfunction]
fn pass_on(headers: Vec<(String, Vec<u8>)>) -> Option<Vec<(String, String)>> {
    let context = Context::extract(&header_map(headers))?;
    assert!(context.is_remote());
    let span = Span::builder("pass on").parent(&context).start();
    let _attached = span.attach();
    Some(inject())
}

/// The trace and span id of what is current, if anything is.
#[pyfunction]
fn current() -> Option<(String, String)> {
    let context = Context::current();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    context
        .is_valid()
        .then(|| (hex(&context.trace_id()), hex(&context.span_id())))
}

/// [`current`] without the GIL.
#[pyfunction]
fn current_detached(py: Python<'_>) -> Option<(String, String)> {
    py.detach(current)
}

/// What is current, held.
#[pyfunction]
fn capture() -> Held {
    Held::of(Context::current())
}

/// Enters a context in Python, and leaves it without the GIL.
#[pyfunction]
fn leave_detached(py: Python<'_>) -> bool {
    struct Carried<T>(T);
    // SAFETY: a test of what happens to one who does this.
    unsafe impl<T> Send for Carried<T> {}

    let span = Span::builder("left").start();
    let scope = Carried(span.enter_python());
    py.detach(move || {
        let Carried(scope) = { scope };
        drop(scope);
    });
    py.detach(|| Span::builder("entered").start().set_in_python())
}

pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(inject, module)?)?;
    module.add_function(wrap_pyfunction!(pass_on, module)?)?;
    module.add_function(wrap_pyfunction!(current, module)?)?;
    module.add_function(wrap_pyfunction!(current_detached, module)?)?;
    module.add_function(wrap_pyfunction!(capture, module)?)?;
    module.add_function(wrap_pyfunction!(leave_detached, module)?)
}
