//! The whole life of a call: circuit, asks, attempts, settlement.
//!
//! Before its grant, a call lives in the caller's future, and ends with it. After its grant, it
//! runs in its own task. A caller that hangs up, or whose deadline passes, then leaves no claim
//! behind. The current attempt finishes within one `attempt_timeout`, and no new attempt begins.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::retry::budget::Budget;
use tracing::Instrument;

use super::asking::{Admitted, Asking};
use super::claim::Claim;
use super::flights::Lead;
use super::order::{Created, Order, Outcome, Route};
use super::{Gateway, patience};
use crate::admission::{RecordAsk, Store};
use crate::connect::{Endpoint, Pass, Retry, is_worth_it};
use crate::error::{Error, Fault, Sent};

/// One call, before and after its grant.
pub(super) struct Call<S: Store> {
    gateway: Arc<Gateway<S>>,
    endpoint: Arc<Endpoint>,
    /// Boxed: a call is moved several times.
    order: Box<Order>,
    /// The duty to report the outcome to the call's duplicates in this process.
    lead: Option<Lead>,
    /// Cancelled when the caller has left: then no further attempt starts.
    left: CancellationToken,
    /// The latest time at which an answer may wait for its settlement.
    heard_by: Instant,
}

impl<S: Store> Call<S> {
    pub(crate) fn new(
        gateway: &Arc<Gateway<S>>,
        order: Box<Order>,
        lead: Option<Lead>,
    ) -> Result<Self, Error> {
        let upstream = &order.route.upstream.name;
        let endpoint = gateway.endpoints.get(upstream).cloned().ok_or_else(|| {
            Error::GatewayBug { detail: format!("no endpoint of {upstream}"), sent: Sent::No }
        })?;
        let (gateway, left) = (Arc::clone(gateway), CancellationToken::new());
        let heard_by = patience(order.deadline);
        Ok(Self { gateway, endpoint, order, lead, left, heard_by })
    }

    /// Runs the call to its end.
    pub(crate) async fn run(self, record: Option<RecordAsk>) -> Outcome {
        let (claim, pass) = match self.admit(record).await {
            Ok((Admitted::Granted(claim), pass)) => (claim, pass),
            Ok((Admitted::Replayed(participant), _)) => {
                return self.land(Ok(Created { participant, replayed: true }));
            }
            Err(error) => return self.land(Err(error)),
        };
        let _leaves = self.left.clone().drop_guard();
        let (answer, answered) = oneshot::channel();
        let (span, tasks) = (self.order.span.clone(), self.gateway.tasks.clone());
        // Boxed: each of the wrappers, and the runtime's task, would move it.
        let carrying = Box::pin(self.carry(claim, pass, answer));
        tasks.spawn(span.scope(carrying).in_current_span());
        answered
            .await
            .unwrap_or_else(|_| Err(bug("the call's task ended without an answer")))
    }

    /// Asks until the call may be sent, or has its answer. If the circuit is open, a call without a
    /// record is refused. A call with a record may still have a result.
    async fn admit(&self, record: Option<RecordAsk>) -> Result<(Admitted<S>, Option<Pass>), Error> {
        let Self { gateway, endpoint, order, .. } = self;
        let (pass, open) = match endpoint.enter() {
            Ok(pass) => (Some(pass), None),
            Err(retry_after) if record.is_none() => return Err(Error::CircuitOpen { retry_after }),
            Err(retry_after) => (None, Some(retry_after)),
        };
        let mut asking = Asking::new(gateway, endpoint, order, record, open)?;
        Ok((asking.until_answered().await?, pass))
    }

    /// Carries a granted call to its settlement. The answer waits for the settlement, but never
    /// beyond the caller's patience. Then the answer is sent, and the settlement goes on.
    async fn carry(
        self,
        mut claim: Claim<S>,
        pass: Option<Pass>,
        answer: oneshot::Sender<Outcome>,
    ) {
        let renewal = claim.renewal(&self.order);
        let (outcome, hung_up) = tokio::select! {
            biased;
            ended = AssertUnwindSafe(self.attempts(&mut claim, pass)).catch_unwind() => {
                ended.unwrap_or_else(|_| (Err(bug("a panic while the call was under way")), false))
            }
            () = self.gateway.expired.cancelled() => (Err(self.cut_off()), false),
            () = renewal => (Err(bug("a renewal that ends")), false),
        };
        let landed = outcome.clone();
        let settling = claim.settle(&self.order, &outcome, hung_up);
        let mut settling = std::pin::pin!(settling);
        let is_settled = timeout_at(self.heard_by, settling.as_mut()).await.is_ok();
        let _ = answer.send(self.land(landed));
        if !is_settled {
            settling.await;
        }
    }

