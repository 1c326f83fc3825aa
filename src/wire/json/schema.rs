//! The OTLP messages of spans, metrics and log records, as far as JSON must know them: numbers, names and kinds of their fields, from
//! `opentelemetry/proto` 1.9.
//!
//! A field that is missing here is missing in the JSON and nothing else; the tests compare with the official
//! definitions.

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Message(&'static Message),
    String,
    /// Bytes that are an id.
    Hex,
    Base64,
    Bool,
    UInt32,
    Enum,
    SInt32,
    Int64,
    UInt64,
    Fixed32,
    Fixed64,
    SFixed64,
    Double,
}

#[derive(Clone, Copy)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) is_repeated: bool,
    /// Written even if it is not on the wire: readers made with serde, such as those of Rust collectors, insist on it.
    pub(super) is_required: bool,
}

pub(super) struct Message(pub(super) &'static [Field]);

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field {
        number,
        name,
        kind,
        is_repeated: false,
        is_required: false,
    }
}

const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    Field {
        number,
        name,
        kind,
        is_repeated: true,
        is_required: false,
    }
}

const fn required(field: Field) -> Field {
    Field {
        is_required: true,
        ..field
    }
}

use Kind::{
    Base64, Bool, Double, Enum, Fixed32, Fixed64, Hex, Int64, SFixed64, SInt32, String, UInt32,
    UInt64,
};

/// `ExportTraceServiceRequest`
pub(super) static TRACES: Message = Message(&[many(
    1,
    "resourceSpans",
    Kind::Message(&Message(&[
        one(1, "resource", Kind::Message(&RESOURCE)),
        many(2, "scopeSpans", Kind::Message(&SCOPE_SPANS)),
        one(3, "schemaUrl", String),
    ])),
)]);

/// `ExportMetricsServiceRequest`
pub(super) static METRICS: Message = Message(&[many(
    1,
    "resourceMetrics",
    Kind::Message(&Message(&[
        one(1, "resource", Kind::Message(&RESOURCE)),
        many(2, "scopeMetrics", Kind::Message(&SCOPE_METRICS)),
        one(3, "schemaUrl", String),
    ])),
)]);

/// `ExportLogsServiceRequest`
pub(super) static LOGS: Message = Message(&[many(
    1,
    "resourceLogs",
    Kind::Message(&Message(&[
        one(1, "resource", Kind::Message(&RESOURCE)),
        many(2, "scopeLogs", Kind::Message(&SCOPE_LOGS)),
        one(3, "schemaUrl", String),
    ])),
)]);

static SCOPE_LOGS: Message = Message(&[
    one(1, "scope", Kind::Message(&SCOPE)),
    many(2, "logRecords", Kind::Message(&LOG_RECORD)),
    one(3, "schemaUrl", String),
]);

static LOG_RECORD: Message = Message(&[
    one(1, "timeUnixNano", Fixed64),
    one(11, "observedTimeUnixNano", Fixed64),
    one(2, "severityNumber", Enum),
    one(3, "severityText", String),
    one(5, "body", Kind::Message(&ANY_VALUE)),
    many(6, "attributes", Kind::Message(&KEY_VALUE)),
    one(7, "droppedAttributesCount", UInt32),
    one(8, "flags", Fixed32),
    one(9, "traceId", Hex),
    one(10, "spanId", Hex),
    one(12, "eventName", String),
]);

static RESOURCE: Message = Message(&[
    many(1, "attributes", Kind::Message(&KEY_VALUE)),
    one(2, "droppedAttributesCount", UInt32),
]);

static SCOPE: Message = Message(&[
    one(1, "name", String),
    one(2, "version", String),
    many(3, "attributes", Kind::Message(&KEY_VALUE)),
    one(4, "droppedAttributesCount", UInt32),
]);

static KEY_VALUE: Message = Message(&[
    required(one(1, "key", String)),
    one(2, "value", Kind::Message(&ANY_VALUE)),
]);

static ANY_VALUE: Message = Message(&[
    one(1, "stringValue", String),
    one(2, "boolValue", Bool),
    one(3, "intValue", Int64),
    one(4, "doubleValue", Double),
    one(
        5,
        "arrayValue",
        Kind::Message(&Message(&[required(many(
            1,
            "values",
            Kind::Message(&ANY_VALUE),
        ))])),
    ),
    one(
        6,
        "kvlistValue",
        Kind::Message(&Message(&[required(many(
            1,
            "values",
            Kind::Message(&KEY_VALUE),
        ))])),
    ),
    one(7, "bytesValue", Base64),
]);

static SCOPE_SPANS: Message = Message(&[
    one(1, "scope", Kind::Message(&SCOPE)),
    many(2, "spans", Kind::Message(&SPAN)),
    one(3, "schemaUrl", String),
]);

