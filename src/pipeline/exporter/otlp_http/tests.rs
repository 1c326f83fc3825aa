#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::net::TcpListener;

use super::super::response::tests::{partial, rpc_status};
use super::super::testing::{
    Socket, config, deaf_port, error, export, http_collector, http_collector_on_socket,
    http_response, runtime,
};
use super::*;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message as _;

fn exporter(config: &OtlpConfig) -> OtlpHttpExporter {
    OtlpHttpExporter::new(config).unwrap()
}

fn at(port: u16) -> OtlpConfig {
    config(format!("http://127.0.0.1:{port}/v1/traces"))
}

/// The outcome of a request that is answered with this.
fn answered(response: Vec<u8>) -> (Outcome, String) {
    let (port, _heard) = http_collector(vec![response]);
    let outcome = export(&mut exporter(&at(port)), b"spans");
    (outcome, format!("http://127.0.0.1:{port}/v1/traces"))
}

#[test]
fn the_bytes_are_posted_as_they_are_with_the_configured_headers_on_one_connection() {
    let ok = http_response("200 OK", &[], b"");
    let (port, heard) = http_collector(vec![ok.clone(), ok]);
    let mut config = at(port);
    config.headers = vec![
        ("X-Tenant".into(), "shop".into()),
        ("content-type".into(), "text/plain".into()),
    ];
    // Made outside any runtime, as `init_tracing` does.
    let mut exporter = exporter(&config);
    assert_eq!(
        exporter.name(),
        format!("otlp http http://127.0.0.1:{port}/v1/traces")
    );
    runtime().block_on(async {
        for body in [&b"first\x00\xff"[..], b"second"] {
            assert_eq!(
                exporter.export(Bytes::from_static(body), 1).await,
                Outcome::DELIVERED
            );
        }
    });
    let (first, second) = (heard.recv().unwrap(), heard.recv().unwrap());
    assert_eq!(
        (first.body, second.body),
        (b"first\x00\xff".to_vec(), b"second".to_vec())
    );
    assert_eq!((first.connection, second.connection), (0, 0));
    assert!(
        first.head.starts_with("POST /v1/traces HTTP/1.1\r\n"),
        "{}",
        first.head
    );
    let user_agent = format!(
        "user-agent: OTel-OTLP-Exporter-rvh_trace/{}",
        env!("CARGO_PKG_VERSION")
    );
    for line in [
        "content-type: application/x-protobuf",
        "x-tenant: shop",
        &user_agent,
    ] {
        assert_eq!(
            first.head.matches(&format!("\r\n{line}\r\n")).count(),
            1,
            "{line} in {}",
            first.head
        );
    }
    assert_eq!(
        first.head.matches("content-").count(),
        2,
        "only type and length: {}",
        first.head
    );
}

#[test]
fn gzip_is_declared_and_unpacks_to_the_request() {
    let (port, heard) = http_collector(vec![http_response("200 OK", &[], b"")]);
    let mut config = at(port);
    config.compression = Compression::Gzip;
    let request = b"spans ".repeat(1000);
    assert_eq!(export(&mut exporter(&config), &request), Outcome::DELIVERED);
    let heard = heard.recv().unwrap();
    assert!(
        heard.head.contains("\r\ncontent-encoding: gzip\r\n"),
        "{}",
        heard.head
    );
    assert!(heard.body.len() < request.len() / 10);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&heard.body[..])
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, request);
}

#[test]
fn partial_success_is_reported() {
    let (outcome, _) = answered(http_response("200 OK", &[], &partial(3, "too old")));
    let message = Some("too old".to_owned());
    assert_eq!(
        outcome,
        Outcome::Delivered {
            rejected: 3,
            message
        }
    );
}

#[test]
fn any_success_counts_as_delivered_whatever_its_body() {
    for response in [
        http_response("202 Accepted", &[], b"<html>thanks</html>"),
        http_response("204 No Content", &[], b""),
        http_response("200 OK", &[], &vec![0; MAX_RESPONSE + 1]),
        // Breaks off.
        http_response("200 OK", &[], b"12345678")[..40].to_vec(),
    ] {
        assert_eq!(answered(response).0, Outcome::DELIVERED);
    }
}

