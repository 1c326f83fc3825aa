//! Attribute values, borrowed from wherever they live until they are written.

/// A value as OTLP can carry it (OTLP `AnyValue`).
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'a> {
    /// Text.
    Str(&'a str),
    /// True or false.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A double.
    Float(f64),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// A sequence; nested sequences are allowed.
    Array(Vec<Value<'a>>),
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),*) => {$(
        impl<'a> From<$from> for Value<'a> {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

value_from!(&'a str => Str, bool => Bool, i64 => Int, i32 => Int, u32 => Int, u16 => Int, f64 => Float, &'a [u8] => Bytes);

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Str(value)
    }
}

impl<'a> From<&'a [String]> for Value<'a> {
    fn from(values: &'a [String]) -> Self {
        Self::Array(values.iter().map(Self::from).collect())
    }
}
