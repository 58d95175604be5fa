//! A seeded run: three gateways over one Redis, one Connect and one collector, callers that retry,
//! and faults that overlap. The promises are then checked against the history that callers,
//! gateways and Connect have seen.
//!
//! `make chaos SECONDS=300 SEED=7` is a long run, over all topologies of Redis. A seed repeats the
//! faults and the calls, not their exact times. A run that fails prints its seed, and with
//! `CHAOS_SHRINK` looks for fewer faults that fail, too; `FAULTS=1,4,7` repeats these alone.
//!
//! The promise is an answer 50 ms after the deadline at the latest. Other tests may run beside this
//! one, so it allows a second and a half more. `CHAOS_QUIET=1` allows 50 ms alone, for a machine
//! that does nothing else.

mod callers;
mod checks;
mod house;
mod judge;
mod ledger;
mod links;
mod plan;
mod servers;
mod shrink;
mod soak;
mod suffer;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use callers::{Caller, Habit};
use futures_util::FutureExt;
use house::{House, REPLICAS};
use ledger::{Ledger, Violation};
use plan::{Plan, Topology, plan};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::overload::{LEAST_SPARE, idle};

/// A run.
#[derive(Debug, Clone)]
struct Setup {
    seed: u64,
    topology: Topology,
    /// The time of faults; the checks after them take half a minute more.
    length: Duration,
    /// Callers within the limits.
    bulk: usize,
    slack: Duration,
}

