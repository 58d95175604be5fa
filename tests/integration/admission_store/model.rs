//! Both stores go through the same random history on one clock. They must answer the same to the
//! last digit.

use std::sync::Arc;
use std::time::Duration;

use participant_gateway::admission::memory::MemoryStore;
use participant_gateway::admission::{
    Answer, Ask, Decision, ManualClock, Moment, Nonce, Scope, Settlement, Stage,
};
use participant_gateway::domain::{Enforcement, share_burst};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseResult, TestRunner};

use super::world::*;
use crate::support::redis::RedisServer;

/// One step of a history. Small numbers pick from small sets, so that steps meet.
#[derive(Debug, Clone)]
pub enum Step {
    Pass { micros: u64 },
    Rewind { micros: u64 },
    Admit { who: Who, lease_ms: u64, wait_ms: u64, stage: Stage, throttled: bool, distrust: bool },
    Settle { who: Who, ending: Ending, throttled: bool },
    Quota { who: Who },
    Reconfigure { config: usize },
}

#[derive(Debug, Clone, Copy)]
pub struct Who {
    pub tenant: usize,
    pub nonce: usize,
    /// 0: none.
    pub token: usize,
    pub content: usize,
}

const TENANTS: [&str; 3] = ["acme", "bank", "shadow"];

/// Upstream rate and burst, tenants' rate, burst, committed rate of each, calls in flight.
pub const CONFIGS: [(f64, u32, f64, u32, [f64; 3], u32); 5] = [
    (10.0, 8, 5.0, 6, [0.0, 2.5, 0.0], 3),
    (3.0, 2, 1.5, 2, [0.0, 3.0, 0.0], 2),
    (100.0, 50, 33.3, 7, [1.0, 20.0, 0.5], 5),
    (0.7, 3, 0.9, 4, [0.1, 0.3, 0.0], 4),
    (2.0, 5, 0.0, 1, [0.0, 0.0, 0.0], 1),
];

fn who() -> impl Strategy<Value = Who> {
    (0..3_usize, 0..5_usize, 0..3_usize, prop_oneof![4 => Just(0_usize), 1 => Just(1)])
        .prop_map(|(tenant, nonce, token, content)| Who { tenant, nonce, token, content })
}

