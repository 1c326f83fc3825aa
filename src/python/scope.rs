//! A span's scope: starting it, making it current, and the way back, wherever and however the scope is left.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;

use super::current::{self, Scope};
use super::deferred::DeferredSpan;
use super::errors::guard;
use super::exception::Ending;
use super::span::{ANOTHER, Body, ITSELF, STANDS_IN, Span};
use super::{layers, lifecycle};
use crate::clock::Start;
use crate::tracer::Decision;

impl Span {
    /// Starts the span, as a child of `parent`, if it has not started; whether it is to be made current.
    #[inline]
    fn start(slf: &Bound<'_, Self>, parent: Option<&Bound<'_, Self>>) -> PyResult<bool> {
        /// What is left to do outside of the cell.
        enum Next {
            Nothing { enter: bool },
            Deferred,
            Reparent,
        }
        let py = slf.py();
        let next = slf.get().state.with(py, |state| match &mut state.body {
            // Entered again while it is current: it stays current until it is left as often.
            _ if state.depth > 0 => {
                state.depth += 1;
                Next::Nothing { enter: false }
            }
            Body::Recording(span) => {
                if span.is_created() {
                    let unchanged = match parent {
                        // It was put where it belongs when it was made.
                        Some(parent) if parent.get().is_past() => true,
                        Some(parent) => parent
                            .get()
                            .with_context(py, |parent| span.is_child_of(parent)),
                        None => span.is_child_of(None),
                    };
                    if !unchanged {
                        return Next::Reparent;
                    }
                    span.begin_attended(Start::now());
                }
                Next::Nothing { enter: true }
            }
            Body::NonRecording(_) | Body::Shared { .. } => Next::Nothing { enter: true },
            Body::Deferred => Next::Deferred,
        });
        match next.unwrap_or(Next::Nothing { enter: false }) {
            Next::Nothing { enter } => Ok(enter),
            Next::Deferred => DeferredSpan::start(slf, parent),
            Next::Reparent => Ok(Self::reparent(slf, parent)),
        }
    }

    /// Starts a span that was made under another parent than the one it is entered under.
    #[cold]
    fn reparent(slf: &Bound<'_, Self>, parent: Option<&Bound<'_, Self>>) -> bool {
        let py = slf.py();
        let context = parent.map(|parent| parent.get().clone_context(py));
        let Some(tracer) = lifecycle::tracer() else {
            return false;
        };
        match tracer.decide(context.as_ref()) {
            Decision::Record(own) => {
                slf.get().with_recording(py, |span| {
                    span.reparent(own, context.as_ref().filter(|context| context.is_valid()));
                    span.begin_attended(Start::now());
                });
                true
            }
            Decision::Drop(own) => {
                tracer.count_not_sampled();
                slf.get().become_body(py, Body::NonRecording(own));
                true
            }
            Decision::Inherit => {
                tracer.count_not_sampled();
                slf.get()
                    .become_body(py, Body::NonRecording(context.unwrap_or_default()));
                false
            }
        }
    }

    /// Starts the span here without making it current.
    pub(super) fn start_here(slf: &Bound<'_, Self>) -> PyResult<()> {
        let parent = current::span(slf.py())?;
        let started = Self::start(slf, parent.as_ref()).map(drop);
        layers::deliver(slf.py());
        started
    }

    /// Starts the span if need be and makes it current. Never fails.
    #[inline]
    pub(super) fn enter(slf: &Bound<'_, Self>) -> PyResult<()> {
        guard(slf.py(), "starting a span", || {
            let py = slf.py();
            let parent = current::span(py)?;
            let started = Self::start(slf, parent.as_ref());
            if *started.as_ref().unwrap_or(&true) {
                let way_back = Scope::enter(slf)?;
                slf.get().enter_fresh(py, way_back);
            }
            layers::deliver(py);
            started.map(drop)
        })
        .map(drop)
    }

    /// Notes the way back of a span that has started and was just made current.
    #[inline]
    pub(super) fn enter_fresh(&self, py: Python<'_>, way_back: Scope) {
        self.reinstate();
        self.state.with(py, |state| {
            state.depth = 1;
            state.scope = Some(way_back);
        });
    }

    /// Leaves the scope: what was current before is current again. Whether no scope is open on it any more.
    #[inline]
    pub(super) fn leave(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let left = slf.get().state.with(py, |state| {
            let depth = state.depth;
            state.depth = depth.saturating_sub(1);
            (depth, if depth == 1 { state.scope.take() } else { None })
        });
        match left {
            Some((1, Some(scope))) => {
                if let Err(previous) = scope.leave(slf)? {
                    Self::abandon(slf, previous);
                }
                Ok(true)
            }
            // Never entered, or without an identity of its own to make current.
            Some((0, _)) => Ok(true),
            _ => Ok(false),
        }
    }

