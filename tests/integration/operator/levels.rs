//! What `levels` says: the same as GetQuota, and what no caller sees.

use participant_gateway::proto::CreateParticipantRequest;
use serde_json::{Value, json as value};

use super::{command, json, secretive, serving, table};
use crate::support::gateway::Child;
use crate::support::process::printed;
use crate::support::redis::{RedisServer, text};
use crate::support::{of, until};

fn begin(gateway: &Child, request: CreateParticipantRequest) {
    let addr = gateway.addr;
    tokio::spawn(async move {
        let mut client = crate::support::gateway::client(addr).await;
        let _ = client.create_participant(of("demo", request)).await;
    });
}

/// All that stands below the prefix, as it is.
async fn contents(server: &RedisServer, prefix: &str) -> Vec<String> {
    let redis::Value::Array(keys) = server.command(&["keys", &format!("{prefix}:*")]).await else {
        panic!("no keys")
    };
    let mut all = Vec::new();
    for key in keys.iter().map(text) {
        all.push(format!("{key} {:?}", server.command(&["dump", &key]).await));
    }
    all.sort();
    all
}

#[tokio::test]
async fn levels_say_what_get_quota_says_and_change_nothing() {
    let (gateway, server, prefix) = serving(|plan| {
        let tenant = value!({ "instances": ["*"], "rate": "3/h", "burst": 20, "committed": "0.0001/s",
            "max_in_flight": 7 });
        plan.with("/tenants/demo", tenant).with("/upstreams/main/rate", "1/h").with("/upstreams/main/burst", 50)
    })
    .await;
    for number in 0..3 {
        gateway.call(secretive("contact", &format!("token-{number}"))).await.unwrap();
    }
    begin(&gateway, secretive("sim-slow-2500", "canary-token"));
    until("the call is in flight", async || gateway.quota().await.in_flight == 1).await;
    let before = contents(&server, &prefix).await;
    let levels = json(gateway.config(), &["levels"]).await;
    for _ in 0..5 {
        table(gateway.config(), &["levels"]).await;
    }
    assert_eq!(contents(&server, &prefix).await, before);
    let quota = gateway.quota().await;
    let upstream = &levels["upstreams"][0];
    let tenant = &upstream["tenants"][0];
    assert_eq!(tenant["level"].as_f64().unwrap().floor(), f64::from(quota.remaining));
    assert_eq!((quota.remaining, tenant["in_flight"].as_u64()), (16, Some(1)), "{tenant}");
    assert_eq!(tenant["in_flight_limit"], quota.in_flight_limit);
    assert_eq!(tenant["burst"], quota.burst);
    assert_eq!(tenant["rate_per_second"], quota.rate_per_second);
    assert_eq!(tenant["committed_per_second"], quota.committed_per_second);
    assert_eq!(upstream["factor"], quota.upstream_factor);
    // Four calls, of which the first was the committed share's.
    assert!((46.0..46.1).contains(&upstream["level"].as_f64().unwrap()), "{upstream}");
    assert!((0.0..0.5).contains(&tenant["share"].as_f64().unwrap()), "{tenant}");
}

#[tokio::test]
async fn the_json_has_a_documented_shape() {
    let (gateway, _server, _) =
        serving(|plan| plan.with("/tenants/demo/enforcement", "shadow")).await;
    let levels = json(gateway.config(), &["levels"]).await;
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let upstream = &levels["upstreams"][0];
    assert_eq!(keys(&levels), ["upstreams"]);
    assert_eq!(
        keys(upstream),
        ["burst", "factor", "level", "queue", "rate_per_second", "tenants", "time", "upstream"]
    );
    let tenant = &upstream["tenants"][0];
    assert_eq!(
        keys(tenant),
        [
            "burst",
            "committed_burst",
            "committed_per_second",
            "enforcement",
            "in_flight",
            "in_flight_limit",
            "level",
            "queue",
            "rate_per_second",
            "share",
            "tenant",
        ]
    );
    assert_eq!(tenant["enforcement"], "shadow");
    let document = include_str!("../../../docs/operations.md");
    for key in keys(upstream).iter().chain(&keys(tenant)) {
        assert!(document.contains(&format!("`{key}`")), "{key} is not documented");
    }
}

#[tokio::test]
async fn calls_that_wait_for_their_slot_are_the_queue() {
    let (gateway, _server, _) = serving(|plan| {
        plan.with("/upstreams/main/rate", "1/m")
            .with("/upstreams/main/burst", 1)
            .with("/upstreams/main/max_wait", "30m")
            .with("/server/max_timeout", "30m")
            .with("/server/default_timeout", "30m")
            .with("/tenants/other", value!({ "instances": ["*"], "rate": "1/s", "burst": 1 }))
    })
    .await;
    for number in 0..4 {
        begin(&gateway, secretive("contact", &format!("token-{number}")));
    }
    let mut levels = Value::Null;
    until("three calls wait", async || {
        levels = json(gateway.config(), &["levels"]).await;
        levels["upstreams"][0]["queue"] == 3
    })
    .await;
    let tenants = levels["upstreams"][0]["tenants"].as_array().unwrap();
    let queues: Vec<_> =
        tenants.iter().map(|tenant| (&tenant["tenant"], &tenant["queue"])).collect();
    assert_eq!(queues, [(&"demo".into(), &3.into()), (&"other".into(), &0.into())]);
    let shown = table(gateway.config(), &["levels"]).await;
    assert!(shown.contains("queue 3"), "{shown}");
    let one = json(gateway.config(), &["levels", "--tenant", "other", "--upstream", "main"]).await;
    assert_eq!(one["upstreams"][0]["tenants"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_throttle_halves_the_factor() {
    let (gateway, _server, _) = serving(|plan| plan).await;
    gateway.call(secretive("sim-throttled", "token")).await.unwrap_err();
    let factor = json(gateway.config(), &["levels"]).await["upstreams"][0]["factor"].clone();
    assert!((0.5..1.0).contains(&factor.as_f64().unwrap()), "{factor}");
}

#[tokio::test]
async fn the_longest_names_and_the_largest_figures_fit_100_columns() {
    let long = "n".repeat(63);
    let (gateway, _server, _) = serving(|plan| {
        let largest = value!({ "instances": ["*"], "rate": "4000000000/s", "burst": 4_000_000_000_u32,
            "max_in_flight": 4_000_000_000_u32, "committed": "0.017/m" });
        plan.with(&format!("/tenants/{long}"), largest)
    })
    .await;
    let shown = table(gateway.config(), &["levels"]).await;
    assert!(shown.contains(&long) && shown.contains("4G of 4G"), "{shown}");
    assert!(shown.contains("\ndemo"), "{shown}");
    let output = command(gateway.config(), &["levels"]).await;
    assert!(output.stderr.is_empty(), "{}", printed(&output));
}
