//! A Redis that stalls for a moment: nothing stands of an ask that ended without a grant, and no
//! answer of Connect's is held back.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use super::{oks, quota, row, within, word};
use crate::support::redis::RedisServer;
use crate::support::{Fixture, Plan, Reply, gateway, request, request_with_token, until_within};

/// Freezes Redis for 0.6 s, and calls meanwhile.
async fn called_while_frozen(
    gateway: &Fixture,
    server: &RedisServer,
    calls: usize,
) -> (Vec<Reply>, Instant) {
    let client = gateway.client().await;
    server.pause();
    let calls: Vec<_> = (0..calls)
        .map(|index| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let call = request_with_token("contact-1", &format!("token-{index}"));
                within(&mut client, "demo", call, Duration::from_secs(2)).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(600)).await;
    server.resume();
    let healed = Instant::now();
    (join_all(calls).await.into_iter().map(Result::unwrap).collect(), healed)
}

async fn over(server: &RedisServer, plan: Plan) -> Fixture {
    let gateway = plan.on_redis(&server.url(), "pg").start().await;
    gateway.call(request("contact-1")).await.unwrap();
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ask_whose_reply_was_lost_locks_nobody_out_where_the_store_is_needed() {
    let server = RedisServer::start().await;
    let plan = gateway()
        .with("/store/on_loss", "reject")
        .with("/tenants/demo/rate", "1/h")
        .with("/tenants/demo/burst", 100)
        .with("/tenants/demo/max_in_flight", 5);
    let gateway = over(&server, plan).await;
    let (answers, healed) = called_while_frozen(&gateway, &server, 12).await;
    assert!(oks(&answers) < 12, "the freeze was not felt");
    until_within(Duration::from_secs(3), "no place is held by an ask that was lost", async || {
        quota(&gateway, "demo").await.is_ok_and(|quota| quota.in_flight == 0)
    })
    .await;
    let free = healed.elapsed();
    let charged = 99 - quota(&gateway, "demo").await.unwrap().remaining;

    // Each token again, five at a time: as many as the tenant may have in flight.
    let mut client = gateway.client().await;
    let mut served = Vec::new();
    for first in [0, 5, 10] {
        let calls = (first..12.min(first + 5)).map(|index| {
            let mut client = client.clone();
            async move {
                let call = request_with_token("contact-1", &format!("token-{index}"));
                within(&mut client, "demo", call, Duration::from_secs(3)).await
            }
        });
        served.extend(join_all(calls).await);
    }
    within(&mut client, "demo", request("contact-1"), Duration::from_secs(1))
        .await
        .unwrap();
    row(
        "nothing stands of an ask that ended without a grant",
        "on_loss: reject, max_in_flight: 5, Redis frozen for 0.6 s while 12 calls come",
        format!(
            "{} OK meanwhile, and {charged} charged; all places free {free:.1?} after it heals, \
             {} of 12 tokens OK",
            oks(&answers),
            oks(&served)
        ),
    );
    let words: Vec<_> = served.iter().map(word).collect();
    assert_eq!(charged as usize, oks(&answers), "what did not start is charged");
    assert_eq!(oks(&served), 12, "{words:?}");
    assert_eq!(gateway.journal.participant_count(), 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ask_whose_reply_was_lost_and_that_the_local_share_refuses_leaves_no_claim() {
    let server = RedisServer::start().await;
    // A third of it, while Redis is lost: most of the calls are refused.
    let plan = gateway()
        .with("/store/replicas", 3)
        .with("/upstreams/main/rate", "2/s")
        .with("/upstreams/main/burst", 5);
    let gateway = over(&server, plan).await;
    let (answers, healed) = called_while_frozen(&gateway, &server, 12).await;
    let refused = answers.iter().filter(|answer| word(answer) == "UPSTREAM_BUDGET_EXHAUSTED");
    let refused = refused.count();
    assert!(refused > 0, "the local share refused nobody");

    // Every token, again and again. A claim that nobody owns answers that the call is in progress,
    // for the 3 s of its lease; whoever asked takes it back within the second in which Redis is
    // found again, and a second of backoff.
    let client = gateway.client().await;
    let calls = (0..12).map(|index| {
        let mut client = client.clone();
        async move {
            let mut busy = Duration::ZERO;
            loop {
                let call = request_with_token("contact-1", &format!("token-{index}"));
                let answer = within(&mut client, "demo", call, Duration::from_millis(300)).await;
                if answer.is_ok() {
                    return (busy, healed.elapsed());
                }
                if word(&answer) == "REQUEST_IN_PROGRESS" {
                    busy = healed.elapsed();
                }
                assert!(healed.elapsed() < Duration::from_secs(20), "{answer:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let ends = join_all(calls).await;
    let busy = ends.iter().map(|(busy, _)| *busy).max().unwrap();
    let last = ends.iter().map(|(_, at)| *at).max().unwrap();
    row(
        "nothing stands of an ask that ended without a grant",
        "on_loss: local, 2/s, burst 5, replicas: 3, Redis frozen for 0.6 s while 12 calls come",
        format!(
            "{refused} refused meanwhile; REQUEST_IN_PROGRESS until {busy:.1?}, and all tokens OK \
             {last:.1?} after it heals"
        ),
    );
    assert!(busy < Duration::from_millis(2500), "{busy:?}");
    // The budget's own pace: 12 calls, and those that were charged but never started, at 2/s.
    assert!(last < Duration::from_secs(14), "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_connects_reaches_a_caller_whose_time_ends_while_redis_is_frozen() {
    let server = RedisServer::start().await;
    let gateway = over(&server, gateway()).await;
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move {
        let call = request_with_token("sim-slow-850", "token-1");
        within(&mut client, "demo", call, Duration::from_secs(1)).await
    });
    gateway.attempted(2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.pause();
    let answer = call.await.unwrap();
    server.resume();
    row(
        "an answer of Connect's reaches its caller while Redis is frozen",
        "deadline 1 s, Connect answers at 0.85 s, Redis is frozen at 0.5 s",
        word(&answer),
    );
    answer.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateways_call_is_finished_by_another_within_four_seconds() {
    let server = RedisServer::start().await;
    let patient = || gateway().on_redis(&server.url(), "pg").with("/store/redis/timeout", "5s");
    let other = patient().start().await;
    let doomed = patient().beside(&other).serve().await;
    let mut client = doomed.client().await;
    let cut = tokio::spawn(async move {
        let call = request_with_token("sim-slow-300", "token-1");
        within(&mut client, "demo", call, Duration::from_secs(20)).await
    });
    other.attempted(1).await;
    let killed = Instant::now();
    doomed.running.signal("KILL");
    cut.await.unwrap().unwrap_err();

    let mut client = other.client().await;
    let call = request_with_token("sim-slow-300", "token-1");
    let answer = within(&mut client, "demo", call, Duration::from_secs(5)).await;
    let took = killed.elapsed();
    let participants = other.journal.participant_count();
    row(
        "a killed gateway's call is finished elsewhere within 4 s",
        "a gateway is killed with a call at Connect, the same token comes to another",
        format!("{} after {took:.1?}, {participants} participant", word(&answer)),
    );
    answer.unwrap();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(participants, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_under_load_costs_no_caller_with_a_token_its_answer() {
    let server = RedisServer::start().await;
    let patient = || {
        gateway()
            .with("/tenants/demo", super::tenant(&json!({})))
            .on_redis(&server.url(), "pg")
            .with("/store/redis/timeout", "5s")
    };
    let other = patient().start().await;
    let doomed = patient().beside(&other).serve().await;
    let begun = Instant::now();
    let mut callers = Vec::new();
    for caller in 0..16 {
        let mut clients = vec![doomed.client().await, other.client().await];
        callers.push(tokio::spawn(async move {
            let mut answers = Vec::new();
            for number in 0.. {
                if begun.elapsed() > Duration::from_secs(2) {
                    break;
                }
                clients.swap(0, 1);
                let call = request_with_token("sim-slow-100", &format!("{caller}-{number}"));
                let time = Duration::from_secs(5);
                answers
                    .push(super::persistently(&mut clients, "demo", &call, time, 5).await.answer);
            }
            answers
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    doomed.running.signal("KILL");
    let answers: Vec<_> = join_all(callers).await.into_iter().flat_map(Result::unwrap).collect();
    let lost: Vec<_> = answers.iter().filter(|answer| answer.is_err()).map(word).collect();
    row(
        "a gateway killed under load costs no caller with a token its answer",
        "a gateway of two is killed under load, callers have a token, 5 s and five attempts",
        format!("{} of {} OK", oks(&answers), answers.len()),
    );
    assert!(lost.is_empty(), "{lost:?}");
}
