//! Which attributes tell most about a span in little room, and their values as text.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;

use super::line::clean;

/// Attributes on one line.
const MAX_SHOWN: usize = 4;
const MAX_VALUE: usize = 32;
const MAX_NAME: usize = 32;
/// Elements of a sequence.
const MAX_ELEMENTS: usize = 4;
const MAX_DEPTH: usize = 3;

/// The conventional attributes worth showing, in order, and what to call them. Those marked are left out where the span's
/// name already says it.
const TELLING: &[(&str, &str, bool)] = &[
    ("http.request.method", "method", true),
    ("http.method", "method", true),
    ("http.route", "route", true),
    ("url.path", "path", true),
    ("http.target", "path", true),
    ("http.response.status_code", "status", false),
    ("http.status_code", "status", false),
    ("error.type", "error", false),
    ("db.system.name", "db", false),
    ("db.system", "db", false),
    ("db.operation.name", "operation", true),
    ("db.collection.name", "collection", true),
    ("db.query.summary", "query", true),
    ("db.query.text", "query", true),
    ("db.statement", "query", true),
    ("rpc.method", "method", true),
    ("messaging.destination.name", "destination", true),
];

/// Namespaces that instrumentation fills on every span: they would crowd out what the application set itself.
const ROUTINE: &str =
    "asgi client code db http messaging net network otel rpc server thread url user_agent";

/// The attributes of a span to show: the telling ones, then the application's own.
pub(super) fn telling(span: &Span) -> Vec<(String, String)> {
    let mut shown: Vec<(String, String)> = Vec::new();
    for (key, name, may_repeat_name) in TELLING {
        let Some(value) = find(&span.attributes, key) else {
            continue;
        };
        let value = clean(&text(value, 0), MAX_VALUE);
        let repeats = *may_repeat_name && span.name.contains(value.as_str());
        if !repeats && !shown.iter().any(|(seen, _)| seen == name) {
            shown.push(((*name).to_owned(), value));
        }
    }
    let own = span
        .attributes
        .iter()
        .filter(|attribute| !TELLING.iter().any(|(key, ..)| *key == attribute.key))
        .filter(|attribute| !is_routine(&attribute.key));
    shown.extend(own.take(MAX_SHOWN).map(pair));
    shown.truncate(MAX_SHOWN);
    shown
}

fn is_routine(key: &str) -> bool {
    key.split_once('.')
        .is_some_and(|(namespace, _)| ROUTINE.split(' ').any(|routine| routine == namespace))
}

/// The first attributes there are.
pub(super) fn first(attributes: &[KeyValue]) -> Vec<(String, String)> {
    attributes.iter().take(MAX_SHOWN).map(pair).collect()
}

/// The value of a string attribute.
pub(super) fn find_str<'a>(
    attributes: impl IntoIterator<Item = &'a KeyValue>,
    key: &str,
) -> Option<&'a str> {
    match find(attributes, key)?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn find<'a>(attributes: impl IntoIterator<Item = &'a KeyValue>, key: &str) -> Option<&'a AnyValue> {
    let mut attributes = attributes.into_iter();
    attributes
        .find(|attribute| attribute.key == key)?
        .value
        .as_ref()
}

fn pair(attribute: &KeyValue) -> (String, String) {
    let value = attribute
        .value
        .as_ref()
        .map_or_else(String::new, |value| text(value, 0));
    (clean(&attribute.key, MAX_NAME), clean(&value, MAX_VALUE))
}

/// A value as text, a little longer at most than what is shown of it; not cleaned.
fn text(value: &AnyValue, depth: usize) -> String {
    let list = |elements: &mut dyn Iterator<Item = String>| {
        let mut shown: Vec<_> = elements.take(MAX_ELEMENTS).collect();
        if elements.next().is_some() {
            shown.push("…".to_owned());
        }
        shown.join(", ")
    };
    match &value.value {
        Some(Value::StringValue(text)) => text.chars().take(MAX_VALUE + 1).collect(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        Some(Value::BytesValue(bytes)) => format!("{} bytes", bytes.len()),
        // Of the profiling signal, and empty in any other (OTLP, `AnyValue`).
        None | Some(Value::StringValueStrindex(_)) => String::new(),
        Some(Value::ArrayValue(_) | Value::KvlistValue(_)) if depth == MAX_DEPTH => "…".to_owned(),
        Some(Value::ArrayValue(array)) => {
            let mut elements = array.values.iter().map(|value| text(value, depth + 1));
            format!("[{}]", list(&mut elements))
        }
        Some(Value::KvlistValue(map)) => {
            let mut elements = map.values.iter().map(|member| {
                let value = member
                    .value
                    .as_ref()
                    .map_or_else(String::new, |value| text(value, depth + 1));
                format!("{}: {value}", clean(&member.key, MAX_NAME))
            });
            format!("{{{}}}", list(&mut elements))
        }
    }
}
