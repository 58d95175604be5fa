//! Memory of refusals: while a tenant is above its rate, its calls without a record are refused
//! from here, without asking the store.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::order::{Route, RouteKey};
use crate::domain::Enforcement;
use crate::sync::lock;

/// The refusals by a tenant's rate whose hints have not ended yet.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<RouteKey, Refusal>>);

#[derive(Debug, Clone, Copy)]
struct Refusal {
    /// When the store's own hint ends.
    until: Instant,
    /// Until when callers were sent away from here.
    promised: Instant,
}

impl Refusals {
    /// The store has refused a call by the tenant's rate.
    pub fn note(&self, route: &Route, retry_after: Duration) {
        let until = Instant::now() + retry_after;
        lock(&self.0).insert(route.key(), Refusal { until, promised: until });
    }

    /// The store has admitted a call of the tenant's.
    pub fn forget(&self, route: &Route) {
        let mut refusals = lock(&self.0);
        if !refusals.is_empty() {
            refusals.remove(&route.key());
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
