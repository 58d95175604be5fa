//! What telemetry and readiness may know of the primary store.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counters and gauges of a [`Guarded`](super::Guarded) store; plain atomics, read at any time.
#[derive(Debug, Default)]
pub struct StoreHealth {
    pub(super) reached: AtomicBool,
    pub(super) degraded: AtomicBool,
    pub(super) losses: AtomicU64,
    pub(super) settling: AtomicU64,
    pub(super) unsettled: AtomicU64,
    failures: [[AtomicU64; Failure::ALL.len()]; Operation::ALL.len()],
}

/// What the primary store was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// To decide.
    Admit,
    /// To close, at once or in the background.
    Settle,
    /// For a tenant's levels.
    Quota,
    /// Whether it is there.
    Probe,
}

/// How the primary store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No answer within `store.timeout`.
    TimedOut,
    /// An error, of whatever kind.
    Failed,
}

impl StoreHealth {
    /// The primary has answered at least once.
    #[must_use]
    pub fn reached(&self) -> bool {
        self.reached.load(Relaxed)
    }

    /// The primary is lost: calls are decided locally, or rejected.
    #[must_use]
    pub fn degraded(&self) -> bool {
        self.degraded.load(Relaxed)
    }

    /// How often the primary was lost.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses.load(Relaxed)
    }

    /// Calls that are being settled in the background now.
    #[must_use]
    pub fn settling(&self) -> u64 {
        self.settling.load(Relaxed)
    }

    /// Calls whose claim the primary granted and that never could be settled: their leases had to
    /// run out.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.unsettled.load(Relaxed)
    }

    /// How often an operation failed in that way.
    #[must_use]
    pub fn failures(&self, operation: Operation, failure: Failure) -> u64 {
        self.failures[operation as usize][failure as usize].load(Relaxed)
    }

    pub(super) fn failed(&self, operation: Operation, failure: Failure) {
        self.failures[operation as usize][failure as usize].fetch_add(1, Relaxed);
    }
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admit, Self::Settle, Self::Quota, Self::Probe];

    /// As metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Settle => "settle",
            Self::Quota => "quota",
            Self::Probe => "probe",
        }
    }
}

impl Failure {
    /// Both.
    pub const ALL: [Self; 2] = [Self::TimedOut, Self::Failed];

    /// As metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Failed => "error",
        }
    }
}
