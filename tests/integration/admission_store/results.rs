//! The contract of a kept result, over every store: how long it is repeated, and what becomes of one
//! that cannot be trusted.

use participant_gateway::admission::{Ask, Decision, Settled, Verdict};

use super::world::*;

store_contract! {
    a_finished_call_is_replayed_and_charges_nothing,
    a_result_ends_half_a_minute_before_its_credentials_and_leaves_a_tombstone,
    a_result_whose_life_is_already_over_is_a_tombstone_at_once,
    a_result_without_an_end_lives_for_the_retention_from_the_first_claim,
    a_tombstone_is_forgotten_with_the_retention,
    a_result_that_cannot_be_opened_is_taken_over_and_kept_until_it_is_replaced,
    a_takeover_for_resealing_that_never_ends_leaves_the_old_result,
    distrust_of_a_result_that_was_replaced_meanwhile_replays_the_new_one,
    a_result_under_resealing_still_ends_in_a_tombstone,
    a_mismatch_that_cannot_be_verified_is_taken_over,
    distrust_of_another_mac_changes_nothing,
    a_record_of_the_same_content_with_a_foreign_mac_or_token_is_taken_over,
}

async fn a_finished_call_is_replayed_and_charges_nothing(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    assert_eq!(world.settle(&call, done("sealed")).await, Settled::Closed);
    let before = world.quota().await;
    let duplicate = world.keyed("a", "x");
    let answer = world.admit(&duplicate).await;
    assert_eq!(answer.decision, replay("sealed"));
    assert_eq!(answer.quota, before);
    assert_eq!((before.in_flight, before.remaining), (0, 99));
}

async fn a_result_ends_half_a_minute_before_its_credentials_and_leaves_a_tombstone(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.pass(10.0);
    world.settle(&call, done_until("sealed", 100)).await;
    world.pass(59.9);
    assert_eq!(world.decide(&world.keyed("a", "x")).await, replay("sealed"));
    world.pass(0.1);
    assert_eq!(world.decide(&world.keyed("a", "x")).await, Decision::Tombstone);
    assert_eq!(world.decide(&world.keyed("a", "x")).await, Decision::Tombstone);
}

async fn a_result_whose_life_is_already_over_is_a_tombstone_at_once(world: World) {
    for (token, expires_s) in [("a", 30), ("b", 0), ("c", 5)] {
        let call = world.keyed(token, "x");
        world.granted(&call).await;
        assert_eq!(world.settle(&call, done_until("sealed", expires_s)).await, Settled::Closed);
        assert_eq!(world.decide(&world.keyed(token, "x")).await, Decision::Tombstone);
    }
}

async fn a_result_without_an_end_lives_for_the_retention_from_the_first_claim(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.pass(10.0);
    world.settle(&call, done("sealed")).await;
    world.pass(86_389.0);
    assert_eq!(world.decide(&world.keyed("a", "x")).await, replay("sealed"));
    world.pass(1.0);
    assert!(!world.granted(&world.keyed("a", "y")).await.takeover, "forgotten, to the second");
}

async fn a_tombstone_is_forgotten_with_the_retention(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.settle(&call, done_until("sealed", 60)).await;
    world.pass(86_399.0);
    assert_eq!(world.decide(&world.keyed("a", "x")).await, Decision::Tombstone);
    world.pass(1.0);
    assert!(!world.granted(&world.keyed("a", "x")).await.takeover);
}

async fn a_result_that_cannot_be_opened_is_taken_over_and_kept_until_it_is_replaced(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.settle(&call, done("old")).await;
    let taker = distrusting(&world.keyed("a", "x"), b"old");
    assert!(world.granted(&taker).await.takeover);
    assert!(matches!(world.decide(&world.keyed("a", "x")).await, Decision::Busy { .. }));
    for verdict in [Verdict::Uncertain, release()] {
        assert_eq!(world.settle(&taker, verdict).await, Settled::Closed);
        assert_eq!(
            world.decide(&world.keyed("a", "x")).await,
            replay("old"),
            "another replica may open it"
        );
        world.granted(&taker).await;
    }
    world.settle(&taker, done("new")).await;
    assert_eq!(world.decide(&world.keyed("a", "x")).await, replay("new"));
}

async fn a_takeover_for_resealing_that_never_ends_leaves_the_old_result(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.settle(&call, done("old")).await;
    world.granted(&distrusting(&world.keyed("a", "x"), b"old")).await;
    world.pass(15.0);
    assert_eq!(world.decide(&world.keyed("a", "x")).await, replay("old"));
}

async fn distrust_of_a_result_that_was_replaced_meanwhile_replays_the_new_one(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.settle(&call, done("new")).await;
    assert_eq!(world.decide(&distrusting(&call, b"old")).await, replay("new"));
}

async fn a_result_under_resealing_still_ends_in_a_tombstone(world: World) {
    let call = world.keyed("a", "x");
    world.granted(&call).await;
    world.settle(&call, done_until("old", 100)).await;
    let taker = distrusting(&world.keyed("a", "x"), b"old");
    world.pass(69.0);
    world.granted(&taker).await;
    world.pass(2.0);
    assert_eq!(world.settle(&taker, Verdict::Uncertain).await, Settled::Closed);
    assert_eq!(world.decide(&world.keyed("a", "x")).await, Decision::Tombstone);
}

async fn a_mismatch_that_cannot_be_verified_is_taken_over(world: World) {
    world.granted(&world.keyed("a", "garbled")).await;
    let call = world.keyed("a", "x");
    let Decision::Mismatch { mac, .. } = world.decide(&call).await else { panic!("no mismatch") };
    let call = distrusting(&call, mac.as_bytes());
    assert!(world.granted(&call).await.takeover, "never a mismatch, and uncertain for good");
    world.settle(&call, release()).await;
    assert!(matches!(world.decide(&world.keyed("a", "y")).await, Decision::Mismatch { .. }));
    assert!(world.granted(&world.keyed("a", "x")).await.takeover);
}

async fn distrust_of_another_mac_changes_nothing(world: World) {
    world.granted(&world.keyed("a", "x")).await;
    let ask = distrusting(&world.keyed("a", "y"), b"mac-of-something-else");
    assert!(matches!(world.decide(&ask).await, Decision::Mismatch { .. }));
}

async fn a_record_of_the_same_content_with_a_foreign_mac_or_token_is_taken_over(world: World) {
    let forge: [fn(&mut Ask); 2] = [
        |ask| ask.record.as_mut().unwrap().mac = "forged".into(),
        |ask| ask.record.as_mut().unwrap().upstream_token = record("a", "another").upstream_token,
    ];
    for forge in forge {
        let mut forged = world.keyed("a", "x");
        forge(&mut forged);
        world.settle(&forged, release()).await;
        world.decide(&forged).await;
        world.settle(&forged, done("forged")).await;
        let call = world.keyed("a", "x");
        assert!(world.granted(&call).await.takeover);
        world.settle(&call, done("ours")).await;
        assert_eq!(world.decide(&world.keyed("a", "x")).await, replay("ours"));
    }
}
