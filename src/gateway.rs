//! The life of a call, from its validation to its answer.
//!
//! `call.rs` shows the whole life on one screen. A duplicate of a call in this process joins it
//! (`flights.rs`). A duplicate on another replica waits for it (`asking.rs`).

mod asking;
mod call;
mod claim;
mod flights;
mod lines;
mod order;
mod promises;
mod ratelimit;
mod refusals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::admission::{Quota, RecordAsk, Scope, Settlement, Store};
use crate::call::{Disposition, Notes};
use crate::connect::{Endpoint, is_worth_it};
use crate::domain::{Enforcement, Name};
use crate::error::{Error, Limit};
use crate::places::Permit;
use crate::telemetry::{Metrics, Span};
use call::Call;
use flights::{Flight, Flights, Lead, Seat, Waiting};
use order::refused_by;
pub(crate) use order::{Created, Order, Outcome, Route};
use ratelimit::Levels;
use refusals::Refusals;

/// Runs calls.
pub(crate) struct Gateway<S> {
    endpoints: BTreeMap<Name, Arc<Endpoint>>,
    store: S,
    metrics: Arc<Metrics>,
    /// Cancelled when `server.drain_timeout` runs out.
    expired: CancellationToken,
    levels: Levels,
    refusals: Refusals,
    flights: Arc<Flights>,
    waiting: Waiting,
    tasks: TaskTracker,
}

