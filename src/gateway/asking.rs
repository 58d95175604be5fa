//! A call's asks, from the first until it is granted, answered or refused.
//!
//! Each ask is settled by the call that made it. If a reply was lost, or a place in the queue is
//! given up, it is settled in the background. Every entry in the store therefore has an owner.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

use super::claim::Claim;
use super::flights::Place;
use super::order::{Order, Route, refused_by};
use super::{Gateway, MAX_DUPLICATE_HINT, in_progress, lines, patience};
use crate::admission::{
    Answer, Ask, Decision, LEASE, NoRandomness, Nonce, Quota, RecordAsk, Refused, SETTLE_ALLOWANCE,
    Settlement, Stage, Store, Verdict, random_token,
};
use crate::call::Disposition;
use crate::connect::{Endpoint, LEAST_LEFT};
use crate::domain::{Participant, UpstreamToken};
use crate::error::{Error, Limit, Sent};
use crate::telemetry::Distrust;

/// The result of a call's asks without an error.
pub(super) enum Admitted<S: Store> {
    /// The call may be sent.
    Granted(Claim<S>),
    /// The call already has an answer.
    Replayed(Participant),
}

/// The asks of one call.
pub(super) struct Asking<'a, S: Store> {
    gateway: &'a Arc<Gateway<S>>,
    endpoint: &'a Endpoint,
    order: &'a Order,
    ask: Ask,
    /// The token for Connect, if the store has none of an earlier claim.
    token: UpstreamToken,
    /// The time until the circuit's next probe, while it is open.
    open: Option<Duration>,
    queue_until: Instant,
    /// When the call stops waiting for a duplicate elsewhere.
    heard_by: Instant,
    /// How long the call has waited, for a slot or for a duplicate.
    waited: Duration,
    polls: Option<(Place, backon::ExponentialBackoff)>,
    distrusts: u32,
    /// An entry of the asks may stand in the store.
    is_standing: bool,
    /// Whether the asks ended by themselves. Otherwise the caller has left.
    has_ended: bool,
}

impl<'a, S: Store> Asking<'a, S> {
    /// No ask has been made yet. `open`: the time until the circuit's next probe. While it is open,
    /// only the record is asked.
    pub(crate) fn new(
        gateway: &'a Arc<Gateway<S>>,
        endpoint: &'a Endpoint,
        order: &'a Order,
        record: Option<RecordAsk>,
        open: Option<Duration>,
    ) -> Result<Self, Error> {
        // Comes first: a failure here must leave no entry behind.
        let token = match &record {
            Some(record) => record.upstream_token.clone(),
            None => random_token().map_err(no_randomness)?,
        };
        let ask = Ask {
            scope: order.route.scope(),
            nonce: Nonce::random(),
            record,
            lease: LEASE,
            wait: Duration::ZERO,
            patience: Duration::ZERO,
            typical: endpoint.tempo().median(),
            stage: if open.is_some() { Stage::Look } else { Stage::Call },
            throttled: None,
        };
        let queue_until = Instant::now() + order.route.upstream.max_wait;
        let heard_by = patience(order.deadline);
        let (waited, polls, distrusts) = (Duration::ZERO, None, 0);
        let (is_standing, has_ended) = (false, false);
        Ok(Self {
            gateway,
            endpoint,
            order,
            ask,
            token,
            open,
            queue_until,
            heard_by,
            waited,
            polls,
            distrusts,
            is_standing,
            has_ended,
        })
    }

    /// Asks until the call is granted, answered or refused.
    pub(crate) async fn until_answered(&mut self) -> Result<Admitted<S>, Error> {
        let end = self.asks().await;
        self.has_ended = true;
        end
    }

    async fn asks(&mut self) -> Result<Admitted<S>, Error> {
        loop {
            self.refresh()?;
            let answer = self.ask().await?;
            let Answer { decision, shadowed, quota } = answer;
            match decision {
                Decision::Granted { at, upstream_token, distrusted, .. } => {
                    if distrusted && !self.has_distrusted() {
                        self.gateway.metrics.count_distrusted(Distrust::Malformed);
                    }
                    self.report_grant(shadowed, quota);
                    let token = upstream_token.unwrap_or_else(|| self.token.clone());
                    let claim = Claim::new(self.gateway, self.ask.clone(), at, token);
                    return Ok(Admitted::Granted(claim));
                }
                Decision::Replay { sealed } => {
                    if let Some(participant) = self.open(sealed)? {
                        self.report(Disposition::Replayed, false);
                        return Ok(Admitted::Replayed(participant));
                    }
                }
                Decision::Mismatch { mac, fingerprint, upstream_token, version } => {
                    self.compare(&mac, &fingerprint, &upstream_token, version)?;
                }
                Decision::Busy { lease } => self.wait_for_duplicate(lease).await?,
                Decision::AskAgain { after } => self.wait_in_queue(after).await,
                Decision::Tombstone => return Err(Error::ResultExpired),
                Decision::Refused(refused) => return Err(self.refuse(refused)),
                // The record has no answer, and the circuit is open.
                Decision::Lost => {
                    return Err(Error::CircuitOpen {
                        retry_after: self.open.unwrap_or(MAX_DUPLICATE_HINT),
                    });
                }
            }
        }
    }

