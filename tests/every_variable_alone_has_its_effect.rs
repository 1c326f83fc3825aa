//! Each standard variable, set alone or with what it says nothing without, and what it then changes.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use rvh_trace::config::{Arguments, Config, ExporterConfig};

type Variable<'a> = (&'a str, &'a str);

#[track_caller]
fn load(variables: &[Variable<'_>]) -> Config {
    let (config, warnings) = Config::load(&Arguments::default(), &|name| {
        let variable = variables.iter().find(|(known, _)| *known == name);
        variable.map(|(_, value)| (*value).to_owned())
    })
    .unwrap();
    assert_eq!(warnings, [""; 0], "{variables:?}");
    config
}

/// Where a variable shows, and what is there with it.
struct Effect {
    variable: Variable<'static>,
    beside: &'static [Variable<'static>],
    shows: fn(&Config) -> String,
    expected: &'static str,
}

macro_rules! effects {
    ($($name:literal = $value:literal $(beside $beside:expr)? => |$config:ident| $shows:expr => $expected:literal;)*) => {
        [$(Effect {
            variable: ($name, $value),
            beside: { let beside: &[Variable<'static>] = &[]; $(let beside: &[Variable<'static>] = { let _ = beside; &$beside };)? beside },
            shows: |$config| format!("{:?}", $shows),
            expected: $expected,
        }),*]
    };
}

#[test]
fn of_tracing() {
    let effects = effects! {
        "OTEL_SDK_DISABLED" = "true" => |config| config.disabled => "true";
        "OTEL_SERVICE_NAME" = "shop" => |config| config.resource.get("service.name") => r#"Some(Str("shop"))"#;
        "OTEL_RESOURCE_ATTRIBUTES" = "team=a%20b" => |config| config.resource.get("team") => r#"Some(Str("a b"))"#;
        "OTEL_PROPAGATORS" = "jaeger" => |config| config.propagators.fields().collect::<Vec<_>>() => r#"["uber-trace-id"]"#;
        "OTEL_LOG_LEVEL" = "none" => |config| config.log_level => "None";
        "OTEL_TRACES_EXPORTER" = "console" => |config| config.exporters => "[Console]";
        "OTEL_METRICS_EXPORTER" = "console" => |config| config.metrics.exporters => "[Console]";
        "OTEL_TRACES_SAMPLER" = "always_off" => |config| config.sampler => "Always(Off)";
        "OTEL_TRACES_SAMPLER_ARG" = "1" beside [("OTEL_TRACES_SAMPLER", "traceidratio")]
            => |config| config.sampler => "Always(Ratio(Ratio { threshold: 0 }))";
        "OTEL_BSP_SCHEDULE_DELAY" = "7" => |config| config.batch.schedule_delay => "7ms";
        "OTEL_BSP_MAX_QUEUE_SIZE" = "2048" => |config| config.batch.max_queue_spans => "Some(2048)";
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE" = "7" => |config| config.batch.max_export_batch_size => "7";
        "OTEL_BSP_EXPORT_TIMEOUT" = "7" => |config| config.batch.export_timeout => "7ms";
        "OTEL_METRIC_EXPORT_INTERVAL" = "7" => |config| config.metrics.interval => "7ms";
        "OTEL_METRIC_EXPORT_TIMEOUT" = "7" => |config| config.metrics.timeout => "7ms";
        "OTEL_ATTRIBUTE_COUNT_LIMIT" = "7"
            => |config| (config.limits.attributes, config.limits.attributes_per_event, config.limits.attributes_per_link)
            => "(7, 7, 7)";
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT" = "7" => |config| config.limits.value_length => "Some(7)";
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" = "7"
            => |config| (config.limits.attributes, config.limits.attributes_per_event) => "(7, 128)";
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT" = "7" => |config| config.limits.value_length => "Some(7)";
        "OTEL_SPAN_EVENT_COUNT_LIMIT" = "7" => |config| config.limits.events => "7";
        "OTEL_SPAN_LINK_COUNT_LIMIT" = "7" => |config| config.limits.links => "7";
        "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT" = "7" => |config| config.limits.attributes_per_event => "7";
        "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT" = "7" => |config| config.limits.attributes_per_link => "7";
        "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS" = "PURGE" => |config| config.http.known_methods => r#"Some(["PURGE"])"#;
    };
    for Effect {
        variable,
        beside,
        shows,
        expected,
    } in effects
    {
        assert_ne!(shows(&load(beside)), expected, "without {}", variable.0);
        let with = [&[variable], beside].concat();
        assert_eq!(shows(&load(&with)), expected, "with {}", variable.0);
    }
}

/// Where spans go, and where metrics go; header values too, which `Debug` hides.
fn destinations(config: &Config) -> [String; 2] {
    [&config.exporters, &config.metrics.exporters].map(|exporters| match &exporters[..] {
        [exporter @ (ExporterConfig::OtlpHttp(otlp) | ExporterConfig::OtlpGrpc(otlp))] => {
            format!("{exporter:?} {:?}", otlp.headers)
        }
        other => format!("{other:?}"),
    })
}

#[test]
fn of_an_otlp_exporter_for_one_signal_and_for_all() {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    const HTTP: &[Variable<'_>] = &[("ENDPOINT", "http://collector:1")];
    const GRPC: &[Variable<'_>] = &[("ENDPOINT", "collector:1"), ("PROTOCOL", "grpc")];
    let settings: [(&str, &str, &[Variable<'_>], &str); 10] = [
        ("ENDPOINT", "http://other:2", &[], "http://other:2/"),
        ("PROTOCOL", "grpc", HTTP, "OtlpGrpc("),
        ("PROTOCOL", "http/json", HTTP, "encoding: Json"),
        ("HEADERS", "key=a%20b", HTTP, r#"[("key", "a b")]"#),
        ("TIMEOUT", "7", HTTP, "timeout: 7ms"),
        ("COMPRESSION", "gzip", HTTP, "compression: Gzip"),
        ("CERTIFICATE", FILE, HTTP, " certificate: Some("),
        (
            "CLIENT_CERTIFICATE",
            FILE,
            &[HTTP[0], ("CLIENT_KEY", FILE)],
            "client_certificate: Some(",
        ),
        (
            "CLIENT_KEY",
            FILE,
            &[HTTP[0], ("CLIENT_CERTIFICATE", FILE)],
            "client_key: Some(",
        ),
        ("INSECURE", "true", GRPC, "http://collector:1"),
    ];
    for (setting, value, beside, shows) in settings {
        for (signal, has_effect) in [
            ("", [true, true]),
            ("TRACES_", [true, false]),
            ("METRICS_", [false, true]),
        ] {
            // A certificate and its key go together, for a signal too.
            let named = |setting: &str, is_own: bool| {
                let signal = if is_own { signal } else { "" };
                format!("OTEL_EXPORTER_OTLP_{signal}{setting}")
            };
            let mut variables = vec![(named(setting, true), value)];
            variables.extend(
                beside.iter().map(|(setting, value)| {
                    (named(setting, setting.starts_with("CLIENT_")), *value)
                }),
            );
            let variables: Vec<_> = variables
                .iter()
                .map(|(name, value)| (name.as_str(), *value))
                .collect();
            let shown = destinations(&load(&variables));
            assert_eq!(
                shown
                    .each_ref()
                    .map(|destination| destination.contains(shows)),
                has_effect,
                "{variables:?}: {shown:?}"
            );
        }
    }
}
