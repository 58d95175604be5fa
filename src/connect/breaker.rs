//! A circuit breaker per upstream. While Connect fails, calls are refused at once, and one probe at
//! a time finds out whether Connect is back.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::error::{Fault, UpstreamError};
use crate::sync::lock;
use tokio::time::Instant;

/// The circuit of one upstream.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<Circuit>);

#[derive(Debug)]
enum Circuit {
    Closed { failures: u32 },
    Open { probe_at: Instant },
    Probing { since: Instant },
}

impl Default for Circuit {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// The permission to make one call. One of its methods reports how the call ended. A pass that is
/// dropped was not used. If it was the probe, the next call becomes the probe.
#[derive(Debug)]
pub(crate) struct Pass {
    breaker: Arc<Breaker>,
    /// When it became the probe, if it is the probe.
    probe: Option<Instant>,
    is_told: bool,
}

impl Breaker {
    /// The permission for one call.
    ///
    /// # Errors
    /// The time until the next probe, while the circuit is open.
    pub(crate) fn enter(self: &Arc<Self>, now: Instant) -> Result<Pass, Duration> {
        let mut circuit = self.circuit();
        let probe = match *circuit {
            Circuit::Closed { .. } => None,
            Circuit::Open { probe_at } if now < probe_at => return Err(probe_at - now),
            Circuit::Probing { since } if now < since + PROBE_INTERVAL => {
                return Err(since + PROBE_INTERVAL - now);
            }
            // The circuit does not wait longer than the interval for a probe: the probe may hang
            // until its deadline.
            Circuit::Open { .. } | Circuit::Probing { .. } => {
                *circuit = Circuit::Probing { since: now };
                Some(now)
            }
        };
        Ok(Pass { breaker: Arc::clone(self), probe, is_told: false })
    }

    /// The state in metrics: 0 closed, 1 half-open (a probe is due or runs), 2 open.
    pub(crate) fn state(&self, now: Instant) -> u64 {
        match *self.circuit() {
            Circuit::Closed { .. } => 0,
            Circuit::Open { probe_at } if now < probe_at => 2,
            Circuit::Open { .. } | Circuit::Probing { .. } => 1,
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        lock(&self.0)
    }
}

impl Pass {
    /// The call ended with this error. `hung_up`: the caller left before a further attempt that was
    /// due. Such a call has not failed, and gives no result as a probe.
    pub(crate) fn ended_with(self, error: &UpstreamError, hung_up: bool, now: Instant) {
        match error.fault {
            Fault::Internal | Fault::Unreachable if hung_up => self.given_up(now),
            Fault::Internal | Fault::Unreachable | Fault::TimedOut => self.failed(now),
            // No byte was sent, so the error says nothing about Connect.
            Fault::CredentialsMissing | Fault::CredentialsUnavailable | Fault::NotBuilt => {}
            Fault::InvalidRequest
            | Fault::NotFound
            | Fault::Conflict
            | Fault::QuotaExceeded
            | Fault::Throttled
            | Fault::AuthMisconfigured
            | Fault::CredentialsStale
            | Fault::ClockSkew
            | Fault::BadResponse
            | Fault::Unrecognized => self.answered(),
        }
    }

    /// Connect answered, perhaps with a refusal or a throttle.
    pub(crate) fn answered(mut self) {
        self.is_told = true;
        *self.breaker.circuit() = Circuit::default();
    }

    /// Connect was unreachable, failed by itself (5xx) or took too long.
    fn failed(mut self, now: Instant) {
        self.is_told = true;
        let mut circuit = self.breaker.circuit();
        *circuit = match *circuit {
            Circuit::Closed { failures } if failures + 1 < THRESHOLD => {
                Circuit::Closed { failures: failures + 1 }
            }
            // Calls that were in flight when the circuit opened must not delay the probe.
            Circuit::Open { probe_at } if self.probe.is_none() => Circuit::Open { probe_at },
            Circuit::Probing { since } if self.probe.is_none() => Circuit::Probing { since },
            _ => Circuit::Open { probe_at: now + PROBE_INTERVAL },
        };
    }

