//! From the first ask to the settlement: what a call holds in the store.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

use super::life::Life;
use super::{Created, MAX_HINT, Order, Outcome, Route, patience};
use crate::admission::{
    Answer, Ask, Decision, Moment, NoRandomness, Nonce, RecordAsk, Refused, Settled, Settlement,
    Stage, Verdict, random_token,
};
use crate::connect::is_worth_it;
use crate::domain::{Participant, UpstreamToken};
use crate::error::{self, Error, Fault, Limit, Sent, UpstreamError};
use crate::telemetry;

/// How the asks of a call ended without an error.
pub enum Admitted {
    /// It may go out.
    Granted(Box<Claim>),
    /// It has an answer already.
    Replayed(Participant),
}

/// What a granted call holds.
pub struct Claim {
    ask: Ask,
    deadline: Instant,
    granted: Moment,
    /// The last attempt was throttled, and the store has not heard of it yet.
    throttled: Option<Moment>,
    /// For Connect: the same over all attempts, and over all claims of the record.
    pub token: UpstreamToken,
}

impl Life {
    /// Asks until the call is granted, answered or refused. While it waits it holds nothing in the
    /// store.
    pub async fn admit<P: Sync>(
        &self,
        order: &Order<P>,
        may_send: bool,
    ) -> Result<Admitted, Arc<Error>> {
        let now = Instant::now();
        let (deadline, upstream) = (order.deadline, &order.route.upstream);
        let queue_until = (now + upstream.max_wait).min(deadline);
        let first = if may_send { Stage::First } else { Stage::Look };
        // Before anything is held that a failure would leave behind.
        let random = random_token().map_err(no_randomness)?;
        let mut ask = Ask {
            scope: order.route.scope(),
            nonce: Nonce::random().map_err(no_randomness)?,
            record: self.record.clone(),
            lease: Duration::ZERO,
            wait: Duration::ZERO,
            patience: Duration::ZERO,
            stage: first,
            throttled: None,
        };
        let patience = patience(deadline);
        let mut polls = polls();
        let mut waiting = None;
        let mut distrusts = 0;
        let mut waited = Duration::ZERO;
        loop {
            let now = Instant::now();
            if now >= deadline || self.left.is_cancelled() {
                return Err(Arc::new(Error::DeadlineExceeded { sent: Sent::No }));
            }
            ask.lease = (deadline - now) + upstream.attempt_timeout + SETTLE_ALLOWANCE;
            ask.wait = queue_until.saturating_duration_since(now);
            ask.patience = store_patience(now, deadline);
            let answer = self.ask(&ask, order).await?;
            match answer.decision {
                Decision::Granted { at, upstream_token, .. } => {
                    self.decided(order, answer.shadowed);
                    self.metrics.waited(&upstream.name, waited);
                    let token = upstream_token.unwrap_or(random);
                    let claim = Claim { ask, deadline, granted: at, throttled: None, token };
                    return Ok(Admitted::Granted(Box::new(claim)));
                }
                Decision::Replay { sealed, .. } => match self.open(&ask, &sealed) {
                    Some(participant) => {
                        order.decided(telemetry::Decision::Replayed, &self.metrics);
                        return Ok(Admitted::Replayed(participant));
                    }
                    None => distrust(&mut ask, sealed, &mut distrusts)?,
                },
                Decision::Mismatch { mac, fingerprint, upstream_token, version } => {
                    let name = ask.record.as_ref().map_or("", |record| &record.name);
                    if !self.keys.verify(name, version, &fingerprint, &upstream_token, &mac) {
                        distrust(&mut ask, mac.into_bytes(), &mut distrusts)?;
                        continue;
                    }
                    // Compared at the version that it was written at.
                    let Route { tenant, upstream, .. } = &order.route;
                    let theirs = self.keys.record_at(
                        version,
                        &tenant.name,
                        &upstream.name,
                        &order.request,
                        order.retention,
                    );
                    match theirs {
                        Some(same) if same.fingerprint == fingerprint => ask.record = Some(same),
                        Some(_) => {
                            order.decided(telemetry::Decision::Reused, &self.metrics);
                            return Err(Arc::new(Error::ClientTokenReused));
                        }
                        // Written by a newer version of this program, which alone can compare it.
                        None => {
                            return Err(Arc::new(Error::RequestInProgress {
                                retry_after: MAX_HINT,
                            }));
                        }
                    }
                }
                Decision::Busy { lease } => {
                    if waiting.is_none() {
                        let place = self.waiting.enter(&order.route);
                        waiting =
                            Some(place.inspect_err(|_| order.refused_to_wait(&self.metrics))?);
                    }
                    let left = patience.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Arc::new(Error::RequestInProgress {
                            retry_after: lease.min(MAX_HINT),
                        }));
                    }
                    let pause =
                        polls.next().unwrap_or(LAST_POLL).min(lease + Duration::from_millis(1));
                    waited += self.pause(pause.min(left)).await;
                    ask.stage = first;
                }
                Decision::Tombstone => return Err(Arc::new(Error::ResultExpired)),
                Decision::Refused(refused) => {
                    order.decided(decision(refused.limit), &self.metrics);
                    let Refused { limit, retry_after } = refused;
                    return Err(Arc::new(Error::Limited { limit, retry_after }));
                }
                Decision::AskAgain { after } => {
                    waited += self.pause(after).await;
                    ask.stage = Stage::Again;
                }
                Decision::Lost => {
                    return Err(Arc::new(Error::CircuitOpen { retry_after: MAX_HINT }));
                }
            }
        }
    }

    /// Tells the store at once that Connect throttled the last attempt: the wait before the next
    /// one may be long. What is not heard now is heard with the next ask, or with the settlement.
    pub async fn throttled(&self, claim: &Claim) {
        let look = Ask {
            stage: Stage::Look,
            record: None,
            throttled: Some(claim.granted),
            patience: Duration::ZERO,
            ..claim.ask.clone()
        };
        if let Err(error) = self.store.admit(&look).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a throttle is not noted yet"
            );
        }
    }

    /// Pays for a further attempt of a granted call.
    pub async fn again<P: Sync>(
        &self,
        claim: &mut Claim,
        order: &Order<P>,
        failed: &UpstreamError,
    ) -> Result<(), Arc<Error>> {
        let uncertain = failed.may_have_executed();
        claim.ask.throttled = (failed.fault == Fault::Throttled).then_some(claim.granted);
        // Heard of with this ask, or else with the settlement.
        claim.throttled = claim.ask.throttled;
        let queue_until = (Instant::now() + order.route.upstream.max_wait).min(claim.deadline);
        let mut again = false;
        loop {
            let now = Instant::now();
            if now >= claim.deadline || self.left.is_cancelled() {
                return Err(Arc::new(Error::DeadlineExceeded { sent: failed.sent }));
            }
            claim.ask.lease =
                (claim.deadline - now) + order.route.upstream.attempt_timeout + SETTLE_ALLOWANCE;
            claim.ask.wait = queue_until.saturating_duration_since(now);
            claim.ask.patience = store_patience(now, claim.deadline);
            claim.ask.stage = Stage::Attempt { uncertain, again };
            let answer = self.ask(&claim.ask, order).await?;
            claim.ask.throttled = None;
            claim.throttled = None;
            match answer.decision {
                // Paying may have taken the caller's time: an attempt that is not made was not
                // granted, either, or a throttle of the one before it would be taken for its own.
                Decision::Granted { .. }
                    if self.left.is_cancelled() || !is_worth_it(Instant::now(), claim.deadline) =>
                {
                    return Err(Arc::new(Error::DeadlineExceeded { sent: failed.sent }));
                }
                Decision::Granted { at, .. } => {
                    claim.granted = at;
                    return Ok(());
                }
                Decision::AskAgain { after } => {
                    self.pause(after).await;
                    again = true;
                }
                Decision::Refused(Refused { limit, retry_after }) => {
                    return Err(Arc::new(Error::Limited { limit, retry_after }));
                }
                // Not ours any more: whoever owns it now goes on, or has gone on.
                Decision::Lost
                | Decision::Busy { .. }
                | Decision::Mismatch { .. }
                | Decision::Replay { .. }
                | Decision::Tombstone => {
                    return Err(Arc::new(Error::RequestInProgress { retry_after: MAX_HINT }));
                }
            }
        }
    }

    /// Closes the claim. The answer waits for it no longer than the store's timeout: the store sees
    /// to the rest.
    pub async fn settle<P>(
        &self,
        claim: Claim,
        outcome: &Outcome,
        hung_up: bool,
        order: &Order<P>,
    ) {
        let Claim { ask: Ask { scope, nonce, record, .. }, throttled, granted, .. } = claim;
        let verdict = match outcome {
            Ok(Created { participant, .. }) => self.done(record.as_ref(), participant),
            Err(error) => match error.outcome() {
                error::Outcome::Release { unsent } => {
                    Verdict::Release { refund: unsent && !hung_up }
                }
                error::Outcome::Uncertain => Verdict::Uncertain,
            },
        };
        let last_throttled = outcome.as_ref().err().is_some_and(|error| is_throttle(error));
        let settlement = Settlement {
            scope,
            nonce,
            record: record.map(|record| record.name),
            verdict,
            throttled: throttled.or(last_throttled.then_some(granted)),
        };
        match self.store.settle(&settlement).await {
            Ok(Settled::Closed)
                if matches!(settlement.verdict, Verdict::Release { refund: true }) =>
            {
                order.call.note_levels(self.levels.given_back(&order.route.tenant));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "settling goes on in the background"
                );
            }
        }
    }

    async fn ask<P: Sync>(&self, ask: &Ask, order: &Order<P>) -> Result<Answer, Arc<Error>> {
        let answer = self.store.admit(ask).await;
        let answer = answer.map_err(|error| Arc::new(Error::StoreUnavailable(Box::new(error))))?;
        order.call.note_levels(self.levels.note(&order.route.tenant, &answer.quota));
        self.metrics.factor_is(&order.route.upstream.name, answer.quota.factor);
        Ok(answer)
    }

    fn decided<P>(&self, order: &Order<P>, shadowed: Option<Refused>) {
        match shadowed {
            Some(refused) => order.decided_in_shadow(decision(refused.limit), &self.metrics),
            None => order.decided(telemetry::Decision::Admitted, &self.metrics),
        }
    }

    fn open(&self, ask: &Ask, sealed: &[u8]) -> Option<Participant> {
        let record = ask.record.as_ref()?;
        let opened = self.keys.open(&record.name, &record.fingerprint, sealed);
        opened.inspect_err(|error| tracing::warn!(%error, "a stored result cannot be opened, the call runs anew")).ok()
    }

    fn done(&self, record: Option<&RecordAsk>, participant: &Participant) -> Verdict {
        let Some(record) = record else { return Verdict::Release { refund: false } };
        match self.keys.seal(&record.name, &record.fingerprint, participant) {
            Ok(sealed) => Verdict::Done { sealed, expires: participant.expiry },
            Err(error) => {
                tracing::error!(%error, "a result cannot be sealed");
                Verdict::Uncertain
            }
        }
    }

    /// Waits, but no longer than anybody wants the answer: for how long.
    async fn pause(&self, pause: Duration) -> Duration {
        let begun = Instant::now();
        tokio::select! {
            () = self.left.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
        begun.elapsed()
    }
}

