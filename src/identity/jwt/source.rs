//! The source of a key set: a file, a URL, or the URL in the issuer's discovery document.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::Uri;

use super::discovery::{is_same_origin, key_set_uri};
use super::fetch::{Bearer, FetchError, Http, read};
use crate::config::{Discovery, KeySource};
use crate::egress::Egress;

/// Gets the text of a key set.
#[derive(Debug)]
pub(crate) enum Fetcher {
    /// From a URL.
    Url(Uri, Box<Http>),
    /// From the URL in the issuer's document. Each fetch asks for the document first.
    Discovery(Discovery, Box<Http>),
    /// From a file.
    File(PathBuf),
}

impl Fetcher {
    /// The source of these settings, over the egress.
    ///
    /// # Errors
    /// If the crypto library does not support TLS: a bug of the build.
    pub(crate) fn new(source: &KeySource, egress: &Arc<Egress>) -> Result<Self, rustls::Error> {
        let http = |access| Http::new(access, egress).map(Box::new);
        Ok(match source {
            KeySource::Url(uri, access) => Self::Url(uri.clone(), http(access)?),
            KeySource::Discovery(discovery, access) => {
                Self::Discovery(discovery.clone(), http(access)?)
            }
            KeySource::File(path) => Self::File(path.clone()),
        })
    }

    /// Loads the text now: within 5 s per request, and 1 MiB at most.
    ///
    /// # Errors
    /// [`FetchError`], for the log.
    pub(crate) async fn fetch(&self) -> Result<Bytes, FetchError> {
        match self {
            Self::Url(uri, http) => http.get(uri, Bearer::Sent).await,
            Self::Discovery(discovery, http) => discovered(discovery, http).await,
            Self::File(path) => Ok(read(path).await?),
        }
    }
}

async fn discovered(discovery: &Discovery, http: &Http) -> Result<Bytes, FetchError> {
    let document = http.get(&discovery.document, Bearer::Sent).await;
    let document = document.map_err(|error| FetchError::Document(Box::new(error)))?;
    let uri = key_set_uri(discovery, &document)?;
    // The document may name any host, but the token is for the issuer's own.
    let bearer = match is_same_origin(&discovery.document, &uri) {
        true => Bearer::Sent,
        false => Bearer::Kept,
    };
    http.get(&uri, bearer).await
}
