//! The simulated AWS account: the result of a call that is signed and satisfies the model.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::answer::{Answer, Oddity};
use super::clock::iso_8601;
use super::error::{ErrorCode, Failure};
use super::magic::Magic;
use super::participants::{Participant, Participants};
use super::throttle::{Throttle, TokenBucket};
use super::wire::Call;

/// The answer for the client, and its delay.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) outcome: Outcome,
    pub(super) delay: Duration,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Created { participant: Arc<Participant>, expiry: String },
    Failed(Failure),
    Odd(Oddity),
    Status(u16),
    Reset,
}

impl Outcome {
    /// `None` if the connection must be reset.
    pub(super) fn into_answer(self, retry_after: Option<Duration>) -> Option<Answer> {
        match self {
            Self::Created { participant, expiry } => {
                Some(Answer::participant(&participant, &expiry))
            }
            Self::Failed(failure) => Some(Answer::failure(failure, retry_after)),
            Self::Odd(oddity) => Some(Answer::odd(oddity)),
            Self::Status(status) => Some(Answer::status(status)),
            Self::Reset => None,
        }
    }
}

/// One lock over the whole account: two calls with the same ClientToken cannot both find it unused.
#[derive(Debug)]
pub(super) struct Account(Mutex<State>);

#[derive(Debug)]
struct State {
    bucket: Option<TokenBucket>,
    participants: Participants,
    /// How often a `sim-flaky-N` or `sim-reset-N` has misbehaved, by contact id and ClientToken.
    mishaps: HashMap<(String, Option<String>), u32>,
}

impl Account {
    pub(super) fn new(throttle: Option<Throttle>, max_participants: usize) -> Self {
        Self(Mutex::new(State {
            bucket: throttle.map(|throttle| TokenBucket::full(throttle, Instant::now())),
            participants: Participants::with_capacity(max_participants),
            mishaps: HashMap::new(),
        }))
    }

    /// The decision has taken effect when this returns. The delay is for the answer alone.
    pub(super) fn decide(&self, call: Call, now: Timestamp) -> Decision {
        let mut delay = Duration::ZERO;
        let mut state = self.lock();
        let outcome = match Magic::parse(&call.contact_id) {
            None => state.create(call, now, LIFETIME),
            Some(Magic::Fail(code)) => failed(code),
            Some(Magic::Odd(oddity)) => Outcome::Odd(oddity),
            Some(Magic::Status(status)) => Outcome::Status(status),
            Some(Magic::Reset) => Outcome::Reset,
            Some(Magic::ResetFirst(times)) => {
                let mishap = state.mishap(&call, times);
                match state.create(call, now, LIFETIME) {
                    Outcome::Created { .. } if mishap => Outcome::Reset,
                    outcome => outcome,
                }
            }
            Some(Magic::Flaky(times)) if state.mishap(&call, times) => {
                failed(ErrorCode::InternalService)
            }
            Some(Magic::Flaky(_)) => state.create(call, now, LIFETIME),
            Some(Magic::Slow(wait)) => {
                delay = wait;
                state.create(call, now, LIFETIME)
            }
            Some(Magic::Expires(lifetime)) => state.create(call, now, lifetime),
            Some(Magic::BadExpiry) => match state.create(call, now, LIFETIME) {
                Outcome::Created { participant, .. } => {
                    Outcome::Created { participant, expiry: "tomorrow".into() }
                }
                outcome => outcome,
            },
        };
        Decision { outcome, delay }
    }

    pub(super) fn participants(&self) -> Vec<Arc<Participant>> {
        self.lock().participants.list()
    }

    pub(super) fn participant_count(&self) -> u64 {
        self.lock().participants.count()
    }

