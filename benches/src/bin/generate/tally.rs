//! What became of the calls, and how long they took.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::calls::Outcome;

/// Counts, and times in ns.
pub struct Tally {
    outcomes: BTreeMap<Outcome, Histogram<u64>>,
    late: Histogram<u64>,
    /// Calls of an open loop that had no stream left.
    pub unsent: u64,
    /// Calls of an open loop without an answer at the end.
    pub unanswered: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { outcomes: BTreeMap::new(), late: times(), unsent: 0, unanswered: 0 }
    }
}

impl Tally {
    pub fn count(&mut self, outcome: Outcome, time: Duration) {
        self.outcomes
            .entry(outcome)
            .or_insert_with(times)
            .saturating_record(nanos(time));
    }

    /// A call was sent so much later than it was due.
    pub fn late(&mut self, by: Duration) {
        self.late.saturating_record(nanos(by));
    }

    /// For a machine to read. Times in µs.
    pub fn report(&self, seconds: f64, cpu: Duration) -> Value {
        let outcomes: Map<_, _> = self
            .outcomes
            .iter()
            .map(|(outcome, times)| (name(*outcome), quantiles(times)))
            .collect();
        let requests: u64 = self.outcomes.values().map(Histogram::len).sum();
        json!({
            "seconds": seconds,
            "requests": requests,
            "outcomes": outcomes,
            "unsent": self.unsent,
            "unanswered": self.unanswered,
            "late_us": quantiles(&self.late),
            "busy": cpu.as_secs_f64() / seconds,
        })
    }
}

/// The processor's time of this process so far, of threads that have ended, too.
pub fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("a Linux");
    // After the name, which may hold spaces: the state is the third field, utime the 14th.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

fn quantiles(times: &Histogram<u64>) -> Value {
    let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    json!({
        "count": times.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999),
        "max": times.max() as f64 / 1e3,
    })
}

fn name(outcome: Outcome) -> String {
    match outcome {
        Outcome::First => "first".to_owned(),
        Outcome::Replayed => "replayed".to_owned(),
        Outcome::Failed(code) => format!("code_{code}"),
        Outcome::Lost => "lost".to_owned(),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// From 1 µs to a minute, to three digits.
fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("bounds that are in order")
}

/// Of the kernel's interface, on every architecture that Rust's tier 1 has.
const TICKS_PER_SECOND: u64 = 100;
