//! The contract of the idempotency record, over every store: who holds a claim, and for how long.

use std::time::Duration;

use participant_gateway::admission::{Ask, Decision, Settled, Stage, Verdict};
use participant_gateway::error::Limit;

use super::world::*;

store_contract! {
    a_new_call_is_granted_its_own_upstream_token,
    a_call_without_a_client_token_has_no_upstream_token_and_never_collides,
    a_duplicate_of_a_call_in_flight_hears_what_is_left_of_its_lease,
    other_content_is_a_mismatch_in_every_state,
    another_version_of_the_encoding_is_a_mismatch_that_names_the_version,
    a_release_forgets_the_record,
    an_uncertain_claim_is_taken_over_at_once_with_the_same_token,
    a_lease_that_ran_out_is_taken_over_and_the_first_owner_is_fenced_off,
    once_uncertain_a_release_never_forgets,
    an_uncertain_attempt_makes_the_record_uncertain_for_good,
    a_claim_settled_after_its_lease_is_still_its_owners_while_nobody_took_over,
    settling_twice_acts_once,
    a_record_outlives_its_retention_only_for_its_lease,
    an_admit_that_finds_its_own_nonce_gets_the_same_grant_uncharged,
    a_mended_grant_knows_of_the_takeover,
    without_a_record_the_lease_itself_mends_a_lost_reply,
    a_further_attempt_charges_the_budget_only_and_renews_the_leases,
    a_stale_attempt_gets_what_a_duplicate_gets,
    an_attempt_whose_claim_nobody_holds_is_lost_and_may_claim_afresh,
    records_of_two_upstreams_or_names_are_independent,
    a_clock_that_steps_back_neither_ends_nor_extends_a_lease,
    of_many_duplicates_at_once_exactly_one_is_granted,
    a_look_hears_what_the_record_says_and_claims_nothing,
    a_store_knows_a_record_from_its_claim_to_its_release,
}

async fn a_store_knows_a_record_from_its_claim_to_its_release(world: World) {
    let has = async |of: &Ask| {
        let name = &of.record.as_ref().unwrap().name;
        world.store.has_record(&world.scope, name).await.unwrap()
    };
    let (call, other) = (world.keyed("a", "x"), world.keyed("b", "x"));
    assert!(!has(&call).await);
    world.granted(&call).await;
    assert!(has(&call).await && !has(&other).await);
    world.settle(&call, done("sealed")).await;
    assert!(has(&call).await);
    world.granted(&other).await;
    world.settle(&other, release()).await;
    assert!(has(&call).await && !has(&other).await);
}

async fn a_new_call_is_granted_its_own_upstream_token(world: World) {
    let grant = world.granted(&world.keyed("a", "x")).await;
    assert!(!grant.takeover);
    assert_eq!((grant.at.0 * 1e6).round() as u64, START);
}

async fn a_call_without_a_client_token_has_no_upstream_token_and_never_collides(world: World) {
    world.granted(&world.call()).await;
    world.granted(&world.call()).await;
    assert_eq!(world.quota().await.in_flight, 2);
}

async fn a_duplicate_of_a_call_in_flight_hears_what_is_left_of_its_lease(world: World) {
    world.granted(&world.keyed("a", "x")).await;
    world.pass(4.0);
    let decision = world.decide(&world.keyed("a", "x")).await;
    assert_eq!(decision, Decision::Busy { lease: Duration::from_secs(11) });
    assert_eq!(world.quota().await.in_flight, 1);
}

async fn other_content_is_a_mismatch_in_every_state(world: World) {
    let call = world.keyed("a", "x");
    let assert_mismatch = async || {
        let decision = world.decide(&world.keyed("a", "y")).await;
        let Decision::Mismatch { mac, fingerprint, upstream_token, version } = decision else {
            panic!("no mismatch: {decision:?}")
        };
        assert_eq!((mac.as_str(), fingerprint.as_str(), version), ("mac-of-a-x", "print-of-x", 1));
        assert_eq!(upstream_token, "upstream-token-of-a-x");
    };
    world.granted(&call).await;
    assert_mismatch().await;
    world.pass(16.0);
    assert_mismatch().await;
    world.settle(&call, Verdict::Uncertain).await;
    assert_mismatch().await;
    world.granted(&call).await;
    world.settle(&call, done_until("sealed", 100)).await;
    assert_mismatch().await;
    world.pass(100.0);
    assert_eq!(world.decide(&call).await, Decision::Tombstone);
    assert_mismatch().await;
}

