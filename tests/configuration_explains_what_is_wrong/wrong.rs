//! What is wrong, and what is used instead.

use std::time::Duration;

use proptest::prelude::*;
use rvh_trace::config::Arguments;
use rvh_trace::sampler::{Root, Sampler};

use crate::{ENDPOINT, load, only_otlp, refused, strings, warned};

/// One wrong argument a line, with what the error must name and say.
#[test]
fn a_wrong_argument_is_an_error_that_says_what_would_be_right() {
    let cases = vec![
        (
            arguments! { protocol: Some("http".into()) },
            "protocol: \"http\" is not http/protobuf, http/json or grpc",
        ),
        (
            arguments! { protocol: Some("http/xml".into()) },
            "protocol: \"http/xml\" is not http/protobuf, http/json or grpc",
        ),
        (
            arguments! { endpoint: Some("collector:4318".into()) },
            "endpoint: \"collector:4318\" is not an http or https URL, such as http://collector:4318, or unix:///path of a socket",
        ),
        (
            arguments! { endpoint: Some("a/b".into()), protocol: Some("grpc".into()) },
            "endpoint: \"a/b\" is not host:port or an http or https URL, such as http://collector:4317, or unix:///path of a \
             socket",
        ),
        (
            arguments! { endpoint: Some("unix://host/run/otel.sock".into()) },
            "endpoint: \"unix://host/run/otel.sock\" is not an http or https URL, such as http://collector:4318, or \
             unix:///path of a socket",
        ),
        (
            arguments! { exporter: Some(strings(&["zipkin"])) },
            "exporter: \"zipkin\" is not otlp, console, or none alone",
        ),
        (
            arguments! { exporter: Some(strings(&["otlp", "none"])) },
            "exporter: \"none\" is not otlp, console, or none alone",
        ),
        (
            arguments! { compression: Some("zstd".into()) },
            "compression: \"zstd\" is not gzip or none",
        ),
        (
            arguments! { propagators: Some(strings(&["tracecontext", "ottrace"])) },
            "propagators: \"ottrace\" is not supported; its successor is tracecontext",
        ),
        (
            arguments! { propagators: Some(strings(&["w3c"])) },
            "propagators: \"w3c\" is not tracecontext, baggage, b3, b3multi, jaeger, xray, datadog, or none alone",
        ),
        (
            arguments! { timeout_ms: Some(-1.0) },
            "timeout_ms: -1.0 is not a number of milliseconds between 0 and 2147483647",
        ),
        (
            arguments! { schedule_delay_ms: Some(f64::INFINITY) },
            "schedule_delay_ms: inf is not a number of milliseconds between 0 and 2147483647",
        ),
        (
            arguments! { export_timeout_ms: Some(1e10) },
            "export_timeout_ms: 10000000000.0 is not a number of milliseconds between 0 and 2147483647",
        ),
        (
            arguments! { max_queue_size: Some(0) },
            "max_queue_size: 0 is not a whole number between 1 and 4294967295",
        ),
        (
            arguments! { max_queue_bytes: Some(-5) },
            "max_queue_bytes: -5 is not a whole number between 1 and 4294967295",
        ),
        (
            arguments! { max_export_batch_size: Some(100), max_queue_size: Some(10) },
            "max_export_batch_size: 100 is more than the 10 spans that the queue holds",
        ),
        (
            arguments! { attribute_count_limit: Some(-1) },
            "attribute_count_limit: -1 is not a whole number between 0 and 4294967295",
        ),
        (
            arguments! { attribute_value_length_limit: Some(1 << 40) },
            "attribute_value_length_limit: 1099511627776 is not a whole number between 0 and 4294967295",
        ),
        (
            arguments! { service_name: Some(String::new()) },
            "service_name: \"\" is not a name",
        ),
        (
            arguments! { resource_attributes: vec![(String::new(), true.into())] },
            "resource_attributes: \"\" is not a name",
        ),
        (
            arguments! { http_known_methods: Some(strings(&["GET", "B AD"])) },
            "http_known_methods: \"B AD\" is not an HTTP method",
        ),
        (
            arguments! { log_level: Some("loud".into()) },
            "log_level: \"loud\" is not none, error, warn, info or debug",
        ),
    ];
    for (arguments, expected) in cases {
        assert_eq!(refused(&arguments), expected);
    }
}