    /// Updates the time limits of the next ask. The caller's deadline bounds all of them.
    fn refresh(&mut self) -> Result<(), Error> {
        let (now, deadline) = (Instant::now(), self.order.deadline);
        let left = deadline.saturating_duration_since(now);
        if left < LEAST_LEFT {
            let is_duplicate = self.polls.is_some();
            return Err(if is_duplicate {
                in_progress()
            } else {
                self.order.out_of_time(Sent::No)
            });
        }
        let upstream = &self.order.route.upstream;
        self.ask.lease = LEASE.min(left + upstream.attempt_timeout + SETTLE_ALLOWANCE);
        let attempt = self.endpoint.tempo().p90().min(upstream.attempt_timeout);
        let queued_until = self.queue_until.saturating_duration_since(now);
        self.ask.wait = queued_until.min(longest_wait(left, attempt));
        self.ask.patience = store_patience(left);
        Ok(())
    }

    async fn ask(&mut self) -> Result<Answer, Error> {
        let Gateway { store, levels, metrics, refusals, .. } = &**self.gateway;
        self.is_standing = self.ask.stage != Stage::Look;
        let answer = store.admit(&self.ask).await;
        lines::decided(&self.ask, &answer);
        let mut answer = answer.map_err(|error| Error::StoreUnavailable(Arc::new(error)))?;
        self.is_standing = match answer.decision {
            // The claim settles the call.
            Decision::Granted { .. } => false,
            Decision::AskAgain { .. } => true,
            _ => store.may_stand(&self.ask),
        };
        let Order { route, notes, .. } = self.order;
        notes.note_levels(levels.note(route, &answer.quota));
        metrics.note_factor(&route.upstream.name, answer.quota.factor);
        match &mut answer.decision {
            Decision::Granted { .. } => refusals.admitted(route, &answer.quota),
            Decision::Refused(Refused { limit: Limit::TenantRate, retry_after }) => {
                *retry_after = refusals.note(route, &answer.quota, *retry_after);
            }
            _ => {}
        }
        Ok(answer)
    }

    /// Waits for the call's slot. The jitter keeps calls of several replicas apart. A call that
    /// comes back much later than its hint has lost its place.
    async fn wait_in_queue(&mut self, after: Duration) {
        let wait = jittered(after);
        self.endpoint.queue_for(wait).await;
        self.waited += wait;
    }