async fn another_version_of_the_encoding_is_a_mismatch_that_names_the_version(world: World) {
    world.granted(&world.keyed("a", "x")).await;
    let mut newer = world.keyed("a", "x");
    newer.record.as_mut().unwrap().version = 2;
    assert!(matches!(world.decide(&newer).await, Decision::Mismatch { version: 1, .. }));
}

async fn a_release_forgets_the_record(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    assert_eq!(world.settle(&call, release()).await, Settled::Closed);
    assert!(!world.granted(&world.keyed("a", "y")).await.takeover);
}

async fn an_uncertain_claim_is_taken_over_at_once_with_the_same_token(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.settle(&call, Verdict::Uncertain).await;
    assert!(world.granted(&world.keyed("a", "x")).await.takeover);
}

async fn a_lease_that_ran_out_is_taken_over_and_the_first_owner_is_fenced_off(world: World) {
    let (first, second) = (world.keyed("a", "x"), world.keyed("a", "x"));
    world.granted(&first).await;
    world.pass(15.0);
    assert!(world.granted(&second).await.takeover);
    for verdict in [done("stale"), release(), Verdict::Uncertain] {
        assert_eq!(world.settle(&first, verdict).await, Settled::NotOurs);
    }
    assert!(matches!(world.decide(&world.keyed("a", "x")).await, Decision::Busy { .. }));
    assert_eq!(world.settle(&second, done("fresh")).await, Settled::Closed);
    assert_eq!(world.settle(&first, done("stale")).await, Settled::NotOurs);
    assert_eq!(world.decide(&first).await, replay("fresh"));
}

async fn once_uncertain_a_release_never_forgets(world: World) {
    let by_settle = world.keyed("a", "x");
    world.granted(&by_settle).await;
    world.settle(&by_settle, Verdict::Uncertain).await;
    let by_lease = world.keyed("b", "x");
    world.granted(&by_lease).await;
    world.pass(15.0);
    for token in ["a", "b"] {
        for _ in 0..2 {
            let next = world.keyed(token, "x");
            assert!(world.granted(&next).await.takeover);
            assert_eq!(world.settle(&next, release()).await, Settled::Closed);
            assert!(matches!(
                world.decide(&world.keyed(token, "y")).await,
                Decision::Mismatch { .. }
            ));
        }
    }
}

async fn an_uncertain_attempt_makes_the_record_uncertain_for_good(world: World) {
    let call = world.keyed("a", "x");
    assert!(!world.granted(&call).await.takeover);
    assert!(!world.granted(&attempt(&call)).await.takeover);
    assert!(world.granted(&uncertain_attempt(&call)).await.takeover);
    assert!(world.granted(&attempt(&call)).await.takeover, "the bit is sticky");
    world.settle(&call, release()).await;
    assert!(matches!(world.decide(&world.keyed("a", "y")).await, Decision::Mismatch { .. }));
}

async fn a_claim_settled_after_its_lease_is_still_its_owners_while_nobody_took_over(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.pass(60.0);
    assert_eq!(world.settle(&call, done("late")).await, Settled::Closed);
    assert_eq!(world.decide(&world.keyed("a", "x")).await, replay("late"));
}

async fn settling_twice_acts_once(mut world: World) {
    world.scope.limits.rate = rate(0.001);
    for verdict in [done("sealed"), refund(), Verdict::Uncertain] {
        let call = world.keyed(&format!("{verdict:?}"), "x");
        world.granted(&call).await;
        assert_eq!(world.settle(&call, verdict.clone()).await, Settled::Closed);
        let after_one = world.quota().await;
        assert_eq!(world.settle(&call, verdict).await, Settled::NotOurs);
        assert_eq!(world.settle(&call, refund()).await, Settled::NotOurs);
        assert_eq!(world.quota().await, after_one);
    }
    assert_eq!(world.quota().await.remaining, 98, "one of three was given back, once");
}