static SPAN: Message = Message(&[
    one(1, "traceId", Hex),
    one(2, "spanId", Hex),
    one(3, "traceState", String),
    one(4, "parentSpanId", Hex),
    one(16, "flags", Fixed32),
    one(5, "name", String),
    one(6, "kind", Enum),
    one(7, "startTimeUnixNano", Fixed64),
    one(8, "endTimeUnixNano", Fixed64),
    many(9, "attributes", Kind::Message(&KEY_VALUE)),
    one(10, "droppedAttributesCount", UInt32),
    many(
        11,
        "events",
        Kind::Message(&Message(&[
            one(1, "timeUnixNano", Fixed64),
            one(2, "name", String),
            many(3, "attributes", Kind::Message(&KEY_VALUE)),
            one(4, "droppedAttributesCount", UInt32),
        ])),
    ),
    one(12, "droppedEventsCount", UInt32),
    many(
        13,
        "links",
        Kind::Message(&Message(&[
            one(1, "traceId", Hex),
            one(2, "spanId", Hex),
            one(3, "traceState", String),
            many(4, "attributes", Kind::Message(&KEY_VALUE)),
            one(5, "droppedAttributesCount", UInt32),
            one(6, "flags", Fixed32),
        ])),
    ),
    one(14, "droppedLinksCount", UInt32),
    one(
        15,
        "status",
        Kind::Message(&Message(&[one(2, "message", String), one(3, "code", Enum)])),
    ),
]);

static SCOPE_METRICS: Message = Message(&[
    one(1, "scope", Kind::Message(&SCOPE)),
    many(2, "metrics", Kind::Message(&METRIC)),
    one(3, "schemaUrl", String),
]);

static METRIC: Message = Message(&[
    one(1, "name", String),
    one(2, "description", String),
    one(3, "unit", String),
    one(
        5,
        "gauge",
        Kind::Message(&Message(&[many(1, "dataPoints", Kind::Message(&NUMBER))])),
    ),
    one(
        7,
        "sum",
        Kind::Message(&Message(&[
            many(1, "dataPoints", Kind::Message(&NUMBER)),
            one(2, "aggregationTemporality", Enum),
            one(3, "isMonotonic", Bool),
        ])),
    ),
    one(
        9,
        "histogram",
        Kind::Message(&Message(&[
            many(1, "dataPoints", Kind::Message(&HISTOGRAM)),
            one(2, "aggregationTemporality", Enum),
        ])),
    ),
    one(
        10,
        "exponentialHistogram",
        Kind::Message(&Message(&[
            many(1, "dataPoints", Kind::Message(&EXPONENTIAL_HISTOGRAM)),
            one(2, "aggregationTemporality", Enum),
        ])),
    ),
    one(
        11,
        "summary",
        Kind::Message(&Message(&[many(1, "dataPoints", Kind::Message(&SUMMARY))])),
    ),
    many(12, "metadata", Kind::Message(&KEY_VALUE)),
]);

static NUMBER: Message = Message(&[
    many(7, "attributes", Kind::Message(&KEY_VALUE)),
    one(2, "startTimeUnixNano", Fixed64),
    one(3, "timeUnixNano", Fixed64),
    one(4, "asDouble", Double),
    one(6, "asInt", SFixed64),
    many(5, "exemplars", Kind::Message(&EXEMPLAR)),
    one(8, "flags", UInt32),
]);

static HISTOGRAM: Message = Message(&[
    many(9, "attributes", Kind::Message(&KEY_VALUE)),
    one(2, "startTimeUnixNano", Fixed64),
    one(3, "timeUnixNano", Fixed64),
    one(4, "count", Fixed64),
    one(5, "sum", Double),
    many(6, "bucketCounts", Fixed64),
    many(7, "explicitBounds", Double),
    many(8, "exemplars", Kind::Message(&EXEMPLAR)),
    one(10, "flags", UInt32),
    one(11, "min", Double),
    one(12, "max", Double),
]);

static EXPONENTIAL_HISTOGRAM: Message = Message(&[
    many(1, "attributes", Kind::Message(&KEY_VALUE)),
    one(2, "startTimeUnixNano", Fixed64),
    one(3, "timeUnixNano", Fixed64),
    one(4, "count", Fixed64),
    one(5, "sum", Double),
    one(6, "scale", SInt32),
    one(7, "zeroCount", Fixed64),
    one(8, "positive", Kind::Message(&BUCKETS)),
    one(9, "negative", Kind::Message(&BUCKETS)),
    one(10, "flags", UInt32),
    many(11, "exemplars", Kind::Message(&EXEMPLAR)),
    one(12, "min", Double),
    one(13, "max", Double),
    one(14, "zeroThreshold", Double),
]);

static BUCKETS: Message = Message(&[one(1, "offset", SInt32), many(2, "bucketCounts", UInt64)]);

static SUMMARY: Message = Message(&[
    many(7, "attributes", Kind::Message(&KEY_VALUE)),
    one(2, "startTimeUnixNano", Fixed64),
    one(3, "timeUnixNano", Fixed64),
    one(4, "count", Fixed64),
    one(5, "sum", Double),
    many(
        6,
        "quantileValues",
        Kind::Message(&Message(&[
            one(1, "quantile", Double),
            one(2, "value", Double),
        ])),
    ),
    one(8, "flags", UInt32),
]);

static EXEMPLAR: Message = Message(&[
    many(7, "filteredAttributes", Kind::Message(&KEY_VALUE)),
    one(2, "timeUnixNano", Fixed64),
    one(3, "asDouble", Double),
    one(6, "asInt", SFixed64),
    one(4, "spanId", Hex),
    one(5, "traceId", Hex),
]);
