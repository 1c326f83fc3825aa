#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::net::TcpListener as StdTcpListener;

use http::HeaderMap;
use tokio::net::TcpListener;

use super::super::response::tests::{partial, rpc_status};
use super::super::testing::{
    Certificates, Socket, config, deaf_port, error, export, grpc_collector, runtime,
};
use super::*;

fn exporter(config: &OtlpConfig) -> OtlpGrpcExporter {
    OtlpGrpcExporter::new(config).unwrap()
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).unwrap();
    trailers
}

/// Makes one call to a collector that answers so; what came of it and what the collector heard.
fn call(
    message: Option<&[u8]>,
    status: &Status,
    change: impl FnOnce(&mut OtlpConfig),
) -> (Outcome, http::request::Parts, Bytes) {
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = config(format!("http://{}", listener.local_addr().unwrap()));
        change(&mut config);
        // Dropped with the attempt: the collector serves until its client has gone.
        let attempt = async {
            let mut exporter = exporter(&config);
            exporter.export(Bytes::from_static(b"spans"), 1).await
        };
        let collector = async {
            let (stream, _) = listener.accept().await.unwrap();
            grpc_collector(stream, message, trailers(status)).await
        };
        let (outcome, (head, body)) = tokio::join!(attempt, collector);
        (outcome, head, body)
    })
}

#[test]
fn the_bytes_go_to_the_trace_service_with_the_configured_metadata() {
    let (outcome, head, body) = call(Some(b""), &Status::ok(""), |config| {
        config.headers = vec![("X-Tenant".into(), "shop".into())];
    });
    assert_eq!(outcome, Outcome::DELIVERED);
    assert_eq!(
        head.uri.path(),
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    );
    assert_eq!(head.headers["x-tenant"], "shop");
    assert_eq!(head.headers["content-type"], "application/grpc");
    let user_agent = head.headers["user-agent"].to_str().unwrap();
    assert!(
        user_agent.starts_with("OTel-OTLP-Exporter-rvh_trace/"),
        "{user_agent}"
    );
    assert_eq!(body, [&[0, 0, 0, 0, 5][..], b"spans"].concat());
}

#[test]
fn gzip_is_declared_and_unpacks_to_the_request() {
    let (outcome, head, body) = call(Some(b""), &Status::ok(""), |config| {
        config.compression = Compression::Gzip;
    });
    assert_eq!(outcome, Outcome::DELIVERED);
    assert_eq!(head.headers["grpc-encoding"], "gzip");
    assert_eq!(body[0], 1, "the compressed flag");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&body[5..])
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, b"spans");
}

#[test]
fn partial_success_is_reported() {
    let (outcome, ..) = call(Some(&partial(2, "no room")), &Status::ok(""), |_| ());
    let message = Some("no room".to_owned());
    assert_eq!(
        outcome,
        Outcome::Delivered {
            rejected: 2,
            message
        }
    );
}

#[test]
fn a_status_and_its_retry_info_cross_the_wire() {
    let delay = Duration::from_millis(1500);
    let details = rpc_status("slow down", Some(delay));
    let status = Status::with_details(Code::ResourceExhausted, "slow down", details.into());
    let (outcome, ..) = call(None, &status, |_| ());
    let Outcome::Retryable { after, error } = outcome else {
        unreachable!("{outcome:?}")
    };
    assert_eq!(after, Some(delay));
    assert!(
        error.starts_with("ResourceExhausted from http://127.0.0.1:")
            && error.ends_with(": slow down"),
        "{error}"
    );
}

/// How one status counts.
fn kind(code: Code, message: &str, retry: Option<Duration>) -> &'static str {
    let details = rpc_status(message, retry);
    let status = Status::with_details(code, message, details.into());
    let endpoint = Endpoint::parse("http://localhost:4317", Protocol::Grpc).unwrap();
    match failed(&status, &endpoint, Signal::Traces) {
        Outcome::Delivered { .. } => "delivered",
        Outcome::Retryable { .. } => "retryable",
        Outcome::Rejected { .. } => "rejected",
        Outcome::Unsupported { .. } => "unsupported",
        Outcome::TooLarge { .. } => "too large",
        Outcome::Spooled { .. } | Outcome::SpoolFull { .. } => "spooled",
    }
}

#[test]
fn codes_count_as_the_table_of_the_specification_says() {
    let retryable = [
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unavailable,
        Code::DataLoss,
    ];
    for code in 1..=16 {
        let code = Code::from_i32(code);
        let expected = if retryable.contains(&code) {
            "retryable"
        } else {
            "rejected"
        };
        assert_eq!(kind(code, "for a reason", None), expected, "{code:?}");
    }
    let delay = Some(Duration::from_secs(1));
    assert_eq!(
        kind(Code::ResourceExhausted, "slow down", delay),
        "retryable"
    );
    assert_eq!(kind(Code::PermissionDenied, "never", delay), "rejected");
}

