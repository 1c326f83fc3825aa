//! What is right.

use std::time::Duration;

use rvh_trace::config::{Compression, Config, SpoolConfig};
use rvh_trace::diagnostic::Level;
use rvh_trace::propagation::Propagator;
use rvh_trace::resource::ResourceValue;
use rvh_trace::sampler::{Ratio, Root, Sampler};

use crate::{ENDPOINT, attribute, configured, from_environment, only_otlp, strings, warned};

#[test]
fn without_settings_nothing_is_sent_and_a_hint_is_due() {
    let config = from_environment(&[]);
    assert_eq!(config.exporters, []);
    assert!(config.export_hint && !config.disabled);
    assert_eq!(config.sampler, Sampler::ParentBased(Root::On));
    assert_eq!(config.log_level, Some(Level::Warn));
    assert!(
        config.propagators.has(Propagator::TraceContext)
            && config.propagators.has(Propagator::Baggage)
    );
    assert_eq!(config.batch.schedule_delay, Duration::from_secs(5));
    assert_eq!(config.batch.max_queue_spans, None);
    assert_eq!(config.batch.max_queue_bytes, 4 * 1024 * 1024);
    assert_eq!(config.batch.max_export_batch_size, 512);
    assert_eq!(config.batch.export_timeout, Duration::from_secs(30));
    assert_eq!(config.limits.attributes, 128);
    assert_eq!(config.limits.value_length, None);
    assert_eq!(config.http.known_methods, None);
    assert!(attribute(&config, "service.name").starts_with("unknown_service:"));
    assert_eq!(attribute(&config, "telemetry.sdk.language"), "rust");
}

#[test]
fn an_argument_wins_over_the_traces_variable_over_the_general_one_over_the_default() {
    let general = [
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
    ];
    let mut both = general.to_vec();
    both.extend([
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
    ]);
    let arguments = arguments! { timeout_ms: Some(2500.5) };
    let timeout = |config: &Config| only_otlp(config).timeout;
    assert_eq!(timeout(&from_environment(&general)), Duration::from_secs(1));
    assert_eq!(timeout(&from_environment(&both)), Duration::from_secs(2));
    assert_eq!(
        timeout(&configured(&arguments, &both)),
        Duration::from_micros(2_500_500)
    );
    assert_eq!(
        only_otlp(&configured(&arguments, &both)).compression,
        Compression::Gzip
    );
    // An empty variable is unset.
    both.push(("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", " "));
    assert_eq!(timeout(&from_environment(&both)), Duration::from_secs(1));
}

#[test]
fn samplers_are_named_as_in_the_specification() {
    let ratio = |ratio| Ratio::new(ratio).map_or(Root::Off, Root::Ratio);
    let cases = [
        ("always_on", None, Sampler::Always(Root::On)),
        ("always_off", None, Sampler::Always(Root::Off)),
        ("traceidratio", Some("0.25"), Sampler::Always(ratio(0.25))),
        ("traceidratio", None, Sampler::Always(Root::On)),
        (
            "parentbased_always_on",
            None,
            Sampler::ParentBased(Root::On),
        ),
        (
            "ParentBased_Always_Off",
            None,
            Sampler::ParentBased(Root::Off),
        ),
        (
            "parentbased_traceidratio",
            Some("0"),
            Sampler::ParentBased(ratio(0.0)),
        ),
    ];
    for (name, arg, expected) in cases {
        let variables = [
            ("OTEL_TRACES_SAMPLER", name),
            ("OTEL_TRACES_SAMPLER_ARG", arg.unwrap_or_default()),
        ];
        assert_eq!(from_environment(&variables).sampler, expected, "{name}");
        let by_argument = arguments! { sampler: Some(name.into()), sampler_ratio: arg.and_then(|arg| arg.parse().ok()) };
        let overridden = [("OTEL_TRACES_SAMPLER", "unknown")];
        assert_eq!(
            configured(&by_argument, &overridden).sampler,
            expected,
            "{name}"
        );
    }
    let only_ratio = arguments! { sampler_ratio: Some(0.5) };
    assert_eq!(
        configured(&only_ratio, &[]).sampler,
        Sampler::ParentBased(ratio(0.5))
    );
    let name = [
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.1"),
    ];
    assert_eq!(
        configured(&only_ratio, &name).sampler,
        Sampler::Always(ratio(0.5))
    );
}

#[test]
fn every_limit_has_its_variable_and_its_argument() {
    let by_variable = from_environment(&[
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "2"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "3"),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "4"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "5"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "0"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "7"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "8"),
    ]);
    let by_argument = arguments! { attribute_count_limit: Some(1), event_count_limit: Some(2), link_count_limit: Some(3), event_attribute_count_limit: Some(4), link_attribute_count_limit: Some(5), attribute_value_length_limit: Some(0) };
    for limits in [
        by_variable.limits,
        configured(&by_argument, &[("OTEL_SPAN_LINK_COUNT_LIMIT", "9")]).limits,
    ] {
        let counts = [
            limits.attributes,
            limits.events,
            limits.links,
            limits.attributes_per_event,
            limits.attributes_per_link,
        ];
        assert_eq!((counts, limits.value_length), ([1, 2, 3, 4, 5], Some(0)));
    }
    let general = from_environment(&[
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "7"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "8"),
    ]);
    let limits = general.limits;
    assert_eq!(
        [
            limits.attributes,
            limits.attributes_per_event,
            limits.attributes_per_link
        ],
        [7; 3]
    );
    assert_eq!(limits.value_length, Some(8));
}

