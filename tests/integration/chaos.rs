//! A seeded run: three gateways over one Redis and one Connect, callers that retry, and one fault
//! after another. What was promised is then looked for in the history of what callers, gateways and
//! Connect have seen.
//!
//! `CHAOS_SEED` chooses another run, `CHAOS_FAULTS` a longer one. A seed repeats the faults and the
//! calls, not their exact times. What is promised is an answer 50 ms after the deadline at the
//! latest. A machine that runs other tests beside this one is given a second and a half more;
//! `CHAOS_QUIET=1` holds the promise itself, on a machine that does nothing else.

mod callers;
mod house;
mod links;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use callers::{Call, Caller, End, Event};
use house::{BUDGET, House, Limit, REPLICAS, TENANTS};
use links::Weather;
use participant_gateway::proto;
use participant_gateway::proto::quota_service_client::QuotaServiceClient;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::support::{of, until};

const CALLERS: u64 = 16;
const FAULTS: u32 = 20;

/// How much later than its deadline a caller may hear.
const SLACK: Duration = Duration::from_millis(50);

/// And on a machine that has much else to do.
const BUSY: Duration = Duration::from_millis(1_500);

/// What the limits may let pass beyond rate × time + burst, for the faults there were.
#[derive(Debug, Default)]
struct Bill {
    /// Redis' data was lost: each time the buckets are full again.
    losses: u32,
    /// A replica may have been without Redis for so long: it then had its share of every limit.
    local: Vec<Duration>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_nothing_is_made_twice_no_limit_is_passed_and_all_heals() {
    let seed = setting("CHAOS_SEED").unwrap_or(20_261_121);
    println!("CHAOS_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut house = House::build().await;
    let caller = Caller::of(&house);
    let at_start = resources(&house).await;
    let begun = Instant::now();

    let stop = CancellationToken::new();
    let callers: Vec<_> = (0..CALLERS)
        .map(|index| tokio::spawn(caller.clone().run(seed ^ (index + 1), stop.clone())))
        .collect();
    let mut bill = Bill::default();
    for _ in 0..setting("CHAOS_FAULTS").unwrap_or(FAULTS.into()) {
        tokio::time::sleep(Duration::from_millis(rng.u64(50..400))).await;
        suffer(&mut house, &mut rng, &mut bill).await;
    }
    let healed = Instant::now();
    all_have_redis_again(&house).await;
    println!("healed after {:?}", healed.elapsed());
    limits_hold_exactly_once_all_is_well(&house).await;
    stop.cancel();
    for caller in callers {
        caller.await.unwrap();
    }

    serves_again(&caller, &mut rng).await;
    read_back(&caller, begun.elapsed()).await;
    let history = caller.history.lock().unwrap().clone();
    println!("{}", summary(&history, &house, begun));
    answers_are_in_time(&history);
    only_those_who_were_ended_broke_a_connection(&history);
    one_participant_a_content(&history, &house);
    one_upstream_token_a_content(&house);
    nobody_heard_of_anothers(&history, &house);
    limits_held(&house, &bill);
    metrics_are_what_callers_saw(&history, &house).await;
    everything_was_given_back(&house, &at_start).await;
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// One fault, from its begin to its end. The first replica is never ended, so that its metrics tell
/// of all its calls.
async fn suffer(house: &mut House, rng: &mut fastrand::Rng, bill: &mut Bill) {
    // Until a breaker has found out, and a probe has closed it again.
    const NOTICED: Duration = Duration::from_secs(3);
    let span = Duration::from_millis(rng.u64(100..900));
    let one = rng.usize(..REPLICAS);
    let ended = rng.usize(1..REPLICAS);
    let kind = rng.u8(..13);
    println!("fault {kind}: replica {one} or {ended}, {span:?}");
    let (to_redis, to_connect) = (&house.replicas[one].to_redis, &house.replicas[one].to_connect);
    match kind {
        0 => {
            to_redis.cut();
            bill.local.push(NOTICED);
        }
        1 | 2 => {
            to_redis.turn(if kind == 1 { Weather::Frozen } else { Weather::Slow(span / 4) });
            tokio::time::sleep(span).await;
            to_redis.turn(Weather::Fair);
            bill.local.push(span + NOTICED);
        }
        3 => {
            to_redis.turn(Weather::Refused);
            to_redis.cut();
            tokio::time::sleep(span).await;
            to_redis.turn(Weather::Fair);
            bill.local.push(span + NOTICED);
        }
        4 => {
            house.redis.pause();
            tokio::time::sleep(span).await;
            house.redis.resume();
            bill.local.extend([span + NOTICED; REPLICAS]);
        }
        5 => {
            house.redis.kill();
            tokio::time::sleep(span / 2).await;
            house.redis.restart().await;
            bill.losses += 1;
            bill.local.extend([span + NOTICED; REPLICAS]);
        }
        6 => {
            house.redis.command(&["flushall"]).await;
            bill.losses += 1;
        }
        7 => drop(house.redis.command(&["script", "flush"]).await),
        8 => to_connect.cut(),
        9 | 10 => {
            to_connect.turn(if kind == 9 { Weather::Frozen } else { Weather::Refused });
            if kind == 10 {
                to_connect.cut();
            }
            tokio::time::sleep(span).await;
            to_connect.turn(Weather::Fair);
        }
        11 => {
            house.replicas[ended].kill();
            tokio::time::sleep(span / 4).await;
            house.replicas[ended].start().await;
        }
        _ => {
            let code = house.replicas[ended].terminate().await;
            assert_eq!(code, Some(0), "a drain's exit code");
            house.replicas[ended].start().await;
        }
    }
}

async fn all_have_redis_again(house: &House) {
    let healed = Instant::now();
    for replica in &house.replicas {
        until("redis is in use again", async || {
            replica.metric("participant_gateway_store_degraded", "").await == 0.0
        })
        .await;
    }
    assert!(
        healed.elapsed() < Duration::from_secs(5),
        "not within 5 s, but {:?}",
        healed.elapsed()
    );
    // A first call has to do well on the store that was lost, before it is trusted.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// The callers ask for more than the budget all the time: they get it, and not a call more.
async fn limits_hold_exactly_once_all_is_well(house: &House) {
    let (begun, before) = (Instant::now(), house.journal.attempt_count());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (sent, time) =
        ((house.journal.attempt_count() - before) as f64, begun.elapsed().as_secs_f64());
    let most = BUDGET.rate.mul_add(time, BUDGET.burst) + 1.0;
    println!("{sent} attempts in {time} s without a fault, {most} allowed");
    assert!(sent <= most, "{sent} attempts in {time} s, {most} allowed");
    assert!(
        sent >= BUDGET.rate * time / 2.0,
        "{sent} attempts in {time} s: too few to show a limit"
    );
}

/// 95 % of what asks for no more than the limits is served.
async fn serves_again(caller: &Caller, rng: &mut fastrand::Rng) {
    const CALLS: usize = 40;
    // The buckets are at their lowest just now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut served = 0;
    for index in 0..CALLS {
        let (tenant, _) = TENANTS[index % 2];
        let call = Call::fresh(tenant, rng);
        let event = caller
            .call(&call, index % REPLICAS, Duration::from_secs(2), None)
            .await
            .expect("all are up");
        served += usize::from(event.end.is_made());
        // Half of what the smaller tenant's rate lets through.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(served * 100 >= CALLS * 95, "{served} of {CALLS} served after all had healed");
}

/// Asks for everything once more: a claim that somebody left behind ends with its lease at the
/// latest.
async fn read_back(caller: &Caller, age: Duration) {
    let history = caller.history.lock().unwrap().clone();
    let asked: BTreeMap<_, _> = history
        .into_iter()
        .filter(|event| !event.call.token.is_empty())
        .map(|event| {
            ((event.call.tenant, event.call.token.clone(), event.call.content.clone()), event.call)
        })
        .collect();
    println!("{} contents to read back after {age:?}", asked.len());
    for (index, call) in asked.into_values().enumerate() {
        let started = Instant::now();
        loop {
            let event = caller
                .call(&call, index, Duration::from_secs(5), None)
                .await
                .expect("all are up");
            match event.end {
                End::Made { .. } => break,
                End::Refused { ref reason, .. } if reason == "CLIENT_TOKEN_REUSED" => break,
                End::Refused { code: Code::ResourceExhausted, .. } => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                ref end => panic!("{call:?} at replica {}: {end:?}", event.replica),
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{call:?} is never served");
        }
    }
}

fn answers_are_in_time(history: &[Event]) {
    let slack = if setting("CHAOS_QUIET") == Some(1) { SLACK } else { SLACK + BUSY };
    for event in history {
        assert!(event.took <= event.deadline + slack, "late: {event:?}");
    }
}

fn only_those_who_were_ended_broke_a_connection(history: &[Event]) {
    let broken = history
        .iter()
        .find(|event| event.replica == 0 && matches!(event.end, End::Broken));
    assert!(broken.is_none(), "{broken:?}");
}

/// At Connect, and among what callers were told.
fn one_participant_a_content(history: &[Event], house: &House) {
    let mut made = BTreeMap::new();
    for participant in house.journal.participants() {
        let former =
            made.insert(participant.call.instance_id.clone(), participant.participant_id.clone());
        assert_eq!(former, None, "made twice: {}", participant.call.instance_id);
    }
    let mut told = BTreeMap::new();
    for event in history {
        if let End::Made { participant_id, participant_token, .. } = &event.end {
            assert_eq!(
                made.get(&event.call.content),
                Some(participant_id),
                "not what Connect made: {event:?}"
            );
            let token = told.entry(&event.call.content).or_insert(participant_token);
            assert_eq!(*token, participant_token, "told otherwise before: {event:?}");
        }
    }
}

/// No two contents had the same, and none had two, over all attempts that came so far as Connect:
/// what was retried was retried as the same.
fn one_upstream_token_a_content(house: &House) {
    let (mut tokens, mut contents) = (BTreeMap::new(), BTreeMap::new());
    for attempt in house.journal.attempts() {
        let (Some(content), Some(token)) =
            (attempt.instance_id.clone(), attempt.client_token.clone())
        else {
            continue;
        };
        let former = tokens.entry(content.clone()).or_insert_with(|| token.clone());
        assert_eq!(*former, token, "{content} was sent with two tokens");
        let former = contents.entry(token.clone()).or_insert_with(|| content.clone());
        assert_eq!(*former, content, "{token} was sent with two contents");
    }
}

fn nobody_heard_of_anothers(history: &[Event], house: &House) {
    let owners: BTreeMap<_, _> = house
        .journal
        .participants()
        .into_iter()
        .map(|participant| {
            (participant.participant_id.clone(), participant.call.instance_id.clone())
        })
        .collect();
    for event in history {
        if let End::Made { participant_id, .. } = &event.end {
            assert!(owners[participant_id].starts_with(event.call.tenant), "{event:?}");
        }
    }
}

fn limits_held(house: &House, bill: &Bill) {
    let attempts = house.journal.attempts();
    let time = attempts
        .last()
        .unwrap()
        .received_at
        .duration_since(attempts[0].received_at)
        .as_secs_f64();
    let most = |limit: Limit| {
        let whole = limit.rate.mul_add(time, limit.burst * f64::from(1 + bill.losses));
        let share =
            |span: &Duration| (limit.rate * span.as_secs_f64() + limit.burst) / REPLICAS as f64;
        whole + bill.local.iter().map(share).sum::<f64>()
    };
    let sent = attempts.len() as f64;
    assert!(
        sent <= most(BUDGET) + 1.0,
        "{sent} attempts in {time} s, {} allowed: {bill:?}",
        most(BUDGET)
    );
    for (tenant, limit) in TENANTS {
        let made = house.journal.participants();
        let made = made
            .iter()
            .filter(|participant| participant.call.instance_id.starts_with(tenant))
            .count() as f64;
        assert!(
            made <= most(limit) + 1.0,
            "{made} calls of {tenant} in {time} s, {} allowed: {bill:?}",
            most(limit)
        );
    }
}

/// Of the replica that lives through it all. Whom a caller did not hear to the end may have been
/// answered all the same.
async fn metrics_are_what_callers_saw(history: &[Event], house: &House) {
    let mut seen = BTreeMap::<String, f64>::new();
    let mut left = 0.0;
    for event in history.iter().filter(|event| event.replica == 0) {
        match &event.end {
            End::Made { .. } => *seen.entry("OK".to_owned()).or_default() += 1.0,
            End::Refused { code, .. } => *seen.entry(name(*code)).or_default() += 1.0,
            End::Broken | End::Left => left += 1.0,
        }
    }
    for (code, count) in seen {
        let label = format!("rpc_response_status_code=\"{code}\"");
        let counted =
            house.replicas[0].metric("rpc_server_call_duration_seconds_count", &label).await;
        assert!(
            counted >= count && counted <= count + left,
            "{code}: {counted} counted, {count} seen, {left} left"
        );
    }
}

/// As `google.rpc.Code` writes it.
fn name(code: Code) -> String {
    format!("{code:?}").chars().fold(String::new(), |mut words, letter| {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(letter.to_ascii_uppercase());
        words
    })
}

/// Descriptors and tasks of the replica that lives through it all.
async fn resources(house: &House) -> [f64; 2] {
    let first = &house.replicas[0];
    [
        first.metric("process_open_fds", "").await,
        first.metric("participant_gateway_runtime_alive_tasks", "").await,
    ]
}

async fn everything_was_given_back(house: &House, at_start: &[f64; 2]) {
    for replica in &house.replicas {
        until("no call is in flight", async || {
            replica.metric("participant_gateway_in_flight", "").await == 0.0
        })
        .await;
        let addr = replica.addr.lock().unwrap().unwrap();
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{addr}"))
            .unwrap()
            .connect()
            .await;
        let quotas = QuotaServiceClient::new(channel.unwrap());
        for (tenant, _) in TENANTS {
            until("leases end", async || {
                let ask = of(tenant, proto::GetQuotaRequest { instance_id: "any".to_owned() });
                quotas.clone().get_quota(ask).await.unwrap().into_inner().in_flight == 0
            })
            .await;
        }
    }
    let [files, tasks] = resources(house).await;
    // Connections that are kept for the next call: a few to callers, to Connect, to Redis.
    assert!(
        files <= at_start[0] + 40.0 && tasks <= at_start[1] + 80.0,
        "{files} files, {tasks} tasks: {at_start:?}"
    );
}

fn summary(history: &[Event], house: &House, begun: Instant) -> String {
    let mut ends = BTreeMap::<String, u32>::new();
    for event in history {
        let end = match &event.end {
            End::Made { replayed: false, .. } => "made".to_owned(),
            End::Made { replayed: true, .. } => "replayed".to_owned(),
            End::Refused { reason, .. } => reason.clone(),
            other => format!("{other:?}"),
        };
        *ends.entry(end).or_default() += 1;
    }
    let (attempts, made) = (house.journal.attempt_count(), house.journal.participant_count());
    format!(
        "{} calls in {:?}, {attempts} attempts, {made} participants: {ends:?}",
        history.len(),
        begun.elapsed()
    )
}
