//! Through the HTTP exporter, which shows what an operator gets to see.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpListener;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::otlp_http::OtlpHttpExporter;
use super::super::testing::{Certificates, config, error, export, http_response, runtime};
use super::super::{Exporter, Outcome};
use super::*;

fn exporter(config: &OtlpConfig) -> OtlpHttpExporter {
    OtlpHttpExporter::new(config).unwrap()
}

/// Exports to a TLS collector on `localhost` with this configuration.
fn over_tls(mutual: bool, change: impl FnOnce(&mut OtlpConfig, &Certificates)) -> Outcome {
    let certificates = Certificates::new();
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = certificates.acceptor(mutual, b"http/1.1");
        tokio::spawn(async move {
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await?;
            let mut heard = Vec::new();
            while !heard.ends_with(b"spans") {
                if stream.read_buf(&mut heard).await? == 0 {
                    break;
                }
            }
            stream.write_all(&http_response("200 OK", &[], b"")).await?;
            stream.shutdown().await
        });
        let mut config = config(format!("https://localhost:{port}/v1/traces"));
        change(&mut config, &certificates);
        exporter(&config)
            .export(Bytes::from_static(b"spans"), 1)
            .await
    })
}

#[test]
fn a_configured_authority_is_trusted() {
    let outcome = over_tls(false, |config, certificates| {
        config.certificate = Some(certificates.authority.clone());
    });
    assert_eq!(outcome, Outcome::DELIVERED);
}

#[test]
fn an_unknown_authority_names_the_variable_to_set() {
    let outcome = over_tls(false, |config, certificates| {
        // Any other certificate will do, and the system may have none.
        config.certificate = Some(certificates.client.clone());
    });
    assert!(matches!(outcome, Outcome::Retryable { .. }));
    assert!(
        error(&outcome).contains("set OTEL_EXPORTER_OTLP_CERTIFICATE"),
        "{outcome:?}"
    );
}

#[test]
fn a_certificate_for_another_host_points_to_the_endpoint() {
    let outcome = over_tls(false, |config, certificates| {
        config.certificate = Some(certificates.authority.clone());
        config.endpoint = config.endpoint.replace("localhost", "127.0.0.1");
    });
    assert!(
        error(&outcome).contains("check the host in OTEL_EXPORTER_OTLP_ENDPOINT"),
        "{outcome:?}"
    );
}

#[test]
fn a_client_certificate_is_presented_and_its_absence_explained() {
    let outcome = over_tls(true, |config, certificates| {
        config.certificate = Some(certificates.authority.clone());
        config.client_certificate = Some(certificates.client.clone());
        config.client_key = Some(certificates.client_key.clone());
    });
    assert_eq!(outcome, Outcome::DELIVERED);
    let outcome = over_tls(true, |config, certificates| {
        config.certificate = Some(certificates.authority.clone());
    });
    assert!(matches!(outcome, Outcome::Retryable { .. }));
    assert!(
        error(&outcome).contains("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
        "{outcome:?}"
    );
}

#[test]
fn tls_to_a_plain_collector_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(format!("https://{}", listener.local_addr().unwrap()));
    let certificates = Certificates::new();
    config.certificate = Some(certificates.authority.clone());
    let collector = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // A plain collector takes the beginning of the handshake for a bad request.
        stream.read_exact(&mut [0; 5]).unwrap();
        stream
            .write_all(&http_response("400 Bad Request", &[], b""))
            .unwrap();
        // Read to its end, or closing would reset the connection and lose the answer.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let outcome = export(&mut exporter(&config), b"spans");
    collector.join().unwrap();
    assert!(
        error(&outcome).contains("does not speak TLS"),
        "{outcome:?}"
    );
}

#[test]
fn certificate_files_are_checked_at_construction() {
    let certificates = Certificates::new();
    let problem = |change: &dyn Fn(&mut OtlpConfig)| {
        let mut config = config("https://localhost:4318/v1/traces");
        config.certificate = Some(certificates.authority.clone());
        change(&mut config);
        OtlpHttpExporter::new(&config).unwrap_err().to_string()
    };
    let missing = problem(&|config| config.certificate = Some("/no/such/file.pem".into()));
    assert!(
        missing.starts_with("OTEL_EXPORTER_OTLP_CERTIFICATE: cannot read /no/such/file.pem: "),
        "{missing}"
    );
    let not_one = problem(&|config| config.certificate = Some(certificates.client_key.clone()));
    assert!(
        not_one.starts_with("OTEL_EXPORTER_OTLP_CERTIFICATE: no certificate"),
        "{not_one}"
    );
    let no_key = problem(&|config| config.client_certificate = Some(certificates.client.clone()));
    assert!(
        no_key.starts_with("OTEL_EXPORTER_OTLP_CLIENT_KEY: must be set with"),
        "{no_key}"
    );
    let other_key = problem(&|config| {
        config.client_certificate = Some(certificates.authority.clone());
        config.client_key = Some(certificates.client_key.clone());
    });
    assert!(
        other_key.starts_with("OTEL_EXPORTER_OTLP_CLIENT_KEY: does not go with"),
        "{other_key}"
    );
    let not_a_key = problem(&|config| {
        config.client_certificate = Some(certificates.client.clone());
        config.client_key = Some(certificates.client.clone());
    });
    assert!(
        not_a_key.starts_with("OTEL_EXPORTER_OTLP_CLIENT_KEY: no private key"),
        "{not_a_key}"
    );
}
