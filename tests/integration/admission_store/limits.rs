//! The contract of a tenant's own limits, over every store.

use std::time::Duration;

use participant_gateway::admission::{Ask, Decision, Quota};
use participant_gateway::domain::Enforcement;
use participant_gateway::error::Limit;

use super::world::*;

store_contract! {
    the_tenants_rate_refuses_with_its_own_wait,
    callers_that_are_refused_together_are_told_to_come_back_one_after_another,
    hints_begin_anew_once_there_is_a_call_to_spare,
    a_caller_that_comes_a_little_early_keeps_its_turn,
    no_hint_is_longer_than_half_a_minute,
    a_hint_is_rounded_up_and_never_zero,
    a_refusal_by_one_limit_charges_no_other,
    calls_in_flight_refuse_with_what_a_call_takes_one_after_another,
    a_crashed_callers_lease_frees_itself,
    a_settled_call_frees_its_place,
    a_refund_needs_a_lease_that_this_settle_removed,
    a_refund_never_fills_above_the_burst,
    shadow_lets_the_rate_through_and_reports_it,
    shadow_owes_nothing_later,
    shadow_lets_calls_in_flight_through_and_reports_them,
    shadow_hides_no_refusal_of_the_budget,
    a_changed_config_takes_levels_along,
    a_rate_of_zero_admits_the_burst_and_no_more,
    reading_the_quota_charges_nothing_and_keeps_the_clock,
    tenants_have_ceilings_of_their_own_and_share_the_budget,
}

async fn the_tenants_rate_refuses_with_its_own_wait(mut world: World) {
    world.tenant_limit(4.0, 2);
    world.granted(&world.call()).await;
    let answer = world.admit(&world.call()).await;
    assert_eq!((answer.quota.remaining, answer.quota.until_full), (0, Duration::from_millis(500)));
    world.pass(0.1);
    assert_eq!(world.refused(&world.call()).await, refused_for(Limit::TenantRate, 150));
    world.pass(0.149);
    assert_eq!(world.refused(&world.call()).await.limit, Limit::TenantRate);
    world.pass(0.001);
    world.granted(&world.call()).await;
}

async fn callers_that_are_refused_together_are_told_to_come_back_one_after_another(
    mut world: World,
) {
    world.tenant_limit(4.0, 1);
    world.granted(&world.call()).await;
    for place in 1..=3 {
        let hint = refused_for(Limit::TenantRate, 250 * place);
        assert_eq!(world.refused(&world.call()).await, hint);
    }
    // Whoever comes while there is a token is admitted. Two were sent away until later: the next
    // comes after them.
    world.pass(0.25);
    world.granted(&world.call()).await;
    assert_eq!(world.refused(&world.call()).await, refused_for(Limit::TenantRate, 750));
}

async fn hints_begin_anew_once_there_is_a_call_to_spare(mut world: World) {
    world.tenant_limit(4.0, 2);
    world.granted(&world.call()).await;
    world.granted(&world.call()).await;
    for place in 1..=8 {
        let hint = refused_for(Limit::TenantRate, 250 * place);
        assert_eq!(world.refused(&world.call()).await, hint);
    }
    world.pass(0.5);
    world.granted(&world.call()).await;
    world.granted(&world.call()).await;
    assert_eq!(world.refused(&world.call()).await, refused_for(Limit::TenantRate, 250));
}

async fn a_caller_that_comes_a_little_early_keeps_its_turn(mut world: World) {
    world.tenant_limit(4.0, 1);
    world.granted(&world.call()).await;
    for place in 1..=3 {
        let hint = refused_for(Limit::TenantRate, 250 * place);
        assert_eq!(world.refused(&world.call()).await, hint);
    }
    // It misses less than a tenth of a token: a clock's or a hint's rounding.
    world.pass(0.24);
    assert_eq!(world.refused(&world.call()).await, refused_for(Limit::TenantRate, 10));
    world.pass(0.01);
    world.granted(&world.call()).await;
    assert_eq!(world.refused(&world.call()).await, refused_for(Limit::TenantRate, 750));
}

async fn no_hint_is_longer_than_half_a_minute(mut world: World) {
    world.tenant_limit(0.1, 1);
    world.granted(&world.call()).await;
    for seconds in [10, 20, 30, 30] {
        let hint = refused_for(Limit::TenantRate, 1_000 * seconds);
        assert_eq!(world.refused(&world.call()).await, hint);
    }
}

async fn a_hint_is_rounded_up_and_never_zero(mut world: World) {
    world.tenant_limit(3.0, 1);
    world.granted(&world.call()).await;
    world.scope.tenant = name("other");
    world.granted(&world.call()).await;
    assert_eq!(world.refused(&world.call()).await, refused_for(Limit::TenantRate, 334));
    world.scope.tenant = name("acme");
    world.pass(0.333_3);
    assert_eq!(world.refused(&world.call()).await, refused_for(Limit::TenantRate, 1));
}

