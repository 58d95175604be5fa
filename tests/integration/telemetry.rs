//! What the gateway tells of itself: exactly what happened.

pub mod collector;
mod documented;
mod openmetrics;
mod traces;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use bytes::Bytes;
use serde_json::json;

use crate::support::process::tool;
use crate::support::raw::{METHOD, framed, post};
use crate::support::redis::RedisServer;
use crate::support::{Fixture, gateway, of, request, request_with_token};

/// The series of `/metrics`: name and labels, as they stand there, to value.
type Series = BTreeMap<String, f64>;

async fn series(gateway: &Fixture) -> Series {
    let (status, text) = gateway.admin("/metrics").await;
    assert_eq!(status, 200);
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect()
}

/// The series of one metric that are not 0: labels without those in `but`, to value.
fn of_metric(series: &Series, metric: &str, but: &[&str]) -> Vec<(String, f64)> {
    let mut found = BTreeMap::<String, f64>::new();
    for (name, value) in series.iter().filter(|(_, value)| **value != 0.0) {
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        if name != metric {
            continue;
        }
        let labels = labels
            .trim_end_matches('}')
            .split("\",")
            .map(|label| label.trim_end_matches('"'));
        let labels =
            labels.filter(|label| !but.iter().any(|but| label.starts_with(&format!("{but}="))));
        let shown: Vec<_> = labels
            .map(|label| label.split_once("=\"").map_or("", |(_, value)| value))
            .collect();
        *found.entry(shown.join(" ").trim().to_owned()).or_default() += value;
    }
    found.into_iter().collect()
}

fn counts(expected: &[(&str, u32)]) -> Vec<(String, f64)> {
    let mut counts: Vec<_> = expected
        .iter()
        .map(|(labels, count)| ((*labels).to_owned(), f64::from(*count)))
        .collect();
    counts.sort_by(|(one, _), (other, _)| one.cmp(other));
    counts
}

#[tokio::test]
async fn a_scripted_runs_metrics_are_its_outcomes() {
    let gateway = gateway()
        .with("/tenants/tight", json!({ "instances": ["instance-1"], "rate": "1/h", "burst": 1 }))
        .with(
            "/tenants/shadow",
            json!({ "instances": ["*"], "rate": "1/h", "burst": 1, "enforcement": "shadow" }),
        )
        .start()
        .await;
    let mut client = gateway.client().await;
    let mut call =
        async |tenant: &str, message| client.create_participant(of(tenant, message)).await;

    call("demo", request("contact-1")).await.unwrap();
    call("demo", request_with_token("contact-1", "token")).await.unwrap();
    call("demo", request_with_token("contact-1", "token")).await.unwrap();
    call("demo", request_with_token("contact-2", "token")).await.unwrap_err();
    // Further attempts are no decisions.
    call("demo", request("sim-flaky-2")).await.unwrap();
    call("demo", request("sim-not-found")).await.unwrap_err();
    call("demo", request("")).await.unwrap_err();
    call("tight", request("contact-1")).await.unwrap();
    call("tight", request("contact-1")).await.unwrap_err();
    call("shadow", request("contact-1")).await.unwrap();
    call("shadow", request("contact-1")).await.unwrap();
    let mut foreign = request("contact-1");
    foreign.instance_id = "instance-2".to_owned();
    call("tight", foreign).await.unwrap_err();
    call("canary-tenant", request("contact-1")).await.unwrap_err();
    post(&gateway, METHOD, &[], framed(0, &[])).await;
    post(&gateway, "/canary.Service/Method", &[("x-tenant-id", "demo")], Bytes::new()).await;

    let series = series(&gateway).await;
    let calls = of_metric(
        &series,
        "rpc_server_call_duration_seconds_count",
        &["rpc_system_name", "error_type"],
    );
    let method = METHOD.trim_start_matches('/');
    let of_ours = |code: &str, tenant: &str| format!("{method} {code} {tenant}").trim().to_owned();
    let mut expected: Vec<_> = [
        ("OK", "demo", 4),
        ("INVALID_ARGUMENT", "demo", 2),
        ("NOT_FOUND", "demo", 1),
        ("OK", "tight", 1),
        ("RESOURCE_EXHAUSTED", "tight", 1),
        ("PERMISSION_DENIED", "tight", 1),
        ("OK", "shadow", 2),
        ("PERMISSION_DENIED", "", 1),
        ("UNAUTHENTICATED", "", 1),
    ]
    .map(|(code, tenant, count)| (of_ours(code, tenant), f64::from(count)))
    .into();
    expected.push(("_OTHER UNIMPLEMENTED".to_owned(), 1.0));
    expected.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(calls, expected);

    assert_eq!(
        of_metric(&series, "participant_gateway_admission_decisions_total", &["upstream"]),
        counts(&[
            ("admitted enforce demo", 4),
            ("replayed enforce demo", 1),
            ("reused enforce demo", 1),
            ("admitted enforce tight", 1),
            ("tenant_rate enforce tight", 1),
            ("admitted enforce shadow", 1),
            ("tenant_rate shadow shadow", 1),
        ])
    );
    assert_eq!(
        of_metric(&series, "participant_gateway_admission_wait_seconds_count", &[]),
        counts(&[("main", 7)])
    );
    assert_eq!(of_metric(&series, "participant_gateway_replays_total", &[]), counts(&[("", 1)]));
    let attempts = counts(&[("ok main", 6), ("internal main", 2), ("not_found main", 1)]);
    assert_eq!(of_metric(&series, "participant_gateway_upstream_attempts_total", &[]), attempts);
    let spans = of_metric(
        &series,
        "rpc_client_call_duration_seconds_count",
        &["rpc_method", "rpc_system_name"],
    );
    assert_eq!(spans, counts(&[("main", 6), ("internal main", 2), ("not_found main", 1)]));
    let mut refusals = of_metric(&series, "participant_gateway_identity_refusals_total", &[]);
    refusals.retain(|(_, count)| *count > 0.0);
    assert_eq!(refusals, counts(&[("missing", 1), ("unknown_tenant", 1)]));
    assert_eq!(
        of_metric(&series, "participant_gateway_upstream_budget_factor", &[]),
        counts(&[("main", 1)])
    );
    for quiet in [
        "shed_total",
        "in_flight",
        "results_unsettled_total",
        "store_degraded",
        "telemetry_dropped_total",
    ] {
        assert_eq!(series.get(&format!("participant_gateway_{quiet}")), Some(&0.0), "{quiet}");
    }
    for quiet in
        ["config_reloads_total{result=\"failure\"}", "upstream_circuit_state{upstream=\"main\"}"]
    {
        assert_eq!(series.get(&format!("participant_gateway_{quiet}")), Some(&0.0), "{quiet}");
    }
    for quiet in [
        "budget\",enforcement=\"enforce\",tenant=\"demo",
        "in_flight\",enforcement=\"shadow\",tenant=\"shadow",
    ] {
        let name = format!(
            "participant_gateway_admission_decisions_total{{decision=\"{quiet}\",upstream=\"main\"}}"
        );
        assert_eq!(series.get(&name), Some(&0.0), "{name}");
    }
    assert!(
        !series.keys().any(|name| name.contains("canary")),
        "a caller has made a series: {series:#?}"
    );
}

