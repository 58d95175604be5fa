//! Cluster, Sentinel and TLS, each as it is run.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use participant_gateway::admission::redis::{RedisSettings, RedisStore, TlsFiles, Topology};
use participant_gateway::admission::{Decision, Settled, Store};

use super::world::*;
use crate::support::redis::{RedisCluster, RedisSentinel, RedisServer, free_port};
use crate::support::{ClosedPort, until_within};

fn store(topology: Topology, urls: Vec<String>) -> RedisStore {
    RedisStore::new(RedisSettings::new(topology, urls)).unwrap()
}

async fn runs_a_call(store: &RedisStore, upstream: &str, token: &str) {
    let mut call = World::memory().await.keyed(token, "x");
    call.scope.upstream = name(upstream);
    let decision = store.admit(&call).await.unwrap().decision;
    assert!(matches!(decision, Decision::Granted { .. }), "{decision:?}");
    assert_eq!(store.settle(&settlement(&call, done("sealed"))).await.unwrap(), Settled::Closed);
    assert_eq!(store.admit(&call).await.unwrap().decision, replay("sealed"));
}

#[tokio::test]
async fn on_a_cluster_every_upstream_finds_its_node_and_follows_its_slot() {
    let cluster = RedisCluster::start().await;
    let store = store(Topology::Cluster, vec![cluster.urls().remove(0)]);
    for number in 0..12 {
        runs_a_call(&store, &format!("upstream-{number}"), "a").await;
    }
    store.probe().await.unwrap();

    let slot = cluster.slot("pg:{main}:u").await;
    let from = cluster.owner(&slot).await;
    let to = (from + 1) % 3;
    let running = World::memory().await.keyed("running", "x");
    store.admit(&running).await.unwrap();
    cluster.begin_move(&slot, from, to).await;
    cluster.end_move(&slot, from, to).await;
    assert_eq!(cluster.owner(&slot).await, to);
    assert_eq!(store.settle(&settlement(&running, done("sealed"))).await.unwrap(), Settled::Closed);
    assert_eq!(store.admit(&running).await.unwrap().decision, replay("sealed"));
    runs_a_call(&store, "main", "moved").await;
}

/// Redis itself: a script over several keys is refused while some of them are here and some there.
#[tokio::test]
async fn on_a_cluster_a_slot_on_its_way_is_an_error_in_time_and_serves_on_arrival() {
    let cluster = RedisCluster::start().await;
    let store = store(Topology::Cluster, cluster.urls());
    runs_a_call(&store, "main", "before").await;
    let slot = cluster.slot("pg:{main}:u").await;
    let from = cluster.owner(&slot).await;
    let to = (from + 1) % 3;
    cluster.begin_move(&slot, from, to).await;
    let started = Instant::now();
    store.admit(&World::memory().await.keyed("during", "x")).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    cluster.end_move(&slot, from, to).await;
    runs_a_call(&store, "main", "after").await;
}

#[tokio::test]
async fn on_a_cluster_a_lost_node_is_an_error_in_time_and_the_others_serve() {
    let cluster = RedisCluster::start().await;
    for node in cluster.nodes() {
        node.command(&["config", "set", "cluster-require-full-coverage", "no"]).await;
    }
    let store = store(Topology::Cluster, cluster.urls());
    let mut owners = Vec::new();
    for number in 0..12 {
        let upstream = format!("upstream-{number}");
        runs_a_call(&store, &upstream, "a").await;
        let slot = cluster.slot(&format!("pg:{{{upstream}}}:upstream")).await;
        owners.push((upstream, cluster.owner(&slot).await));
    }
    cluster.nodes()[2].pause();
    for (upstream, owner) in owners {
        let mut scope = scope();
        scope.upstream = name(&upstream);
        let started = Instant::now();
        let quota = store.quota(&scope).await;
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        if owner == 2 {
            quota.unwrap_err();
        } else if quota.is_err() {
            // The connection to all nodes was just replaced.
            until_within(BACK, "the other nodes serve", async || store.quota(&scope).await.is_ok())
                .await;
        }
    }
    cluster.nodes()[2].resume();
}

