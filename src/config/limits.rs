//! Span limits from arguments and variables.

use super::Arguments;
use super::source::Variables;
use crate::error::Error;
use crate::limits::SpanLimits;

/// The limits. A general attribute limit stands in for those of spans, events and links (OpenTelemetry specification,
/// "Attribute Limits").
pub(super) fn load(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
) -> Result<SpanLimits, Error> {
    let default = SpanLimits::default();
    let mut limit = |argument, names: &[&'static str], default: Option<u32>| {
        let shown = default.map_or("no limit".to_owned(), |limit| limit.to_string());
        variables
            .whole_number(argument, names, 0, shown)
            .map(|limit| limit.or(default))
    };
    let value_length = limit(
        (
            "attribute_value_length_limit",
            arguments.attribute_value_length_limit,
        ),
        &[
            "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        ],
        default.value_length,
    )?;
    let mut count = |argument, name, default: u32| {
        limit(argument, &[name], Some(default)).map(|limit| limit.unwrap_or(default))
    };
    // Read once for all three, so that a wrong value is one warning.
    let attributes = count(("", None), "OTEL_ATTRIBUTE_COUNT_LIMIT", default.attributes)?;
    Ok(SpanLimits {
        attributes: count(
            ("attribute_count_limit", arguments.attribute_count_limit),
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
            attributes,
        )?,
        events: count(
            ("event_count_limit", arguments.event_count_limit),
            "OTEL_SPAN_EVENT_COUNT_LIMIT",
            default.events,
        )?,
        links: count(
            ("link_count_limit", arguments.link_count_limit),
            "OTEL_SPAN_LINK_COUNT_LIMIT",
            default.links,
        )?,
        attributes_per_event: count(
            (
                "event_attribute_count_limit",
                arguments.event_attribute_count_limit,
            ),
            "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
            attributes,
        )?,
        attributes_per_link: count(
            (
                "link_attribute_count_limit",
                arguments.link_attribute_count_limit,
            ),
            "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
            attributes,
        )?,
        value_length,
    })
}
