//! One call, from admission to settlement, in its own task.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::claim::{Admitted, Claim};
use super::life::Life;
use super::{Created, Order, Outcome};
use crate::connect::{Pass, Payer, Terms};
use crate::error::{Error, Sent, UpstreamError};

impl Life {
    pub async fn run<P: Send + Sync>(self, order: Order<P>) -> Outcome {
        let pass = self.attempts.enter();
        // A call without a record has nothing to look up: an open circuit is its answer.
        let open = match (&pass, &self.record) {
            (Err(retry_after), None) => {
                return Err(Arc::new(Error::CircuitOpen { retry_after: *retry_after }));
            }
            (Err(retry_after), Some(_)) => Some(*retry_after),
            (Ok(_), _) => None,
        };
        let admitted = self.admit(&order, open.is_none()).await;
        let (mut claim, pass) = match (admitted, pass) {
            (Ok(Admitted::Granted(claim)), Ok(pass)) => (*claim, pass),
            (Ok(Admitted::Granted(claim)), Err(retry_after)) => {
                let outcome = Err(Arc::new(Error::CircuitOpen { retry_after }));
                self.settle(*claim, &outcome, false, &order).await;
                return outcome;
            }
            (Ok(Admitted::Replayed(participant)), pass) => {
                unused(pass);
                return Ok(Created { participant, replayed: true });
            }
            (Err(error), pass) => {
                unused(pass);
                return match (&*error, open) {
                    (Error::CircuitOpen { .. }, Some(retry_after)) => {
                        Err(Arc::new(Error::CircuitOpen { retry_after }))
                    }
                    _ => Err(error),
                };
            }
        };

        let is_late = Instant::now() >= order.deadline;
        let hung_up = self.left.is_cancelled() && !is_late;
        let outcome = if is_late || hung_up {
            pass.unused();
            Err(Arc::new(Error::DeadlineExceeded { sent: Sent::No }))
        } else {
            let attempted =
                AssertUnwindSafe(self.attempt(&mut claim, &order, pass)).catch_unwind().await;
            attempted.unwrap_or_else(|_| {
                let detail = "a panic while the call was under way".to_owned();
                Err(Arc::new(Error::GatewayBug { detail, sent: Sent::Maybe }))
            })
        };
        self.settle(claim, &outcome, hung_up, &order).await;
        outcome
    }

    async fn attempt<P: Sync>(
        &self,
        claim: &mut Claim,
        order: &Order<P>,
        pass: Pass<'_>,
    ) -> Outcome {
        let upstream = &order.route.upstream;
        let terms = Terms {
            deadline: order.deadline,
            attempt_timeout: upstream.attempt_timeout,
            max_attempts: upstream.max_attempts,
            left: self.left.clone(),
        };
        let token = claim.token.clone();
        let mut payer = FromClaim { life: self, claim, order };
        let participant = self
            .attempts
            .run(pass, &order.request, &token, &terms, &order.call, &mut payer)
            .await;
        participant
            .map(|participant| Created { participant, replayed: false })
            .map_err(|error| Arc::new(error.into()))
    }
}

/// Further attempts are paid for by asks of the call's own claim.
struct FromClaim<'a, P> {
    life: &'a Life,
    claim: &'a mut Claim,
    order: &'a Order<P>,
}

impl<P: Sync> Payer for FromClaim<'_, P> {
    async fn throttled(&mut self) {
        self.life.throttled(self.claim).await;
    }

    async fn pay(&mut self, failed: &UpstreamError) -> bool {
        let paid = self.life.again(self.claim, self.order, failed).await;
        let request_id = self.order.call.request_id();
        paid.inspect_err(|error| tracing::debug!(request_id, %error, "no further attempt"))
            .is_ok()
    }
}

/// The leave to make a call was not used.
fn unused<E>(pass: Result<Pass<'_>, E>) {
    if let Ok(pass) = pass {
        pass.unused();
    }
}
