//! A key set behind https, as issuers have it: trusted by the system's roots, and by nothing else.

use std::net::SocketAddr;
use std::time::SystemTime;

use serde_json::json;
use tonic::Code;

use super::authority::Authority;
use super::issuer::{Endpoint as KeyEndpoint, Signer, claims, key_set};
use super::{BOT, UNAUTHENTICATED, jwt, with_tokens};
use crate::support::gateway::Child;
use crate::support::status::{Seen, seen};
use crate::support::tls::tls_before;
use crate::support::{Front, until};

/// A gateway that trusts this authority alone.
async fn serve(keys: SocketAddr, trusted: &Authority) -> Child {
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), &trusted.pem).unwrap();
    let url = format!("https://localhost:{}/keys", keys.port());
    let trusts = [("SSL_CERT_FILE", roots.path().to_str().unwrap()), ("SSL_CERT_DIR", "")];
    jwt(&url)
        .with("/tenants/demo/instances", json!(["known"]))
        .serve_in(&trusts)
        .await
}

/// How a call with a good token ends, for an instance that is not the tenant's: nothing is sent.
async fn ends(gateway: &Front, signer: &Signer) -> Seen {
    let token = signer.token(&claims(BOT, SystemTime::now()));
    seen(&with_tokens(gateway, &[&token], "instance-1").await.unwrap_err())
}

#[tokio::test]
async fn a_key_set_is_had_over_https_from_whom_the_system_trusts() {
    let (signer, authority) = (Signer::new("a", "RS256"), Authority::new());
    let endpoint = KeyEndpoint::serving(&key_set([&signer])).await;
    let keys = tls_before(endpoint.addr, &authority.server(4000)).await;
    let gateway = serve(keys, &authority).await;
    let known = (Code::PermissionDenied, "INSTANCE_NOT_ALLOWED");
    until("the keys are there", async || ends(&gateway, &signer).await == known).await;
}

#[tokio::test]
async fn a_key_set_from_anybody_else_is_not_trusted() {
    let signer = Signer::new("a", "RS256");
    let endpoint = KeyEndpoint::serving(&key_set([&signer])).await;
    let keys = tls_before(endpoint.addr, &Authority::new().server(4000)).await;
    let mut gateway = serve(keys, &Authority::new()).await;
    let line = gateway.running.line_with("key set not loaded").await;
    assert!(line.contains("UnknownIssuer"), "{line}");
    assert_eq!(ends(&gateway, &signer).await, UNAUTHENTICATED);
}
