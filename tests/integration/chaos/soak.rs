//! A soak: mixed load with faults, between two rests. `make soak SECONDS=3600` is an hour of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::callers::Caller;
use super::house::House;
use super::judge::resources;
use super::ledger::Ledger;
use super::plan::{Topology, plan};
use super::{BULK, calling, setting, suffer, watch};
use crate::support::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_soak_memory_descriptors_tasks_and_the_log_are_where_they_were() {
    let seed = setting("CHAOS_SEED").unwrap_or(7);
    let length = Duration::from_secs(setting("SOAK_SECONDS").unwrap_or(SECONDS));
    let house = Arc::new(House::build(Topology::Standalone).await);
    // What is promised of single answers is for the seeded run to show.
    let ledger = Ledger::new(Duration::MAX);
    let caller = Caller::of(&house, ledger.clone());
    let mut watching = tokio::task::JoinSet::new();
    watching.spawn(watch(Arc::clone(&house), ledger.clone()));
    let bulk = setting("CHAOS_CALLERS").unwrap_or(BULK) as usize;
    println!("soak: seed {seed}, {length:?}, {bulk} callers within the limits");

    load(&caller, bulk, seed, WARM).await;
    let before = at_rest(&house).await;
    let begun = Instant::now();
    let mut memory = Vec::new();
    let plan = plan(seed, Topology::Standalone, length, None);
    let (kinds, (), ()) = tokio::join!(
        suffer::suffer(&house, &caller, &plan),
        load(&caller, bulk, seed, length),
        async {
            while begun.elapsed() < length {
                tokio::time::sleep(length / 40).await;
                memory.push(resources(&house).await[2]);
            }
        }
    );
    let after = at_rest(&house).await;
    watching.shutdown().await;
    let book = ledger.book();
    let calls: u64 = book.ends.values().sum();
    println!(
        "soak: {:.0} s, {calls} calls, {} faults; descriptors, tasks, MiB: {before:.0?} before, {after:.0?} after; MiB \
         meanwhile: {memory:.0?}",
        begun.elapsed().as_secs_f64(),
        kinds.values().sum::<u32>(),
    );
    let kept = (10 + bulk) as f64;
    assert!(after[0] <= before[0] + kept, "descriptors");
    assert!(after[1] <= before[1] + 2.0 * kept, "tasks");
    assert!(after[2] <= before[2] + MOST_MIB, "memory");
    // The second half of a long run takes no more than the first: nothing grows with time.
    let (first, second) = memory.split_at(memory.len() / 2);
    let most = |half: &[f64]| half.iter().copied().fold(0.0, f64::max);
    assert!(most(second) <= most(first) + MOST_MIB / 2.0, "memory grows");
}

async fn load(caller: &Caller, bulk: usize, seed: u64, length: Duration) {
    let stop = CancellationToken::new();
    let mut callers = calling(caller, bulk, PAUSE_MS, seed, &stop);
    tokio::time::sleep(length).await;
    stop.cancel();
    while let Some(ended) = callers.join_next().await {
        ended.expect("a caller");
    }
}

/// Descriptors, tasks and MiB of the gateway that is never restarted. Read once no call is in
/// flight and each has its line in the log.
async fn at_rest(house: &House) -> [f64; 3] {
    let first = &house.replicas[0];
    until("no call is in flight", async || {
        first.metric("participant_gateway_in_flight", "").await == 0.0
    })
    .await;
    until("every call's line is out of the queue", async || {
        let calls = first.metric("rpc_server_call_duration_seconds_count", "").await;
        first.lines.load(Ordering::Relaxed) as f64 >= calls
    })
    .await;
    assert_eq!(first.metric("participant_gateway_log_dropped_total", "").await, 0.0);
    resources(house).await
}

/// Load and faults in an ordinary run of the tests.
const SECONDS: u64 = 3;

/// Pools and buffers fill at first.
const WARM: Duration = Duration::from_secs(2);

/// Longest pause of a caller within the limits.
const PAUSE_MS: u64 = 80;

/// An allocator keeps what it once had.
const MOST_MIB: f64 = 64.0;