#[test]
fn overload_is_retried_after_the_time_the_collector_asks_for() {
    for status in [
        "429 Too Many Requests",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
    ] {
        let (outcome, url) = answered(http_response(status, &["Retry-After: 7"], b""));
        let error = format!("{status} from {url}");
        let after = Some(Duration::from_secs(7));
        assert_eq!(outcome, Outcome::Retryable { after, error });
    }
    let (outcome, _) = answered(http_response(
        "503 Service Unavailable",
        &["Retry-After: soon"],
        b"",
    ));
    assert!(
        matches!(outcome, Outcome::Retryable { after: None, .. }),
        "{outcome:?}"
    );
}

#[test]
fn too_large_is_told_from_other_refusals() {
    let (outcome, url) = answered(http_response(
        "413 Payload Too Large",
        &[],
        &rpc_status("over 4 MiB", None),
    ));
    let error = format!("413 Payload Too Large from {url}: over 4 MiB");
    assert_eq!(outcome, Outcome::TooLarge { error });
}

#[test]
fn a_refusal_says_what_the_collector_said_and_what_to_change() {
    let refused = |status, headers: &[&str], body: &[u8], expected: &[&str]| {
        let (outcome, _) = answered(http_response(status, headers, body));
        let Outcome::Rejected { error } = outcome else {
            unreachable!("{status}: {outcome:?}")
        };
        for text in expected {
            assert!(error.contains(text), "{text} in {error}");
        }
    };
    refused(
        "400 Bad Request",
        &[],
        &rpc_status("no trace id", None),
        &["400 Bad Request", ": no trace id"],
    );
    refused(
        "401 Unauthorized",
        &[],
        b"who?",
        &[": who?", "OTEL_EXPORTER_OTLP_HEADERS"],
    );
    refused(
        "404 Not Found",
        &[],
        b"404 page not found",
        &[": 404 page not found", "/v1/traces"],
    );
    refused(
        "301 Moved Permanently",
        &["Location: https://b.example/"],
        b"",
        &["https://b.example/", "_ENDPOINT"],
    );
    refused(
        "500 Internal Server Error",
        &[],
        b"",
        &["500 Internal Server Error"],
    );
}

#[test]
fn an_endless_answer_is_not_read_to_its_end() {
    let refused = |length| {
        let body = vec![b'x'; length];
        answered(http_response("500 Internal Server Error", &[], &body))
    };
    let (outcome, url) = refused(MAX_RESPONSE);
    assert!(error(&outcome).starts_with(&format!("500 Internal Server Error from {url}: xxx")));
    let (outcome, url) = refused(MAX_RESPONSE + 1);
    let error = format!("500 Internal Server Error from {url}");
    assert_eq!(outcome, Outcome::Rejected { error });
}

#[test]
fn a_refused_connection_asks_for_the_collector() {
    let port = deaf_port();
    let outcome = export(&mut exporter(&at(port)), b"spans");
    let error = format!(
        "connection refused: is a collector listening on http://127.0.0.1:{port}/v1/traces? Set \
         OTEL_EXPORTER_OTLP_ENDPOINT to where it is"
    );
    assert_eq!(outcome, Outcome::Retryable { after: None, error });
}

#[test]
fn silence_is_a_timeout_and_names_its_setting() {
    // Accepted by the kernel, answered by nobody.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = at(listener.local_addr().unwrap().port());
    config.timeout = Duration::from_millis(30);
    let outcome = export(&mut exporter(&config), b"spans");
    assert!(matches!(outcome, Outcome::Retryable { after: None, .. }));
    let expected = "within 30 ms (OTEL_EXPORTER_OTLP_TIMEOUT)";
    assert!(error(&outcome).contains(expected), "{outcome:?}");
}

