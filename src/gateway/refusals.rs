//! A memory of refusals: while a tenant is above its rate, its calls without a record are refused
//! here. The store does not decide them.

use std::sync::Mutex;
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use super::order::{Route, RouteKey};
use super::promises::{MAX_HINT, Promises};
use crate::admission::Quota;
use crate::domain::TenantLimits;
use crate::sync::lock;

/// The refusals by a tenant's rate, each until its bucket holds a call again.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<RouteKey, Remembered>>);

#[derive(Debug)]
struct Remembered {
    /// The limits that refused. Once a reload has changed them, the refusal counts no more.
    limits: TenantLimits,
    /// When the tenant's bucket may hold a call again, or the hint ends. A hint may be much later,
    /// because hints are spread: other callers come back before it.
    until: Instant,
    /// The hints that this memory and the store gave.
    promises: Promises,
}

impl Refusals {
    /// Notes that the store refused a call by the tenant's rate, at these levels, with this hint.
    /// Returns the hint for the caller: the store's, or a later one where this memory gave it to
    /// another caller.
    pub(crate) fn note(&self, route: &Route, quota: &Quota, hint: Duration) -> Duration {
        let limits = &route.tenant.limits;
        let (refill, early) = (refill(limits, quota), early(limits));
        let now = Instant::now();
        let until = now + refill.saturating_sub(early).min(hint);
        let mut refusals = lock(&self.0);
        let known = refusals.get_mut(&route.key()).filter(|known| known.limits == *limits);
        let Some(known) = known else {
            let promises = Promises::new(now + hint);
            refusals.insert(route.key(), Remembered { limits: *limits, until, promises });
            return hint;
        };
        known.until = until;
        if refill < early {
            // The store keeps the turn of this caller.
            return hint;
        }
        known.promises.pass_on(now + hint, now, each(route)) - now
    }

    /// Notes that the store was told to give a call of the tenant back.
    pub(crate) fn given_back(&self, key: &RouteKey) {
        if let Some(refusal) = lock(&self.0).get_mut(key) {
            refusal.until = Instant::now();
        }
    }

    /// Notes that the store admitted a call of the tenant. Earlier hints count until half a burst
    /// is to spare, as in the store. While a refusal is remembered, the grant is older.
    pub(crate) fn admitted(&self, route: &Route, quota: &Quota) {
        let mut refusals = lock(&self.0);
        if refusals.is_empty() {
            return;
        }
        let (now, key) = (Instant::now(), route.key());
        let spare = (route.tenant.limits.burst / 2).max(1);
        let is_over = |known: &Remembered| {
            let is_enough = quota.remaining >= spare || known.promises.last() <= now;
            known.until <= now && is_enough
        };
        if refusals.get(&key).is_some_and(is_over) {
            refusals.remove(&key);
        }
    }

    /// How long the tenant's next call must wait, while a refusal is remembered: 30 s at most.
    /// Calls that are refused together get hints one after another.
    pub(crate) fn remembered(&self, route: &Route) -> Option<Duration> {
        self.refusing(route, |refusal, now, each| refusal.promises.give(now, each) - now)
    }

    /// Whether a refusal is remembered, and the next hint is the longest: as long as any that the
    /// store would give.
    pub(crate) fn are_longest(&self, route: &Route) -> bool {
        self.refusing(route, |refusal, now, each| {
            refusal.promises.next(now, each) == now + MAX_HINT
        })
        .unwrap_or(false)
    }

    /// Calls `then` with the refusal that is remembered, the present, and the time of one call.
    fn refusing<T>(
        &self,
        route: &Route,
        then: impl FnOnce(&mut Remembered, Instant, Duration) -> T,
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
        Some(then(refusal, now, each(route)))
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
    Duration::try_from_secs_f64(early).unwrap_or(Duration::MAX)
}

/// The time until the tenant's bucket holds a call again.
fn refill(limits: &TenantLimits, quota: &Quota) -> Duration {
    let but_one = f64::from(limits.burst.saturating_sub(1)) / limits.rate.per_second();
    let but_one = Duration::try_from_secs_f64(but_one).unwrap_or(Duration::MAX);
    quota.until_full.saturating_sub(but_one)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Enforcement, Instances, Name, Rate, Tenant, Upstream};

    /// A tenant of 20/s, so each call takes 50 ms of it.
    fn route() -> Route {
        route_with_burst(20)
    }

    fn route_with_burst(burst: u32) -> Route {
        let name = || Name::parse("demo").unwrap();
        let limits = TenantLimits {
            rate: Rate::new(20.0).unwrap(),
            burst,
            committed: Rate::new(0.0).unwrap(),
            max_in_flight: 100,
            enforcement: Enforcement::Enforce,
        };
        let tenant = Tenant {
            name: name(),
            instances: Instances::Any,
            roles: BTreeSet::new(),
            requires_client_token: false,
            limits,
        };
        let upstream = Upstream {
            name: name(),
            region: "eu-central-1".to_owned(),
            instances: Instances::Any,
            endpoint_url: None,
            role_arn: None,
            external_id: None,
            rate: limits.rate,
            burst: 20,
            max_wait: Duration::ZERO,
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(1),
            max_attempts: 1,
        };
        Route { tenant: Arc::new(tenant), upstream: Arc::new(upstream), committed_burst: 0 }
    }

    /// An empty bucket of 20 calls.
    const EMPTY: Quota =
        Quota { remaining: 0, until_full: Duration::from_secs(1), in_flight: 0, factor: 1.0 };

    fn nth(place: u32) -> Duration {
        place * Duration::from_millis(50)
    }

