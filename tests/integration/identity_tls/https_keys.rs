//! A key set behind https, as issuers have it: trusted by the system's roots, and by nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use super::authority::{Authority, Pair};
use super::issuer::{AUDIENCE, Endpoint as KeyEndpoint, ISSUER, Signer, claims, key_set};
use super::{BOT, UNAUTHENTICATED};
use crate::support::process::{self, Serving};
use crate::support::redis::until;
use crate::support::request;
use crate::support::status::{Seen, seen};

/// TLS in front of the plain server.
async fn tls_before(server: SocketAddr, pair: &Pair) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let (Ok(mut client), Ok(mut server)) =
                    (acceptor.accept(stream).await, TcpStream::connect(server).await)
                else {
                    return;
                };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    addr
}

/// A gateway that trusts this authority alone.
fn serve(keys: SocketAddr, trusted: &Authority) -> Serving {
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), &trusted.pem).unwrap();
    let url = format!("https://localhost:{}/keys", keys.port());
    let config = json!({
        "identity": { "mode": "jwt", "jwt": { "issuer": ISSUER, "audience": AUDIENCE, "jwks_url": url } },
        "tenants": { "demo": { "subjects": [BOT], "instances": ["known"], "rate": "10/s", "burst": 10 } },
        "upstreams": { "main": { "region": "us-east-1", "instances": ["*"] } },
    });
    process::serve(
        config,
        &[("SSL_CERT_FILE", roots.path().to_str().unwrap()), ("SSL_CERT_DIR", "")],
    )
}

/// How a call with a good token ends, for an instance that is not the tenant's: nothing is sent.
async fn ends(addr: SocketAddr, signer: &Signer) -> Seen {
    let channel = Endpoint::from_shared(format!("http://{addr}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut call = Request::new(request("contact-1"));
    let token = signer.token(&claims(BOT, SystemTime::now()));
    call.metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    seen(
        &ParticipantServiceClient::new(channel)
            .create_participant(call)
            .await
            .unwrap_err(),
    )
}

#[tokio::test]
async fn a_key_set_is_had_over_https_from_whom_the_system_trusts() {
    let (signer, authority) = (Signer::new("a", "RS256"), Authority::new());
    let endpoint = KeyEndpoint::serving(&key_set([&signer])).await;
    let keys = tls_before(endpoint.addr, &authority.server(4000)).await;
    let gateway = serve(keys, &authority);
    let known = (Code::PermissionDenied, "INSTANCE_NOT_ALLOWED");
    until("the keys are there", async || ends(gateway.addr, &signer).await == known).await;
}

// Two threads: waiting for a line of the log blocks one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_set_from_anybody_else_is_not_trusted() {
    let signer = Signer::new("a", "RS256");
    let endpoint = KeyEndpoint::serving(&key_set([&signer])).await;
    let keys = tls_before(endpoint.addr, &Authority::new().server(4000)).await;
    let mut gateway = serve(keys, &Authority::new());
    let line = gateway.running.line_with("key set not loaded");
    assert!(line.contains("UnknownIssuer"), "{line}");
    assert_eq!(ends(gateway.addr, &signer).await, UNAUTHENTICATED);
}
