//! Settings of metrics: an argument, else the variable of metrics, else the general one, else the default.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use opentelemetry_sdk::metrics::Temporality;
use rvh_trace::config::{
    Arguments, Compression, Config, ExemplarFilter, ExporterConfig, MetricsConfig, OtlpConfig,
    Signal,
};

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

fn load(arguments: &Arguments, variables: &[(&str, &str)]) -> (Config, Vec<String>) {
    Config::load(arguments, &|name| {
        let variable = variables.iter().find(|(known, _)| *known == name);
        variable.map(|(_, value)| (*value).to_owned())
    })
    .unwrap()
}

/// The settings of metrics that a correct set-up gives.
#[track_caller]
fn configured(arguments: &Arguments, variables: &[(&str, &str)]) -> MetricsConfig {
    let (config, warnings) = load(arguments, variables);
    assert_eq!(warnings, [""; 0]);
    config.metrics
}

#[track_caller]
fn from_environment(variables: &[(&str, &str)]) -> MetricsConfig {
    configured(&Arguments::default(), variables)
}

#[track_caller]
fn only_otlp(metrics: &MetricsConfig) -> &OtlpConfig {
    match &metrics.exporters[..] {
        [ExporterConfig::OtlpHttp(otlp) | ExporterConfig::OtlpGrpc(otlp)] => otlp,
        other => unreachable!("expected one OTLP exporter, got {other:?}"),
    }
}

fn endpoint_argument(endpoint: &str) -> Arguments {
    Arguments {
        endpoint: Some(endpoint.into()),
        ..Arguments::default()
    }
}

#[test]
fn without_an_endpoint_nothing_is_exported_unless_it_is_asked_for_by_name() {
    assert_eq!(from_environment(&[]), MetricsConfig::default());
    let asked = from_environment(&[("OTEL_METRICS_EXPORTER", "otlp,console")]);
    let [ExporterConfig::OtlpHttp(otlp), ExporterConfig::Console] = &asked.exporters[..] else {
        unreachable!("{asked:?}")
    };
    assert_eq!(otlp.endpoint, "http://localhost:4318/v1/metrics");
    assert_eq!(otlp.signal, Signal::Metrics);
    for variables in [
        &[ENDPOINT, ("OTEL_METRICS_EXPORTER", "none")][..],
        &[("OTEL_TRACES_EXPORTER", "otlp")],
        &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/v1/traces")],
    ] {
        assert_eq!(from_environment(variables).exporters, [], "{variables:?}");
    }
    let arguments = Arguments {
        metrics_exporter: Some(vec!["console".into()]),
        exporter: Some(vec!["none".into()]),
        ..Arguments::default()
    };
    let metrics = configured(&arguments, &[ENDPOINT, ("OTEL_METRICS_EXPORTER", "otlp")]);
    assert_eq!(metrics.exporters, [ExporterConfig::Console]);
}

#[test]
fn a_base_serves_both_signals_and_a_full_url_its_own() {
    let of = |arguments: &Arguments, variables: &[(&str, &str)]| {
        let (config, warnings) = load(arguments, variables);
        assert_eq!(warnings, [""; 0]);
        let endpoint = |exporters: &[ExporterConfig]| match exporters {
            [ExporterConfig::OtlpHttp(otlp) | ExporterConfig::OtlpGrpc(otlp)] => {
                otlp.endpoint.clone()
            }
            [] => "none".to_owned(),
            other => unreachable!("{other:?}"),
        };
        (
            endpoint(&config.exporters),
            endpoint(&config.metrics.exporters),
        )
    };
    let pair = |traces: &str, metrics: &str| (traces.to_owned(), metrics.to_owned());
    let (traces, metrics) = (
        "http://collector:4318/v1/traces",
        "http://collector:4318/v1/metrics",
    );
    let none = Arguments::default();
    assert_eq!(of(&none, &[ENDPOINT]), pair(traces, metrics));
    let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:9/in");
    assert_eq!(of(&none, &[own]), pair("none", "http://m:9/in"));
    assert_eq!(of(&none, &[ENDPOINT, own]), pair(traces, "http://m:9/in"));
    for (argument, expected) in [
        (
            "http://a/base",
            pair("http://a/base/v1/traces", "http://a/base/v1/metrics"),
        ),
        ("http://a/v1/traces", pair("http://a/v1/traces", "none")),
        ("http://a/v1/metrics/", pair("none", "http://a/v1/metrics/")),
    ] {
        assert_eq!(of(&endpoint_argument(argument), &[]), expected);
    }
    // What an argument leaves open, the environment says.
    let traces_alone = endpoint_argument("http://a/v1/traces");
    assert_eq!(
        of(&traces_alone, &[ENDPOINT]),
        pair("http://a/v1/traces", metrics)
    );
    // An argument goes before every variable.
    assert_eq!(
        of(&endpoint_argument("http://a"), &[own]).1,
        "http://a/v1/metrics"
    );
    let grpc = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    assert_eq!(
        of(&endpoint_argument("http://a:1"), &grpc),
        pair("http://a:1", "http://a:1")
    );
}