async fn a_refusal_by_one_limit_charges_no_other(mut world: World) {
    world.budget(0.001, 3);
    world.tenant_limit(0.001, 3);
    // The rate refuses: the budget still holds its two.
    (world.scope.tenant, world.scope.limits.burst) = (name("poor"), 1);
    world.granted(&world.call()).await;
    assert_eq!(world.refused(&world.keyed("a", "x")).await.limit, Limit::TenantRate);
    (world.scope.tenant, world.scope.limits.burst) = (name("acme"), 3);
    let before = world.quota().await;
    let granted = world.call();
    world.granted(&granted).await;
    let before = Quota { in_flight: before.in_flight + 1, ..world.quota().await };
    // Calls in flight refuse: neither rate nor budget is charged.
    world.scope.limits.max_in_flight = 1;
    assert_eq!(world.refused(&world.keyed("a", "x")).await.limit, Limit::TenantInFlight);
    assert_eq!(world.quota().await, before);
    // The budget refuses: the tenant is charged nothing, and the record was claimed by none of the
    // three.
    world.scope.limits.max_in_flight = 9;
    world.scope.tenant = name("other");
    world.granted(&world.call()).await;
    world.scope.tenant = name("acme");
    assert_eq!(world.refused(&world.keyed("a", "x")).await.limit, Limit::UpstreamBudget);
    assert_eq!(world.quota().await, before);
    world.budget(1e6, 3);
    world.pass(0.001);
    assert!(!world.granted(&world.keyed("a", "y")).await.takeover);
}

async fn calls_in_flight_refuse_with_what_a_call_takes_one_after_another(mut world: World) {
    world.scope.limits.max_in_flight = 2;
    let short = Ask { lease: Duration::from_millis(2_500), ..world.call() };
    world.granted(&world.call()).await;
    world.granted(&short).await;
    // A call takes 300 ms, and there are two places: one is free every 150 ms.
    for hint in [300, 450, 600] {
        assert_eq!(world.refused(&world.call()).await, refused_for(Limit::TenantInFlight, hint));
    }
    world.pass(2.499);
    assert_eq!(world.refused(&world.call()).await.limit, Limit::TenantInFlight);
    world.pass(0.001);
    world.granted(&world.call()).await;
}

async fn a_crashed_callers_lease_frees_itself(mut world: World) {
    world.scope.limits.max_in_flight = 1;
    world.granted(&world.keyed("a", "x")).await;
    world.pass(15.0);
    assert_eq!(world.quota().await.in_flight, 0);
    world.granted(&world.call()).await;
}

async fn a_settled_call_frees_its_place(mut world: World) {
    world.scope.limits.max_in_flight = 1;
    for token in ["a", "b", "c"] {
        let call = world.keyed(token, "x");
        world.granted(&call).await;
        world.settle(&call, done("sealed")).await;
    }
    let call = world.call();
    world.granted(&call).await;
    world.settle(&call, release()).await;
    world.granted(&world.call()).await;
}

async fn a_refund_needs_a_lease_that_this_settle_removed(mut world: World) {
    world.scope.limits.rate = rate(0.001);
    let (kept, given_back, too_late, never) =
        (world.call(), world.call(), world.call(), world.call());
    for call in [&kept, &given_back, &too_late] {
        world.granted(call).await;
    }
    world.settle(&kept, release()).await;
    world.settle(&given_back, refund()).await;
    world.settle(&given_back, refund()).await;
    world.settle(&never, refund()).await;
    assert_eq!(world.quota().await.remaining, 98);
    world.pass(15.0);
    world.settle(&too_late, refund()).await;
    assert_eq!(world.quota().await.remaining, 98);
}

async fn a_refund_never_fills_above_the_burst(mut world: World) {
    world.scope.limits.burst = 3;
    let calls = [world.call(), world.call()];
    for call in &calls {
        world.granted(call).await;
    }
    world.pass(1.0);
    for call in &calls {
        world.settle(call, refund()).await;
    }
    let quota = world.quota().await;
    assert_eq!((quota.remaining, quota.until_full), (3, Duration::ZERO));
}

async fn shadow_lets_the_rate_through_and_reports_it(mut world: World) {
    world.tenant_limit(4.0, 1);
    world.scope.limits.enforcement = Enforcement::Shadow;
    assert_eq!(world.admit(&world.call()).await.shadowed, None);
    let answer = world.admit(&world.call()).await;
    assert!(matches!(answer.decision, Decision::Granted { .. }));
    assert_eq!(answer.shadowed, Some(refused_for(Limit::TenantRate, 250)));
    // As if it had been refused: it has charged nothing, and has no place that counts.
    assert_eq!((answer.quota.remaining, answer.quota.in_flight), (0, 1));
}