#[test]
fn size_limits_are_recognised_in_the_words_of_every_implementation() {
    for (code, message) in [
        (
            Code::ResourceExhausted,
            "grpc: received message larger than max (5000000 vs. 4194304)",
        ),
        (
            Code::ResourceExhausted,
            "gRPC message exceeds maximum size 4194304: 5000000",
        ),
        (
            Code::ResourceExhausted,
            "Received message exceeds the maximum configured message size.",
        ),
        (
            Code::OutOfRange,
            "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes",
        ),
        (
            Code::Unknown,
            "grpc-status header missing, mapped from HTTP status code 413",
        ),
    ] {
        assert_eq!(kind(code, message, None), "too large", "{message}");
    }
    assert_eq!(
        kind(Code::ResourceExhausted, "quota of spans used up", None),
        "rejected"
    );
    let delay = Some(Duration::from_secs(1));
    assert_eq!(
        kind(Code::ResourceExhausted, "message too large for now", delay),
        "retryable"
    );
}

#[test]
fn a_refused_connection_asks_for_the_collector() {
    let port = deaf_port();
    let outcome = export(
        &mut exporter(&config(format!("http://127.0.0.1:{port}"))),
        b"spans",
    );
    let error = format!(
        "connection refused: is a collector listening on http://127.0.0.1:{port}? Set \
         OTEL_EXPORTER_OTLP_ENDPOINT to where it is"
    );
    assert_eq!(outcome, Outcome::Retryable { after: None, error });
}

#[test]
fn a_name_that_does_not_resolve_is_called_by_name() {
    // Longer than a label may be: refused by every resolver without asking the network.
    let host = "c".repeat(64);
    let outcome = export(
        &mut exporter(&config(format!("http://{host}:4317"))),
        b"spans",
    );
    assert!(matches!(outcome, Outcome::Retryable { .. }));
    assert!(
        error(&outcome).starts_with(&format!("{host} cannot be resolved")),
        "{outcome:?}"
    );
}

#[test]
fn a_collector_that_comes_up_later_is_found_by_the_same_exporter() {
    runtime().block_on(async {
        let port = deaf_port();
        let mut exporter = exporter(&config(format!("http://127.0.0.1:{port}")));
        let refused = exporter.export(Bytes::from_static(b"spans"), 1).await;
        assert!(
            error(&refused).starts_with("connection refused"),
            "{refused:?}"
        );
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let attempt = async {
            let outcome = exporter.export(Bytes::from_static(b"spans"), 1).await;
            drop(exporter);
            outcome
        };
        let collector = async {
            let (stream, _) = listener.accept().await.unwrap();
            grpc_collector(stream, Some(b""), trailers(&Status::ok(""))).await
        };
        assert_eq!(tokio::join!(attempt, collector).0, Outcome::DELIVERED);
    });
}

#[test]
fn silence_is_a_timeout_and_costs_the_connection() {
    let listener = StdTcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(format!("http://{}", listener.local_addr().unwrap()));
    config.timeout = Duration::from_millis(30);
    let mut exporter = exporter(&config);
    let outcome = export(&mut exporter, b"spans");
    assert!(matches!(outcome, Outcome::Retryable { after: None, .. }));
    assert!(
        error(&outcome).contains("within 30 ms (OTEL_EXPORTER_OTLP_TIMEOUT)"),
        "{outcome:?}"
    );
    assert!(exporter.channel.is_none());
}

#[test]
fn a_connection_that_breaks_under_the_call_is_retried() {
    let listener = StdTcpListener::bind("127.0.0.1:0").unwrap();
    let mut exporter = exporter(&config(format!(
        "http://{}",
        listener.local_addr().unwrap()
    )));
    let collector = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 24]).unwrap();
    });
    let outcome = export(&mut exporter, b"spans");
    collector.join().unwrap();
    assert!(
        matches!(outcome, Outcome::Retryable { after: None, .. }),
        "{outcome:?}"
    );
    assert!(
        error(&outcome).starts_with("no answer from http://127.0.0.1:"),
        "{outcome:?}"
    );
}

#[test]
fn tls_needs_the_authority_and_offers_the_client_certificate() {
    let certificates = Certificates::new();
    let over_tls = |mutual, change: &dyn Fn(&mut OtlpConfig)| {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut config = config(format!(
                "https://localhost:{}",
                listener.local_addr().unwrap().port()
            ));
            change(&mut config);
            let acceptor = certificates.acceptor(mutual, b"h2");
            tokio::spawn(async move {
                let stream = acceptor.accept(listener.accept().await.unwrap().0).await;
                if let Ok(stream) = stream {
                    grpc_collector(stream, Some(b""), trailers(&Status::ok(""))).await;
                }
            });
            exporter(&config)
                .export(Bytes::from_static(b"spans"), 1)
                .await
        })
    };
    let outcome = over_tls(true, &|config| {
        config.certificate = Some(certificates.authority.clone());
        config.client_certificate = Some(certificates.client.clone());
        config.client_key = Some(certificates.client_key.clone());
    });
    assert_eq!(outcome, Outcome::DELIVERED);
    let outcome = over_tls(false, &|config| {
        config.certificate = Some(certificates.client.clone());
    });
    assert!(
        error(&outcome).contains("set OTEL_EXPORTER_OTLP_CERTIFICATE"),
        "{outcome:?}"
    );
}

