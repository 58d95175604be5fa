//! A store that can be lost, and what decides while it is.
//!
//! A lost primary costs three timeouts at most, once, and not one a call: after three failures in a
//! row a guard closes the way to it. Calls are then decided locally or rejected without a wait, and
//! one background probe a second looks for its return. A call stays with the store that granted it;
//! what cannot be settled in time is settled in the background. A primary that moves a slot to
//! another node is not lost: its calls wait for it, as long as their callers can.

mod guard;
mod health;
mod holdings;
mod local;
mod primary;
mod settling;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::{
    Answer, Ask, Decision, Scope, Settled, Settlement, Stage, Store, StoreError, StoreLevels,
};
use guard::{Guard, Leave};
pub use health::StoreHealth;
use holdings::{Hold, Holding, Holdings, Last};
pub use local::Fresh;
use local::Local;

/// What happens to calls while the primary store is lost.
pub enum OnLoss<L> {
    /// They are decided by a store of this process's own, at its share of every limit.
    Local {
        /// The most replicas that run: each enforces 1/replicas.
        replicas: NonZeroU32,
        /// Makes the store of one outage.
        fresh: Fresh<L>,
    },
    /// They are refused with the primary's error.
    Reject,
}

/// A [`Store`] over a primary that can be lost.
///
/// An error of [`Store::settle`] here means that settling goes on in the background, or that
/// nothing is left to settle it on: there is no use in repeating it.
pub struct Guarded<P, L>(Arc<Inner<P, L>>);

struct Inner<P, L> {
    primary: P,
    timeout: Duration,
    local: Option<Local<L>>,
    guard: Guard,
    holdings: Holdings<L>,
    health: Arc<StoreHealth>,
    /// Something was asked of the primary since the last idle look.
    asked: AtomicBool,
    tasks: TaskTracker,
}

