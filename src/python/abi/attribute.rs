//! Text and attributes as they come from an extension.

use std::borrow::Cow;

use rvh_trace_client::abi::{Attribute, Text, value_kind};

use crate::attribute::Value;

/// The text behind a pointer.
///
/// # Safety
///
/// It lives as long as `'a`.
#[inline]
#[expect(unsafe_code, reason = "text is reached by a pointer")]
pub(super) unsafe fn read_text<'a>(text: Text) -> Cow<'a, str> {
    if text.start.is_null() || text.len == 0 {
        return Cow::Borrowed("");
    }
    // SAFETY: so many bytes, which live as long as the result.
    String::from_utf8_lossy(unsafe { std::slice::from_raw_parts(text.start, text.len) })
}

/// The attributes behind a pointer.
///
/// # Safety
///
/// They, and what they lead to, live as long as `'a`.
#[inline]
#[expect(unsafe_code, reason = "a list is reached by a pointer")]
pub(super) unsafe fn list<'a>(first: *const Attribute, count: usize) -> &'a [Attribute] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: so many attributes, which live as long as the result.
    unsafe { std::slice::from_raw_parts(first, count) }
}

/// A value, with its text.
pub(super) enum Read<'a> {
    Plain(Value<'static>),
    Text(Cow<'a, str>),
}

impl Read<'_> {
    /// The value of an attribute; `None` if it is of an unknown kind.
    ///
    /// # Safety
    ///
    /// What the attribute leads to lives as long as the result.
    #[inline]
    #[expect(unsafe_code, reason = "a union, and text by pointer")]
    pub(super) unsafe fn value_of(attribute: &Attribute) -> Option<Self> {
        let value = attribute.value;
        // SAFETY: the kind says which member is meant, and the caller that its text is alive.
        Some(unsafe {
            match attribute.kind {
                value_kind::BOOL => Self::Plain(Value::Bool(value.int != 0)),
                value_kind::INT => Self::Plain(Value::Int(value.int)),
                value_kind::DOUBLE => Self::Plain(Value::Float(value.double)),
                value_kind::TEXT => Self::Text(read_text(value.text)),
                _ => return None,
            }
        })
    }

    #[inline]
    pub(super) fn borrow(&self) -> Value<'_> {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Text(text) => Value::Str(text),
        }
    }
}

/// Attributes for whoever takes them all at once.
pub(super) struct Attributes<'a>(Vec<(Cow<'a, str>, Read<'a>)>);

impl Attributes<'_> {
    /// # Safety
    ///
    /// As for [`list`].
    #[expect(unsafe_code, reason = "a list is reached by a pointer")]
    pub(super) unsafe fn read(first: *const Attribute, count: usize) -> Self {
        // SAFETY: the caller's.
        let attributes = unsafe { list(first, count) };
        let read = attributes.iter().filter_map(|attribute| {
            // SAFETY: the caller's.
            unsafe { Some((read_text(attribute.key), Read::value_of(attribute)?)) }
        });
        Self(read.collect())
    }

    pub(super) fn borrow(&self) -> Vec<(&str, Value<'_>)> {
        let attributes = self.0.iter();
        attributes
            .map(|(key, value)| (&**key, value.borrow()))
            .collect()
    }
}
