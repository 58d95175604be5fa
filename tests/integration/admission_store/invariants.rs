//! What must hold whatever happens to the budget: (a) to (d) of docs/design/admission.md, "What
//! holds". On the in-memory store, for speed; the model test holds Redis equal to it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use participant_gateway::admission::memory::MemoryStore;
use participant_gateway::admission::{
    Answer, Ask, Decision, ManualClock, Scope, Settlement, Stage, Store,
};
use participant_gateway::domain::share_burst;
use participant_gateway::error::Limit;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::model::{CONFIGS, History, Step, Who, for_all, step};
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
            typical: Duration::from_millis(300),
            stage: Stage::Call,
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

/// A scenario while it runs.
struct Run<'a> {
    scenario: &'a Scenario,
    crowd: Crowd,
    random: fastrand::Rng,
    events: BinaryHeap<Reverse<Event>>,
    order: usize,
    /// Asks that were told to come again.
    queued: Vec<Ask>,
    /// How many calls of each committed tenant wait.
    waits: Vec<u32>,
    /// When the next token is there, for the committed call that waits for it.
    token_due: u64,
}

/// A tenant asks. Events of one time keep their order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: u64,
    order: usize,
    tenant: usize,
    /// Where it asks again: since when it waits, and which of the queued asks it is.
    again: Option<(u64, usize)>,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let tenants = scenario.committed.len() + scenario.spare;
        let mut random = fastrand::Rng::with_seed(scenario.seed);
        let first = |tenant| {
            let at = START + random.u64(0..100_000);
            Reverse(Event { at, order: tenant, tenant, again: None })
        };
        Self {
            events: (0..tenants).map(first).collect(),
            scenario,
            crowd: crowd(scenario.rate, scenario.burst, &scenario.committed, scenario.spare),
            random,
            order: tenants,
            queued: Vec::new(),
            waits: vec![0; scenario.committed.len()],
            token_due: u64::MAX,
        }
    }

    fn is_committed(&self, tenant: usize) -> bool {
        tenant < self.scenario.committed.len()
    }

    fn run_to_the_end(mut self) -> TestCaseResult {
        let end = START + (200.0 / self.scenario.rate * 1e6) as u64;
        while let Some(Reverse(event)) = self.events.pop()
            && event.at <= end
        {
            self.crowd.go_to(event.at);
            self.order += 1;
            if let Some(ask) = self.ask(&event) {
                let answer = self.crowd.ask(&ask);
                self.note(&event, ask, &answer)?;
            }
        }
        Ok(())
    }

    /// What the tenant asks; nothing where a committed one has used its share up.
    fn ask(&mut self, event: &Event) -> Option<Ask> {
        let tenant = event.tenant;
        let max_wait = Duration::from_millis(self.scenario.max_wait_ms);
        if let Some((since, queued)) = event.again {
            let mut ask = again(&self.queued[queued]);
            if !self.is_committed(tenant) {
                ask.wait = max_wait.saturating_sub(Duration::from_micros(event.at - since));
            }
            return Some(ask);
        }
        self.plan_next(event);
        if !self.is_committed(tenant) {
            return Some(self.crowd.call(tenant, max_wait));
        }
        // A share is charged when the call starts: the calls that wait have theirs still to come.
        let needed = 1.0 + f64::from(self.waits[tenant]) + 1e-6;
        let holds_a_call = self.crowd.ghost.shares[tenant] >= needed;
        holds_a_call.then(|| self.crowd.call(tenant, Duration::from_secs(3_600)))
    }

    /// The tenant's next call, whatever becomes of this one.
    fn plan_next(&mut self, event: &Event) {
        let press = match self.scenario.committed.get(event.tenant) {
            Some(committed) => committed * 2.0,
            None => self.scenario.rate * 3.0,
        };
        let gap = (-self.random.f64().max(1e-9).ln() / press * 1e6) as u64;
        let at = event.at + gap + 1;
        self.events.push(Reverse(Event {
            at,
            order: self.order,
            tenant: event.tenant,
            again: None,
        }));
    }

    fn note(&mut self, event: &Event, ask: Ask, answer: &Answer) -> TestCaseResult {
        let committed = self.is_committed(event.tenant);
        match answer.decision {
            Decision::Granted { .. } => {
                if self.random.f64() < self.scenario.throttling {
                    self.crowd.throttle(&ask, answer);
                }
            }
            Decision::AskAgain { after } => {
                prop_assert!(after > Duration::ZERO);
                let since = event.again.map_or(event.at, |(since, _)| since);
                self.queued.push(ask);
                self.events.push(Reverse(Event {
                    at: event.at + after.as_micros() as u64,
                    order: self.order,
                    tenant: event.tenant,
                    again: Some((since, self.queued.len() - 1)),
                }));
            }
            ref other => {
                prop_assert!(!committed, "(b): a committed call was refused: {:?}", other);
            }
        }
        if !committed {
            return Ok(());
        }
        self.no_committed_call_suffers(event, matches!(answer.decision, Decision::Granted { .. }))
    }

    /// (b), after an ask of a committed tenant.
    fn no_committed_call_suffers(&mut self, event: &Event, started: bool) -> TestCaseResult {
        let (tenant, first) = (event.tenant, event.again.is_none());
        let committed_burst = self.crowd.scopes[0].committed_burst;
        if started {
            self.crowd.ghost.shares[tenant] -= 1.0;
            self.waits[tenant] -= u32::from(!first);
        } else {
            prop_assert!(
                committed_burst >= self.scenario.burst,
                "(b): a committed call was delayed"
            );
            self.waits[tenant] += u32::from(first);
        }
        // A burst of 1 reserves nothing: spare calls then race the committed for every token.
        if self.scenario.burst == 1 {
            return Ok(());
        }
        // So many at most wait, and one of them starts with every token: served in order, none
        // waits longer than (Σb − res)/R.
        let waiting: u32 = self.waits.iter().sum();
        let most = f64::from(committed_burst) - self.crowd.reserve();
        prop_assert!(f64::from(waiting) <= most, "(b): {} wait", waiting);
        if started || (first && waiting == 1) {
            self.token_due = event.at + (1e6 / self.scenario.rate) as u64 + 2;
        }
        let in_time = self.scenario.throttling > 0.0 || event.at <= self.token_due;
        prop_assert!(in_time, "(b): a token was given to somebody else");
        Ok(())
    }
}

