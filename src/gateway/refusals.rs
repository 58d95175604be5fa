//! A memory of refusals: while a tenant is above its rate, its calls without a record are refused
//! here. The store does not decide them.

use std::sync::Mutex;
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use super::order::{Route, RouteKey};
use crate::admission::Quota;
use crate::domain::TenantLimits;
use crate::sync::lock;

/// The refusals by a tenant's rate, each until its bucket holds a call again.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<RouteKey, Remembered>>);

#[derive(Debug, Clone, Copy)]
struct Remembered {
    /// The limits that refused. Once a reload has changed them, the refusal counts no more.
    limits: TenantLimits,
    /// When the tenant's bucket holds a call again.
    refilled: Instant,
    /// The same, or the end of the hint. A hint may be much later, because hints are spread: other
    /// callers come back before it.
    until: Instant,
    /// The end of the last hint that this memory or the store gave.
    promised: Instant,
    /// The end of the last hint of this memory. The store does not know these hints.
    own: Option<Instant>,
}

impl Refusals {
    /// Notes that the store refused a call by the tenant's rate, at these levels, with this hint.
    /// Returns the hint for the caller: later than the hints that this memory gave.
    pub(crate) fn note(&self, route: &Route, quota: &Quota, hint: Duration) -> Duration {
        let limits = &route.tenant.limits;
        let but_one = f64::from(limits.burst.saturating_sub(1)) / limits.rate.per_second();
        let but_one = Duration::try_from_secs_f64(but_one).unwrap_or(Duration::MAX);
        let now = Instant::now();
        let refill = quota.until_full.saturating_sub(but_one);
        let refilled = now + refill.min(MAX_REFILL);
        let until = refilled.min(now + hint);
        let mut refusals = lock(&self.0);
        let known = refusals.get(&route.key()).filter(|known| known.limits == *limits);
        let own = known.and_then(|known| known.own).filter(|own| *own > now + hint);
        let own = own.map(|own| (own + each(route)).min(now + MAX_HINT));
        let at = own.unwrap_or(now + hint);
        let promised = known.map_or(at, |known| known.promised.max(at));
        let limits = *limits;
        refusals.insert(route.key(), Remembered { limits, refilled, until, promised, own });
        at - now
    }

    /// Notes that the store was told to give a call of the tenant back.
    pub(crate) fn given_back(&self, key: &RouteKey) {
        if let Some(refusal) = lock(&self.0).get_mut(key) {
            refusal.until = Instant::now();
        }
    }

    /// Notes that the store admitted a call of the tenant. Earlier hints count until half a burst
    /// is to spare, as in the store.
    pub(crate) fn admitted(&self, route: &Route, quota: &Quota) {
        let mut refusals = lock(&self.0);
        if refusals.is_empty() {
            return;
        }
        let now = Instant::now();
        let key = route.key();
        let spare = (route.tenant.limits.burst / 2).max(1);
        if quota.remaining >= spare || refusals.get(&key).is_some_and(|known| known.promised <= now)
        {
            refusals.remove(&key);
        } else if let Some(refusal) = refusals.get_mut(&key) {
            refusal.until = now;
        }
    }

    /// How long the tenant's next call must wait, while a refusal is remembered: 30 s at most.
    /// Calls that are refused together get hints one after another.
    pub(crate) fn remembered(&self, route: &Route) -> Option<Duration> {
        self.next(route, |refusal, now, promised| {
            (refusal.promised, refusal.own) = (promised, Some(promised));
            promised - now
        })
    }

    /// Whether a refusal is remembered, and the next hint is the longest: as long as any that the
    /// store would give.
    pub(crate) fn are_longest(&self, route: &Route) -> bool {
        self.next(route, |refusal, now, promised| {
            // The store gives a shorter hint to a caller that comes a little too soon.
            let early = early(&refusal.limits);
            promised == now + MAX_HINT && refusal.refilled > now + early
        })
        .unwrap_or(false)
    }

    /// Calls `then` with the refusal that is remembered, the present, and the end of the next hint.
    fn next<T>(
        &self,
        route: &Route,
        then: impl FnOnce(&mut Remembered, Instant, Instant) -> T,
    ) -> Option<T> {
        let mut refusals = lock(&self.0);
        if refusals.is_empty() {
            return None;
        }
        let now = Instant::now();
        let refusal = refusals.get_mut(&route.key())?;
        if refusal.until <= now || refusal.limits != route.tenant.limits {
            return None;
        }
        let promised = (refusal.promised.max(now) + each(route)).min(now + MAX_HINT);
        Some(then(refusal, now, promised))
    }
}

/// The time that one more call takes by the tenant's rate.
fn each(route: &Route) -> Duration {
    let each = 1.0 / route.tenant.limits.rate.per_second();
    Duration::try_from_secs_f64(each).unwrap_or(MAX_HINT).min(MAX_HINT)
}

/// How much too soon a caller may come and keep its turn, as in the store: a tenth of a token, where
/// the bucket holds a single call.
fn early(limits: &TenantLimits) -> Duration {
    let early = if limits.burst < 2 { 0.1 / limits.rate.per_second() } else { 0.0 };
    Duration::try_from_secs_f64(early).unwrap_or(MAX_REFILL)
}

/// So long that nobody waits for it, and that no addition of it overflows.
const MAX_REFILL: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The longest hint.
const MAX_HINT: Duration = Duration::from_secs(30);
