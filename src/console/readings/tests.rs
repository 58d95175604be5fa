use std::sync::Arc;
use std::sync::Mutex as Lock;

use tokio::time::advance;

use super::*;
use crate::admission::{Answer, Ask, Quota, Settled, Settlement, StoreError};
use crate::domain::{Enforcement, Rate, TenantLimits};
use crate::sync::lock;

/// Notes who asks, and answers at once.
#[derive(Default)]
struct Noting(Lock<Vec<String>>);

impl Noting {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.0))
    }
}

impl Store for Noting {
    async fn admit(&self, _: &Ask) -> Result<Answer, StoreError> {
        panic!("the console asks for no call");
    }

    async fn settle(&self, _: &Settlement) -> Result<Settled, StoreError> {
        panic!("the console settles nothing");
    }

    async fn has_record(&self, _: &Scope, _: &str) -> Result<bool, StoreError> {
        panic!("the console looks for no record");
    }

    async fn levels_of(&self, scope: &Scope) -> Result<StoreLevels, StoreError> {
        lock(&self.0).push(scope.tenant.to_string());
        if scope.tenant.as_str() == "hangs" {
            std::future::pending::<()>().await;
        }
        let until_full = Duration::ZERO;
        let quota = Quota { remaining: 1, until_full, in_flight: 0, factor: 1.0 };
        Ok(StoreLevels { quota, tenant: 1.0, share: 0.0, budget: 1.0, queued: 0 })
    }
}

fn scope(tenant: &str) -> Scope {
    let (rate, burst) = (Rate::new(1.0).unwrap(), 1);
    let enforcement = Enforcement::Enforce;
    let committed = Rate::default();
    Scope {
        tenant: Name::parse(tenant).unwrap(),
        limits: TenantLimits { rate, burst, committed, max_in_flight: 1, enforcement },
        upstream: Name::parse("main").unwrap(),
        rate,
        burst,
        committed_burst: 0,
    }
}

fn readings() -> (Arc<Noting>, Readings<Arc<Noting>>) {
    let store = Arc::new(Noting::default());
    (Arc::clone(&store), Readings::new(store))
}

#[tokio::test(start_paused = true)]
async fn the_store_is_read_once_a_second_whatever_the_number_of_viewers() {
    let (store, readings) = readings();
    for _ in 0..5 {
        for _viewer in 0..10 {
            assert_eq!(readings.of(vec![scope("acme")]).await.len(), 1);
        }
        assert_eq!(store.take(), ["acme"]);
        advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_while_nobody_looks() {
    let (store, readings) = readings();
    readings.of(vec![scope("acme")]).await;
    store.take();
    advance(Duration::from_secs(600)).await;
    assert_eq!(store.take(), Vec::<String>::new());
    // A row without a recent viewer is not read when a viewer asks for another row.
    readings.of(vec![scope("beta")]).await;
    assert_eq!(store.take(), ["beta"]);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_are_read_at_a_time_and_the_others_in_the_next_second() {
    let (store, readings) = readings();
    let all: Vec<_> = (0..150).map(|number| scope(&format!("tenant-{number}"))).collect();
    assert_eq!(readings.of(all.clone()).await.len(), 100);
    let mut read = store.take();
    assert_eq!(read.len(), 100);
    advance(Duration::from_secs(1)).await;
    assert_eq!(readings.of(all).await.len(), 150);
    read.extend(store.take());
    read.sort();
    read.dedup();
    assert_eq!(read.len(), 150);
}

#[tokio::test(start_paused = true)]
async fn a_second_viewer_hears_of_its_own_rows_with_the_next_reading() {
    let (_, readings) = readings();
    assert_eq!(readings.of(vec![scope("acme")]).await.len(), 1);
    assert_eq!(readings.of(vec![scope("beta")]).await.len(), 0);
    advance(Duration::from_secs(1)).await;
    assert_eq!(readings.of(vec![scope("acme")]).await.len(), 1);
    assert_eq!(readings.of(vec![scope("beta")]).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_holds_a_viewer_up_for_less_than_a_second() {
    let (_, readings) = readings();
    let started = Instant::now();
    let read = readings.of(vec![scope("hangs"), scope("acme")]).await;
    assert_eq!(read.keys().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>(), ["acme"]);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}
