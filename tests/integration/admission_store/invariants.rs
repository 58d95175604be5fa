//! What must hold whatever happens: the budget's (a) to (d), and the record's state machine. On the
//! in-memory store, for speed; the model test holds Redis equal to it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use participant_gateway::admission::memory::MemoryStore;
use participant_gateway::admission::{
    Answer, Ask, Decision, ManualClock, Nonce, Scope, Settled, Settlement, Stage, Store, Verdict,
};
use participant_gateway::domain::share_burst;
use participant_gateway::error::Limit;
use proptest::prelude::*;

use super::model::{CONFIGS, History, Who, cases, step};
use super::world::*;

/// The budget as the invariants speak of it, kept from the answers' factor alone.
struct Ghost {
    at: u64,
    factor: f64,
    /// What may still start without breaking (a).
    allowance: f64,
    /// The committed shares.
    shares: Vec<f64>,
}

struct Crowd {
    store: MemoryStore,
    clock: ManualClock,
    runtime: tokio::runtime::Runtime,
    scopes: Vec<Scope>,
    ghost: Ghost,
    started: u32,
}

/// A tenant's committed rate; the rest of them are spare.
fn crowd(upstream_rate: f64, burst: u32, committed: &[f64], spare: usize) -> Crowd {
    let clock = ManualClock::at(START);
    let committed_burst = committed.iter().map(|committed| share_burst(rate(*committed))).sum();
    let scopes: Vec<Scope> = (0..committed.len() + spare)
        .map(|tenant| {
            let mut scope = scope();
            scope.tenant = name(&format!("tenant-{tenant}"));
            (scope.rate, scope.burst, scope.committed_burst) =
                (rate(upstream_rate), burst, committed_burst);
            (scope.limits.rate, scope.limits.burst) = (rate(1e6), 1_000_000);
            scope.limits.max_in_flight = 1_000_000;
            scope.limits.committed = rate(committed.get(tenant).copied().unwrap_or(0.0));
            scope
        })
        .collect();
    let shares = committed
        .iter()
        .map(|committed| f64::from(share_burst(rate(*committed))))
        .collect();
    Crowd {
        store: MemoryStore::with_clock(clock.clone()),
        clock,
        runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
        scopes,
        ghost: Ghost { at: START, factor: 1.0, allowance: f64::from(burst), shares },
        started: 0,
    }
}

impl Crowd {
    fn go_to(&mut self, at: u64) {
        let ghost = &mut self.ghost;
        let dt = (at - ghost.at) as f64 / 1e6;
        let rising = dt.min((1.0 - ghost.factor) * 16.0);
        let dphi = ghost.factor * rising + rising * rising / 32.0 + dt - rising;
        let scope = &self.scopes[0];
        ghost.allowance =
            (ghost.allowance + scope.rate.per_second() * dphi).min(f64::from(scope.burst));
        for (share, scope) in ghost.shares.iter_mut().zip(&self.scopes) {
            let committed = scope.limits.committed;
            *share =
                (*share + committed.per_second() * dphi).min(f64::from(share_burst(committed)));
        }
        (ghost.at, ghost.factor) = (at, (ghost.factor + rising / 16.0).min(1.0));
        self.clock.set(at);
    }

    /// Asks now, and holds (a).
    fn ask(&mut self, ask: &Ask) -> Answer {
        let answer = self.runtime.block_on(self.store.admit(ask)).unwrap();
        self.ghost.factor = answer.quota.factor;
        if let Decision::Granted { .. } = answer.decision {
            self.started += 1;
            self.ghost.allowance -= 1.0;
            assert!(self.ghost.allowance > -1e-5, "(a): more started than R∫f + B allows");
        }
        answer
    }

    fn call(&self, tenant: usize, wait: Duration) -> Ask {
        Ask {
            scope: self.scopes[tenant].clone(),
            nonce: nonce(),
            record: None,
            lease: Duration::from_secs(5),
            wait,
            patience: Duration::ZERO,
            stage: Stage::First,
            throttled: None,
        }
    }

