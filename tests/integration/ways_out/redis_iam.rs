//! IAM authentication: in front of a real Redis, a door that takes signed tokens only.
//!
//! It checks them by the letter of AWS's "Signature Version 4" reference, with a hand of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::{digest, hmac};
use participant_gateway::simulator;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::redis_users::serve_on;
use super::{KEYS, call_and_replay, check, config, row};
use crate::support::redis::{RedisServer, free_port};
use crate::support::set;

/// What a token says of itself, and whether its signature is good.
fn verified(token: &str, secret: &str) -> Option<BTreeMap<String, String>> {
    let (host, query) = token.split_once("/?")?;
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut raw: BTreeMap<&str, &str> = pairs.collect();
    let signature = raw.remove("X-Amz-Signature")?;
    let canonical: Vec<_> = raw.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let body = hex(digest::digest(&digest::SHA256, b"").as_ref());
    let canonical = format!("GET\n/\n{}\nhost:{host}\n\nhost\n{body}", canonical.join("&"));
    let credential = raw.get("X-Amz-Credential")?.replace("%2F", "/");
    let scope = credential.split_once('/')?.1.to_owned();
    let (date, time) = (scope.split('/').next()?, raw.get("X-Amz-Date")?);
    let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashed}");
    let mac = |key: &[u8], data: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, data.as_bytes()).as_ref().to_vec()
    };
    let mut key = mac(format!("AWS4{secret}").as_bytes(), date);
    for part in scope.split('/').skip(1) {
        key = mac(&key, part);
    }
    let said = raw.iter().map(|(key, value)| ((*key).to_owned(), value.replace("%2F", "/")));
    let said = said.chain([("host".to_owned(), host.to_owned())]).collect();
    (hex(&mac(&key, &to_sign)) == signature).then_some(said)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The tokens that were good, in front of a server with one user.
struct Door {
    addr: SocketAddr,
    taken: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
}

impl Door {
    async fn before(server: u16, listener: TcpListener) -> Self {
        let addr = listener.local_addr().unwrap();
        let taken = Arc::<Mutex<Vec<_>>>::default();
        let all = Arc::clone(&taken);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server, Arc::clone(&all)));
            }
        });
        Self { addr, taken }
    }
}

/// Hands every command on, `AUTH` with the server's own password where the token is good.
async fn pass(client: TcpStream, server: u16, taken: Arc<Mutex<Vec<BTreeMap<String, String>>>>) {
    let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
    let (mut from_server, mut to_server) = server.into_split();
    let (from_client, mut to_client) = client.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut from_client = BufReader::new(from_client);
    while let Some(mut words) = command(&mut from_client).await {
        if words[0].eq_ignore_ascii_case(b"auth") {
            let token = String::from_utf8(words.pop().unwrap()).unwrap();
            let good = verified(&token, simulator::SECRET_ACCESS_KEY);
            words.push(if good.is_some() { b"inner".to_vec() } else { b"no".to_vec() });
            taken.lock().unwrap().extend(good);
        }
        let mut packed = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            packed.extend(format!("${}\r\n", word.len()).bytes());
            packed.extend(word);
            packed.extend(b"\r\n");
        }
        if to_server.write_all(&packed).await.is_err() {
            return;
        }
    }
}

async fn command(from: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    for _ in 0..length(from).await? {
        let mut word = vec![0; length(from).await? + 2];
        from.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(word);
    }
    Some(words)
}

async fn length(from: &mut (impl AsyncBufReadExt + Unpin)) -> Option<usize> {
    let mut line = String::new();
    from.read_line(&mut line).await.ok()?;
    line.trim().get(1..)?.parse().ok()
}

async fn only_gateway(server: &RedisServer) {
    server
        .command(&["acl", "setuser", "gateway", "on", ">inner", "~*", "+@all"])
        .await;
    server.command(&["config", "set", "requirepass", "control"]).await;
}

