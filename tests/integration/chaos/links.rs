//! A TCP link that can be cut, frozen, slowed down and refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the link does to the bytes that pass it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Bytes stay where they are; nobody is told.
    Frozen,
    /// Each piece comes this much later.
    Slow(Duration),
    /// New connections are reset.
    Refused,
}

/// A way to a server; it ends with its owner.
pub struct Link {
    pub addr: SocketAddr,
    weather: watch::Sender<Weather>,
    /// Ends the connections of now.
    scissors: watch::Sender<u64>,
    _open: DropGuard,
}

impl Link {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (weather, seen) = watch::channel(Weather::Fair);
        let (scissors, cuts) = watch::channel(0);
        let open = CancellationToken::new();
        tokio::spawn(open.clone().run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *seen.borrow() == Weather::Refused {
                    let _ = client.set_zero_linger();
                    continue;
                }
                tokio::spawn(connect(client, server, seen.clone(), cuts.clone()));
            }
        }));
        Self { addr, weather, scissors, _open: open.drop_guard() }
    }

    pub fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Resets every connection there is.
    pub fn cut(&self) {
        self.scissors.send_modify(|cuts| *cuts += 1);
    }
}

async fn connect(
    client: TcpStream,
    server: SocketAddr,
    weather: watch::Receiver<Weather>,
    mut cuts: watch::Receiver<u64>,
) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        // What ends here ends with a reset, as a cut does.
        let _ = stream.set_zero_linger();
    }
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    cuts.mark_unchanged();
    let weather = Arc::new(weather);
    tokio::select! {
        () = pump(from_client, to_server, &weather) => {}
        () = pump(from_server, to_client, &weather) => {}
        _ = cuts.changed() => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, weather: &watch::Receiver<Weather>) {
    let mut weather = weather.clone();
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let now = *weather.borrow();
        if let Weather::Slow(by) = now {
            tokio::time::sleep(by).await;
        }
        if weather.wait_for(|weather| *weather != Weather::Frozen).await.is_err() {
            return;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
