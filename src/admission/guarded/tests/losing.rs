//! Losing the primary, and finding it again.

use super::*;
use crate::sync::lock;

#[tokio::test(start_paused = true)]
async fn a_silent_store_costs_three_timeouts_in_a_row_and_then_nothing() {
    for (mood, cost) in [(Mood::GivesUp, TIMEOUT), (Mood::Hangs, CUT_OFF)] {
        let bench = Bench::local(Mood::Up).await;
        assert_eq!(bench.admits(1).await, PRIMARY);
        bench.primary.turns(mood);
        let began = Instant::now();
        for nonce in 2..5 {
            assert_eq!(bench.admits(nonce).await, LOCAL);
        }
        assert_eq!(began.elapsed(), 3 * cost);
        for nonce in 5..500 {
            assert_eq!(bench.admits(nonce).await, LOCAL);
        }
        assert_eq!(began.elapsed(), 3 * cost, "later calls paid again");
        assert_eq!(bench.primary.asked(), 1 + 3, "later calls asked again");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_at_the_loss_pay_one_timeout_each_and_all_at_once() {
    let bench = Arc::new(Bench::local(Mood::Up).await);
    assert_eq!(bench.admits(1).await, PRIMARY);
    bench.primary.turns(Mood::Hangs);
    let began = Instant::now();
    let calls: Vec<_> = (2..100)
        .map(|nonce| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.admits(nonce).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), LOCAL);
    }
    assert_eq!(began.elapsed(), CUT_OFF);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_returns_is_in_use_within_two_seconds_whenever_it_does() {
    for mood in [Mood::Hangs, Mood::Refuses(ServerWord::Plain), Mood::Panics] {
        for after in (0..2500).step_by(50).map(Duration::from_millis) {
            let bench = Bench::local(Mood::Up).await.lost(mood).await;
            sleep(after).await;
            bench.primary.turns(Mood::Up);
            let back = Instant::now();
            let mut nonce = 1;
            while bench.admits(nonce).await != PRIMARY {
                nonce += 1;
                sleep(Duration::from_millis(10)).await;
                assert!(back.elapsed() <= Duration::from_secs(2), "{mood:?}, back after {after:?}");
            }
            assert!(!bench.store.health().degraded());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_longer_than_the_turn_of_probes_does_not_put_off_the_return() {
    let primary = Scripted::new(Mood::Up, 1000.0);
    let store = Arc::clone(&primary);
    let on_loss = OnLoss::<Scripted>::Reject;
    let guarded = Guarded::start(store, Duration::from_secs(10), on_loss).await;
    primary.turns(Mood::Refuses(ServerWord::Plain));
    for nonce in 0..3 {
        guarded.admit(&ask(nonce)).await.unwrap_err();
    }
    primary.turns(Mood::Hangs);
    sleep(Duration::from_millis(5500)).await;
    primary.turns(Mood::Up);
    sleep(Duration::from_secs(2)).await;
    guarded.admit(&ask(4)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn any_kind_of_error_is_a_loss_and_none_ends_the_watch() {
    let bench = Bench::local(Mood::Up).await;
    let words = ServerWord::ALL.into_iter().map(Mood::Refuses);
    for (nonce, mood) in (100_u32..).step_by(100).zip(words.chain([Mood::GivesUp])) {
        let nonce = u128::from(nonce);
        bench.primary.turns(mood);
        for nonce in nonce..nonce + 3 {
            assert_eq!(bench.admits(nonce).await, LOCAL, "{mood:?}");
        }
        assert!(bench.store.health().degraded(), "{mood:?}");
        sleep(Duration::from_secs(30)).await;
        bench.primary.turns(Mood::Up);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(bench.admits(nonce + 3).await, PRIMARY, "not found again after {mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_answers_probes_alone_fails_one_call_a_second_at_most() {
    let bench = Bench::local(Mood::Up).await.lost(Mood::ReadOnly).await;
    let before = bench.primary.asked();
    for nonce in 0..1000 {
        assert_eq!(bench.admits(nonce).await, LOCAL);
        sleep(Duration::from_millis(10)).await;
    }
    let failed = bench.primary.asked() - before;
    assert!((9..=10).contains(&failed), "{failed} in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn rejecting_costs_nothing_either_and_sends_nothing() {
    let bench = Bench::reject(Mood::Up).await;
    assert_eq!(bench.admits(1).await, PRIMARY);
    let bench = bench.lost(Mood::Hangs).await;
    let began = Instant::now();
    for nonce in 2..100 {
        bench.store.admit(&ask(nonce)).await.unwrap_err();
        bench.store.quota(&scope()).await.unwrap_err();
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    bench.primary.turns(Mood::Up);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.admits(2).await, PRIMARY);
}

#[tokio::test(start_paused = true)]
async fn a_start_without_the_store_serves_locally_at_once() {
    let bench = Bench::local(Mood::Hangs).await;
    let began = Instant::now();
    assert!(bench.store.is_ready() && !bench.store.health().reached());
    assert_eq!(bench.admits(1).await, LOCAL);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_start_without_the_store_that_must_reject_is_ready_once_it_was_reached() {
    let bench = Bench::reject(Mood::Refuses(ServerWord::Plain)).await;
    assert!(!bench.store.is_ready());
    bench.store.admit(&ask(1)).await.unwrap_err();
    bench.primary.turns(Mood::Up);
    sleep(Duration::from_secs(2)).await;
    assert!(bench.store.is_ready());
    let bench = bench.lost(Mood::Hangs).await;
    assert!(bench.store.is_ready(), "losing it later must not unready the process");
}

#[tokio::test(start_paused = true)]
async fn the_watch_ends_with_the_store() {
    let bench = Bench::local(Mood::Up).await.lost(Mood::Hangs).await;
    let primary = Arc::clone(&bench.primary);
    drop(bench);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(Arc::strong_count(&primary), 1);
}

#[tokio::test(start_paused = true)]
async fn the_log_has_a_line_a_turn_and_none_a_call() {
    let log = Log::default();
    let lines = log.clone();
    let format = tracing_subscriber::fmt()
        .with_writer(move || log.clone())
        .with_ansi(false)
        .without_time();
    let _guard = tracing::subscriber::set_default(format.finish());
    // While only one subscriber lives, a line's first meeting with another test's thread would
    // switch it off for all.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    tracing::callsite::rebuild_interest_cache();

    let bench = Bench::local(Mood::Up).await.lost(Mood::Refuses(ServerWord::Loading)).await;
    for nonce in 0..100 {
        bench.admits(nonce).await;
        bench.store.settle(&settlement(nonce)).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    bench.primary.turns(Mood::ReadOnly);
    for nonce in 0..100 {
        bench.admits(nonce).await;
        sleep(Duration::from_millis(100)).await;
    }
    bench.primary.turns(Mood::Up);
    for nonce in 0..100 {
        bench.admits(nonce).await;
        sleep(Duration::from_millis(100)).await;
    }
    let lines = String::from_utf8(lock(&lines.0).clone()).unwrap();
    let lines: Vec<_> = lines
        .lines()
        .map(|line| line.trim().split_once("primary: ").unwrap().1)
        .collect();
    let lost = "store lost error=store: LOADING error.sources=[in more words] on_loss=\"local\"";
    assert_eq!(lines, [lost, "store is back"]);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_only_moves_a_slot_is_waited_for_and_not_lost() {
    let bench = Bench::local(Mood::Up).await;
    bench.primary.turns(Mood::Moves);
    let first = ask(1);
    let (answer, ()) = tokio::join!(bench.store.admit(&first), async {
        sleep(Duration::from_millis(700)).await;
        bench.primary.turns(Mood::Up);
    });
    assert_eq!(granted(&answer.unwrap()), PRIMARY);
    assert!(!bench.store.health().degraded());

    // A call that cannot wait so long is decided locally. The primary is still not lost for the
    // others.
    bench.primary.turns(Mood::Moves);
    let asked = Instant::now();
    assert_eq!(bench.admits(2).await, LOCAL);
    assert!(
        asked.elapsed() >= Duration::from_secs(1) && asked.elapsed() < Duration::from_millis(1_200)
    );
    for nonce in 3..8 {
        assert_eq!(bench.admits(nonce).await, LOCAL);
    }
    bench.primary.turns(Mood::Up);
    assert_eq!(bench.admits(9).await, PRIMARY);
    assert!(!bench.store.health().degraded());
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_a_store_that_nobody_asks_is_found_out_and_so_is_its_return() {
    let bench = Bench::local(Mood::Up).await;
    bench.primary.turns(Mood::Refuses(ServerWord::Other));
    sleep(Duration::from_secs(25)).await;
    assert!(bench.store.health().degraded());
    bench.primary.turns(Mood::Up);
    sleep(Duration::from_secs(2)).await;
    assert!(!bench.store.health().degraded());
}
