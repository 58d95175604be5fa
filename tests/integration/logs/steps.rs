//! A call's steps in the log at `debug`, and the libraries that `RUST_LOG` lets be heard.

use serde_json::Value;

use super::{asking, call, serving};
use crate::support::gateway::Child;
use crate::support::process::{printed, program};
use crate::support::redis::RedisServer;
use crate::support::{Plan, gateway};

/// The lines of the calls with the request id that `call` gives, by their message.
async fn ended(gateway: Child) -> Vec<Value> {
    gateway.running.signal("TERM");
    let (code, lines) = gateway.running.end().await;
    assert_eq!(code, Some(0));
    let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["request_id"] == "req-1").collect()
}

fn messages(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["message"].as_str().unwrap()).collect()
}

fn with<'a>(lines: &'a [Value], message: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["message"] == message).collect()
}

async fn on_redis() -> (std::sync::Arc<RedisServer>, Plan) {
    let server = RedisServer::shared().await;
    let prefix = uuid::Uuid::new_v4().to_string();
    let plan = gateway().on_redis(&server.url(), &prefix).patient();
    (server, plan)
}

#[tokio::test]
async fn at_debug_every_step_of_a_call_has_its_request_id() {
    let (_server, plan) = on_redis().await;
    let gateway = serving("debug", plan).await;
    call(&gateway, "sim-flaky-1").await.unwrap();
    call(&gateway, "sim-flaky-1").await.unwrap();
    let lines = ended(gateway).await;
    let asked: Vec<_> = with(&lines, "decision of the store")
        .iter()
        .map(|line| (line["stage"].as_str().unwrap(), line["decision"].as_str().unwrap()))
        .collect();
    assert_eq!(asked, [("call", "granted"), ("attempt", "granted"), ("call", "replay")]);
    let attempts = with(&lines, "attempt at Connect");
    assert_eq!(attempts.len(), 2, "{:?}", messages(&lines));
    assert_eq!((&attempts[0]["attempt"], &attempts[0]["outcome"]), (&1.into(), &"internal".into()));
    assert_eq!(attempts[0]["status"], 500);
    assert!(attempts[0]["wait"].as_f64().unwrap() > 0.0, "{}", attempts[0]);
    assert_eq!((&attempts[1]["attempt"], &attempts[1]["outcome"]), (&2.into(), &"ok".into()));
    assert!(attempts[1]["wait"].is_null() && attempts[1]["duration"].as_f64().unwrap() > 0.0);
    let settled = with(&lines, "settlement");
    assert_eq!(settled.len(), 1);
    assert_eq!((&settled[0]["verdict"], &settled[0]["closed"]), (&"done".into(), &true.into()));
    assert_eq!(with(&lines, "loading credentials").len(), 1, "{:?}", messages(&lines));
    assert_eq!(with(&lines, "credentials loaded").len(), 1);
    assert_eq!(with(&lines, "call").len(), 2);
    for line in &lines {
        let expected = if line["message"] == "call" { "INFO" } else { "DEBUG" };
        assert_eq!(line["level"], expected, "{line}");
    }
}

#[tokio::test]
async fn what_a_caller_leaves_behind_has_its_request_id_too() {
    let (_server, plan) = on_redis().await;
    let plan = plan.with("/upstreams/main/rate", "1/s").with("/upstreams/main/burst", 1);
    let plan = plan.with("/upstreams/main/max_wait", "30s");
    let mut gateway = serving("debug", plan).await;
    call(&gateway, "contact-1").await.unwrap();
    let mut client = gateway.client().await;
    let queued = tokio::spawn(async move { client.create_participant(asking("contact-2")).await });
    gateway.running.next_with("ask_again").await;
    queued.abort();
    let settled = gateway.running.next_with("\"verdict\":\"release\"").await;
    let settled: Value = serde_json::from_str(&settled).unwrap();
    assert_eq!(settled["request_id"], "req-1", "{settled}");
}

