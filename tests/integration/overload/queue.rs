//! The queue for an upstream's budget: what it loses to deadlines and hang-ups, and who gets what.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use participant_gateway::simulator::Options;
use serde_json::json;
use tokio::time::{interval, sleep, timeout};

use super::{Client, oks, over_redis, paced, quota, repeated, row, tenant, within, word};
use crate::support::redis::{RedisServer, text};
use crate::support::{Fixture, gateway, request};

/// Callers of a tenant in a loop, until the time is over: how many of their calls were OK.
async fn in_a_loop(
    clients: Vec<Client>,
    tenant: &'static str,
    callers: usize,
    until: Instant,
) -> usize {
    let calls = (0..callers).map(|caller| {
        let mut client = clients[caller % clients.len()].clone();
        tokio::spawn(async move {
            let mut ok = 0;
            while Instant::now() < until {
                let time = Duration::from_secs(5);
                match within(&mut client, tenant, request("contact-1"), time).await {
                    Ok(_) => ok += usize::from(Instant::now() < until),
                    // Not at the hint; and not so often that the calls take all of a core.
                    Err(_) => sleep(Duration::from_millis(400)).await,
                }
            }
            ok
        })
    });
    join_all(calls.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).sum()
}

async fn clients(gateway: &Fixture) -> Vec<Client> {
    vec![gateway.client().await, gateway.client().await, gateway.client().await]
}

