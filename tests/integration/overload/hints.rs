//! Hints: the exact wait for one, spread for many.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use participant_gateway::proto;

use super::{
    Client, Persisted, hint, oks, over_redis, paced, persistently, repeated, row, within, word,
};
use crate::support::status::reason;
use crate::support::{Front, Plan, Reply, gateway, request, request_with_token};

#[tokio::test(flavor = "multi_thread")]
async fn the_hint_for_calls_in_flight_is_what_a_call_takes() {
    let (gateway, _redis) = over_redis(gateway().with("/tenants/demo/max_in_flight", 2)).await;
    let client = gateway.client().await;
    let mut hints = Vec::new();
    for round in 1..=2 {
        let running: Vec<_> = (0..2)
            .map(|_| {
                let mut client = client.clone();
                let call = request("sim-slow-300");
                tokio::spawn(async move {
                    within(&mut client, "demo", call, Duration::from_secs(10)).await
                })
            })
            .collect();
        gateway.attempted(2 * round).await;
        let status = gateway.call(request("contact-1")).await.unwrap_err();
        assert_eq!(reason(&status), "TENANT_IN_FLIGHT_LIMITED");
        hints.push(hint(&status));
        for call in running {
            call.await.unwrap().unwrap();
        }
    }
    row(
        "the hint for max_in_flight is what a call takes, at most 1 s",
        "max_in_flight is reached, calls take 0.3 s",
        format!("RetryInfo of {:?} at first, then of {:?}", hints[0], hints[1]),
    );
    let most = Duration::from_secs(1);
    assert!(hints.iter().all(|hint| *hint >= Duration::from_millis(50) && *hint <= most));
    assert!(hints[1] >= Duration::from_millis(300), "{hints:?}");
}

/// So many callers at once, each on a connection of a few, under a policy of five attempts.
struct Crowd {
    answers: Vec<Reply>,
    /// The most attempts of a call, and those of all.
    most: usize,
    attempts: usize,
    took: Duration,
    /// After what time the last of those that were refused had its first answer.
    arrived: Duration,
}

async fn crowd(
    gateway: &Front,
    callers: usize,
    call: impl Fn(usize) -> proto::CreateParticipantRequest,
    time: Duration,
) -> Crowd {
    let mut connections: Vec<Client> = Vec::new();
    for _ in 0..4 {
        connections.push(gateway.client().await);
    }
    let begun = Instant::now();
    let calls = (0..callers).map(|caller| {
        let mut clients = [connections[caller % connections.len()].clone()];
        let call = call(caller);
        tokio::spawn(async move { persistently(&mut clients, "demo", &call, time, 5).await })
    });
    let ends = join_all(calls.collect::<Vec<_>>()).await;
    let took = begun.elapsed();
    let ends: Vec<Persisted> = ends.into_iter().map(Result::unwrap).collect();
    Crowd {
        most: ends.iter().map(|end| end.attempts).max().unwrap(),
        attempts: ends.iter().map(|end| end.attempts).sum(),
        arrived: ends.iter().filter_map(|end| end.refused).max().unwrap_or(begun) - begun,
        answers: ends.into_iter().map(|end| end.answer).collect(),
        took,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_above_the_limit_in_flight_is_served_by_a_standard_retry_policy() {
    paced(async || {
        let (gateway, _redis) = over_redis(gateway().with("/tenants/demo/max_in_flight", 64)).await;
        // The first calls of all: how long one takes is not known yet.
        let call = |_| request("sim-slow-300");
        let Crowd { answers, most, took, .. } =
            crowd(&gateway, 200, call, Duration::from_secs(5)).await;
        row(
            "hints for calls in flight are of what a call takes, and spread",
            "200 calls of 0.3 s at once, max_in_flight: 64, deadline 5 s, five attempts",
            format!("{} OK within {took:.1?}, {most} attempts at most", oks(&answers)),
        );
        let lost: Vec<_> = answers.iter().filter(|answer| answer.is_err()).map(word).collect();
        assert!(lost.is_empty(), "{} lost, as {}", lost.len(), lost[0]);
        // Four rounds of 64 take 1.2 s.
        assert!(took < Duration::from_secs(4), "{took:?}");
    })
    .await;
}

/// All are OK in about the ideal time, after few attempts.
///
/// It is tried anew if a call took more, and the crowd was late: a slow build does not answer
/// hundreds of calls at once. The last of them then take tokens that were promised to callers that
/// come back, and these have their hints late.
async fn are_spread(
    plan: impl Fn() -> Plan,
    tried: &str,
    callers: usize,
    ideal: Duration,
    call: impl Fn(usize) -> proto::CreateParticipantRequest,
) {
    let time = Duration::from_secs(30);
    let mut tries = 0;
    let Crowd { answers, most, attempts, took, .. } = loop {
        let (gateway, _redis) = over_redis(plan()).await;
        let crowd = crowd(&gateway, callers, &call, time).await;
        tries += 1;
        if crowd.most <= 3 || crowd.arrived <= AT_ONCE || tries > 5 {
            break crowd;
        }
        println!("once more: {callers} calls took {:.2?} to arrive", crowd.arrived);
    };
    let mean = attempts as f64 / callers as f64;
    row(
        "callers that are refused together come back spread",
        tried,
        format!(
            "{} OK within {took:.1?} (ideal {ideal:.1?}), {mean:.1} attempts a call, {most} at most",
            oks(&answers)
        ),
    );
    let lost: Vec<_> = answers.iter().filter(|answer| answer.is_err()).map(word).collect();
    assert!(lost.is_empty(), "{} lost, as {}", lost.len(), lost[0]);
    assert!(took < 2 * ideal, "{took:?}");
    assert!(most <= 3, "{most} attempts of a call");
    assert!(mean <= 2.0, "{mean} attempts a call");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_above_the_upstreams_budget_comes_back_spread() {
    paced(async || {
        let plan = || {
            gateway()
                .with("/upstreams/main/rate", "50/s")
                .with("/upstreams/main/burst", 100)
        };
        let tried = "300 calls at once against a budget of 50/s, burst 100, five attempts";
        let call = |caller| request_with_token("contact-1", &format!("token-{caller}"));
        are_spread(plan, tried, 300, Duration::from_secs(4), call).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_crowd_above_a_small_budget_comes_back_spread() {
    repeated(async || {
        let plan =
            || gateway().with("/upstreams/main/rate", "2/s").with("/upstreams/main/burst", 5);
        let tried = "25 calls at once against a budget of 2/s, burst 5, five attempts";
        are_spread(plan, tried, 25, Duration::from_secs(10), |_| request("contact-1")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_above_its_tenants_rate_comes_back_spread() {
    paced(async || {
        let plan = || gateway().with("/tenants/demo/rate", "20/s").with("/tenants/demo/burst", 20);
        let tried = "60 calls with tokens at once against a tenant's 20/s, burst 20, five attempts";
        let call = |caller| request_with_token("contact-1", &format!("token-{caller}"));
        are_spread(plan, tried, 60, Duration::from_secs(2), call).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_is_refused_from_memory_comes_back_spread() {
    paced(async || {
        let plan = || gateway().with("/tenants/demo/rate", "20/s").with("/tenants/demo/burst", 20);
        let tried =
            "60 calls without tokens at once against a tenant's 20/s, burst 20, five attempts";
        are_spread(plan, tried, 60, Duration::from_secs(2), |_| request("contact-1")).await;
    })
    .await;
}

/// A crowd that is there within this time comes at once: for five tokens at 50/s.
const AT_ONCE: Duration = Duration::from_millis(100);
