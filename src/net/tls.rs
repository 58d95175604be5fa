//! TLS on the gRPC port: TLS 1.2 and 1.3, only HTTP/2, and certificates that can change at runtime.
//!
//! tonic's own TLS settings are fixed at start, and have no bound on the handshake. rustls is
//! therefore used directly here. The client certificate is optional in the handshake, so that
//! health and reflection stay open. A certificate that a client sends must be valid.

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

pub(crate) use files::TlsFiles;
use files::{Digest, Loaded};
pub(crate) use handshake::HandshakeError;

/// The last good content of the files, and the acceptor that serves it.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<Loaded>,
}

/// The result of changed files.
#[derive(Debug)]
pub(crate) enum TlsReloaded {
    /// The files are in use for new connections.
    Applied,
    /// The files have problems: the old ones stay in use.
    Refused(Vec<Problem>),
}

impl Tls {
    /// Loads the files.
    ///
    /// # Errors
    /// Every problem of the files.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, Vec<Problem>> {
        let loaded = files.load()?;
        Ok(Self { files, current: ArcSwap::from_pointee(loaded) })
    }

    /// When the served certificate expires.
    #[must_use]
    pub(crate) fn not_after(&self) -> SystemTime {
        self.current.load().not_after
    }

    /// Completes the handshake within 10 s. Must be awaited in the connection's own task: a slow
    /// client must not delay others.
    ///
    /// # Errors
    /// [`HandshakeError`], with a reason for the log.
    pub(crate) async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.load().config));
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(accepted) => accepted.map_err(HandshakeError::from),
            Err(_) => Err(HandshakeError::TimedOut),
        }
    }

    /// Looks at the files every two seconds, for as long as it is polled. Tells `observe` of every
    /// change. The content is compared, which also notices the swap of a Kubernetes link.
    pub(crate) async fn run(&self, mut observe: impl FnMut(TlsReloaded)) {
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
            // A certificate and its key are two files. While only one of them has changed, they do
            // not match, which is no problem yet.
            Err(_) if !is_settled => None,
            Err(problems) => {
                seen.judged = digest;
                Some(TlsReloaded::Refused(problems))
            }
        }
    }
}

/// The client's verified certificate; `None` if it sent none.
#[must_use]
pub(crate) fn client_certificate<S>(stream: &TlsStream<S>) -> Option<&CertificateDer<'static>> {
    stream.get_ref().1.peer_certificates().and_then(<[_]>::first)
}

/// The digests of the files.
#[derive(Debug)]
struct Seen {
    /// The digest at the last time that they were applied or refused.
    judged: Digest,
    /// The digest at the last look.
    last: Digest,
}

/// The most time for a handshake: docs/design/contract.md, "Network".
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Changes are in use within 10 s: docs/design/contract.md, "Reload".
const INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
