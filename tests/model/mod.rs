//! A span as the OpenTelemetry specification describes it, made of official protobuf types, and strategies that make one.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span as OtlpSpan, Status as OtlpStatus, span};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use rvh_trace::attribute::Value;
use rvh_trace::context::{SpanContext, TraceFlags, TraceState};
use rvh_trace::id::{SpanId, TraceId};
use rvh_trace::limits::SpanLimits;
use rvh_trace::propagation::tracecontext::parse_tracestate;
use rvh_trace::resource::{Resource, ResourceValue};
use rvh_trace::span::{Span, SpanKind, Status};

/// An attribute value that owns what it holds.
#[derive(Clone, Debug)]
pub(crate) enum Val {
    Str(String),
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(Vec<u8>),
    Array(Vec<Val>),
}

impl Val {
    fn as_value(&self) -> Value<'_> {
        match self {
            Self::Str(text) => Value::Str(text),
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Int(int) => Value::Int(*int),
            Self::Float(float) => Value::Float(*float),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Array(values) => Value::Array(values.iter().map(Self::as_value).collect()),
        }
    }
}

/// The official form of an attribute.
pub(crate) fn official(key: &str, value: &Value<'_>) -> KeyValue {
    limited(key, value, None)
}

fn limited(key: &str, value: &Value<'_>, limit: Option<u32>) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(any_value(
            value,
            limit.map_or(usize::MAX, |limit| limit as usize),
        )),
        ..KeyValue::default()
    }
}

fn any_value(value: &Value<'_>, limit: usize) -> AnyValue {
    use any_value::Value as Official;
    let value = match value {
        Value::Str(text) => Official::StringValue(text.chars().take(limit).collect()),
        Value::Bool(bool) => Official::BoolValue(*bool),
        Value::Int(int) => Official::IntValue(*int),
        Value::Float(float) => Official::DoubleValue(*float),
        Value::Bytes(bytes) => Official::BytesValue(bytes.iter().copied().take(limit).collect()),
        Value::Array(values) => Official::ArrayValue(ArrayValue {
            values: values.iter().map(|value| any_value(value, limit)).collect(),
        }),
    };
    AnyValue { value: Some(value) }
}

/// Something that is done to a span.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Set(String, Val),
    Rename(String),
    Event(String, u64, BTreeMap<String, Val>),
    Link(SpanContext, BTreeMap<String, Val>),
    Status(Status, String),
}

impl Op {
    pub(crate) fn apply(&self, span: &mut Span) {
        match self {
            Self::Set(key, value) => span.set_attribute(key, &value.as_value()),
            Self::Rename(name) => span.update_name(name),
            Self::Event(name, unix_ns, attributes) => {
                span.add_event(name, *unix_ns, &borrowed(attributes));
            }
            Self::Link(to, attributes) => span.add_link(to, &borrowed(attributes)),
            Self::Status(status, description) => span.set_status(*status, description),
        }
    }
}

fn borrowed(attributes: &BTreeMap<String, Val>) -> Vec<(&str, Value<'_>)> {
    attributes
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_value()))
        .collect()
}

/// A span's whole life.
#[derive(Clone, Debug)]
pub(crate) struct SpanModel {
    pub(crate) parent: Option<SpanContext>,
    pub(crate) kind: SpanKind,
    pub(crate) name: String,
    pub(crate) start_unix_ns: u64,
    pub(crate) end_unix_ns: u64,
    pub(crate) ops: Vec<Op>,
}

