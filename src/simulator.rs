//! A simulated Amazon Connect for `CreateParticipant`. It is a real HTTP server. So an AWS SDK
//! signs, retries and parses against it, on a laptop and in tests.
//!
//! It imports nothing of the gateway, so that the two cannot share a bug. Its rules come from the
//! service model in botocore (`connect/2017-08-08`) and from AWS's Signature Version 4
//! documentation. Its own contact ids are in docs/design/contract.md, "The simulator".
//!
//! ```text
//! server ─connection→ api ─head, body→ signature ─→ wire ─Call→ account ─Decision→ answer
//!                      └──────────────── every attempt ──────────────→ journal
//! ```
//!
//! A call takes effect when it has been read; delays hold back only the answer. A client that gives
//! up on a slow answer has therefore created its participant, as with the real service.

mod account;
mod answer;
mod api;
mod clock;
mod error;
mod journal;
mod magic;
mod participants;
mod server;
mod signature;
mod throttle;
mod wire;

pub use journal::{Attempt, Journal};
pub use participants::Participant;
pub use signature::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
pub use throttle::Throttle;
pub use wire::{Call, Role};

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

/// The behaviour of the simulated Connect. The default answers at once, never throttles, and has
/// the right time.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long every answer to `CreateParticipant` is delayed, refusals included.
    pub latency: Duration,
    /// The account's request quota; `None` never throttles.
    pub throttle: Option<Throttle>,
    /// Sent with every ThrottlingException as `x-amz-retry-after`, in whole milliseconds; `None`
    /// sends no such header.
    pub retry_after: Option<Duration>,
    /// How far the simulator's clock is ahead of the machine's, in seconds; negative is behind.
    pub clock_offset: i64,
    /// The most participants that are kept. The oldest are forgotten, with their ClientTokens: a
    /// call that repeats one then makes a second participant.
    pub max_participants: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            throttle: None,
            retry_after: None,
            clock_offset: 0,
            max_participants: MAX_PARTICIPANTS,
        }
    }
}

/// A bound simulator. Connections queue in the kernel from the moment it is bound;
/// [`Simulator::run`] serves them.
#[derive(Debug)]
pub struct Simulator {
    listener: TcpListener,
    addr: SocketAddr,
    api: Arc<api::Api>,
}

impl Simulator {
    /// Binds `addr`. Port 0 takes a free port, which [`Simulator::addr`] returns.
    pub async fn bind(addr: SocketAddr, options: Options) -> io::Result<Simulator> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let api = Arc::new(api::Api::new(options));
        Ok(Simulator { listener, addr, api })
    }

    /// The address it is bound to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The endpoint for a client on this machine: `http://HOST:PORT`.
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", reachable(self.addr))
    }

    /// The one access key id that it accepts: public and worthless.
    pub fn access_key_id(&self) -> &'static str {
        signature::ACCESS_KEY_ID
    }

    /// The secret of [`Simulator::access_key_id`]: public and worthless.
    pub fn secret_access_key(&self) -> &'static str {
        signature::SECRET_ACCESS_KEY
    }

    /// Three lines of shell that point an AWS SDK at this simulator. The last line has no line end.
    pub fn exports(&self) -> String {
        format!(
            "export AWS_ACCESS_KEY_ID={}\nexport AWS_SECRET_ACCESS_KEY={}\nexport AWS_ENDPOINT_URL_CONNECT={}",
            self.access_key_id(),
            self.secret_access_key(),
            self.endpoint_url()
        )
    }

    /// The journal of attempts and participants. It can be read after [`Simulator::run`] has ended.
    pub fn journal(&self) -> Journal {
        self.api.journal().clone()
    }

    /// Serves until `shutdown` resolves, then closes every connection at once, answered or not.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        tracing::info!(addr = %self.addr, "simulator listening");
        server::serve(self.listener, self.api, shutdown).await;
        tracing::info!("simulator stopped");
        Ok(())
    }
}

/// The address for clients of this listener. An unspecified address can be bound, but not every
/// client accepts it as a destination.
#[must_use]
pub fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// About 250 MiB.
const MAX_PARTICIPANTS: usize = 250_000;

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn an_unspecified_address_is_reached_over_loopback() {
        let reached = |addr: &str| reachable(addr.parse().expect("an address")).to_string();
        assert_eq!(reached("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reached("[::]:80"), "[::1]:80");
        assert_eq!(reached("10.1.2.3:80"), "10.1.2.3:80");
    }
}