async fn shadow_owes_nothing_later(mut world: World) {
    world.tenant_limit(4.0, 1);
    world.scope.limits.enforcement = Enforcement::Shadow;
    for _ in 0..20 {
        world.granted(&world.call()).await;
    }
    world.scope.limits.enforcement = Enforcement::Enforce;
    assert_eq!(world.refused(&world.call()).await.limit, Limit::TenantRate);
    world.pass(0.25);
    world.granted(&world.call()).await;
}

async fn shadow_lets_calls_in_flight_through_and_reports_them(mut world: World) {
    world.scope.limits.max_in_flight = 1;
    world.scope.limits.enforcement = Enforcement::Shadow;
    world.granted(&world.call()).await;
    let answer = world.admit(&world.call()).await;
    assert!(matches!(answer.decision, Decision::Granted { .. }));
    assert_eq!(answer.shadowed, Some(refused_for(Limit::TenantInFlight, 300)));
    world.tenant_limit(1.0, 1);
    let both = world.admit(&world.call()).await;
    assert_eq!(both.shadowed.unwrap().limit, Limit::TenantInFlight);
    assert_eq!(both.quota.remaining, 1, "it charges nothing, as if it had been refused");
}

async fn shadow_hides_no_refusal_of_the_budget(mut world: World) {
    world.budget(10.0, 1);
    world.tenant_limit(1.0, 1);
    world.scope.limits.enforcement = Enforcement::Shadow;
    world.granted(&world.call()).await;
    let answer = world.admit(&world.call()).await;
    assert_eq!(answer.decision, Decision::Refused(refused_for(Limit::UpstreamBudget, 100)));
    assert_eq!(answer.shadowed, Some(refused_for(Limit::TenantRate, 1_000)));
}

async fn a_changed_config_takes_levels_along(mut world: World) {
    world.tenant_limit(1.0, 10);
    for _ in 0..4 {
        world.granted(&world.call()).await;
    }
    world.scope.limits.burst = 3;
    assert_eq!(world.quota().await.remaining, 3, "a level above the new burst is cut");
    world.granted(&world.call()).await;
    world.scope.limits.burst = 50;
    assert_eq!(world.quota().await.remaining, 2, "a new burst is no gift");
    world.scope.limits.rate = rate(10.0);
    world.pass(1.0);
    assert_eq!(world.quota().await.remaining, 12);
    world.budget(0.001, 2);
    world.granted(&world.call()).await;
    world.granted(&world.call()).await;
    world.budget(0.001, 100);
    assert_eq!(world.refused(&world.call()).await.limit, Limit::UpstreamBudget);
    world.scope.limits.committed = rate(3.0);
    world.scope.committed_burst = 3;
    let before = world.refused(&world.call()).await;
    assert_eq!(before.limit, Limit::UpstreamBudget);
}

async fn a_rate_of_zero_admits_the_burst_and_no_more(mut world: World) {
    world.tenant_limit(0.0, 1);
    world.granted(&world.call()).await;
    world.pass(1e6);
    let refused = world.refused(&world.call()).await;
    assert_eq!(refused.limit, Limit::TenantRate);
    world.scope.limits.rate = rate(10.0);
    world.pass(1.0);
    world.budget(0.0, 1);
    world.granted(&world.call()).await;
    world.pass(1.0);
    let refused = world.refused(&waiting(world.call(), 500)).await;
    assert_eq!(refused.limit, Limit::UpstreamBudget);
}

async fn reading_the_quota_charges_nothing_and_keeps_the_clock(world: World) {
    let fresh = world.quota().await;
    assert_eq!((fresh.remaining, fresh.in_flight, fresh.until_full), (100, 0, Duration::ZERO));
    world.granted(&world.call()).await;
    for _ in 0..5 {
        let quota = world.quota().await;
        assert_eq!((quota.remaining, quota.in_flight), (99, 1));
        assert_eq!(quota.until_full, Duration::from_millis(10));
    }
    // The clock steps back right after a reading: what passed until then counts.
    world.pass(10.0);
    world.quota().await;
    world.clock.set(START);
    assert_eq!(world.quota().await.in_flight, 1);
    world.pass(5.0);
    assert_eq!(world.quota().await.in_flight, 0);
}

async fn tenants_have_ceilings_of_their_own_and_share_the_budget(mut world: World) {
    world.budget(1.0, 3);
    world.scope.limits.burst = 2;
    world.scope.limits.rate = rate(0.001);
    world.granted(&world.call()).await;
    world.granted(&world.call()).await;
    assert_eq!(world.refused(&world.call()).await.limit, Limit::TenantRate);
    world.scope.tenant = name("other");
    assert_eq!(world.quota().await.remaining, 2);
    world.granted(&world.call()).await;
    assert_eq!(world.refused(&world.call()).await.limit, Limit::UpstreamBudget);
}
