//! One tenant on one upstream: its ceiling, its committed share, its calls in flight.

use std::collections::HashMap;

use super::super::figures::TOLERANCE;
use super::super::{MAX_LEASE, Nonce, Scope};
use super::budget::Budget;

/// Levels, and leases with their end.
#[derive(Debug, Default)]
pub(super) struct TenantState {
    /// Nothing as long as nothing was charged: both are full.
    levels: Option<Levels>,
    flights: HashMap<Nonce, u64>,
}

/// Levels, with the time they were true at.
#[derive(Debug)]
struct Levels {
    ceiling: f64,
    at: u64,
    share: f64,
    share_phi: f64,
}

impl TenantState {
    /// The ceiling's level, as of now.
    pub fn level(&self, scope: &Scope, m: u64) -> f64 {
        let burst = f64::from(scope.limits.burst);
        let Some(levels) = &self.levels else { return burst };
        let gained = scope.limits.rate.per_second() * m.saturating_sub(levels.at) as f64 / 1e6;
        (levels.ceiling + gained).min(burst).max(-1.0)
    }

    /// The committed share's level, as of now.
    pub fn share(&self, scope: &Scope, phi: f64) -> f64 {
        let burst = f64::from(scope.limits.committed_burst());
        let Some(levels) = &self.levels else { return burst };
        let gained = scope.limits.committed.per_second() * (phi - levels.share_phi).max(0.0);
        (levels.share + gained).min(burst)
    }

    /// Whether the tenant's share holds a call.
    pub fn is_committed(&self, scope: &Scope, phi: f64) -> bool {
        self.share(scope, phi) >= 1.0 - TOLERANCE
    }

    /// Sets both levels, as of now.
    pub fn set(&mut self, ceiling: f64, share: f64, budget: &Budget) {
        self.levels = Some(Levels { ceiling, at: budget.m, share, share_phi: budget.phi });
    }

    /// Gives one call back to the ceiling.
    pub fn refund(&mut self, scope: &Scope, m: u64) {
        let ceiling = (self.level(scope, m) + 1.0).min(f64::from(scope.limits.burst));
        if let Some(levels) = &mut self.levels {
            (levels.ceiling, levels.at) = (ceiling, m);
        }
    }

    /// Calls in flight.
    pub fn flying(&self, m: u64) -> u64 {
        self.flights.values().filter(|lease| **lease > m).count() as u64
    }

    /// When the running leases end, in order.
    pub fn ends(&self, m: u64) -> Vec<u64> {
        let mut ends: Vec<u64> =
            self.flights.values().copied().filter(|lease| *lease > m).collect();
        ends.sort_unstable();
        ends
    }

    /// The end of a call's lease, where it still runs.
    pub fn lease(&self, nonce: Nonce, m: u64) -> Option<u64> {
        self.flights
            .get(&nonce)
            .copied()
            .filter(|lease| *lease > m && *lease <= m + MAX_LEASE.as_micros() as u64)
    }

    /// Leases a place in flight, and forgets the leases that have run out.
    pub fn fly(&mut self, nonce: Nonce, lease: u64, m: u64) {
        self.flights.retain(|_, lease| *lease > m);
        self.flights.insert(nonce, lease);
    }

    /// Frees a call's lease; whether it still ran.
    pub fn land(&mut self, nonce: Nonce, m: u64) -> bool {
        self.flights.remove(&nonce).is_some_and(|lease| lease > m)
    }
}
