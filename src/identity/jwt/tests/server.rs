//! A real HTTPS server of key sets and discovery documents, with a certificate of a private CA.

#![allow(clippy::disallowed_methods, reason = "the integration tests use this file, too")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::authority::Pair;

/// A server at `https://localhost`. It ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Server {
    pub addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    pair: Pair,
    /// Without it, the answer is 401.
    token: Option<String>,
    /// The raw answer of each path; any other is 404.
    answers: HashMap<String, String>,
    seen: Vec<Seen>,
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub path: String,
    pub authorization: Option<String>,
}

impl Server {
    pub(crate) async fn with(pair: Pair) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State { pair, token: None, answers: HashMap::new(), seen: Vec::new() };
        let addr = listener.local_addr().unwrap();
        let server = Self { addr, state: Arc::new(Mutex::new(state)) };
        let served = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = served.acceptor().accept(stream).await {
                        served.answer(stream).await;
                    }
                });
            }
        });
        server
    }

    /// The origin, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.addr.port())
    }

    /// From now on this certificate is shown.
    pub(crate) fn shows(&self, pair: Pair) {
        self.state.lock().unwrap().pair = pair;
    }

    /// From now on this bearer token is wanted.
    pub(crate) fn wants(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    /// From now on the path has this body.
    pub(crate) fn serves(&self, path: &str, body: &str) {
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        self.answers(path, answer);
    }

    /// From now on the path is answered with these bytes.
    pub(crate) fn answers(&self, path: &str, raw: String) {
        self.state.lock().unwrap().answers.insert(path.to_owned(), raw);
    }

    /// From now on there is a discovery document of this issuer.
    pub(crate) fn discovers(&self, issuer: &str, jwks_uri: &str) {
        let document = json!({ "issuer": issuer, "jwks_uri": jwks_uri });
        self.serves("/.well-known/openid-configuration", &document.to_string());
    }

    /// What was asked since this was last called.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    fn acceptor(&self) -> TlsAcceptor {
        let pair = self.state.lock().unwrap().pair.clone();
        let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Answers one request, and ends the connection.
    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut request = String::new();
        while !request.contains("\r\n\r\n") {
            let mut bytes = [0; 4096];
            match stream.read(&mut bytes).await {
                Ok(read) if read > 0 => request += &String::from_utf8_lossy(&bytes[..read]),
                _ => return,
            }
        }
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let authorization = request.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("authorization").then(|| value.trim().to_owned())
        });
        let answer = {
            let mut state = self.state.lock().unwrap();
            let wanted = state.token.as_ref().map(|token| format!("Bearer {token}"));
            let answer = match state.answers.get(&path) {
                _ if wanted.is_some() && wanted != authorization => status("401 Unauthorized"),
                Some(answer) => answer.clone(),
                None => status("404 Not Found"),
            };
            state.seen.push(Seen { path, authorization });
            answer
        };
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

fn status(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")
}
