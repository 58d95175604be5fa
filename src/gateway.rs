//! A call's life, from the moment it is valid until it has an answer.
//!
//! The call is not the caller's: from its first ask to its settlement it runs in a task of its own,
//! so that a caller that hangs up, or whose deadline passes, leaves no claim behind. What was begun
//! finishes, within one `attempt_timeout`; nothing new begins. Duplicates of a call in this process
//! join it; those elsewhere wait for it.

mod claim;
mod flights;
mod levels;
mod life;
mod places;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Keys, Quota, RecordAsk, Scope, Store};
use crate::connect::{Attempts, is_worth_it};
use crate::domain::{CreateParticipant, Name, Participant, Tenant, Upstream};
use crate::error::{Error, Limit, Sent};
use crate::telemetry::{Call, Decision, Metrics};
use flights::{Flight, Flights, Seat, Waiting};
pub use levels::Levels;
pub use places::Places;

/// A validated call of a known tenant, to the upstream that owns its instance.
#[derive(Debug)]
pub struct Order<P> {
    /// What is asked for.
    pub request: CreateParticipant,
    /// Whose limits, and where it goes.
    pub route: Route,
    /// How long its `client_token` is remembered.
    pub retention: Duration,
    /// When the caller stops listening.
    pub deadline: Instant,
    /// For the log and the answer's metadata.
    pub call: Call,
    /// Held until the call has ended, also where its caller has left before.
    pub permit: P,
}

/// A tenant's way to an upstream.
#[derive(Debug, Clone)]
pub struct Route {
    /// Who calls.
    pub tenant: Arc<Tenant>,
    /// Where the call goes.
    pub upstream: Arc<Upstream>,
    /// What the committed shares on the upstream may hold together, in calls.
    pub committed_burst: u32,
}

/// The participant, and whether an earlier call had made it.
#[derive(Debug, Clone)]
pub struct Created {
    /// What Connect handed back.
    pub participant: Participant,
    /// False only for the call that ran it.
    pub replayed: bool,
}

/// How a call ended. Shared, since duplicates get the same.
pub type Outcome = Result<Created, Arc<Error>>;

/// Runs calls.
pub struct Gateway {
    upstreams: BTreeMap<Name, Arc<Attempts>>,
    store: Arc<dyn Store>,
    keys: Arc<ArcSwap<Keys>>,
    levels: Arc<Levels>,
    metrics: Arc<Metrics>,
    flights: Arc<Flights>,
    waiting: Waiting,
    tasks: TaskTracker,
}

impl<P> Order<P> {
    fn decided(&self, decision: Decision, metrics: &Metrics) {
        self.call.decided(decision);
        metrics.decided(&self.route.tenant.name, &self.route.upstream.name, decision, false);
    }

    fn decided_in_shadow(&self, decision: Decision, metrics: &Metrics) {
        self.call.decided_in_shadow(decision);
        metrics.decided(&self.route.tenant.name, &self.route.upstream.name, decision, true);
    }

    /// Too many of the tenant's calls wait already.
    fn refused_to_wait(&self, metrics: &Metrics) {
        self.decided(Decision::InFlight, metrics);
    }
}

impl Route {
    fn scope(&self) -> Scope {
        Scope {
            tenant: self.tenant.name.clone(),
            limits: self.tenant.limits,
            upstream: self.upstream.name.clone(),
            rate: self.upstream.rate,
            burst: self.upstream.burst,
            committed_burst: self.committed_burst,
        }
    }
}

impl Gateway {
    /// A gateway to these upstreams, with claims and levels in `store`.
    #[must_use]
    pub fn new(
        upstreams: BTreeMap<Name, Arc<Attempts>>,
        store: Arc<dyn Store>,
        keys: Arc<ArcSwap<Keys>>,
        levels: Arc<Levels>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (flights, waiting) = (Arc::default(), Waiting::default());
        Self {
            upstreams,
            store,
            keys,
            levels,
            metrics,
            flights,
            waiting,
            tasks: TaskTracker::new(),
        }
    }

