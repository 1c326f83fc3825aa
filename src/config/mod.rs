//! Everything there is to set, read once from arguments and environment variables.
//!
//! A setting comes from the argument, else the signal's own variable, else the general one, else the default. A wrong
//! argument is an [`Error::Configuration`] that says what would be right; a wrong variable is one warning, and counts as
//! unset: the environment must never stop an application. Secrets (header values, passwords in endpoints) appear in
//! neither.

mod arguments;
mod batch;
mod bridge;
mod custom;
mod endpoint;
mod exporter;
mod headers;
pub mod http_server;
mod lenient;
mod limits;
mod logs;
mod metrics;
mod otlp;
mod output;
mod sampler;
mod signal;
mod source;
mod spool;

pub use arguments::{Arguments, OtlpArguments};
pub use batch::BatchConfig;
pub use bridge::{BridgeConfig, Filter};
pub use custom::CustomExporter;
pub(crate) use endpoint::is_plain_url;
pub use exporter::ExporterConfig;
pub use http_server::HttpServerArguments;
pub use lenient::make_of;
pub use logs::LogsConfig;
pub use metrics::{ExemplarFilter, MetricsConfig};
pub use otlp::{Compression, Encoding, OtlpConfig};
pub use output::{OutputConfig, OutputFormat, OutputStream};
pub use signal::Signal;
pub use spool::SpoolConfig;

use std::time::Duration;

use crate::diagnostic::Level;
use crate::error::Error;
use crate::limits::SpanLimits;
use crate::propagation::{Propagator, Propagators};
use crate::resource::Resource;
use crate::sampler::Sampler;
use source::{Problem, Variables, argument, percent_decoded};

/// The settings of the library, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Nothing is recorded or exported; context is still propagated.
    pub disabled: bool,
    /// What produces the spans.
    pub resource: Resource,
    /// Which spans are recorded.
    pub sampler: Sampler,
    /// How much one span may hold.
    pub limits: SpanLimits,
    /// How spans wait for export.
    pub batch: BatchConfig,
    /// The time between two markers of a span that is still open; `None`: there are none.
    pub open_span_interval: Option<Duration>,
    /// Where spans go; empty: nowhere.
    pub exporters: Vec<ExporterConfig>,
    /// Where metrics go, and how.
    pub metrics: MetricsConfig,
    /// Where log records go, and how.
    pub logs: LogsConfig,
    /// How context crosses process borders.
    pub propagators: Propagators,
    /// Settings of HTTP instrumentation.
    pub http: HttpConfig,
    /// What is taken of the instrumentation of Rust code; `None`: nothing.
    pub bridge: Option<BridgeConfig>,
    /// The least severe level of the library's own log; `None`: silent.
    pub log_level: Option<Level>,
    /// Nothing is exported only because no endpoint was given: worth a line that says how to turn export on.
    pub export_hint: bool,
}

/// Settings of HTTP instrumentation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HttpConfig {
    /// The values that `http.request.method` may take, in place of the standard ones; `None`: the standard ones.
    pub known_methods: Option<Vec<String>>,
}

impl Config {
    /// Reads the settings. `env` is asked for variables by name; the second result is the warnings, one for each
    /// variable that was wrong.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] for the first argument that is wrong.
    pub fn load(
        arguments: &Arguments,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<String>), Error> {
        let mut variables = Variables::new(env);
        let disabled = variables.switch(arguments.disabled, &["OTEL_SDK_DISABLED"]);
        let (exporters, wants_endpoint) =
            exporter::load(arguments, &mut variables, Signal::Traces)?;
        let config = Self {
            disabled,
            resource: resource(arguments, &mut variables)?,
            sampler: sampler::load(arguments, &mut variables)?,
            limits: limits::load(arguments, &mut variables)?,
            batch: batch::load(arguments, &mut variables)?,
            open_span_interval: open_span_interval(arguments, &mut variables)?,
            exporters,
            metrics: metrics::load(arguments, &mut variables)?,
            logs: logs::load(arguments, &mut variables)?,
            propagators: propagators(arguments, &mut variables)?,
            http: http(arguments, &mut variables)?,
            bridge: bridge::load(arguments, &mut variables)?,
            log_level: log_level(arguments, &mut variables)?,
            export_hint: wants_endpoint && !disabled,
        };
        Ok((config, variables.warnings))
    }
}

