//! The contract of the upstream's budget, its queue and its factor, over every store.

use std::time::Duration;

use participant_gateway::admission::{Ask, Decision, Scope};
use participant_gateway::domain::share_burst;
use participant_gateway::error::Limit;

use super::world::*;

store_contract! {
    the_budget_is_never_given_back,
    the_budget_starts_what_it_holds_and_queues_the_rest_in_order,
    a_queued_call_holds_a_place_and_its_charge_until_it_starts_or_leaves,
    a_queued_call_that_does_not_come_back_is_given_back_its_charge_and_place,
    calls_in_flight_and_in_the_queue_never_exceed_the_limit,
    who_sends_most_does_not_get_most,
    what_does_not_fit_the_wait_is_refused_with_the_excess,
    a_queue_that_nobody_kept_is_no_longer_in_the_way,
    a_committed_call_starts_where_a_spare_one_may_not,
    a_committed_call_waits_for_a_token_alone,
    a_share_that_is_used_up_makes_the_next_call_a_spare_one,
    a_queued_attempt_asks_again_without_queueing_twice,
    a_throttle_halves_the_factor_once_a_second_at_most,
    a_throttle_of_an_attempt_granted_before_the_last_halving_is_old_news,
    a_throttle_of_a_further_attempt_slows_it_at_once,
    the_factor_falls_no_lower_than_a_sixteenth_and_recovers_by_time_alone,
    a_gap_is_refilled_at_the_factor_of_its_own_time,
    a_clock_that_steps_back_neither_freezes_nor_refills,
    the_levels_tell_bucket_share_budget_and_queue_free_of_charge,
}

async fn the_budget_is_never_given_back(mut world: World) {
    world.budget(0.001, 1);
    let call = world.call();
    world.granted(&call).await;
    world.settle(&call, refund()).await;
    assert_eq!(world.refused(&world.call()).await.limit, Limit::UpstreamBudget);
}

async fn the_budget_starts_what_it_holds_and_queues_the_rest_in_order(mut world: World) {
    world.budget(10.0, 2);
    world.granted(&world.call()).await;
    world.granted(&world.call()).await;
    let queued: Vec<Ask> = (0..5).map(|_| waiting(world.call(), 10_000)).collect();
    for (place, ask) in (1..).zip(&queued) {
        assert_eq!(world.told_to_ask_again(ask).await, Duration::from_millis(100 * place));
    }
    for ask in &queued {
        world.pass(0.1);
        world.granted(&again(ask)).await;
    }
}

async fn a_queued_call_holds_a_place_and_its_charge_until_it_starts_or_leaves(mut world: World) {
    world.tenant_limit(0.001, 100);
    world.budget(10.0, 1);
    world.granted(&world.call()).await;
    let before = world.quota().await;
    let queued = waiting(world.keyed("a", "x"), 1_000);
    world.told_to_ask_again(&queued).await;
    let during = world.quota().await;
    assert_eq!((during.in_flight, during.remaining), (before.in_flight + 1, before.remaining - 1));
    let duplicate = waiting(world.keyed("a", "y"), 1_000);
    assert!(
        matches!(world.decide(&duplicate).await, Decision::AskAgain { .. }),
        "it has claimed nothing"
    );
    for ask in [&queued, &duplicate] {
        world.settle(ask, release()).await;
    }
    let after = world.quota().await;
    assert_eq!((after.in_flight, after.remaining), (before.in_flight, before.remaining));
    // One that starts has paid already.
    world.pass(0.1);
    world.granted(&world.call()).await;
    let queued = waiting(world.call(), 1_000);
    world.told_to_ask_again(&queued).await;
    world.pass(0.1);
    world.granted(&again(&queued)).await;
    assert_eq!(world.quota().await.remaining, before.remaining - 2);
}

async fn a_queued_call_that_does_not_come_back_is_given_back_its_charge_and_place(
    mut world: World,
) {
    world.tenant_limit(0.001, 100);
    world.budget(10.0, 1);
    world.granted(&world.call()).await;
    for _ in 0..3 {
        world.told_to_ask_again(&waiting(world.call(), 1_000)).await;
    }
    assert_eq!(world.quota().await.remaining, 96);
    world.pass(0.6);
    assert_eq!(world.quota().await.in_flight, 1);
    world.granted(&world.call()).await;
    assert_eq!(world.quota().await.remaining, 98);
}

async fn calls_in_flight_and_in_the_queue_never_exceed_the_limit(mut world: World) {
    world.scope.limits.max_in_flight = 3;
    world.budget(10.0, 1);
    world.granted(&world.call()).await;
    let queued: Vec<_> = (0..2).map(|_| waiting(world.call(), 1_000)).collect();
    for ask in &queued {
        world.told_to_ask_again(ask).await;
    }
    let refused = world.refused(&waiting(world.call(), 1_000)).await;
    assert_eq!(refused.limit, Limit::TenantInFlight);
    // Its own place does not keep a queued call out.
    world.pass(0.1);
    world.granted(&again(&queued[0])).await;
}