    /// Runs the call to its end, or joins the one in this process that it duplicates.
    ///
    /// # Errors
    /// Why there is no participant.
    pub async fn create<P: Send + Sync + 'static>(&self, order: Order<P>) -> Outcome {
        let keys = self.keys.load_full();
        let Route { tenant, upstream, .. } = &order.route;
        let Some(record) =
            keys.record(&tenant.name, &upstream.name, &order.request, order.retention)
        else {
            return self.start(order, keys, None).await;
        };
        loop {
            match self.flights.join(&record, order.deadline) {
                Seat::Leader(lead) => return self.start(order, keys, Some((record, lead))).await,
                Seat::Follower(mut flight) => {
                    let _place = self
                        .waiting
                        .enter(&order.route)
                        .inspect_err(|_| order.refused_to_wait(&self.metrics))?;
                    let shared = tokio::select! {
                        shared = flight.landed() => shared,
                        () = tokio::time::sleep_until(patience(order.deadline)) => return Err(Arc::new(in_progress())),
                    };
                    let Some(outcome) = shared else { continue };
                    match anew(&outcome, &order, &flight) {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => return self.joined(&order, outcome),
                    }
                }
            }
        }
    }

    /// The tenant's levels on the upstream; charges nothing.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`], or the tenant's in-flight limit, which bounds these questions
    /// as well.
    pub async fn quota(&self, route: &Route, call: &Call) -> Result<Quota, Arc<Error>> {
        let _place = self.waiting.enter(route)?;
        let quota = call.span().scope(self.store.quota(&route.scope())).await;
        let quota = quota.map_err(|error| Arc::new(Error::StoreUnavailable(Box::new(error))))?;
        call.note_levels(self.levels.note(&route.tenant, &quota));
        self.metrics.factor_is(&route.upstream.name, quota.factor);
        Ok(quota)
    }

    /// Waits until no call runs any more, with or without its caller.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn start<P: Send + Sync + 'static>(
        &self,
        order: Order<P>,
        keys: Arc<Keys>,
        record: Option<(RecordAsk, flights::Lead)>,
    ) -> Outcome {
        let upstream = &order.route.upstream.name;
        let Some(attempts) = self.upstreams.get(upstream).cloned() else {
            let detail = format!("no client for upstream {upstream}");
            return Err(Arc::new(Error::GatewayBug { detail, sent: Sent::No }));
        };
        let left = CancellationToken::new();
        let (record, lead) = record.unzip();
        let life = life::Life {
            attempts,
            store: Arc::clone(&self.store),
            keys,
            levels: Arc::clone(&self.levels),
            metrics: Arc::clone(&self.metrics),
            waiting: self.waiting.clone(),
            record,
            left: left.clone(),
        };
        let span = order.call.span();
        let task = self.tasks.spawn(span.scope(async move {
            let outcome = life.run(order).await;
            if let Some(lead) = lead {
                lead.land(outcome.clone());
            }
            outcome
        }));
        let _leaves = left.drop_guard();
        task.await.unwrap_or_else(|error| {
            Err(Arc::new(Error::GatewayBug { detail: error.to_string(), sent: Sent::Maybe }))
        })
    }

    fn joined<P>(&self, order: &Order<P>, outcome: Outcome) -> Outcome {
        order.call.note_levels(self.levels.estimate(&order.route.tenant));
        match outcome.as_ref().map_err(|error| &**error) {
            Ok(_) => order.decided(Decision::Replayed, &self.metrics),
            Err(Error::ClientTokenReused) => order.decided(Decision::Reused, &self.metrics),
            Err(Error::Limited { limit, .. }) => {
                order.decided(claim::decision(*limit), &self.metrics)
            }
            Err(_) => {}
        }
        outcome.map(|created| Created { replayed: true, ..created })
    }
}

/// When a duplicate runs the call anew, because the end of the one that it waited for was only that
/// one's: it ran out of time, or into a bug. Nothing where the outcome is for all.
fn anew<P>(outcome: &Outcome, order: &Order<P>, leader: &Flight) -> Option<Instant> {
    let now = Instant::now();
    match outcome.as_ref().err().map(|error| &**error)? {
        Error::DeadlineExceeded { .. }
        | Error::GatewayBug { .. }
        | Error::RequestInProgress { .. } => Some(now),
        // Not before the next attempt was due: Connect may have asked for the wait.
        Error::Upstream(upstream) => upstream.due.filter(|due| is_worth_it(*due, order.deadline)),
        // It could not queue for as long as this one can.
        Error::Limited { limit: Limit::UpstreamBudget, .. } => {
            let was_cut = leader.deadline < leader.since + order.route.upstream.max_wait;
            (was_cut && leader.deadline < order.deadline).then_some(now)
        }
        _ => None,
    }
}

/// A duplicate's wait ends a moment before its caller's deadline, so that the caller hears what it
/// waited for.
fn patience(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - (left / 10).min(Duration::from_millis(50))
}

/// A duplicate is still in flight; its lease is longer than the longest hint.
fn in_progress() -> Error {
    Error::RequestInProgress { retry_after: MAX_HINT }
}

/// The longest hint for a duplicate in flight.
const MAX_HINT: Duration = Duration::from_secs(1);
