//! Making spans: `span` and `new_span`.
//!
//! Whether a span is recorded is decided when it is made, so that the attributes of one that is not are never read. What
//! cannot be decided then (tracing is not set up yet, the parent is not sampled) is a [`DeferredSpan`]: it keeps what
//! `span(...)` was called with, because it may still be entered elsewhere or turn out to be a decorator.

use pyo3::PyClass;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::cell::AttachedCell;
use super::convert::{
    ascii, borrow_attributes, for_each_item, linked_context, owned_attributes, span_kind, unix_ns,
    with_name, with_plain_value, with_value,
};
use super::deferred::{DeferredSpan, Pending};
use super::errors::guard;
use super::server_span::ServerSpan;
use super::span::{Body, Span};
use super::{current, lifecycle};
use crate::clock::Start;
use crate::context;
use crate::span::{Span as Recording, SpanKind, take_buffer};
use crate::tracer::Started;

/// What a span is made of, borrowed from the call.
pub(super) struct Call<'a, 'py> {
    pub(super) name: &'a Bound<'py, PyAny>,
    pub(super) attributes: Option<&'a Bound<'py, PyAny>>,
    pub(super) links: Option<&'a Bound<'py, PyAny>>,
    pub(super) kind: SpanKind,
    pub(super) extra: Extra<'a, 'py>,
}