#[tokio::test]
async fn by_sentinel_the_master_is_found_and_a_new_one_followed() {
    let sentinel = RedisSentinel::start().await;
    let topology = Topology::Sentinel { master: RedisSentinel::MASTER.into() };
    let closed = ClosedPort::new();
    let nowhere = format!("redis://{}", closed.addr());
    let store = store(topology, vec![nowhere, sentinel.url()]);
    runs_a_call(&store, "main", "a").await;
    sentinel.fail_over().await;
    until_within(BACK, "the new master serves", async || store.probe().await.is_ok()).await;
    runs_a_call(&store, "main", "b").await;
    let exists = sentinel.replica.command(&["exists", "pg:{main}:record:record-of-b"]).await;
    assert_eq!(exists, redis::Value::Int(1));
}

#[tokio::test]
async fn over_tls_only_a_known_authority_is_trusted_and_a_client_shows_its_own() {
    let dir = tempfile::tempdir().unwrap();
    for (authority, leaf) in [("ca", "server"), ("ca", "client"), ("other-ca", "other")] {
        sign(dir.path(), authority, leaf);
    }
    let file = |name: &str| dir.path().join(name);
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    let (plain, secure) = (RedisServer::start().await, free_port().to_string());
    for (setting, value) in [
        ("tls-cert-file", path("server.pem")),
        ("tls-key-file", path("server.key")),
        ("tls-ca-cert-file", path("ca.pem")),
    ] {
        plain.command(&["config", "set", setting, &value]).await;
    }
    plain.command(&["config", "set", "tls-port", &secure]).await;
    let connect = async |tls: TlsFiles| {
        let settings = RedisSettings {
            tls,
            timeout: Duration::from_secs(2),
            ..RedisSettings::standalone(format!("rediss://127.0.0.1:{secure}"))
        };
        RedisStore::new(settings).unwrap().probe().await
    };
    let (ca_file, none) = (Some(file("ca.pem")), TlsFiles::default());
    let full = TlsFiles {
        ca_file,
        cert_file: Some(file("client.pem")),
        key_file: Some(file("client.key")),
    };
    connect(full.clone()).await.unwrap();
    connect(TlsFiles { cert_file: None, key_file: None, ..full.clone() })
        .await
        .unwrap_err();
    connect(TlsFiles { ca_file: Some(file("other-ca.pem")), ..full.clone() })
        .await
        .unwrap_err();
    connect(TlsFiles { ca_file: None, ..full.clone() }).await.unwrap_err();
    connect(TlsFiles { ca_file: Some(file("absent.pem")), ..full })
        .await
        .unwrap_err();
    plain.command(&["config", "set", "tls-auth-clients", "no"]).await;
    connect(TlsFiles { ca_file: Some(file("ca.pem")), ..none }).await.unwrap();
}

/// An authority, where it is new, and a leaf for 127.0.0.1 that it has signed.
fn sign(dir: &Path, authority: &str, leaf: &str) {
    let openssl = |args: &str| {
        let done = Command::new("openssl")
            .args(args.split(' '))
            .current_dir(dir)
            .output()
            .expect("openssl is installed");
        assert!(done.status.success(), "{args}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    if !dir.join(format!("{authority}.pem")).exists() {
        openssl(&format!(
            "req -x509 {key} -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
        ));
    }
    std::fs::write(dir.join("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    openssl(&format!("req {key} -subj /CN={leaf} -keyout {leaf}.key -out {leaf}.csr"));
    openssl(&format!(
        "x509 -req -in {leaf}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 2 -extfile ext -out \
         {leaf}.pem"
    ));
}

/// Until a store is in use again, once it can be reached.
const BACK: Duration = Duration::from_secs(2);
