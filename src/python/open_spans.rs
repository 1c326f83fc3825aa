//! The spans that are open now.
//!
//! Every `Span` object that may record stands on one list, from when it is made until it is freed; which of them are open
//! is found out when somebody asks. So a span whose object is used again ([`super::creation::LastTwo`]), as that of nearly
//! every `with span(...)`, pays nothing, and one with an object of its own a push and a swap, about 5 ns.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::cell::AttachedCell;
use super::creation::end_forgotten;
use super::span::{Body, Span};
use super::testing::{attributes, lower_name};
use crate::span::OpenSpan;

/// The address of an object's contents, which do not move.
struct Listed(*const Span);

#[expect(unsafe_code, reason = "an address that the list keeps valid")]
// SAFETY: dereferenced only through `objects`, by an attached thread; see there.
unsafe impl Send for Listed {}

static OBJECTS: AttachedCell<Vec<Listed>> = AttachedCell::new(Vec::new());

/// Where an object that is not on the list stands.
pub(super) const NOT_LISTED: u32 = u32::MAX;

/// Room for this many is kept when there are less.
const KEPT_CAPACITY: usize = 1024;

impl Listed {
    #[expect(unsafe_code, reason = "an address that the list keeps valid")]
    fn span(&self) -> &Span {
        // SAFETY: the object was alive when it was listed, and takes itself off the list when its contents are dropped
        // (`unlist`, in `Drop for Span`), before its memory goes.
        unsafe { &*self.0 }
    }
}

/// Puts an object on the list. More than 4 billion are not listed.
#[inline]
pub(super) fn list(py: Python<'_>, span: &Span) {
    OBJECTS.with(py, |objects| {
        if let Ok(index) = u32::try_from(objects.len())
            && index != NOT_LISTED
        {
            objects.push(Listed(span));
            span.listed.store(index, Ordering::Relaxed);
        }
    });
}

/// Takes an object off the list, when it is freed.
#[inline]
#[expect(unsafe_code, reason = "a destructor has no proof that it is attached")]
pub(super) fn unlist(span: &mut Span) {
    let index = *span.listed.get_mut();
    if index == NOT_LISTED {
        return;
    }
    // SAFETY: an object that was listed is a Python object, which only attached threads free.
    let py = unsafe { Python::assume_attached() };
    OBJECTS.with(py, |objects| {
        objects.swap_remove(index as usize);
        if let Some(moved) = objects.get(index as usize) {
            moved.span().listed.store(index, Ordering::Relaxed);
        }
        if objects.len() < objects.capacity() / 8 && objects.capacity() > KEPT_CAPACITY {
            objects.shrink_to(KEPT_CAPACITY.max(objects.len() * 2));
        }
    });
}

/// Calls `each` with every object. It must not run Python code.
fn objects(py: Python<'_>, mut each: impl FnMut(&Span)) {
    OBJECTS.with(py, |objects| {
        for listed in objects {
            each(listed.span());
        }
    });
}

/// Name, kind, trace id, span id, parent span id, start, age in seconds and attributes.
type Facts<'py> = (
    String,
    String,
    String,
    String,
    Option<String>,
    u64,
    f64,
    Bound<'py, PyDict>,
);

/// What is told of a span: its facts, and the token of its scope.
type Told<'py> = (Facts<'py>, Option<Bound<'py, PyAny>>);

/// Every span that has started and not ended, as [`Told`].
#[pyfunction]
pub(super) fn list_open_spans(py: Python<'_>) -> PyResult<Vec<Told<'_>>> {
    end_forgotten(py);
    let mut open = Vec::new();
    objects(py, |span| {
        let seen = span.state.with(py, |state| match &state.body {
            Body::Recording(span) => span.open().map(|open| {
                let token = state.scope.as_ref().map(|scope| scope.token(py));
                (open, token)
            }),
            _ => None,
        });
        open.extend(seen.flatten());
    });
    open.into_iter()
        .map(|(open, token)| tell(py, &open, token))
        .collect()
}

fn tell<'py>(
    py: Python<'py>,
    open: &OpenSpan,
    token: Option<Bound<'py, PyAny>>,
) -> PyResult<Told<'py>> {
    let decoded = open.decode();
    let age_ns = open
        .start
        .later_unix_ns()
        .saturating_sub(open.start.unix_ns());
    let parent = open.parent_span_id;
    let facts = (
        decoded.name.clone(),
        lower_name(decoded.kind().as_str_name(), "SPAN_KIND_"),
        open.context.trace_id.to_string(),
        open.context.span_id.to_string(),
        parent.is_valid().then(|| parent.to_string()),
        open.start.unix_ns(),
        Duration::from_nanos(age_ns).as_secs_f64(),
        attributes(py, &decoded.attributes)?,
    );
    Ok((facts, token))
}

/// Exports a marker of every span that has been open for `seconds`; how many.
#[pyfunction]
pub(super) fn export_pending(py: Python<'_>, seconds: f64) -> usize {
    let least_age_ns = Duration::try_from_secs_f64(seconds).map_or(u64::MAX, |age| {
        u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)
    });
    end_forgotten(py);
    let mut exported = 0;
    objects(py, |span| {
        let done = span.state.with(py, |state| match &state.body {
            Body::Recording(span) => span.export_pending(least_age_ns),
            _ => false,
        });
        exported += usize::from(done == Some(true));
    });
    exported
}
