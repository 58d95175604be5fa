//! Serves a connection as tonic's own server does, with the same crates.

use std::convert::Infallible;
use std::net::SocketAddr;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;

/// Serves at the address that the first argument names, until the process is ended.
///
/// # Panics
/// If the argument is no address, or the address cannot be bound.
pub async fn serve<S>(service: S)
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let address: SocketAddr = argument(1).parse().expect("HOST:PORT to listen on");
    let listener = TcpListener::bind(address).await.expect("a free port");
    let routes = Routes::new(service).prepare();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("a socket");
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(
            http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// An argument of the process.
///
/// # Panics
/// If it is missing.
#[must_use]
pub fn argument(place: usize) -> String {
    std::env::args().nth(place).expect("an argument more")
}
