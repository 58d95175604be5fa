//! `levels` and `record`: the real program against a real Redis, beside a gateway that serves on it.

mod ends;
mod forgetting;
mod levels;
mod records;
mod topologies;

use std::path::Path;
use std::process::{Output, Stdio};

use participant_gateway::proto::CreateParticipantRequest;
use serde_json::Value;

use crate::support::gateway::Child;
use crate::support::process::{printed, program};
use crate::support::redis::RedisServer;
use crate::support::{Plan, gateway, request_with_token};

/// A gateway on the Redis that the tests share, one attempt a call.
async fn serving(
    change: impl FnOnce(Plan) -> Plan,
) -> (Child, std::sync::Arc<RedisServer>, String) {
    let server = RedisServer::shared().await;
    let prefix = uuid::Uuid::new_v4().to_string();
    let plan = gateway().on_redis(&server.url(), &prefix).patient();
    let plan = plan.with("/upstreams/main/max_attempts", 1);
    (change(plan).serve().await, server, prefix)
}

/// Runs a command of the operator's with this config, without a terminal.
async fn command(config: &Path, arguments: &[&str]) -> Output {
    let mut command = program();
    let (name, rest) = arguments.split_first().unwrap();
    command.arg(name).arg("--config").arg(config).args(rest).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// The JSON that the command prints; it ends with 0.
async fn json(config: &Path, arguments: &[&str]) -> Value {
    let output = command(config, &[arguments, &["--json"]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The table that the command prints, which fits 100 columns; it ends with 0.
async fn table(config: &Path, arguments: &[&str]) -> String {
    let output = command(config, arguments).await;
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let table = String::from_utf8(output.stdout).unwrap();
    for line in table.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    table
}

/// A call whose texts must not be seen anywhere.
fn secretive(contact: &str, token: &str) -> CreateParticipantRequest {
    let mut request = request_with_token(contact, token);
    request.participant_details.as_mut().unwrap().display_name = "canary-display-name".to_owned();
    request
}

fn of_record(token: &str) -> [&str; 7] {
    ["record", "--tenant", "demo", "--upstream", "main", "--client-token", token]
}
