//! Duplicates, reuse and namesakes, over gateways that share a Redis.

use futures_util::future::join_all;
use serde_json::json;
use tonic::Code;

use super::{answered, two};
use crate::support::gateway::Child;
use crate::support::redis::RedisServer;
use crate::support::status::seen;
use crate::support::{Plan, are_one_call, gateway, of, request_with_token};

fn over(redis: &RedisServer) -> Plan {
    gateway().on_redis(&redis.url(), "pg").patient()
}

/// So many duplicates at once, over these gateways in turn.
async fn duplicates(gateways: &[&Child], calls: usize) {
    let mut clients = Vec::new();
    for gateway in gateways {
        clients.push(gateway.client().await);
    }
    let before = gateways[0].journal.attempt_count();
    let token = format!("token-of-{}", gateways.len());
    let calls = (0..calls).map(|number| {
        let mut client = clients[number % clients.len()].clone();
        let call = of("demo", request_with_token("sim-slow-300", &token));
        async move { client.create_participant(call).await }
    });
    let answers = join_all(calls).await.into_iter().map(|answer| answer.unwrap().into_inner());
    are_one_call(&answers.collect::<Vec<_>>());
    assert_eq!(gateways[0].journal.attempt_count() - before, 1);
}

#[tokio::test]
async fn sixty_four_duplicates_are_one_upstream_call_on_one_process_and_on_three() {
    let redis = RedisServer::start().await;
    let [first, second] = two(|| over(&redis)).await;
    let third = over(&redis).beside(&first).serve().await;
    duplicates(&[&first], 64).await;
    duplicates(&[&first, &second, &third], 64).await;
}

#[tokio::test]
async fn a_token_with_other_content_is_refused_by_every_replica_and_nothing_is_sent() {
    let redis = RedisServer::start().await;
    let [first, second] = two(|| over(&redis)).await;
    answered(&first, "contact-1", "token-1").await;
    for gateway in [&first, &second] {
        let call = request_with_token("contact-2", "token-1");
        let status = gateway.call(call).await.unwrap_err();
        assert_eq!(seen(&status), (Code::InvalidArgument, "CLIENT_TOKEN_REUSED"));
    }
    assert_eq!(first.journal.attempt_count(), 1);
    assert!(answered(&second, "contact-1", "token-1").await.replayed);
}

#[tokio::test]
async fn two_tenants_with_one_token_have_a_participant_each_on_every_replica() {
    let redis = RedisServer::start().await;
    let other = json!({ "instances": ["*"], "rate": "100/s", "burst": 100 });
    let [first, second] = two(|| over(&redis).with("/tenants/other", other.clone())).await;
    let mut participants = Vec::new();
    for (gateway, replayed) in [(&first, false), (&second, true)] {
        let mut client = gateway.client().await;
        for tenant in ["demo", "other"] {
            let call = of(tenant, request_with_token("contact-1", "token-1"));
            let answer = client.create_participant(call).await.unwrap().into_inner();
            assert_eq!(answer.replayed, replayed, "{tenant}");
            participants.push(answer.participant_id);
        }
    }
    assert_ne!(participants[0], participants[1]);
    assert_eq!(participants[..2], participants[2..]);
    let tokens = first.tokens();
    assert_eq!(tokens.len(), 2);
    assert_ne!(tokens[0], tokens[1], "one tenant's token went out for another");
}