    fn throttle(&mut self, ask: &Ask, answer: &Answer) {
        let Decision::Granted { at, .. } = answer.decision else { return };
        let settlement = Settlement { throttled: Some(at), ..settlement(ask, release()) };
        self.runtime.block_on(self.store.settle(&settlement)).unwrap();
        self.ghost.factor = self.runtime.block_on(self.store.quota(&ask.scope)).unwrap().factor;
    }

    fn reserve(&self) -> f64 {
        f64::from(self.scopes[0].committed_burst.min(self.scopes[0].burst - 1))
    }
}

#[derive(Debug, Clone)]
struct Scenario {
    rate: f64,
    burst: u32,
    committed: Vec<f64>,
    spare: usize,
    max_wait_ms: u64,
    throttling: f64,
    seed: u64,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let shares = prop::collection::vec(0.01..1.0_f64, 0..4);
    (
        0.5..60.0_f64,
        1..40_u32,
        shares,
        1..4_usize,
        0..2_000_u64,
        prop_oneof![Just(0.0), 0.0..0.2_f64],
        any::<u64>(),
    )
        .prop_map(|(rate, burst, shares, spare, max_wait_ms, throttling, seed)| {
            let total: f64 = shares.iter().sum::<f64>().max(1.0);
            let committed = shares.iter().map(|share| rate * share / total).collect();
            Scenario { rate, burst, committed, spare, max_wait_ms, throttling, seed }
        })
}

/// Spare tenants press with three times the rate; the committed call whenever their own share holds
/// a call.
#[test]
fn no_more_start_than_the_account_allows_and_no_committed_call_suffers() {
    proptest!(cases(200), |(scenario in scenario())| {
        let mut random = fastrand::Rng::with_seed(scenario.seed);
        let mut crowd = crowd(scenario.rate, scenario.burst, &scenario.committed, scenario.spare);
        let committed_burst = f64::from(crowd.scopes[0].committed_burst);
        let protected = crowd.scopes[0].committed_burst < scenario.burst;
        let most_waiting = committed_burst - crowd.reserve();
        let mut token_due = u64::MAX;
        let max_wait = Duration::from_millis(scenario.max_wait_ms);
        let tenants = scenario.committed.len() + scenario.spare;
        let mut waits = vec![0_u32; scenario.committed.len()];
        // (when, order, tenant, since when it waits, its ask where it asks again)
        let mut events = BinaryHeap::new();
        let mut asks: Vec<Ask> = Vec::new();
        let mut order = 0;
        for tenant in 0..tenants {
            events.push(Reverse((START + random.u64(0..100_000), tenant, tenant, START, usize::MAX)));
        }
        let end = START + (200.0 / scenario.rate * 1e6) as u64;
        while let Some(Reverse((at, _, tenant, since, waiting))) = events.pop() {
            if at > end {
                break;
            }
            crowd.go_to(at);
            order += 1;
            let is_committed = tenant < scenario.committed.len();
            let first = waiting == usize::MAX;
            let mut ask = if first {
                // The next call, come what may.
                let press = if is_committed { scenario.committed[tenant] * 2.0 } else { scenario.rate * 3.0 };
                let gap = (-random.f64().max(1e-9).ln() / press * 1e6) as u64;
                events.push(Reverse((at + gap + 1, order + tenants, tenant, START, usize::MAX)));
                // A share is charged when the call starts: the calls that wait have theirs still to
                // come.
                if is_committed && crowd.ghost.shares[tenant] < 1.0 + f64::from(waits[tenant]) + 1e-6 {
                    continue;
                }
                let wait = if is_committed { Duration::from_secs(3_600) } else { max_wait };
                crowd.call(tenant, wait)
            } else {
                again(&asks[waiting])
            };
            let since = if first { at } else { since };
            if !is_committed {
                ask.wait = max_wait.saturating_sub(Duration::from_micros(at - since));
            }
            let answer = crowd.ask(&ask);
            match answer.decision {
                Decision::Granted { .. } if random.f64() < scenario.throttling => crowd.throttle(&ask, &answer),
                Decision::Granted { .. } => {}
                Decision::AskAgain { after } => {
                    prop_assert!(after > Duration::ZERO);
                    asks.push(ask);
                    let next = at + after.as_micros() as u64;
                    events.push(Reverse((next, order + tenants, tenant, since, asks.len() - 1)));
                }
                ref other => prop_assert!(!is_committed, "(b): a committed call was refused: {:?}", other),
            }
            let started = matches!(answer.decision, Decision::Granted { .. });
            if is_committed && started {
                crowd.ghost.shares[tenant] -= 1.0;
            }
            if is_committed {
                waits[tenant] += u32::from(first && !started);
                waits[tenant] -= u32::from(!first && started);
            }
            if is_committed && !started {
                prop_assert!(!protected, "(b): a committed call was delayed");
            }
            // So many at most wait, and one of them starts with every token: served in order, none
            // waits longer than (Σb − res)/R. A burst of 1 reserves nothing: spare calls then race
            // the committed for every token.
            if is_committed && scenario.burst > 1 {
                let waiting: u32 = waits.iter().sum();
                prop_assert!(f64::from(waiting) <= most_waiting, "(b): {} wait", waiting);
                if started || (first && waiting == 1) {
                    token_due = at + (1e6 / scenario.rate) as u64 + 2;
                }
                let in_time = scenario.throttling > 0.0 || at <= token_due;
                prop_assert!(in_time, "(b): a token was given to somebody else");
            }
        }
    });
}

