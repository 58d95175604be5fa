//! TLS on the gRPC port: TLS 1.2 and 1.3, HTTP/2 only, certificates that change while it serves.
//!
//! tonic's own TLS settings are fixed at start and have no bound on the handshake; so rustls serves
//! here by itself. The certificate of a client is optional at the handshake, so that health and
//! reflection stay open; one that is given must be good.

mod files;
mod handshake;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::Problem;

pub use files::TlsFiles;
use files::{Digest, Loaded};
pub use handshake::HandshakeError;

/// What the files last said, and what accepts connections by it.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<Loaded>,
}

/// What came of changed files.
#[derive(Debug)]
pub enum TlsReloaded {
    /// They are in use for new connections.
    Applied,
    /// They have problems: the old ones stay in use.
    Refused(Vec<Problem>),
}

impl Tls {
    /// Loads the files.
    ///
    /// # Errors
    /// Every problem of them.
    pub fn load(files: TlsFiles) -> Result<Self, Vec<Problem>> {
        let loaded = files.load()?;
        Ok(Self { files, current: ArcSwap::from_pointee(loaded) })
    }

    /// When the certificate that is served ends.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.current.load().not_after
    }

    /// Shakes hands within 10 s. To be awaited in the connection's own task: a slow client must not
    /// hold up others.
    ///
    /// # Errors
    /// [`HandshakeError`], with a reason for the log.
    pub async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.load().config));
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(accepted) => accepted.map_err(HandshakeError::from),
            Err(_) => Err(HandshakeError::TimedOut),
        }
    }

    /// Looks at the files every two seconds, for as long as it is polled; tells `observe` of every
    /// change. They are compared by content, which sees the swap of a Kubernetes link, too.
    pub async fn run(&self, mut observe: impl FnMut(TlsReloaded)) {
        let mut seen = self.seen();
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Some(reloaded) = self.look(&mut seen) {
                observe(reloaded);
            }
        }
    }

    fn seen(&self) -> Seen {
        let digest = self.current.load().digest;
        Seen { judged: digest, last: digest }
    }

    fn look(&self, seen: &mut Seen) -> Option<TlsReloaded> {
        let read = self.files.read();
        let digest = read.digest();
        let is_settled = std::mem::replace(&mut seen.last, digest) == digest;
        if digest == seen.judged {
            return None;
        }
        match read.load(&self.files) {
            Ok(loaded) => {
                self.current.store(Arc::new(loaded));
                seen.judged = digest;
                Some(TlsReloaded::Applied)
            }
            // A certificate and its key are two files: between their changes they do not match,
            // which is no problem yet.
            Err(_) if !is_settled => None,
            Err(problems) => {
                seen.judged = digest;
                Some(TlsReloaded::Refused(problems))
            }
        }
    }
}

/// The client's certificate, verified; nothing where it gave none.
#[must_use]
pub fn client_certificate<S>(stream: &TlsStream<S>) -> Option<&CertificateDer<'static>> {
    stream.get_ref().1.peer_certificates().and_then(<[_]>::first)
}

/// What the files have said.
#[derive(Debug)]
struct Seen {
    /// When they were last taken or refused.
    judged: Digest,
    /// When they were last looked at.
    last: Digest,
}

/// For a handshake: docs/design/contract.md, "Network".
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Changes are in use within 10 s: docs/design/contract.md, "Reload".
const INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
