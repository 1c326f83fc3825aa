//! Which exporters are in use.

use super::otlp::{self, Otlp, OtlpConfig, Protocol};
use super::signal::Signal;
use super::source::{Problem, Variables, without_password};
use super::{Arguments, CustomExporter, OtlpArguments, OutputConfig};
use crate::error::Error;

/// One destination of one signal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExporterConfig {
    /// OTLP over HTTP.
    OtlpHttp(OtlpConfig),
    /// OTLP over gRPC.
    OtlpGrpc(OtlpConfig),
    /// Readable lines on the console.
    Console,
    /// A stream or a file.
    Output(OutputConfig),
    /// The program's own.
    Custom(CustomExporter),
}

impl ExporterConfig {
    fn otlp(otlp: Otlp) -> Self {
        match otlp.protocol {
            Protocol::Http => Self::OtlpHttp(otlp.config),
            Protocol::Grpc => Self::OtlpGrpc(otlp.config),
        }
    }
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
        Signal::Logs => (
            ("logs_exporter", arguments.logs_exporter.as_ref()),
            "OTEL_LOGS_EXPORTER",
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
    let mut exporters = Vec::new();
    if chosen.contains(&Choice::Otlp) {
        exporters.push(ExporterConfig::otlp(otlp));
    }
    if chosen.contains(&Choice::Console) {
        exporters.push(ExporterConfig::Console);
    }
    let (further, outputs, custom) = match signal {
        Signal::Traces => (
            &arguments.otlp_exporters,
            &arguments.outputs[..],
            &arguments.custom_exporters[..],
        ),
        Signal::Metrics => (
            &arguments.otlp_metrics_exporters,
            &arguments.metrics_outputs[..],
            &[][..],
        ),
        Signal::Logs => (
            &arguments.otlp_logs_exporters,
            &arguments.logs_outputs[..],
            &[][..],
        ),
    };
    for further in further {
        exporters.push(ExporterConfig::otlp(load_otlp(further, variables, signal)?));
    }
    exporters.extend(outputs.iter().cloned().map(ExporterConfig::Output));
    exporters.extend(custom.iter().cloned().map(ExporterConfig::Custom));
    Ok((exporters, wants_endpoint))
}

fn load_otlp(
    arguments: &OtlpArguments,
    variables: &mut Variables<'_>,
    signal: Signal,
) -> Result<Otlp, Error> {
    let otlp = otlp::load(&arguments.alone(), variables, signal, true)?;
    // An endpoint that is for another signal alone is passed over for this one. Here nobody can have meant that.
    if let Some(endpoint) = &arguments.endpoint
        && otlp.protocol == Protocol::Http
        && let Some(other) = signal
            .others()
            .find(|other| endpoint.trim_end_matches('/').ends_with(other.path()))
    {
        let shown = without_password("endpoint", &format!("{endpoint:?}"));
        return Err(Error::configuration(
            "endpoint",
            format!(
                "{shown} is for {}, and {} are to go to it; give its base URL",
                other.items(),
                signal.items()
            ),
        ));
    }
    Ok(otlp)
}

/// See [`OtlpArguments::check`].
pub(super) fn check(arguments: &OtlpArguments) -> Result<(), Error> {
    let mut variables = Variables::new(&|_| None);
    otlp::load(&arguments.alone(), &mut variables, Signal::Traces, true).map(drop)
}

fn parse(name: &str) -> Result<Choice, Problem> {
    match name.to_ascii_lowercase().as_str() {
        "otlp" => Ok(Choice::Otlp),
        "console" => Ok(Choice::Console),
        _ => Err("not otlp, console, or none alone".into()),
    }
}
