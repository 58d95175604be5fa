//! The facts about the primary store for telemetry and readiness.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use crate::sync::lock;

/// Counters and gauges of a [`Guarded`](super::Guarded) store: plain atomics, which can be read at
/// any time.
#[derive(Debug, Default)]
pub(crate) struct StoreHealth {
    pub(super) reached: AtomicBool,
    degraded: AtomicBool,
    since: Mutex<Option<SystemTime>>,
    /// Calls that are being settled in the background.
    pub(super) settling: AtomicU64,
    pub(super) unsettled: AtomicU64,
}

impl StoreHealth {
    pub(super) fn note_lost(&self) {
        lock(&self.since).get_or_insert_with(SystemTime::now);
        self.degraded.store(true, Relaxed);
    }

    pub(super) fn note_answer(&self) {
        self.degraded.store(false, Relaxed);
        *lock(&self.since) = None;
    }

    /// Whether the primary has ever answered.
    #[must_use]
    pub(crate) fn reached(&self) -> bool {
        self.reached.load(Relaxed)
    }

    /// Whether the primary is lost: calls are decided locally, or refused.
    #[must_use]
    pub(crate) fn degraded(&self) -> bool {
        self.degraded.load(Relaxed)
    }

    /// When the primary was lost; `None` while it is not.
    #[must_use]
    pub(crate) fn degraded_since(&self) -> Option<SystemTime> {
        *lock(&self.since)
    }

    /// The calls with a claim on the primary that could never be settled: their leases had to run
    /// out.
    #[must_use]
    pub(crate) fn unsettled(&self) -> u64 {
        self.unsettled.load(Relaxed)
    }
}
