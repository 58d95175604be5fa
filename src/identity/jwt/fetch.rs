//! Where the key set comes from: a URL or a file, bounded in size and time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;

use super::key_set::KeySetError;
use crate::config::KeySource;
use crate::error::chain;

/// Why a key set could not be had. The texts are for the log.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection, or it was lost.
    #[error("the key set's endpoint cannot be reached: {0}")]
    Unreachable(String),
    /// No whole answer within 5 s.
    #[error("the key set's endpoint did not answer within {FETCH_TIMEOUT:?}")]
    TimedOut,
    /// Another status than 200. Redirects are not followed: the config names the host that is
    /// trusted.
    #[error("the key set's endpoint answered with status {0}")]
    Status(u16),
    /// Over 1 MiB.
    #[error("the key set has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not readable.
    #[error("the key set's file cannot be read: {0}")]
    File(#[from] std::io::Error),
    /// Had, but no key set.
    #[error(transparent)]
    Content(#[from] KeySetError),
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Gets the text of a key set.
#[derive(Debug)]
pub enum Fetcher {
    /// From a URL.
    Url(Uri, Box<HttpClient>),
    /// From a file.
    File(PathBuf),
}

impl Fetcher {
    /// Gets it from there. For `https://`, the system's roots are trusted, and `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` heeded.
    ///
    /// # Errors
    /// Where the crypto library does not speak TLS: a bug of the build.
    pub fn new(source: &KeySource) -> Result<Self, rustls::Error> {
        Ok(match source {
            KeySource::Url(uri) => Self::Url(uri.clone(), Box::new(client()?)),
            KeySource::File(path) => Self::File(path.clone()),
        })
    }

    /// Gets it now: within 5 s, and of 1 MiB at most.
    ///
    /// # Errors
    /// [`FetchError`], for the log.
    pub async fn fetch(&self) -> Result<Bytes, FetchError> {
        match self {
            Self::Url(uri, client) => {
                let fetched = tokio::time::timeout(FETCH_TIMEOUT, get(uri, client)).await;
                fetched.unwrap_or(Err(FetchError::TimedOut))
            }
            Self::File(path) => {
                let mut text = Vec::new();
                let file = tokio::fs::File::open(path).await?;
                file.take(MAX_BYTES as u64 + 1).read_to_end(&mut text).await?;
                if text.len() > MAX_BYTES { Err(FetchError::TooLarge) } else { Ok(text.into()) }
            }
        }
    }
}

async fn get(uri: &Uri, client: &HttpClient) -> Result<Bytes, FetchError> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri.clone();
    request
        .headers_mut()
        .insert(http::header::ACCEPT, http::HeaderValue::from_static(ACCEPT));
    let answer = client
        .request(request)
        .await
        .map_err(|error| FetchError::Unreachable(chain(&error)))?;
    if answer.status() != http::StatusCode::OK {
        return Err(FetchError::Status(answer.status().as_u16()));
    }
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
        Err(error) => Err(FetchError::Unreachable(chain(&*error))),
    }
}

fn client() -> Result<HttpClient, rustls::Error> {
    // What cannot be loaded is missed where it is needed: without any root, `http://` still works.
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    // Fetches are minutes apart, so that a kept connection would only grow stale.
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

/// From the first byte to the last.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 1024 * 1024;
const ACCEPT: &str = "application/jwk-set+json, application/json";
