//! Settlements that the answer does not wait for.

use std::collections::HashSet;

use super::*;

#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_settling_at_most_one_timeout_and_settling_goes_on() {
    let bench = Bench::reject(Mood::Up).await;
    bench.admits(1).await;
    bench.primary.turns(Mood::GivesUp);
    let began = Instant::now();
    bench.store.settle(&settlement(1)).await.unwrap_err();
    assert_eq!(began.elapsed(), TIMEOUT);
    assert_eq!(bench.store.health().settling.load(Relaxed), 1);
    sleep(Duration::from_secs(5)).await;
    bench.primary.turns(Mood::Up);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.primary.settled(), 1);
    let health = bench.store.health();
    assert_eq!((health.settling.load(Relaxed), health.unsettled()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_never_succeeds_is_counted_once_when_its_lease_ends() {
    let bench = Bench::reject(Mood::Up).await;
    bench.admits(1).await;
    let bench = bench.lost(Mood::Refuses(ServerWord::OutOfMemory)).await;
    let health = bench.store.health();
    let began = Instant::now();
    bench.store.settle(&settlement(1)).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO, "a store known to be lost is not waited for");
    sleep(LEASE * 17 / 20).await;
    assert_eq!((health.settling.load(Relaxed), health.unsettled()), (1, 0));
    sleep(LEASE * 3 / 20).await;
    assert_eq!((health.settling.load(Relaxed), health.unsettled()), (0, 1));
    bench.primary.turns(Mood::Up);
    sleep(LEASE).await;
    assert_eq!((health.unsettled(), bench.primary.settled()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_further_attempt_renews_the_lease_that_settling_has() {
    let bench = Bench::reject(Mood::Up).await;
    bench.admits(1).await;
    sleep(LEASE * 4 / 5).await;
    bench.store.admit(&attempt(1, None)).await.unwrap();
    let bench = bench.lost(Mood::Hangs).await;
    bench.store.settle(&settlement(1)).await.unwrap_err();
    sleep(LEASE * 3 / 5).await;
    bench.primary.turns(Mood::Up);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.primary.settled(), 1);
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_settling_and_not_for_ever() {
    let bench = Bench::reject(Mood::Up).await;
    bench.admits(1).await;
    bench.admits(2).await;
    let bench = bench.lost(Mood::Hangs).await;
    bench.store.settle(&settlement(1)).await.unwrap_err();
    bench.store.settle(&settlement(2)).await.unwrap_err();
    let began = Instant::now();
    assert_eq!(bench.store.drain(Duration::from_secs(1)).await, 2);
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    bench.primary.turns(Mood::Up);
    assert_eq!(bench.store.drain(Duration::from_secs(5)).await, 0);
    let nonces: HashSet<_> = bench
        .primary
        .seen()
        .into_iter()
        .filter_map(|seen| match seen {
            Seen::Settle(nonce, _) => Some(nonce),
            _ => None,
        })
        .collect();
    assert_eq!(nonces, HashSet::from([Nonce(1), Nonce(2)]));
}

#[tokio::test(start_paused = true)]
async fn settlements_beyond_what_memory_may_hold_are_counted_at_once() {
    let bench = Bench::reject(Mood::Up).await;
    for nonce in 0..5000 {
        bench.admits(nonce).await;
    }
    let bench = bench.lost(Mood::Hangs).await;
    for nonce in 0..5000 {
        if !(900..=902).contains(&nonce) {
            bench.store.settle(&settlement(nonce)).await.unwrap_err();
        }
    }
    let health = bench.store.health();
    assert_eq!((health.settling.load(Relaxed), health.unsettled()), (4096, 5000 - 3 - 4096));
    sleep(LEASE).await;
    assert_eq!((health.settling.load(Relaxed), health.unsettled()), (0, 5000 - 3));
}
