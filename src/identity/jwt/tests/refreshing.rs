//! When the set is fetched, in paused time: no socket, only the clock.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;

use super::*;

struct World {
    cache: Rc<KeyCache>,
    fetches: Rc<Cell<u32>>,
    answer: Rc<Cell<Option<&'static str>>>,
    told: Rc<Cell<u32>>,
}

/// A cache over a source that takes 100 ms, run by a local task.
fn world() -> World {
    let world = World {
        cache: Rc::new(KeyCache::new(Pace::URL)),
        fetches: Rc::default(),
        answer: Rc::new(Cell::new(Some(A_SET))),
        told: Rc::default(),
    };
    let (cache, fetches) = (Rc::clone(&world.cache), Rc::clone(&world.fetches));
    let (answer, told) = (Rc::clone(&world.answer), Rc::clone(&world.told));
    let fetch = move || {
        fetches.set(fetches.get() + 1);
        let answer = Rc::clone(&answer);
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer
                .get()
                .map(|text| Bytes::from_static(text.as_bytes()))
                .ok_or(FetchError::TimedOut)
        }
    };
    tokio::task::spawn_local(async move { cache.run(fetch, |_| told.set(told.get() + 1)).await });
    world
}

async fn locally(test: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn the_set_is_fetched_at_once_and_then_every_five_minutes() {
    locally(async {
        let world = world();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((world.fetches.get(), world.cache.current().is_some()), (1, true));
        tokio::time::sleep(Duration::from_secs(290)).await;
        assert_eq!(world.fetches.get(), 1);
        tokio::time::sleep(Duration::from_secs(620)).await;
        assert_eq!(world.fetches.get(), 4);
        assert_eq!(world.told.get(), 1, "an unchanged set was told as a change");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn calls_have_it_fetched_at_most_once_per_ten_seconds() {
    locally(async {
        let world = world();
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..100 {
            world.cache.refreshed().await;
            tokio::time::sleep(Duration::from_millis(299)).await;
        }
        // 30 s of asking: at 0, 10 and 20.
        assert_eq!(world.fetches.get(), 1 + 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_together_wait_for_one_fetch() {
    locally(async {
        let world = world();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let started = tokio::time::Instant::now();
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let cache = Rc::clone(&world.cache);
                tokio::task::spawn_local(async move { cache.refreshed().await })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!((world.fetches.get(), started.elapsed().as_millis()), (2, 100));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_wait_than_places_are_spared_for_them() {
    locally(async {
        let world = world();
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..cache::MAX_WAITING {
            let cache = Rc::clone(&world.cache);
            tokio::task::spawn_local(async move { cache.refreshed().await });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let started = tokio::time::Instant::now();
        world.cache.refreshed().await;
        assert_eq!(started.elapsed(), Duration::ZERO);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_does_not_cut_the_fetch_off() {
    locally(async {
        let world = world();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = tokio::time::timeout(Duration::from_millis(1), world.cache.refreshed()).await;
        let started = tokio::time::Instant::now();
        world.cache.refreshed().await;
        assert_eq!((world.fetches.get(), started.elapsed().as_millis()), (2, 99));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_retried_soon_told_once_and_leaves_the_old_set() {
    locally(async {
        let world = world();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let old = world.cache.current().unwrap();
        world.answer.set(None);
        tokio::time::sleep(Duration::from_secs(300)).await;
        let failing = world.fetches.get();
        tokio::time::sleep(Duration::from_secs(51)).await;
        assert_eq!(world.fetches.get() - failing, 10);
        assert_eq!(world.told.get(), 2);
        assert!(Arc::ptr_eq(&old, &world.cache.current().unwrap()));

        world.answer.set(Some(A_SET));
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(world.told.get(), 3, "nobody was told that it is well again");
    })
    .await;
}

const A_SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"AAAA"}]}"#;