    /// The places in the row of hints that callers get: refusals of the store, with the place that
    /// it gave, and of the memory. Each comes 1 ms after the one before.
    async fn places(refused: impl IntoIterator<Item = Option<u32>>) -> Vec<u32> {
        let (refusals, route) = (Refusals::default(), route());
        let begun = Instant::now();
        let mut places = Vec::new();
        for by_store in refused {
            let hint = match by_store {
                Some(place) => refusals.note(&route, &EMPTY, nth(place)),
                None => refusals.remembered(&route).unwrap(),
            };
            places.push(((begun.elapsed() + hint).as_millis() / nth(1).as_millis()) as u32);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        places.sort_unstable();
        places
    }

    #[tokio::test(start_paused = true)]
    async fn each_place_is_given_once_where_the_stores_last_answer_is_read_first() {
        let rest = (1..15).map(Some);
        let refused = [Some(15)].into_iter().chain([None; 5]).chain(rest).chain([None; 5]);
        assert_eq!(places(refused).await, Vec::from_iter(1..=25));
    }

    #[tokio::test(start_paused = true)]
    async fn each_place_is_given_once_where_the_store_passes_those_of_the_memory() {
        // The memory gives the places 4 to 8. The store gave 4 to 18, and is read backwards.
        let before = (1..=3).map(Some);
        let after = (4..=18).rev().map(Some);
        let refused = before.chain([None; 5]).chain(after).chain([None; 5]);
        assert_eq!(places(refused).await, Vec::from_iter(1..=28));
    }

    #[tokio::test(start_paused = true)]
    async fn each_place_is_given_once_where_store_and_memory_take_turns() {
        let refused = (1..=15).flat_map(|place| [Some(place), None]);
        assert_eq!(places(refused).await, Vec::from_iter(1..=30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_of_the_memory_is_kept_however_often_the_store_passes_it() {
        let passed = (1..=20).flat_map(|turn| [Some(3 * turn), None]);
        let places = places(passed.chain([Some(4)])).await;
        let expected = (1..=20).flat_map(|turn| [3 * turn, 3 * turn + 1]).chain([62]);
        assert_eq!(places, Vec::from_iter(expected));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_of_the_store_comes_after_those_that_the_memory_gave() {
        let (refusals, route) = (Refusals::default(), route());
        refusals.note(&route, &EMPTY, nth(1));
        let own: Vec<_> = (0..5).filter_map(|_| refusals.remembered(&route)).collect();
        assert_eq!(own, (2..=6).map(nth).collect::<Vec<_>>());
        // The store knows of no hint after its first.
        assert_eq!(refusals.note(&route, &EMPTY, nth(2)), nth(7));
        assert_eq!(refusals.note(&route, &EMPTY, nth(3)), nth(8));
        assert_eq!(refusals.remembered(&route), Some(nth(9)));
        // Once the store has passed them, its hints are good as they are.
        assert_eq!(refusals.note(&route, &EMPTY, nth(12)), nth(12));
        assert_eq!(refusals.note(&route, &EMPTY, nth(11)), nth(11));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_comes_a_little_too_soon_for_a_burst_of_one_keeps_its_turn() {
        let (refusals, route) = (Refusals::default(), route_with_burst(1));
        let empty = Quota { until_full: nth(1), ..EMPTY };
        refusals.note(&route, &empty, nth(1));
        assert_eq!(refusals.remembered(&route), Some(nth(2)));
        assert_eq!(refusals.remembered(&route), Some(nth(3)));
        tokio::time::advance(nth(1) - Duration::from_millis(4)).await;
        assert_eq!(refusals.remembered(&route), None, "the store is not asked");
        // The next caller is as early. Its turn is one that the memory gave.
        tokio::time::advance(nth(1)).await;
        let soon = Duration::from_millis(4);
        assert_eq!(refusals.note(&route, &Quota { until_full: soon, ..EMPTY }, soon), soon);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_kept_where_a_tenth_of_a_token_is_less_than_a_millisecond() {
        let mut route = route_with_burst(1);
        Arc::make_mut(&mut route.tenant).limits.rate = Rate::new(200.0).unwrap();
        let (refusals, hint) = (Refusals::default(), Duration::from_millis(5));
        let empty = Quota { until_full: hint, ..EMPTY };
        refusals.note(&route, &empty, hint);
        assert!(refusals.remembered(&route).is_some());
        assert!(refusals.remembered(&route).is_some());
        tokio::time::advance(Duration::from_micros(9_600)).await;
        let almost_full = Quota { until_full: Duration::from_micros(400), ..EMPTY };
        let soon = Duration::from_millis(1);
        assert_eq!(refusals.note(&route, &almost_full, soon), soon);
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_that_is_read_after_a_later_refusal_changes_nothing() {
        let (refusals, route) = (Refusals::default(), route());
        refusals.note(&route, &EMPTY, nth(1));
        assert_eq!(refusals.remembered(&route), Some(nth(2)));
        for _ in 0..2 {
            refusals.admitted(&route, &Quota { remaining: 12, ..EMPTY });
        }
        assert_eq!(refusals.remembered(&route), Some(nth(3)));
        assert_eq!(refusals.note(&route, &EMPTY, nth(2)), nth(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_remembered_for_its_hint_where_a_call_takes_a_day() {
        let mut route = route_with_burst(1);
        let tenant = Arc::make_mut(&mut route.tenant);
        tenant.limits.rate = Rate::new(1.0 / 86_400.0).unwrap();
        let refusals = Refusals::default();
        let empty = Quota { until_full: Duration::from_hours(24), ..EMPTY };
        refusals.note(&route, &empty, MAX_HINT);
        assert!(refusals.are_longest(&route));
        tokio::time::advance(MAX_HINT - Duration::from_millis(1)).await;
        assert_eq!(refusals.remembered(&route), Some(MAX_HINT));
    }
}
