//! What a gateway asks of Redis, and what it leaves there.

use std::time::Duration;

use futures_util::future::join_all;

use crate::overload::{hint, row};
use crate::support::redis::{RedisServer, text};
use crate::support::status::reason;
use crate::support::{gateway, of, request, request_with_token};

/// How many scripts the server has run, and how long they took on average.
async fn scripts(server: &RedisServer) -> (u32, f64) {
    ran(server, &["eval", "evalsha"]).await
}

/// How many of these commands the server has run, and how long they took on average.
async fn ran(server: &RedisServer, commands: &[&str]) -> (u32, f64) {
    let stats = text(&server.command(&["info", "commandstats"]).await);
    let ran = stats.lines().filter_map(|line| {
        let (command, figures) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        let figure = |name| figures.split(',').find_map(|pair| pair.strip_prefix(name));
        let count: u32 = figure("calls=")?.parse().ok()?;
        let micros: f64 = figure("usec=")?.parse().ok()?;
        commands.contains(&command).then_some((count, micros))
    });
    let (count, micros) =
        ran.fold((0, 0.0), |all, (count, micros)| (all.0 + count, all.1 + micros));
    (count, micros / f64::from(count.max(1)))
}

#[tokio::test]
async fn a_new_call_costs_two_script_calls_and_a_replay_or_a_refusal_one_at_most() {
    let server = RedisServer::start().await;
    let plan = gateway().with("/tenants/demo/rate", "1/h").with("/tenants/demo/burst", 1);
    let gateway = plan.on_redis(&server.url(), "pg").patient().start().await;
    // The scripts get to know the server, and the probe of the start is over.
    gateway.call(request_with_token("contact-1", "first")).await.unwrap();
    let (mut before, exists) = (scripts(&server).await.0, ran(&server, &["exists"]).await.0);
    let mut costs = Vec::new();
    // From the first refusal on, hints are at their longest, and only replays need a decision.
    for (kind, token, cost) in [
        ("a refusal", "token-1", 1),
        ("another refusal", "token-1", 0),
        ("a further refusal", "token-2", 0),
        ("a replay of a refused tenant", "first", 1),
    ] {
        let answer = gateway.call(request_with_token("contact-1", token)).await;
        assert_eq!(answer.is_ok(), token == "first", "{kind}");
        match answer {
            Ok(answer) => assert!(answer.into_inner().replayed),
            Err(status) => {
                assert_eq!(reason(&status), "TENANT_RATE_LIMITED");
                assert_eq!(hint(&status), Duration::from_secs(30), "{kind}");
            }
        }
        let now = scripts(&server).await.0;
        assert_eq!(now - before, cost, "{kind}");
        costs.push(format!("{kind} {cost}"));
        before = now;
    }
    assert_eq!(ran(&server, &["exists"]).await.0 - exists, 3, "one for each but the first");
    // The process remembers the refusal, and such a call has no record.
    for kind in ["a refusal from memory", "another refusal from memory"] {
        gateway.call(request("contact-1")).await.unwrap_err();
        let now = scripts(&server).await.0;
        assert_eq!(now, before, "{kind}");
        costs.push(format!("{kind} 0"));
    }
    // Also the very first call: the server got to know both scripts when it was taken into use.
    server.command(&["script", "flush"]).await;
    let other = crate::support::gateway()
        .on_redis(&server.url(), "other")
        .patient()
        .start()
        .await;
    before = scripts(&server).await.0;
    for (kind, cost) in [("a new call", 2), ("a replay", 1)] {
        other.call(request_with_token("contact-1", "token-1")).await.unwrap();
        let now = scripts(&server).await.0;
        assert_eq!(now - before, cost, "{kind}");
        costs.push(format!("{kind} {cost}"));
        before = now;
    }
    row(
        "a call costs few runs of the scripts",
        "commandstats of Redis, with a token unless from memory",
        format!("{}; {:.0} µs a run", costs.join(", "), scripts(&server).await.1),
    );
}

#[tokio::test]
async fn a_queued_call_costs_about_two_script_calls_more() {
    let server = RedisServer::start().await;
    let gateway = gateway()
        .with("/upstreams/main/rate", "10/s")
        .with("/upstreams/main/burst", 1)
        .with("/upstreams/main/max_wait", "5s")
        .on_redis(&server.url(), "pg")
        .patient()
        .start()
        .await;
    gateway.call(request("contact-1")).await.unwrap();
    let before = scripts(&server).await.0;
    const CALLS: u32 = 10;
    let client = gateway.client().await;
    let calls = (0..CALLS).map(|number| {
        let mut client = client.clone();
        let call = of("demo", request_with_token("contact-1", &format!("token-{number}")));
        async move { client.create_participant(call).await }
    });
    for answer in join_all(calls).await {
        answer.unwrap();
    }
    let each = f64::from(scripts(&server).await.0 - before) / f64::from(CALLS);
    row(
        "a queued call costs about two runs more",
        "ten calls at once against 10/s, burst 1",
        format!("{each:.1} runs a call, where a call that need not wait costs 2"),
    );
    assert!((2.9..=4.0).contains(&each), "{each} script calls");
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
