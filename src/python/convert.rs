//! Python values to attribute values: by exact type first, anything unusual by `str()`.
//!
//! Five attributes of exact types cost about 110 ns; a chain of failed `extract` calls costs twenty times that.

use std::mem::ManuallyDrop;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};

use super::span::Span;
use super::span_context::{Context, SpanContext};
use crate::attribute::Value;
use crate::context;
use crate::span::SpanKind;

/// The text of an ASCII string, in place. Anything else is for the general way.
#[inline]
#[expect(
    unsafe_code,
    reason = "a call into CPython for every key and value would double their cost"
)]
pub(super) fn ascii<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a str> {
    let string = object.as_ptr();
    // SAFETY: attached; an exact `str` that is compact ASCII has its `length` characters, one byte each, at its data
    // pointer. They are immutable and live as long as the object, which the borrow keeps alive. ASCII is UTF-8.
    unsafe {
        if ffi::PyUnicode_CheckExact(string) == 0 || ffi::PyUnicode_IS_COMPACT_ASCII(string) == 0 {
            return None;
        }
        let length = ffi::PyUnicode_GET_LENGTH(string).cast_unsigned();
        let bytes = std::slice::from_raw_parts(ffi::PyUnicode_DATA(string).cast::<u8>(), length);
        Some(std::str::from_utf8_unchecked(bytes))
    }
}

/// Calls `then` with the value if its type is one of the plain ones exactly.
///
/// Inlined with `then` once for every type, so that what follows knows the variant. These variants own nothing:
/// `ManuallyDrop` saves asking.
#[inline(always)]
#[expect(clippy::inline_always, reason = "see above; 20 ns an attribute")]
pub(super) fn with_plain_value<R>(
    value: &Bound<'_, PyAny>,
    then: impl FnOnce(&Value<'_>) -> R,
) -> Option<R> {
    if let Some(text) = ascii(value) {
        return Some(then(&ManuallyDrop::new(Value::Str(text))));
    }
    if let Ok(int) = value.cast_exact::<PyInt>() {
        return int
            .extract()
            .ok()
            .map(|int| then(&ManuallyDrop::new(Value::Int(int))));
    }
    if let Ok(float) = value.cast_exact::<PyFloat>() {
        return Some(then(&ManuallyDrop::new(Value::Float(float.value()))));
    }
    value
        .cast_exact::<PyBool>()
        .ok()
        .map(|bool| then(&ManuallyDrop::new(Value::Bool(bool.is_true()))))
}

/// Calls `then` with the text of a Python string; what has no UTF-8 (lone surrogates) is replaced.
#[inline]
pub(super) fn with_text<R>(text: &Bound<'_, PyString>, then: impl FnOnce(&str) -> R) -> R {
    match text.to_str() {
        Ok(valid) => then(valid),
        Err(_) => then(&text.to_string_lossy()),
    }
}

/// Calls `then` with a name or key: a string, or whatever `str()` makes of it.
#[inline]
pub(super) fn with_name<R>(name: &Bound<'_, PyAny>, then: impl FnOnce(&str) -> R) -> PyResult<R> {
    if let Some(text) = ascii(name) {
        return Ok(then(text));
    }
    match name.cast::<PyString>() {
        Ok(text) => Ok(with_text(text, then)),
        Err(_) => Ok(with_text(&name.str()?, then)),
    }
}

/// Calls `then` with the value as OTLP can carry it.
pub(super) fn with_value<R>(
    value: &Bound<'_, PyAny>,
    mut then: impl FnMut(&Value<'_>) -> R,
) -> PyResult<R> {
    match with_plain_value(value, &mut then) {
        Some(done) => Ok(done),
        None => with_unusual_value(value, then),
    }
}

#[cold]
fn with_unusual_value<R>(
    value: &Bound<'_, PyAny>,
    then: impl FnOnce(&Value<'_>) -> R,
) -> PyResult<R> {
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        // A copy first: `str()` of a member may change the list.
        let members = value
            .cast::<PyList>()
            .map(|list| list.iter().collect::<Vec<_>>())
            .or_else(|_| value.cast::<PyTuple>().map(|tuple| tuple.iter().collect()))?
            .into_iter()
            .map(|member| scalar(&member))
            .collect::<PyResult<Vec<_>>>()?;
        return Ok(then(&Value::Array(
            members.iter().map(borrow_scalar).collect(),
        )));
    }
    let scalar = scalar(value)?;
    Ok(then(&borrow_scalar(&scalar)))
}

/// The object itself if [`borrow_scalar`] can read it, else its `str()`.
fn scalar<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    if let Ok(text) = value.cast::<PyString>() {
        // Subclasses (`StrEnum`) are read as the text they are; text without UTF-8 is replaced.
        return Ok(match text.to_str() {
            Ok(_) => text.clone().into_any(),
            Err(_) => PyString::new(py, &text.to_string_lossy()).into_any(),
        });
    }
    let carried = value.is_exact_instance_of::<PyBool>()
        || value.is_instance_of::<PyFloat>()
        || value.is_instance_of::<PyBytes>()
        || (value.is_instance_of::<PyInt>() && value.extract::<i64>().is_ok());
    if carried {
        return Ok(value.clone());
    }
    let text = value.str()?;
    Ok(match text.to_str() {
        Ok(_) => text.into_any(),
        Err(_) => PyString::new(py, &text.to_string_lossy()).into_any(),
    })
}

fn borrow_scalar<'a>(value: &'a Bound<'_, PyAny>) -> Value<'a> {
    if let Ok(text) = value.cast::<PyString>() {
        return Value::Str(text.to_str().unwrap_or_default());
    }
    if let Ok(bool) = value.cast::<PyBool>() {
        return Value::Bool(bool.is_true());
    }
    if let Ok(float) = value.cast::<PyFloat>() {
        return Value::Float(float.value());
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Value::Bytes(bytes.as_bytes());
    }
    Value::Int(value.extract().unwrap_or_default())
}

/// Calls `each` with the key and value of every item of a dict or any other mapping.
#[inline]
#[expect(
    unsafe_code,
    reason = "PyO3's own iterator panics when a value's str() changes the dict"
)]
pub(super) fn for_each_item<'py>(
    items: &Bound<'py, PyAny>,
    mut each: impl FnMut(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> PyResult<()>,
) -> PyResult<()> {
    let py = items.py();
    if let Ok(dict) = items.cast_exact::<PyDict>() {
        let (mut position, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: attached; `dict` is a dict. PyDict_Next checks `position` against the dict as it is at each call, so a
        // dict that changes in between gives other items, never invalid ones.
        while unsafe {
            ffi::PyDict_Next(
                dict.as_ptr(),
                &raw mut position,
                &raw mut key,
                &raw mut value,
            )
        } != 0
        {
            // SAFETY: PyDict_Next gave two borrowed references; taking our own keeps them alive while `each` runs.
            let (key, value) = unsafe {
                (
                    Bound::from_borrowed_ptr(py, key),
                    Bound::from_borrowed_ptr(py, value),
                )
            };
            each(&key, &value)?;
        }
        return Ok(());
    }
    for item in items.cast::<PyMapping>()?.items()?.iter() {
        let (key, value) = item.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>()?;
        each(&key, &value)?;
    }
    Ok(())
}

/// An owned copy of attributes, for the rare paths (events, links) that need all of them at once.
pub(super) fn owned_attributes(
    attributes: Option<&Bound<'_, PyAny>>,
) -> PyResult<Vec<(String, OwnedValue)>> {
    let mut owned = Vec::new();
    if let Some(attributes) = attributes {
        for_each_item(attributes, |key, value| {
            let key = with_name(key, str::to_owned)?;
            owned.push((key, with_value(value, |value| OwnedValue::from(value))?));
            Ok(())
        })?;
    }
    Ok(owned)
}

/// [`Value`] without a borrow.
pub(super) enum OwnedValue {
    Str(String),
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(Vec<u8>),
    Array(Vec<OwnedValue>),
}

impl From<&Value<'_>> for OwnedValue {
    fn from(value: &Value<'_>) -> Self {
        match value {
            Value::Str(text) => Self::Str((*text).to_owned()),
            Value::Bool(bool) => Self::Bool(*bool),
            Value::Int(int) => Self::Int(*int),
            Value::Float(float) => Self::Float(*float),
            Value::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Value::Array(values) => Self::Array(values.iter().map(Self::from).collect()),
        }
    }
}

