//! How the operator's commands end where they have no answer.

use std::time::{Duration, Instant};

use serde_json::json as value;

use super::{command, of_record, serving};
use crate::support::process::printed;
use crate::support::redis::RedisServer;
use crate::support::{ClosedPort, gateway, key_file};

/// Writes a config for this store.
fn config(store: serde_json::Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let plan = gateway().with("/store", store);
    plan.with("/idempotency/root_key_file", key_file("root").display().to_string())
        .write(file.path());
    file
}

#[tokio::test]
async fn the_memory_store_is_known_to_its_own_process_only() {
    let file = config(value!({ "kind": "memory" }));
    for arguments in [&["levels"][..], &of_record("token")] {
        let output = command(file.path(), arguments).await;
        assert_eq!(output.status.code(), Some(78), "{arguments:?}");
        assert!(printed(&output).contains("store.kind"), "{}", printed(&output));
    }
}

#[tokio::test]
async fn names_that_the_config_lacks_end_with_64_and_name_those_that_it_has() {
    let (gateway, _server, _) = serving(|plan| plan).await;
    for (arguments, known) in [
        (&["levels", "--tenant", "nobody"][..], "demo"),
        (&["levels", "--upstream", "nowhere"], "main"),
        (&["record", "--tenant", "nobody", "--upstream", "main", "--client-token", "t"], "demo"),
        (&["record", "--tenant", "demo", "--upstream", "nowhere", "--client-token", "t"], "main"),
    ] {
        let output = command(gateway.config(), arguments).await;
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let text = printed(&output);
        assert!(text.contains(known) && text.contains("no"), "{text}");
    }
    for arguments in [
        &["record", "--tenant", "demo", "--upstream", "main"][..],
        &["record", "--tenant", "demo", "--upstream", "main", "--client-token", ""],
        &["record", "--tenant", "demo", "--upstream", "main", "--client-token", "t", "--yes"],
    ] {
        let output = command(gateway.config(), arguments).await;
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
    let token = "canary".repeat(100);
    let output = command(gateway.config(), &of_record(&token)).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(printed(&output).contains("600 characters") && !printed(&output).contains("canary"));
}

#[tokio::test]
async fn a_redis_that_cannot_be_had_ends_with_70_soon() {
    let silent = RedisServer::start().await;
    silent.pause();
    let closed_port = ClosedPort::new();
    let closed = format!("redis://:canary-password@{}", closed_port.addr());
    let locked = RedisServer::with_password("the-right-one").await;
    let wrong = locked.url().replace("redis://", "redis://:canary-password@");
    for url in [closed, silent.url(), wrong] {
        let file = config(value!({ "kind": "redis", "redis": { "urls": [url] } }));
        for arguments in [&["levels"][..], &of_record("canary-token")] {
            let started = Instant::now();
            let output = command(file.path(), arguments).await;
            let text = printed(&output);
            assert_eq!(output.status.code(), Some(70), "{text}");
            assert!(text.contains("store:") && !text.contains("canary"), "{text}");
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        }
    }
}
