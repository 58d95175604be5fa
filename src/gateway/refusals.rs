//! Memory of refusals: while a tenant is above its rate, its calls without a record are refused
//! from here, without asking the store.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::order::{Route, RouteKey};
use crate::admission::Quota;
use crate::domain::Enforcement;
use crate::sync::lock;

/// The refusals by a tenant's rate, each until there is a call for somebody.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<RouteKey, Refusal>>);

#[derive(Debug, Clone, Copy)]
struct Refusal {
    /// When the tenant's rate admits a call again. A hint may be much later, as it is spread: others
    /// come back before it.
    until: Instant,
    /// Until when callers were sent away, from here or by the store.
    promised: Instant,
}

impl Refusals {
    /// The store has refused a call by the tenant's rate, at these levels.
    pub fn note(&self, route: &Route, quota: &Quota, retry_after: Duration) {
        let limits = &route.tenant.limits;
        let but_one = f64::from(limits.burst.saturating_sub(1)) / limits.rate.per_second();
        let but_one = Duration::try_from_secs_f64(but_one).unwrap_or(Duration::MAX);
        let now = Instant::now();
        let until = now + quota.until_full.saturating_sub(but_one).min(retry_after);
        let mut refusals = lock(&self.0);
        let told = refusals.get(&route.key()).map_or(now, |refusal| refusal.promised);
        let promised = told.max(now + retry_after);
        refusals.insert(route.key(), Refusal { until, promised });
    }

    /// The store has admitted a call of the tenant's. What was promised to others counts until there
    /// is a call to spare.
    pub fn admitted(&self, route: &Route, quota: &Quota) {
        let mut refusals = lock(&self.0);
        if refusals.is_empty() {
            return;
        }
        let now = Instant::now();
        let key = route.key();
        if quota.remaining > 0 || refusals.get(&key).is_some_and(|known| known.promised <= now) {
            refusals.remove(&key);
        } else if let Some(refusal) = refusals.get_mut(&key) {
            refusal.until = now;
        }
    }

    /// How long the tenant's next call must wait, while a refusal is remembered. Calls that are
    /// refused together are told to come back one after another; 30 s at most.
    pub fn remembered(&self, route: &Route) -> Option<Duration> {
        let limits = &route.tenant.limits;
        let mut refusals = lock(&self.0);
        if refusals.is_empty() || limits.enforcement == Enforcement::Shadow {
            return None;
        }
        let now = Instant::now();
        let refusal = refusals.get_mut(&route.key()).filter(|refusal| now < refusal.until)?;
        let each = Duration::try_from_secs_f64(1.0 / limits.rate.per_second()).unwrap_or(MAX_HINT);
        refusal.promised = (refusal.promised + each.min(MAX_HINT)).min(now + MAX_HINT);
        Some(refusal.promised - now)
    }
}

/// The longest hint.
const MAX_HINT: Duration = Duration::from_secs(30);
