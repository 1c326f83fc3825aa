//! `DeferredSpan`: a span that keeps what `span(...)` was called with.
//!
//! Made when a span is not recorded where it is made: tracing is not set up yet, or the parent is not sampled. It may still
//! be entered elsewhere or turn out to be a decorator. Unlike other spans it holds objects of the user's, so the collector
//! tracks it.

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::cell::AttachedCell;
use super::creation::{Call, Extra, LastTwo, with_span_name};
use super::errors::guard;
use super::lifecycle;
use super::open_spans;
use super::span::{Body, Span};
use crate::clock::Start;
use crate::context::SpanContext;
use crate::span::{Span as Recording, SpanKind};
use crate::tracer::{Decision, Tracer};

/// What `span(...)` was called with, kept.
pub(super) struct Pending {
    pub(super) name: Py<PyAny>,
    pub(super) attributes: Option<Py<PyAny>>,
    pub(super) extra: Option<Py<PyDict>>,
    pub(super) links: Option<Py<PyAny>>,
    pub(super) kind: SpanKind,
}

impl Pending {
    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            name: self.name.clone_ref(py),
            attributes: self
                .attributes
                .as_ref()
                .map(|attributes| attributes.clone_ref(py)),
            extra: self.extra.as_ref().map(|extra| extra.clone_ref(py)),
            links: self.links.as_ref().map(|links| links.clone_ref(py)),
            kind: self.kind,
        }
    }

    pub(super) fn with_call<'py, R>(
        &self,
        py: Python<'py>,
        then: impl FnOnce(&Call<'_, 'py>) -> R,
    ) -> R {
        then(&Call {
            name: self.name.bind(py),
            attributes: self
                .attributes
                .as_ref()
                .map(|attributes| attributes.bind(py)),
            links: self.links.as_ref().map(|links| links.bind(py)),
            kind: self.kind,
            extra: self
                .extra
                .as_ref()
                .map_or(Extra::None, |extra| Extra::Dict(extra.bind(py))),
        })
    }

    /// Lets go of it here and now, also where PyO3 does not know that we are attached.
    fn forget(self, py: Python<'_>) {
        drop((
            self.name.into_bound(py),
            self.attributes.map(|attributes| attributes.into_bound(py)),
            self.extra.map(|extra| extra.into_bound(py)),
            self.links.map(|links| links.into_bound(py)),
        ));
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.name)?;
        visit.call(self.attributes.as_ref())?;
        visit.call(self.extra.as_ref())?;
        visit.call(self.links.as_ref())
    }
}

/// A span whose call is kept. To users it is a `Span`.
#[pyclass(frozen, extends = Span, name = "Span", module = "rvh_trace")]
pub(super) struct DeferredSpan {
    pub(super) pending: AttachedCell<Option<Pending>>,
}

static LAST: LastTwo<DeferredSpan> = LastTwo::new();

impl DeferredSpan {
    /// The objects that nobody holds any more.
    pub(super) fn all_unused(py: Python<'_>) -> Vec<Bound<'_, Self>> {
        LAST.all_unused(py)
    }

    /// The object for a deferred span: one of the last two again, as for any span.
    pub(super) fn make(py: Python<'_>, pending: Pending) -> PyResult<Bound<'_, Span>> {
        if let Some(unused) = LAST.unused(py) {
            unused.as_super().get().reuse_deferred(py);
            let old = unused.get().pending.with(py, |slot| slot.replace(pending));
            if let Some(old) = old.flatten() {
                old.forget(py);
            }
            return Ok(unused.into_super());
        }
        let deferred = Self {
            pending: AttachedCell::new(Some(pending)),
        };
        let made = PyClassInitializer::from(Span::new(Body::Deferred)).add_subclass(deferred);
        let made = Bound::new(py, made)?;
        open_spans::list(py, made.as_super().get());
        LAST.keep(&made);
        Ok(made.into_super())
    }

    /// Starts a deferred span as a child of `parent`; whether it has an identity of its own.
    pub(super) fn start(
        span: &Bound<'_, Span>,
        parent: Option<&Bound<'_, Span>>,
    ) -> PyResult<bool> {
        let py = span.py();
        let Ok(deferred) = span.cast::<Self>() else {
            return Ok(false);
        };
        let Some(pending) = deferred.get().pending.with(py, Option::take).flatten() else {
            return Ok(false);
        };
        let started = Self::start_pending(span, parent, &pending);
        pending.forget(py);
        started
    }

    fn start_pending(
        span: &Bound<'_, Span>,
        parent: Option<&Bound<'_, Span>>,
        pending: &Pending,
    ) -> PyResult<bool> {
        let py = span.py();
        let tracer = lifecycle::tracer();
        if let (Some(tracer), Some(parent)) = (tracer, parent)
            && parent.get().hides_children(tracer)
        {
            tracer.count_not_sampled();
            span.get().become_hidden(py, parent.get());
            return Ok(false);
        }
        Self::decide(span, tracer, parent, pending)
    }

    #[cold]
    fn decide(
        span: &Bound<'_, Span>,
        tracer: Option<&'static Tracer>,
        parent: Option<&Bound<'_, Span>>,
        pending: &Pending,
    ) -> PyResult<bool> {
        let py = span.py();
        let parent = parent.map(|parent| parent.get().clone_context(py));
        let decision = tracer.map_or(Decision::Inherit, |tracer| {
            let decision = tracer.decide(parent.as_ref());
            if !matches!(decision, Decision::Record(_)) {
                tracer.count_not_sampled();
            }
            decision
        });
        match (decision, tracer) {
            (Decision::Inherit, _) | (_, None) => {
                span.get()
                    .become_body(py, Body::NonRecording(parent.unwrap_or_default()));
                Ok(false)
            }
            (Decision::Drop(context), _) => {
                span.get().become_body(py, Body::NonRecording(context));
                Ok(true)
            }
            (Decision::Record(context), Some(tracer)) => {
                Self::record(span, tracer, context, parent.as_ref(), pending)?;
                Ok(true)
            }
        }
    }

    fn record(
        span: &Bound<'_, Span>,
        tracer: &'static Tracer,
        context: SpanContext,
        parent: Option<&SpanContext>,
        pending: &Pending,
    ) -> PyResult<()> {
        let py = span.py();
        let parent = parent.filter(|parent| parent.is_valid());
        let mut context = Some(context);
        let mut recording = with_span_name(pending.name.bind(py), |name| {
            let context = context.take().unwrap_or_default();
            Recording::new(tracer, context, parent, pending.kind, name)
        })?;
        let start = Start::now();
        let filled = pending.with_call(py, |call| call.fill(&mut recording));
        // Layers are shown a span with its attributes.
        recording.begin_attended(start);
        span.get().become_body(py, Body::Recording(recording));
        guard(py, "reading a span's attributes", || filled).map(drop)
    }
}

#[pymethods]
impl DeferredSpan {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let visited = self.pending.with_collecting(|pending| {
            pending
                .as_ref()
                .map_or(Ok(()), |pending| pending.traverse(&visit))
        });
        visited.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        let pending = self.pending.with_collecting(Option::take);
        drop(pending);
    }
}