async fn a_record_outlives_its_retention_only_for_its_lease(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.settle(&call, Verdict::Uncertain).await;
    world.pass(86_395.0);
    let late = world.keyed("a", "x");
    assert!(world.granted(&late).await.takeover);
    world.pass(10.0);
    assert!(matches!(world.decide(&world.keyed("a", "x")).await, Decision::Busy { .. }));
    assert_eq!(world.settle(&late, done("sealed")).await, Settled::Closed);
    assert_eq!(world.decide(&world.keyed("a", "x")).await, replay("sealed"));
    world.pass(5.0);
    assert!(!world.granted(&world.keyed("a", "y")).await.takeover);
}

async fn an_admit_that_finds_its_own_nonce_gets_the_same_grant_uncharged(mut world: World) {
    world.tenant_limit(0.001, 1);
    world.scope.limits.max_in_flight = 1;
    world.budget(0.001, 1);
    let call = world.keyed("a", "x");
    let first = world.granted(&call).await;
    let quota = world.quota().await;
    for ask in [call.clone(), again(&call)] {
        assert_eq!(world.granted(&ask).await, first);
    }
    assert_eq!(world.quota().await, quota);
    world.pass(10.0);
    world.granted(&call).await;
    world.pass(10.0);
    let decision = world.decide(&world.keyed("a", "x")).await;
    assert_eq!(
        decision,
        Decision::Busy { lease: Duration::from_secs(5) },
        "a mended grant has its lease"
    );
    world.settle(&call, done("sealed")).await;
    assert_eq!(world.decide(&call).await, replay("sealed"), "nothing mends a closed claim");
}

async fn a_mended_grant_knows_of_the_takeover(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.settle(&call, Verdict::Uncertain).await;
    let next = world.keyed("a", "x");
    assert!(world.granted(&next).await.takeover);
    assert!(world.granted(&next).await.takeover);
}

async fn without_a_record_the_lease_itself_mends_a_lost_reply(mut world: World) {
    world.tenant_limit(0.001, 1);
    world.scope.limits.max_in_flight = 1;
    world.budget(0.001, 1);
    let call = world.call();
    world.granted(&call).await;
    let quota = world.quota().await;
    world.granted(&call).await;
    assert_eq!(world.quota().await, quota);
    assert_eq!(world.settle(&call, release()).await, Settled::Closed);
    assert_eq!(
        world.refused(&call).await.limit,
        Limit::TenantRate,
        "once closed, it is a new call"
    );
}

async fn a_further_attempt_charges_the_budget_only_and_renews_the_leases(mut world: World) {
    world.tenant_limit(0.001, 1);
    world.scope.limits.max_in_flight = 1;
    world.budget(0.001, 3);
    for call in [world.keyed("a", "x"), world.call()] {
        world.granted(&call).await;
        world.pass(10.0);
        world.granted(&attempt(&call)).await;
        world.pass(10.0);
        assert_eq!(world.quota().await.in_flight, 1, "the lease was renewed");
        if call.record.is_some() {
            let decision = world.decide(&world.keyed("a", "x")).await;
            assert_eq!(decision, Decision::Busy { lease: Duration::from_secs(5) });
        }
        world.granted(&attempt(&call)).await;
        assert_eq!(
            world.refused(&attempt(&call)).await.limit,
            Limit::UpstreamBudget,
            "the fourth start of three"
        );
        assert_eq!(world.settle(&call, refund()).await, Settled::Closed);
        let quota = world.quota().await;
        assert_eq!((quota.in_flight, quota.remaining), (0, 1));
        world.pass(10_000.0);
    }
}