    /// The span in whose scope this one was entered, while it is.
    #[cold]
    pub(super) fn surrounding<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, Self>>> {
        let py = slf.py();
        let scope = slf.get().state.with(py, |state| {
            state.scope.as_ref().map(|scope| scope.clone_ref(py))
        });
        let Some(scope) = scope.flatten() else {
            return Ok(None);
        };
        let surrounding = scope.surrounding(py);
        scope.forget(py);
        surrounding
    }

    /// From now on, contexts that hold this span mean `previous`, or what that means now if it is abandoned itself.
    ///
    /// So a way back never leads to a span that is abandoned already, nor to this one: whichever spans are abandoned in
    /// whatever order, no way back leads round in a circle.
    #[cold]
    pub(super) fn abandon<'py>(slf: &Bound<'py, Self>, previous: Option<Bound<'py, Self>>) {
        let mut way_back = previous;
        while let Some(other) = way_back.as_ref().filter(|span| span.get().means_another()) {
            way_back = Self::way_back(other);
        }
        let way_back = way_back
            .filter(|previous| !previous.is(slf))
            .map(|previous| previous.into_any().unbind());
        let old = slf.get().state.with(slf.py(), |state| {
            std::mem::replace(&mut state.way_back, way_back)
        });
        slf.get().means.store(ANOTHER, Ordering::Relaxed);
        drop(old.flatten().map(|old| old.into_bound(slf.py())));
    }

    /// A stand-in for `span`: a context that holds it means `span`, until it is abandoned.
    pub(super) fn stand_in(span: &Bound<'_, Self>) -> Self {
        let stand_in = Self::non_recording(crate::context::SpanContext::INVALID);
        stand_in.means.store(STANDS_IN, Ordering::Relaxed);
        stand_in.state.with(span.py(), |state| {
            state.way_back = Some(span.clone().into_any().unbind());
        });
        stand_in
    }

    /// Made current again, it means itself.
    #[inline]
    fn reinstate(&self) {
        if self.means_another() {
            self.means.store(ITSELF, Ordering::Relaxed);
        }
    }

    /// Whether contexts that hold this span mean [`Self::way_back`] instead.
    #[inline]
    pub(super) fn means_another(&self) -> bool {
        self.means.load(Ordering::Relaxed) != ITSELF
    }

    /// Whether it was made to stand for another span, be that one abandoned or not.
    #[cold]
    pub(super) fn stands_in(&self) -> bool {
        self.means.load(Ordering::Relaxed) == STANDS_IN
    }

    /// What is meant by it: what was current before an abandoned span, or what it stands for.
    #[cold]
    pub(super) fn way_back<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, Self>> {
        let py = slf.py();
        let way_back = slf.get().state.with(py, |state| {
            state
                .way_back
                .as_ref()
                .map(|way_back| way_back.bind(py).clone())
        });
        way_back.flatten()?.cast_into().ok()
    }

    /// Leaves the scope and, with the outermost one, ends the span with what was raised.
    #[inline]
    pub(super) fn exit(
        slf: &Bound<'_, Self>,
        raised: Option<&Bound<'_, PyBaseException>>,
    ) -> PyResult<()> {
        guard(slf.py(), "ending a span", || {
            let py = slf.py();
            if !Self::leave(slf)? || !slf.get().is_live() {
                return Ok(());
            }
            let ending = raised.map_or(Ok(Ending::Returned), |raised| Ending::of(Some(raised)));
            let is_created = slf.get().with_recording(py, |span| {
                if span.is_created() {
                    return true;
                }
                if let Ok(ending) = &ending {
                    ending.write(span);
                }
                span.end();
                false
            });
            // What has not started has nothing to end, and may still be entered.
            if is_created != Some(true) {
                slf.get().recording.store(false, Ordering::Relaxed);
            }
            layers::deliver(py);
            ending.map(drop)
        })
        .map(drop)
    }

    /// Ends the span with what was raised, from outside the context it was entered in.
    pub(super) fn finish_detached(
        slf: &Bound<'_, Self>,
        raised: Option<&Bound<'_, PyBaseException>>,
    ) -> PyResult<()> {
        let scope = slf.get().state.with(slf.py(), |state| {
            state.depth = 0;
            state.scope.take()
        });
        if let Some(scope) = scope.flatten() {
            scope.forget(slf.py());
        }
        Self::exit(slf, raised)
    }
}
