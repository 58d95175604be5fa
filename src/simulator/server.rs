//! The accept loop. It is hand-written, because `sim-reset` needs the socket under the HTTP
//! connection.

use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::api::{Api, Reset};

/// Serves until `shutdown` resolves, then aborts the open connections: an answer may be a minute
/// away.
pub(super) async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    shutdown: impl Future<Output = ()>,
) {
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(serve_connection(socket, Arc::clone(&api)));
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    // Without free descriptors, accept fails at once and repeatedly.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn serve_connection(socket: TcpStream, api: Arc<Api>) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let service = service_fn(move |request: http::Request<Incoming>| {
        let api = Arc::clone(&api);
        // `poll_without_shutdown` needs an Unpin future.
        Box::pin(async move { api.respond(request).await })
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    let Err(error) = poll_fn(|cx| connection.poll_without_shutdown(cx)).await else {
        return;
    };
    if error.source().is_some_and(|source| source.is::<Reset>()) {
        let socket = connection.into_parts().io.into_inner();
        // Closing with zero linger sends RST. Otherwise the client would see an orderly end.
        if let Err(error) = socket.set_zero_linger() {
            tracing::debug!(%error, "could not set SO_LINGER");
        }
    } else {
        tracing::debug!(%error, "connection ended early");
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