async fn a_stale_attempt_gets_what_a_duplicate_gets(world: World) {
    let (first, second) = (world.keyed("a", "x"), world.keyed("a", "x"));
    world.granted(&first).await;
    world.pass(15.0);
    world.granted(&second).await;
    assert_eq!(
        world.decide(&attempt(&first)).await,
        Decision::Busy { lease: Duration::from_secs(15) }
    );
    world.settle(&second, done_until("sealed", 100)).await;
    assert_eq!(world.decide(&attempt(&first)).await, replay("sealed"));
    world.pass(100.0);
    assert_eq!(world.decide(&attempt(&first)).await, Decision::Tombstone);
}

async fn an_attempt_whose_claim_nobody_holds_is_lost_and_may_claim_afresh(world: World) {
    let (first, second) = (world.keyed("a", "x"), world.keyed("a", "x"));
    world.granted(&first).await;
    world.pass(15.0);
    world.granted(&second).await;
    world.settle(&second, Verdict::Uncertain).await;
    let before = world.quota().await;
    assert_eq!(world.decide(&attempt(&first)).await, Decision::Lost);
    assert_eq!(world.quota().await, before);
    assert!(world.granted(&first).await.takeover);
    world.granted(&attempt(&first)).await;
    assert_eq!(world.decide(&attempt(&world.keyed("never claimed", "x"))).await, Decision::Lost);
}

async fn records_of_two_upstreams_or_names_are_independent(world: World) {
    world.granted(&world.keyed("a", "x")).await;
    let mut elsewhere = world.keyed("a", "y");
    elsewhere.scope.upstream = name("other");
    assert!(!world.granted(&elsewhere).await.takeover);
    assert!(!world.granted(&world.keyed("b", "y")).await.takeover);
    assert_eq!(world.quota().await.in_flight, 2);
}

async fn a_clock_that_steps_back_neither_ends_nor_extends_a_lease(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.pass(5.0);
    world.quota().await;
    world.clock.set(START - 3_600_000_000);
    let left = |seconds| Decision::Busy { lease: Duration::from_secs(seconds) };
    assert_eq!(world.decide(&world.keyed("a", "x")).await, left(10));
    world.pass(4.0);
    assert_eq!(world.decide(&world.keyed("a", "x")).await, left(6));
    world.clock.set(START);
    let mut duplicate = world.keyed("a", "x");
    duplicate.stage = Stage::Call;
    assert!(world.granted(&duplicate).await.takeover, "a jump forward is time");
}

async fn of_many_duplicates_at_once_exactly_one_is_granted(world: World) {
    let store = &world.store;
    let asks: Vec<Ask> = (0..64).map(|_| world.keyed("a", "x")).collect();
    let running: Vec<_> = asks
        .into_iter()
        .map(|ask| {
            let store = std::sync::Arc::clone(store);
            tokio::spawn(async move { store.admit(&ask).await.unwrap().decision })
        })
        .collect();
    let mut granted = 0;
    for decision in running {
        match decision.await.unwrap() {
            Decision::Granted { .. } => granted += 1,
            Decision::Busy { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((granted, world.quota().await.in_flight), (1, 1));
}

async fn a_look_hears_what_the_record_says_and_claims_nothing(world: World) {
    let look = |content| Ask { stage: Stage::Look, ..world.keyed("a", content) };
    let call = world.keyed("a", "x");
    assert_eq!(world.decide(&look("x")).await, Decision::Lost);
    assert_eq!(world.decide(&Ask { stage: Stage::Look, ..world.call() }).await, Decision::Lost);
    world.granted(&call).await;
    assert!(matches!(world.decide(&look("x")).await, Decision::Busy { .. }));
    assert!(matches!(world.decide(&look("y")).await, Decision::Mismatch { .. }));
    world.settle(&call, Verdict::Uncertain).await;
    let before = world.quota().await;
    assert_eq!(world.decide(&look("x")).await, Decision::Lost);
    assert_eq!(world.quota().await, before);
    assert!(world.granted(&call).await.takeover);
    world.settle(&call, done_until("sealed", 100)).await;
    assert_eq!(world.decide(&look("x")).await, replay("sealed"));
    world.pass(100.0);
    assert_eq!(world.decide(&look("x")).await, Decision::Tombstone);
}