impl SpanModel {
    /// What must arrive of it; attributes are in the order of their keys.
    pub(crate) fn expected(&self, context: &SpanContext, limits: &SpanLimits) -> OtlpSpan {
        let parent = self.parent.as_ref();
        let mut expected = OtlpSpan {
            trace_id: parent
                .map_or(context.trace_id, |parent| parent.trace_id)
                .to_bytes()
                .into(),
            span_id: context.span_id.to_bytes().into(),
            trace_state: parent
                .map_or("", |parent| parent.trace_state.as_str())
                .into(),
            parent_span_id: parent.map_or(Vec::new(), |parent| parent.span_id.to_bytes().into()),
            flags: match parent {
                Some(parent) => {
                    u32::from(parent.flags.to_byte()) | 1 | remote_bits(parent.is_remote)
                }
                None => 3 | remote_bits(false),
            },
            name: self.name.clone(),
            kind: self.kind as i32,
            start_time_unix_nano: self.start_unix_ns,
            end_time_unix_nano: self.end_unix_ns.max(self.start_unix_ns),
            ..OtlpSpan::default()
        };
        let mut attributes = BTreeMap::new();
        let (mut status, mut message) = (Status::Unset, "");
        for op in &self.ops {
            match op {
                Op::Set(key, value) => {
                    let room = attributes.len() < limits.attributes as usize
                        || attributes.contains_key(key);
                    if room && !key.is_empty() {
                        attributes.insert(key, value);
                    } else {
                        expected.dropped_attributes_count += 1;
                    }
                }
                Op::Rename(name) => expected.name.clone_from(name),
                Op::Event(..) if expected.events.len() == limits.events as usize => {
                    expected.dropped_events_count += 1;
                }
                Op::Event(name, unix_ns, attributes) => {
                    let (attributes, dropped) =
                        cut(attributes, limits.attributes_per_event, limits.value_length);
                    expected.events.push(span::Event {
                        time_unix_nano: *unix_ns,
                        name: name.clone(),
                        attributes,
                        dropped_attributes_count: dropped,
                    });
                }
                Op::Link(to, attributes) => {
                    if !to.is_valid() && to.trace_state.is_empty() && attributes.is_empty() {
                        continue;
                    }
                    if expected.links.len() == limits.links as usize {
                        expected.dropped_links_count += 1;
                        continue;
                    }
                    let (attributes, dropped) =
                        cut(attributes, limits.attributes_per_link, limits.value_length);
                    expected.links.push(span::Link {
                        trace_id: to.trace_id.to_bytes().into(),
                        span_id: to.span_id.to_bytes().into(),
                        trace_state: to.trace_state.as_str().into(),
                        attributes,
                        dropped_attributes_count: dropped,
                        flags: u32::from(to.flags.to_byte()) | remote_bits(to.is_remote),
                    });
                }
                Op::Status(new, description) => {
                    if status != Status::Ok && *new != Status::Unset {
                        status = *new;
                        message = if status == Status::Error {
                            description
                        } else {
                            ""
                        };
                    }
                }
            }
        }
        expected.attributes = attributes
            .into_iter()
            .map(|(key, value)| limited(key, &value.as_value(), limits.value_length))
            .collect();
        expected.status = (status != Status::Unset).then(|| OtlpStatus {
            message: message.into(),
            code: status as i32,
        });
        expected
    }
}

fn cut(attributes: &BTreeMap<String, Val>, max: u32, limit: Option<u32>) -> (Vec<KeyValue>, u32) {
    let kept = attributes.iter().take(max as usize);
    let kept: Vec<_> = kept
        .map(|(key, value)| limited(key, &value.as_value(), limit))
        .collect();
    let dropped = attributes.len() - kept.len();
    (kept, u32::try_from(dropped).unwrap_or(u32::MAX))
}

/// `SpanFlags`: it is known whether the parent is remote, and whether it is.
fn remote_bits(is_remote: bool) -> u32 {
    0x100 | if is_remote { 0x200 } else { 0 }
}

/// Text of every kind: empty, short, of several alphabets, and long enough for lengths of two and three bytes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z.]{0,12}",
        2 => "\\PC{0,40}",
        2 => vec(any::<char>(), 0..30).prop_map(String::from_iter),
        1 => (100_usize..300).prop_map(|length| "ü".repeat(length)),
        1 => (16_300_usize..16_500).prop_map(|length| "x".repeat(length)),
    ]
}

/// Few keys, so that they meet again, and a few strange ones.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-d]", 1 => text()]
}

