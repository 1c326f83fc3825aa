//! Attributes, borrowed from whoever sets them.

use crate::abi::{self, Text, value_kind};

/// A value: what OTLP has that is no list.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// True or false.
    Bool(bool),
    /// A number without a fraction.
    Int(i64),
    /// A number with one.
    Double(f64),
    /// Text.
    Text(&'a str),
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),*) => {
        $(impl From<$from> for Value<'_> {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}
value_from!(bool => Bool, f32 => Double, f64 => Double);
value_from!(i8 => Int, i16 => Int, i32 => Int, i64 => Int, u8 => Int, u16 => Int, u32 => Int);

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

/// A key and its value, as they cross the interface.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Attribute<'a>(abi::Attribute, std::marker::PhantomData<&'a str>);

impl<'a> Attribute<'a> {
    /// `value` under `key`.
    #[inline]
    pub fn new(key: &'a str, value: impl Into<Value<'a>>) -> Self {
        let (kind, value) = match value.into() {
            Value::Bool(value) => (value_kind::BOOL, abi::Value { int: value.into() }),
            Value::Int(value) => (value_kind::INT, abi::Value { int: value }),
            Value::Double(value) => (value_kind::DOUBLE, abi::Value { double: value }),
            Value::Text(value) => (value_kind::TEXT, abi::Value { text: text(value) }),
        };
        Self(
            abi::Attribute {
                key: text(key),
                kind,
                reserved: 0,
                value,
            },
            std::marker::PhantomData,
        )
    }
}

impl std::fmt::Debug for Attribute<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attribute").finish_non_exhaustive()
    }
}

/// Text as it crosses the interface.
#[inline]
pub(crate) fn text(text: &str) -> Text {
    Text {
        start: text.as_ptr(),
        len: text.len(),
    }
}

/// The text at the other side of a call; `None` if it is no UTF-8.
///
/// # Safety
///
/// It lives as long as the reference.
#[expect(unsafe_code, reason = "text is reached by a pointer")]
pub(crate) unsafe fn str_of(text: &Text) -> Option<&str> {
    if text.len == 0 {
        return Some("");
    }
    // SAFETY: so many bytes that live as long as the reference.
    std::str::from_utf8(unsafe { std::slice::from_raw_parts(text.start, text.len) }).ok()
}

/// Attributes as they cross the interface: the first, and how many.
#[inline]
pub(crate) fn raw(attributes: &[Attribute<'_>]) -> (*const abi::Attribute, usize) {
    (attributes.as_ptr().cast(), attributes.len())
}