/// What came of it.
#[derive(Debug)]
struct Report {
    calls: u64,
    violations: Vec<Violation>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_nothing_is_made_twice_no_limit_is_passed_and_all_heals() {
    let seed = setting("CHAOS_SEED").unwrap_or(20_261_121);
    let topologies: Vec<_> = list::<String>("CHAOS_TOPOLOGY")
        .map(|words| words.iter().map(|word| Topology::parse(word).expect("a topology")).collect())
        .unwrap_or_else(|| vec![Topology::Standalone]);
    let chosen = list::<usize>("CHAOS_FAULTS");
    let seconds = setting("CHAOS_SECONDS").unwrap_or(SECONDS);
    let slack = if setting("CHAOS_QUIET") == Some(1) { SLACK } else { SLACK + BUSY };
    let mut calls = 0;
    for topology in &topologies {
        let setup = Setup {
            seed,
            topology: *topology,
            length: Duration::from_secs(seconds) / topologies.len() as u32,
            bulk: setting("CHAOS_CALLERS").unwrap_or(BULK) as usize,
            slack,
        };
        let (begun, before) = (Instant::now(), idle());
        let mut report = attempt(&setup, chosen.as_deref()).await;
        let spare = (idle() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        let is_late = |violation: &Violation| matches!(violation.0, 6 | 10);
        if report.violations.iter().any(is_late) && spare < LEAST_SPARE {
            // On such a machine a late answer shows nothing. Any other broken promise counts.
            println!("once more: {spare:.2} of a core was idle");
            let others = report.violations.into_iter().filter(|violation| !is_late(violation));
            let others: Vec<_> = others.collect();
            report = attempt(&setup, chosen.as_deref()).await;
            report.violations.extend(others);
        }
        calls += report.calls;
        if !report.violations.is_empty() {
            fail(&setup, chosen, &report.violations).await;
        }
    }
    println!("chaos: seed {seed}: {calls} calls, {} run(s), I1 to I10 hold", topologies.len());
}

/// Tells how to repeat it, by fewer faults where those are looked for.
async fn fail(setup: &Setup, chosen: Option<Vec<usize>>, violations: &[Violation]) -> ! {
    let Setup { seed, topology, length, .. } = setup;
    // Before the search, which may take much longer than the run did.
    for Violation(invariant, how) in violations {
        println!("I{invariant} is broken: {how}");
    }
    let mut faults = chosen.unwrap_or_else(|| numbers(&the_plan(setup, None)));
    if let Some(runs) = setting("CHAOS_SHRINK") {
        let broken: BTreeSet<_> = violations.iter().map(|violation| violation.0).collect();
        faults = shrink::shrink(faults, runs as usize, async |faults| {
            let report = attempt(setup, Some(faults)).await;
            let fails = report.violations.iter().any(|violation| broken.contains(&violation.0));
            println!(
                "chaos: {} faults {faults:?}: {}",
                faults.len(),
                ["held", "fails"][usize::from(fails)]
            );
            fails
        })
        .await;
    }
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    panic!(
        "to repeat it: CHAOS_SEED={seed} CHAOS_TOPOLOGY={topology} CHAOS_SECONDS={} CHAOS_CALLERS={} CHAOS_FAULTS={}",
        length.as_secs(),
        setup.bulk,
        faults.join(",")
    );
}

/// A run to its end, however it ends.
async fn attempt(setup: &Setup, chosen: Option<&[usize]>) -> Report {
    println!("CHAOS_SEED={} CHAOS_TOPOLOGY={}", setup.seed, setup.topology);
    let plan = the_plan(setup, chosen);
    let run = AssertUnwindSafe(run(setup, plan)).catch_unwind().await;
    run.unwrap_or_else(|failure| {
        let why = failure.downcast_ref::<String>().cloned().unwrap_or_default();
        Report { calls: 0, violations: vec![Violation(0, why)] }
    })
}

fn the_plan(setup: &Setup, chosen: Option<&[usize]>) -> Plan {
    plan(setup.seed, setup.topology, setup.length, chosen)
}

fn numbers(plan: &Plan) -> Vec<usize> {
    plan.iter().flatten().map(|fault| fault.number).collect()
}

async fn run(setup: &Setup, plan: Plan) -> Report {
    let house = Arc::new(House::build(setup.topology).await);
    let ledger = Ledger::new(setup.slack);
    let caller = Caller::of(&house, ledger.clone());
    let at_start = judge::resources(&house).await;
    let begun = Instant::now();
    let stop = CancellationToken::new();
    // In a long run many callers ask one call after another.
    let pause_ms = if setup.bulk > BULK as usize { 4 } else { 80 };
    let mut callers = calling(&caller, setup.bulk, pause_ms, setup.seed, &stop);
    let mut watching = JoinSet::new();
    watching.spawn(watch(Arc::clone(&house), ledger.clone()));

    let kinds = suffer::suffer(&house, &caller, &plan).await;
    checks::all_have_redis_again(&house, &ledger).await;
    checks::limits_hold_exactly_once_all_is_well(&house, &caller).await;
    stop.cancel();
    while let Some(ended) = callers.join_next().await {
        ended.expect("a caller");
    }
    let mut rng = fastrand::Rng::with_seed(setup.seed);
    let goodput = checks::serves_again(&caller, &mut rng).await;
    let read_back = checks::read_back(&caller, &mut rng).await;
    watching.shutdown().await;
    // Before other calls than theirs are counted.
    judge::metrics_are_what_callers_saw(&ledger, &house).await;
    judge::everything_was_given_back(&ledger, &house, setup.bulk + TIGHT, &at_start).await;
    ledger.harvest(&house.journal);
    let unsettled = house.metric("participant_gateway_results_unsettled_total").await;
    let mut book = ledger.book();
    book.told_is_made();
    judge::limits_held(&mut book);
    let calls = book.ends.values().sum();
    println!(
        "chaos: seed {} on {}, {:.0} s: {calls} calls ({}); {} faults ({}); {} attempts, {} participants; {read_back}, \
         {unsettled} results unsettled; {goodput} % served after healing; latest answer {:?} after its deadline",
        setup.seed,
        setup.topology,
        begun.elapsed().as_secs_f64(),
        listed(&book.ends),
        kinds.values().sum::<u32>(),
        listed(kinds.iter().map(|(kind, count)| (format!("{kind:?}"), count))),
        house.journal.attempt_count(),
        house.journal.participant_count(),
        book.latest,
    );
    Report { calls, violations: book.violations.clone() }
}

/// Callers above the limits, and so many within them.
fn calling(
    caller: &Caller,
    bulk: usize,
    pause_ms: u64,
    seed: u64,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let tight = Habit { tight: true, pause_ms: 80 };
    let habits = [vec![tight; TIGHT], vec![Habit { tight: false, pause_ms }; bulk]].concat();
    let runs = habits.iter().zip(1..);
    runs.map(|(habit, index)| caller.clone().run(*habit, seed ^ index, stop.clone()))
        .collect()
}

/// Reads the reports meanwhile, so that only the sums grow with the length of the run.
async fn watch(house: Arc<House>, ledger: Ledger) {
    let mut looked = [(Instant::now(), None); REPLICAS];
    loop {
        tokio::time::sleep(WATCHED).await;
        ledger.harvest(&house.journal);
        house.collector.forget();
        for (index, replica) in house.replicas.iter().enumerate() {
            for line in replica.panics().await {
                ledger.book().violated(6, line);
            }
            let begun = Instant::now();
            let Some(errors) = replica.errors_of_redis().await else { continue };
            if looked[index].1.is_some_and(|before| before != errors) {
                ledger.missed_redis(index, looked[index].0);
            }
            looked[index] = (begun, Some(errors));
        }
    }
}

fn listed<K: Display, V: Display>(counts: impl IntoIterator<Item = (K, V)>) -> String {
    let words = counts.into_iter().map(|(what, count)| format!("{what} {count}"));
    words.collect::<Vec<_>>().join(", ")
}

fn setting(name: &str) -> Option<u64> {
    list(name)?.first().copied()
}

/// What stands there, with commas between; nothing where it is empty.
fn list<T: FromStr>(name: &str) -> Option<Vec<T>> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    let parse = |word: &str| word.parse().unwrap_or_else(|_| panic!("{name}={value}"));
    Some(value.split(',').map(parse).collect())
}

/// Callers above the limits, and those within them.
const TIGHT: usize = 16;
const BULK: u64 = 4;

/// How often the gateways are looked at.
const WATCHED: Duration = Duration::from_millis(500);

/// Of faults.
const SECONDS: u64 = 12;

/// How long after its deadline a caller may get its answer.
const SLACK: Duration = Duration::from_millis(50);

/// The same on a busy machine, in addition.
const BUSY: Duration = Duration::from_millis(1_500);