    /// Another claim of the record is in flight, on another replica: asks again until it ends.
    async fn wait_for_duplicate(&mut self, lease: Duration) -> Result<(), Error> {
        if self.polls.is_none() {
            let place = self.gateway.waiting.enter(&self.order.route);
            let place = place.inspect_err(|_| self.report(Disposition::InFlight, false))?;
            self.polls = Some((place, polls()));
        }
        let left = self.heard_by.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::RequestInProgress { retry_after: lease.min(MAX_DUPLICATE_HINT) });
        }
        let next = self.polls.as_mut().and_then(|(_, polls)| polls.next()).unwrap_or(LAST_POLL);
        let pause = next.min(lease + Duration::from_millis(1)).min(left);
        tokio::time::sleep(pause).await;
        self.waited += pause;
        Ok(())
    }

    /// The stored result; `None`: it cannot be opened, and the next ask takes the record over.
    fn open(&mut self, sealed: Vec<u8>) -> Result<Option<Participant>, Error> {
        let Some(record) = self.ask.record.as_ref() else { return Ok(None) };
        match self.order.keys.open(&record.name, &record.fingerprint, &sealed) {
            Ok(participant) => Ok(Some(participant)),
            Err(error) => {
                tracing::warn!(%error, "a stored result cannot be opened, the call runs anew");
                self.distrust(Distrust::Sealed, sealed)?;
                Ok(None)
            }
        }
    }

    /// The record has another fingerprint: it is compared at the version that it was written at.
    fn compare(
        &mut self,
        mac: &str,
        fingerprint: &str,
        upstream_token: &str,
        version: u8,
    ) -> Result<(), Error> {
        let Order { request, route, keys, retention, .. } = self.order;
        let name = self.ask.record.as_ref().map_or("", |record| &record.name);
        if !keys.verify(name, version, fingerprint, upstream_token, mac) {
            return self.distrust(Distrust::Mac, mac.as_bytes().to_vec());
        }
        let Route { tenant, upstream, .. } = route;
        match keys.record_at(version, &tenant.name, &upstream.name, request, *retention) {
            Some(same) if *same.fingerprint == *fingerprint => {
                self.ask.record = Some(same);
                Ok(())
            }
            Some(_) => {
                self.report(Disposition::Reused, false);
                Err(Error::ClientTokenReused)
            }
            // A newer version of this program wrote it, and can compare it.
            None => Err(in_progress()),
        }
    }

    /// The next ask takes the record over if it has not changed since.
    fn distrust(&mut self, cause: Distrust, seen: Vec<u8>) -> Result<(), Error> {
        self.gateway.metrics.count_distrusted(cause);
        self.distrusts += 1;
        let most = self.distrusts <= MAX_DISTRUSTS;
        let record = self.ask.record.as_mut().filter(|_| most).ok_or_else(in_progress)?;
        record.distrust = Some(seen);
        Ok(())
    }

    fn has_distrusted(&self) -> bool {
        self.ask.record.as_ref().is_some_and(|record| record.distrust.is_some())
    }

    fn refuse(&self, Refused { limit, retry_after }: Refused) -> Error {
        self.report(refused_by(limit), false);
        Error::Limited { limit, retry_after }
    }

    fn report_grant(&self, shadowed: Option<Refused>, quota: Quota) {
        let Order { route, .. } = self.order;
        match shadowed {
            Some(refused) => self.report(refused_by(refused.limit), true),
            None => self.report(Disposition::Admitted, false),
        }
        let Route { tenant, upstream, .. } = route;
        if quota.remaining < tenant.limits.burst.div_ceil(5) {
            self.gateway.metrics.count_near_limit(&tenant.name, &upstream.name);
        }
        self.gateway.metrics.record_wait(&upstream.name, self.waited);
    }

    fn report(&self, disposition: Disposition, shadow: bool) {
        self.order.report(disposition, shadow, &self.gateway.metrics);
    }
}

impl<S: Store> Drop for Asking<'_, S> {
    fn drop(&mut self) {
        if !self.is_standing {
            return;
        }
        // A caller that hung up has used its rate. A call that the deadline, a limit, the store or
        // the gateway ended gets it back.
        let refund = self.has_ended
            || Instant::now() + LEAST_LEFT >= self.order.deadline
            || self.gateway.expired.is_cancelled();
        let settlement = Settlement {
            scope: self.ask.scope.clone(),
            nonce: self.ask.nonce,
            record: self.ask.record.as_ref().map(|record| record.name.clone()),
            verdict: Verdict::Release { refund },
            throttled: None,
        };
        self.gateway.settle_later(settlement, self.order.permit.clone());
    }
}

/// The longest time that a call may queue, by its remaining time and the usual time of an attempt.
/// After a longer wait, the participant would arrive when the caller has left. The jitter of the
/// wait comes on top.
pub(super) fn longest_wait(left: Duration, attempt: Duration) -> Duration {
    let usable = left.saturating_sub(attempt + AROUND_ATTEMPT);
    (usable / 11 * 10).max(usable.saturating_sub(MAX_JITTER))
}

/// A wait in the queue, with its jitter.
pub(super) fn jittered(wait: Duration) -> Duration {
    wait + (wait / 10).min(MAX_JITTER).mul_f64(fastrand::f64())
}

/// Three quarters of the caller's time: the last quarter is left for the call.
pub(super) fn store_patience(left: Duration) -> Duration {
    (left * 3 / 4).min(MAX_STORE_PATIENCE)
}

fn no_randomness(error: NoRandomness) -> Error {
    Error::GatewayBug { detail: error.to_string(), sent: Sent::No }
}

/// Jittered, so that the replicas do not ask at the same time.
fn polls() -> backon::ExponentialBackoff {
    let polls = ExponentialBuilder::new().with_min_delay(FIRST_POLL).with_max_delay(LAST_POLL);
    polls.with_jitter().without_max_times().build()
}

/// The time between two asks about another replica's call.
const FIRST_POLL: Duration = Duration::from_millis(20);
const LAST_POLL: Duration = Duration::from_millis(200);

/// Well below the 250 ms after which the store drops a queued call.
const MAX_JITTER: Duration = Duration::from_millis(100);

/// The time of a call besides its wait and its attempt: two round trips to the store, and the
/// answer to its caller.
const AROUND_ATTEMPT: Duration = Duration::from_millis(10);

/// Redis Cluster moves a slot with a day of records in a few seconds. A call waits this long at
/// most.
const MAX_STORE_PATIENCE: Duration = Duration::from_secs(15);

/// A corrupt record is taken over at most this many times. Then the call is answered
/// REQUEST_IN_PROGRESS.
const MAX_DISTRUSTS: u32 = 3;
