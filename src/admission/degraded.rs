//! A store that can be lost, and what then decides.
//!
//! A lost primary costs one timeout once, not per call: after three failures in a row a breaker
//! opens, calls are decided locally or rejected without a wait, and one background probe a second
//! looks for its return. A call stays with the store that granted it; what cannot be settled in
//! time is settled in the background. A primary that only moves a slot is not lost: its calls wait
//! for it, as long as their callers can.

mod breaker;
mod claims;
mod health;
mod local;
mod primary;
mod settling;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::{Answer, Ask, Decision, Quota, Scope, Settled, Settlement, Stage, Store, StoreError};
use breaker::{Breaker, Pass};
use claims::{Claim, Claims, Hold, Last};
pub use health::{Failure, Operation, StoreHealth};
pub use local::Fresh;
use local::Local;

/// What happens to calls while the primary store is lost.
pub enum OnLoss {
    /// They are decided by a store of this process's own, at its share of every limit.
    Local {
        /// The most replicas that run: each enforces 1/replicas.
        replicas: NonZeroU32,
        /// Makes the store of one outage.
        fresh: Fresh,
    },
    /// They are refused with the primary's error.
    Reject,
}

/// A [`Store`] over a primary that can be lost.
///
/// An error of [`Store::settle`] here means that settling goes on in the background, or that
/// nothing is left to settle it on: there is no use in repeating it.
pub struct Guarded(Arc<Inner>);

struct Inner {
    primary: Arc<dyn Store>,
    timeout: Duration,
    local: Option<Local>,
    breaker: Breaker,
    claims: Claims,
    health: Arc<StoreHealth>,
    /// Something was asked of the primary since the last idle look.
    asked: AtomicBool,
    tasks: TaskTracker,
}

impl Guarded {
    /// Takes the primary into use; never fails, and takes one timeout at most. A primary that is
    /// not there yet counts as lost, so that not even the first call waits for it.
    ///
    /// `timeout`: for one operation on the primary, whatever the connection is doing. The primary
    /// keeps it itself; one that does not is cut off a fifth later.
    pub async fn start(primary: Arc<dyn Store>, timeout: Duration, on_loss: OnLoss) -> Self {
        let local = match on_loss {
            OnLoss::Local { replicas, fresh } => Some(Local::new(replicas, fresh)),
            OnLoss::Reject => None,
        };
        let health = Arc::new(StoreHealth::default());
        let mut inner = Inner {
            primary,
            timeout,
            local,
            breaker: Breaker::new(false),
            claims: Claims::default(),
            health,
            asked: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        };
        let reached = inner.probe().await;
        if let Err(error) = &reached {
            inner.breaker = Breaker::new(true);
            inner.not_reached(error);
        }
        let inner = Arc::new(inner);
        inner.watch_idle();
        if reached.is_err() {
            inner.watch();
        }
        Self(inner)
    }

    /// For telemetry.
    #[must_use]
    pub fn health(&self) -> Arc<StoreHealth> {
        Arc::clone(&self.0.health)
    }

    /// Calls can be served: the primary was reached once, or is not needed. Stays true when it is
    /// lost later.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.0.local.is_some() || self.0.health.reached()
    }

    /// Waits until everything is settled that still goes on in the background, at most for `limit`.
    /// Returns how many settlements were left open.
    pub async fn drain(&self, limit: Duration) -> usize {
        self.0.tasks.close();
        let _unfinished = timeout(limit, self.0.tasks.wait()).await;
        self.0.tasks.len()
    }
}

#[async_trait]
impl Store for Guarded {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        let inner = &self.0;
        let held = inner.claims.find(ask.nonce);
        // What a call that was granted says or asks goes to the store that granted it.
        let goes_on = matches!(ask.stage, Stage::Attempt { .. } | Stage::Look);
        let stays = goes_on && held.as_ref().is_some_and(|claim| claim.last == Last::Local);
        let gives_up = Instant::now() + ask.patience;
        while !stays && let Some(pass) = inner.breaker.enter() {
            let lost = match inner.admit_on_primary(pass, ask, held.as_ref()).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_passing() && Instant::now() < gives_up => {
                    sleep(PASSING_POLL.mul_f64(0.5 + fastrand::f64())).await;
                    continue;
                }
                Err(error) => error,
            };
            return inner.admit_locally(ask, held, Hold::Maybe).await.unwrap_or(Err(lost));
        }
        inner.admit_locally(ask, held, Hold::No).await.unwrap_or_else(|| Err(lost()))
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        self.0.settle(settlement).await
    }

    async fn quota(&self, scope: &Scope) -> Result<Quota, StoreError> {
        let inner = &self.0;
        let error = match inner.breaker.enter() {
            Some(pass) => match inner.ask(Operation::Quota, pass, inner.primary.quota(scope)).await
            {
                Ok(quota) => return Ok(quota),
                Err(error) => error,
            },
            None => lost(),
        };
        match &inner.local {
            Some(local) => local.store().quota(&local.share(scope)).await,
            None => Err(error),
        }
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.0.probe().await
    }
}

