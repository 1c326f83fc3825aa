//! Configurations that cannot be had as they stand.

use super::{Arguments, Config, ExporterConfig, OtlpArguments};
use crate::diagnostic::{self, Level};
use crate::error::Error;

/// What `make` makes of this configuration. What is wrong with a file is an error if an argument named the file; if a
/// variable did, it is a warning, and the signal that it is for is not exported over OTLP.
pub fn make_of<T>(
    config: Config,
    arguments: &Arguments,
    make: fn(Config) -> Result<T, Error>,
) -> Result<T, Error> {
    let error = match make(config.clone()) {
        Ok(tracer) => return Ok(tracer),
        Err(error) => error,
    };
    let given = |by_itself: bool, in_object: fn(&OtlpArguments) -> bool| {
        let each = [
            &arguments.otlp_exporters,
            &arguments.otlp_metrics_exporters,
            &arguments.otlp_logs_exporters,
        ];
        by_itself || each.into_iter().flatten().any(in_object)
    };
    let named = [
        // No variable names one.
        ("", "output_stream", true),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "certificate",
            given(arguments.certificate.is_some(), |otlp| {
                otlp.certificate.is_some()
            }),
        ),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            "client_certificate",
            given(arguments.client_certificate.is_some(), |otlp| {
                otlp.client_certificate.is_some()
            }),
        ),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_KEY",
            "client_key",
            given(arguments.client_key.is_some(), |otlp| {
                otlp.client_key.is_some()
            }),
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "endpoint",
            given(arguments.endpoint.is_some(), |otlp| otlp.endpoint.is_some()),
        ),
    ];
    if let Error::Configuration { name, problem } = &error {
        for (variable, argument, given) in named {
            if given && (name == variable || name == argument) {
                return Err(Error::configuration(argument, problem));
            }
        }
    }
    let mut without_logs = config;
    keep_console(&mut without_logs.logs.exporters);
    if let Ok(tracer) = make(without_logs.clone()) {
        diagnostic::log(
            Level::Warn,
            &format!("{error}. Logs are not exported until that is mended"),
        );
        return Ok(tracer);
    }
    // What is wrong with both logs and metrics is said for both.
    let mut spans_alone = without_logs;
    keep_console(&mut spans_alone.metrics.exporters);
    if let Ok(tracer) = make(spans_alone.clone()) {
        diagnostic::log(
            Level::Warn,
            &format!("{error}. Metrics are not exported until that is mended"),
        );
        return Ok(tracer);
    }
    diagnostic::log(
        Level::Warn,
        &format!("{error}. Nothing is exported until that is mended"),
    );
    let mut console_alone = spans_alone;
    keep_console(&mut console_alone.exporters);
    make(console_alone)
}

/// Keeps what needs no connection.
fn keep_console(exporters: &mut Vec<ExporterConfig>) {
    let is_local = |exporter: &ExporterConfig| {
        matches!(
            exporter,
            ExporterConfig::Console | ExporterConfig::Output(_) | ExporterConfig::Custom(_)
        )
    };
    exporters.retain(is_local);
}
