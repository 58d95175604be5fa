//! The store that decides while the primary is lost. It belongs to this process, and applies this
//! replica's share of every limit.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::Scope;
use crate::domain::{Rate, TenantLimits};
use crate::sync::lock;

/// Makes the local store of an outage.
pub(crate) type Fresh<L> = Box<dyn Fn() -> Arc<L> + Send + Sync>;

/// The local stores, one per outage.
pub(super) struct Local<L> {
    replicas: NonZeroU32,
    fresh: Fresh<L>,
    outage: Mutex<Option<Outage<L>>>,
}

struct Outage<L> {
    store: Arc<L>,
    used: Instant,
}

impl<L> Local<L> {
    pub(super) fn new(replicas: NonZeroU32, fresh: Fresh<L>) -> Self {
        Self { replicas, fresh, outage: Mutex::new(None) }
    }

    /// The store of the outage; the first ask creates it.
    pub(super) fn store(&self) -> Arc<L> {
        let mut outage = lock(&self.outage);
        let used = Instant::now();
        let current = outage.get_or_insert_with(|| Outage { store: (self.fresh)(), used });
        current.used = used;
        Arc::clone(&current.store)
    }

    /// The primary has answered, and decides from now on. The local state is dropped after it has
    /// been idle for [`REST`].
    pub(super) fn primary_answered(&self) {
        let mut outage = lock(&self.outage);
        if outage.as_ref().is_some_and(|outage| outage.used.elapsed() >= REST) {
            *outage = None;
        }
    }

    /// This replica's share of the limits. Rates are divided exactly. Counts are rounded down, and
    /// are at least 1.
    ///
    /// `committed_burst` stays whole. The tenants' shares of it are ⌈bᵢ/replicas⌉ each, and their sum
    /// may be as large as the whole. A reserve that is too large delays spare calls; one that is too
    /// small would delay committed calls.
    pub(super) fn share(&self, scope: &Scope) -> Scope {
        let replicas = f64::from(self.replicas.get());
        let rate = |whole: Rate| Rate::new(whole.per_second() / replicas).unwrap_or(whole);
        let count = |whole: u32| (whole / self.replicas).max(1);
        Scope {
            limits: TenantLimits {
                rate: rate(scope.limits.rate),
                burst: count(scope.limits.burst),
                committed: rate(scope.limits.committed),
                max_in_flight: count(scope.limits.max_in_flight),
                enforcement: scope.limits.enforcement,
            },
            rate: rate(scope.rate),
            burst: count(scope.burst),
            ..scope.clone()
        }
    }
}

/// If the primary comes and goes, each outage finds the same local buckets. Otherwise each would
/// begin with a full burst, and the bursts would add up.
pub(super) const REST: Duration = Duration::from_secs(10);
