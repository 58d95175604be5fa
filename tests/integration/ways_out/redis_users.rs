//! Users and passwords, on every topology, as the README documents them.

use serde_json::{Value, json};

use super::{call_and_replay, row, serve, simulator};
use crate::support::process::Serving;
use crate::support::redis::{RedisCluster, RedisSentinel, RedisServer};
use crate::support::{key_file, set, until};

/// The words of the README's `ACL SETUSER` command, with this password.
fn documented_user(secret: &str) -> Vec<String> {
    let readme = include_str!("../../../README.md");
    let command = readme.split("redis-cli ACL SETUSER").nth(1).unwrap().split("```").next();
    let words = command.unwrap().replace('\\', " ").replace('\'', "");
    let words = words.split_whitespace().map(|word| match word {
        ">SECRET" => format!(">{secret}"),
        word => word.to_owned(),
    });
    ["acl", "setuser"].into_iter().map(str::to_owned).chain(words).collect()
}

pub async fn grant(server: &RedisServer, secret: &str) {
    let words = documented_user(secret);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    server.command(&words).await;
}

/// The gateway on this Redis; what Redis refuses, it refuses, too.
pub async fn serve_on(redis: Value, environment: &[(&str, &str)]) -> Serving {
    let (mut config, _) = simulator().await;
    set(&mut config, "/store", json!({ "kind": "redis", "on_loss": "reject", "redis": redis }));
    set(&mut config, "/store/redis/timeout", "2s".into());
    let root = key_file("ways-out");
    set(&mut config, "/idempotency", json!({ "root_key_file": root }));
    serve(config, environment).await
}

pub fn password(secret: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{secret}\n")).unwrap();
    file
}

#[tokio::test]
async fn the_documented_user_suffices_on_one_server() {
    let server = RedisServer::start().await;
    grant(&server, "canary").await;
    let file = password("canary");
    let url = server.url().replace("redis://", "valkey://");
    let redis = json!({ "urls": [url], "username": "gateway", "password_file": file.path() });
    let gateway = serve_on(redis, &[]).await;
    call_and_replay(gateway.addr, "token-1").await.unwrap();
    row("the README's ACL user, standalone, `valkey://`", "a call and its replay");
}

#[tokio::test]
async fn the_documented_user_suffices_on_a_cluster_also_while_a_slot_moves() {
    let cluster = RedisCluster::start().await;
    for node in cluster.nodes() {
        grant(node, "canary").await;
    }
    let file = password("canary");
    let redis = json!({
        "topology": "cluster", "urls": [cluster.urls()[0]], "username": "gateway", "password_file": file.path(),
    });
    let gateway = serve_on(redis, &[]).await;
    call_and_replay(gateway.addr, "token-1").await.unwrap();
    let slot = cluster.slot("pg:{main}:u").await;
    let from = cluster.owner(&slot).await;
    let to = (from + 1) % 3;
    cluster.begin_move(&slot, from, to).await;
    cluster.end_move(&slot, from, to).await;
    until("calls follow the slot", async || {
        call_and_replay(gateway.addr, &uuid::Uuid::new_v4().to_string()).await.is_ok()
    })
    .await;
    row(
        "the README's ACL user on a cluster, a slot moves",
        "a call and its replay, before and after",
    );
}

#[tokio::test]
async fn the_documented_user_suffices_behind_sentinel_also_after_a_failover() {
    let sentinel = RedisSentinel::start().await;
    for server in [&sentinel.master, &sentinel.replica] {
        grant(server, "canary").await;
    }
    let file = password("canary");
    let redis = json!({
        "topology": "sentinel", "sentinel_master": RedisSentinel::MASTER, "urls": [sentinel.url()],
        "username": "gateway", "password_file": file.path(),
    });
    let gateway = serve_on(redis, &[]).await;
    call_and_replay(gateway.addr, "token-1").await.unwrap();
    sentinel.fail_over().await;
    until("the new master serves", async || {
        call_and_replay(gateway.addr, &uuid::Uuid::new_v4().to_string()).await.is_ok()
    })
    .await;
    row(
        "the README's ACL user behind Sentinel, a failover",
        "a call and its replay, before and after",
    );
}

#[tokio::test]
async fn one_password_for_sentinels_and_servers_works_without_a_further_key() {
    let sentinel = RedisSentinel::with_password(Some("canary")).await;
    for server in [&sentinel.master, &sentinel.replica] {
        grant(server, "canary").await;
    }
    let file = password("canary");
    for username in [json!("gateway"), json!(null)] {
        if username.is_null() {
            // The default user, as `requirepass` means it.
            let words = ["sentinel", "set", RedisSentinel::MASTER, "auth-pass", "canary"];
            sentinel.sentinel().command(&words).await;
            sentinel.replica.command(&["config", "set", "masterauth", "canary"]).await;
            sentinel.master.command(&["config", "set", "requirepass", "canary"]).await;
        }
        let redis = json!({
            "topology": "sentinel", "sentinel_master": RedisSentinel::MASTER, "urls": [sentinel.url()],
            "username": username, "password_file": file.path(),
        });
        let gateway = serve_on(redis, &[]).await;
        // A sentinel whose own password for the master has just changed connects anew first.
        until("the master is found", async || {
            call_and_replay(gateway.addr, &uuid::Uuid::new_v4().to_string()).await.is_ok()
        })
        .await;
    }
    row("a sentinel with `requirepass`, one password for both", "works without a further key");
}

#[tokio::test]
async fn sentinels_may_have_a_user_and_a_password_of_their_own() {
    let sentinel = RedisSentinel::start().await;
    let words =
        ["acl", "setuser", "watcher", "on", ">other", "-@all", "+sentinel|masters", "+role"];
    sentinel.sentinel().command(&words).await;
    sentinel
        .sentinel()
        .command(&["acl", "setuser", "default", "-@all", "+auth"])
        .await;
    let other = password("other");
    let redis = json!({
        "topology": "sentinel", "sentinel_master": RedisSentinel::MASTER, "urls": [sentinel.url()],
        "sentinel_username": "watcher", "sentinel_password_file": other.path(),
    });
    let gateway = serve_on(redis, &[]).await;
    call_and_replay(gateway.addr, "token-1").await.unwrap();
    row(
        "`sentinel_username` and `sentinel_password_file`",
        "an ACL user with `+sentinel|masters +role`",
    );
}

#[tokio::test]
async fn a_rotated_password_is_the_one_of_every_new_connection_of_a_cluster() {
    let cluster = RedisCluster::start().await;
    for node in cluster.nodes() {
        grant(node, "first").await;
    }
    let file = password("first");
    let redis = json!({
        "topology": "cluster", "urls": cluster.urls(), "username": "gateway", "password_file": file.path(),
    });
    let gateway = serve_on(redis, &[]).await;
    call_and_replay(gateway.addr, "token-1").await.unwrap();
    std::fs::write(file.path(), "second\n").unwrap();
    for node in cluster.nodes() {
        node.command(&["acl", "setuser", "gateway", ">second", "<first"]).await;
        // Its connections end; the client makes new ones by itself.
        node.command(&["client", "kill", "user", "gateway"]).await;
    }
    until("the new password is taken", async || {
        call_and_replay(gateway.addr, &uuid::Uuid::new_v4().to_string()).await.is_ok()
    })
    .await;
    let refused = cluster.nodes()[0].command(&["acl", "log"]).await;
    assert!(!format!("{refused:?}").contains("auth"), "the old password was used: {refused:?}");
    row("a cluster's password rotated in its file", "the new one, on every connection");
}