    fn given_up(mut self, now: Instant) {
        self.is_told = true;
        if self.probe.is_some() {
            self.failed(now);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        let mut circuit = self.breaker.circuit();
        // Only if no later probe has replaced it.
        if let Circuit::Probing { since } = *circuit
            && self.probe == Some(since)
        {
            *circuit = Circuit::Open { probe_at: since };
        }
    }
}

/// Failed calls in a row that open the circuit.
const THRESHOLD: u32 = 5;

/// The time from a failure to the next probe.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Arc<Breaker>, times: u32, now: Instant) {
        for _ in 0..times {
            breaker.enter(now).unwrap().failed(now);
        }
    }

    #[test]
    fn five_failed_calls_in_a_row_open_the_circuit() {
        let (breaker, now) = (Arc::new(Breaker::default()), Instant::now());
        fail(&breaker, 4, now);
        breaker.enter(now).unwrap().answered();
        fail(&breaker, 5, now);
        assert_eq!(breaker.enter(now).unwrap_err(), PROBE_INTERVAL);
    }

    #[test]
    fn one_probe_goes_through_and_closes_the_circuit() {
        let (breaker, now) = (Arc::new(Breaker::default()), Instant::now());
        fail(&breaker, 5, now);
        let later = now + PROBE_INTERVAL;
        assert_eq!([breaker.state(now), breaker.state(later)], [2, 1]);
        let probe = breaker.enter(later).unwrap();
        assert!(breaker.enter(later).is_err(), "a second call went through beside the probe");
        probe.answered();
        assert!(breaker.enter(later).is_ok());
    }

    #[test]
    fn a_probe_that_is_not_made_leaves_its_place_to_the_next_call() {
        let (breaker, now) = (Arc::new(Breaker::default()), Instant::now());
        fail(&breaker, 5, now);
        drop(breaker.enter(now + PROBE_INTERVAL).unwrap());
        assert!(breaker.enter(now + PROBE_INTERVAL).is_ok());
    }

    #[test]
    fn a_probe_that_was_given_up_does_not_leave_its_place_at_once() {
        let (breaker, now) = (Arc::new(Breaker::default()), Instant::now());
        breaker.enter(now).unwrap().given_up(now);
        fail(&breaker, 4, now);
        fail(&breaker, 1, now);
        let later = now + PROBE_INTERVAL;
        breaker.enter(later).unwrap().given_up(later);
        assert_eq!(breaker.enter(later).unwrap_err(), PROBE_INTERVAL);
    }

    #[test]
    fn an_old_probe_that_is_not_made_says_nothing_of_the_next_one() {
        let (breaker, now) = (Arc::new(Breaker::default()), Instant::now());
        fail(&breaker, 5, now);
        let old = breaker.enter(now + PROBE_INTERVAL).unwrap();
        let _new = breaker.enter(now + PROBE_INTERVAL * 2).unwrap();
        drop(old);
        assert!(
            breaker.enter(now + PROBE_INTERVAL * 2).is_err(),
            "a third call went through beside the probe"
        );
    }

    #[test]
    fn a_failed_probe_opens_the_circuit_again() {
        let (breaker, now) = (Arc::new(Breaker::default()), Instant::now());
        fail(&breaker, 5, now);
        let later = now + PROBE_INTERVAL;
        breaker.enter(later).unwrap().failed(later);
        assert_eq!(breaker.enter(later).unwrap_err(), PROBE_INTERVAL);
    }

    #[test]
    fn a_probe_that_never_ends_does_not_keep_the_circuit_open() {
        let (breaker, now) = (Arc::new(Breaker::default()), Instant::now());
        fail(&breaker, 5, now);
        let _unfinished = breaker.enter(now + PROBE_INTERVAL).unwrap();
        assert!(breaker.enter(now + PROBE_INTERVAL * 2).is_ok());
    }

    #[test]
    fn calls_that_fail_late_do_not_put_the_probe_off() {
        let (breaker, now) = (Arc::new(Breaker::default()), Instant::now());
        let late = breaker.enter(now).unwrap();
        fail(&breaker, 5, now);
        late.failed(now + PROBE_INTERVAL / 2);
        assert!(breaker.enter(now + PROBE_INTERVAL).is_ok());
    }
}
