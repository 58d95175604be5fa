//! Random crowds on one upstream, on a clock set by hand: callers in loops, who ask, queue, hang
//! up, never come back, are throttled and try again. What they are told is noted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use participant_gateway::admission::{
    Answer, Ask, Decision, Moment, Nonce, Settlement, Stage, Verdict,
};
use proptest::test_runner::TestCaseResult;

use super::plans::{Plan, TenantPlan};
use super::promises::Promises;
use super::world::*;

/// A crowd while it runs.
pub struct Crowd<'a> {
    plan: &'a Plan,
    world: World,
    random: fastrand::Rng,
    events: BinaryHeap<Reverse<(u64, usize, usize)>>,
    order: usize,
    callers: Vec<Caller>,
    pub now: u64,
    pub promises: Promises,
    /// Per tenant.
    pub starts: Vec<u32>,
    pub asks: u32,
    pub refusals: u32,
}

struct Caller {
    tenant: usize,
    nonce: Nonce,
    doing: Doing,
    stage: Stage,
    /// The attempt that Connect throttled.
    throttled: Option<Moment>,
}

#[derive(Clone, Copy)]
enum Doing {
    Pauses,
    /// Since when it waits.
    Queues {
        since: u64,
    },
    HangsUp,
    NeverAsks,
    Runs {
        at: Moment,
    },
}

impl<'a> Crowd<'a> {
    pub fn new(plan: &'a Plan, world: World) -> Self {
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let of = |(tenant, plan): (usize, &TenantPlan)| std::iter::repeat_n(tenant, plan.callers);
        let callers: Vec<_> = plan.tenants.iter().enumerate().flat_map(of).collect();
        let first = |caller| Reverse((START + random.u64(0..50_000), caller, caller));
        Self {
            events: (0..callers.len()).map(first).collect(),
            order: callers.len(),
            callers: callers.into_iter().map(Caller::new).collect(),
            random,
            now: START,
            promises: Promises::of(plan),
            starts: vec![0; plan.tenants.len()],
            asks: 0,
            refusals: 0,
            plan,
            world,
        }
    }

    /// Until enough have started, or so much time has passed.
    pub async fn run(&mut self, seconds: f64) -> TestCaseResult {
        let end = START + (seconds * 1e6) as u64;
        while let Some(Reverse((at, _, caller))) = self.events.pop() {
            let started: u32 = self.starts.iter().sum();
            if at > end || started >= self.plan.starts {
                break;
            }
            self.now = at;
            self.world.clock.set(at);
            let budget =
                if 2 * started < self.plan.starts { self.plan.budget } else { self.plan.later };
            (self.world.scope.rate, self.world.scope.burst) = (rate(budget.0), budget.1);
            self.promises.go_to(at, budget);
            self.act(caller).await?;
        }
        Ok(())
    }

    async fn act(&mut self, number: usize) -> TestCaseResult {
        match self.callers[number].doing {
            Doing::Pauses => {
                self.callers[number].begins();
                self.ask(number, self.now).await
            }
            Doing::Queues { since } => self.ask(number, since).await,
            Doing::HangsUp => {
                let refund = self.random.bool();
                self.settle(number, Verdict::Release { refund }, None).await;
                self.pause(number);
                Ok(())
            }
            Doing::NeverAsks => {
                self.promises.left(number);
                if let Stage::Attempt { .. } = self.callers[number].stage {
                    self.settle(number, release(), None).await;
                }
                self.pause(number);
                Ok(())
            }
            Doing::Runs { at } => self.end(number, at).await,
        }
    }

    /// The call's attempt has ended: so does the call, or there is a further one.
    async fn end(&mut self, number: usize, at: Moment) -> TestCaseResult {
        let throttled = (self.random.f64() < self.plan.throttles).then_some(at);
        if self.random.f64() < self.plan.attempts {
            let caller = &mut self.callers[number];
            (caller.stage, caller.throttled) = (Stage::Attempt { uncertain: false }, throttled);
            return self.ask(number, self.now).await;
        }
        self.settle(number, release(), throttled).await;
        self.pause(number);
        Ok(())
    }

    async fn ask(&mut self, number: usize, since: u64) -> TestCaseResult {
        let ask = self.asked(number, since);
        let answer = self.world.admit(&ask).await;
        self.asks += 1;
        let tenant = self.callers[number].tenant;
        self.promises.answered(number, tenant, &ask, &answer)?;
        self.obey(number, since, &answer);
        Ok(())
    }

    fn asked(&mut self, number: usize, since: u64) -> Ask {
        let caller = &mut self.callers[number];
        let waited = Duration::from_micros(self.now - since);
        Ask {
            scope: self.plan.scope(caller.tenant, &self.world.scope),
            nonce: caller.nonce,
            lease: Duration::from_secs(60),
            wait: Duration::from_millis(self.plan.max_wait_ms).saturating_sub(waited),
            stage: caller.stage,
            throttled: caller.throttled.take(),
            ..self.world.call()
        }
    }

    fn obey(&mut self, number: usize, since: u64, answer: &Answer) {
        let tenant = self.callers[number].tenant;
        let (doing, pause) = match answer.decision {
            Decision::Granted { at, .. } => {
                self.starts[tenant] += 1;
                (Doing::Runs { at }, self.plan.tenants[tenant].takes_ms * 1_000)
            }
            Decision::AskAgain { after } => {
                let after = after.as_micros() as u64;
                let kind = self.random.f64();
                if kind < self.plan.hang_ups {
                    (Doing::HangsUp, self.random.u64(0..=after))
                } else if kind < self.plan.hang_ups + self.plan.no_shows {
                    self.promises.is_doomed(number);
                    (Doing::NeverAsks, after + 249_999)
                } else {
                    let late = if self.plan.has_jitter { (after / 10).min(100_000) } else { 0 };
                    (Doing::Queues { since }, after + self.random.u64(0..=late))
                }
            }
            Decision::Refused(refused) => {
                self.refusals += 1;
                (Doing::Pauses, refused.retry_after.as_micros() as u64)
            }
            ref other => panic!("a call without a record was answered {other:?}"),
        };
        self.callers[number].doing = doing;
        self.plan_next(number, pause);
    }

    async fn settle(&mut self, number: usize, verdict: Verdict, throttled: Option<Moment>) {
        let caller = &self.callers[number];
        let scope = self.plan.scope(caller.tenant, &self.world.scope);
        let settlement =
            Settlement { scope, nonce: caller.nonce, record: None, verdict, throttled };
        self.world.store.settle(&settlement).await.unwrap();
        self.promises.left(number);
        if throttled.is_some() {
            let quota = self.world.store.quota(&settlement.scope).await.unwrap();
            self.promises.slowed(quota.factor);
        }
    }

    fn pause(&mut self, number: usize) {
        let caller = &mut self.callers[number];
        caller.doing = Doing::Pauses;
        let pause = self.plan.tenants[caller.tenant].pause_ms * 1_000;
        let pause = self.random.u64(0..=pause);
        self.plan_next(number, pause);
    }

    fn plan_next(&mut self, number: usize, pause: u64) {
        self.order += 1;
        self.events.push(Reverse((self.now + pause, self.order, number)));
    }
}

impl Caller {
    fn new(tenant: usize) -> Self {
        let (doing, stage) = (Doing::Pauses, Stage::Call);
        Self { tenant, nonce: nonce(), doing, stage, throttled: None }
    }

    fn begins(&mut self) {
        (self.nonce, self.stage, self.throttled) = (nonce(), Stage::Call, None);
    }
}
