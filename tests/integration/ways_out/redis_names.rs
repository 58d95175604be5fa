//! TLS nodes that announce addresses which their certificates lack.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use serde_json::json;

use super::authority::Authority;
use super::redis_users::serve_on;
use super::{call_and_replay, row};
use crate::support::redis::RedisCluster;
use crate::support::until;

/// A CA, and a certificate for `localhost` that has no address.
fn certificates() -> tempfile::TempDir {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let pair = authority.sign(&params);
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    std::fs::write(dir.path().join("server.pem"), pair.cert).unwrap();
    std::fs::write(dir.path().join("server.key"), pair.key).unwrap();
    dir
}

#[tokio::test]
async fn nodes_that_stand_in_the_urls_are_connected_to_by_their_names() {
    let files = certificates();
    let cluster = RedisCluster::over_tls(files.path()).await;
    let redis = json!({
        "topology": "cluster", "urls": cluster.tls_urls("localhost"),
        "tls": { "ca_file": files.path().join("ca.pem") },
    });
    let gateway = serve_on(redis, &[]).await;
    call_and_replay(gateway.addr, "token-1").await.unwrap();
    row(
        "TLS nodes announce 127.0.0.1, certificates have localhost, each is in `urls`",
        "works by name",
    );
}

#[tokio::test]
async fn the_log_says_what_a_certificate_has_and_what_mends_it() {
    let files = certificates();
    let cluster = RedisCluster::over_tls(files.path()).await;
    // All calls go to one slot: seed another node than its owner.
    let owner = cluster.owner(&cluster.slot("pg:{main}:u").await).await;
    let seed = cluster.tls_urls("localhost").remove((owner + 1) % 3);
    let redis = json!({
        "topology": "cluster", "urls": [seed], "tls": { "ca_file": files.path().join("ca.pem") },
    });
    let mut gateway = serve_on(redis, &[]).await;
    let line = gateway.running.line_with("left out").await;
    for part in ["127.0.0.1:", "localhost", "cluster-announce-hostname"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    // What the log says mends it.
    cluster
        .everywhere(&["config", "set", "cluster-announce-hostname", "localhost"])
        .await;
    cluster
        .everywhere(&["config", "set", "cluster-preferred-endpoint-type", "hostname"])
        .await;
    until("the nodes are found", async || {
        call_and_replay(gateway.addr, &uuid::Uuid::new_v4().to_string()).await.is_ok()
    })
    .await;
    let nodes = serde_json::from_str::<serde_json::Value>(&line).unwrap()["nodes"].to_string();
    row("the same, one node in `urls`", format!("log: {nodes}; mended as it says"));
}
