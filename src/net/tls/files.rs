//! The files of TLS: reads them, checks them against each other, and makes rustls's config of them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::Problem;

/// The files of `server.tls`, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// `cert_file`: the certificate, and the certificates between it and its CA.
    pub cert: PathBuf,
    /// `key_file`: its key, as PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// `client_ca_file`: the CA of client certificates. `None`: the gateway asks for no
    /// certificate.
    pub(crate) client_ca: Option<PathBuf>,
}

/// A digest of the files' content, good or bad. It does not reveal the key.
pub(super) type Digest = [u8; 32];

/// Files that can be served.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    pub(super) not_after: SystemTime,
    pub(super) digest: Digest,
}

/// The content of the files at one time.
pub(super) struct Texts {
    cert: Text,
    key: Text,
    client_ca: Option<Text>,
}

/// A file's content, or why it has none.
type Text = Result<Vec<u8>, String>;

impl TlsFiles {
    /// Every problem of the files, named by the config's keys.
    #[must_use]
    pub(crate) fn check(&self) -> Vec<Problem> {
        self.load().err().unwrap_or_default()
    }

    pub(super) fn load(&self) -> Result<Loaded, Vec<Problem>> {
        self.read().load(self)
    }

    pub(super) fn read(&self) -> Texts {
        Texts {
            cert: read(&self.cert),
            key: read(&self.key),
            client_ca: self.client_ca.as_deref().map(read),
        }
    }
}

impl Texts {
    pub(super) fn digest(&self) -> Digest {
        let mut context = digest::Context::new(&digest::SHA256);
        for text in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
        {
            let (tag, bytes) = match text {
                Ok(bytes) => (0, bytes.as_slice()),
                Err(error) => (1, error.as_bytes()),
            };
            context.update(&[tag]);
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    pub(super) fn load(&self, files: &TlsFiles) -> Result<Loaded, Vec<Problem>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut problems = Vec::new();
        let chain = found(certificates(&self.cert), CERT, &files.cert, &mut problems);
        let not_after = chain
            .as_ref()
            .and_then(|chain| found(end_of(chain), CERT, &files.cert, &mut problems));
        let key = found(private_key(&self.key), KEY, &files.key, &mut problems);
        let clients = self.client_ca.as_ref().zip(files.client_ca.as_ref());
        let clients = clients
            .map(|(text, file)| found(clients_of(text, &provider), CLIENT_CA, file, &mut problems));
        let config = chain.zip(key).and_then(|(chain, key)| {
            found(
                serving(chain, key, clients.clone().flatten(), provider),
                KEY,
                &files.key,
                &mut problems,
            )
        });
        match (config, not_after) {
            (Some(config), Some(not_after)) if problems.is_empty() => {
                Ok(Loaded { config: Arc::new(config), not_after, digest: self.digest() })
            }
            _ => Err(problems),
        }
    }
}

fn serving(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, String> {
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            "the key of server.tls.cert_file: it is another's".to_owned()
        }
        error => format!("an RSA, ECDSA or Ed25519 key that can serve: {error}"),
    })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the verification of its client certificate, and connections here
    // live long.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn clients_of(
    text: &Text,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text)? {
        roots.add(certificate).map_err(|error| format!("{CERTIFICATES}: {error}"))?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = verifier.allow_unauthenticated().build();
    verifier.map_err(|error| format!("{CERTIFICATES}: {error}"))
}

fn certificates(text: &Text) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates =
        CertificateDer::pem_slice_iter(text.as_ref()?).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(CERTIFICATES.to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{CERTIFICATES}: {error}")),
    }
}

fn private_key(text: &Text) -> Result<PrivateKeyDer<'static>, String> {
    // The library's own message could hold a line of the file.
    PrivateKeyDer::from_pem_slice(text.as_ref()?)
        .map_err(|_| "a file with a private key, PEM".to_owned())
}

fn end_of(chain: &[CertificateDer<'static>]) -> Result<SystemTime, String> {
    let first = chain.first().ok_or(CERTIFICATES)?;
    let (_, certificate) =
        X509Certificate::from_der(first).map_err(|error| format!("{CERTIFICATES}: {error}"))?;
    let seconds = certificate.validity().not_after.timestamp();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0)))
}

fn read(path: &Path) -> Text {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error: std::io::Error| format!("a readable file: {error}"))
}

fn found<T>(
    loaded: Result<T, String>,
    key: &str,
    file: &Path,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    loaded
        .map_err(|expected| {
            problems.push(Problem::new(key, Some(&json!(file.to_string_lossy())), expected))
        })
        .ok()
}

const CERT: &str = "server.tls.cert_file";
const KEY: &str = "server.tls.key_file";
const CLIENT_CA: &str = "server.tls.client_ca_file";
const CERTIFICATES: &str = "a file with certificates, PEM";

/// The most bytes of a certificate file; the rest of a longer file is not read.
const MAX_BYTES: u64 = 1024 * 1024;
