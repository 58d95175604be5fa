//! What random crowds are like.

use participant_gateway::admission::Scope;
use participant_gateway::domain::share_burst;
use proptest::prelude::*;

use super::world::*;

/// What a crowd is like.
#[derive(Debug, Clone)]
pub struct Plan {
    pub budget: (f64, u32),
    /// The budget from the half of the starts on.
    pub later: (f64, u32),
    pub max_wait_ms: u64,
    pub tenants: Vec<TenantPlan>,
    /// How many of the granted calls Connect throttles: 0 to 1.
    pub throttles: f64,
    /// How many of the granted calls are attempted once more.
    pub attempts: f64,
    /// How many of the queued asks end because the caller hangs up.
    pub hang_ups: f64,
    /// How many of the queued asks are followed by none.
    pub no_shows: f64,
    /// A queued call asks up to a tenth later than told.
    pub has_jitter: bool,
    /// The crowd ends after so many starts.
    pub starts: u32,
    pub seed: u64,
}

#[derive(Debug, Clone)]
pub struct TenantPlan {
    /// Calls a second.
    pub committed: f64,
    pub callers: usize,
    pub takes_ms: u64,
    /// The longest pause between two calls of a caller.
    pub pause_ms: u64,
    pub max_in_flight: u32,
}

impl Plan {
    /// Callers in loops of these sizes, who ask for nothing but a start.
    pub fn of_loops(budget: (f64, u32), max_wait_ms: u64, callers: &[usize]) -> Self {
        let tenant = |callers: &usize| TenantPlan {
            committed: 0.0,
            callers: *callers,
            takes_ms: 0,
            pause_ms: 0,
            max_in_flight: 1_000,
        };
        Self {
            budget,
            later: budget,
            max_wait_ms,
            tenants: callers.iter().map(tenant).collect(),
            throttles: 0.0,
            attempts: 0.0,
            hang_ups: 0.0,
            no_shows: 0.0,
            has_jitter: true,
            starts: u32::MAX,
            seed: 1,
        }
    }

    /// A tenant's, where the upstream has this budget.
    pub fn scope(&self, tenant: usize, budget: &Scope) -> Scope {
        let plan = &self.tenants[tenant];
        let mut scope = budget.clone();
        scope.tenant = name(&format!("tenant-{tenant}"));
        scope.committed_burst = self.committed_burst();
        (scope.limits.rate, scope.limits.burst) = (rate(1e6), 1_000_000);
        scope.limits.committed = rate(plan.committed);
        scope.limits.max_in_flight = plan.max_in_flight;
        scope
    }

    /// Σb.
    pub fn committed_burst(&self) -> u32 {
        self.tenants.iter().map(|tenant| share_burst(rate(tenant.committed))).sum()
    }

    /// Whether a queued call is never told to come too late, and `check` would not warn that
    /// queueing loses throughput.
    pub fn loses_nothing(&self) -> bool {
        let has_room = |(rate, burst): (f64, u32)| {
            f64::from(burst) - 1.0 - f64::from(self.committed_burst()) >= (rate * 0.05).max(1.0)
        };
        let is_punctual = !self.has_jitter && self.throttles == 0.0;
        let all_come = self.hang_ups + self.no_shows == 0.0;
        is_punctual && all_come && self.budget == self.later && has_room(self.budget)
    }
}

/// Plans of every kind.
pub fn plan() -> impl Strategy<Value = Plan> {
    let tenant = || {
        let callers = prop_oneof![3 => 1..4_usize, 2 => 4..20_usize];
        let takes = prop_oneof![Just(0_u64), 1..300_u64, 1..3_000_u64];
        let pause = prop_oneof![Just(0_u64), 0..500_u64, 0..5_000_u64];
        let most = prop_oneof![1..4_u32, 4..30_u32];
        let share = prop_oneof![2 => Just(0.0), 1 => 0.01..0.5_f64];
        (share, callers, takes, pause, most)
    };
    let rarely = || prop_oneof![2 => Just(0.0), 1 => 0.0..0.3_f64];
    (
        (0.5..60.0_f64, 1..20_u32, 0.5..3.0_f64, prop_oneof![2 => Just(0), 1 => 0..20_u32]),
        prop_oneof![Just(0_u64), 0..2_000_u64, 0..20_000_u64],
        prop::collection::vec(tenant(), 1..5),
        (rarely(), rarely(), rarely(), rarely()),
        (any::<bool>(), any::<u64>()),
    )
        .prop_map(|((rate, burst, faster, more), max_wait_ms, tenants, faults, rest)| {
            let total: f64 = tenants.iter().map(|tenant| tenant.0).sum::<f64>().max(1.0);
            let slowest = rate * faster.min(1.0);
            let tenants = tenants.into_iter().map(|(share, callers, takes_ms, pause_ms, most)| {
                let committed = slowest * share / total;
                TenantPlan { committed, callers, takes_ms, pause_ms, max_in_flight: most }
            });
            let (throttles, attempts, hang_ups, no_shows) = faults;
            let later = if more == 0 { (rate, burst) } else { (rate * faster, more) };
            let (has_jitter, seed) = rest;
            let (budget, tenants, starts) = ((rate, burst), tenants.collect(), 40);
            Plan {
                budget,
                later,
                max_wait_ms,
                tenants,
                throttles,
                attempts,
                hang_ups,
                no_shows,
                has_jitter,
                starts,
                seed,
            }
        })
}
