//! The store of a single process. It makes the same decisions as Redis does, with one mutex per
//! upstream.

mod budget;
mod queue;
mod record;
mod snapshot;
mod tenant;
mod upstream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::clock::{Clock, SystemClock};
use super::{Answer, Ask, Scope, Settled, Settlement, Store, StoreError, StoreLevels};
use crate::domain::Name;
use crate::sync::lock;
pub use snapshot::{Copied, WaitingCopy};
use upstream::UpstreamState;

/// Claims, levels and leases in this process's memory. They end with it. The store is always
/// available.
pub struct MemoryStore {
    upstreams: Mutex<HashMap<Name, Arc<Mutex<UpstreamState>>>>,
    clock: Box<dyn Clock>,
    max_records: usize,
}

impl MemoryStore {
    /// A store on the process's own clocks.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(SystemClock::default())
    }

    /// A store on another clock.
    #[must_use]
    pub fn with_clock(clock: impl Clock) -> Self {
        Self { upstreams: Mutex::default(), clock: Box::new(clock), max_records: MAX_RECORDS }
    }

    /// With another bound on the records that an upstream keeps.
    #[cfg(test)]
    fn max_records(mut self, max_records: usize) -> Self {
        self.max_records = max_records.max(1);
        self
    }

    /// Forgets everything.
    pub fn clear(&self) {
        lock(&self.upstreams).clear();
    }

    /// For tests: another store with all that this one holds, on a clock of its own. No setting
    /// leads to this.
    #[doc(hidden)]
    #[must_use]
    pub fn fork(&self, clock: impl Clock) -> Self {
        let copy = |(name, upstream): (&Name, &Arc<Mutex<UpstreamState>>)| {
            (name.clone(), Arc::new(Mutex::new(lock(upstream).clone())))
        };
        let upstreams = Mutex::new(lock(&self.upstreams).iter().map(copy).collect());
        Self { upstreams, clock: Box::new(clock), max_records: self.max_records }
    }

    /// For tests: a copy of the state of a tenant on an upstream, and one record.
    #[doc(hidden)]
    #[must_use]
    pub fn copied(&self, scope: &Scope, record: &str) -> Copied {
        let now = self.clock.now();
        let upstream = self.upstream(scope, now);
        lock(&upstream).copied(scope, record, now)
    }

    fn upstream(&self, scope: &Scope, now: u64) -> Arc<Mutex<UpstreamState>> {
        let mut upstreams = lock(&self.upstreams);
        if let Some(upstream) = upstreams.get(&scope.upstream) {
            return Arc::clone(upstream);
        }
        let upstream = Arc::new(Mutex::new(UpstreamState::new(now, scope, self.max_records)));
        upstreams.insert(scope.upstream.clone(), Arc::clone(&upstream));
        upstream
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        let upstream = self.upstream(&ask.scope, self.clock.now());
        Ok(lock(&upstream).admit(ask, self.clock.now()))
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        let upstream = self.upstream(&settlement.scope, self.clock.now());
        Ok(lock(&upstream).settle(settlement, self.clock.now(), self.clock.wall()))
    }

    async fn has_record(&self, scope: &Scope, name: &str) -> Result<bool, StoreError> {
        let upstream = self.upstream(scope, self.clock.now());
        Ok(lock(&upstream).records.contains_key(name))
    }

    async fn levels_of(&self, scope: &Scope) -> Result<StoreLevels, StoreError> {
        let upstream = self.upstream(scope, self.clock.now());
        Ok(lock(&upstream).all_levels(scope, self.clock.now()))
    }
}

/// The most records that an upstream keeps. Beyond it, the record that ends first is dropped, as in
/// a full Redis.
const MAX_RECORDS: usize = 250_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{ManualClock, Nonce, RecordAsk, Stage};
    use super::*;
    use crate::domain::{Enforcement, Rate, TenantLimits, UpstreamToken};

    fn ask(number: u32) -> Ask {
        let name = |text| Name::parse(text).unwrap();
        let rate = Rate::new(1e6).unwrap();
        let (burst, enforcement) = (1_000_000, Enforcement::Enforce);
        let limits = TenantLimits {
            rate,
            burst,
            committed: Rate::default(),
            max_in_flight: 1_000_000,
            enforcement,
        };
        Ask {
            scope: Scope {
                tenant: name("acme"),
                limits,
                upstream: name("main"),
                rate,
                burst,
                committed_burst: 0,
            },
            nonce: Nonce(u128::from(number)),
            record: Some(RecordAsk {
                name: number.to_string().into(),
                version: 1,
                fingerprint: "print".into(),
                upstream_token: UpstreamToken::new("token").unwrap(),
                mac: "mac".into(),
                retention: Duration::from_secs(100),
                distrust: None,
            }),
            lease: Duration::from_secs(1),
            wait: Duration::ZERO,
            patience: Duration::ZERO,
            typical: Duration::ZERO,
            stage: Stage::Call,
            throttled: None,
        }
    }

    fn sizes(store: &MemoryStore) -> (usize, usize) {
        let upstream = Arc::clone(lock(&store.upstreams).values().next().unwrap());
        lock(&upstream).sizes()
    }

    #[tokio::test]
    async fn what_has_ended_takes_no_memory() {
        let clock = ManualClock::at(0);
        let store = MemoryStore::with_clock(clock.clone());
        for number in 0..5_000 {
            store.admit(&ask(number)).await.unwrap();
            clock.advance(Duration::from_secs(1));
        }
        assert!(sizes(&store).0 <= 101, "{:?}", sizes(&store));
        assert_eq!(sizes(&store).0, sizes(&store).1);
    }

    #[tokio::test]
    async fn a_full_store_loses_the_record_that_ends_first() {
        let clock = ManualClock::at(0);
        let store = MemoryStore::with_clock(clock.clone()).max_records(10);
        for number in 0..50 {
            store.admit(&ask(number)).await.unwrap();
            clock.advance(Duration::from_millis(1));
        }
        assert_eq!(sizes(&store), (10, 10));
        let replayed = store.admit(&Ask { nonce: Nonce(999), ..ask(49) }).await.unwrap().decision;
        assert!(matches!(replayed, super::super::Decision::Busy { .. }));
    }
}