/// `**attrs`, as they come.
#[derive(Clone, Copy)]
pub(super) enum Extra<'a, 'py> {
    None,
    Dict(&'a Bound<'py, PyDict>),
    /// Keyword names and their values of a vectorcall; those of the other parameters are skipped.
    Keywords(&'a Bound<'py, PyTuple>, &'a [Borrowed<'a, 'py, PyAny>]),
}

impl<'py> Extra<'_, 'py> {
    fn for_each(
        &self,
        mut each: impl FnMut(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> PyResult<()>,
    ) -> PyResult<()> {
        match self {
            Self::None => Ok(()),
            Self::Dict(dict) => for_each_item(dict, each),
            Self::Keywords(names, values) => {
                let py = names.py();
                for (name, value) in names.iter_borrowed().zip(values.iter()) {
                    let own =
                        name.is(pyo3::intern!(py, "kind")) || name.is(pyo3::intern!(py, "links"));
                    if !own {
                        each(&name, value)?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl<'py> Call<'_, 'py> {
    /// Writes attributes and links on the span; one that cannot be read does not keep the others from it.
    #[inline]
    pub(super) fn fill(&self, span: &mut Recording) -> PyResult<()> {
        let mut failed = None;
        let mut keep = |result: PyResult<()>| {
            if let Err(error) = result {
                failed.get_or_insert(error);
            }
        };
        if let Some(attributes) = self.attributes {
            let mut each_failed = None;
            keep(for_each_item(attributes, |key, value| {
                if let Err(error) = put_attribute(span, key, value, true) {
                    each_failed.get_or_insert(error);
                }
                Ok(())
            }));
            keep(each_failed.map_or(Ok(()), Err));
        }
        let fresh = self.attributes.is_none();
        keep(
            self.extra
                .for_each(|key, value| put_attribute(span, key, value, fresh)),
        );
        if let Some(links) = self.links {
            keep(put_links(span, links));
        }
        failed.map_or(Ok(()), Err)
    }

    /// The span of this call, made here.
    #[inline]
    pub(super) fn make(&self, py: Python<'py>) -> PyResult<Bound<'py, Span>> {
        // Without a tracer, or should something fail, the call is kept for later.
        let made = guard(py, "making a span", || {
            let Some(tracer) = lifecycle::tracer() else {
                return Ok(None);
            };
            let parent = current::span(py)?;
            if parent
                .as_ref()
                .is_some_and(|parent| parent.get().hides_children(tracer))
            {
                return Ok(None);
            }
            let mut object = None;
            let started = with_span_name(self.name, |name| {
                let mut create = |parent: Option<&context::SpanContext>| {
                    let buffer = || {
                        object = LAST.unused(py);
                        object
                            .as_ref()
                            .map_or_else(take_buffer, |unused| unused.get().take_buffer(py))
                    };
                    tracer.create_in(buffer, parent, self.kind, name)
                };
                match &parent {
                    Some(parent) => parent.get().with_context(py, create),
                    None => create(None),
                }
            })?;
            let Started::Recording(mut span) = started else {
                return Ok(None);
            };
            if let Some(parent) = &parent {
                parent.get().adopt(py, &mut span);
            }
            let filled = self.fill(&mut span);
            let made = span_object(py, object, Body::Recording(span))?;
            // Reported after the span exists: a bad attribute does not cost the span.
            guard(py, "reading a span's attributes", || filled)?;
            Ok(Some(made))
        })?;
        match made.flatten() {
            Some(span) => Ok(span),
            None => DeferredSpan::make(py, self.keep(py)?),
        }
    }

    fn keep(&self, py: Python<'py>) -> PyResult<Pending> {
        let extra = match self.extra {
            Extra::None => None,
            Extra::Dict(dict) => Some(dict.clone()),
            Extra::Keywords(..) => {
                let dict = PyDict::new(py);
                self.extra
                    .for_each(|name, value| dict.set_item(name, value))?;
                (!dict.is_empty()).then_some(dict)
            }
        };
        Ok(Pending {
            name: self.name.clone().unbind(),
            attributes: self
                .attributes
                .map(|attributes| attributes.clone().unbind()),
            extra: extra.map(Bound::unbind),
            links: self.links.map(|links| links.clone().unbind()),
            kind: self.kind,
        })
    }
}

/// The last two objects of a class, to be used again when everybody has let go of them.
///
/// The next `with span(...)` after one has ended is the common case, and making and freeing an object is a sixth of its
/// cost. Two, because in `with span(...) as name` the name holds the last one until the next is entered. CPython's `zip`
/// reuses its result tuple in the same way. Not without a GIL: there a count of one proves nothing.
pub(super) struct LastTwo<T>(AttachedCell<[Option<Py<T>>; 2]>);

impl<T: PyClass> LastTwo<T> {
    pub(super) const fn new() -> Self {
        Self(AttachedCell::new([None, None]))
    }

    /// One that nobody else holds.
    #[inline]
    pub(super) fn unused<'py>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        if cfg!(Py_GIL_DISABLED) {
            return None;
        }
        let unused = self.0.with(py, |last| {
            last.iter()
                .flatten()
                .find(|last| is_unused(last))
                .map(|last| last.bind(py).clone())
        });
        unused.flatten()
    }

    /// Those that nobody else holds.
    #[cold]
    pub(super) fn all_unused<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, T>> {
        let unused = self.0.with(py, |last| {
            let unused = last.iter().flatten().filter(|last| is_unused(last));
            unused.map(|last| last.bind(py).clone()).collect()
        });
        unused.unwrap_or_default()
    }

    /// One that nobody else holds, for the caller alone; [`Self::give`] brings it back.
    #[inline]
    pub(super) fn take_unused<'py>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        if cfg!(Py_GIL_DISABLED) {
            return None;
        }
        let unused = self.0.with(py, |last| {
            let slot = last
                .iter_mut()
                .find(|slot| slot.as_ref().is_some_and(is_unused))?;
            slot.take()
        });
        unused.flatten().map(|unused| unused.into_bound(py))
    }

    /// Remembers one that is over, in the place of one that was, or that somebody still holds.
    #[inline]
    pub(super) fn give(&self, object: &Bound<'_, T>) {
        if cfg!(Py_GIL_DISABLED) {
            return;
        }
        let py = object.py();
        let old = self.0.with(py, |last| {
            let place = last
                .iter()
                .position(|slot| !slot.as_ref().is_some_and(is_unused))?;
            last[place].replace(object.clone().unbind())
        });
        drop(old.flatten().map(|old| old.into_bound(py)));
    }

    /// Remembers a new one and forgets the older of the two.
    pub(super) fn keep(&self, object: &Bound<'_, T>) {
        if cfg!(Py_GIL_DISABLED) {
            return;
        }
        let py = object.py();
        let oldest = self.0.with(py, |last| {
            last.swap(0, 1);
            last[0].replace(object.clone().unbind())
        });
        drop(oldest.flatten().map(|oldest| oldest.into_bound(py)));
    }
}

/// Whether the one reference to `object` is ours.
#[inline]
#[expect(unsafe_code, reason = "the reference count has no safe binding")]
pub(super) fn is_unused<T>(object: &Py<T>) -> bool {
    // SAFETY: a valid object; only called while attached.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) == 1 }
}

static LAST: LastTwo<Span> = LastTwo::new();

/// Ends the spans of objects that only wait to be used again: nobody else can.
#[cold]
pub(super) fn end_forgotten(py: Python<'_>) {
    for forgotten in LAST.all_unused(py) {
        forgotten.get().end_now(py);
    }
    for forgotten in DeferredSpan::all_unused(py) {
        forgotten.as_super().get().end_now(py);
    }
    for forgotten in ServerSpan::all_unused(py) {
        forgotten.as_super().get().end_now(py);
    }
}

/// The object for a span: `unused` if there is one.
#[inline]
fn span_object<'py>(
    py: Python<'py>,
    unused: Option<Bound<'py, Span>>,
    body: Body,
) -> PyResult<Bound<'py, Span>> {
    if let Some(unused) = unused {
        unused.get().reuse(py, body);
        return Ok(unused);
    }
    let span = Span::object(py, body)?;
    LAST.keep(&span);
    Ok(span)
}

/// Calls `then` with the name of a span. One that has no text costs the name, not the span: it is named after its type.
#[inline]
pub(super) fn with_span_name<R>(
    name: &Bound<'_, PyAny>,
    mut then: impl FnMut(&str) -> R,
) -> PyResult<R> {
    if let Some(name) = ascii(name) {
        return Ok(then(name));
    }
    match guard(name.py(), "reading a span's name", || {
        with_name(name, &mut then)
    })? {
        Some(done) => Ok(done),
        None => with_name(name.get_type().name()?.as_any(), then),
    }
}

/// `fresh` says that the span has no attributes but those of the same mapping, so string keys need no search.
#[inline]
fn put_attribute(
    span: &mut Recording,
    key: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    fresh: bool,
) -> PyResult<()> {
    if let (true, Some(key)) = (fresh, ascii(key))
        && with_plain_value(value, |value| span.push_attribute(key, value)).is_some()
    {
        return Ok(());
    }
    put_unusual_attribute(span, key, value, fresh)
}

#[cold]
fn put_unusual_attribute(
    span: &mut Recording,
    key: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    fresh: bool,
) -> PyResult<()> {
    with_name(key, |name| {
        with_value(value, |value| {
            if fresh && key.is_exact_instance_of::<PyString>() {
                span.push_attribute(name, value);
            } else {
                span.set_attribute(name, value);
            }
        })
    })?
}

fn put_links(span: &mut Recording, links: &Bound<'_, PyAny>) -> PyResult<()> {
    for link in links.try_iter()? {
        let link = link?;
        if let Ok(pair) = link.cast::<PyTuple>() {
            let attributes = owned_attributes(Some(&pair.get_item(1)?))?;
            span.add_link(
                &linked_context(&pair.get_item(0)?)?,
                &borrow_attributes(&attributes),
            );
        } else {
            span.add_link(&linked_context(&link)?, &[]);
        }
    }
    Ok(())
}

fn parse_kind(kind: &Bound<'_, PyAny>) -> PyResult<SpanKind> {
    let py = kind.py();
    if kind.is_none() {
        return Ok(SpanKind::Internal);
    }
    let parsed = guard(py, "an unknown span kind", || {
        span_kind(kind)?.ok_or_else(|| {
            let right = "'internal', 'server', 'client', 'producer' or 'consumer'";
            PyValueError::new_err(format!("kind must be {right}, not {kind}"))
        })
    })?;
    Ok(parsed.unwrap_or_default())
}

/// Starts a span that is not current and is ended by hand, as a child of the span that is current here.
#[pyfunction]
#[pyo3(signature = (name, attributes=None, /, *, kind=None, links=None, start_unix_ns=None, **attrs))]
pub(super) fn new_span<'py>(
    py: Python<'py>,
    name: &Bound<'py, PyAny>,
    attributes: Option<&Bound<'py, PyAny>>,
    kind: Option<&Bound<'py, PyAny>>,
    links: Option<&Bound<'py, PyAny>>,
    start_unix_ns: Option<&Bound<'py, PyAny>>,
    attrs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, Span>> {
    let call = Call {
        name,
        attributes,
        links,
        kind: kind.map_or(Ok(SpanKind::Internal), parse_kind)?,
        extra: attrs.map_or(Extra::None, Extra::Dict),
    };
    let span = call.make(py)?;
    guard(py, "starting a span", || {
        let start_unix_ns = guard(py, "reading the start of a span", || unix_ns(start_unix_ns))?;
        if let Some(start_unix_ns) = start_unix_ns.flatten() {
            span.get()
                .with_recording(py, |span| span.begin_attended(Start::at(start_unix_ns)));
        }
        Span::start_here(&span)
    })?;
    Ok(span)
}

/// The span that is current here; one that records nothing and has an invalid context when there is none.
#[pyfunction]
pub(super) fn current_span(py: Python<'_>) -> PyResult<Bound<'_, Span>> {
    match guard(py, "reading the current span", || current::span(py))?.flatten() {
        Some(span) => Ok(span),
        None => Bound::new(py, Span::non_recording(context::SpanContext::INVALID)),
    }
}

/// Makes a span, or `None`, current for a step of code that takes turns with its caller; what `step_out` takes.
#[pyfunction]
pub(super) fn step_in<'py>(inside: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    guard(inside.py(), "switching the current span", || {
        current::step_in(inside)
    })
}

