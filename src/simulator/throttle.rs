//! The account's request quota: a token bucket, as AWS describes its throttling.

use std::time::Instant;

/// A request quota of the account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// The requests per second that the bucket regains. Connect's default quota for
    /// CreateParticipant is 2.
    pub rate_per_second: f64,
    /// The requests that a full bucket admits at once. Connect's default is 5. A value below 1
    /// admits none.
    pub burst: f64,
}

#[derive(Debug)]
pub(super) struct TokenBucket {
    throttle: Throttle,
    level: f64,
    filled_at: Instant,
}

impl TokenBucket {
    pub(super) fn full(throttle: Throttle, now: Instant) -> Self {
        // `max` also turns NaN into 0.
        let throttle = Throttle {
            rate_per_second: throttle.rate_per_second.max(0.0),
            burst: throttle.burst.max(0.0),
        };
        Self { throttle, level: throttle.burst, filled_at: now }
    }

    /// Takes the tokens of one request, or none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let regained = now.saturating_duration_since(self.filled_at).as_secs_f64()
            * self.throttle.rate_per_second;
        self.level = (self.level + regained).min(self.throttle.burst);
        self.filled_at = self.filled_at.max(now);
        let admitted = self.level >= 1.0;
        if admitted {
            self.level -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn admits_the_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(Throttle { rate_per_second: 2.0, burst: 5.0 }, start);
        let mut admitted = |after_ms| {
            (0..10).filter(|_| bucket.take(start + Duration::from_millis(after_ms))).count()
        };
        assert_eq!(admitted(0), 5);
        assert_eq!(admitted(499), 0);
        assert_eq!(admitted(500), 1);
        assert_eq!(admitted(60_000), 5);
    }

    #[test]
    fn a_clock_that_goes_back_regains_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::full(Throttle { rate_per_second: 1.0, burst: 1.0 }, start);
        assert!(bucket.take(start));
        assert!(!bucket.take(start - Duration::from_secs(5)));
        assert!(!bucket.take(start));
    }

    #[test]
    fn a_nonsensical_quota_admits_nothing() {
        for nonsense in [f64::NAN, -1.0, 0.0] {
            let now = Instant::now();
            let mut bucket =
                TokenBucket::full(Throttle { rate_per_second: nonsense, burst: nonsense }, now);
            assert!(!bucket.take(now + Duration::from_secs(60)));
        }
    }
}
