//! Where spans go, and how.

use std::time::Duration;

use rvh_trace::config::{Arguments, Compression, Encoding, ExporterConfig};

use crate::{ENDPOINT, configured, from_environment, only_otlp, refused, strings, warned};

#[test]
fn an_endpoint_turns_export_on() {
    for (arguments, variables) in [
        (Arguments::default(), &[ENDPOINT][..]),
        (
            arguments! { endpoint: Some("http://collector:4318".into()) },
            &[],
        ),
    ] {
        let config = configured(&arguments, variables);
        assert_eq!(
            only_otlp(&config).endpoint,
            "http://collector:4318/v1/traces"
        );
        assert!(
            matches!(config.exporters[..], [ExporterConfig::OtlpHttp(_)]) && !config.export_hint
        );
        assert_eq!(only_otlp(&config).timeout, Duration::from_secs(10));
        assert_eq!(only_otlp(&config).compression, Compression::None);
        assert_eq!(only_otlp(&config).headers, []);
        assert!(only_otlp(&config).insecure);
    }
}

#[test]
fn exporters_are_chosen_by_name() {
    let chosen = |names| from_environment(&[("OTEL_TRACES_EXPORTER", names)]);
    assert_eq!(
        only_otlp(&chosen("otlp")).endpoint,
        "http://localhost:4318/v1/traces"
    );
    assert_eq!(chosen("console").exporters, [ExporterConfig::Console]);
    assert!(matches!(
        chosen("OTLP, console,otlp").exporters[..],
        [ExporterConfig::OtlpHttp(_), ExporterConfig::Console]
    ));
    let none = chosen("none");
    assert!(none.exporters.is_empty() && !none.export_hint);

    let argument = |names: &[&str]| arguments! { exporter: Some(strings(names)) };
    let grpc = Arguments {
        protocol: Some("grpc".into()),
        ..argument(&["otlp"])
    };
    let config = configured(&grpc, &[("OTEL_TRACES_EXPORTER", "none")]);
    assert!(matches!(
        config.exporters[..],
        [ExporterConfig::OtlpGrpc(_)]
    ));
    assert_eq!(only_otlp(&config).endpoint, "http://localhost:4317");
    let none = configured(&argument(&["none"]), &[ENDPOINT]);
    assert!(none.exporters.is_empty() && !none.export_hint);
}

#[test]
fn http_endpoints_get_the_path_of_traces_where_it_belongs() {
    let cases = [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://c:4318",
            "http://c:4318/v1/traces",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https://c/base/",
            "https://c/base/v1/traces",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https://c/?key=1",
            "https://c/v1/traces?key=1",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://c/v1/traces",
            "http://c/v1/traces/v1/traces",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://[::1]:9/in",
            "http://[::1]:9/in",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://c:9",
            "http://c:9/",
        ),
    ];
    for (name, value, expected) in cases {
        assert_eq!(
            only_otlp(&from_environment(&[(name, value)])).endpoint,
            expected,
            "{name}={value}"
        );
    }
    let cases = [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/base", "http://c:4318/base/v1/traces"),
        ("https://c/v1/traces", "https://c/v1/traces"),
        ("https://c/base/v1/traces/", "https://c/base/v1/traces/"),
    ];
    for (value, expected) in cases {
        let arguments = arguments! { endpoint: Some(value.into()) };
        let config = configured(
            &arguments,
            &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other")],
        );
        assert_eq!(only_otlp(&config).endpoint, expected, "{value}");
        assert_eq!(
            only_otlp(&config).insecure,
            value.starts_with("http:"),
            "{value}"
        );
    }
}

#[test]
fn grpc_endpoints_may_lack_a_scheme() {
    let cases = [
        ("collector:4317", false, "https://collector:4317"),
        ("collector:4317", true, "http://collector:4317"),
        ("[::1]:4317", true, "http://[::1]:4317"),
        ("https://collector:4317", true, "https://collector:4317"),
        ("http://collector:4317", false, "http://collector:4317"),
        (
            "http://collector:4317/v1/traces",
            false,
            "http://collector:4317",
        ),
    ];
    for (value, insecure, expected) in cases {
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", value),
            (
                "OTEL_EXPORTER_OTLP_INSECURE",
                if insecure { "TRUE" } else { "false" },
            ),
        ];
        let config = from_environment(&variables);
        assert_eq!(only_otlp(&config).endpoint, expected, "{value}");
        assert_eq!(
            only_otlp(&config).insecure,
            expected.starts_with("http:"),
            "{value}"
        );
    }
}

