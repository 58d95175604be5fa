//! A claim, or its result, that is lost or taken over.

use std::time::Duration;

use participant_gateway::proto::CreateParticipantResponse;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::gateway::Child;
use crate::support::redis::{RedisSentinel, RedisServer};
use crate::support::{Plan, Reply, gateway, of, request_with_token};

/// Two gateways that share everything.
async fn two(plan: impl Fn() -> Plan) -> [Child; 2] {
    let first = plan().serve().await;
    let second = plan().beside(&first).serve().await;
    [first, second]
}

/// A call with this deadline, which is at Connect when this returns.
async fn begun(gateway: &Child, contact: &str, token: &str, time: Duration) -> JoinHandle<Reply> {
    let (mut client, before) = (gateway.client().await, gateway.journal.attempt_count());
    let mut call = of("demo", request_with_token(contact, token));
    call.set_timeout(time);
    let call = tokio::spawn(async move { client.create_participant(call).await });
    gateway.attempted(before + 1).await;
    call
}

async fn answered(gateway: &Child, contact: &str, token: &str) -> CreateParticipantResponse {
    gateway.call(request_with_token(contact, token)).await.unwrap().into_inner()
}

/// However often Connect was asked, it was asked for the same.
fn is_one_participant(gateway: &Child, answers: &[CreateParticipantResponse]) {
    let tokens = gateway.tokens();
    assert!(tokens.iter().all(|token| token.is_some() && *token == tokens[0]), "{tokens:?}");
    assert_eq!(gateway.journal.participant_count(), 1);
    let id = &gateway.journal.participants()[0].participant_id;
    assert!(answers.iter().all(|answer| answer.participant_id == *id), "{answers:?}");
}

#[tokio::test]
async fn what_a_flush_forgets_is_repeated_with_the_same_upstream_token() {
    let redis = RedisServer::start().await;
    let [one, other] = two(|| gateway().on_redis(&redis.url(), "pg").patient()).await;
    // The claim is lost while the call is at Connect: another gateway begins anew.
    let call = begun(&one, "sim-slow-500", "token-1", LONG).await;
    redis.command(&["flushall"]).await;
    let second = answered(&other, "sim-slow-500", "token-1").await;
    let first = call.await.unwrap().unwrap().into_inner();
    assert!(!first.replayed && !second.replayed);
    assert_eq!(one.journal.attempt_count(), 2);
    // And the result, after all have heard of it.
    redis.command(&["flushall"]).await;
    let third = answered(&one, "sim-slow-500", "token-1").await;
    assert!(!third.replayed);
    assert_eq!(one.journal.attempt_count(), 3);
    assert!(answered(&other, "sim-slow-500", "token-1").await.replayed);
    is_one_participant(&one, &[first, second, third]);
}

#[tokio::test]
async fn a_failover_under_a_call_makes_no_second_participant() {
    let sentinel = RedisSentinel::start().await;
    let plan = || {
        gateway()
            .on_redis("", "pg")
            .with("/store/redis/topology", "sentinel")
            .with("/store/redis/sentinel_master", RedisSentinel::MASTER)
            .with("/store/redis/urls", json!([sentinel.url()]))
            .with("/upstreams/main/attempt_timeout", "10s")
    };
    let [one, other] = two(plan).await;
    let call = begun(&one, "sim-slow-2000", "token-1", Duration::from_secs(20)).await;
    sentinel.fail_over().await;
    let second = answered(&other, "sim-slow-2000", "token-1").await;
    let first = call.await.unwrap().unwrap().into_inner();
    let third = answered(&one, "sim-slow-2000", "token-1").await;
    is_one_participant(&one, &[first, second, third]);
}

#[tokio::test]
async fn an_owner_that_is_stopped_past_its_lease_changes_nothing_of_its_successors_result() {
    let redis = RedisServer::start().await;
    let plan = || {
        gateway()
            .on_redis(&redis.url(), "pg")
            .with("/upstreams/main/attempt_timeout", "300ms")
    };
    let [first, second] = two(|| plan().patient()).await;
    let call = begun(&first, "sim-slow-200", "token-1", Duration::from_millis(500)).await;
    first.running.signal("STOP");
    // The lease is the caller's 500 ms, the attempt's 300 ms and 2 s.
    let successors = answered(&second, "sim-slow-200", "token-1").await;
    assert!(!successors.replayed);
    first.running.signal("CONT");
    let _ = call.await.unwrap();
    // The late owner has said its word once it answers others, since a call is settled first.
    let other = answered(&first, "contact-2", "token-2").await;
    assert!(!other.replayed);
    for gateway in [&first, &second] {
        let again = answered(gateway, "sim-slow-200", "token-1").await;
        assert!(again.replayed);
        assert_eq!(again.create_time, successors.create_time, "the late owner's was kept");
    }
    let tokens = first.tokens();
    assert_eq!(tokens[0], tokens[1]);
    assert_eq!(first.journal.participant_count(), 2);
}

const LONG: Duration = Duration::from_secs(10);
