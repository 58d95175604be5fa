//! What a gateway asks of Redis, and what it leaves there.

use participant_gateway::proto;

use crate::support::redis::{RedisServer, text};
use crate::support::{gateway, request, request_with_token};

#[tokio::test]
async fn a_new_call_costs_two_script_calls_and_a_replay_or_a_refusal_one() {
    let server = RedisServer::start().await;
    let plan = gateway().with("/tenants/demo/rate", "1/h").with("/tenants/demo/burst", 1);
    let gateway = plan.on_redis(&server.url(), "pg").patient().start().await;
    let scripts = async || {
        let stats = text(&server.command(&["info", "commandstats"]).await);
        let calls = stats.lines().filter(|line| {
            line.starts_with("cmdstat_evalsha:") || line.starts_with("cmdstat_eval:")
        });
        calls
            .map(|line| {
                line.split("calls=")
                    .nth(1)
                    .unwrap()
                    .split(',')
                    .next()
                    .unwrap()
                    .parse::<u32>()
                    .unwrap()
            })
            .sum()
    };
    // The scripts get to know the server, and the probe of the start is over.
    let _ = gateway
        .call(proto::CreateParticipantRequest { contact_id: "warm".into(), ..request("warm") })
        .await;
    let mut before: u32 = scripts().await;
    for (kind, cost) in [("a refusal", 1), ("another refusal", 1)] {
        gateway.call(request_with_token("contact-1", "token-1")).await.unwrap_err();
        let now: u32 = scripts().await;
        assert_eq!(now - before, cost, "{kind}");
        before = now;
    }
    // Also the very first call: the server got to know both scripts when it was taken into use.
    server.command(&["script", "flush"]).await;
    let other = crate::support::gateway()
        .on_redis(&server.url(), "other")
        .patient()
        .start()
        .await;
    before = scripts().await;
    for (kind, cost) in [("a new call", 2), ("a replay", 1)] {
        other.call(request_with_token("contact-1", "token-1")).await.unwrap();
        let now: u32 = scripts().await;
        assert_eq!(now - before, cost, "{kind}");
        before = now;
    }
}

#[tokio::test]
async fn redis_holds_no_text_of_a_call_in_clear() {
    let server = RedisServer::start().await;
    let gateway = gateway().on_redis(&server.url(), "pg").patient().start().await;
    let mut call = request_with_token("canary-contact", "canary-client-token");
    call.participant_details.as_mut().unwrap().display_name = "canary-display-name".to_owned();
    let reply = gateway.call(call).await.unwrap().into_inner();
    let token = reply.participant_credentials.unwrap().participant_token;
    let keys = server.command(&["keys", "*"]).await;
    let redis::Value::Array(keys) = keys else { panic!("{keys:?}") };
    assert!(keys.len() >= 3, "{keys:?}");
    let mut stored = String::new();
    for key in &keys {
        let key = text(key);
        let kind = server.command(&["type", &key]).await;
        let value = match text(&kind).as_str() {
            "string" => server.command(&["get", &key]).await,
            "hash" => server.command(&["hgetall", &key]).await,
            "zset" => server.command(&["zrange", &key, "0", "-1", "withscores"]).await,
            other => panic!("{key} is a {other}"),
        };
        let ttl = server.command(&["pttl", &key]).await;
        assert!(
            matches!(ttl, redis::Value::Int(millis) if millis >= 59_000),
            "{key} lives {ttl:?}"
        );
        stored.push_str(&format!("{key} {value:?} "));
        match &value {
            redis::Value::Array(parts) => {
                parts.iter().for_each(|part| stored.push_str(&text(part)));
            }
            redis::Value::Map(parts) => parts.iter().for_each(|(field, part)| {
                stored.push_str(&text(field));
                stored.push_str(&text(part));
            }),
            part => stored.push_str(&text(part)),
        }
    }
    for canary in ["canary", token.as_str(), reply.participant_id.as_str()] {
        assert!(!stored.contains(canary), "{canary} in {stored}");
    }
}
