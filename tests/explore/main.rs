//! The explorer: every interleaving of the protocol around one idempotency record, within bounds.
//!
//! What it covers, and what it does not: docs/design/guarantees.md, "The explorer". `make explore`
//! gives it its ordinary bounds, and `make test` small ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod callers;
mod engine;
mod keys;
mod memory;
mod moves;
mod mutants;
mod names;
mod promises;
mod redis;
mod scenarios;
mod scripts;
mod search;
mod tell;
mod world;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use engine::Engine;
use memory::MemoryEngine;
use mutants::MUTANTS;
use redis::Server;
use scenarios::Bounds;
use scripts::Scripts;
use search::{Found, Scenario, Search};
use world::Reply;

#[test]
fn no_interleaving_breaks_a_promise_of_the_scripts() {
    let server = Server::start();
    explore("Redis", |scenario, limit| {
        let mut engine = server.engine(Scripts::real()).under(scenario.limits);
        explored("Redis", &mut engine, scenario, limit)
    });
}

#[test]
fn no_interleaving_breaks_a_promise_of_the_memory_store() {
    explore("memory", |scenario, limit| {
        let mut engine = MemoryEngine::under(scenario.limits);
        explored("memory", &mut engine, scenario, limit)
    });
}

#[test]
fn a_script_without_one_of_its_rules_breaks_a_promise() {
    let server = Server::start();
    for mutant in MUTANTS {
        let scenario = scenarios::of_mutant(mutant.calls);
        let mut engine = server.engine(mutant.scripts()).under(scenario.limits);
        let found = Search::new(&mut engine, &scenario).run(PATIENCE);
        let violation = found
            .violation
            .unwrap_or_else(|| panic!("not found, after {} states: {}", found.states, mutant.name));
        println!("{}, found: {}", mutant.name, tell::way(&scenario, &violation));
    }
}

/// Every scenario, within what is left of the time. Where there is no time given, all of each.
fn explore(store: &str, search: impl Fn(&Scenario, Duration) -> Found) {
    let bounds = Bounds::given();
    let scenarios = scenarios::all(&bounds);
    let started = Instant::now();
    let (mut complete, mut answers) = (0, BTreeSet::new());
    for (index, scenario) in scenarios.iter().enumerate() {
        let limit = bounds.time.map_or(PATIENCE, |time| {
            time.saturating_sub(started.elapsed()) / (scenarios.len() - index) as u32
        });
        let found = search(scenario, limit);
        complete += usize::from(found.left == 0);
        answers.extend(found.answers);
    }
    let (all, took) = (scenarios.len(), started.elapsed().as_secs());
    println!("{store}: {complete} of {all} searches complete, in {took} s, and no promise broken");
    assert!(bounds.time.is_some() || complete == all, "{complete} of {all} are complete");
    let unseen: Vec<_> = Reply::KINDS.iter().filter(|kind| !answers.contains(*kind)).collect();
    assert!(
        bounds.calls.is_some() || unseen.is_empty(),
        "no search has met these answers: {unseen:?}"
    );
}

/// Fails where a promise is broken.
fn explored<E: Engine>(store: &str, engine: &mut E, scenario: &Scenario, limit: Duration) -> Found {
    let found = Search::new(engine, scenario).run(limit);
    println!("{}", tell::closing(store, scenario, &found));
    if let Some(violation) = &found.violation {
        panic!("{store}, {}: {}", scenario.name, tell::way(scenario, violation));
    }
    found
}

/// For a search that ends by itself.
const PATIENCE: Duration = Duration::from_secs(600);