impl OwnedValue {
    /// The value, borrowed.
    pub(super) fn borrow(&self) -> Value<'_> {
        match self {
            Self::Str(text) => Value::Str(text),
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Int(int) => Value::Int(*int),
            Self::Float(float) => Value::Float(*float),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Array(values) => Value::Array(values.iter().map(Self::borrow).collect()),
        }
    }
}

/// Borrows what [`owned_attributes`] made.
pub(super) fn borrow_attributes(owned: &[(String, OwnedValue)]) -> Vec<(&str, Value<'_>)> {
    owned
        .iter()
        .map(|(key, value)| (key.as_str(), value.borrow()))
        .collect()
}

/// A span kind from its lower-case name, or from `opentelemetry.trace.SpanKind`.
pub(super) fn span_kind(kind: &Bound<'_, PyAny>) -> PyResult<Option<SpanKind>> {
    let name = match kind.cast::<PyString>() {
        Ok(text) => with_text(text, str::to_ascii_lowercase),
        Err(_) => with_name(
            &kind.getattr(pyo3::intern!(kind.py(), "name"))?,
            str::to_ascii_lowercase,
        )?,
    };
    Ok(match name.as_str() {
        "internal" => Some(SpanKind::Internal),
        "server" => Some(SpanKind::Server),
        "client" => Some(SpanKind::Client),
        "producer" => Some(SpanKind::Producer),
        "consumer" => Some(SpanKind::Consumer),
        _ => None,
    })
}

/// The identity of a `SpanContext`, `Span` or `Context`.
pub(super) fn linked_context(link: &Bound<'_, PyAny>) -> PyResult<context::SpanContext> {
    if let Ok(context) = link.cast::<SpanContext>() {
        return Ok(context.get().inner.clone());
    }
    if let Ok(span) = link.cast::<Span>() {
        return Ok(span.get().clone_context(span.py()));
    }
    if let Ok(context) = link.cast::<Context>() {
        return Ok(context.get().inner.span.clone());
    }
    Err(PyTypeError::new_err(format!(
        "expected a SpanContext, Span or Context, got {}",
        link.get_type().name()?
    )))
}

/// A time that a caller gives, in nanoseconds since the Unix epoch.
pub(super) fn unix_ns(time: Option<&Bound<'_, PyAny>>) -> PyResult<Option<u64>> {
    time.filter(|time| !time.is_none())
        .map(PyAnyMethods::extract)
        .transpose()
}