#[test]
fn an_answer_that_is_not_http_is_retried_and_keeps_secrets() {
    let (port, _heard) = http_collector(vec![
        b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\r\n\r\n".to_vec(),
    ]);
    let mut exporter = exporter(&config(format!(
        "http://user:secret@127.0.0.1:{port}/?key=secret"
    )));
    assert!(!exporter.name().contains("secret"));
    let outcome = export(&mut exporter, b"spans");
    assert!(
        matches!(outcome, Outcome::Retryable { after: None, .. }),
        "{outcome:?}"
    );
    assert!(
        error(&outcome).starts_with(&format!("no answer from http://127.0.0.1:{port}: ")),
        "{outcome:?}"
    );
    assert!(!error(&outcome).contains("secret"), "{outcome:?}");
}

#[test]
fn a_receiver_of_traces_alone_does_not_support_metrics() {
    for (status, is_unsupported) in [
        ("404 Not Found", true),
        ("405 Method Not Allowed", true),
        ("501 Not Implemented", true),
        ("400 Bad Request", false),
        ("403 Forbidden", false),
    ] {
        let (port, heard) = http_collector(vec![http_response(status, &[], b"")]);
        let metrics = OtlpConfig {
            signal: Signal::Metrics,
            ..config(format!("http://127.0.0.1:{port}/v1/metrics"))
        };
        let outcome = export(&mut exporter(&metrics), b"metrics");
        assert_eq!(
            matches!(outcome, Outcome::Unsupported { .. }),
            is_unsupported,
            "{outcome:?}"
        );
        let advises = error(&outcome).contains("OTEL_METRICS_EXPORTER=none");
        assert_eq!(advises, is_unsupported, "{outcome:?}");
        assert!(
            heard.recv().unwrap().head.starts_with("POST /v1/metrics "),
            "{status}"
        );
    }
}

#[test]
fn json_is_declared_and_its_answers_are_read() {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans::default()],
    };
    let partial = br#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}"#;
    let (port, heard) = http_collector(vec![
        http_response("200 OK", &["content-type: application/json"], partial),
        http_response(
            "400 Bad Request",
            &[],
            br#"{"code":3,"message":"no such tenant"}"#,
        ),
        http_response("200 OK", &[], b""),
    ]);
    let mut config = at(port);
    config.encoding = Encoding::Json;
    config.compression = Compression::Gzip;
    let mut exporter = exporter(&config);
    assert_eq!(
        export(&mut exporter, &request.encode_to_vec()),
        Outcome::Delivered {
            rejected: 2,
            message: Some("too old".into())
        }
    );
    let first = heard.recv().unwrap();
    assert!(
        first
            .head
            .contains("\r\ncontent-type: application/json\r\n"),
        "{}",
        first.head
    );
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&first.body[..])
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, br#"{"resourceSpans":[{}]}"#);
    let refused = export(&mut exporter, b"");
    assert!(error(&refused).contains(": no such tenant"), "{refused:?}");
    assert_eq!(export(&mut exporter, b""), Outcome::DELIVERED);
    let unwritable = export(&mut exporter, b"rubbish");
    assert!(
        matches!(unwritable, Outcome::Rejected { .. }),
        "{unwritable:?}"
    );
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_posted_to_with_the_path_of_the_signal() {
    let socket = Socket::new();
    let heard = http_collector_on_socket(&socket, http_response("200 OK", &[], b""));
    let config = config(socket.endpoint());
    let mut exporter = exporter(&config);
    assert_eq!(exporter.name(), format!("otlp http {}", socket.endpoint()));
    assert_eq!(export(&mut exporter, b"spans"), Outcome::DELIVERED);
    let heard = heard.recv().unwrap();
    assert!(
        heard.head.starts_with("POST /v1/traces HTTP/1.1\r\n"),
        "{}",
        heard.head
    );
    assert_eq!(heard.body, b"spans");
}

#[cfg(unix)]
#[test]
fn a_socket_that_is_not_there_is_named() {
    let socket = Socket::new();
    let mut exporter = exporter(&config(socket.endpoint()));
    let outcome = export(&mut exporter, b"spans");
    assert!(
        error(&outcome).starts_with(&format!("{} does not exist", socket.endpoint())),
        "{outcome:?}"
    );
}