impl<P: Store, L: Store> Guarded<P, L> {
    /// Takes the primary into use; never fails, and takes one timeout at most. A primary that is
    /// not there yet counts as lost, so that not even the first call waits for it.
    ///
    /// `timeout`: for one operation on the primary, whatever the connection is doing. The primary
    /// keeps it itself; one that does not is cut off a fifth later.
    pub async fn start(primary: P, timeout: Duration, on_loss: OnLoss<L>) -> Self {
        let local = match on_loss {
            OnLoss::Local { replicas, fresh } => Some(Local::new(replicas, fresh)),
            OnLoss::Reject => None,
        };
        let mut inner = Inner {
            primary,
            timeout,
            local,
            guard: Guard::new(false),
            holdings: Holdings::default(),
            health: Arc::default(),
            asked: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        };
        let reached = inner.probe().await;
        if let Err(error) = &reached {
            inner.guard = Guard::new(true);
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
    pub fn is_ready(&self) -> bool {
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

impl<P: Store, L: Store> Store for Guarded<P, L> {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        let inner = &self.0;
        let held = inner.holdings.find(ask.nonce);
        // What a granted call says or asks goes to the store that granted it.
        let is_granted = matches!(ask.stage, Stage::Attempt { .. } | Stage::Renew | Stage::Look);
        let stays_local = is_granted && held.as_ref().is_some_and(Holding::is_local);
        let gives_up = Instant::now() + ask.patience;
        while !stays_local && let Some(leave) = inner.guard.enter() {
            let lost = match inner.admit_on_primary(leave, ask, held.as_ref()).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_passing() && Instant::now() < gives_up => {
                    sleep(PASSING_POLL.mul_f64(0.5 + fastrand::f64())).await;
                    continue;
                }
                Err(error) => error,
            };
            return inner.admit_locally(ask, held, Hold::Maybe).await.unwrap_or(Err(lost));
        }
        let locally = inner.admit_locally(ask, held, Hold::No).await;
        locally.unwrap_or(Err(StoreError::Lost))
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        self.0.settle(settlement).await
    }

    async fn levels_of(&self, scope: &Scope) -> Result<StoreLevels, StoreError> {
        let inner = &self.0;
        let error = match inner.guard.enter() {
            Some(leave) => match inner.ask(leave, Box::pin(inner.primary.levels_of(scope))).await {
                Ok(levels) => return Ok(levels),
                Err(error) => error,
            },
            None => StoreError::Lost,
        };
        match &inner.local {
            Some(local) => local.store().levels_of(&local.share(scope)).await,
            None => Err(error),
        }
    }

    fn may_stand(&self, ask: &Ask) -> bool {
        let held = self.0.holdings.find(ask.nonce);
        held.is_some_and(|held| held.primary != Hold::No)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.0.probe().await
    }
}

impl<P: Store, L: Store> Inner<P, L> {
    async fn admit_on_primary(
        self: &Arc<Self>,
        leave: Leave,
        ask: &Ask,
        held: Option<&Holding<L>>,
    ) -> Result<Answer, StoreError> {
        // A throttle is told by the clock of the store that granted the attempt.
        let foreign = held.is_some_and(Holding::is_local);
        let own = foreign.then(|| Ask { throttled: None, ..ask.clone() });
        let lease_ends = Instant::now() + ask.lease;
        let local = || held.and_then(|holding| holding.local.clone());
        let last = Last::Primary;
        // Boxed: it is handed on three times, and each of these would move all of it.
        let asked = Box::pin(self.primary.admit(own.as_ref().unwrap_or(ask)));
        match self.ask(leave, asked).await {
            Ok(answer) => {
                if matches!(answer.decision, Decision::Granted { .. }) {
                    let holding = Holding { primary: Hold::Yes, local: local(), last, lease_ends };
                    self.holdings.put(ask.nonce, holding);
                }
                Ok(answer)
            }
            Err(error) => {
                // The claim may stand. Whoever asked will settle it.
                if held.is_none() && ask.stage != Stage::Look {
                    let holding = Holding { primary: Hold::Maybe, local: None, last, lease_ends };
                    self.holdings.put(ask.nonce, holding);
                }
                Err(error)
            }
        }
    }

    /// `None` if calls are to be rejected. `primary`: what this ask may have left there.
    async fn admit_locally(
        &self,
        ask: &Ask,
        held: Option<Holding<L>>,
        primary: Hold,
    ) -> Option<Result<Answer, StoreError>> {
        let local = self.local.as_ref()?;
        let mut ask = Ask { scope: local.share(&ask.scope), ..ask.clone() };
        let same = held.as_ref().filter(|held| held.is_local()).and_then(|held| held.local.clone());
        let store = match same {
            Some(store) if ask.stage != Stage::Call => store,
            _ => {
                // The claim is another store's, and so is the clock: an attempt there is a first
                // ask here.
                ask.throttled = None;
                if matches!(ask.stage, Stage::Attempt { .. }) {
                    ask.stage = Stage::Call;
                }
                local.store()
            }
        };
        let lease_ends = Instant::now() + ask.lease;
        let answer = store.admit(&ask).await;
        // A place in the local queue is held there, too, until the call starts or leaves.
        let is_held = |answer: &Answer| {
            matches!(answer.decision, Decision::Granted { .. } | Decision::AskAgain { .. })
        };
        if answer.as_ref().is_ok_and(is_held) {
            let primary = held.map_or(primary, |held| held.primary.max(primary));
            let holding = Holding { primary, local: Some(store), last: Last::Local, lease_ends };
            self.holdings.put(ask.nonce, holding);
        }
        Some(answer)
    }

    async fn settle(self: &Arc<Self>, settlement: &Settlement) -> Result<Settled, StoreError> {
        // Unknown here: settled before, or so long ago that its lease has ended. One try does no
        // harm.
        let held = self.holdings.take(settlement.nonce).unwrap_or_else(|| Holding {
            primary: Hold::Maybe,
            local: None,
            last: Last::Primary,
            lease_ends: Instant::now(),
        });
        let throttled_on = |last| if held.last == last { settlement.throttled } else { None };
        let throttled = throttled_on(Last::Primary);
        let on_primary = Settlement { throttled, ..settlement.clone() };

        if let (Some(store), Some(local)) = (&held.local, &self.local) {
            // The primary has failed this call before: the answer does not wait for it again.
            if held.primary != Hold::No {
                self.settle_later(&on_primary, held.primary, held.lease_ends);
            }
            let throttled = throttled_on(Last::Local);
            let scope = local.share(&settlement.scope);
            return store.settle(&Settlement { scope, throttled, ..settlement.clone() }).await;
        }

        let error = match self.guard.enter() {
            Some(leave) => match self.settle_once(leave, &on_primary).await {
                Ok(settled) => return Ok(settled),
                Err(error) => error,
            },
            None => StoreError::Lost,
        };
        self.settle_later(&on_primary, held.primary, held.lease_ends);
        Err(error)
    }
}

/// Between two asks of a store that moves a slot; jittered.
const PASSING_POLL: Duration = Duration::from_millis(40);