/// Three quarters of the caller's time, so that the last one is left for the call.
fn store_patience(now: Instant, deadline: Instant) -> Duration {
    (deadline.saturating_duration_since(now) * 3 / 4).min(MAX_STORE_PATIENCE)
}

/// The next ask takes the record over, where it is still what was seen.
fn distrust(ask: &mut Ask, seen: Vec<u8>, distrusts: &mut u32) -> Result<(), Arc<Error>> {
    *distrusts += 1;
    let Some(record) = ask.record.as_mut().filter(|_| *distrusts <= MAX_DISTRUSTS) else {
        return Err(Arc::new(Error::RequestInProgress { retry_after: MAX_HINT }));
    };
    record.distrust = Some(seen);
    Ok(())
}

fn no_randomness(error: NoRandomness) -> Arc<Error> {
    Arc::new(Error::GatewayBug { detail: error.to_string(), sent: Sent::No })
}

fn polls() -> backon::ExponentialBackoff {
    let polls = ExponentialBuilder::new().with_min_delay(FIRST_POLL).with_max_delay(LAST_POLL);
    polls.with_jitter().without_max_times().build()
}

fn is_throttle(error: &Error) -> bool {
    matches!(error, Error::Upstream(UpstreamError { fault: Fault::Throttled, .. }))
}

pub const fn decision(limit: Limit) -> telemetry::Decision {
    match limit {
        Limit::TenantRate => telemetry::Decision::TenantRate,
        Limit::TenantInFlight => telemetry::Decision::InFlight,
        Limit::UpstreamBudget => telemetry::Decision::Budget,
    }
}

/// Beyond the caller's deadline and one attempt, a lease holds this much longer: for the
/// settlement.
const SETTLE_ALLOWANCE: Duration = Duration::from_secs(2);

/// Asks about another replica's call: jittered, so that the replicas do not ask in step.
const FIRST_POLL: Duration = Duration::from_millis(20);
const LAST_POLL: Duration = Duration::from_millis(200);

/// A slot of a day's records is moved in a few seconds; one that takes longer is not waited for.
const MAX_STORE_PATIENCE: Duration = Duration::from_secs(15);

/// A record that cannot be trusted is taken over; one that still cannot be after that is left to
/// its owner.
const MAX_DISTRUSTS: u32 = 3;
