//! The commands reach every Redis that a gateway reaches, as the user that the README documents.

use serde_json::{Value, json as value};

use super::{json, of_record, secretive};
use crate::support::gateway;
use crate::support::redis::{RedisCluster, RedisSentinel, RedisServer};
use crate::ways_out::{grant, password};

async fn are_answered(redis: Value) {
    let root = crate::support::key_file("root").display().to_string();
    let plan = gateway().with("/store/kind", "redis").with("/store/redis", redis);
    let gateway = plan.with("/idempotency/root_key_file", root).serve().await;
    gateway.call(secretive("contact", "token")).await.unwrap();
    let levels = json(gateway.config(), &["levels"]).await;
    assert_eq!(levels["upstreams"][0]["tenants"][0]["burst"], 1000);
    assert_eq!(json(gateway.config(), &of_record("token")).await["state"], "done");
    let forget = [&of_record("token")[..], &["--forget", "--yes"]].concat();
    assert_eq!(json(gateway.config(), &forget).await["forgotten"], true);
    assert_eq!(json(gateway.config(), &of_record("token")).await["state"], "absent");
}

#[tokio::test]
async fn one_server_with_the_documented_user() {
    let server = RedisServer::start().await;
    grant(&server, "canary").await;
    let file = password("canary");
    are_answered(value!({ "urls": [server.url()], "username": "gateway",
        "password_file": file.path(), "timeout": "5s" }))
    .await;
}

#[tokio::test]
async fn a_cluster_with_the_documented_user() {
    let cluster = RedisCluster::start().await;
    for node in cluster.nodes() {
        grant(node, "canary").await;
    }
    let file = password("canary");
    are_answered(
        value!({ "topology": "cluster", "urls": [cluster.urls()[0]], "username": "gateway",
        "password_file": file.path(), "timeout": "5s" }),
    )
    .await;
}

#[tokio::test]
async fn the_master_that_a_sentinel_names() {
    let sentinel = RedisSentinel::start().await;
    are_answered(value!({ "topology": "sentinel", "urls": [sentinel.url()],
        "sentinel_master": RedisSentinel::MASTER, "timeout": "5s" }))
    .await;
}