async fn who_sends_most_does_not_get_most(mut world: World) {
    world.budget(10.0, 1);
    world.granted(&world.call()).await;
    let of = |world: &mut World, tenant: &str| {
        world.scope.tenant = name(tenant);
        waiting(world.call(), 60_000)
    };
    let mut crowd: Vec<_> = (0..20).map(|_| of(&mut world, "greedy")).collect();
    for ask in &crowd {
        world.told_to_ask_again(ask).await;
    }
    let mut modest: Vec<_> = (0..3).map(|_| of(&mut world, "modest")).collect();
    for ask in &modest {
        world.told_to_ask_again(ask).await;
    }
    let mut starts = Vec::new();
    for _ in 0..6 {
        world.pass(0.1);
        let mut started = 0;
        for (waiting, tenant) in [(&mut crowd, "greedy"), (&mut modest, "modest")] {
            let mut left = Vec::new();
            for ask in waiting.drain(..) {
                match world.decide(&ask).await {
                    Decision::Granted { .. } => {
                        starts.push(tenant);
                        started += 1;
                    }
                    Decision::AskAgain { .. } => left.push(ask),
                    other => panic!("{other:?}"),
                }
            }
            *waiting = left;
        }
        assert_eq!(started, 1, "one token, one start");
    }
    assert_eq!(starts, ["greedy", "modest"].repeat(3));
}

async fn what_does_not_fit_the_wait_is_refused_with_the_excess(mut world: World) {
    world.budget(2.0, 1);
    world.granted(&world.call()).await;
    let queued = waiting(world.call(), 500);
    world.told_to_ask_again(&queued).await;
    let refused = world.refused(&waiting(world.call(), 500)).await;
    // The excess, and 1 µs for the call ahead, in whole milliseconds.
    assert_eq!(refused, refused_for(Limit::UpstreamBudget, 501));
    world.pass(0.5);
    world.granted(&again(&queued)).await;
    let retry = waiting(world.call(), 500);
    assert_eq!(world.told_to_ask_again(&retry).await, Duration::from_millis(500));
    assert_eq!(world.refused(&world.call()).await, refused_for(Limit::UpstreamBudget, 1_001));
}

async fn a_queue_that_nobody_kept_is_no_longer_in_the_way(mut world: World) {
    world.budget(10.0, 5);
    for _ in 0..5 {
        world.granted(&world.call()).await;
    }
    for _ in 0..3 {
        world.told_to_ask_again(&waiting(world.call(), 1_000)).await;
    }
    // 250 ms after the last of them should have asked.
    world.pass(0.551);
    for _ in 0..5 {
        world.granted(&world.call()).await;
    }
    assert_eq!(world.refused(&world.call()).await.limit, Limit::UpstreamBudget);
}

/// The committed tenant `bank` has 2/s of the upstream's 10/s.
fn bank(world: &World) -> Scope {
    let mut scope = world.scope.clone();
    scope.tenant = name("bank");
    scope.limits.committed = rate(2.0);
    scope
}

fn committed_world(world: &mut World, burst: u32) {
    world.budget(10.0, burst);
    world.scope.committed_burst = share_burst(rate(2.0));
}

async fn a_committed_call_starts_where_a_spare_one_may_not(mut world: World) {
    committed_world(&mut world, 5);
    for _ in 0..3 {
        world.granted(&world.call()).await;
    }
    assert_eq!(world.refused(&world.call()).await, refused_for(Limit::UpstreamBudget, 100));
    for _ in 0..2 {
        world.granted(&Ask { scope: bank(&world), ..world.call() }).await;
    }
    assert_eq!(world.refused(&world.call()).await, refused_for(Limit::UpstreamBudget, 300));
}

async fn a_committed_call_waits_for_a_token_alone(mut world: World) {
    committed_world(&mut world, 2);
    world.granted(&world.call()).await;
    world.granted(&Ask { scope: bank(&world), ..world.call() }).await;
    let committed = Ask { scope: bank(&world), ..waiting(world.call(), 500) };
    let spare = waiting(world.call(), 500);
    assert_eq!(world.told_to_ask_again(&committed).await, Duration::from_millis(100));
    assert_eq!(world.told_to_ask_again(&spare).await, Duration::from_millis(200));
    let impatient = Ask { wait: Duration::from_millis(60), ..committed.clone() };
    assert_eq!(world.refused(&impatient).await, refused_for(Limit::UpstreamBudget, 40));
    world.pass(0.1);
    world.granted(&again(&committed)).await;
}

async fn a_share_that_is_used_up_makes_the_next_call_a_spare_one(mut world: World) {
    committed_world(&mut world, 6);
    let call = || Ask { scope: bank(&world), ..world.call() };
    for _ in 0..4 {
        world.granted(&call()).await;
    }
    assert_eq!(world.refused(&call()).await, refused_for(Limit::UpstreamBudget, 100));
    world.pass(0.5);
    world.granted(&call()).await;
    for _ in 0..3 {
        world.granted(&world.call()).await;
    }
}

