//! Whether, when and how often a call is tried again: pure, without I/O.
//!
//! Lost connections, timeouts and 5xx are tried again with jittered backoff. A throttle is tried
//! once more, after the wait that Connect asks for. A refused signature is tried once more if the
//! clocks differ: the SDK then knows the difference.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

use crate::error::{Fault, Sent, UpstreamError};

/// The results of the attempts of one call so far.
#[derive(Debug)]
pub(crate) struct Retry {
    backoff: backon::ExponentialBackoff,
    max_attempts: u32,
    made: u32,
    uncertain: bool,
    sent: bool,
    throttled: bool,
    skewed: bool,
}

impl Retry {
    /// The plan of a call that may have this many attempts; at least 1.
    #[must_use]
    pub(crate) fn new(max_attempts: u32) -> Self {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(MIN_BACKOFF)
            .with_max_delay(MAX_BACKOFF);
        Self {
            backoff: backoff.with_jitter().without_max_times().build(),
            max_attempts,
            made: 0,
            uncertain: false,
            sent: false,
            throttled: false,
            skewed: false,
        }
    }

    /// Notes that an attempt failed. Adds the results of earlier attempts to its error, and returns
    /// the wait before the next attempt. `None`: there is no next attempt.
    pub(crate) fn after(&mut self, failed: &mut UpstreamError) -> Option<Duration> {
        self.made += 1;
        (failed.earlier_uncertain, failed.earlier_sent) = (self.uncertain, self.sent);
        self.uncertain |= failed.may_have_executed();
        self.sent |= failed.sent != Sent::No;
        // Always computed: `wait` also counts the throttles and the skews.
        let wait = self.wait(failed);
        wait.filter(|_| self.made < self.max_attempts)
    }

    fn wait(&mut self, failed: &UpstreamError) -> Option<Duration> {
        match failed.fault {
            Fault::Internal | Fault::Unreachable | Fault::TimedOut => self.backoff.next(),
            Fault::Throttled => (!std::mem::replace(&mut self.throttled, true))
                .then(|| failed.retry_after.unwrap_or(THROTTLE_WAIT)),
            Fault::ClockSkew => {
                (!std::mem::replace(&mut self.skewed, true)).then_some(Duration::ZERO)
            }
            Fault::InvalidRequest
            | Fault::NotFound
            | Fault::Conflict
            | Fault::QuotaExceeded
            | Fault::AuthMisconfigured
            | Fault::CredentialsStale
            | Fault::CredentialsMissing
            | Fault::CredentialsUnavailable
            | Fault::NotBuilt
            | Fault::BadResponse
            | Fault::Unrecognized => None,
        }
    }
}

/// Whether an attempt that starts then can be of use to a caller with this deadline.
#[must_use]
pub(crate) fn is_worth_it(start: Instant, deadline: Instant) -> bool {
    start + LEAST_LEFT <= deadline
}

/// The wait before the first further attempt; it doubles, with jitter, up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The wait after a throttle that does not say how long to wait.
const THROTTLE_WAIT: Duration = Duration::from_secs(1);

/// The least time before the deadline that is worth the charge of an attempt.
pub(crate) const LEAST_LEFT: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn after(retry: &mut Retry, fault: Fault, sent: Sent) -> Option<Duration> {
        retry.after(&mut UpstreamError::new(fault, sent))
    }

    #[test]
    fn failures_of_the_way_are_tried_again_with_growing_jittered_waits() {
        let mut retry = Retry::new(u32::MAX);
        let mut least = MIN_BACKOFF;
        for _ in 0..10 {
            let wait = after(&mut retry, Fault::Internal, Sent::Answered).unwrap();
            assert!((least..=2 * MAX_BACKOFF).contains(&wait), "{wait:?}");
            least = (2 * least).min(MAX_BACKOFF);
        }
    }

    #[test]
    fn a_throttle_is_tried_once_more_after_the_wait_that_connect_asks_for() {
        let mut retry = Retry::new(10);
        let mut throttled = UpstreamError::new(Fault::Throttled, Sent::Answered);
        throttled.retry_after = Some(Duration::from_millis(7));
        assert_eq!(retry.after(&mut throttled), Some(Duration::from_millis(7)));
        assert_eq!(retry.after(&mut throttled), None);
        assert_eq!(
            after(&mut Retry::new(10), Fault::Throttled, Sent::Answered),
            Some(THROTTLE_WAIT)
        );
    }

    #[test]
    fn a_signature_is_tried_once_more_at_once_where_the_clocks_differ() {
        let mut retry = Retry::new(10);
        assert_eq!(after(&mut retry, Fault::ClockSkew, Sent::Answered), Some(Duration::ZERO));
        assert_eq!(after(&mut retry, Fault::ClockSkew, Sent::Answered), None);
    }

    #[test]
    fn there_are_no_more_attempts_than_configured() {
        let mut retry = Retry::new(3);
        let waits = [(); 3].map(|()| after(&mut retry, Fault::Unreachable, Sent::No).is_some());
        assert_eq!(waits, [true, true, false]);
    }

    #[test]
    fn refusals_and_what_cannot_be_read_are_not_tried_again() {
        for fault in Fault::ALL {
            let retried = matches!(
                fault,
                Fault::Internal
                    | Fault::Unreachable
                    | Fault::TimedOut
                    | Fault::Throttled
                    | Fault::ClockSkew
            );
            let wait = after(&mut Retry::new(3), fault, Sent::Answered);
            assert_eq!(wait.is_some(), retried, "{fault:?}");
        }
    }

    #[test]
    fn an_error_knows_what_earlier_attempts_may_have_done() {
        let mut retry = Retry::new(3);
        let mut first = UpstreamError::new(Fault::TimedOut, Sent::Maybe);
        retry.after(&mut first);
        assert!(!first.earlier_uncertain && !first.earlier_sent);
        let mut second = UpstreamError::new(Fault::Unreachable, Sent::No);
        retry.after(&mut second);
        assert!(second.earlier_uncertain && second.earlier_sent && second.may_have_executed());
    }
}