#[tokio::test]
async fn a_call_that_connects_to_redis_has_that_among_its_steps() {
    let mut server = RedisServer::start().await;
    let plan = gateway().on_redis(&server.url(), "steps").patient();
    let gateway = serving("debug", plan).await;
    call(&gateway, "contact-1").await.unwrap();
    server.restart().await;
    call(&gateway, "contact-2").await.unwrap();
    let lines = ended(gateway).await;
    assert_eq!(with(&lines, "connecting to redis").len(), 1, "{:?}", messages(&lines));
    assert_eq!(with(&lines, "connected to redis").len(), 1, "{:?}", messages(&lines));
}

#[tokio::test]
async fn refusals_waits_and_takeovers_are_told_apart() {
    let (_server, plan) = on_redis().await;
    let plan = plan.with("/tenants/demo/rate", "1/h").with("/tenants/demo/burst", 2);
    let gateway = serving("debug", plan.with("/upstreams/main/max_attempts", 1)).await;
    call(&gateway, "sim-flaky-1").await.unwrap_err();
    call(&gateway, "sim-flaky-1").await.unwrap();
    call(&gateway, "contact").await.unwrap_err();
    let lines = ended(gateway).await;
    let decided: Vec<_> = with(&lines, "decision of the store");
    let words: Vec<_> = decided.iter().map(|line| line["decision"].as_str().unwrap()).collect();
    assert_eq!(words, ["granted", "takeover", "refused"]);
    assert_eq!(decided[2]["limit"], "tenant_rate");
    assert!(decided[2]["wait"].as_f64().unwrap() > 1.0, "{}", decided[2]);
    assert_eq!(with(&lines, "settlement")[0]["verdict"], "uncertain");
}

#[tokio::test]
async fn at_info_a_call_is_one_line_and_directives_add_to_it() {
    let gateway = serving("info", gateway()).await;
    call(&gateway, "contact").await.unwrap();
    assert_eq!(messages(&ended(gateway).await), ["call"]);

    let (_server, plan) = on_redis().await;
    let plan = plan.with("/telemetry/log/level", "info");
    let heard = "hyper_util=debug,aws_smithy_runtime=debug,participant_gateway::connect=debug";
    let gateway = plan.serve_in(&[("RUST_LOG", heard)]).await;
    call(&gateway, "contact").await.unwrap();
    let lines = ended(gateway).await;
    for target in
        ["hyper_util::client", "aws_smithy_runtime::client", "participant_gateway::connect"]
    {
        let heard = lines.iter().any(|line| line["target"].as_str().unwrap().starts_with(target));
        assert!(heard, "{target} is not heard by its request id");
    }
    assert!(with(&lines, "decision of the store").is_empty(), "{:?}", messages(&lines));
}

#[tokio::test]
async fn a_directive_that_cannot_be_read_is_named_at_start_and_by_check() {
    let directives = ("RUST_LOG", "hyper_util=loud,redis=debug");
    let mut gateway = gateway().serve_in(&[directives]).await;
    let line = gateway.running.line_with("RUST_LOG").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["level"], "WARN");
    assert!(line["message"].as_str().unwrap().contains("hyper_util=loud"), "{line}");
    let mut check = program();
    check
        .arg("check")
        .arg("--config")
        .arg(gateway.config())
        .env(directives.0, directives.1);
    let output = check.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(printed(&output).contains("warning: RUST_LOG: \"hyper_util=loud\""));
}

#[tokio::test]
async fn previous_attempts_of_the_client_are_a_number_or_absent() {
    let mut gateway = serving("info", gateway()).await;
    for (sent, expected) in
        [(Some("3"), Value::from(3)), (Some("many"), Value::Null), (None, Value::Null)]
    {
        let mut request = crate::support::of("demo", crate::support::request("contact"));
        request.metadata_mut().insert("x-request-id", "req-1".parse().unwrap());
        if let Some(sent) = sent {
            request
                .metadata_mut()
                .insert("grpc-previous-rpc-attempts", sent.parse().unwrap());
        }
        gateway.client().await.create_participant(request).await.unwrap();
        let line: Value = serde_json::from_str(&gateway.running.next_with("req-1").await).unwrap();
        assert_eq!(line["previous_attempts"], expected, "{line}");
        assert_eq!(
            line.as_object().unwrap().contains_key("previous_attempts"),
            expected.is_number()
        );
    }
}
