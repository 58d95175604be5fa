//! The checks after all faults have ended.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::Code;

use super::WATCHED;
use super::callers::{Call, Caller, End};
use super::house::{House, REPLICAS, UPSTREAMS};
use super::ledger::{Ledger, Stretch, Violation};
use crate::support::until;

pub async fn all_have_redis_again(house: &House, ledger: &Ledger) {
    let healed = Instant::now();
    for replica in &house.replicas {
        until("redis is in use again", async || {
            replica.metric("participant_gateway_store_degraded", "").await == 0.0
        })
        .await;
    }
    let took = healed.elapsed();
    println!("healed after {took:?}");
    if took > Duration::from_secs(5) {
        ledger
            .book()
            .violated(10, format!("Redis is in use {took:?} after it was back"));
    }
    // A store that was lost is trusted after its first successful call.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Callers that always ask for more than the budget get the budget, and not a call more. Callers
/// that ask for less never fail.
pub async fn limits_hold_exactly_once_all_is_well(house: &House, caller: &Caller) {
    let ledger = &caller.ledger;
    caller.eager.store(true, Ordering::Relaxed);
    let (name, budget) = UPSTREAMS[0];
    let attempts = || {
        ledger.harvest(&house.journal);
        ledger
            .book()
            .attempts
            .get(name)
            .map_or(0, |seconds| seconds.iter().sum::<u32>())
    };
    let (begun, before) = (Instant::now(), attempts());
    ledger.book().goodput = Some((begun, [0, 0]));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (sent, time) = (f64::from(attempts() - before), begun.elapsed().as_secs_f64());
    caller.eager.store(false, Ordering::Relaxed);
    let mut book = ledger.book();
    let (_, [served, failed]) = book.goodput.take().unwrap_or((begun, [0, 0]));
    let most = budget.rate.mul_add(time, budget.burst) + 1.0;
    println!("{sent} attempts in {time:.2} s without a fault, {most:.1} allowed");
    println!("within the limits, {served} were served and {failed} failed");
    if sent > most {
        book.violated(5, format!("{sent} attempts in {time} s, {most} allowed"));
    }
    if sent < budget.rate * time * 0.9 {
        book.violated(10, format!("{sent} attempts in {time} s: too few to show a limit"));
    }
    if served * 100 < (served + failed) * 95 {
        book.violated(10, format!("{failed} failed beside {served} within the limits"));
    }
}

/// Calls that ask for no more than the limits, each twice, at two gateways: 95 % are served, and
/// what was served is settled, so that its repeat replays. Returns the share in percent.
pub async fn serves_again(caller: &Caller, rng: &mut fastrand::Rng) -> u32 {
    const CALLS: usize = 20;
    const DEADLINE: Duration = Duration::from_secs(2);
    // The buckets are at their lowest just now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut served = 0;
    for index in 0..CALLS {
        let tenant = ["alpha", "beta"][index % 2];
        let call = Call::fresh_with_token(tenant, "main", rng);
        let (one, other, begun) = (index % REPLICAS, (index + 1) % REPLICAS, Instant::now());
        let first = caller.call(&call, one, DEADLINE, None).await;
        if first.is_some_and(|end| end.is_made()) {
            served += 1;
            let first = Stretch::until_now(one, begun);
            let again = caller.call(&call, other, DEADLINE, None).await;
            if !again.as_ref().is_some_and(End::is_replayed) {
                let how = format!("was answered, and not settled: {again:?} of {call:?}");
                let calls = [first, Stretch::until_now(other, begun)];
                caller.ledger.book().suspected.push((Violation(3, how), calls));
            }
        }
        // Half of what the smaller tenant's rate lets through.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut book = caller.ledger.book();
    if served * 100 < CALLS * 95 {
        book.violated(10, format!("{served} of {CALLS} served after all had healed"));
    }
    (served * 100 / CALLS) as u32
}

/// Repeats calls that had a token: the latest, and a sample of the others. A claim left behind ends
/// with its lease at the latest. A result replays if its gateway had Redis, and if no data was lost
/// later. Says how many calls ran anew.
pub async fn read_back(caller: &Caller, rng: &mut fastrand::Rng) -> String {
    let mut asked: Vec<_> = {
        let book = caller.ledger.book();
        let asked = book.contents.values().filter_map(|content| {
            let call = content.call.as_ref().filter(|call| !call.token.is_empty())?;
            let settled = content.ok.filter(|ok| book.trouble.leaves_alone(ok));
            Some((call.clone(), settled, content.ok.and_then(|ok| ok.to)))
        });
        asked.collect()
    };
    asked.sort_by(|one, other| one.0.content.cmp(&other.0.content));
    rng.shuffle(&mut asked);
    // What was answered last is what faults have touched last.
    asked.sort_by_key(|asked| std::cmp::Reverse(asked.2));
    let settled = asked.iter().filter(|asked| asked.1.is_some()).count();
    let latest = LATEST.min(asked.len());
    rng.shuffle(&mut asked[latest..]);
    asked.truncate(LATEST + SAMPLE);
    let all = asked.len();
    let mut reading = JoinSet::new();
    for chunk in asked.chunks(all.div_ceil(READERS).max(1)) {
        let chunk = chunk.iter().map(|(call, settled, _)| (call.clone(), *settled));
        reading.spawn(read(caller.clone(), chunk.collect()));
    }
    let mut anew = 0;
    while let Some(read) = reading.join_next().await {
        anew += read.expect("a reader");
    }
    // Until the gateways were asked once more whether they had Redis.
    tokio::time::sleep(2 * WATCHED).await;
    caller.ledger.book().judge_the_suspected();
    format!("{anew} of {all} read back ran anew, none of {settled} that had to replay")
}

async fn read(caller: Caller, calls: Vec<(Call, Option<Stretch>)>) -> usize {
    let mut anew = 0;
    for (index, (call, settled)) in calls.into_iter().enumerate() {
        let started = Instant::now();
        let (end, read) = loop {
            let (replica, begun) = (index % REPLICAS, Instant::now());
            let end = caller.call(&call, replica, Duration::from_secs(5), None).await;
            let read = Stretch::until_now(replica, begun);
            match end.expect("all are up") {
                End::Refused { code: Code::ResourceExhausted, .. } if call.upstream != "odd" => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                end => break (end, read),
            }
            if started.elapsed() > Duration::from_secs(30) {
                break (End::Left, read);
            }
        };
        anew += usize::from(matches!(end, End::Made { replayed: false, .. }));
        let mut book = caller.ledger.book();
        match (&end, settled) {
            (End::Made { replayed: false, .. }, Some(ok)) => {
                let how = format!("was answered, and not settled: {call:?}");
                book.suspected.push((Violation(7, how), [ok, read]));
            }
            (End::Made { .. }, _) => {}
            (End::Refused { reason, .. }, _) if reason == "CLIENT_TOKEN_REUSED" => {}
            (End::Refused { .. }, None) if call.upstream == "odd" => {}
            _ => book.violated(7, format!("{call:?} is never served: {end:?}")),
        }
    }
    anew
}

/// What is read back at most.
const LATEST: usize = 500;
const SAMPLE: usize = 2_500;

const READERS: usize = 4;