fn resource(arguments: &Arguments, variables: &mut Variables<'_>) -> Result<Resource, Error> {
    let not_empty = |name: &str| {
        if name.trim().is_empty() {
            Err("not a name".to_owned())
        } else {
            Ok(())
        }
    };
    argument("service_name", arguments.service_name.as_deref(), not_empty)?;
    for (key, _) in &arguments.resource_attributes {
        argument("resource_attributes", Some(key.as_str()), not_empty)?;
    }
    let mut environment = variables
        .read(
            &["OTEL_RESOURCE_ATTRIBUTES"],
            parse_resource_attributes,
            "none of it",
        )
        .unwrap_or_default();
    if let Some(name) = variables.value("OTEL_SERVICE_NAME") {
        environment.push(("service.name".into(), name));
    }
    Ok(Resource::detect(
        arguments.service_name.as_deref(),
        &environment,
        &arguments.resource_attributes,
        arguments.sdk_language.as_deref().unwrap_or("rust"),
        &arguments.runtime_attributes,
    ))
}

/// `key=value,key=value`, both percent-encoded. Any mistake discards the whole (OpenTelemetry specification, "Resource
/// SDK", "Specifying resource information via an environment variable").
fn parse_resource_attributes(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let parse_member = |member: &str| {
        let (key, value) = member.split_once('=')?;
        let (key, value) = (percent_decoded(key.trim())?, percent_decoded(value.trim())?);
        (!key.is_empty()).then_some((key, value))
    };
    text.split(',')
        .filter(|member| !member.trim().is_empty())
        .map(|member| {
            parse_member(member)
                .ok_or_else(|| format!("not key=value,...: see {:?}", member.trim()))
        })
        .collect()
}

fn propagators(arguments: &Arguments, variables: &mut Variables<'_>) -> Result<Propagators, Error> {
    let chosen = variables.list(
        ("propagators", arguments.propagators.as_ref()),
        "OTEL_PROPAGATORS",
        parse_propagator,
        "tracecontext,baggage",
    )?;
    Ok(chosen.map_or_else(Propagators::default, Propagators::from_iter))
}

fn parse_propagator(name: &str) -> Result<Propagator, Problem> {
    let name = name.to_ascii_lowercase();
    let known = Propagator::ALL
        .into_iter()
        .find(|propagator| propagator.name() == name);
    known.ok_or_else(|| match name.as_str() {
        "ottrace" => "not supported; its successor is tracecontext".into(),
        _ => "not tracecontext, baggage, b3, b3multi, jaeger, xray, datadog, or none alone".into(),
    })
}

fn open_span_interval(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
) -> Result<Option<Duration>, Error> {
    let interval = variables.milliseconds(
        ("open_span_interval_ms", arguments.open_span_interval_ms),
        &["RVH_TRACE_OPEN_SPAN_INTERVAL"],
        Duration::ZERO,
    )?;
    Ok((!interval.is_zero()).then(|| interval.max(Duration::from_millis(1))))
}

fn http(arguments: &Arguments, variables: &mut Variables<'_>) -> Result<HttpConfig, Error> {
    let known_methods = variables.list(
        ("http_known_methods", arguments.http_known_methods.as_ref()),
        "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS",
        http_server::parse_method,
        "the standard methods",
    )?;
    Ok(HttpConfig { known_methods })
}

fn log_level(arguments: &Arguments, variables: &mut Variables<'_>) -> Result<Option<Level>, Error> {
    let level = variables.text(
        ("log_level", arguments.log_level.as_deref()),
        &["OTEL_LOG_LEVEL"],
        parse_log_level,
        "warn",
    )?;
    Ok(level.unwrap_or(Some(Level::Warn)))
}

fn parse_log_level(name: &str) -> Result<Option<Level>, Problem> {
    match name.to_ascii_lowercase().as_str() {
        "none" => Ok(None),
        "error" => Ok(Some(Level::Error)),
        "warn" | "warning" => Ok(Some(Level::Warn)),
        "info" => Ok(Some(Level::Info)),
        "debug" | "trace" | "verbose" => Ok(Some(Level::Debug)),
        _ => Err("not none, error, warn, info or debug".into()),
    }
}
