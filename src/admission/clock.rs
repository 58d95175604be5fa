//! Time, for the stores that keep it themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::rounding::micros;

/// The clocks of the in-memory store.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds since any fixed point. Levels, leases and lives are measured by it. A step back
    /// counts as no time.
    fn now(&self) -> u64;

    /// Microseconds since the Unix epoch: only for the absolute expiry of credentials.
    fn wall(&self) -> u64;
}

/// The process's own clocks: a monotonic one, and the wall clock.
#[derive(Debug)]
pub(crate) struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        micros(self.0.elapsed())
    }

    fn wall(&self) -> u64 {
        unix_micros(SystemTime::now())
    }
}

/// A clock that tests set by hand: both times are the same, as with Redis `TIME`.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Stands at this many microseconds since the Unix epoch.
    #[must_use]
    pub fn at(micros: u64) -> Self {
        Self(Arc::new(AtomicU64::new(micros)))
    }

    /// Advances the clock.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(micros(by), Ordering::SeqCst);
    }

    /// Sets the clock to any time, also an earlier one.
    pub fn set(&self, micros: u64) {
        self.0.store(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn wall(&self) -> u64 {
        self.now()
    }
}

/// Microseconds since the Unix epoch; `None` before it.
pub(super) fn unix_micros(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, micros)
}