#[tokio::test]
async fn a_server_gets_a_signed_token_for_a_password() {
    let server = RedisServer::start().await;
    let door = Door::before(server.port(), TcpListener::bind("127.0.0.1:0").await.unwrap()).await;
    only_gateway(&server).await;
    let redis = json!({
        "urls": [format!("redis://{}", door.addr)], "username": "gateway",
        "iam": { "cache": "Chat-1", "region": "eu-central-1", "serverless": true },
    });
    let gateway = serve_on(redis.clone(), &[("AWS_SESSION_TOKEN", "session/1")]).await;
    call_and_replay(gateway.addr, "token-1").await.unwrap();
    let taken = door.taken.lock().unwrap()[0].clone();
    for (key, expected) in [
        ("host", "chat-1"),
        ("Action", "connect"),
        ("User", "gateway"),
        ("ResourceType", "ServerlessCache"),
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Expires", "900"),
        ("X-Amz-SignedHeaders", "host"),
        ("X-Amz-Security-Token", "session/1"),
    ] {
        assert_eq!(taken.get(key).map(String::as_str), Some(expected), "{key} of {taken:?}");
    }
    let scope = &taken["X-Amz-Credential"];
    assert!(scope.ends_with("/eu-central-1/elasticache/aws4_request"), "{scope}");

    let wrong = serve_on(redis, &[("AWS_SECRET_ACCESS_KEY", "wrong")]).await;
    assert_eq!(call_and_replay(wrong.addr, "token-2").await.unwrap_err(), "STORE_UNAVAILABLE");
    row(
        "`store.redis.iam`, standalone",
        "a signed token for each connection; a wrong key is refused",
    );
}

#[tokio::test]
async fn every_node_of_a_cluster_gets_a_token() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (announced, bus) =
        (listener.local_addr().unwrap().port().to_string(), free_port().to_string());
    let server = RedisServer::with_args(&[
        "--cluster-enabled",
        "yes",
        "--cluster-config-file",
        "nodes.conf",
        "--cluster-port",
        &bus,
        "--cluster-announce-port",
        &announced,
        "--cluster-announce-ip",
        "127.0.0.1",
    ])
    .await;
    server.command(&["cluster", "addslotsrange", "0", "16383"]).await;
    let door = Door::before(server.port(), listener).await;
    only_gateway(&server).await;
    let redis = json!({
        "topology": "cluster", "urls": [format!("redis://{}", door.addr)], "username": "gateway",
        "iam": { "cache": "chat", "service": "memorydb" },
    });
    let gateway = serve_on(redis, &[("AWS_REGION", "eu-west-1")]).await;
    crate::support::until("the cluster is whole", async || {
        call_and_replay(gateway.addr, &uuid::Uuid::new_v4().to_string()).await.is_ok()
    })
    .await;
    let taken = door.taken.lock().unwrap()[0].clone();
    let scope = &taken["X-Amz-Credential"];
    assert!(scope.ends_with("/eu-west-1/memorydb/aws4_request"), "{scope}");
    assert_eq!(taken.get("ResourceType"), None);
    row("`store.redis.iam`, cluster, MemoryDB, AWS_REGION", "a signed token for each node");
}

#[test]
fn what_iam_cannot_work_with_is_a_problem() {
    let root = crate::support::key_file("ways-out");
    for (redis, path) in [
        (json!({ "iam": { "cache": "chat", "region": "eu-west-1" } }), "store.redis.username"),
        (json!({ "username": "u", "iam": { "region": "eu-west-1" } }), "store.redis.iam.cache"),
        (json!({ "username": "u", "iam": { "cache": "chat" } }), "store.redis.iam.region"),
        (
            json!({ "username": "u", "iam": { "cache": "chat", "region": "eu-west-1" }, "urls": ["redis://cache:6379"] }),
            "store.redis.urls[0]",
        ),
        (
            json!({ "username": "u", "iam": { "cache": "c", "region": "r-1" }, "topology": "sentinel", "sentinel_master": "m" }),
            "store.redis.topology",
        ),
        (
            json!({ "username": "u", "password_file": root, "iam": { "cache": "c", "region": "r-1" } }),
            "store.redis.iam: ",
        ),
    ] {
        let mut config = config(json!({}));
        set(&mut config, "/store", json!({ "kind": "redis", "redis": redis }));
        set(&mut config, "/idempotency", json!({ "root_key_file": root }));
        let (code, printed) = check(&config, &KEYS);
        assert_eq!(code, Some(78), "{printed}");
        assert!(printed.lines().any(|line| line.starts_with(path)), "{path} is not in {printed}");
    }
}