impl<S: Store> Gateway<S> {
    /// A gateway to these endpoints, with claims and levels in `store`.
    #[must_use]
    pub(crate) fn new(
        endpoints: BTreeMap<Name, Arc<Endpoint>>,
        store: S,
        metrics: Arc<Metrics>,
        expired: CancellationToken,
    ) -> Self {
        Self {
            endpoints,
            store,
            metrics,
            expired,
            levels: Levels::default(),
            refusals: Refusals::default(),
            flights: Arc::default(),
            waiting: Waiting::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Runs the call to its end, or joins the call of this process that it duplicates. The caller
    /// bounds it in time, and then drops it.
    ///
    /// # Errors
    /// Why there is no participant.
    pub(crate) async fn create(self: &Arc<Self>, order: Box<Order>) -> Outcome {
        order.notes.course().set_repeatable(order.is_repeatable());
        let span = order.span.clone();
        span.scope(self.answer(order)).await
    }

    /// The tenant's levels on the upstream; charges nothing.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`], or the tenant's limit of calls in flight, which also bounds
    /// quota questions.
    pub(crate) async fn quota(
        &self,
        route: &Route,
        notes: &Notes,
        span: &Span,
    ) -> Result<Quota, Error> {
        let _place = self.waiting.enter(route)?;
        let quota = span.clone().scope(self.store.quota(&route.scope())).await;
        lines::quoted(&quota);
        let quota = quota.map_err(|error| Error::StoreUnavailable(Arc::new(error)))?;
        notes.note_levels(self.levels.note(route, &quota));
        self.metrics.note_factor(&route.upstream.name, quota.factor);
        Ok(quota)
    }

    /// Waits until no call runs any more, with or without its caller.
    pub(crate) async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn answer(self: &Arc<Self>, order: Box<Order>) -> Outcome {
        order.notes.note_levels(self.levels.estimate(&order.route));
        if let Some(retry_after) = self.refused_before(&order).await {
            let limit = Limit::TenantRate;
            order.report(refused_by(limit), false, &self.metrics);
            tracing::debug!(wait = retry_after.as_secs_f64(), "an earlier refusal still holds");
            return Err(Error::Limited { limit, retry_after });
        }
        let record = order.record();
        let lead = match &record {
            Some(record) => match self.lead(record, &order).await {
                Ok(lead) => lead,
                Err(outcome) => return outcome,
            },
            None => None,
        };
        // Boxed: a call that is still being read, or that was refused above, needs none of its memory.
        Box::pin(Call::new(self, order, lead)?.run(record)).await
    }

    /// The hint of an earlier refusal that still holds, for a call that cannot be a replay.
    ///
    /// All replicas spread the hints of calls with a `client_token` together, in the store. Once
    /// hints are at their longest, nothing is left to spread. Then the store is asked for the
    /// record alone, which costs it a twentieth of an ask. A store that fails is asked in full, and
    /// decides what becomes of the call.
    async fn refused_before(&self, order: &Order) -> Option<Duration> {
        let Order { route, request, .. } = order;
        if request.client_token.is_some() {
            if !self.refusals.are_longest(route) {
                return None;
            }
            let name = order.record_name()?;
            // A call that queues has no record yet.
            if self.flights.have(&name)
                || self.store.has_record(&route.scope(), &name).await.unwrap_or(true)
            {
                return None;
            }
        }
        self.refusals.remembered(route)
    }

    /// The lead among the call's duplicates in this process, or the outcome of the call that this
    /// one duplicates. There is no lead where another call runs under the same token.
    async fn lead(&self, record: &RecordAsk, order: &Order) -> Result<Option<Lead>, Outcome> {
        loop {
            match self.flights.join(record, order.deadline) {
                Seat::Leader(lead) => return Ok(Some(lead)),
                Seat::Stranger => return Ok(None),
                Seat::Follower(flight) => {
                    if let Some(outcome) = self.follow(flight, order).await {
                        return Err(outcome);
                    }
                }
            }
        }
    }

    /// Waits for the call that this one duplicates. `None`: this one may run now.
    async fn follow(&self, mut flight: Flight, order: &Order) -> Option<Outcome> {
        let _place = match self.waiting.enter(&order.route) {
            Ok(place) => place,
            Err(error) => {
                order.report(Disposition::InFlight, false, &self.metrics);
                return Some(Err(error));
            }
        };
        tracing::debug!("waits for the call of this process that it repeats");
        let landed = tokio::select! {
            landed = flight.landed() => landed?,
            () = sleep_until(patience(order.deadline)) => return Some(Err(in_progress())),
        };
        match may_run_anew(&landed, order, &flight) {
            Some(at) => {
                sleep_until(at).await;
                None
            }
            None => Some(self.join(order, landed)),
        }
    }

    fn join(&self, order: &Order, outcome: Outcome) -> Outcome {
        order.notes.note_levels(self.levels.estimate(&order.route));
        let disposition = match &outcome {
            Ok(_) => Some(Disposition::Replayed),
            Err(Error::ClientTokenReused) => Some(Disposition::Reused),
            Err(Error::Limited { limit, .. }) => Some(refused_by(*limit)),
            Err(_) => None,
        };
        if let Some(disposition) = disposition {
            order.report(disposition, false, &self.metrics);
        }
        outcome.map(|created| Created { replayed: true, ..created })
    }

    /// Settles an ask that ended without a grant, in the background.
    fn settle_later(self: &Arc<Self>, settlement: Settlement, permit: Permit) {
        let gateway = Arc::clone(self);
        let settling = async move {
            lines::settled(&settlement, &gateway.store.settle(&settlement).await);
            let Scope { tenant, upstream, .. } = &settlement.scope;
            gateway.refusals.given_back(&(tenant.clone(), upstream.clone()));
            drop(permit);
        };
        self.tasks.spawn(settling.in_current_span());
    }
}

/// When a duplicate may run the call itself. Its leader failed for a reason of its own: its
/// deadline, or a bug. `None`: the outcome applies to all duplicates.
fn may_run_anew(outcome: &Outcome, order: &Order, leader: &Flight) -> Option<Instant> {
    let now = Instant::now();
    match outcome.as_ref().err()? {
        Error::DeadlineExceeded { .. }
        | Error::GatewayBug { .. }
        | Error::RequestInProgress { .. } => Some(now),
        // Only after the next attempt was due: Connect may have asked for the wait.
        Error::Upstream(upstream) => upstream.due.filter(|due| is_worth_it(*due, order.deadline)),
        // The leader could not queue for as long as this call can.
        Error::Limited { limit: Limit::UpstreamBudget, .. } => {
            let was_cut = leader.deadline < leader.since + order.route.upstream.max_wait;
            (was_cut && leader.deadline < order.deadline).then_some(now)
        }
        _ => None,
    }
}

/// A wait for another call's answer ends a moment before the caller's deadline. The caller then
/// still gets the reason.
fn patience(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - (left / 10).min(Duration::from_millis(50))
}

/// A duplicate is still in flight, and its lease is longer than the longest hint.
fn in_progress() -> Error {
    Error::RequestInProgress { retry_after: MAX_DUPLICATE_HINT }
}

/// The most calls that may wait for duplicates. With shadow enforcement the limit is not bounded.
fn most_waiting(route: &Route) -> u32 {
    let limits = &route.tenant.limits;
    match limits.enforcement {
        Enforcement::Enforce => limits.max_in_flight,
        Enforcement::Shadow => u32::MAX,
    }
}

/// The longest hint for a duplicate in flight.
const MAX_DUPLICATE_HINT: Duration = Duration::from_secs(1);
