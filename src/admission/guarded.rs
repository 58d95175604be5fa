//! A store that can be lost, and the decisions while it is lost.
//!
//! A lost primary costs three timeouts once, and not one per call: a guard stops the asks after
//! three failures in a row. Calls are then decided locally or refused without a wait. One
//! background probe a second looks for the primary's return. A call stays with the store that
//! granted it. A settlement that does not succeed in time goes on in the background. A primary that
//! moves a slot to another node is not lost: its calls wait for it within their deadlines.

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
pub(crate) use health::StoreHealth;
use holdings::{Hold, Holding, Holdings, Last};
pub(crate) use local::Fresh;
use local::Local;

/// What happens to calls while the primary store is lost.
pub(crate) enum OnLoss<L> {
    /// A store of this process decides them, at its share of every limit.
    Local {
        /// The most replicas that run: each applies 1/replicas of every limit.
        replicas: NonZeroU32,
        /// Makes the store of one outage.
        fresh: Fresh<L>,
    },
    /// They are refused with the primary's error.
    Reject,
}

/// A [`Store`] over a primary that can be lost.
///
/// After an error of [`Store::settle`], settling goes on in the background, or no store holds the
/// claim any more. A repeat has no use.
pub(crate) struct Guarded<P, L>(Arc<Inner<P, L>>);

struct Inner<P, L> {
    primary: P,
    timeout: Duration,
    local: Option<Local<L>>,
    guard: Guard,
    holdings: Holdings<L>,
    health: Arc<StoreHealth>,
    /// Whether the primary was asked since the last idle look.
    asked: AtomicBool,
    tasks: TaskTracker,
}

impl<P: Store, L: Store> Guarded<P, L> {
    /// Begins to use the primary. It never fails, and takes at most one timeout. A primary that
    /// does not answer yet counts as lost. So even the first call does not wait for it.
    ///
    /// `timeout`: for one operation on the primary, whatever the state of the connection. The
    /// primary applies it itself. If it does not, it is cut off a fifth later.
    pub(crate) async fn start(primary: P, timeout: Duration, on_loss: OnLoss<L>) -> Self {
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

    /// The counters and gauges for telemetry.
    #[must_use]
    pub(crate) fn health(&self) -> Arc<StoreHealth> {
        Arc::clone(&self.0.health)
    }

    /// Whether calls can be served: the primary was reached once, or is not needed. It stays true
    /// if the primary is lost later.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        self.0.local.is_some() || self.0.health.reached()
    }

    /// Waits until every background settlement has ended, at most for `limit`. Returns how many are
    /// still open.
    pub(crate) async fn drain(&self, limit: Duration) -> usize {
        self.0.tasks.close();
        let _unfinished = timeout(limit, self.0.tasks.wait()).await;
        self.0.tasks.len()
    }
}

impl<P: Store, L: Store> Store for Guarded<P, L> {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        let inner = &self.0;
        let held = inner.holdings.find(ask.nonce);
        // A granted call asks the store that granted it.
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

    /// The local store knows only its own records: while the primary is lost, any may exist. A
    /// primary that can only be read is lost, so an answer says nothing of its health.
    async fn has_record(&self, scope: &Scope, name: &str) -> Result<bool, StoreError> {
        let inner = &self.0;
        let Some(leave) = inner.guard.enter() else { return Ok(true) };
        let found = inner.bounded(Box::pin(inner.primary.has_record(scope, name))).await;
        if let Err(error) = &found {
            inner.failed(leave, error);
        }
        found
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
        // The time in a throttle is of the clock of the store that granted the attempt.
        let foreign = held.is_some_and(Holding::is_local);
        let own = foreign.then(|| Ask { throttled: None, ..ask.clone() });
        let lease_ends = Instant::now() + ask.lease;
        let local = || held.and_then(|holding| holding.local.clone());
        let last = Last::Primary;
        // Boxed: it is handed on three times, and would be moved as a whole each time.
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
                // The claim may stand. The caller will settle it.
                if held.is_none() && ask.stage != Stage::Look {
                    let holding = Holding { primary: Hold::Maybe, local: None, last, lease_ends };
                    self.holdings.put(ask.nonce, holding);
                }
                Err(error)
            }
        }
    }

    /// `None` if `on_loss` is reject. `primary`: the claim that this ask may have left on the
    /// primary.
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
                // The claim and the clock are another store's. An attempt is a first ask for the
                // local store.
                ask.throttled = None;
                if matches!(ask.stage, Stage::Attempt { .. }) {
                    ask.stage = Stage::Call;
                }
                local.store()
            }
        };
        let lease_ends = Instant::now() + ask.lease;
        let answer = store.admit(&ask).await;
        // The local store also holds a place in its queue, until the call starts or leaves.
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
        // Unknown here: the call was settled before, or its lease has ended. One more settlement is
        // harmless.
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
            // The primary has already failed this call, so the answer does not wait for it again.
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

/// The time between two asks of a store that moves a slot; jittered.
const PASSING_POLL: Duration = Duration::from_millis(40);