async fn a_queued_attempt_asks_again_without_queueing_twice(mut world: World) {
    world.budget(10.0, 1);
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    let second = waiting(attempt(&call), 1_000);
    assert_eq!(world.told_to_ask_again(&second).await, Duration::from_millis(100));
    world.pass(0.05);
    assert_eq!(world.told_to_ask_again(&again(&second)).await, Duration::from_millis(50));
    world.pass(0.05);
    world.granted(&again(&second)).await;
}

async fn factor(world: &World) -> f64 {
    world.quota().await.factor
}

async fn a_throttle_halves_the_factor_once_a_second_at_most(world: World) {
    let calls = [world.call(), world.call(), world.call()];
    let mut granted = Vec::new();
    for call in &calls {
        world.pass(0.001);
        granted.push(world.granted(call).await.at);
    }
    assert!((factor(&world).await - 1.0).abs() < 1e-9);
    world.throttle(&calls[0], granted[0]).await;
    assert!((factor(&world).await - 0.5).abs() < 1e-9);
    world.pass(0.01);
    let at = world.granted(&world.call()).await.at;
    world.throttle(&calls[1], at).await;
    assert!((factor(&world).await - 0.5).abs() < 0.01, "not twice within a second");
    world.pass(1.0);
    world.throttle(&calls[2], at).await;
    assert!((factor(&world).await - 0.28).abs() < 0.01, "a second later it is");
}

async fn a_throttle_of_an_attempt_granted_before_the_last_halving_is_old_news(world: World) {
    let old = world.granted(&world.call()).await.at;
    let call = world.call();
    world.pass(0.001);
    let at = world.granted(&call).await.at;
    world.throttle(&call, at).await;
    world.pass(2.0);
    let before = factor(&world).await;
    world.throttle(&call, old).await;
    world.throttle(&call, at).await;
    assert!((factor(&world).await - before).abs() < 1e-9);
}

async fn a_throttle_of_a_further_attempt_slows_it_at_once(mut world: World) {
    world.budget(10.0, 1);
    let call = waiting(world.keyed("a", "x"), 1_000);
    let at = world.granted(&call).await.at;
    let throttled = Ask { throttled: Some(at), ..attempt(&call) };
    assert_eq!(world.told_to_ask_again(&throttled).await, Duration::from_millis(200));
}

async fn the_factor_falls_no_lower_than_a_sixteenth_and_recovers_by_time_alone(world: World) {
    for _ in 0..10 {
        world.pass(1.0);
        let call = world.call();
        let at = world.granted(&call).await.at;
        world.throttle(&call, at).await;
    }
    let low = factor(&world).await;
    assert!((1.0 / 16.0..0.13).contains(&low), "{low}");
    world.pass(4.0);
    assert!((factor(&world).await - low - 0.25).abs() < 1e-9);
    world.pass(60.0);
    assert!((factor(&world).await - 1.0).abs() < 1e-9);
}

async fn a_gap_is_refilled_at_the_factor_of_its_own_time(mut world: World) {
    world.budget(8.0, 100);
    world.scope.limits.burst = 1_000;
    world.scope.limits.rate = rate(1_000.0);
    world.scope.limits.max_in_flight = 1_000;
    for _ in 0..99 {
        world.granted(&world.call()).await;
    }
    let call = world.call();
    let at = world.granted(&call).await.at;
    world.throttle(&call, at).await;
    // f goes from 1/2 to 3/4 in 4 s: 8/s × 2.5 s = 20 tokens; neither 16 (the old f) nor 24 (the
    // new).
    world.pass(4.0);
    for _ in 0..20 {
        world.granted(&world.call()).await;
    }
    assert_eq!(world.refused(&world.call()).await.limit, Limit::UpstreamBudget);
}

async fn a_clock_that_steps_back_neither_freezes_nor_refills(mut world: World) {
    world.budget(10.0, 1);
    world.tenant_limit(10.0, 2);
    world.granted(&world.call()).await;
    world.clock.set(START - 3_600_000_000);
    assert_eq!(world.refused(&world.call()).await, refused_for(Limit::UpstreamBudget, 100));
    world.pass(0.1);
    world.granted(&world.call()).await;
    assert_eq!(world.refused(&world.call()).await, refused_for(Limit::UpstreamBudget, 100));
}

async fn the_levels_tell_bucket_share_budget_and_queue_free_of_charge(mut world: World) {
    world.tenant_limit(1.0, 10);
    world.budget(1.0, 2);
    world.scope.limits.committed = rate(3.0);
    world.scope.committed_burst = 3;
    let full = world.store_levels().await;
    assert_eq!((full.tenant, full.share, full.budget, full.queued), (10.0, 3.0, 2.0, 0));
    world.granted(&world.call()).await;
    world.granted(&world.call()).await;
    world.told_to_ask_again(&waiting(world.call(), 10_000)).await;
    let levels = world.store_levels().await;
    assert_eq!((levels.tenant, levels.share, levels.budget, levels.queued), (7.0, 1.0, 0.0, 1));
    assert_eq!(levels.quota, world.quota().await);
    assert_eq!(world.store_levels().await, levels);
    // A call that does not ask again waits no more.
    world.pass(3.0);
    assert_eq!(world.store_levels().await.queued, 0);
}
