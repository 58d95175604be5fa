//! One upstream for the gateway: the permission to call, and attempts that are measured and traced.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;
use tower::retry::budget::{Budget, TpsBudget};

use super::breaker::{Breaker, Pass};
use super::credentials::CredentialsState;
use super::http::{Headers, Progress};
use super::sdk::Client;
use super::tempo::Tempo;
use crate::call::Notes;
use crate::domain::{CreateParticipant, Name, Participant, UpstreamToken};
use crate::error::{Fault, UpstreamError};
use crate::sync::lock;
use crate::telemetry::{Attempted, Metrics, Span};

/// One upstream: its client, its circuit, and each tenant's retry budget on it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    upstream: Name,
    region: String,
    metrics: Arc<Metrics>,
    client: Client,
    breaker: Arc<Breaker>,
    tempo: Tempo,
    queued: AtomicU64,
    budgets: Mutex<HashMap<Name, Arc<TpsBudget>>>,
}

/// The attempts of one call at an endpoint, as one span.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    endpoint: &'a Endpoint,
    notes: &'a Notes,
    span: Span,
    headers: Headers,
    last: Attempted,
    took: Duration,
}

impl Endpoint {
    /// The endpoint of one upstream.
    #[must_use]
    pub(crate) fn new(
        upstream: Name,
        region: String,
        client: Client,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.start_upstream(&upstream, Fault::ALL.map(Fault::as_str));
        let (breaker, budgets) = (Arc::default(), Mutex::default());
        let (tempo, queued) = (Tempo::default(), AtomicU64::new(0));
        Self { upstream, region, metrics, client, breaker, tempo, queued, budgets }
    }

    /// The circuit as metrics show it: 0 closed, 1 half-open (a probe is due or under way), 2 open.
    #[must_use]
    pub(crate) fn circuit(&self) -> u64 {
        self.breaker.state(Instant::now())
    }

    /// The state of its credentials, and their end.
    #[must_use]
    pub(crate) fn credentials(&self) -> CredentialsState {
        self.client.credentials()
    }

    /// How long Connect takes at present, by its latest successful attempts.
    #[must_use]
    pub(crate) fn tempo(&self) -> &Tempo {
        &self.tempo
    }

    /// The calls of this process that wait for their slots.
    #[must_use]
    pub(crate) fn queue(&self) -> u64 {
        self.queued.load(Relaxed)
    }

    /// Waits for a slot. The call counts as queued meanwhile.
    pub(crate) async fn queue_for(&self, wait: Duration) {
        self.queued.fetch_add(1, Relaxed);
        let _queued = Queued(&self.queued);
        tokio::time::sleep(wait).await;
    }

    /// The permission for one call.
    ///
    /// # Errors
    /// The time until the next probe, while the circuit is open.
    pub(crate) fn enter(&self) -> Result<Pass, Duration> {
        self.breaker.enter(Instant::now())
    }

    /// The tenant's retry budget, with one more call in it. Retries may be a fifth of the calls of
    /// the last ten seconds, and ten a second besides. An outage is then not multiplied, and a
    /// quiet gateway can still retry. One tenant cannot use up another's retries.
    #[must_use]
    pub(crate) fn retry_budget(&self, tenant: &Name) -> Arc<TpsBudget> {
        let mut budgets = lock(&self.budgets);
        let budget = budgets
            .entry(tenant.clone())
            .or_insert_with(|| Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 0.2)));
        budget.deposit();
        Arc::clone(budget)
    }

    /// Begins the attempts of one call.
    #[must_use]
    pub(crate) fn attempts<'a>(&'a self, notes: &'a Notes, caller: &Span) -> Attempts<'a> {
        let span = caller.connect(&self.region);
        let headers = Arc::new(span.headers());
        Attempts {
            endpoint: self,
            notes,
            span,
            headers,
            last: Attempted { outcome: "cancelled", ..Attempted::default() },
            took: Duration::ZERO,
        }
    }
}

impl Attempts<'_> {
    /// Makes one attempt, of `timeout` at most.
    ///
    /// # Errors
    /// The error that Connect answered, or how far the request got.
    pub(crate) async fn next(
        &mut self,
        request: &CreateParticipant,
        token: &UpstreamToken,
        timeout: Duration,
    ) -> Result<Participant, UpstreamError> {
        let Endpoint { upstream, metrics, client, tempo, .. } = self.endpoint;
        self.notes.course().count_attempt();
        let started = Instant::now();
        let progress = Progress::handing_on(Arc::clone(&self.headers));
        let attempted = client.noted_attempt(request, token, timeout, &progress).await;
        let fault = attempted.as_ref().err().map(|error| error.fault.as_str());
        self.took = started.elapsed();
        metrics.count_attempt(upstream, fault, self.took);
        if fault.is_none() {
            tempo.note(self.took);
        }
        let (status, request_id) = progress.answer().cloned().unzip();
        self.last =
            Attempted { outcome: fault.unwrap_or("ok"), status, request_id: request_id.flatten() };
        self.span.attempted(self.notes.course().attempts(), &self.last);
        attempted
            .map_err(|error| UpstreamError { repeatable: request.client_token.is_some(), ..error })
    }

    /// Logs the last attempt. `wait`: the time before the next attempt, if there may be one.
    pub(crate) fn log(&self, wait: Option<Duration>) {
        tracing::debug!(
            upstream = self.endpoint.upstream.as_str(),
            attempt = self.notes.course().attempts(),
            outcome = self.last.outcome,
            status = self.last.status,
            upstream_request_id = self.last.request_id,
            duration = self.took.as_secs_f64(),
            wait = wait.map(|wait| wait.as_secs_f64()),
            "attempt at Connect"
        );
    }
}

/// A call that waits for its slot, until it is dropped.
struct Queued<'a>(&'a AtomicU64);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        self.span.settled(&self.last);
    }
}