#[test]
fn what_the_committed_leave_unused_is_the_others_at_once() {
    proptest!(cases(40), |(upstream_rate in 1.0..60.0_f64, burst in 2..40_u32, part in 0.0..1.0_f64)| {
        let mut crowd = crowd(upstream_rate, burst, &[upstream_rate * part], 1);
        let seconds = 60;
        let mut waiting: Option<(u64, Ask)> = None;
        // A call is always waiting, so that no token is ever left lying.
        let end = START + seconds * 1_000_000;
        loop {
            let ask = match waiting.take() {
                Some((at, ask)) => {
                    if at > end {
                        break;
                    }
                    crowd.go_to(at);
                    again(&ask)
                }
                None => crowd.call(1, Duration::from_secs(3_600)),
            };
            match crowd.ask(&ask).decision {
                Decision::Granted { .. } => {}
                Decision::AskAgain { after } => waiting = Some((crowd.ghost.at + after.as_micros() as u64, ask)),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        let expected = upstream_rate * seconds as f64 + f64::from(burst) - crowd.reserve();
        prop_assert!(f64::from(crowd.started) > expected - 2.0, "{} of {}", crowd.started, expected);
    });
}

#[test]
fn a_retry_at_the_hint_is_admitted_if_nobody_came_between() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    proptest!(cases(400), |(
        steps in prop::collection::vec(step(), 0..80),
        first in 0..CONFIGS.len(),
        tenant in 0..3_usize,
        wait_ms in 0..2_000_u64,
    )| {
        let clock = ManualClock::at(START);
        let stores = [MemoryStore::with_clock(clock.clone()), MemoryStore::with_clock(clock.clone())];
        let mut history = History::new(clock.clone(), first);
        for step in &steps {
            runtime.block_on(history.take(step, [&stores[0], &stores[1]]));
        }
        let mut ask = history.ask(Who { tenant, nonce: 0, token: 0, content: 0 });
        (ask.nonce, ask.lease, ask.wait) = (nonce(), Duration::from_secs(1), Duration::from_millis(wait_ms));
        let mut refusals = Vec::new();
        loop {
            match runtime.block_on(stores[0].admit(&ask)).unwrap().decision {
                Decision::Granted { .. } => break,
                Decision::AskAgain { after } => {
                    prop_assert!(after <= ask.wait + Duration::from_micros(1));
                    clock.advance(after);
                    let granted = runtime.block_on(stores[0].admit(&again(&ask))).unwrap().decision;
                    let is_granted = matches!(granted, Decision::Granted { .. });
                    prop_assert!(is_granted, "a queued call asked in time: {:?}", granted);
                    break;
                }
                Decision::Refused(refused) => {
                    prop_assert!(!refusals.contains(&refused.limit), "{:?} refused twice", refused);
                    if ask.scope.limits.rate.per_second() == 0.0 && refused.limit == Limit::TenantRate {
                        break;
                    }
                    refusals.push(refused.limit);
                    clock.advance(refused.retry_after);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    });
}

/// What a test knows of one record from the answers alone.
#[derive(Default)]
struct Known {
    /// The last grant: its nonce, and when its lease ends.
    owner: Option<(Nonce, u64)>,
    sticky: bool,
    /// The result, and when it ends.
    result: Option<(Vec<u8>, u64)>,
    until: u64,
    token: Option<String>,
}

#[derive(Debug, Clone)]
enum Move {
    Pass(u64),
    Ask { nonce: usize, lease_s: u64, stage: u8 },
    Settle { nonce: usize, verdict: u8, expires_s: Option<u64> },
}

fn a_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (0..10_000_000_u64).prop_map(Move::Pass),
        1 => (0..2_000_000_000_u64).prop_map(Move::Pass),
        6 => (0..4_usize, 1..20_u64, 0..6_u8).prop_map(|(nonce, lease_s, stage)| Move::Ask { nonce, lease_s, stage }),
        4 => (0..4_usize, 0..5_u8, prop::option::of(0..300_u64))
            .prop_map(|(nonce, verdict, expires_s)| Move::Settle { nonce, verdict, expires_s }),
    ]
}

/// One owner at a time; the same token for good; once uncertain, never forgotten; a result is
/// repeated to its end.
#[test]
fn a_record_keeps_its_promises_through_any_history() {
    const RETENTION_S: u64 = 2_000;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    proptest!(cases(600), |(moves in prop::collection::vec(a_move(), 1..120))| {
        let clock = ManualClock::at(START);
        let store = MemoryStore::with_clock(clock.clone());
        let nonces: Vec<Nonce> = (0..4).map(|_| nonce()).collect();
        let (mut now, mut known, mut results) = (START, Known::default(), 0_u32);
        let ask = |nonce: usize, content: &str| {
            let mut record = record("a", content);
            record.retention = Duration::from_secs(RETENTION_S);
            Ask {
                scope: Scope { rate: rate(1e6), burst: 1_000_000, ..scope() },
                nonce: nonces[nonce],
                record: Some(record),
                lease: Duration::from_secs(15),
                wait: Duration::ZERO,
            patience: Duration::ZERO,
                stage: Stage::First,
                throttled: None,
            }
        };
        for (index, step) in moves.iter().enumerate() {
            if now >= known.until {
                known = Known::default();
            }
            match *step {
                Move::Pass(micros) => now += micros,
                Move::Ask { nonce, lease_s, stage } => {
                    let mut ask = ask(nonce, "x");
                    ask.scope.limits.rate = rate(1e6);
                    ask.lease = Duration::from_secs(lease_s);
                    ask.stage = match stage {
                        0..=3 => Stage::First,
                        4 => Stage::Attempt { uncertain: false, again: false },
                        _ => Stage::Attempt { uncertain: true, again: false },
                    };
                    let mine = known.owner.is_some_and(|(owner, _)| owner == ask.nonce);
                    let live = known.owner.filter(|(_, lease)| *lease > now);
                    match runtime.block_on(store.admit(&ask)).unwrap().decision {
                        Decision::Granted { takeover, upstream_token, .. } => {
                            prop_assert!(live.is_none() || mine, "{}: two owners", index);
                            prop_assert!(known.result.is_none(), "{}: a result was run again", index);
                            prop_assert!(takeover || !known.sticky, "{}: the sticky bit is gone", index);
                            let token = upstream_token.map(|token| token.as_str().to_owned());
                            prop_assert!(known.token.is_none() || known.token == token);
                            if known.until <= now {
                                known.until = now + RETENTION_S * 1_000_000;
                            }
                            let lease = now + lease_s * 1_000_000;
                            let lease = if mine { lease.max(known.owner.unwrap().1) } else { lease };
                            let expired = !mine && known.owner.is_some();
                            known.sticky |= expired || stage > 4;
                            prop_assert_eq!(takeover, known.sticky, "{}: takeover", index);
                            (known.owner, known.token) = (Some((ask.nonce, lease)), token);
                            known.until = known.until.max(lease);
                        }
                        Decision::Busy { lease } => {
                            let left = live.filter(|_| !mine).map(|(_, lease)| Duration::from_micros(lease - now));
                            prop_assert_eq!(Some(lease), left, "{}: busy", index);
                        }
                        Decision::Replay { sealed, .. } => {
                            let (result, until) = known.result.clone().unwrap();
                            prop_assert!(sealed == result && now < until, "{}: a wrong result", index);
                        }
                        Decision::Tombstone => {
                            let until = known.result.as_ref().map(|(_, until)| *until);
                            prop_assert!(until.is_some_and(|until| until <= now), "{}: a live result is gone", index);
                        }
                        Decision::Lost => prop_assert!(stage > 3 && !mine && live.is_none() && known.result.is_none()),
                        other => prop_assert!(false, "{}: {:?}", index, other),
                    }
                    // Whatever is held, other content cannot have it.
                    if known.until > now && known.token.is_some() {
                        let other = runtime.block_on(store.admit(&self::again(&self::swap(&ask, "y")))).unwrap().decision;
                        let is_mismatch = matches!(other, Decision::Mismatch { .. });
                        prop_assert!(is_mismatch, "{}: other content got {:?}", index, other);
                    }
                }
                Move::Settle { nonce, verdict, expires_s } => {
                    let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_micros(now);
                    let expires = expires_s.map(|seconds| at + Duration::from_secs(seconds));
                    results += 1;
                    let sealed = results.to_be_bytes().to_vec();
                    let verdict = match verdict {
                        0 | 1 => Verdict::Done { sealed: sealed.clone(), expires },
                        2 | 3 => release(),
                        _ => Verdict::Uncertain,
                    };
                    let settlement = settlement(&ask(nonce, "x"), verdict.clone());
                    let settled = runtime.block_on(store.settle(&settlement)).unwrap();
                    let mine = known.owner.is_some_and(|(owner, _)| owner == nonces[nonce]);
                    prop_assert_eq!(settled == Settled::Closed, mine, "{}: the fence", index);
                    if mine {
                        known.owner = None;
                        match verdict {
                            Verdict::Done { .. } => {
                                let life = expires_s.map_or(u64::MAX, |s| now + s.saturating_sub(30) * 1_000_000);
                                known.result = Some((sealed, life.min(known.until)));
                            }
                            Verdict::Release { .. } if !known.sticky => known = Known::default(),
                            Verdict::Release { .. } => {}
                            Verdict::Uncertain => known.sticky = true,
                        }
                    }
                }
            }
            clock.set(now);
        }
    });
}

fn swap(ask: &Ask, content: &str) -> Ask {
    let retention = ask.record.as_ref().map(|record| record.retention).unwrap_or_default();
    let mut ask = ask.clone();
    ask.nonce = nonce();
    ask.record = Some(record("a", content));
    if let Some(record) = &mut ask.record {
        record.retention = retention;
    }
    ask
}