#[test]
fn the_batch_follows_its_variables_and_arguments() {
    let variables = [
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2048"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "2000"),
    ];
    let batch = from_environment(&variables).batch;
    assert_eq!(
        (batch.schedule_delay, batch.export_timeout),
        (Duration::from_millis(100), Duration::from_secs(2))
    );
    assert_eq!(
        (batch.max_queue_spans, batch.max_export_batch_size),
        (Some(2048), 64)
    );

    let arguments = arguments! { schedule_delay_ms: Some(0.0), max_queue_size: Some(10), max_queue_bytes: Some(1000), export_timeout_ms: Some(0.0) };
    let batch = configured(&arguments, &[]).batch;
    assert_eq!(
        batch.schedule_delay,
        Duration::from_millis(1),
        "zero would spin"
    );
    assert!(
        batch.export_timeout > Duration::from_secs(86_400),
        "zero is no limit"
    );
    assert_eq!(
        (batch.max_queue_spans, batch.max_queue_bytes),
        (Some(10), 1000)
    );
    assert_eq!(
        batch.max_export_batch_size, 10,
        "no more than the queue holds"
    );

    let (config, warning) = warned(&[
        ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "20"),
    ]);
    assert_eq!(config.batch.max_export_batch_size, 10);
    assert!(
        warning.starts_with("OTEL_BSP_MAX_EXPORT_BATCH_SIZE: 20 is more than"),
        "{warning}"
    );
}

#[test]
fn a_service_is_named_by_argument_attribute_and_variable_in_that_order() {
    let attributes = (
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=by%20attributes, team = a%2Cb,,k%3Dey=v%3D1=2",
    );
    let variable = ("OTEL_SERVICE_NAME", "by variable");
    let config = from_environment(&[attributes]);
    assert_eq!(attribute(&config, "service.name"), "by attributes");
    assert_eq!(attribute(&config, "team"), "a,b");
    assert_eq!(attribute(&config, "k=ey"), "v=1=2");
    assert_eq!(
        attribute(&from_environment(&[attributes, variable]), "service.name"),
        "by variable"
    );

    let mut arguments = arguments! { resource_attributes: vec![ ("service.name".into(), "by dict".into()), ("team".into(), 7_i64.into()), ], sdk_language: Some("python".into()) };
    let config = configured(&arguments, &[attributes, variable]);
    assert_eq!(attribute(&config, "service.name"), "by dict");
    assert_eq!(config.resource.get("team"), Some(&ResourceValue::Int(7)));
    assert_eq!(attribute(&config, "telemetry.sdk.language"), "python");
    arguments.service_name = Some("by name".into());
    assert_eq!(
        attribute(
            &configured(&arguments, &[attributes, variable]),
            "service.name"
        ),
        "by name"
    );
}

#[test]
fn switching_off_leaves_propagation_on() {
    for value in ["true", "True", "TRUE"] {
        let config = from_environment(&[("OTEL_SDK_DISABLED", value)]);
        assert!(config.disabled && !config.export_hint);
        assert!(config.propagators.has(Propagator::TraceContext));
    }
    let on = arguments! { disabled: Some(false) };
    assert!(!configured(&on, &[("OTEL_SDK_DISABLED", "true")]).disabled);
}

#[test]
fn the_remaining_names_are_understood() {
    let propagators = |names| from_environment(&[("OTEL_PROPAGATORS", names)]).propagators;
    assert_eq!(
        propagators("baggage, baggage").fields().collect::<Vec<_>>(),
        ["baggage"]
    );
    assert_eq!(propagators("none").fields().count(), 0);
    let names = "jaeger,XRay, b3multi,datadog,b3,tracecontext,baggage";
    let chosen = propagators(names);
    assert!(Propagator::ALL.into_iter().all(|one| chosen.has(one)));
    assert_eq!(chosen.fields().next(), Some("uber-trace-id"));

    let methods =
        from_environment(&[("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET, get,PURGE")]);
    assert_eq!(
        methods.http.known_methods,
        Some(strings(&["GET", "get", "PURGE"]))
    );

    for (name, level) in [
        ("none", None),
        ("error", Some(Level::Error)),
        ("WARN", Some(Level::Warn)),
        ("warning", Some(Level::Warn)),
        ("info", Some(Level::Info)),
        ("debug", Some(Level::Debug)),
        ("trace", Some(Level::Debug)),
        ("verbose", Some(Level::Debug)),
    ] {
        assert_eq!(
            from_environment(&[("OTEL_LOG_LEVEL", name)]).log_level,
            level,
            "{name}"
        );
        let argument = arguments! { log_level: Some(name.into()) };
        assert_eq!(
            configured(&argument, &[("OTEL_LOG_LEVEL", "loud")]).log_level,
            level,
            "{name}"
        );
    }
}

#[test]
fn a_spool_is_wanted_by_naming_its_directory() {
    assert_eq!(from_environment(&[]).batch.spool, None);
    let size_alone = [("RVH_TRACE_SPOOL_MAX_BYTES", "1000")];
    assert_eq!(from_environment(&size_alone).batch.spool, None);
    let variables = [
        ("RVH_TRACE_SPOOL_DIRECTORY", "/var/spool/shop"),
        ("RVH_TRACE_SPOOL_MAX_BYTES", "1000"),
    ];
    let spool = |directory: &str, max_bytes| {
        Some(SpoolConfig {
            directory: directory.into(),
            max_bytes,
        })
    };
    assert_eq!(
        from_environment(&variables).batch.spool,
        spool("/var/spool/shop", 1000)
    );
    let arguments = arguments! { spool_directory: Some("here".into()) };
    assert_eq!(
        configured(&arguments, &variables).batch.spool,
        spool("here", 1000)
    );
    assert_eq!(
        configured(&arguments, &[]).batch.spool,
        spool("here", SpoolConfig::DEFAULT_MAX_BYTES)
    );
}
