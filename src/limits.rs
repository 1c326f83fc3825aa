//! How much one span or log record may hold. What is over a limit is dropped and counted on it (OpenTelemetry
//! specification, "Span Limits" and "`LogRecord` Limits").

/// The limits of a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpanLimits {
    /// Attributes on a span: `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`, else `OTEL_ATTRIBUTE_COUNT_LIMIT`.
    pub attributes: u32,
    /// Characters of a string value, each string of a sequence, or bytes of a bytes value:
    /// `OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`, else `OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`.
    pub value_length: Option<u32>,
    /// `OTEL_SPAN_EVENT_COUNT_LIMIT`
    pub events: u32,
    /// `OTEL_SPAN_LINK_COUNT_LIMIT`
    pub links: u32,
    /// `OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT`
    pub attributes_per_event: u32,
    /// `OTEL_LINK_ATTRIBUTE_COUNT_LIMIT`
    pub attributes_per_link: u32,
}

impl Default for SpanLimits {
    fn default() -> Self {
        Self {
            attributes: 128,
            value_length: None,
            events: 128,
            links: 128,
            attributes_per_event: 128,
            attributes_per_link: 128,
        }
    }
}

/// The limits of a log record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogRecordLimits {
    /// Attributes on a log record: `OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT`, else `OTEL_ATTRIBUTE_COUNT_LIMIT`.
    pub attributes: u32,
    /// As for spans: `OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT`, else `OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`. The body
    /// has no limit.
    pub value_length: Option<u32>,
}

impl Default for LogRecordLimits {
    fn default() -> Self {
        Self {
            attributes: 128,
            value_length: None,
        }
    }
}
