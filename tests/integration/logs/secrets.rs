//! No secret is in the log, at TRACE and with a directive for every library that logs.

use participant_gateway::simulator;
use serde_json::{Value, json};

use super::{call, connect_that_says};
use crate::support::redis::RedisServer;
use crate::support::{Front, Plan, gateway, key_file};

/// A directive at TRACE for everything, and for each package of the lock file that logs. Some
/// modules of these have one, too, since the longest target that matches decides.
fn every_directive() -> String {
    let lock = include_str!("../../../Cargo.lock");
    let packages = lock.split("[[package]]").filter_map(|package| {
        let logs = package.contains("\"tracing") || package.contains("\"log\"");
        let name = package.split("name = \"").nth(1)?.split('"').next()?;
        logs.then(|| name.to_owned())
    });
    let mut targets: Vec<_> = packages.collect();
    for known in
        ["aws-smithy-runtime", "aws-sdk-connect", "h2", "hyper-util", "redis", "rustls", "tonic"]
    {
        assert!(targets.iter().any(|target| target == known), "{known} is not in {targets:?}");
    }
    targets.extend(
        [
            "aws_sigv4::http_request::sign",
            "aws_smithy_runtime::client::orchestrator",
            "h2::codec",
            "h2::frame",
            "h2::hpack",
            "h2::proto",
            "hyper",
            "hyper::proto",
            "jsonwebtoken",
            "prost",
            "redis::aio",
            "tonic::codec",
        ]
        .map(str::to_owned),
    );
    let modules = targets.iter().map(|target| target.replace('-', "_"));
    let directives: Vec<_> = targets
        .iter()
        .cloned()
        .chain(modules)
        .map(|target| format!("{target}=trace"))
        .collect();
    format!("trace,{}", directives.join(","))
}

/// The gateway's whole log, and what it was asked to keep to itself.
async fn log_of(plan: Plan, use_it: impl AsyncFnOnce(&Front)) -> Vec<String> {
    let gateway = plan
        .with("/telemetry/log/level", "trace")
        .serve_in(&[
            ("RUST_LOG", &every_directive()),
            ("AWS_SESSION_TOKEN", "canary-session-token"),
        ])
        .await;
    use_it(&gateway).await;
    gateway.running.signal("TERM");
    gateway.running.end().await.1
}

#[tokio::test]
async fn no_secret_is_logged_with_every_directive_there_is() {
    let server = RedisServer::with_password("canary-redis-password").await;
    let url = server.url().replace("redis://", "redis://:canary-redis-password@");
    let mut token = String::new();
    let lines = log_of(gateway().on_redis(&url, "pg").patient(), async |gateway| {
        let reply = call(gateway, "canary-contact").await.unwrap().into_inner();
        token = reply.participant_credentials.unwrap().participant_token;
        call(gateway, "canary-contact").await.unwrap();
        for contact in [
            "sim-garbage",
            "sim-no-token",
            "sim-internal",
            "sim-invalid",
            "sim-reset",
            "sim-throttled",
        ] {
            call(gateway, contact).await.unwrap_err();
        }
    })
    .await;
    let root = std::fs::read_to_string(key_file("root")).unwrap();
    let log = lines.join("\n");
    for target in ["aws_smithy_runtime", "hyper_util", "h2", "participant_gateway"] {
        assert!(log.contains(&format!("\"target\":\"{target}")), "{target} is not heard");
    }
    for (name, secret) in [
        ("canary", "canary"),
        ("participant token", &token),
        ("secret key", simulator::SECRET_ACCESS_KEY),
        ("root key", root.trim()),
    ] {
        let found = lines.iter().find(|line| line.contains(secret));
        assert!(found.is_none(), "the log holds the {name}: {found:?}");
    }
    for line in &lines {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[tokio::test]
async fn neither_is_what_connect_says_nor_what_cannot_be_used() {
    for (status, body) in [
        (
            "200 OK",
            r#"{"ParticipantId":"p","ParticipantCredentials":{"ParticipantToken":"canary-token","Expiry":5}}"#,
        ),
        ("403 Forbidden", r#"{"__type":"AccessDeniedException","message":"canary-contact"}"#),
    ] {
        let endpoint = connect_that_says(status, body).await;
        let plan = gateway().with("/upstreams/main/endpoint_url", endpoint);
        let lines = log_of(plan, async |gateway| {
            call(gateway, "canary-contact").await.unwrap_err();
        })
        .await;
        let found = lines.iter().find(|line| line.contains("canary"));
        assert!(found.is_none(), "{status}: {found:?}");
    }
}

#[tokio::test]
async fn neither_is_a_bearer_token_that_is_looked_at() {
    let plan = gateway()
        .with(
            "/identity",
            json!({ "mode": "jwt", "jwt": {
            "issuer": "https://issuer.example", "audience": "gateway",
            "jwks_file": jwks().path(),
        } }),
        )
        .with("/tenants/demo/subjects", json!(["someone"]));
    let lines = log_of(plan, async |gateway| {
        call(gateway, "canary-contact").await.unwrap_err();
    })
    .await;
    let found = lines.iter().find(|line| line.contains("canary"));
    assert!(found.is_none(), "{found:?}");
}

/// A key set without keys.
fn jwks() -> &'static tempfile::NamedTempFile {
    static FILE: std::sync::LazyLock<tempfile::NamedTempFile> = std::sync::LazyLock::new(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"keys":[]}"#).unwrap();
        file
    });
    &FILE
}