#[tokio::test]
async fn what_is_shed_is_counted_and_what_is_in_flight_is_shown() {
    let gateway = gateway().with("/server/max_in_flight", 1).start().await;
    let mut client = gateway.client().await;
    let slow = tokio::spawn(async move {
        client.create_participant(of("demo", request("sim-slow-500"))).await
    });
    gateway.attempted(1).await;
    gateway.call(request("contact-1")).await.unwrap_err();
    let series = series(&gateway).await;
    assert_eq!(series["participant_gateway_shed_total"], 1.0);
    assert_eq!(series["participant_gateway_in_flight"], 1.0);
    slow.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_circuit_that_opens_is_shown() {
    let gateway = gateway().with("/upstreams/main/max_attempts", 1).start().await;
    for _ in 0..5 {
        gateway.call(request("sim-internal")).await.unwrap_err();
    }
    let series = series(&gateway).await;
    assert_eq!(series["participant_gateway_upstream_circuit_state{upstream=\"main\"}"], 2.0);
}

#[tokio::test]
async fn every_operation_on_redis_is_measured() {
    let redis = RedisServer::shared().await;
    let gateway = gateway()
        .with("/tenants/demo/rate", "1/h")
        .with("/tenants/demo/burst", 1)
        .on_redis(&redis.url(), &uuid::Uuid::new_v4().to_string())
        .start()
        .await;
    gateway.call(request_with_token("contact-1", "token")).await.unwrap();
    gateway.call(request_with_token("contact-1", "token")).await.unwrap();
    // The second time, the refusal is remembered.
    for _ in 0..2 {
        gateway.call(request_with_token("contact-1", "other")).await.unwrap_err();
    }
    let series = series(&gateway).await;
    let operations =
        of_metric(&series, "db_client_operation_duration_seconds_count", &["db_system_name"]);
    assert_eq!(
        operations,
        counts(&[("EVALSHA admit", 3), ("EVALSHA settle", 1), ("EVALSHA probe", 1), ("EXISTS", 1)])
    );
}

#[tokio::test]
async fn what_redis_says_of_itself_tells_its_failures_apart() {
    let redis = RedisServer::start().await;
    let gateway = gateway().on_redis(&redis.url(), "pg").start().await;
    redis.command(&["config", "set", "maxmemory", "1"]).await;
    gateway.call(request("contact-1")).await.unwrap();
    let series = series(&gateway).await;
    let operations =
        of_metric(&series, "db_client_operation_duration_seconds_count", &["db_system_name"]);
    assert!(operations.contains(&("EVALSHA admit OOM".to_owned(), 1.0)), "{operations:?}");
}

#[tokio::test]
async fn metrics_satisfy_promtool() {
    let gateway = gateway().start().await;
    gateway.call(request("contact-1")).await.unwrap();
    let (_, text) = gateway.admin("/metrics").await;
    for name in [
        "participant_gateway_build_info",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "participant_gateway_runtime_alive_tasks",
    ] {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing in:\n{text}");
    }
    let Some(mut promtool) = tool("promtool") else { return };
    let mut promtool = promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