impl Inner {
    async fn admit_on_primary(
        self: &Arc<Self>,
        pass: Pass,
        ask: &Ask,
        held: Option<&Claim>,
    ) -> Result<Answer, StoreError> {
        let foreign = held.is_some_and(|claim| claim.last == Last::Local);
        let own = foreign.then(|| Ask { throttled: None, ..ask.clone() });
        let asked = Instant::now();
        let answer = self
            .ask(Operation::Admit, pass, self.primary.admit(own.as_ref().unwrap_or(ask)))
            .await?;
        if matches!(answer.decision, Decision::Granted { .. }) {
            let local = held.and_then(|claim| claim.local.clone());
            let lease_ends = asked + ask.lease;
            self.claims.put(
                ask.nonce,
                Claim { primary: Hold::Yes, local, last: Last::Primary, lease_ends },
            );
        }
        Ok(answer)
    }

    /// Nothing where calls are to be rejected. `primary`: what this ask may have left there.
    async fn admit_locally(
        &self,
        ask: &Ask,
        held: Option<Claim>,
        primary: Hold,
    ) -> Option<Result<Answer, StoreError>> {
        let local = self.local.as_ref()?;
        let mut ask = Ask { scope: local.share(&ask.scope), ..ask.clone() };
        let same = held
            .as_ref()
            .filter(|claim| claim.last == Last::Local)
            .and_then(|claim| claim.local.clone());
        let store = match same {
            Some(store) if matches!(ask.stage, Stage::Attempt { .. } | Stage::Look) => store,
            _ => {
                // The claim is another store's, as is the clock: what is an attempt there is a
                // first ask here.
                ask.throttled = None;
                ask.stage = match ask.stage {
                    Stage::Again | Stage::Attempt { again: true, .. } => Stage::Again,
                    Stage::First | Stage::Attempt { again: false, .. } => Stage::First,
                    Stage::Look => Stage::Look,
                };
                local.store()
            }
        };
        let asked = Instant::now();
        let answer = store.admit(&ask).await;
        if let Ok(Answer { decision: Decision::Granted { .. }, .. }) = &answer {
            let primary = held.map_or(primary, |claim| claim.primary.max(primary));
            let lease_ends = asked + ask.lease;
            self.claims.put(
                ask.nonce,
                Claim { primary, local: Some(store), last: Last::Local, lease_ends },
            );
        }
        Some(answer)
    }

    async fn settle(self: &Arc<Self>, settlement: &Settlement) -> Result<Settled, StoreError> {
        // Unknown here: settled before, or so long ago that its lease has ended. One try does no
        // harm.
        let claim = self.claims.take(settlement.nonce);
        let claim = claim.unwrap_or_else(|| Claim {
            primary: Hold::Maybe,
            local: None,
            last: Last::Primary,
            lease_ends: Instant::now(),
        });
        let throttled_on = |last| if claim.last == last { settlement.throttled } else { None };
        let on_primary =
            Settlement { throttled: throttled_on(Last::Primary), ..settlement.clone() };

        if let (Some(store), Some(local)) = (&claim.local, &self.local) {
            // The primary has failed this call before: the answer does not wait for it again.
            if claim.primary != Hold::No {
                self.settle_later(&on_primary, claim.primary, claim.lease_ends);
            }
            let throttled = throttled_on(Last::Local);
            let scope = local.share(&settlement.scope);
            return store.settle(&Settlement { scope, throttled, ..settlement.clone() }).await;
        }

        let error = match self.breaker.enter() {
            Some(pass) => match self.settle_once(pass, &on_primary).await {
                Ok(settled) => return Ok(settled),
                Err(error) => error,
            },
            None => lost(),
        };
        self.settle_later(&on_primary, claim.primary, claim.lease_ends);
        Err(error)
    }
}

fn lost() -> StoreError {
    StoreError { what: "lost".into(), source: None }
}

/// Between two asks of a store that asks for it; jittered.
const PASSING_POLL: Duration = Duration::from_millis(40);
