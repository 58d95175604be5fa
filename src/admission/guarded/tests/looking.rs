//! What a look for a record says of the primary's health.

use super::*;

async fn look(bench: &Bench) -> Result<bool, StoreError> {
    bench.store.has_record(&scope(), "record").await
}

#[tokio::test(start_paused = true)]
async fn while_the_primary_is_lost_any_record_may_exist() {
    let bench = Bench::local(Mood::Up).await;
    assert!(!look(&bench).await.unwrap());
    let bench = bench.lost(Mood::Hangs).await;
    let asked = bench.primary.asked();
    assert!(look(&bench).await.unwrap());
    assert_eq!(bench.primary.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn three_looks_that_fail_lose_the_primary() {
    let bench = Bench::local(Mood::Up).await;
    bench.primary.turns(Mood::Hangs);
    for _ in 0..3 {
        assert!(!bench.store.health().degraded());
        look(&bench).await.unwrap_err();
    }
    assert!(bench.store.health().degraded());
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_can_only_be_read_is_lost_however_often_it_is_looked_at() {
    let bench = Bench::local(Mood::Up).await;
    bench.primary.turns(Mood::ReadOnly);
    for nonce in 1..=3 {
        assert!(!bench.store.health().degraded());
        assert!(!look(&bench).await.unwrap());
        assert_eq!(bench.admits(nonce).await, LOCAL);
    }
    assert!(bench.store.health().degraded());
    sleep(Duration::from_secs(2)).await;
    // On trial: it answers probes and looks.
    assert!(!look(&bench).await.unwrap());
    assert_eq!(bench.admits(4).await, LOCAL);
    assert!(look(&bench).await.unwrap(), "the trial has failed");
}
