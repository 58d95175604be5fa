//! The attempts of one call: what is tried again, when, and what stops it.
//!
//! Lost connections, timeouts and 5xx are tried again with jittered backoff; a throttle once, after
//! the wait that it asks for; a refused signature once, where the clocks differ. All with the same
//! `ClientToken`. Where the next attempt does not fit, the last one's error is the answer, at once.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::retry::budget::{Budget, TpsBudget};

use super::breaker::{Breaker, Pass};
use super::http::Progress;
use super::sdk::Client;
use crate::domain::{CreateParticipant, Name, Participant, UpstreamToken};
use crate::error::{Fault, Sent, UpstreamError};
use crate::telemetry::{Attempted, Call, Metrics};

/// One upstream: its client, its circuit and its retry budget.
#[derive(Debug)]
pub struct Attempts {
    upstream: Name,
    region: String,
    metrics: Arc<Metrics>,
    client: Client,
    breaker: Breaker,
    budget: TpsBudget,
}

/// What bounds the attempts of one call.
#[derive(Debug, Clone)]
pub struct Terms {
    /// No attempt starts after it; one that runs may still finish.
    pub deadline: Instant,
    /// For one attempt.
    pub attempt_timeout: Duration,
    /// The most attempts; at least 1.
    pub max_attempts: u32,
    /// Cancelled when the caller has left: then no further attempt starts.
    pub left: CancellationToken,
}

impl Terms {
    /// Whether the caller has left, or has too little time for an attempt after this wait.
    fn are_over(&self, wait: Duration) -> bool {
        self.left.is_cancelled() || !is_worth_it(Instant::now() + wait, self.deadline)
    }

    /// Whether the caller hung up, and not merely ran out of time.
    fn were_left(&self) -> bool {
        self.left.is_cancelled() && Instant::now() < self.deadline
    }
}

/// Whether an attempt that starts then can be of use to a caller with this deadline.
#[must_use]
pub fn is_worth_it(start: Instant, deadline: Instant) -> bool {
    start + LEAST_LEFT <= deadline
}

/// Pays for further attempts: each is charged to the upstream's budget.
pub trait Payer: Send {
    /// Connect has throttled the last attempt: the budget must know before anybody waits.
    fn throttled(&mut self) -> impl Future<Output = ()> + Send;

    /// Whether the attempt after this failure may be made, now that it is paid for.
    fn pay(&mut self, failed: &UpstreamError) -> impl Future<Output = bool> + Send;
}

impl Attempts {
    /// For one upstream.
    #[must_use]
    pub fn new(upstream: Name, region: String, client: Client, metrics: Arc<Metrics>) -> Self {
        // A fifth of the calls of the last ten seconds may be retries, and ten a second besides: an
        // outage is not multiplied, and a quiet gateway still retries.
        let budget = TpsBudget::new(Duration::from_secs(10), 10, 0.2);
        metrics.knows(&upstream, Fault::ALL.map(Fault::as_str));
        Self { upstream, region, metrics, client, breaker: Breaker::default(), budget }
    }

    /// The circuit as metrics show it: 0 closed, 1 half-open (a probe is due or under way), 2 open.
    #[must_use]
    pub fn circuit(&self) -> u64 {
        self.breaker.state(Instant::now())
    }

