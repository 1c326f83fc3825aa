//! Which exporters are in use.

use super::Arguments;
use super::otlp::{self, OtlpConfig, Protocol};
use super::signal::Signal;
use super::source::{Problem, Variables};
use crate::error::Error;

/// One destination of one signal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExporterConfig {
    /// OTLP as protobuf over HTTP.
    OtlpHttp(OtlpConfig),
    /// OTLP over gRPC.
    OtlpGrpc(OtlpConfig),
    /// Readable lines on the console.
    Console,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Otlp,
    Console,
}

/// The exporters of a signal, and whether there is none only because nothing said where to send it.
///
/// The specification's default is OTLP to localhost. Without an endpoint, and unless OTLP was asked for by name, we send
/// nothing instead: a program in development has no collector, and errors about it would be noise.
pub(super) fn load(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
    signal: Signal,
) -> Result<(Vec<ExporterConfig>, bool), Error> {
    let (argument, variable) = match signal {
        Signal::Traces => (
            ("exporter", arguments.exporter.as_ref()),
            "OTEL_TRACES_EXPORTER",
        ),
        Signal::Metrics => (
            ("metrics_exporter", arguments.metrics_exporter.as_ref()),
            "OTEL_METRICS_EXPORTER",
        ),
    };
    let chosen = variables.list(argument, variable, parse, "otlp if there is an endpoint")?;
    let otlp_is_chosen = chosen
        .as_ref()
        .is_some_and(|chosen| chosen.contains(&Choice::Otlp));
    // Read even if OTLP is not in use, so that a wrong argument shows before the program reaches production.
    let otlp = otlp::load(arguments, variables, signal, otlp_is_chosen)?;
    let wants_endpoint = chosen.is_none() && !otlp.has_endpoint;
    let chosen = chosen.unwrap_or_else(|| {
        if wants_endpoint {
            Vec::new()
        } else {
            vec![Choice::Otlp]
        }
    });
    let exporters = chosen
        .into_iter()
        .map(|choice| match (choice, otlp.protocol) {
            (Choice::Otlp, Protocol::Http) => ExporterConfig::OtlpHttp(otlp.config.clone()),
            (Choice::Otlp, Protocol::Grpc) => ExporterConfig::OtlpGrpc(otlp.config.clone()),
            (Choice::Console, _) => ExporterConfig::Console,
        });
    Ok((exporters.collect(), wants_endpoint))
}

fn parse(name: &str) -> Result<Choice, Problem> {
    match name.to_ascii_lowercase().as_str() {
        "otlp" => Ok(Choice::Otlp),
        "console" => Ok(Choice::Console),
        _ => Err("not otlp, console, or none alone".into()),
    }
}
