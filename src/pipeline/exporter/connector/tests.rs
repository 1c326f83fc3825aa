//! Whole exports over every way, against servers on real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::super::otlp_http::OtlpHttpExporter;
use super::super::testing::{Certificates, config, http_response, runtime};
use super::super::{Exporter as _, Outcome};
use crate::config::OtlpConfig;

/// Reads one head, up to its empty line, and a body of five bytes where one is announced.
async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(bytes).unwrap();
    if head.contains("content-length: 5\r\n") {
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"spans");
    }
    head
}

async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let head = hear(stream).await;
    let response = http_response("200 OK", &[], b"");
    stream.write_all(&response).await.unwrap();
    stream.flush().await.unwrap();
    head
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn export(config: &OtlpConfig, proxies: &Matcher) -> Outcome {
    let mut exporter = OtlpHttpExporter::through(config, proxies).unwrap();
    exporter.export(Bytes::from_static(b"spans"), 1).await
}

fn trusting(certificates: &Certificates, endpoint: String) -> OtlpConfig {
    OtlpConfig {
        certificate: Some(certificates.authority.clone()),
        ..config(endpoint)
    }
}

#[test]
fn a_tunnel_is_opened_with_the_proxy_s_credentials_and_tls_ends_behind_it() {
    let certificates = Certificates::new();
    runtime().block_on(async {
        let ((collector, collector_port), (proxy, proxy_port)) = (listen().await, listen().await);
        let tls = certificates.acceptor(false, b"http/1.1");
        let config = trusting(
            &certificates,
            format!("https://collector.invalid:{collector_port}/v1/traces"),
        );
        let proxies = Matcher::builder()
            .https(format!("http://user:secret@127.0.0.1:{proxy_port}"))
            .build();
        let passing = async {
            let (mut near, _) = proxy.accept().await.unwrap();
            let head = hear(&mut near).await;
            near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await
                .unwrap();
            let mut far = TcpStream::connect(("127.0.0.1", collector_port))
                .await
                .unwrap();
            // Ends with the exporter, which drops its connection.
            let _ = copy_bidirectional(&mut near, &mut far).await;
            head
        };
        let collecting = async {
            let (stream, _) = collector.accept().await.unwrap();
            answer(&mut tls.accept(stream).await.unwrap()).await
        };
        let (outcome, connect, head) = tokio::join!(export(&config, &proxies), passing, collecting);
        assert_eq!(outcome, Outcome::DELIVERED);
        assert!(
            connect.starts_with(&format!(
                "CONNECT collector.invalid:{collector_port} HTTP/1.1\r\n"
            )),
            "{connect}"
        );
        let credentials = "\r\nproxy-authorization: basic dxnlcjpzzwnyzxq=\r\n";
        assert!(connect.to_lowercase().contains(credentials), "{connect}");
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert!(!head.contains("proxy-authorization"), "{head}");
    });
}

#[test]
fn a_proxy_that_speaks_tls_is_trusted_by_the_same_certificates_and_passes_on_a_whole_url() {
    let certificates = Certificates::new();
    runtime().block_on(async {
        let (proxy, port) = listen().await;
        let tls = certificates.acceptor(false, b"http/1.1");
        let config = trusting(&certificates, "http://collector.invalid/v1/traces".into());
        let proxies = Matcher::builder()
            .http(format!("https://user:secret@localhost:{port}"))
            .build();
        let passing = async {
            let (stream, _) = proxy.accept().await.unwrap();
            answer(&mut tls.accept(stream).await.unwrap()).await
        };
        let (outcome, head) = tokio::join!(export(&config, &proxies), passing);
        assert_eq!(outcome, Outcome::DELIVERED);
        assert!(
            head.starts_with("POST http://collector.invalid/v1/traces HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(
            head.contains("\r\nproxy-authorization: Basic dXNlcjpzZWNyZXQ=\r\n"),
            "{head}"
        );
    });
}

#[test]
fn user_and_password_of_the_endpoint_are_basic_credentials_unless_a_header_says_who_we_are() {
    let configured = [("Authorization".to_owned(), "Bearer token".to_owned())];
    for (headers, expected) in [
        (&[][..], "Basic dXNlcjpwQHNz"),
        (&configured, "Bearer token"),
    ] {
        runtime().block_on(async {
            let (collector, port) = listen().await;
            let mut config = config(format!(
                "http://user:p%40ss@127.0.0.1:{port}/v1/traces?tenant=shop#here"
            ));
            config.headers = headers.to_vec();
            let collecting = async { answer(&mut collector.accept().await.unwrap().0).await };
            let proxies = Matcher::builder().build();
            let (outcome, head) = tokio::join!(export(&config, &proxies), collecting);
            assert_eq!(outcome, Outcome::DELIVERED);
            assert!(
                head.starts_with("POST /v1/traces?tenant=shop HTTP/1.1\r\n"),
                "{head}"
            );
            assert_eq!(
                head.matches(&format!("\r\nauthorization: {expected}\r\n"))
                    .count(),
                1,
                "{head}"
            );
            assert_eq!(head.matches("authorization").count(), 1, "{head}");
            assert!(
                head.contains(&format!("\r\nhost: 127.0.0.1:{port}\r\n")),
                "{head}"
            );
        });
    }
}