    /// Leave for one call.
    ///
    /// # Errors
    /// How long until the next probe, while the circuit is open.
    pub fn enter(&self) -> Result<Pass<'_>, Duration> {
        self.breaker.enter(Instant::now())
    }

    /// Tries until there is a participant, or a reason to stop. Every further attempt is paid for
    /// by `payer`.
    ///
    /// # Errors
    /// The last attempt's error.
    pub async fn run(
        &self,
        pass: Pass<'_>,
        request: &CreateParticipant,
        token: &UpstreamToken,
        terms: &Terms,
        call: &Call,
        payer: &mut impl Payer,
    ) -> Result<Participant, UpstreamError> {
        self.budget.deposit();
        let mut plan = Plan::new();
        let mut attempt = 0;
        let span = call.span().connect(&self.region);
        let context = span.headers();
        loop {
            attempt += 1;
            call.attempted();
            let started = Instant::now();
            let progress = Progress::default();
            let attempted = self
                .client
                .traced_attempt(request, token, terms.attempt_timeout, &context, &progress)
                .await;
            let fault = attempted.as_ref().err().map(|error| error.fault.as_str());
            self.metrics.attempted(&self.upstream, fault, started.elapsed());
            let (status, request_id) = progress.answer().cloned().unzip();
            let noted = Attempted {
                outcome: fault.unwrap_or("ok"),
                status,
                request_id: request_id.flatten(),
            };
            span.attempted(attempt, &noted);
            let mut error = match attempted {
                Ok(participant) => {
                    pass.answered();
                    span.settled(&noted);
                    return Ok(participant);
                }
                Err(error) => error,
            };
            (error.earlier_uncertain, error.earlier_sent) = (plan.uncertain, plan.sent);
            let wait = plan.wait(&error).filter(|_| attempt < terms.max_attempts);
            if let Some(wait) = wait {
                if error.fault == Fault::Throttled {
                    payer.throttled().await;
                }
                let due = Instant::now() + wait;
                if self.pause(wait, terms).await && payer.pay(&error).await {
                    tracing::debug!(request_id = call.request_id(), attempt, fault = ?error.fault, "trying again");
                    continue;
                }
                error.due =
                    terms.are_over(due.saturating_duration_since(Instant::now())).then_some(due);
            }
            match error.fault {
                Fault::TimedOut => pass.failed(Instant::now()),
                // A caller that hangs up at the first failure has not seen the call fail: others
                // may not be refused for it.
                Fault::Internal | Fault::Unreachable
                    if error.due.is_some() && terms.were_left() =>
                {
                    pass.given_up(Instant::now());
                }
                Fault::Internal | Fault::Unreachable => pass.failed(Instant::now()),
                Fault::CredentialsMissing | Fault::CredentialsUnavailable | Fault::NotBuilt => {
                    pass.unused()
                }
                _ => pass.answered(),
            }
            span.settled(&noted);
            return Err(error);
        }
    }

    /// Waits, and says whether there is still reason for another attempt.
    async fn pause(&self, wait: Duration, terms: &Terms) -> bool {
        if terms.are_over(wait) || !self.budget.withdraw() {
            return false;
        }
        tokio::select! {
            () = terms.left.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }
}

/// What has happened so far, and so what may happen next.
struct Plan {
    backoff: backon::ExponentialBackoff,
    uncertain: bool,
    sent: bool,
    throttled: bool,
    skewed: bool,
}

impl Plan {
    fn new() -> Self {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(MIN_BACKOFF)
            .with_max_delay(MAX_BACKOFF);
        let backoff = backoff.with_jitter().without_max_times().build();
        Self { backoff, uncertain: false, sent: false, throttled: false, skewed: false }
    }

    /// How long until this error may be tried again; nothing where it may not.
    fn wait(&mut self, error: &UpstreamError) -> Option<Duration> {
        self.uncertain |= error.may_have_executed();
        self.sent |= error.sent != Sent::No;
        match error.fault {
            Fault::Internal | Fault::Unreachable | Fault::TimedOut => self.backoff.next(),
            Fault::Throttled if !self.throttled => {
                self.throttled = true;
                Some(error.retry_after.unwrap_or(THROTTLE_WAIT))
            }
            Fault::ClockSkew if !self.skewed => {
                self.skewed = true;
                Some(Duration::ZERO)
            }
            Fault::Throttled
            | Fault::ClockSkew
            | Fault::InvalidRequest
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

/// The wait before the first further attempt; it doubles, with jitter, up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Where a throttle does not say how long to wait.
const THROTTLE_WAIT: Duration = Duration::from_secs(1);

/// With less left before the deadline, an attempt is not worth its charge.
const LEAST_LEFT: Duration = Duration::from_millis(20);
