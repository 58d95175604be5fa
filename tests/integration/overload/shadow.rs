//! Shadow decides as enforcement would.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::{oks, over_redis, paced, row, tenant, within};
use crate::support::{Fixture, Plan, Reply, gateway, request};

/// How many of the tenant's calls shadow has flagged by this limit.
async fn flagged(gateway: &Fixture, limit: &str) -> usize {
    let metrics = gateway.admin("/metrics").await.1;
    let decision = format!("decision=\"{limit}\"");
    let is_it = |line: &&str| {
        line.starts_with("participant_gateway_admission_decisions")
            && [&decision, "enforcement=\"shadow\"", "tenant=\"shadow\""]
                .iter()
                .all(|label| line.contains(*label))
    };
    let lines = metrics.lines().filter(is_it);
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        .sum()
}

/// Two tenants with the same figures, one in shadow.
fn both_tenants(figures: &Value) -> Plan {
    let mut shadow = tenant(figures);
    shadow["enforcement"] = json!("shadow");
    gateway()
        .with("/tenants/enforce", tenant(figures))
        .with("/tenants/shadow", shadow)
}

/// How many calls enforcement refused. Shadow refuses none.
fn refused(enforced: &[Reply], shadowed: &[Reply], flags: usize, how: &str) -> usize {
    let refused = enforced.len() - oks(enforced);
    row(
        "shadow flags the calls that enforcement refuses",
        &format!("shadow and enforce on one schedule, {how}"),
        format!("{flags} of {} flagged, {refused} refused", shadowed.len()),
    );
    assert_eq!(oks(shadowed), shadowed.len(), "shadow refused a call");
    refused
}

/// So many calls of either tenant at each tick, at the same moments.
async fn on_one_schedule(
    gateway: &Fixture,
    every: Duration,
    ticks: u32,
    together: usize,
    contact: &'static str,
) -> [Vec<Reply>; 2] {
    let client = gateway.client().await;
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = [Vec::new(), Vec::new()];
    for _ in 0..ticks {
        tick.tick().await;
        for _ in 0..together {
            for (calls, name) in calls.iter_mut().zip(["enforce", "shadow"]) {
                let mut client = client.clone();
                calls.push(tokio::spawn(async move {
                    within(&mut client, name, request(contact), Duration::from_secs(5)).await
                }));
            }
        }
    }
    let [enforced, shadowed] = calls.map(join_all);
    let ends = |ends: Vec<Result<Reply, _>>| ends.into_iter().map(Result::unwrap).collect();
    [ends(enforced.await), ends(shadowed.await)]
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_flags_the_calls_that_the_enforced_rate_refuses() {
    paced(async || {
        let figures = json!({ "rate": "20/s", "burst": 4 });
        let (gateway, _redis) = over_redis(both_tenants(&figures)).await;
        let begun = Instant::now();
        // 1.2 times the rate: 24 calls a second.
        let every = Duration::from_secs(1) / 24;
        let [enforced, shadowed] = on_one_schedule(&gateway, every, 120, 1, "contact-1").await;
        let flags = flagged(&gateway, "tenant_rate").await;
        let refused = refused(&enforced, &shadowed, flags, "at 1.2 times the rate");
        // What the rate cannot carry of 120 calls, in the time that they took.
        let carried = 4.0 + 20.0 * begun.elapsed().as_secs_f64();
        assert!(refused as f64 >= 120.0 - carried - 1.0, "{refused} refused");
        // The two of a pair reach the store some moments apart, at either end of the schedule.
        assert!(flags.abs_diff(refused) <= 2, "{flags} flagged, {refused} refused");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_flags_the_calls_that_the_enforced_limit_in_flight_refuses() {
    paced(async || {
        let figures = json!({ "max_in_flight": 2 });
        let (gateway, _redis) = over_redis(both_tenants(&figures)).await;
        // Four at once of which two fit, and all have ended long before the next four.
        let every = Duration::from_millis(900);
        let [enforced, shadowed] = on_one_schedule(&gateway, every, 4, 4, "sim-slow-300").await;
        let flags = flagged(&gateway, "in_flight").await;
        let refused = refused(&enforced, &shadowed, flags, "four calls at once where two fit");
        assert_eq!((flags, refused), (8, 8));
    })
    .await;
}
