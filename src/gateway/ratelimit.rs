//! A tenant's level on an upstream as this replica knows it: for the `ratelimit-*` metadata of
//! answers without a decision of the store.

use std::sync::Mutex;
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use super::order::{Route, RouteKey};
use crate::admission::Quota;
use crate::call::RateLimit;
use crate::domain::Tenant;
use crate::sync::lock;

/// The levels of all tenants that have called.
#[derive(Debug, Default)]
pub(crate) struct Levels(Mutex<HashMap<RouteKey, (u32, Instant)>>);

impl Levels {
    /// Notes the levels that the store has just reported.
    pub(crate) fn note(&self, route: &Route, quota: &Quota) -> RateLimit {
        lock(&self.0).insert(route.key(), (quota.remaining, Instant::now()));
        rate_limit(&route.tenant, quota.remaining, quota.until_full)
    }

    /// Notes that a charge was given back since.
    pub(crate) fn give_back(&self, route: &Route) -> RateLimit {
        if let Some((remaining, _)) = lock(&self.0).get_mut(&route.key()) {
            *remaining = remaining.saturating_add(1).min(route.tenant.limits.burst);
        }
        self.estimate(route)
    }

    /// The levels that the store would report, estimated from its last report; full without a
    /// report.
    #[must_use]
    pub(crate) fn estimate(&self, route: &Route) -> RateLimit {
        let limits = &route.tenant.limits;
        let (burst, rate) = (f64::from(limits.burst), limits.rate.per_second());
        let refilled = |(remaining, at): &(u32, Instant)| {
            (f64::from(*remaining) + rate * at.elapsed().as_secs_f64()).min(burst)
        };
        let level = lock(&self.0).get(&route.key()).map_or(burst, refilled);
        let until_full = Duration::try_from_secs_f64((burst - level) / rate);
        rate_limit(&route.tenant, level as u32, until_full.unwrap_or(Duration::MAX))
    }
}

fn rate_limit(tenant: &Tenant, remaining: u32, until_full: Duration) -> RateLimit {
    let seconds = until_full.as_secs().saturating_add(u64::from(until_full.subsec_nanos() > 0));
    let reset_s = if remaining == 0 { seconds.max(1) } else { seconds };
    RateLimit { limit: tenant.limits.burst, remaining, reset_s }
}
