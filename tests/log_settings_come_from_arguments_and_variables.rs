//! Settings of logs: an argument, else the variable of logs, else the general one, else the default.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use rvh_trace::config::{
    Arguments, BatchConfig, Config, Encoding, ExporterConfig, LogsConfig, OtlpArguments,
    OtlpConfig, Signal,
};
use rvh_trace::error::Error;

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

fn load(arguments: &Arguments, variables: &[(&str, &str)]) -> Result<(Config, Vec<String>), Error> {
    Config::load(arguments, &|name| {
        let variable = variables.iter().find(|(known, _)| *known == name);
        variable.map(|(_, value)| (*value).to_owned())
    })
}

#[track_caller]
fn configured(arguments: &Arguments, variables: &[(&str, &str)]) -> LogsConfig {
    let (config, warnings) = load(arguments, variables).unwrap();
    assert_eq!(warnings, [""; 0]);
    config.logs
}

#[track_caller]
fn from_environment(variables: &[(&str, &str)]) -> LogsConfig {
    configured(&Arguments::default(), variables)
}

#[track_caller]
fn only_otlp(logs: &LogsConfig) -> &OtlpConfig {
    match &logs.exporters[..] {
        [ExporterConfig::OtlpHttp(otlp) | ExporterConfig::OtlpGrpc(otlp)] => otlp,
        other => unreachable!("expected one OTLP exporter, got {other:?}"),
    }
}

#[test]
fn without_an_endpoint_nothing_is_exported_unless_it_is_asked_for_by_name() {
    assert_eq!(from_environment(&[]).exporters, []);
    let asked = from_environment(&[("OTEL_LOGS_EXPORTER", "otlp,console")]);
    let [ExporterConfig::OtlpHttp(otlp), ExporterConfig::Console] = &asked.exporters[..] else {
        unreachable!("{asked:?}")
    };
    assert_eq!(otlp.endpoint, "http://localhost:4318/v1/logs");
    assert_eq!(otlp.signal, Signal::Logs);
    for variables in [
        &[ENDPOINT, ("OTEL_LOGS_EXPORTER", "none")][..],
        &[("OTEL_TRACES_EXPORTER", "otlp")],
        &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/v1/traces")],
    ] {
        assert_eq!(from_environment(variables).exporters, [], "{variables:?}");
    }
    let arguments = Arguments {
        logs_exporter: Some(vec!["console".into()]),
        exporter: Some(vec!["none".into()]),
        ..Arguments::default()
    };
    let logs = configured(&arguments, &[ENDPOINT, ("OTEL_LOGS_EXPORTER", "otlp")]);
    assert_eq!(logs.exporters, [ExporterConfig::Console]);
}

#[test]
fn a_base_serves_every_signal_and_a_full_url_its_own() {
    let logs = from_environment(&[ENDPOINT]);
    assert_eq!(only_otlp(&logs).endpoint, "http://collector:4318/v1/logs");
    let own = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://l:9/in");
    assert_eq!(
        only_otlp(&from_environment(&[own])).endpoint,
        "http://l:9/in"
    );
    for (endpoint, served) in [
        ("http://a/base", [true; 3]),
        ("http://a/v1/traces", [true, false, false]),
        ("http://a/v1/metrics", [false, true, false]),
        ("http://a/v1/logs/", [false, false, true]),
    ] {
        let arguments = Arguments {
            endpoint: Some(endpoint.into()),
            ..Arguments::default()
        };
        let (config, _) = load(&arguments, &[]).unwrap();
        let exporters = [
            &config.exporters,
            &config.metrics.exporters,
            &config.logs.exporters,
        ];
        assert_eq!(exporters.map(|of| !of.is_empty()), served, "{endpoint}");
    }
}

#[test]
fn an_endpoint_of_another_signal_is_wrong_for_an_exporter_of_logs() {
    for (path, items) in [("/v1/traces", "spans"), ("/v1/metrics", "metrics")] {
        let arguments = Arguments {
            otlp_logs_exporters: vec![OtlpArguments {
                endpoint: Some(format!("http://a{path}")),
                ..OtlpArguments::default()
            }],
            ..Arguments::default()
        };
        let error = load(&arguments, &[]).unwrap_err().to_string();
        let expected = format!("is for {items}, and log records are to go to it");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn every_variable_of_otlp_has_a_form_for_logs_that_goes_first() {
    let logs = from_environment(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://own/logs"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=general"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "a=own"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "2"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "Cargo.toml"),
        ("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", "Cargo.lock"),
        ("OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY", "clippy.toml"),
    ]);
    let otlp = only_otlp(&logs);
    assert_eq!(otlp.endpoint, "https://own/logs");
    assert_eq!(otlp.encoding, Encoding::Json);
    assert_eq!(otlp.headers, [("a".to_owned(), "own".to_owned())]);
    assert_eq!(otlp.timeout, Duration::from_millis(2));
    assert_eq!(otlp.compression, rvh_trace::config::Compression::Gzip);
    assert_eq!(otlp.certificate, Some("Cargo.toml".into()));
    assert_eq!(otlp.client_certificate, Some("Cargo.lock".into()));
    assert_eq!(otlp.client_key, Some("clippy.toml".into()));
    assert!(!otlp.insecure);

    let insecure = from_environment(&[
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_LOGS_INSECURE", "true"),
    ]);
    assert_eq!(only_otlp(&insecure).endpoint, "http://collector:4317");
}

#[test]
fn the_batch_has_variables_of_its_own_and_the_bounds_in_bytes_of_spans() {
    let default = BatchConfig {
        schedule_delay: Duration::from_secs(1),
        ..BatchConfig::default()
    };
    assert_eq!(from_environment(&[]).batch, default);
    let spans = [
        ("OTEL_BSP_SCHEDULE_DELAY", "7"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "9"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "10"),
    ];
    let (config, _) = load(&Arguments::default(), &spans).unwrap();
    assert_eq!(config.logs.batch, default, "those are of spans");

    let arguments = Arguments {
        schedule_delay_ms: Some(1.0),
        max_queue_size: Some(2),
        max_export_batch_size: Some(2),
        export_timeout_ms: Some(4.0),
        max_queue_bytes: Some(5_000),
        max_request_bytes: Some(600),
        ..Arguments::default()
    };
    let own = [
        ("OTEL_BLRP_SCHEDULE_DELAY", "70"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "80"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "60"),
        ("OTEL_BLRP_EXPORT_TIMEOUT", "0"),
    ];
    let batch = configured(&arguments, &own).batch;
    assert_eq!(batch.schedule_delay, Duration::from_millis(70));
    assert_eq!(batch.max_queue_spans, Some(80));
    assert_eq!(batch.max_export_batch_size, 60);
    assert!(
        batch.export_timeout > Duration::from_secs(24 * 3600),
        "0 is no limit"
    );
    assert_eq!(
        (batch.max_queue_bytes, batch.max_request_bytes),
        (5_000, 600)
    );
    assert_eq!(batch.spool, None);
}

#[test]
fn a_general_limit_of_attributes_stands_in_for_that_of_logs() {
    let general = [
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "5"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "6"),
    ];
    let limits = from_environment(&general).limits;
    assert_eq!((limits.attributes, limits.value_length), (5, Some(6)));
    let own = [
        ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "7"),
        ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "8"),
    ];
    let limits = from_environment(&[general, own].concat()).limits;
    assert_eq!((limits.attributes, limits.value_length), (7, Some(8)));
}
