//! The accept loop under the gRPC port.
//!
//! tonic's own server has one age for all connections. It bounds neither a handshake nor the number
//! of connections. Its routes are therefore served over hyper here, in one task per connection.

pub(crate) mod listen;
mod preface;
mod refused;
pub(crate) mod tls;

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Cause;
use preface::Preface;
pub(crate) use refused::REASONS as REFUSED;
use tls::Tls;

/// The bounds of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most calls in flight on one connection.
    pub max_concurrent_streams: u32,
    /// The largest header list of a request that is read, in bytes as HTTP/2 counts them (RFC 9113,
    /// section 6.5.2). A larger one is answered 431, or its stream is reset.
    pub max_header_list_bytes: u32,
    /// The age (±10 %) at which a connection gets GOAWAY.
    pub max_age: Duration,
    /// The time that calls in flight have to end after GOAWAY.
    pub grace: Duration,
}

/// Answers the requests of all connections.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The body of an answer.
    type Body: http_body::Body<Data = Bytes, Error: Into<Cause>> + Send + 'static;

    /// Answers one request of this peer.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: Arc<Peer>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + use<Self>;

    /// Called when a connection was refused before its first request. `reason`: one of [`REFUSED`].
    fn refused(&self, reason: &'static str);
}

/// The settings of a connection.
#[derive(Clone)]
pub struct Service<H> {
    /// Everything behind the connection.
    pub handler: H,
    /// The bounds of each connection.
    pub limits: Limits,
    /// `None`: plaintext.
    pub tls: Option<Arc<Tls>>,
    /// Turns a verified client certificate into the extensions of [`Peer::shown`].
    pub client: fn(&[u8], &mut Extensions),
}

/// Serves connections until `draining`; then sends GOAWAY on every connection. Returns after all
/// have ended, or after `closing` has closed them.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    service: Service<H>,
    draining: CancellationToken,
    closing: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = draining.cancelled() => break,
        };
        match accepted {
            Ok((stream, place)) => {
                let connection = Connection {
                    limits: service.limits,
                    draining: draining.clone(),
                    closing: closing.clone(),
                };
                connections.spawn(connection.accept(stream, service.clone(), place));
            }
            // The error of one connection must not stop the others.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Without it, an answer waits up to 40 ms for the acknowledgement of the answer before it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended as it began");
    }
    Ok((stream, place))
}

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The same as a text, which is the same for all lines of the log.
    pub(crate) written: Box<str>,
    /// The result of reading its certificate.
    pub shown: Extensions,
}

impl Peer {
    /// A peer that has shown no certificate.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, written: address.to_string().into(), shown: Extensions::new() }
    }
}

struct Connection {
    limits: Limits,
    draining: CancellationToken,
    closing: CancellationToken,
}

impl Connection {
    async fn accept<H: Handler>(
        self,
        stream: TcpStream,
        service: Service<H>,
        _place: OwnedSemaphorePermit,
    ) {
        let Service { handler, tls, client, .. } = service;
        // A peer without an address has already left.
        let Ok(address) = stream.peer_addr() else { return };
        // On a socket for both families, an IPv4 address arrives as `::ffff:10.0.0.1`.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let mut peer = Peer::new(address);
        let Some(tls) = tls else { return self.serve(stream, handler, peer).await };
        let accepted = tokio::select! {
            accepted = tls.accept(stream) => accepted,
            () = self.draining.cancelled() => return,
        };
        match accepted {
            Ok(stream) => {
                if let Some(certificate) = tls::client_certificate(&stream) {
                    client(certificate, &mut peer.shown);
                }
                self.serve(stream, handler, peer).await;
            }
            Err(error) if error.is_of_certificate() => {
                handler.refused(refused::CERTIFICATE);
                tracing::info!(peer = %address, reason = error.reason(), "connection refused");
            }
            Err(error) => {
                handler.refused(refused::HANDSHAKE);
                tracing::debug!(peer = %address, reason = error.reason(), "connection failed");
            }
        }
    }

    async fn serve<S, H: Handler>(self, stream: S, handler: H, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let peer = Arc::new(peer);
        // Boxed at once: hyper and tokio hand a call on several times, and would move all of it
        // each time.
        let (answers, shown) = (handler.clone(), Arc::clone(&peer));
        let service = service_fn(move |request| {
            Box::pin(answers.answer(request, Arc::clone(&shown)).map(Ok::<_, Infallible>))
        });
        let io = TokioIo::new(Preface::new(stream, Instant::now() + PREFACE_TIMEOUT));
        let mut connection = std::pin::pin!(builder(self.limits).serve_connection(io, service));

        let aged = tokio::time::sleep(self.limits.max_age.mul_f64(0.9 + 0.2 * fastrand::f64()));
        let ended: Result<(), hyper::Error> = tokio::select! {
            ended = connection.as_mut() => ended,
            () = async { tokio::select! { () = aged => {}, () = self.draining.cancelled() => {} } } => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.over() => Ok(()),
                }
            }
        };
        let Err(error) = ended else { return };
        let peer = peer.address;
        match refused::by_http2(&error) {
            Some(reason) => {
                handler.refused(reason);
                tracing::info!(%peer, reason, "connection refused");
            }
            None => tracing::debug!(%peer, %error, "connection failed"),
        }
    }

    /// When a connection is closed although calls are in flight on it. The pause lets the last
    /// answers leave.
    async fn over(&self) {
        let closed = async {
            self.closing.cancelled().await;
            tokio::time::sleep(LAST_BYTES).await;
        };
        let aged_out = async {
            tokio::time::sleep(self.limits.grace).await;
            if self.draining.is_cancelled() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! { () = closed => {}, () = aged_out => {} }
    }
}

fn builder(limits: Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_list_bytes)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        // gRPC does not define it, and its clients do not read it.
        .auto_date_header(false);
    builder
}

/// The most connections. Further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8192;

/// The most time until the HTTP/2 preface has arrived.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// The bytes that a peer may send before they are read, on one stream and on the connection.
/// Requests are small, and connections are many.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// The pause after an accept failed, for example without free file descriptors. It prevents a busy
/// loop, and recovery is still fast.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The time from the decision to close a connection until it is closed: for the last answers.
const LAST_BYTES: Duration = Duration::from_millis(100);
