//! A tenant's level as this replica knows it: for the `ratelimit-*` metadata of answers that no
//! store decided.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::Quota;
use crate::domain::{Name, Tenant};
use crate::sync::lock;
use crate::telemetry::RateLimit;

/// The levels of all tenants that have called.
#[derive(Debug, Default)]
pub struct Levels(Mutex<HashMap<Name, (u32, Instant)>>);

impl Levels {
    /// What the store has said just now.
    pub fn note(&self, tenant: &Tenant, quota: &Quota) -> RateLimit {
        let mut levels = lock(&self.0);
        levels.insert(tenant.name.clone(), (quota.remaining, Instant::now()));
        rate_limit(tenant, quota.remaining, quota.until_full)
    }

    /// A charge was given back since.
    pub fn given_back(&self, tenant: &Tenant) -> RateLimit {
        let mut levels = lock(&self.0);
        if let Some((remaining, _)) = levels.get_mut(&tenant.name) {
            *remaining = remaining.saturating_add(1).min(tenant.limits.burst);
        }
        drop(levels);
        self.estimate(tenant)
    }

    /// What the store would say, by the last that it said: full where it has said nothing yet.
    #[must_use]
    pub fn estimate(&self, tenant: &Tenant) -> RateLimit {
        let levels = lock(&self.0);
        let burst = f64::from(tenant.limits.burst);
        let rate = tenant.limits.rate.per_second();
        let level = levels.get(&tenant.name).map_or(burst, |(remaining, at)| {
            (f64::from(*remaining) + rate * at.elapsed().as_secs_f64()).min(burst)
        });
        let until_full =
            Duration::try_from_secs_f64((burst - level) / rate).unwrap_or(Duration::MAX);
        rate_limit(tenant, level as u32, until_full)
    }
}

fn rate_limit(tenant: &Tenant, remaining: u32, until_full: Duration) -> RateLimit {
    let seconds = until_full.as_secs().saturating_add(u64::from(until_full.subsec_nanos() > 0));
    let reset_s = if remaining == 0 { seconds.max(1) } else { seconds };
    RateLimit { limit: tenant.limits.burst, remaining, reset_s }
}