    /// Makes attempts until there is a participant, or a reason to stop. Also returns whether the
    /// caller hung up before any byte was sent.
    async fn attempts(&self, claim: &mut Claim<S>, pass: Option<Pass>) -> (Outcome, bool) {
        let Order { request, route: Route { tenant, upstream, .. }, deadline, .. } = &*self.order;
        let Some(pass) = pass else { return (Err(bug("a grant to a look")), false) };
        if !is_worth_it(Instant::now(), *deadline) || self.left.is_cancelled() {
            return (Err(self.order.out_of_time(Sent::No)), self.has_hung_up());
        }
        let mut attempts = self.endpoint.attempts(&self.order.notes, &self.order.span);
        let budget = self.endpoint.retry_budget(&tenant.name);
        let mut retry = Retry::new(upstream.max_attempts);
        loop {
            let attempt = attempts.next(request, &claim.token, upstream.attempt_timeout);
            let mut failed = match attempt.await {
                Ok(participant) => {
                    pass.answered();
                    attempts.log(None);
                    return (Ok(Created { participant, replayed: false }), false);
                }
                Err(failed) => failed,
            };
            let wait = retry.after(&mut failed);
            attempts.log(wait);
            let due = wait.map(|wait| Instant::now() + wait);
            if let Some(due) = due {
                if failed.fault == Fault::Throttled {
                    claim.tell_throttle().await;
                }
                let waited = !self.is_over(due) && budget.withdraw() && self.waits_until(due).await;
                if waited && self.pays(claim, &failed).await {
                    continue;
                }
                failed.due = self.is_over(due).then_some(due);
            }
            let hung_up = failed.due.is_some() && self.has_hung_up();
            pass.ended_with(&failed, hung_up, Instant::now());
            return (Err(failed.into()), false);
        }
    }

    /// Whether a further attempt is paid for, and the caller has not left.
    async fn pays(&self, claim: &mut Claim<S>, failed: &crate::error::UpstreamError) -> bool {
        let attempt_timeout = self.order.route.upstream.attempt_timeout;
        let attempt = self.endpoint.tempo().p90().min(attempt_timeout);
        let paid = tokio::select! {
            biased;
            () = self.left.cancelled() => return false,
            paid = claim.pay(&self.order, attempt, failed) => paid,
        };
        if let Err(error) = &paid {
            tracing::debug!(error = error as &dyn std::error::Error, "no further attempt");
        }
        paid.is_ok()
    }

    /// Whether the caller has left, or has too little time for an attempt that starts then.
    fn is_over(&self, due: Instant) -> bool {
        self.left.is_cancelled() || !is_worth_it(due.max(Instant::now()), self.order.deadline)
    }

    /// Waits, unless the caller leaves.
    async fn waits_until(&self, due: Instant) -> bool {
        tokio::select! {
            biased;
            () = self.left.cancelled() => false,
            () = sleep_until(due) => true,
        }
    }

    /// Whether the caller left before its deadline.
    fn has_hung_up(&self) -> bool {
        self.left.is_cancelled() && Instant::now() < self.order.deadline
    }

    /// `server.drain_timeout` ended while the call ran.
    fn cut_off(&self) -> Error {
        let Order { notes, .. } = &*self.order;
        tracing::warn!(request_id = notes.request_id(), "the drain cuts the call off");
        Error::ShuttingDown { sent: self.order.sent(), repeatable: self.order.is_repeatable() }
    }

    /// Reports the outcome to the call's duplicates in this process.
    fn land(&self, outcome: Outcome) -> Outcome {
        if let Some(lead) = &self.lead {
            lead.land(outcome.clone());
        }
        outcome
    }
}

fn bug(detail: &str) -> Error {
    Error::GatewayBug { detail: detail.to_owned(), sent: Sent::Maybe }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::memory::MemoryStore;

    fn of_four<A, B, C, D, F: Future>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// What a granted call keeps until it has ended. Raise a bound on purpose only.
    #[test]
    fn the_task_of_a_granted_call_is_small() {
        let task = of_four(Call::<MemoryStore>::carry as fn(_, _, _, _) -> _);
        assert!(task <= 3 * 1024 + 256, "{task} bytes from the grant to the settlement");
    }
}