#[test]
fn metrics_go_to_the_metrics_service_which_may_not_be_there() {
    let to_metrics = |config: &mut OtlpConfig| config.signal = Signal::Metrics;
    let (outcome, head, _) = call(Some(b""), &Status::ok(""), to_metrics);
    assert_eq!(outcome, Outcome::DELIVERED);
    assert_eq!(
        head.uri.path(),
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
    );
    let (outcome, ..) = call(None, &Status::unimplemented("unknown service"), to_metrics);
    assert!(
        matches!(outcome, Outcome::Unsupported { .. }),
        "{outcome:?}"
    );
    assert!(
        error(&outcome).contains("OTEL_METRICS_EXPORTER=none"),
        "{outcome:?}"
    );
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_called() {
    let socket = Socket::new();
    runtime().block_on(async {
        let listener = tokio::net::UnixListener::bind(&socket.0).unwrap();
        let config = config(socket.endpoint());
        let attempt = async {
            let mut exporter = exporter(&config);
            exporter.export(Bytes::from_static(b"spans"), 1).await
        };
        let collector = async {
            let (stream, _) = listener.accept().await.unwrap();
            grpc_collector(stream, Some(b""), trailers(&Status::ok(""))).await
        };
        let (outcome, (_, body)) = tokio::join!(attempt, collector);
        assert_eq!(outcome, Outcome::DELIVERED);
        assert_eq!(&body[5..], b"spans");
    });
}

/// Reads up to the empty line that ends the head of a request.
async fn head(stream: &mut tokio::net::TcpStream) -> String {
    use tokio::io::AsyncReadExt;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn a_proxy_is_asked_for_a_tunnel_with_its_credentials() {
    use tokio::io::AsyncWriteExt;
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://user:secret@{}", listener.local_addr().unwrap());
        let proxies = Matcher::builder().http(proxy).build();
        // A name that only a proxy could resolve.
        let config = config("http://collector.invalid:4317");
        let attempt = async {
            let mut exporter = OtlpGrpcExporter::through(&config, &proxies).unwrap();
            exporter.export(Bytes::from_static(b"spans"), 1).await
        };
        let collector = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let call = grpc_collector(stream, Some(b""), trailers(&Status::ok(""))).await;
            (head, call)
        };
        let (outcome, (head, (_, body))) = tokio::join!(attempt, collector);
        assert_eq!(outcome, Outcome::DELIVERED);
        assert!(
            head.starts_with("CONNECT collector.invalid:4317 HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(
            head.to_ascii_lowercase()
                .contains("proxy-authorization: basic dxnlcjpzzwnyzxq="),
            "{head}"
        );
        assert_eq!(&body[5..], b"spans");
    });
}

#[test]
fn a_proxy_that_refuses_is_an_outage() {
    use tokio::io::AsyncWriteExt;
    let outcome = runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let proxies = Matcher::builder().http(proxy).build();
        let config = config("http://collector.invalid:4317");
        let mut exporter = OtlpGrpcExporter::through(&config, &proxies).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
            stream.write_all(refusal).await.unwrap();
        });
        exporter.export(Bytes::from_static(b"spans"), 1).await
    });
    assert!(matches!(outcome, Outcome::Retryable { .. }), "{outcome:?}");
    assert!(error(&outcome).contains("proxy"), "{outcome:?}");
}

#[test]
fn many_exports_share_one_connection() {
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = config(format!("http://{}", listener.local_addr().unwrap()));
        let attempts = async {
            let mut exporter = exporter(&config);
            for _ in 0..10 {
                let outcome = exporter.export(Bytes::from_static(b"spans"), 1).await;
                assert_eq!(outcome, Outcome::DELIVERED);
            }
        };
        let collector = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut calls = 0;
            while let Some(call) = connection.accept().await {
                // Broken off when the exporter goes, which may be mid-frame.
                let Ok((_, mut respond)) = call else { break };
                calls += 1;
                let response = http::Response::builder().header("content-type", "application/grpc");
                let mut answer = respond
                    .send_response(response.body(()).unwrap(), false)
                    .unwrap();
                answer
                    .send_data(Bytes::from_static(&[0; 5]), false)
                    .unwrap();
                answer.send_trailers(trailers(&Status::ok(""))).unwrap();
            }
            calls
        };
        let ((), calls) = tokio::join!(attempts, collector);
        assert_eq!(calls, 10, "all came on the connection that was accepted");
    });
}
