//! The calculations that every store must do in the same way.

use std::time::Duration;

use super::{MAX_LEASE, Moment, Quota, Refused, Scope};
use crate::domain::Enforcement;
use crate::error::Limit;

impl Scope {
    /// `res`: the tokens that are reserved for committed calls.
    pub(super) fn reserve(&self) -> f64 {
        f64::from(self.committed_burst.min(self.burst.saturating_sub(1)))
    }

    pub(super) fn shadow(&self) -> bool {
        self.limits.enforcement == Enforcement::Shadow
    }

    /// The tenant's figures at this level of its bucket.
    pub(super) fn quota(&self, level: f64, in_flight: u64, factor: f64) -> Quota {
        let burst = f64::from(self.limits.burst);
        let missing = (burst - level).max(0.0);
        let until_full =
            if missing > TOLERANCE { missing / self.limits.rate.per_second() } else { 0.0 };
        Quota {
            remaining: (level + TOLERANCE).clamp(0.0, burst).floor() as u32,
            until_full: up_to_micros(until_full),
            in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
            factor,
        }
    }
}

impl Refused {
    /// Rounds up to a millisecond: a hint that is rounded down causes a second refusal.
    pub(super) fn micros(limit: Limit, wait_us: f64) -> Self {
        let millis = (bounded(wait_us / 1e6) * 1e3 - 1e-6).ceil().max(1.0);
        Self { limit, retry_after: Duration::from_millis(millis as u64) }
    }
}

impl Moment {
    pub(super) fn from_micros(micros: u64) -> Self {
        Self(micros as f64 / 1e6)
    }

    pub(super) fn micros(self) -> u64 {
        (self.0 * 1e6).round() as u64
    }
}

/// Microseconds, rounded up.
pub(super) fn up_to_micros(seconds: f64) -> Duration {
    Duration::from_micros((bounded(seconds) * 1e6 - 1e-6).ceil().max(0.0) as u64)
}

/// Whole microseconds, at most what 53 bits hold: Lua's numbers are doubles.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(1 << 52)
}

/// A lease as the stores take it.
pub(super) fn lease_micros(lease: Duration) -> u64 {
    micros(lease.min(MAX_LEASE))
}

fn bounded(seconds: f64) -> f64 {
    if seconds.is_finite() { seconds.clamp(0.0, FOREVER_S) } else { FOREVER_S }
}

/// How far below a whole token a level may be and still count as one: the sum of many refills is
/// never exact.
pub(super) const TOLERANCE: f64 = 1e-6;

/// The wait where a bucket has no rate, which means "never".
const FOREVER_S: f64 = 365.0 * 86_400.0;
