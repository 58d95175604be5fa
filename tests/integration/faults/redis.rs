//! A Redis that is refused, killed, frozen or flushed, before, under and after a call.

use std::time::{Duration, Instant};

use prost::Message;
use tonic::Code;

use super::{LONG, answered, begun, is_one_participant, timed};
use crate::support::raw::{METHOD, framed, post};
use crate::support::redis::RedisServer;
use crate::support::status::{reason, seen};
use crate::support::{Plan, gateway, request, request_with_token, until, until_within};

/// A gateway that gives an ask of Redis this long.
fn over(redis: &RedisServer, prefix: &str) -> Plan {
    gateway().on_redis(&redis.url(), prefix).with("/store/redis/timeout", "300ms")
}

#[tokio::test]
async fn without_redis_calls_are_served_or_refused_in_time_as_the_config_says() {
    let mut redis = RedisServer::start().await;
    let local = over(&redis, "local").serve().await;
    let reject = over(&redis, "reject").with("/store/on_loss", "reject").serve().await;
    for gateway in [&local, &reject] {
        gateway.call(request("contact-1")).await.unwrap();
    }
    redis.kill();
    for number in 0..4 {
        // An answer that is late is DEADLINE_EXCEEDED.
        let call = || request_with_token("contact-1", &format!("token-{number}"));
        timed(&local, call(), Duration::from_secs(2)).await.0.unwrap();
        let status = timed(&reject, call(), Duration::from_secs(2)).await.0.unwrap_err();
        assert_eq!(seen(&status), (Code::Unavailable, "STORE_UNAVAILABLE"));
        assert!(seen(&status).retry.is_some());
    }
    assert_eq!((local.journal.attempt_count(), reject.journal.attempt_count()), (5, 1));
}

#[tokio::test]
async fn an_answer_and_its_upstream_token_outlive_a_redis_that_dies_under_the_call() {
    let mut redis = RedisServer::start().await;
    let gateway = over(&redis, "pg").serve().await;
    let call = begun(&gateway, "sim-slow-400", "token-1", LONG).await;
    redis.kill();
    let first = call.await.unwrap().unwrap().into_inner();
    redis.restart().await;
    let second = answered(&gateway, "sim-slow-400", "token-1").await;
    is_one_participant(&gateway, &[first, second]);
}

#[tokio::test]
async fn a_result_that_redis_dies_under_is_answered_at_once_and_counted() {
    let mut redis = RedisServer::start().await;
    let gateway = over(&redis, "pg").serve().await;
    let call = begun(&gateway, "sim-slow-400", "token-1", LONG).await;
    redis.pause();
    // Then the settlement is sent, and waits for 300 ms.
    until("Connect has answered", async || {
        let (_, metrics) = gateway.admin("/metrics").await;
        let is_it = |line: &str| {
            line.starts_with("participant_gateway_upstream_attempts_total{")
                && line.contains("outcome=\"ok\"")
        };
        metrics.lines().any(is_it)
    })
    .await;
    redis.kill();
    let answer = call.await.unwrap().unwrap().into_inner();
    // The settlement is tried again until the lease of 3 s ends.
    gateway.metric_is("participant_gateway_results_unsettled_total 1").await;
    is_one_participant(&gateway, &[answer]);
}

#[tokio::test]
async fn calls_pay_three_timeouts_at_most_for_a_redis_that_freezes() {
    let redis = RedisServer::start().await;
    let gateway = over(&redis, "pg").with("/store/redis/timeout", "500ms").serve().await;
    gateway.call(request("contact-1")).await.unwrap();
    redis.pause();
    let mut paid = 0;
    for number in 0..20 {
        let call = request_with_token("contact-1", &format!("token-{number}"));
        let (answer, took) = timed(&gateway, call, Duration::from_secs(2)).await;
        answer.unwrap();
        paid += u32::from(took >= Duration::from_millis(500));
    }
    redis.resume();
    assert!((1..=3).contains(&paid), "{paid} of 20 calls waited for a lost Redis");
}

#[tokio::test]
async fn an_answer_waits_one_timeout_at_most_for_a_redis_that_freezes_under_its_call() {
    let redis = RedisServer::start().await;
    let gateway = over(&redis, "pg").serve().await;
    let started = Instant::now();
    let call = begun(&gateway, "sim-slow-400", "token-1", LONG).await;
    redis.pause();
    let answer = call.await.unwrap();
    let took = started.elapsed();
    redis.resume();
    answer.unwrap();
    // Connect's 400 ms, the timeout's 300 ms, and a busy machine. A lease is 3 s.
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_redis_that_forgets_its_scripts_at_any_moment_fails_no_call() {
    let redis = RedisServer::start().await;
    // A failed script would be a refusal.
    let plan = over(&redis, "pg").with("/store/on_loss", "reject").patient();
    let gateway = plan.serve().await;
    let forget = async || redis.command(&["script", "flush"]).await;
    for number in 0..3 {
        let token = format!("token-{number}");
        forget().await;
        let call = begun(&gateway, "sim-slow-200", &token, LONG).await;
        forget().await;
        let first = call.await.unwrap().unwrap().into_inner();
        forget().await;
        let again = answered(&gateway, "sim-slow-200", &token).await;
        assert!(!first.replayed && again.replayed);
        assert_eq!(first.participant_id, again.participant_id);
    }
    assert_eq!(gateway.journal.attempt_count(), 3);
}

#[tokio::test]
async fn a_deadline_that_passes_before_the_grant_sends_nothing_and_costs_nothing() {
    let redis = RedisServer::start().await;
    let gateway = over(&redis, "pg")
        .with("/store/on_loss", "reject")
        // Nothing comes back by time.
        .with("/tenants/demo/rate", "1/h")
        .with("/tenants/demo/burst", 10)
        .patient()
        .serve()
        .await;
    gateway.call(request("contact-1")).await.unwrap();
    redis.pause();
    let started = Instant::now();
    let body = framed(0, &request_with_token("contact-1", "token-1").encode_to_vec());
    let headers = [("x-tenant-id", "demo"), ("grpc-timeout", "400m")];
    let status = post(&gateway, METHOD, &headers, body).await;
    let took = started.elapsed();
    redis.resume();
    assert_eq!(reason(&status), "DEADLINE_EXCEEDED");
    assert!(took < Duration::from_secs(1), "{took:?} for a deadline of 400 ms");
    // The ask ran once Redis went on, and is given back.
    until_within(Duration::from_secs(3), "nothing stands of the ask", async || {
        let quota = gateway.quota().await;
        (quota.remaining, quota.in_flight) == (9, 0)
    })
    .await;
    assert_eq!(gateway.journal.attempt_count(), 1);
    assert!(!answered(&gateway, "contact-2", "token-1").await.replayed, "a claim was left");
}