#[test]
fn the_variables_of_metrics_go_before_the_general_ones() {
    let general = [
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=general"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ];
    let metrics = from_environment(&general);
    assert!(matches!(
        metrics.exporters[..],
        [ExporterConfig::OtlpGrpc(_)]
    ));
    let otlp = only_otlp(&metrics);
    assert_eq!(otlp.headers, [("a".to_owned(), "general".to_owned())]);
    assert_eq!(otlp.timeout, Duration::from_millis(1));
    assert_eq!(otlp.compression, Compression::Gzip);

    let own = [
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "a=own"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "2"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none"),
        // Those of traces are none of its business.
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=traces"),
    ];
    let metrics = from_environment(&[&general[..], &own].concat());
    assert!(matches!(
        metrics.exporters[..],
        [ExporterConfig::OtlpHttp(_)]
    ));
    let otlp = only_otlp(&metrics);
    assert_eq!(otlp.headers, [("a".to_owned(), "own".to_owned())]);
    assert_eq!(otlp.timeout, Duration::from_millis(2));
    assert_eq!(otlp.compression, Compression::None);

    let grpc = [
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_METRICS_INSECURE", "true"),
    ];
    assert!(only_otlp(&from_environment(&grpc)).insecure);
    assert!(!only_otlp(&from_environment(&grpc[..2])).insecure);

    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let tls = [
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", file),
        ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", file),
        ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", file),
    ];
    let metrics = from_environment(&tls);
    let otlp = only_otlp(&metrics);
    let file = Some(file.into());
    assert_eq!(
        (
            &otlp.certificate,
            &otlp.client_certificate,
            &otlp.client_key
        ),
        (&file, &file, &file)
    );
}

#[test]
fn interval_timeout_temporality_filter_and_limit() {
    let metrics = from_environment(&[
        ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "700"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "always_on"),
        ("RVH_TRACE_SELF_METRICS", "true"),
    ]);
    let expected = MetricsConfig {
        exporters: Vec::new(),
        interval: Duration::from_millis(1500),
        timeout: Duration::from_millis(700),
        temporality: Temporality::Delta,
        exemplar_filter: ExemplarFilter::AlwaysOn,
        self_metrics: true,
        cardinality_limit: 2000,
    };
    assert_eq!(metrics, expected);
    let arguments = Arguments {
        metric_export_interval_ms: Some(0.5),
        metric_cardinality_limit: Some(7),
        ..Arguments::default()
    };
    let metrics = configured(&arguments, &[("OTEL_METRIC_EXPORT_INTERVAL", "1500")]);
    assert_eq!(
        metrics.interval,
        Duration::from_millis(1),
        "never a worker that spins"
    );
    assert_eq!(metrics.cardinality_limit, 7);
}

#[test]
fn what_is_wrong_is_said_once_and_an_argument_is_an_error() {
    for (name, value, instead) in [
        (
            "OTEL_METRICS_EXPORTER",
            "prometheus",
            "otlp if there is an endpoint",
        ),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon", "60000 ms"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "-1", "30000 ms"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "sometimes",
            "cumulative",
        ),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "always", "trace_based"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
            "smoke",
            "http/protobuf",
        ),
        // Read by both signals.
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "10000 ms"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense", "no endpoint"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "nonsense", "none of it"),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_KEY",
            "/nowhere.pem",
            "no client key",
        ),
    ] {
        let (config, warnings) = load(&Arguments::default(), &[(name, value)]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].starts_with(&format!("{name}: ")),
            "{warnings:?}"
        );
        assert!(
            warnings[0].ends_with(&format!("using {instead}")),
            "{warnings:?}"
        );
        assert_eq!(config.metrics, MetricsConfig::default(), "{name}");
    }
    let refused = |arguments: &Arguments| {
        let error = Config::load(arguments, &|_| None).unwrap_err();
        error.to_string()
    };
    let exporter = Arguments {
        metrics_exporter: Some(vec!["pigeon".into()]),
        ..Arguments::default()
    };
    assert!(refused(&exporter).starts_with("metrics_exporter: \"pigeon\" is not otlp"));
    let interval = Arguments {
        metric_export_interval_ms: Some(-1.0),
        ..Arguments::default()
    };
    assert!(refused(&interval).starts_with("metric_export_interval_ms: "));
    let limit = Arguments {
        metric_cardinality_limit: Some(0),
        ..Arguments::default()
    };
    assert!(refused(&limit).starts_with("metric_cardinality_limit: "));
}
