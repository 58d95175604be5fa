//! Why a handshake failed.

use std::io;

use rustls::{CertificateError, Error as TlsError};

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// It took over 10 s.
    #[error("the handshake timed out")]
    TimedOut,
    /// The client left, sent no TLS, or was refused.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl HandshakeError {
    /// The cause, for the log and for metrics.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        let tls = match self {
            Self::TimedOut => return "the handshake timed out",
            Self::Failed(error) => {
                error.get_ref().and_then(|error| error.downcast_ref::<TlsError>())
            }
        };
        match tls {
            Some(TlsError::InvalidCertificate(error)) => certificate(error),
            Some(TlsError::NoApplicationProtocol) => "the client does not speak HTTP/2",
            Some(TlsError::PeerIncompatible(_)) => {
                "the client's TLS version or suites are not served"
            }
            Some(TlsError::AlertReceived(_)) => "the client refused the handshake",
            Some(_) => "not TLS, or broken TLS",
            None => "the connection was lost",
        }
    }

    /// Whether the client sent a certificate that was refused.
    #[must_use]
    pub(crate) fn is_of_certificate(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        let tls = error.get_ref().and_then(|error| error.downcast_ref::<TlsError>());
        matches!(tls, Some(TlsError::InvalidCertificate(_)))
    }
}

fn certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the client certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the client certificate is not valid yet"
        }
        CertificateError::UnknownIssuer => "the client certificate is of another CA",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not for clients"
        }
        CertificateError::BadSignature => {
            "the client certificate is not signed by the CA that it names"
        }
        _ => "the client certificate is not valid",
    }
}
