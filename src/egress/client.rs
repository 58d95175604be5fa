//! An HTTP client over the egress, for requests outside the AWS SDK.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use tower::{Service, ServiceExt};

use super::Egress;

/// Sends requests without a body, by HTTP/1.1. It keeps no connection: its requests are minutes
/// apart, and a kept connection would be stale.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient {
    client: Client<Connector, Empty<Bytes>>,
    egress: Arc<Egress>,
}

/// A client that trusts these roots: [`Egress::roots`], perhaps with more.
///
/// # Errors
/// If the crypto library does not support TLS: a bug of the build.
pub(crate) fn http_client(
    egress: &Arc<Egress>,
    roots: RootCertStore,
) -> Result<HttpClient, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let connector = Connector { egress: Arc::clone(egress), tls: Arc::new(tls) };
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    Ok(HttpClient { client, egress: Arc::clone(egress) })
}

impl HttpClient {
    /// Sends the request. Redirects are not followed.
    ///
    /// # Errors
    /// If the head of an answer does not arrive.
    pub(crate) async fn request(
        &self,
        mut request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        // A tunnel authenticates at its proxy with CONNECT. A plain `http` request carries the
        // header itself.
        if request.uri().scheme() == Some(&Scheme::HTTP)
            && let Some(proxy) = self.egress.proxy_for(request.uri())
            && let Some(authorization) = proxy.authorization
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
        }
        self.client.request(request).await
    }
}

/// Connects direct or through the proxy: by CONNECT for `https`, as a plain proxy request for
/// `http`.
#[derive(Debug, Clone)]
struct Connector {
    egress: Arc<Egress>,
    tls: Arc<ClientConfig>,
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<Stream, BoxError> {
        let Some(proxy) = self.egress.proxy_for(&uri) else {
            let io = self.over(http_connector()).oneshot(uri).await?;
            return Ok(Stream { io: Box::pin(io), in_the_open: false });
        };
        // The proxy itself may speak TLS.
        let to_proxy = self.over(http_connector());
        if uri.scheme() != Some(&Scheme::HTTPS) {
            let io = to_proxy.oneshot(proxy.uri).await?;
            return Ok(Stream { io: Box::pin(io), in_the_open: true });
        }
        let mut tunnel = Tunnel::new(proxy.uri, to_proxy);
        if let Some(authorization) = proxy.authorization {
            tunnel = tunnel.with_auth(authorization);
        }
        let io = self.over(tunnel).oneshot(uri).await?;
        Ok(Stream { io: Box::pin(io), in_the_open: false })
    }

    fn over<C>(&self, inner: C) -> HttpsConnector<C> {
        HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(&self.tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(inner)
    }
}

fn http_connector() -> HttpConnector {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

trait Io: Read + Write + Send {}

impl<T: Read + Write + Send> Io for T {}

/// A connection to a server or to a proxy.
struct Stream {
    io: Pin<Box<dyn Io>>,
    /// The proxy reads the requests, and needs the whole URI in each.
    in_the_open: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.in_the_open)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.as_mut().poll_shutdown(context)
    }
}
