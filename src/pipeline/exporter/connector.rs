//! How the HTTP exporter gets a connection: to the collector or through a proxy, by TCP or by a Unix socket, with TLS where
//! the scheme says so.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
#[cfg(unix)]
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Intercept;
#[cfg(unix)]
use hyper_util::rt::TokioIo;
use tower_service::Service;

/// Load balancers and firewalls forget idle connections without a word.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 3;

type BoxError = Box<dyn StdError + Send + Sync>;
type Tcp = HttpsConnector<HttpConnector>;

/// Makes connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    /// To whom we talk first: the collector or the proxy.
    tcp: Tcp,
    way: Way,
}

/// What is between us and the collector.
#[derive(Clone, Debug)]
enum Way {
    Direct,
    /// A proxy that passes requests on (RFC 9112, section 3.2.2).
    Forwarding(Uri),
    /// A proxy that passes bytes on (RFC 9110, section 9.3.6, CONNECT).
    Tunnelling(HttpsConnector<Tunnel<Tcp>>),
    #[cfg(unix)]
    Socket(PathBuf),
}

impl Connector {
    /// Straight to where a request goes. `tls` is for `https` alone.
    pub(super) fn direct(tls: rustls::ClientConfig) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(KEEPALIVE));
        http.set_keepalive_interval(Some(KEEPALIVE));
        http.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        Self {
            tcp: (http, tls).into(),
            way: Way::Direct,
        }
    }

    /// To a socket, whatever host a request names.
    #[cfg(unix)]
    pub(super) fn on_socket(self, socket: PathBuf) -> Self {
        Self {
            way: Way::Socket(socket),
            ..self
        }
    }

    /// Through a proxy. `tls`: how to talk to the collector behind it, if that has TLS. The second is the
    /// `Proxy-Authorization` that each request needs; one that is tunnelled needs none.
    pub(super) fn through(
        self,
        proxy: &Intercept,
        tls: Option<rustls::ClientConfig>,
    ) -> (Self, Option<HeaderValue>) {
        let credentials = proxy.basic_auth().cloned();
        let (way, credentials) = match tls {
            None => (Way::Forwarding(proxy.uri().clone()), credentials),
            Some(tls) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
                if let Some(credentials) = credentials {
                    tunnel = tunnel.with_auth(credentials);
                }
                (Way::Tunnelling((tunnel, tls).into()), None)
            }
        };
        (Self { way, ..self }, credentials)
    }
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.way {
            Way::Tunnelling(tunnel) => tunnel.poll_ready(cx),
            _ => self.tcp.poll_ready(cx),
        }
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        match &mut self.way {
            Way::Direct => {
                let connecting = self.tcp.call(target);
                Box::pin(async move { Ok(Link::new(connecting.await?)) })
            }
            Way::Forwarding(proxy) => {
                let connecting = self.tcp.call(proxy.clone());
                Box::pin(async move {
                    Ok(Link {
                        is_forwarded: true,
                        ..Link::new(connecting.await?)
                    })
                })
            }
            Way::Tunnelling(tunnel) => {
                let connecting = tunnel.call(target);
                Box::pin(async move { Ok(Link::new(connecting.await?)) })
            }
            #[cfg(unix)]
            Way::Socket(socket) => {
                let socket = socket.clone();
                Box::pin(async move {
                    let stream = tokio::net::UnixStream::connect(socket).await?;
                    Ok(Link::new(TokioIo::new(stream)))
                })
            }
        }
    }
}

trait Io: Read + Write + Connection + Send + Unpin {}
impl<T: Read + Write + Connection + Send + Unpin> Io for T {}

/// A connection of any kind.
pub(super) struct Link {
    io: Box<dyn Io>,
    /// Requests name the whole URL, for a proxy to pass them on.
    is_forwarded: bool,
}

impl Link {
    fn new(io: impl Io + 'static) -> Self {
        Self {
            io: Box::new(io),
            is_forwarded: false,
        }
    }
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.is_forwarded)
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    // Head and body of a request go in one call, without a copy.
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}

#[cfg(test)]
mod tests;
