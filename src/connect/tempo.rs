//! How long Connect takes: moving quantiles over the latest successful attempts of this process.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::sync::lock;

/// The tempo of one upstream.
#[derive(Debug)]
pub(crate) struct Tempo {
    latest: Mutex<Latest>,
    p90_us: AtomicU64,
    median_us: AtomicU64,
}

#[derive(Debug)]
struct Latest {
    micros: [u64; WINDOW],
    count: usize,
}

impl Default for Tempo {
    fn default() -> Self {
        let latest = Mutex::new(Latest { micros: [0; WINDOW], count: 0 });
        Self { latest, p90_us: AtomicU64::new(0), median_us: AtomicU64::new(0) }
    }
}

impl Tempo {
    /// An attempt has succeeded.
    pub(crate) fn note(&self, took: Duration) {
        let mut latest = lock(&self.latest);
        let at = latest.count % WINDOW;
        latest.micros[at] = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        latest.count += 1;
        // The first few attempts count at once. Later a few attempts make no difference.
        if latest.count > WINDOW && !latest.count.is_multiple_of(REFRESH_EVERY) {
            return;
        }
        let known = latest.count.min(WINDOW);
        let mut sorted = latest.micros;
        let sorted = &mut sorted[..known];
        sorted.sort_unstable();
        self.p90_us.store(sorted[(known * 9).div_ceil(10) - 1], Relaxed);
        self.median_us.store(sorted[known.div_ceil(2) - 1], Relaxed);
    }

    /// The time that nine of ten attempts need at most; at least 20 ms.
    pub(crate) fn p90(&self) -> Duration {
        Duration::from_micros(self.p90_us.load(Relaxed)).max(LEAST_P90)
    }

    /// The time that half of the attempts need at most: 50 ms to 1 s, and 250 ms without any
    /// measurement.
    pub(crate) fn median(&self) -> Duration {
        match self.median_us.load(Relaxed) {
            0 => UNKNOWN_MEDIAN,
            known => Duration::from_micros(known).clamp(LEAST_MEDIAN, MOST_MEDIAN),
        }
    }
}

/// The number of attempts that count.
const WINDOW: usize = 64;

/// The quantiles are computed once per this many attempts.
const REFRESH_EVERY: usize = 8;

const LEAST_P90: Duration = Duration::from_millis(20);
const LEAST_MEDIAN: Duration = Duration::from_millis(50);
const MOST_MEDIAN: Duration = Duration::from_secs(1);

/// Connect takes 100 to 300 ms. If this guess is too short, refused calls use up their attempts
/// before the first call ends. If it is too long, they are delayed once.
const UNKNOWN_MEDIAN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_follow_the_latest_attempts_and_stay_within_their_bounds() {
        let tempo = Tempo::default();
        assert_eq!((tempo.p90(), tempo.median()), (LEAST_P90, UNKNOWN_MEDIAN));
        tempo.note(Duration::from_millis(1));
        assert_eq!((tempo.p90(), tempo.median()), (LEAST_P90, LEAST_MEDIAN));
        let tempo = Tempo::default();
        (1..=10).for_each(|tenth| tempo.note(Duration::from_millis(100 * tenth)));
        assert_eq!(tempo.p90(), Duration::from_millis(900));
        assert_eq!(tempo.median(), Duration::from_millis(500));
        (0..200).for_each(|_| tempo.note(Duration::from_secs(5)));
        assert_eq!((tempo.p90(), tempo.median()), (Duration::from_secs(5), MOST_MEDIAN));
    }
}
