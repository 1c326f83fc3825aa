//! Collectors on loopback sockets, for the tests of the exporters. They say what they are told to say and hand over what
//! they heard.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Exporter, Outcome};
use crate::config::{Compression, Encoding, OtlpConfig, Signal};

pub(super) fn config(endpoint: impl Into<String>) -> OtlpConfig {
    OtlpConfig {
        signal: Signal::Traces,
        endpoint: endpoint.into(),
        encoding: Encoding::Protobuf,
        headers: Vec::new(),
        timeout: Duration::from_secs(20),
        compression: Compression::None,
        insecure: false,
        certificate: None,
        client_certificate: None,
        client_key: None,
    }
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub(super) fn export(exporter: &mut dyn Exporter, request: &[u8]) -> Outcome {
    runtime().block_on(exporter.export(Bytes::copy_from_slice(request), 1))
}

/// The text of an outcome that is not a delivery.
pub(super) fn error(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Delivered { .. } => "delivered",
        Outcome::Retryable { error, .. }
        | Outcome::Rejected { error }
        | Outcome::Unsupported { error }
        | Outcome::TooLarge { error }
        | Outcome::Spooled { error }
        | Outcome::SpoolFull { error } => error,
    }
}

/// A port on which nobody listens. Another process may take it in between; it will hardly be a collector.
pub(super) fn deaf_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A request as an HTTP collector sees it.
pub(super) struct Heard {
    /// The how many-th connection it came on.
    pub(super) connection: usize,
    /// Request line and headers.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

/// Answers one request with each response and then goes away.
pub(super) fn http_collector(responses: Vec<Vec<u8>>) -> (u16, Receiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, heard) = channel();
    std::thread::spawn(move || {
        let mut responses = responses.into_iter().peekable();
        for connection in 0.. {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            while let Some((head, body)) = hear(&mut stream) {
                // The writer may have gone away in the middle of a response: that is what some tests are about.
                let _ = stream.get_mut().write_all(&responses.next().unwrap());
                let _ = sender.send(Heard {
                    connection,
                    head,
                    body,
                });
                if responses.peek().is_none() {
                    return;
                }
            }
        }
    });
    (port, heard)
}

/// The path of a socket in the system's temporary directory, which goes when this goes.
#[cfg(unix)]
pub(super) struct Socket(pub(super) PathBuf);

#[cfg(unix)]
impl Socket {
    /// A path that nobody else has.
    pub(super) fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("rvh_trace-test-{}-{number}.sock", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub(super) fn endpoint(&self) -> String {
        format!("unix://{}", self.0.display())
    }
}

#[cfg(unix)]
impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Answers one request that comes over the socket.
#[cfg(unix)]
pub(super) fn http_collector_on_socket(socket: &Socket, response: Vec<u8>) -> Receiver<Heard> {
    let listener = std::os::unix::net::UnixListener::bind(&socket.0).unwrap();
    let (sender, heard) = channel();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let request = hear(&mut stream).unwrap();
        stream.get_mut().write_all(&response).unwrap();
        let _ = sender.send(Heard {
            connection: 0,
            head: request.0,
            body: request.1,
        });
    });
    heard
}

fn hear(stream: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// `HTTP/1.1 <status>` with these header lines and this body.
pub(super) fn http_response(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut response = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
    for header in headers {
        response = format!("{response}{header}\r\n");
    }
    [response.as_bytes(), b"\r\n", body].concat()
}

/// Takes one call and answers it: with a message, unless there is none, and with these trailers. Returns the request's head
/// and body, frame header included.
pub(super) async fn grpc_collector(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    message: Option<&[u8]>,
    trailers: HeaderMap,
) -> (http::request::Parts, Bytes) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    let talk = async {
        let (head, mut stream) = request.into_parts();
        let mut body = BytesMut::new();
        while let Some(data) = stream.data().await {
            let data = data.unwrap();
            stream.flow_control().release_capacity(data.len()).unwrap();
            body.extend_from_slice(&data);
        }
        let response = http::Response::builder().header("content-type", "application/grpc");
        let mut answer = respond
            .send_response(response.body(()).unwrap(), false)
            .unwrap();
        if let Some(message) = message {
            let mut frame = BytesMut::new();
            frame.put_u8(0);
            frame.put_u32(u32::try_from(message.len()).unwrap());
            frame.put_slice(message);
            answer.send_data(frame.freeze(), false).unwrap();
        }
        answer.send_trailers(trailers).unwrap();
        (head, body.freeze())
    };
    // The connection moves only while it is polled; the talk ends first, and then its last frames must get out.
    let (heard, ()) = tokio::join!(talk, async {
        while let Some(Ok(_)) = connection.accept().await {}
    });
    heard
}

/// An authority, a server certificate for `localhost` and `collector.invalid`, and a client certificate, as files that go when this goes.
pub(super) struct Certificates {
    directory: PathBuf,
    pub(super) authority: PathBuf,
    pub(super) client: PathBuf,
    pub(super) client_key: PathBuf,
    server: (CertificateDer<'static>, PrivateKeyDer<'static>),
    trusted: CertificateDer<'static>,
}

impl Certificates {
    /// New keys in a new directory under the system's temporary one.
    pub(super) fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("rvh_trace-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |names: &[&str]| {
            let key = KeyPair::generate().unwrap();
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let params = CertificateParams::new(names).unwrap();
            (params.signed_by(&key, &authority).unwrap(), key)
        };
        let (server, server_key) = issue(&["localhost", "collector.invalid"]);
        let (client, client_key) = issue(&["a-service"]);
        Self {
            authority: write("authority.pem", &authority.pem()),
            client: write("client.pem", &client.pem()),
            client_key: write("client-key.pem", &client_key.serialize_pem()),
            server: (
                server.der().clone(),
                PrivateKeyDer::from_pem_slice(server_key.serialize_pem().as_bytes()).unwrap(),
            ),
            trusted: authority.der().clone(),
            directory,
        }
    }

    /// A TLS server that wants a client certificate, or does not.
    pub(super) fn acceptor(&self, mutual: bool, alpn: &[u8]) -> tokio_rustls::TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if mutual {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.trusted.clone()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                provider,
            )
            .build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = &self.server;
        let mut config = builder
            .with_single_cert(vec![certificate.clone()], key.clone_key())
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config).into()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
