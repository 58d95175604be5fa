//! The input of a call, and its outcome.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::{Keys, RecordAsk, Scope};
use crate::call::{Disposition, Notes};
use crate::domain::{CreateParticipant, Name, Participant, Tenant, Upstream};
use crate::error::{Error, Limit, Sent};
use crate::places::Permit;
use crate::telemetry::{Metrics, Span};

/// A validated call of a known tenant, to the upstream that owns its instance.
#[derive(Debug)]
pub(crate) struct Order {
    /// The participant that is asked for.
    pub request: CreateParticipant,
    /// The tenant whose limits apply, and the upstream that the call goes to.
    pub(crate) route: Route,
    /// The keys of the call's record, its upstream token and its stored result.
    pub keys: Keys,
    /// How long its `client_token` is remembered.
    pub retention: Duration,
    /// The caller's deadline.
    pub deadline: Instant,
    /// The notes for the log and the answer's metadata.
    pub notes: Arc<Notes>,
    /// The caller's span.
    pub span: Span,
    /// Held until the call has ended, also if its caller has left before.
    pub(crate) permit: Permit,
}

/// A tenant and the upstream that its call goes to.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// The tenant that calls.
    pub tenant: Arc<Tenant>,
    /// The upstream that the call goes to.
    pub upstream: Arc<Upstream>,
    /// The most calls that the committed shares on the upstream can save up together.
    pub committed_burst: u32,
}

/// The participant, and whether an earlier call had made it.
#[derive(Debug, Clone)]
pub struct Created {
    /// The participant that Connect created.
    pub participant: Participant,
    /// False only for the call that created it.
    pub replayed: bool,
}

/// The outcome of a call. Its duplicates get the same.
pub(crate) type Outcome = Result<Created, Error>;

impl Order {
    /// The name of the call's record, if it has a `client_token`.
    pub(super) fn record_name(&self) -> Option<Arc<str>> {
        let Route { tenant, upstream, .. } = &self.route;
        let token = self.request.client_token.as_ref()?;
        Some(self.keys.record_name(&tenant.name, &upstream.name, token))
    }

    /// The call's record, if it has a `client_token`.
    pub(super) fn record(&self) -> Option<RecordAsk> {
        let Route { tenant, upstream, .. } = &self.route;
        self.keys.record(&tenant.name, &upstream.name, &self.request, self.retention)
    }

    /// A repeat makes no second participant.
    pub(super) fn is_repeatable(&self) -> bool {
        self.request.client_token.is_some()
    }

    /// Whether an attempt has begun.
    pub(super) fn sent(&self) -> Sent {
        if self.notes.course().attempts() > 0 { Sent::Maybe } else { Sent::No }
    }

    /// The error of a call whose deadline has passed. `sent`: what this attempt has sent.
    pub(super) fn out_of_time(&self, sent: Sent) -> Error {
        Error::DeadlineExceeded { sent, repeatable: self.is_repeatable() }
    }

    /// Notes and counts admission's decision on the call.
    pub(super) fn report(&self, disposition: Disposition, shadow: bool, metrics: &Metrics) {
        self.notes.note_disposition(disposition, shadow);
        let Route { tenant, upstream, .. } = &self.route;
        metrics.count_disposition(&tenant.name, &upstream.name, disposition, shadow);
    }
}

impl Route {
    pub(super) fn scope(&self) -> Scope {
        Scope {
            tenant: self.tenant.name.clone(),
            limits: self.tenant.limits,
            upstream: self.upstream.name.clone(),
            rate: self.upstream.rate,
            burst: self.upstream.burst,
            committed_burst: self.committed_burst,
        }
    }

    /// Levels and places count per tenant and upstream.
    pub(super) fn key(&self) -> RouteKey {
        (self.tenant.name.clone(), self.upstream.name.clone())
    }
}

/// A tenant and an upstream.
pub(super) type RouteKey = (Name, Name);

/// The name of a limit's refusal in the log and in metrics.
pub(super) const fn refused_by(limit: Limit) -> Disposition {
    match limit {
        Limit::TenantRate => Disposition::TenantRate,
        Limit::TenantInFlight => Disposition::InFlight,
        Limit::UpstreamBudget => Disposition::Budget,
    }
}