/// One wrong variable a line, with what is used instead.
#[test]
fn a_wrong_variable_is_one_warning_with_what_is_used_instead() {
    let cases = [
        ("OTEL_SDK_DISABLED", "1", "false"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "yes", "false"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "udp", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "none"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1", "10000 ms"),
        (
            "OTEL_TRACES_EXPORTER",
            "zipkin",
            "otlp if there is an endpoint",
        ),
        ("OTEL_TRACES_EXPORTER", "console,zipkin", "console"),
        ("OTEL_TRACES_EXPORTER", "console,none", "console"),
        ("OTEL_PROPAGATORS", "ottrace", "tracecontext,baggage"),
        ("OTEL_PROPAGATORS", "ottrace,baggage,pigeon", "baggage"),
        ("OTEL_PROPAGATORS", "none,tracecontext", "tracecontext"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5s", "5000 ms"),
        ("OTEL_BSP_SCHEDULE_DELAY", "99999999999", "5000 ms"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "1.5", "30000 ms"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "no limit but that in bytes"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-512", "512"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1", "no limit"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", "128"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "1e3", "128"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "-1", "128"),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "-1", "128"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "-1", "128"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b", "none of it"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,=2", "none of it"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b=%ff", "none of it"),
        ("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET,B AD", "GET"),
        ("OTEL_LOG_LEVEL", "loud", "warn"),
    ];
    for (name, value, instead) in cases {
        let (_, warning) = warned(&[(name, value)]);
        assert!(warning.starts_with(&format!("{name}: ")), "{warning}");
        assert!(
            warning.ends_with(&format!("; using {instead}")),
            "{warning}"
        );
        assert!(
            value.split(',').any(|part| warning.contains(part)),
            "{warning}"
        );
    }
}

#[test]
fn a_wrong_variable_makes_room_for_the_next_one() {
    let (config, warning) = warned(&[
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
    ]);
    assert_eq!(only_otlp(&config).timeout, Duration::from_secs(1));
    assert_eq!(
        warning,
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: \"soon\" is not a whole number of milliseconds between 0 and 2147483647; \
         using OTEL_EXPORTER_OTLP_TIMEOUT=\"1000\""
    );
}

#[test]
fn a_wrong_general_limit_is_warned_about_once() {
    // It stands in for three limits.
    warned(&[("OTEL_ATTRIBUTE_COUNT_LIMIT", "-1")]);
}

#[test]
fn wrong_sampling_is_explained() {
    for arg in ["1.5", "-0.1", "nan", "half"] {
        let (config, warning) = warned(&[
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", arg),
        ]);
        assert_eq!(config.sampler, Sampler::Always(Root::On), "{arg}");
        assert_eq!(
            warning,
            format!("OTEL_TRACES_SAMPLER_ARG: {arg:?} is not a number between 0 and 1; using 1.0")
        );
    }
    let (config, warning) = warned(&[("OTEL_TRACES_SAMPLER", "jaeger_remote")]);
    assert_eq!(config.sampler, Sampler::default());
    assert!(
        warning.starts_with("OTEL_TRACES_SAMPLER: \"jaeger_remote\" is not always_on, "),
        "{warning}"
    );
    assert!(
        warning.ends_with("; using parentbased_always_on"),
        "{warning}"
    );
    let (config, warning) = warned(&[("OTEL_TRACES_SAMPLER_ARG", "0.1")]);
    assert_eq!(config.sampler, Sampler::default());
    assert!(warning.contains("\"0.1\" is not used"), "{warning}");

    for ratio in [1.5, -0.5, f64::NAN] {
        let expected = format!("sampler_ratio: {ratio:?} is not a number between 0 and 1");
        assert_eq!(
            refused(&arguments! { sampler_ratio: Some(ratio) }),
            expected
        );
    }
    let pointless = arguments! { sampler: Some("always_on".into()), sampler_ratio: Some(0.5) };
    assert_eq!(
        refused(&pointless),
        "sampler_ratio: only the samplers traceidratio and parentbased_traceidratio take a ratio"
    );
}

const VARIABLES: [&str; 28] = [
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_PROPAGATORS",
    "OTEL_LOG_LEVEL",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS",
    "OTEL_UNKNOWN_TO_US",
];

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "-?[0-9]{0,12}(\\.[0-9])?",
        "(grpc|otlp|console|none|true|b3|jaeger|datadog|baggage|traceidratio|,| |é){0,4}",
        "(http|https|unix|ftp)?(://)?[a-z@:\\[\\]%]{0,8}(:[0-9]{1,6})?/?[a-z?#]{0,5}",
        "[a-c=,;% 2é]{0,20}",
    ]
}

proptest! {
    #[test]
    fn no_environment_stops_a_program(values in proptest::collection::vec(any_value(), VARIABLES.len())) {
        let variables: Vec<_> = VARIABLES.into_iter().zip(values.iter().map(String::as_str)).collect();
        let loaded = load(&Arguments::default(), &variables);
        prop_assert!(loaded.is_ok(), "{loaded:?}");
        for warning in loaded.iter().flat_map(|(_, warnings)| warnings) {
            let name = warning.split(':').next().unwrap_or_default();
            prop_assert!(VARIABLES.contains(&name) && warning.contains("; using "), "{warning}");
        }
    }
}