/// Twice the budget's load, for 5 s, by callers with this deadline.
async fn at_twice_the_load(max_wait: &str, deadline: Duration) {
    let plan = gateway()
        .over(Options { latency: Duration::from_millis(150), ..Options::default() })
        .with("/upstreams/main/rate", "20/s")
        .with("/upstreams/main/burst", 10)
        .with("/upstreams/main/max_wait", max_wait);
    let (gateway, _redis) = over_redis(plan).await;
    let client = gateway.client().await;
    let mut tick = interval(Duration::from_millis(25));
    let mut calls = Vec::new();
    for _ in 0..200 {
        tick.tick().await;
        let mut client = client.clone();
        calls.push(tokio::spawn(async move {
            within(&mut client, "demo", request("contact-1"), deadline).await
        }));
    }
    let answers: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let (heard, participants) = (oks(&answers), gateway.journal.participant_count());
    row(
        "callers hear of what the budget makes",
        &format!("40 calls a second against 20/s, max_wait: {max_wait}, deadlines of {deadline:?}"),
        format!(
            "{:.1} OK a second heard, {participants} participants a {heard}",
            heard as f64 / 5.0
        ),
    );
    // Nine tenths of 20/s over 5 s; the burst is beside it.
    assert!(heard >= 90, "{heard} heard");
    assert!(participants as f64 <= 1.1 * heard as f64, "{participants} made, {heard} heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_hear_of_what_the_budget_makes_where_their_deadlines_are_near_max_wait() {
    paced(async || {
        tokio::join!(
            at_twice_the_load("2s", Duration::from_secs(1)),
            at_twice_the_load("500ms", Duration::from_millis(600)),
        );
    })
    .await;
}

/// A tenant whose ceiling is 1/s sends 30 calls four times a second, and gives each up after so
/// long. Another takes what is left of 2/s.
async fn beside_a_hog(tried: &str, patience: Duration) {
    const TIME: Duration = Duration::from_secs(12);
    let plan = gateway()
        .with("/tenants/hog", tenant(&json!({ "rate": "1/s", "burst": 1 })))
        .with("/upstreams/main/rate", "2/s")
        .with("/upstreams/main/burst", 5)
        .with("/upstreams/main/max_wait", "5s");
    let (gateway, _redis) = over_redis(plan).await;
    let end = Instant::now() + TIME;
    let hogging = clients(&gateway).await;
    let hogged = Arc::new(AtomicUsize::new(0));
    let hog = {
        let hogged = Arc::clone(&hogged);
        async move {
            let mut tick = interval(Duration::from_millis(250));
            while Instant::now() < end {
                tick.tick().await;
                for number in 0..30 {
                    let (mut client, hogged) = (hogging[number % 3].clone(), Arc::clone(&hogged));
                    tokio::spawn(async move {
                        let call = request("contact-of-the-hog");
                        let call = within(&mut client, "hog", call, Duration::from_secs(5));
                        if timeout(patience, call).await.is_ok_and(|answer| answer.is_ok()) {
                            hogged.fetch_add(1, Relaxed);
                        }
                    });
                }
            }
        }
    };
    let made = async {
        tokio::time::sleep_until(end.into()).await;
        gateway.journal.participants()
    };
    let others = in_a_loop(clients(&gateway).await, "demo", 12, end);
    let (_, others, made) = tokio::join!(hog, others, made);
    let hogs = made.iter().filter(|made| made.call.contact_id == "contact-of-the-hog").count();
    // The burst, and a slot each half second. The one at the very end comes too late.
    let most = 5.0 + 2.0 * TIME.as_secs_f64() - 1.0;
    row(
        "the others get what a tenant leaves of the budget",
        tried,
        format!(
            "{others} OK of the others and {hogs} of its own ({} heard), of {most:.0} slots",
            hogged.load(Relaxed)
        ),
    );
    let all = (others + hogs) as f64;
    assert!(all >= 0.95 * most, "{all} of {most} slots were used");
    assert!(hogs <= 13, "{hogs} of a tenant that has 1/s");
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_callers_that_hang_up_cost_the_others_no_slot() {
    repeated(async || {
        let tried =
            "a tenant (1/s of 2/s) sends 30 calls four times a second, hangs up after 100 ms";
        beside_a_hog(tried, Duration::from_millis(100)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_queues_above_its_own_ceiling_costs_the_others_no_slot() {
    repeated(async || {
        let tried = "a tenant (1/s of 2/s) sends 30 calls four times a second, and waits";
        beside_a_hog(tried, Duration::from_secs(5)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_takes_no_more_places_than_its_tenant_has() {
    paced(async || {
    let plan = gateway()
        .with("/server/max_in_flight", 256)
        .with("/tenants/crowd", tenant(&json!({ "max_in_flight": 4 })))
        .with("/tenants/demo", tenant(&json!({ "committed": "20/s" })))
        .with("/upstreams/main/rate", "50/s")
        .with("/upstreams/main/burst", 60)
        .with("/upstreams/main/max_wait", "10s");
    let (gateway, _redis) = over_redis(plan).await;
    let end = Instant::now() + Duration::from_secs(3);
    let crowd = tokio::spawn(in_a_loop(clients(&gateway).await, "crowd", 240, end));
    let watch = async {
        let mut most = 0;
        while Instant::now() < end {
            most = most.max(quota(&gateway, "crowd").await.map_or(0, |quota| quota.in_flight));
            sleep(Duration::from_millis(20)).await;
        }
        most
    };
    let committed = async {
        let mut client = gateway.client().await;
        let (mut tick, mut answers) = (interval(Duration::from_millis(100)), Vec::new());
        while Instant::now() < end {
            tick.tick().await;
            let time = Duration::from_secs(2);
            answers.push(within(&mut client, "demo", request("contact-1"), time).await);
        }
        answers
    };
    let (most, answers) = tokio::join!(watch, committed);
    crowd.await.unwrap();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.is_err()).map(word).collect();
    row(
        "a crowd takes no more places than its tenant has",
        "240 callers of a tenant with max_in_flight: 4, server.max_in_flight: 256, max_wait: 10s",
        format!(
            "{most} of its calls in flight or queued at most; {} of {} committed calls OK",
            oks(&answers),
            answers.len()
        ),
    );
    assert!((1..=4).contains(&most), "{most}");
    assert!(refused.is_empty(), "{refused:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_call_asks_about_twice() {
    paced(async || {
        let server = RedisServer::start().await;
        let plan = gateway()
            .with("/tenants/demo", tenant(&json!({ "committed": "25/s" })))
            .with("/tenants/spare", tenant(&json!({})))
            .with("/upstreams/main/rate", "50/s")
            .with("/upstreams/main/burst", 60)
            .with("/upstreams/main/max_wait", "2s")
            .with("/store/redis/timeout", "5s");
        let gateway = plan.on_redis(&server.url(), "pg").start().await;
        let scripts = async || {
            let stats = text(&server.command(&["info", "commandstats"]).await);
            let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
            line.and_then(|line| line.split(',').next()?.parse::<usize>().ok())
                .unwrap_or_default()
        };
        let before = scripts().await;
        let end = Instant::now() + Duration::from_secs(4);
        let spare = tokio::spawn(in_a_loop(clients(&gateway).await, "spare", 20, end));
        let mut client = gateway.client().await;
        let (mut tick, mut bursts) = (interval(Duration::from_millis(800)), Vec::new());
        while Instant::now() < end {
            tick.tick().await;
            for _ in 0..10 {
                let mut client = client.clone();
                bursts.push(tokio::spawn(async move {
                    within(&mut client, "demo", request("contact-1"), Duration::from_secs(5)).await
                }));
            }
        }
        let committed: Vec<_> = join_all(bursts).await.into_iter().map(Result::unwrap).collect();
        spare.await.unwrap();
        within(&mut client, "demo", request("contact-1"), Duration::from_secs(5))
            .await
            .unwrap();
        let made = gateway.journal.participant_count() as usize;
        let spares = made - oks(&committed) - 1;
        // Each call settles once, and a committed one asks once.
        let asks = scripts().await - before - made - (made - spares);
        let each = asks as f64 / spares as f64;
        row(
            "a queued call asks about twice, and once for each burst that goes before it",
            "committed calls in bursts at 50/s, 20 callers of another tenant wait for the rest",
            format!(
                "{each:.1} asks a spare call, {} of {} committed OK",
                oks(&committed),
                committed.len()
            ),
        );
        assert_eq!(oks(&committed), committed.len());
        // Two, and one more for each burst that goes before the call: one in 0.8 s of its wait.
        // 20 calls wait at any time.
        let wait = 20.0 * 4.0 / spares as f64;
        assert!(each <= 2.3 + wait / 0.8, "{each} asks a call, which waits for {wait:.2} s");
        assert!(spares >= 100, "{spares} spare calls");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_get_the_same_whoever_sends_more() {
    paced(async || {
        let plan = gateway()
            .with("/tenants/many", tenant(&json!({})))
            .with("/tenants/few", tenant(&json!({})))
            .with("/upstreams/main/rate", "20/s")
            .with("/upstreams/main/burst", 2)
            .with("/upstreams/main/max_wait", "2s");
        let (gateway, _redis) = over_redis(plan).await;
        let (first, second) = (clients(&gateway).await, clients(&gateway).await);
        let end = Instant::now() + Duration::from_secs(6);
        let many = tokio::spawn(in_a_loop(first, "many", 60, end));
        let few = in_a_loop(second, "few", 2, end).await;
        let many = many.await.unwrap();
        row(
            "two tenants get the same, whoever sends more",
            "60 callers of one tenant and 2 of another, in a loop, for 6 s at 20/s",
            format!("{many} and {few} calls"),
        );
        // The few have one call waiting at least, unless the machine stalls for 50 ms and more.
        assert!(many + few >= 100, "{many} + {few}");
        assert!(many.abs_diff(few) <= 12, "{many} and {few}");
    })
    .await;
}
