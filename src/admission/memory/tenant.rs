//! One tenant on one upstream: its ceiling, its committed share, and its calls in flight.

use std::collections::HashMap;

use super::budget::{Budget, early, has_spare, spread};
use crate::admission::rounding::TOLERANCE;
use crate::admission::{MAX_LEASE, Nonce, Scope};

/// The levels, and the leases with their ends.
#[derive(Debug, Clone, Default)]
pub(super) struct TenantState {
    /// `None` until the first charge: every bucket is full.
    levels: Option<LevelsAt>,
    pub(super) flights: HashMap<Nonce, Lease>,
}

/// The levels, and the time at which they were computed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LevelsAt {
    /// The level of the tenant's ceiling, in calls.
    pub ceiling: f64,
    /// The same level without the bound of the burst.
    refilled: f64,
    at: u64,
    /// The level of its committed share, in calls.
    pub share: f64,
    share_phi: f64,
    /// The end of the last hint that the rate gave, in µs of m.
    promised: f64,
    /// The end of the last hint that the calls in flight gave, in µs of m.
    flights_promised: f64,
    /// Queued calls that have paid at the ceiling.
    pub queued: u32,
}

/// A place among the calls in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    /// The end of the lease, in µs of m.
    pub ends: u64,
    /// False for a call that shadow enforcement let through.
    pub(crate) is_counted: bool,
}

impl TenantState {
    /// The levels at present.
    pub(crate) fn levels(&self, scope: &Scope, budget: &Budget) -> LevelsAt {
        let burst = f64::from(scope.limits.burst);
        let share_burst = f64::from(scope.limits.committed_burst());
        let (at, share_phi) = (budget.m, budget.phi);
        let Some(kept) = &self.levels else {
            let (promised, flights_promised, queued) = (0.0, 0.0, 0);
            let (ceiling, refilled, share) = (burst, burst, share_burst);
            return LevelsAt {
                ceiling,
                refilled,
                at,
                share,
                share_phi,
                promised,
                flights_promised,
                queued,
            };
        };
        let gained = scope.limits.rate.per_second() * at.saturating_sub(kept.at) as f64 / 1e6;
        let refilled = kept.ceiling + gained;
        let share = scope.limits.committed.per_second() * (share_phi - kept.share_phi).max(0.0);
        LevelsAt {
            ceiling: refilled.min(burst).max(-1.0),
            refilled,
            share: (kept.share + share).min(share_burst),
            at,
            share_phi,
            ..kept.clone()
        }
    }

    /// Stores the levels after a decision has changed them.
    pub(crate) fn keep(&mut self, levels: LevelsAt) {
        self.levels = Some(levels);
    }

    /// Gives one call back to the ceiling. `has_left`: whether it was a queued call.
    pub(crate) fn give_back(&mut self, scope: &Scope, budget: &Budget, has_left: bool) {
        if self.levels.is_none() {
            return;
        }
        let LevelsAt { ceiling, at, queued, .. } = self.levels(scope, budget);
        if let Some(kept) = &mut self.levels {
            kept.ceiling = (ceiling + 1.0).min(f64::from(scope.limits.burst));
            kept.at = at;
            kept.queued = queued.saturating_sub(u32::from(has_left));
        }
    }

    /// The calls in flight and in the queue that count against the tenant's limit.
    pub(crate) fn in_flight(&self, m: u64) -> u64 {
        let counts = |lease: &&Lease| lease.is_counted && lease.ends > m;
        self.flights.values().filter(counts).count() as u64
    }

    /// The call's place, if its lease still runs.
    pub(crate) fn lease(&self, nonce: Nonce, m: u64) -> Option<Lease> {
        let runs = |lease: &Lease| lease.ends > m && lease.ends <= m + MAX_LEASE.as_micros() as u64;
        self.flights.get(&nonce).copied().filter(runs)
    }

    /// Takes or keeps a place, and drops the leases that have ended.
    pub(crate) fn take(&mut self, nonce: Nonce, lease: Lease, m: u64) {
        self.flights.retain(|_, lease| lease.ends > m);
        self.flights.insert(nonce, lease);
    }

    /// Frees a call's place. Returns the lease if it had not ended.
    pub(crate) fn free(&mut self, nonce: Nonce, m: u64) -> Option<Lease> {
        self.flights.remove(&nonce).filter(|lease| lease.ends > m)
    }
}

impl LevelsAt {
    /// Whether the committed share holds a call.
    pub(crate) fn is_committed(&self) -> bool {
        self.share >= 1.0 - TOLERANCE
    }

    /// Whether the ceiling lacks a whole call.
    pub(crate) fn is_over_rate(&self) -> bool {
        self.ceiling < 1.0 - TOLERANCE
    }

    /// The hint for a call that the rate refuses, in µs.
    pub(crate) fn send_away_by_rate(&mut self, scope: &Scope, m: u64) -> f64 {
        let each = 1e6 / scope.limits.rate.per_second();
        let early = early(each, f64::from(scope.limits.burst));
        spread((1.0 - self.ceiling) * each, &mut self.promised, each, early, m)
    }

    /// The hint for a call that the limit of calls in flight refuses, in µs. `typical`: the usual
    /// time of a call.
    pub(crate) fn send_away_by_flights(&mut self, scope: &Scope, typical: f64, m: u64) -> f64 {
        let each = typical / f64::from(scope.limits.max_in_flight);
        spread(typical, &mut self.flights_promised, each, 0.0, m)
    }

    /// Called for a call within both limits. Hints to refused callers are forgotten as soon as
    /// there is enough to spare. `others`: the tenant's calls in flight.
    pub(crate) fn forget_promises(&mut self, scope: &Scope, others: u64) {
        if has_spare(self.refilled, f64::from(scope.limits.burst)) {
            self.promised = 0.0;
        }
        if others + 1 < u64::from(scope.limits.max_in_flight) {
            self.flights_promised = 0.0;
        }
    }
}