    #[expect(clippy::disallowed_methods, reason = "the simulator imports nothing of ours")]
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    // AWS throttles before it reads the request: a repeated ClientToken is charged, too.
    fn create(&mut self, call: Call, now: Timestamp, lifetime: Duration) -> Outcome {
        if self.bucket.as_mut().is_some_and(|bucket| !bucket.take(Instant::now())) {
            return failed(ErrorCode::Throttling);
        }
        match self.participants.create(call, now, lifetime) {
            Ok(participant) => {
                Outcome::Created { expiry: iso_8601(participant.expiry), participant }
            }
            Err(failure) => Outcome::Failed(failure),
        }
    }

    /// Whether this call is one of the first `times` of its kind.
    fn mishap(&mut self, call: &Call, times: u32) -> bool {
        // If the map is cleared, a few calls fail again, as their contact ids ask.
        if self.mishaps.len() >= MAX_MISHAPS {
            self.mishaps.clear();
        }
        let key = (call.contact_id.clone(), call.client_token.clone());
        let so_far = self.mishaps.entry(key).or_default();
        let mishap = *so_far < times;
        *so_far = so_far.saturating_add(1);
        mishap
    }
}

fn failed(code: ErrorCode) -> Outcome {
    Outcome::Failed(Failure::new(code, format!("The simulator answers {}.", code.name())))
}

// The model does not state the life of a participant token. This is the default life of a chat.
const LIFETIME: Duration = Duration::from_hours(24);
const MAX_MISHAPS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::wire::Role;

    fn call(contact_id: &str, client_token: Option<&str>) -> Call {
        Call {
            instance_id: "i".into(),
            contact_id: contact_id.into(),
            client_token: client_token.map(str::to_owned),
            display_name: None,
            role: Role::Customer,
            video: false,
            screen_share: false,
        }
    }

    fn kinds(account: &Account, calls: &[Call]) -> Vec<&'static str> {
        let kind = |call: &Call| match account.decide(call.clone(), Timestamp::UNIX_EPOCH).outcome {
            Outcome::Created { .. } => "created",
            Outcome::Failed(failure) => failure.code.name(),
            Outcome::Odd(_) | Outcome::Status(_) => "odd",
            Outcome::Reset => "reset",
        };
        calls.iter().map(kind).collect()
    }

    #[test]
    fn a_flaky_contact_fails_its_times_for_each_client_token() {
        let account = Account::new(None, MANY);
        let (a, b) = (call("sim-flaky-1", Some("a")), call("sim-flaky-1", Some("b")));
        let fails = "InternalServiceException";
        assert_eq!(
            kinds(&account, &[a.clone(), b.clone(), a, b]),
            [fails, fails, "created", "created"]
        );
    }

    #[test]
    fn a_counted_reset_has_created_its_participant_already() {
        let account = Account::new(None, MANY);
        let call = call("sim-reset-1", Some("t"));
        assert_eq!(kinds(&account, std::slice::from_ref(&call)), ["reset"]);
        assert_eq!(account.participant_count(), 1);
        assert_eq!(kinds(&account, &[call]), ["created"]);
        assert_eq!(account.participant_count(), 1);
    }

    #[test]
    fn magic_failures_are_not_charged_but_repeated_tokens_are() {
        let account = Account::new(Some(Throttle { rate_per_second: 0.0, burst: 2.0 }), MANY);
        let (conflict, same) = (call("sim-conflict", None), call("c", Some("t")));
        let calls = [conflict.clone(), same.clone(), conflict, same.clone(), same];
        let expected =
            ["ConflictException", "created", "ConflictException", "created", "ThrottlingException"];
        assert_eq!(kinds(&account, &calls), expected);
    }

    #[test]
    fn a_slow_answer_is_delayed_and_its_participant_is_not() {
        let account = Account::new(None, MANY);
        let decision = account.decide(call("sim-slow-60000", None), Timestamp::UNIX_EPOCH);
        assert_eq!((decision.delay, account.participant_count()), (Duration::from_secs(60), 1));
    }

    const MANY: usize = 1000;
}
