//! What `record` says in each state of a record.

use serde_json::Value;

use super::{command, json, of_record, secretive, serving, table};
use crate::support::process::printed;
use crate::support::redis::text;
use crate::support::until;

fn keys(state: &Value) -> Vec<&str> {
    state.as_object().unwrap().keys().map(String::as_str).collect()
}

fn time(state: &Value, key: &str) -> jiff::Timestamp {
    state[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {state}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn an_absent_record_and_a_finished_call() {
    let (gateway, _server, _) = serving(|plan| plan).await;
    let token = "canary-client-token";
    let absent = json(gateway.config(), &of_record(token)).await;
    assert_eq!(absent["state"], "absent");
    assert_eq!(keys(&absent), ["forgotten", "record", "state", "tenant", "time", "upstream"]);

    let answer = gateway.call(secretive("canary-contact", token)).await.unwrap().into_inner();
    let done = json(gateway.config(), &of_record(token)).await;
    assert_eq!(done["state"], "done");
    assert_eq!(done["participant_id"], answer.participant_id.as_str());
    let created = answer.create_time.unwrap();
    assert_eq!(time(&done, "create_time").as_second(), created.seconds);
    let now = time(&done, "time");
    assert!(now < time(&done, "replays_until"), "{done}");
    assert!(time(&done, "replays_until") <= time(&done, "remembered_until"), "{done}");
    let day = (time(&done, "remembered_until") - now).total(jiff::Unit::Hour).unwrap();
    assert!((23.9..=24.0).contains(&day), "{done}");

    let shown = table(gateway.config(), &of_record(token)).await;
    assert!(shown.contains("state           done\n"), "{shown}");
    assert!(shown.contains(&answer.participant_id) && shown.contains("in 23h 5"), "{shown}");
    let output = command(gateway.config(), &of_record(token)).await;
    let secret = answer.participant_credentials.unwrap().participant_token;
    for canary in ["canary", secret.as_str()] {
        assert!(!printed(&output).contains(canary) && !done.to_string().contains(canary));
    }
}

#[tokio::test]
async fn a_call_in_flight_until_its_lease_ends() {
    let (gateway, _server, _) = serving(|plan| plan).await;
    let token = "token-of-a-slow-call";
    let client = gateway.client().await;
    let call = tokio::spawn(async move {
        let mut client = client;
        let request = crate::support::of("demo", secretive("sim-slow-2500", token));
        client.create_participant(request).await
    });
    until("the call is in flight", async || {
        json(gateway.config(), &of_record(token)).await["state"] == "in_flight"
    })
    .await;
    let flying = json(gateway.config(), &of_record(token)).await;
    let left = time(&flying, "lease_until") - time(&flying, "time");
    assert!((0.0..=3.0).contains(&left.total(jiff::Unit::Second).unwrap()), "{flying}");
    call.await.unwrap().unwrap();
    assert_eq!(json(gateway.config(), &of_record(token)).await["state"], "done");
}

#[tokio::test]
async fn an_uncertain_call_and_one_whose_result_has_expired() {
    let (gateway, _server, _) = serving(|plan| plan).await;
    gateway.call(secretive("sim-internal", "failed")).await.unwrap_err();
    let uncertain = json(gateway.config(), &of_record("failed")).await;
    assert_eq!(uncertain["state"], "uncertain");
    assert!(uncertain["why"].is_null() && uncertain["remembered_until"].is_string());
    let shown = table(gateway.config(), &of_record("failed")).await;
    assert!(shown.contains("takes the call over"), "{shown}");

    gateway.call(secretive("sim-expires-1000", "expired")).await.unwrap();
    let expired = json(gateway.config(), &of_record("expired")).await;
    assert_eq!(expired["state"], "expired");
    assert!(expired["participant_id"].is_null(), "{expired}");
    let shown = table(gateway.config(), &of_record("expired")).await;
    assert!(shown.contains("is answered RESULT_EXPIRED"), "{shown}");
}

#[tokio::test]
async fn a_record_that_no_gateway_wrote_is_uncertain_and_says_why() {
    let (gateway, server, prefix) = serving(|plan| plan).await;
    gateway.call(secretive("contact", "token")).await.unwrap();
    let record = json(gateway.config(), &of_record("token")).await["record"].clone();
    let key = format!("{prefix}:{{main}}:record:{}", record.as_str().unwrap());
    for (field, value, why) in [
        ("body", "garbage", "no sealing key opens its result"),
        ("mac", "of-another-root", "its record was written with another root key"),
        ("times", "short", "its record cannot be read"),
    ] {
        server.command(&["hset", &key, field, value]).await;
        let state = json(gateway.config(), &of_record("token")).await;
        assert_eq!((&state["state"], &state["why"]), (&"uncertain".into(), &why.into()));
    }
    server.command(&["del", &key]).await;
    server.command(&["set", &key, "another type"]).await;
    let state = json(gateway.config(), &of_record("token")).await;
    assert_eq!(state["why"], "its record cannot be read");
    assert_eq!(text(&server.command(&["get", &key]).await), "another type");
}

#[tokio::test]
async fn a_token_is_the_tenants_own_and_compared_byte_for_byte() {
    let (gateway, _server, _) = serving(|plan| {
        plan.with(
            "/tenants/other",
            serde_json::json!({ "instances": ["*"], "rate": "1/s", "burst": 1 }),
        )
    })
    .await;
    gateway.call(secretive("contact", "token")).await.unwrap();
    for (tenant, token) in [("other", "token"), ("demo", "token "), ("demo", "Token")] {
        let arguments =
            ["record", "--tenant", tenant, "--upstream", "main", "--client-token", token];
        assert_eq!(json(gateway.config(), &arguments).await["state"], "absent", "{arguments:?}");
    }
}