/// Ends the step that `step_in` began and gives what is current inside.
#[pyfunction]
pub(super) fn step_out<'py>(token: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if token.is_none() {
        return Ok(None);
    }
    guard(token.py(), "switching the current span", || {
        current::step_out(token)
    })
    .map(Option::flatten)
}

/// What `span(...)` was called with, from the vectorcall convention.
#[inline]
pub(super) fn span<'py>(
    py: Python<'py>,
    values: &[Borrowed<'_, 'py, PyAny>],
    keywords: &[Borrowed<'_, 'py, PyAny>],
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<Bound<'py, Span>> {
    let (name, attributes) = match values {
        [name] => (name, None),
        [name, attributes] => (name, (!attributes.is_none()).then_some(&**attributes)),
        [] => {
            return Err(PyTypeError::new_err(
                "span() missing 1 required positional argument: 'name'",
            ));
        }
        _ => {
            let given = values.len();
            return Err(PyTypeError::new_err(format!(
                "span() takes the name and a mapping of attributes as positional arguments, but {given} were given"
            )));
        }
    };
    let (mut kind, mut links, mut extra) = (SpanKind::Internal, None, Extra::None);
    if let Some(names) = names {
        for (keyword, value) in names.iter_borrowed().zip(keywords) {
            match keyword.cast::<PyString>()?.to_str().unwrap_or_default() {
                "kind" => kind = parse_kind(value)?,
                "links" => links = (!value.is_none()).then_some(&**value),
                _ => extra = Extra::Keywords(names, keywords),
            }
        }
    }
    let call = Call {
        name,
        attributes,
        links,
        kind,
        extra,
    };
    call.make(py)
}
