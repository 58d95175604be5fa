//! A claim, or its result, that is lost or taken over.

use std::time::Duration;

use serde_json::json;

use super::{LONG, answered, begun, is_one_participant, two};
use crate::support::gateway;
use crate::support::redis::{RedisSentinel, RedisServer};

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
    // The first call of a process is slow.
    answered(&first, "contact-0", "token-0").await;
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
    assert_eq!(tokens[1], tokens[2]);
    assert_eq!(first.journal.participant_count(), 3);
}
