//! What a call allocates, on each way that it may take. This times nothing, so that it can fail only
//! where the code has changed. The sizes of the futures on the way are held beside them
//! (`the_futures_on_a_calls_path_are_small`, in `src/app/stack.rs`).
//!
//! A binary of its own, since its allocator counts. It counts by thread: the gateway has one to
//! itself, and Connect, Redis and the callers have others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod house;
mod redis;

use std::process::{Command, Stdio};

use house::{House, Store};

/// What one call may cost the gateway's thread at most.
struct Bound {
    store: Store,
    path: Path,
    /// Allocations and reallocations.
    allocations: f64,
    /// Bytes of them, freed or not.
    bytes: f64,
    /// Bytes of them that are not freed once the call has ended.
    kept: f64,
}

/// A call's way through the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// A fresh `client_token`: admission, Connect, settlement.
    New,
    /// A `client_token` whose result is stored.
    Replay,
    /// A tenant above its rate, with a `client_token`: the store is asked, as it may know the token.
    Refusal,
    /// The same without one: refused from the gateway's own memory.
    RememberedRefusal,
}

/// Allocations, bytes, and kept bytes: each bound is what was counted, and a twentieth. A change that
/// needs more raises the bound here, and says in its commit what that buys. A change that needs a
/// tenth less lowers it.
const BOUNDS: [Bound; 8] = [
    bound(Store::Memory, Path::New, 471.0, 75_700.0, 700.0),
    bound(Store::Memory, Path::Replay, 57.0, 13_800.0, 8.0),
    bound(Store::Memory, Path::Refusal, 39.0, 8_900.0, 8.0),
    bound(Store::Memory, Path::RememberedRefusal, 35.0, 8_500.0, 8.0),
    bound(Store::Redis, Path::New, 490.0, 85_800.0, 8.0),
    bound(Store::Redis, Path::Replay, 67.0, 19_300.0, 8.0),
    bound(Store::Redis, Path::Refusal, 47.0, 12_100.0, 8.0),
    bound(Store::Redis, Path::RememberedRefusal, 35.0, 8_500.0, 8.0),
];

const fn bound(store: Store, path: Path, allocations: f64, bytes: f64, kept: f64) -> Bound {
    Bound { store, path, allocations, bytes, kept }
}

/// The calls' lines in the log are counted, too. They go to standard output, so the gateway runs in
/// a process that has its own.
#[test]
fn a_call_allocates_no_more_than_its_path_is_allowed() {
    if let Ok(file) = std::env::var(REPORT) {
        std::fs::write(file, measure()).unwrap();
        return;
    }
    let report = tempfile::NamedTempFile::new().unwrap();
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_call_allocates_no_more_than_its_path_is_allowed", "--nocapture"])
        .env(REPORT, report.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(ended.success(), "the measuring process failed");
    let report = std::fs::read_to_string(report.path()).unwrap();
    print!("{report}");
    let exceeded: Vec<_> = report.lines().filter(|line| line.contains(EXCEEDED)).collect();
    assert!(
        exceeded.is_empty(),
        "{}\nMake the path cheaper, or raise its bound in tests/allocations/main.rs on purpose.",
        exceeded.join("\n")
    );
}

/// A line for each bound, with [`EXCEEDED`] where it is.
fn measure() -> String {
    let mut report = String::new();
    for store in [Store::Memory, Store::Redis] {
        let house = House::start(store);
        for bound in BOUNDS.iter().filter(|bound| bound.store == store) {
            let cost = house.cost(bound.path);
            let figures = [
                ("allocations", cost.allocations, bound.allocations),
                ("bytes", cost.bytes, bound.bytes),
                ("kept bytes", cost.kept, bound.kept),
            ];
            report += &format!("{store:?} {:?}:", bound.path);
            for (name, measured, allowed) in figures {
                let verdict = if measured > allowed { EXCEEDED } else { "" };
                report += &format!(" {measured:.1} {name} of {allowed}{verdict};");
            }
            report.push('\n');
        }
    }
    report
}

/// Names the file for the report, in the process that measures.
const REPORT: &str = "ALLOCATIONS_REPORT";

const EXCEEDED: &str = " (exceeded)";
