//! Which store decides a call, at which limits, and which one settles it.

use super::*;
use crate::sync::lock;

#[tokio::test(start_paused = true)]
async fn local_limits_are_a_share_of_every_limit() {
    let bench = Bench::local(Mood::Hangs).await;
    bench.admits(1).await;
    let rate = |per_second| Rate::new(per_second).unwrap();
    let share = Scope {
        limits: TenantLimits {
            rate: rate(20.0 / 3.0),
            burst: 13,
            committed: rate(2.0 / 3.0),
            max_in_flight: 1,
            enforcement: Enforcement::Shadow,
        },
        rate: rate(2.0 / 3.0),
        burst: 1,
        committed_burst: 2,
        ..scope()
    };
    assert_eq!(bench.last_local().seen(), [Seen::Admit(Stage::Call, None, share)]);
    assert_eq!(bench.store.quota(&scope()).await.unwrap(), quota());
    assert_eq!(bench.last_local().seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_later_outage_begins_with_fresh_local_state_and_a_flapping_store_does_not() {
    let bench = Bench::local(Mood::Up).await;
    let mut nonces = 1..;
    for _ in 0..5 {
        bench.primary.turns(Mood::Refuses(ServerWord::Plain));
        for nonce in nonces.by_ref().take(3) {
            assert_eq!(bench.admits(nonce).await, LOCAL);
        }
        bench.primary.turns(Mood::Up);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(bench.admits(nonces.next().unwrap()).await, PRIMARY);
    }
    assert_eq!(bench.locals(), 1);

    let kept = Arc::downgrade(&lock(&bench.locals).remove(0));
    sleep(local::REST).await;
    assert_eq!(bench.admits(1000).await, PRIMARY);
    advance(LEASE).await;
    assert_eq!(bench.locals(), 0);
    for nonce in 1..=1000 {
        bench.store.0.holdings.take(Nonce(nonce));
    }
    assert!(kept.upgrade().is_none(), "the local state was not dropped");
    bench.primary.turns(Mood::Hangs);
    assert_eq!(bench.admits(1001).await, LOCAL);
    assert_eq!(bench.locals(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_granted_locally_stays_there_when_the_store_is_back() {
    let bench = Bench::local(Mood::Up).await.lost(Mood::Hangs).await;
    assert_eq!(bench.admits(1).await, LOCAL);
    bench.primary.turns(Mood::Up);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.admits(2).await, PRIMARY);

    let again = bench.store.admit(&attempt(1, Some(LOCAL))).await.unwrap();
    assert_eq!(granted(&again), LOCAL);
    let before = bench.primary.seen().len();
    let settled = bench
        .store
        .settle(&Settlement { throttled: Some(LOCAL), ..settlement(1) })
        .await;
    assert_eq!(settled.unwrap(), Settled::Closed);
    let seen = bench.last_local().seen();
    assert_eq!(seen.last(), Some(&Seen::Settle(Nonce(1), Some(LOCAL))));
    assert!(matches!(seen[seen.len() - 2], Seen::Admit(Stage::Attempt { .. }, Some(LOCAL), _)));
    sleep(LEASE).await;
    assert_eq!(bench.primary.seen().len(), before, "the primary never knew of the call");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_lost_its_store_goes_on_locally_and_is_settled_on_both() {
    let bench = Bench::local(Mood::Up).await;
    assert_eq!(bench.admits(1).await, PRIMARY);
    let bench = bench.lost(Mood::Hangs).await;
    let again = bench.store.admit(&attempt(1, Some(PRIMARY))).await.unwrap();
    assert_eq!(granted(&again), LOCAL);
    let seen = bench.last_local().seen();
    // A moment or a claim of one store means nothing to the other.
    assert!(matches!(seen.last(), Some(Seen::Admit(Stage::Call, None, _))), "{seen:?}");

    let began = Instant::now();
    assert!(
        bench
            .store
            .settle(&Settlement { throttled: Some(LOCAL), ..settlement(1) })
            .await
            .is_ok()
    );
    assert_eq!(began.elapsed(), Duration::ZERO);
    bench.primary.turns(Mood::Up);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(bench.primary.seen().last(), Some(&Seen::Settle(Nonce(1), None)));
    assert_eq!(bench.last_local().seen().last(), Some(&Seen::Settle(Nonce(1), Some(LOCAL))));
    assert_eq!(bench.store.health().unsettled(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_reply_was_lost_is_closed_when_the_store_is_back() {
    let bench = Bench::local(Mood::Up).await;
    bench.primary.turns(Mood::Hangs);
    assert_eq!(bench.admits(1).await, LOCAL);
    assert!(bench.store.settle(&settlement(1)).await.is_ok());
    assert_eq!(bench.primary.settled(), 0);
    bench.primary.turns(Mood::Up);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.primary.settled(), 1);

    bench.primary.turns(Mood::Hangs);
    assert_eq!(bench.admits(2).await, LOCAL);
    assert!(bench.store.settle(&settlement(2)).await.is_ok());
    sleep(2 * LEASE).await;
    assert_eq!(bench.store.health().unsettled(), 0, "nobody knows of a claim there");
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_known_until_the_call_is_settled() {
    let bench = Bench::local(Mood::Up).await;
    assert!(!bench.store.may_stand(&ask(1)), "it was never asked");
    bench.primary.turns(Mood::Hangs);
    assert_eq!(bench.admits(1).await, LOCAL);
    assert!(bench.store.may_stand(&ask(1)));
    assert!(bench.store.settle(&settlement(1)).await.is_ok());
    assert!(!bench.store.may_stand(&ask(1)));

    let bench = Bench::local(Mood::Up).await.lost(Mood::Hangs).await;
    assert_eq!(bench.admits(2).await, LOCAL);
    assert!(!bench.store.may_stand(&ask(2)), "the primary was not asked");
}