fn value() -> impl Strategy<Value = Val> {
    let float = prop_oneof![
        prop::num::f64::ANY,
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0),
    ];
    let leaf = prop_oneof![
        text().prop_map(Val::Str),
        any::<bool>().prop_map(Val::Bool),
        prop_oneof![any::<i64>(), -200..200_i64, Just(i64::MIN), Just(i64::MAX)].prop_map(Val::Int),
        float.prop_map(Val::Float),
        vec(any::<u8>(), 0..300).prop_map(Val::Bytes),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| vec(inner, 0..6).prop_map(Val::Array))
}

fn attributes() -> impl Strategy<Value = BTreeMap<String, Val>> {
    btree_map(
        key().prop_filter("a key is not empty", |key| !key.is_empty()),
        value(),
        0..5,
    )
}

fn trace_state() -> impl Strategy<Value = TraceState> {
    prop_oneof![
        Just(String::new()),
        "[a-z][a-z0-9@]{0,9}=[!-+.-<>-~]{1,200}"
    ]
    .prop_map(|header| parse_tracestate(std::iter::once(header.as_bytes())))
}

prop_compose! {
    fn context()(
        trace_id in 1_u128..,
        span_id in 1_u64..,
        flags in 0_u8..4,
        is_remote: bool,
        trace_state in trace_state(),
    ) -> SpanContext {
        SpanContext {
            trace_id: TraceId::from_bytes(trace_id.to_be_bytes()),
            span_id: SpanId::from_bytes(span_id.to_be_bytes()),
            flags: TraceFlags::from_byte(flags),
            is_remote,
            trace_state,
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let status = prop_oneof![
        Just(Status::Unset),
        Just(Status::Error),
        Just(Status::Error),
        Just(Status::Ok)
    ];
    let linked = prop_oneof![5 => context(), 1 => Just(SpanContext::INVALID)];
    prop_oneof![
        5 => (key(), value()).prop_map(|(key, value)| Op::Set(key, value)),
        1 => text().prop_map(Op::Rename),
        2 => (text(), any::<u64>(), attributes()).prop_map(|(name, time, attributes)| Op::Event(name, time, attributes)),
        2 => (linked, attributes()).prop_map(|(to, attributes)| Op::Link(to, attributes)),
        1 => (status, text()).prop_map(|(status, description)| Op::Status(status, description)),
    ]
}

fn kind() -> impl Strategy<Value = SpanKind> {
    use SpanKind::{Client, Consumer, Internal, Producer, Server};
    prop::sample::select(vec![Internal, Server, Client, Producer, Consumer])
}

/// A few spans.
pub(crate) fn any_spans() -> impl Strategy<Value = Vec<SpanModel>> {
    let life = (
        option::of(context()),
        kind(),
        text(),
        any::<u64>(),
        any::<u64>(),
        vec(op(), 0..20),
    );
    let span = life.prop_map(
        |(parent, kind, name, start_unix_ns, end_unix_ns, ops)| SpanModel {
            parent,
            kind,
            name,
            start_unix_ns,
            end_unix_ns,
            ops,
        },
    );
    vec(span, 1..5)
}

prop_compose! {
    fn small_limits()(
        counts in prop::array::uniform5(0_u32..5),
        value_length in option::of(0_u32..20),
    ) -> SpanLimits {
        let [attributes, events, links, attributes_per_event, attributes_per_link] = counts;
        SpanLimits { attributes, value_length, events, links, attributes_per_event, attributes_per_link }
    }
}

/// The default limits, or narrow ones.
pub(crate) fn limits() -> impl Strategy<Value = SpanLimits> {
    prop_oneof![Just(SpanLimits::default()), small_limits()]
}

/// Any resource, the empty one too.
pub(crate) fn any_resource() -> impl Strategy<Value = Resource> {
    let leaf = prop_oneof![
        text().prop_map(ResourceValue::Str),
        any::<bool>().prop_map(ResourceValue::Bool),
        any::<i64>().prop_map(ResourceValue::Int),
        prop::num::f64::ANY.prop_map(ResourceValue::Float),
    ];
    let value = leaf.prop_recursive(2, 8, 4, |inner| {
        vec(inner, 0..4).prop_map(ResourceValue::Array)
    });
    vec((text(), value), 0..8).prop_map(Resource::new)
}