fn stage() -> impl Strategy<Value = Stage> {
    let attempt = |uncertain| Just(Stage::Attempt { uncertain });
    prop_oneof![
        6 => Just(Stage::Call),
        1 => Just(Stage::Look),
        1 => Just(Stage::Renew),
        2 => attempt(false),
        1 => attempt(true),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        3 => prop::option::of(0..200_u64).prop_map(|expires_s| Ending::Done { expires_s }),
        1 => Just(Ending::Release { refund: false }),
        1 => Just(Ending::Release { refund: true }),
        1 => Just(Ending::Uncertain),
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    let micros = prop_oneof![
        6 => 0..2_000_000_u64,
        2 => 0..40_000_000_u64,
        1 => Just(0_u64),
        1 => 0..100_000_000_000_u64,
    ];
    let lease_ms = prop_oneof![Just(15_000_u64), 1..20_000_u64, Just(10_000_000)];
    let wait_ms = prop_oneof![Just(0_u64), Just(500), 0..5_000_u64];
    prop_oneof![
        3 => micros.clone().prop_map(|micros| Step::Pass { micros }),
        1 => micros.prop_map(|micros| Step::Rewind { micros }),
        8 => (who(), lease_ms, wait_ms, stage(), any::<bool>(), prop::bool::weighted(0.3)).prop_map(
            |(who, lease_ms, wait_ms, stage, throttled, distrust)| Step::Admit {
                who, lease_ms, wait_ms, stage, throttled, distrust,
            }
        ),
        5 => (who(), ending(), any::<bool>())
            .prop_map(|(who, ending, throttled)| Step::Settle { who, ending, throttled }),
        1 => who().prop_map(|who| Step::Quota { who }),
        1 => (0..CONFIGS.len()).prop_map(|config| Step::Reconfigure { config }),
    ]
}

/// What a history has come to, as far as the next step needs to know.
pub struct History {
    clock: ManualClock,
    now: u64,
    config: usize,
    granted: [Option<Moment>; 5],
    seen: Vec<u8>,
    sealed: u32,
}

impl History {
    pub fn new(clock: ManualClock, config: usize) -> Self {
        Self { clock, now: START, config, granted: [None; 5], seen: Vec::new(), sealed: 0 }
    }

    fn scope(&self, tenant: usize) -> Scope {
        let (upstream_rate, upstream_burst, tenant_rate, tenant_burst, committed, max_in_flight) =
            CONFIGS[self.config];
        let mut scope = scope();
        scope.tenant = name(TENANTS[tenant]);
        (scope.rate, scope.burst) = (rate(upstream_rate), upstream_burst);
        scope.committed_burst =
            committed.iter().map(|committed| share_burst(rate(*committed))).sum();
        (scope.limits.rate, scope.limits.burst) = (rate(tenant_rate), tenant_burst);
        scope.limits.committed = rate(committed[tenant]);
        scope.limits.max_in_flight = max_in_flight;
        if TENANTS[tenant] == "shadow" {
            scope.limits.enforcement = Enforcement::Shadow;
        }
        scope
    }

    pub fn ask(&self, who: Who) -> Ask {
        let token = ["", "a", "b"][who.token];
        Ask {
            scope: self.scope(who.tenant),
            nonce: Nonce(who.nonce as u128 + 1),
            record: (who.token > 0).then(|| record(token, ["x", "y"][who.content])),
            lease: Duration::ZERO,
            wait: Duration::ZERO,
            patience: Duration::ZERO,
            typical: Duration::from_millis(300),
            stage: Stage::Call,
            throttled: None,
        }
    }

    fn note(&mut self, who: Who, answer: &Answer) {
        match &answer.decision {
            Decision::Granted { at, .. } => self.granted[who.nonce] = Some(*at),
            Decision::Replay { sealed, .. } => self.seen.clone_from(sealed),
            Decision::Mismatch { mac, .. } => self.seen = mac.clone().into_bytes(),
            _ => {}
        }
    }

    pub async fn take(&mut self, step: &Step, stores: [&AnyStore; 2]) -> (String, String) {
        match *step {
            Step::Pass { micros } => self.now += micros,
            Step::Rewind { micros } => self.now -= micros.min(self.now),
            Step::Reconfigure { config } => self.config = config,
            Step::Quota { who } => {
                let scope = self.scope(who.tenant);
                let [one, two] = stores.map(|store| store.quota(&scope));
                return (format!("{:?}", one.await.unwrap()), format!("{:?}", two.await.unwrap()));
            }
            Step::Admit { who, lease_ms, wait_ms, stage, throttled, distrust } => {
                let mut ask = self.ask(who);
                (ask.lease, ask.wait) =
                    (Duration::from_millis(lease_ms), Duration::from_millis(wait_ms));
                ask.stage = stage;
                ask.throttled = self.granted[who.nonce].filter(|_| throttled);
                if distrust && let Some(record) = &mut ask.record {
                    record.distrust = Some(self.seen.clone());
                }
                let [one, two] = stores.map(|store| store.admit(&ask));
                let (one, two) = (one.await.unwrap(), two.await.unwrap());
                self.note(who, &one);
                return (format!("{one:?}"), format!("{two:?}"));
            }
            Step::Settle { who, ending, throttled } => {
                self.sealed += 1;
                let verdict = ending.at(self.now, format!("sealed {}", self.sealed).as_bytes());
                let throttled = self.granted[who.nonce].filter(|_| throttled);
                let settlement = Settlement { throttled, ..settlement(&self.ask(who), verdict) };
                let [one, two] = stores.map(|store| store.settle(&settlement));
                return (format!("{:?}", one.await.unwrap()), format!("{:?}", two.await.unwrap()));
            }
        }
        self.clock.set(self.now);
        Default::default()
    }
}

/// Holds the check for so many cases, which are the same in every run: the same code gets the same
/// verdict. With `PROPTEST_CASES` it is for that many, which are others in every run. The check is a
/// function and no macro's body, so that rustfmt reaches it.
pub fn for_all<S: Strategy>(usual: u32, strategy: S, check: impl Fn(S::Value) -> TestCaseResult) {
    for_cases(usual, 1, strategy, check);
}

/// The same where a case is slow: for a hundredth of `PROPTEST_CASES`.
pub fn for_some<S: Strategy>(usual: u32, strategy: S, check: impl Fn(S::Value) -> TestCaseResult) {
    for_cases(usual, 100, strategy, check);
}

fn for_cases<S: Strategy>(
    usual: u32,
    divisor: u32,
    strategy: S,
    check: impl Fn(S::Value) -> TestCaseResult,
) {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        config.cases = config.cases.div_ceil(divisor);
    } else {
        (config.cases, config.rng_seed) = (usual, RngSeed::Fixed(1));
    }
    TestRunner::new(config)
        .run(&strategy, check)
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn redis_and_memory_answer_every_history_alike() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(RedisServer::shared());
    let histories = (prop::collection::vec(step(), 1..150), 0..CONFIGS.len());
    for_all(150, histories, |(steps, first)| alike(&runtime, &server, &steps, first));
}

/// Found by chance: one nonce that waited in shadow for one record, and then asks for another that
/// it holds. No gateway does so, and the two stores differed all the same.
#[test]
fn a_claim_found_again_from_the_queue_counts_alike_in_both_stores() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(RedisServer::shared());
    let who = |tenant, nonce, token, content| Who { tenant, nonce, token, content };
    let admit = |who, wait_ms| Step::Admit {
        who,
        lease_ms: 15_000,
        wait_ms,
        stage: Stage::Call,
        throttled: false,
        distrust: false,
    };
    let ending = Ending::Done { expires_s: None };
    let steps = [
        admit(who(2, 4, 2, 1), 0),
        Step::Settle { who: who(2, 4, 0, 0), ending, throttled: false },
        Step::Reconfigure { config: 0 },
        admit(who(0, 0, 0, 0), 0),
        admit(who(2, 4, 0, 0), 500),
        admit(who(2, 4, 2, 1), 0),
    ];
    alike(&runtime, &server, &steps, 4).unwrap();
}

/// Takes the steps on Redis and in memory, and compares each answer.
fn alike(
    runtime: &tokio::runtime::Runtime,
    server: &Arc<RedisServer>,
    steps: &[Step],
    first: usize,
) -> TestCaseResult {
    let world = World::on(Arc::clone(server));
    let memory = AnyStore::Memory(MemoryStore::with_clock(world.clock.clone()));
    let mut history = History::new(world.clock.clone(), first);
    for (index, step) in steps.iter().enumerate() {
        let (redis, memory) = runtime.block_on(history.take(step, [&world.store, &memory]));
        prop_assert_eq!(redis, memory, "at step {}: {:?}", index, step);
    }
    Ok(())
}