#[test]
fn a_malformed_endpoint_in_the_environment_is_as_good_as_none() {
    for value in [
        "collector:4318",
        "http://",
        "ftp://collector",
        "http://collector:port",
        "/v1/traces",
    ] {
        let (config, warning) = warned(&[("OTEL_EXPORTER_OTLP_ENDPOINT", value)]);
        assert!(config.exporters.is_empty() && config.export_hint, "{value}");
        assert!(
            warning.contains(value) && warning.ends_with("; using no endpoint"),
            "{warning}"
        );

        let (config, warning) = warned(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", value),
            ("OTEL_TRACES_EXPORTER", "otlp"),
        ]);
        assert_eq!(
            only_otlp(&config).endpoint,
            "http://localhost:4318/v1/traces"
        );
        assert!(
            warning.ends_with("; using http://localhost:4318/v1/traces"),
            "{warning}"
        );
    }
    let (_, warning) = warned(&[(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://user:secret@collector:port",
    )]);
    assert!(
        !warning.contains("secret") && warning.contains("***@collector"),
        "{warning}"
    );
}

#[test]
fn headers_are_decoded_and_never_shown() {
    let headers = "api-key=s%20ecret%3D, Authorization=Basic dTpw== ,x=";
    let config = from_environment(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", headers)]);
    let expected = [
        ("api-key", "s ecret="),
        ("authorization", "Basic dTpw=="),
        ("x", ""),
    ];
    assert_eq!(
        only_otlp(&config).headers,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert!(!format!("{config:?}").contains("ecret"), "{config:?}");

    let bad = "good=1,noequals-secret,b ad=secret,c=%zzsecret,d=\u{1}secret";
    let (config, warning) = warned(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", bad)]);
    assert_eq!(
        only_otlp(&config).headers,
        [("good".to_owned(), "1".to_owned())]
    );
    assert!(
        warning.contains("OTEL_EXPORTER_OTLP_TRACES_HEADERS: member 2, 3, 4, 5 is"),
        "{warning}"
    );
    assert!(!warning.contains("secret"), "{warning}");

    let argument = |name: &str, value: &str| arguments! { headers: Some(vec![(name.to_owned(), value.to_owned())]) };
    assert_eq!(
        refused(&argument("b ad", "secret")),
        "headers: \"b ad\" is not an HTTP header name"
    );
    assert_eq!(
        refused(&argument("key", "secret\n")),
        "headers: \"key\" has a value with characters that HTTP does not allow"
    );
    let config = configured(
        &argument("Key", "mine"),
        &[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", headers)],
    );
    assert_eq!(
        only_otlp(&config).headers,
        [("key".to_owned(), "mine".to_owned())]
    );
}

#[test]
fn certificates_must_exist_and_a_client_needs_both_halves() {
    let here = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into());
    let (config, warning) = warned(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such.pem")]);
    assert_eq!(only_otlp(&config).certificate, None);
    assert!(
        warning.contains("\"/no/such.pem\" is not a file; using the authorities of the system"),
        "{warning}"
    );
    let missing = arguments! { certificate: Some("/no/such.pem".into()) };
    assert_eq!(
        refused(&missing),
        "certificate: \"/no/such.pem\" is not a file"
    );

    let half = arguments! { client_key: here.clone() };
    assert_eq!(
        refused(&half),
        "client_key: of no use without client_certificate"
    );
    let file = here
        .as_ref()
        .and_then(|path: &std::path::PathBuf| path.to_str())
        .unwrap_or_default();
    let (config, warning) = warned(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", file)]);
    assert_eq!(
        (
            &only_otlp(&config).client_certificate,
            &only_otlp(&config).client_key
        ),
        (&None, &None)
    );
    assert!(
        warning.contains("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: of no use without a client_key"),
        "{warning}"
    );

    let both = arguments! { client_certificate: here.clone(), client_key: here.clone() };
    let config = configured(&both, &[ENDPOINT]);
    assert_eq!(
        (
            &only_otlp(&config).client_certificate,
            &only_otlp(&config).client_key
        ),
        (&here, &here)
    );
}

#[test]
fn json_is_an_encoding_of_the_http_transport() {
    for (variables, expected) in [
        (vec![ENDPOINT], Encoding::Protobuf),
        (
            vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "HTTP/JSON")],
            Encoding::Json,
        ),
        (
            vec![
                ENDPOINT,
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
                ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ],
            Encoding::Protobuf,
        ),
    ] {
        let config = from_environment(&variables);
        assert!(matches!(
            config.exporters[..],
            [ExporterConfig::OtlpHttp(_)]
        ));
        assert_eq!(only_otlp(&config).encoding, expected, "{variables:?}");
        assert_eq!(
            only_otlp(&config).endpoint,
            "http://collector:4318/v1/traces"
        );
    }
}

#[test]
fn a_unix_socket_is_an_endpoint_of_every_protocol_and_signal() {
    for protocol in ["http/protobuf", "http/json", "grpc"] {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "unix:///run/otel.sock"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "unix:/run/otel.sock"),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "unix:///run/otel.sock",
            ),
        ] {
            let config =
                from_environment(&[(name, value), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
            assert_eq!(only_otlp(&config).endpoint, "unix:///run/otel.sock");
            assert!(only_otlp(&config).insecure);
        }
    }
}
