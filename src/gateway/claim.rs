//! The claim of a granted call in the store, from the grant to the settlement.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::asking::{jittered, longest_wait, store_patience};
use super::order::{Created, Order, Outcome};
use super::{Gateway, in_progress, lines};
use crate::admission::{
    Ask, Decision, Moment, RENEW_EVERY, RecordAsk, Refused, SETTLE_ALLOWANCE, Settled, Settlement,
    Stage, Store, Verdict,
};
use crate::connect::is_worth_it;
use crate::domain::{Participant, UpstreamToken};
use crate::error::{Aftermath, Error, Fault, UpstreamError};

/// A granted call's claim: its record, its place in flight, and its charges.
pub(super) struct Claim<S: Store> {
    gateway: Arc<Gateway<S>>,
    /// The ask that was granted.
    ask: Arc<Ask>,
    /// When the last attempt was granted, by the upstream's clock.
    granted: Moment,
    /// The last attempt was throttled, and the store does not know it yet.
    owes_throttle: bool,
    /// The token for Connect: the same for all attempts, and for all claims of the record.
    pub token: UpstreamToken,
}

impl<S: Store> Claim<S> {
    pub(crate) fn new(
        gateway: &Arc<Gateway<S>>,
        ask: Ask,
        at: Moment,
        token: UpstreamToken,
    ) -> Self {
        let (gateway, ask) = (Arc::clone(gateway), Arc::new(ask));
        Self { gateway, ask, granted: at, owes_throttle: false, token }
    }

    /// Reports to the store at once that Connect throttled the last attempt: the wait before the
    /// next one may be long. If this report fails, the next ask or the settlement repeats it.
    pub(crate) async fn tell_throttle(&mut self) {
        self.owes_throttle = true;
        let look = Ask {
            stage: Stage::Look,
            record: None,
            throttled: Some(self.granted),
            patience: Duration::ZERO,
            ..(*self.ask).clone()
        };
        lines::decided(&look, &self.gateway.store.admit(&look).await);
    }

    /// Pays for a further attempt, which takes about the time `attempt`. An error says why there is
    /// no attempt.
    pub(crate) async fn pay(
        &mut self,
        order: &Order,
        attempt: Duration,
        failed: &UpstreamError,
    ) -> Result<(), Error> {
        let (deadline, upstream) = (order.deadline, &order.route.upstream);
        let queue_until = Instant::now() + upstream.max_wait;
        let stage = Stage::Attempt { uncertain: failed.may_have_executed() };
        let mut ask = Ask { stage, ..(*self.ask).clone() };
        self.owes_throttle = failed.fault == Fault::Throttled;
        loop {
            let now = Instant::now();
            if !is_worth_it(now, deadline) {
                return Err(order.out_of_time(failed.sent));
            }
            let queued_until = queue_until.saturating_duration_since(now);
            ask.wait = queued_until.min(longest_wait(deadline - now, attempt));
            ask.patience = store_patience(deadline - now);
            ask.throttled = self.owes_throttle.then_some(self.granted);
            let answer = self.gateway.store.admit(&ask).await;
            lines::decided(&ask, &answer);
            let answer = answer.map_err(|error| Error::StoreUnavailable(Arc::new(error)))?;
            self.owes_throttle = false;
            match answer.decision {
                // The deadline may have passed during the payment. `granted` stays as it was: no
                // attempt follows, and a later throttle report would name the wrong attempt.
                Decision::Granted { .. } if !is_worth_it(Instant::now(), deadline) => {
                    return Err(order.out_of_time(failed.sent));
                }
                Decision::Granted { at, .. } => {
                    self.granted = at;
                    return Ok(());
                }
                Decision::AskAgain { after } => {
                    sleep(jittered(after)).await;
                }
                Decision::Refused(Refused { limit, retry_after }) => {
                    return Err(Error::Limited { limit, retry_after });
                }
                // The claim now belongs to another call, which has continued.
                Decision::Lost
                | Decision::Busy { .. }
                | Decision::Mismatch { .. }
                | Decision::Replay { .. }
                | Decision::Tombstone => return Err(in_progress()),
            }
        }
    }

    /// Renews the leases every second, for as long as the call may take at most. Never ends.
    pub(crate) fn renewal(&self, order: &Order) -> impl Future<Output = ()> + Send + use<S> {
        let (gateway, ask) = (Arc::clone(&self.gateway), Arc::clone(&self.ask));
        let until = order.deadline + order.route.upstream.attempt_timeout + SETTLE_ALLOWANCE;
        async move {
            loop {
                sleep(RENEW_EVERY).await;
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() || !renew(&gateway, &ask, left).await {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Closes the claim. The caller does not see an error of the store: settling goes on in the
    /// background.
    pub(crate) async fn settle(self, order: &Order, outcome: &Outcome, hung_up: bool) {
        let verdict = match outcome {
            Ok(Created { participant, .. }) => seal(self.ask.record.as_ref(), order, participant),
            Err(error) => match error.aftermath() {
                Aftermath::Release { unsent } => Verdict::Release { refund: unsent && !hung_up },
                Aftermath::Uncertain => Verdict::Uncertain,
            },
        };
        let throttled = self.owes_throttle || outcome.as_ref().is_err_and(is_throttle);
        let gives_back = matches!(verdict, Verdict::Release { refund: true });
        let settlement = Settlement {
            scope: self.ask.scope.clone(),
            nonce: self.ask.nonce,
            record: self.ask.record.as_ref().map(|record| record.name.clone()),
            verdict,
            throttled: throttled.then_some(self.granted),
        };
        let settled = self.gateway.store.settle(&settlement).await;
        lines::settled(&settlement, &settled);
        if gives_back && matches!(settled, Ok(Settled::Closed)) {
            order.notes.note_levels(self.gateway.levels.give_back(&order.route));
            self.gateway.refusals.given_back(&order.route.key());
        }
    }
}

/// Whether the claim is still this call's, as far as the store reports.
async fn renew<S: Store>(gateway: &Gateway<S>, ask: &Ask, left: Duration) -> bool {
    let stage = Stage::Renew;
    let lease = ask.lease.min(left);
    let ask = Ask { stage, lease, patience: Duration::ZERO, throttled: None, ..ask.clone() };
    // Boxed: few calls run so long, and all would carry its memory.
    let answer = Box::pin(gateway.store.admit(&ask)).await;
    lines::decided(&ask, &answer);
    match answer {
        Ok(answer) => matches!(answer.decision, Decision::Granted { .. }),
        Err(_) => true,
    }
}

fn seal(record: Option<&RecordAsk>, order: &Order, participant: &Participant) -> Verdict {
    let Some(record) = record else { return Verdict::Release { refund: false } };
    match order.keys.seal(&record.name, &record.fingerprint, participant) {
        Ok(sealed) => Verdict::Done { sealed, expires: participant.expiry },
        Err(error) => {
            tracing::error!(%error, "a result cannot be sealed");
            Verdict::Uncertain
        }
    }
}

fn is_throttle(error: &Error) -> bool {
    matches!(error, Error::Upstream(UpstreamError { fault: Fault::Throttled, .. }))
}