/// Spare tenants press with three times the rate; the committed call whenever their own share holds
/// a call.
#[test]
fn no_more_start_than_the_account_allows_and_no_committed_call_suffers() {
    for_all(200, scenario(), |scenario| Run::new(&scenario).run_to_the_end());
}

#[test]
fn what_the_committed_leave_unused_is_the_others_at_once() {
    for_all(40, (1.0..60.0_f64, 2..40_u32, 0.0..1.0_f64), |(rate, burst, part)| {
        unused_shares_are_used(rate, burst, part)
    });
}

/// Of two tenants the one with a committed share stays silent.
fn unused_shares_are_used(rate: f64, burst: u32, part: f64) -> TestCaseResult {
    const SECONDS: u32 = 60;
    let mut crowd = crowd(rate, burst, &[rate * part], 1);
    let mut waiting: Option<(u64, Ask)> = None;
    // A call is always waiting, so that no token is ever left lying.
    let end = START + u64::from(SECONDS) * 1_000_000;
    loop {
        let ask = match waiting.take() {
            Some((at, _)) if at > end => break,
            Some((at, ask)) => {
                crowd.go_to(at);
                again(&ask)
            }
            None => crowd.call(1, Duration::from_secs(3_600)),
        };
        match crowd.ask(&ask).decision {
            Decision::Granted { .. } => {}
            Decision::AskAgain { after } => {
                waiting = Some((crowd.ghost.at + after.as_micros() as u64, ask));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
    let expected = rate * f64::from(SECONDS) + f64::from(burst) - crowd.reserve();
    prop_assert!(f64::from(crowd.started) > expected - 2.0, "{} of {expected}", crowd.started);
    Ok(())
}

#[test]
fn a_retry_at_the_hint_is_admitted_if_nobody_came_between() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let steps = prop::collection::vec(step(), 0..80);
    let histories = (steps, 0..CONFIGS.len(), 0..3_usize, 0..2_000_u64);
    for_all(400, histories, |(steps, first, tenant, wait_ms)| {
        let wait = Duration::from_millis(wait_ms);
        runtime.block_on(a_retry_at_the_hint_is_admitted(&steps, first, tenant, wait))
    });
}

async fn a_retry_at_the_hint_is_admitted(
    steps: &[Step],
    first: usize,
    tenant: usize,
    wait: Duration,
) -> TestCaseResult {
    let clock = ManualClock::at(START);
    let store = || AnyStore::Memory(MemoryStore::with_clock(clock.clone()));
    let stores = [store(), store()];
    let mut history = History::new(clock.clone(), first);
    for step in steps {
        history.take(step, [&stores[0], &stores[1]]).await;
    }
    let mut ask = history.ask(Who { tenant, nonce: 0, token: 0, content: 0 });
    // The queued calls of the history do not come back: nobody waits any more. A history may end
    // with a clock that stepped back, of which the store hears first.
    stores[0].quota(&ask.scope).await.unwrap();
    clock.advance(Duration::from_secs(5));
    (ask.nonce, ask.lease, ask.wait) = (nonce(), Duration::from_secs(1), wait);
    let mut refusals = Vec::new();
    loop {
        match stores[0].admit(&ask).await.unwrap().decision {
            Decision::Granted { .. } => return Ok(()),
            Decision::AskAgain { after } => {
                prop_assert!(after <= ask.wait + Duration::from_micros(1));
                clock.advance(after);
                let granted = stores[0].admit(&again(&ask)).await.unwrap().decision;
                let is_granted = matches!(granted, Decision::Granted { .. });
                prop_assert!(is_granted, "a queued call asked in time: {:?}", granted);
                return Ok(());
            }
            Decision::Refused(refused) => {
                // When a call in flight will end is not known.
                let is_exact = refused.limit != Limit::TenantInFlight;
                let is_second = refusals.contains(&refused.limit);
                prop_assert!(!(is_exact && is_second), "{:?} refused twice", refused);
                if ask.scope.limits.rate.per_second() == 0.0 && refused.limit == Limit::TenantRate {
                    return Ok(());
                }
                refusals.push(refused.limit);
                clock.advance(refused.retry_after);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
