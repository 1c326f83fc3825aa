//! A wrong argument is an error that says what would be right; a wrong variable is a warning, and the program runs.

/// Arguments of which only some are given.
macro_rules! arguments {
    ($($given:tt)*) => {
        rvh_trace::config::Arguments { $($given)*, ..rvh_trace::config::Arguments::default() }
    };
}

mod otlp;
mod settings;
mod wrong;

use std::collections::HashMap;

use rvh_trace::config::{Arguments, Config, ExporterConfig, OtlpConfig};
use rvh_trace::error::Error;
use rvh_trace::resource::ResourceValue;

type Variables<'a> = &'a [(&'a str, &'a str)];

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

fn load(arguments: &Arguments, variables: Variables<'_>) -> Result<(Config, Vec<String>), Error> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    Config::load(arguments, &|name| {
        variables.get(name).map(|value| (*value).to_owned())
    })
}

/// The configuration that a correct set-up gives.
#[track_caller]
fn configured(arguments: &Arguments, variables: Variables<'_>) -> Config {
    match load(arguments, variables) {
        Ok((config, warnings)) => {
            assert_eq!(warnings, [""; 0], "unexpected warnings");
            config
        }
        Err(error) => unreachable!("unexpected error: {error}"),
    }
}

/// The configuration that correct variables give.
#[track_caller]
fn from_environment(variables: Variables<'_>) -> Config {
    configured(&Arguments::default(), variables)
}

/// The configuration and the only warning that one wrong variable gives.
#[track_caller]
fn warned(variables: Variables<'_>) -> (Config, String) {
    match load(&Arguments::default(), variables) {
        Ok((config, warnings)) => {
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            (config, warnings.concat())
        }
        Err(error) => unreachable!("a variable must never be an error: {error}"),
    }
}

/// The message of the error that a wrong argument gives.
#[track_caller]
fn refused(arguments: &Arguments) -> String {
    match load(arguments, &[]) {
        Err(error @ Error::Configuration { .. }) => error.to_string(),
        other => unreachable!("expected a configuration error, got {other:?}"),
    }
}

#[track_caller]
fn only_otlp(config: &Config) -> &OtlpConfig {
    match &config.exporters[..] {
        [ExporterConfig::OtlpHttp(otlp) | ExporterConfig::OtlpGrpc(otlp)] => otlp,
        other => unreachable!("expected one OTLP exporter, got {other:?}"),
    }
}

fn attribute(config: &Config, key: &str) -> String {
    match config.resource.get(key) {
        Some(ResourceValue::Str(value)) => value.clone(),
        other => format!("{other:?}"),
    }
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}
