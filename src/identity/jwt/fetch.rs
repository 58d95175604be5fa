//! One GET request to a key set's server, bounded in size and time.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::AsyncReadExt;

use super::discovery::DiscoveryError;
use super::key_set::KeySetError;
use crate::config::Access;
use crate::egress::{Egress, HttpClient, http_client};
use crate::error::chain;

/// Why a key set could not be loaded. The texts are for the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// No connection, or it was lost.
    #[error("the key set's endpoint cannot be reached: {0}")]
    Unreachable(String),
    /// No complete answer within 5 s.
    #[error("the key set's endpoint did not answer within {FETCH_TIMEOUT:?}")]
    TimedOut,
    /// Another status than 200. Redirects are not followed: the config names the host that is
    /// trusted.
    #[error("the key set's endpoint answered with status {0}")]
    Status(u16),
    /// The answer is over 1 MiB.
    #[error("the key set has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// The file is not readable.
    #[error("the key set's file cannot be read: {0}")]
    File(#[from] io::Error),
    /// `jwks_ca_file` cannot be read, or has no certificate.
    #[error("the certificate authorities of jwks_ca_file cannot be read: {0}")]
    Authority(String),
    /// `jwks_token_file` cannot be read, or has no token. The text holds no part of the file.
    #[error("the token of jwks_token_file cannot be read: {0}")]
    Token(String),
    /// The issuer's discovery document could not be loaded.
    #[error("the discovery document, asked for like a key set: {0}")]
    Document(Box<Self>),
    /// The issuer's discovery document is refused.
    #[error("the discovery document is not taken: {0}")]
    Discovery(#[from] DiscoveryError),
    /// The answer is no key set.
    #[error(transparent)]
    Content(#[from] KeySetError),
}

/// Whether a request carries the bearer token of `jwks_token_file`, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearer {
    Sent,
    Kept,
}

/// Asks a key set's server.
#[derive(Debug)]
pub(crate) struct Http {
    egress: Arc<Egress>,
    /// The system's roots, and those of `AWS_CA_BUNDLE`.
    roots: RootCertStore,
    access: Access,
}

impl Http {
    /// `https://` trusts the system's roots, as `SSL_CERT_FILE`, `SSL_CERT_DIR` and `AWS_CA_BUNDLE`
    /// change them. It also trusts the authorities of `jwks_ca_file`.
    ///
    /// # Errors
    /// If the crypto library does not support TLS: a bug of the build.
    pub(crate) fn new(access: &Access, egress: &Arc<Egress>) -> Result<Self, rustls::Error> {
        let roots = egress.roots();
        http_client(egress, roots.clone())?;
        Ok(Self { egress: Arc::clone(egress), roots, access: access.clone() })
    }

    /// The body of the answer, within 5 s and of 1 MiB at most.
    pub(super) async fn get(&self, uri: &Uri, bearer: Bearer) -> Result<Bytes, FetchError> {
        let got = tokio::time::timeout(FETCH_TIMEOUT, async {
            let request = self.request(uri, bearer).await?;
            body(self.client().await?, request).await
        });
        got.await.unwrap_or(Err(FetchError::TimedOut))
    }

    async fn request(
        &self,
        uri: &Uri,
        bearer: Bearer,
    ) -> Result<Request<Empty<Bytes>>, FetchError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri.clone();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(JSON));
        if let (Bearer::Sent, Some(file)) = (bearer, &self.access.token_file) {
            let token = token(file).await.map_err(FetchError::Token)?;
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        Ok(request)
    }

    /// A new client for each request. Requests are minutes apart: a kept connection would be stale,
    /// and the file of authorities may have changed.
    async fn client(&self) -> Result<HttpClient, FetchError> {
        let mut roots = self.roots.clone();
        if let Some(file) = &self.access.ca_file {
            for certificate in authorities(file).await.map_err(FetchError::Authority)? {
                roots
                    .add(certificate)
                    .map_err(|error| FetchError::Authority(error.to_string()))?;
            }
        }
        http_client(&self.egress, roots).map_err(|error| FetchError::Authority(error.to_string()))
    }
}

async fn body(client: HttpClient, request: Request<Empty<Bytes>>) -> Result<Bytes, FetchError> {
    let answer = client
        .request(request)
        .await
        .map_err(|error| FetchError::Unreachable(chain(&error)))?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status().as_u16()));
    }
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
        Err(error) => Err(FetchError::Unreachable(chain(&*error))),
    }
}

async fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(file).await.map_err(|error| error.to_string())?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err("it has no certificate".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn token(file: &Path) -> Result<HeaderValue, String> {
    let text = read(file).await.map_err(|error| error.to_string())?;
    let token = text.trim_ascii();
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err("it is not one line of visible characters".to_owned());
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
        .map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads a file of 1 MiB at most.
pub(super) async fn read(path: &Path) -> io::Result<Bytes> {
    let mut text = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut text).await?;
    if text.len() > MAX_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(text.into())
}

/// For one request, from its first byte to the last byte of the answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 1024 * 1024;
const JSON: &str = "application/jwk-set+json, application/json";
