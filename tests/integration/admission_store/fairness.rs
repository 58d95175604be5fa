//! The promises of the fair queue over random crowds, on either store.

use std::cell::RefCell;
use std::sync::Arc;

use participant_gateway::admission::{Ask, Decision, Verdict};
use participant_gateway::domain::Enforcement;
use participant_gateway::error::Limit;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use tokio::runtime::{Builder, Runtime};

use super::crowds::Crowd;
use super::model::{for_all, for_some};
use super::plans::{Plan, plan};
use super::world::*;
use crate::support::redis::RedisServer;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// What crowds have come to together.
#[derive(Default)]
struct Tally {
    crowds: u32,
    starts: u32,
    asks: u32,
    refusals: u32,
}

impl Tally {
    /// One more crowd; its answers hold the promises.
    async fn add(&mut self, plan: &Plan, world: World) -> TestCaseResult {
        let mut crowd = Crowd::new(plan, world);
        crowd.run(600.0).await?;
        let lost = crowd.promises.lost;
        let is_kept = !plan.loses_nothing() || lost < 0.1;
        prop_assert!(is_kept, "(c): {} tokens were lost while calls waited", lost);
        self.crowds += 1;
        self.starts += crowd.starts.iter().sum::<u32>();
        self.asks += crowd.asks;
        self.refusals += crowd.refusals;
        Ok(())
    }

    /// How many asks a start took, but for those of calls that were refused.
    fn asks_a_start(&self) -> f64 {
        let Self { crowds, starts, asks, refusals } = self;
        let each = f64::from(asks - refusals) / f64::from(*starts);
        println!("{crowds} crowds: {starts} starts, {asks} asks, {refusals} refusals: {each:.2}");
        each
    }
}

#[test]
fn no_crowd_breaks_a_promise_of_the_memory_store() {
    let (runtime, tally) = (runtime(), RefCell::new(Tally::default()));
    for_all(1_000, plan(), |plan| {
        let world = runtime.block_on(World::memory());
        runtime.block_on(tally.borrow_mut().add(&plan, world))
    });
    assert!(tally.borrow().asks_a_start() < 2.0);
}

#[test]
fn no_crowd_breaks_a_promise_of_redis() {
    let (runtime, tally) = (runtime(), RefCell::new(Tally::default()));
    let server = runtime.block_on(RedisServer::shared());
    for_some(20, plan(), |plan| {
        let world = World::on(Arc::clone(&server));
        runtime.block_on(tally.borrow_mut().add(&plan, world))
    });
    tally.borrow().asks_a_start();
}

store_contract! {
    of_two_tenants_who_sends_most_does_not_get_most,
    idle_shares_are_used_up_where_the_budget_has_room_beside_them,
    idle_shares_are_nearly_used_up_where_check_is_just_content,
    idle_shares_are_lost_in_part_where_the_budget_has_no_room_beside_them,
}

/// 20 starts a second for a minute, for 60 callers of one tenant and 2 of the other.
async fn of_two_tenants_who_sends_most_does_not_get_most(world: World) {
    let plan = Plan::of_loops((20.0, 5), 2_000, &[60, 2]);
    let mut crowd = Crowd::new(&plan, world);
    crowd.run(60.0).await.unwrap();
    println!("{:?} starts, {} asks, {} refusals", crowd.starts, crowd.asks, crowd.refusals);
    for starts in &crowd.starts {
        assert!((595..=610).contains(starts), "{:?}", crowd.starts);
    }
}

/// Of 12/s, four tenants have 2/s each. Two of them are idle, and the others ask for far more. How
/// many start in a second.
async fn starts_beside_idle_shares(world: World, burst: u32) -> f64 {
    const SECONDS: f64 = 60.0;
    let mut plan = Plan::of_loops((12.0, burst), 2_000, &[20, 20, 0, 0]);
    plan.tenants.iter_mut().for_each(|tenant| tenant.committed = 2.0);
    let mut crowd = Crowd::new(&plan, world);
    crowd.run(SECONDS).await.unwrap();
    println!("burst {burst}: {:?} starts, {} refusals", crowd.starts, crowd.refusals);
    f64::from(crowd.starts.iter().sum::<u32>()) / SECONDS
}

async fn idle_shares_are_used_up_where_the_budget_has_room_beside_them(world: World) {
    let starts = starts_beside_idle_shares(world, 12).await;
    assert!(starts >= 0.95 * 12.0, "{starts} a second");
}

/// The least burst of which `check` does not warn.
async fn idle_shares_are_nearly_used_up_where_check_is_just_content(world: World) {
    let starts = starts_beside_idle_shares(world, 10).await;
    assert!(starts >= 0.85 * 12.0, "{starts} a second");
}

/// `check` warns of such a budget: a spare call starts from a full bucket only.
async fn idle_shares_are_lost_in_part_where_the_budget_has_no_room_beside_them(world: World) {
    let starts = starts_beside_idle_shares(world, 9).await;
    assert!(starts < 0.85 * 12.0, "{starts} a second: it need not be warned of");
}

/// A call of a schedule: how long after the last one it comes, how long it takes, and whether it
/// then gives its charge back.
type Planned = (u64, u64, bool);

/// Which calls of the schedule the tenant's own limits refuse, or would.
async fn flags(world: &World, schedule: &[Planned]) -> Vec<Option<Limit>> {
    let (mut at, mut flags) = (START, Vec::new());
    let mut running: Vec<(u64, Ask, bool)> = Vec::new();
    for (gap, takes, refund) in schedule {
        at += gap;
        running.sort_by_key(|(ends, ..)| *ends);
        while running.first().is_some_and(|(ends, ..)| *ends <= at) {
            let (ends, ask, refund) = running.remove(0);
            world.clock.set(ends);
            world.settle(&ask, Verdict::Release { refund }).await;
        }
        world.clock.set(at);
        let ask = world.call();
        let answer = world.admit(&ask).await;
        flags.push(match answer.decision {
            Decision::Granted { .. } => {
                running.push((at + takes, ask, *refund));
                answer.shadowed.map(|refused| refused.limit)
            }
            Decision::Refused(refused) => Some(refused.limit),
            other => panic!("{other:?}"),
        });
    }
    flags
}

/// (g).
#[test]
fn shadow_flags_the_very_calls_that_enforcement_refuses() {
    let runtime = runtime();
    let call = (0..400_000_u64, prop_oneof![Just(0), 0..3_000_000_u64], any::<bool>());
    let limits = (0.5..20.0_f64, 1..10_u32, 1..10_u32);
    for_all(300, (limits, prop::collection::vec(call, 1..60)), |(limits, schedule)| {
        let (per_second, burst, most) = limits;
        let [shadow, enforce] = [Enforcement::Shadow, Enforcement::Enforce].map(|enforcement| {
            let mut world = runtime.block_on(World::memory());
            world.budget(1e6, 1_000_000);
            world.tenant_limit(per_second, burst);
            world.scope.limits.max_in_flight = most;
            world.scope.limits.enforcement = enforcement;
            runtime.block_on(flags(&world, &schedule))
        });
        prop_assert_eq!(shadow, enforce);
        Ok(())
    });
}
