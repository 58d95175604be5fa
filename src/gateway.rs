//! A call's life, from the moment it is valid until it has an answer.
//!
//! The call is not the caller's: it runs in a task of its own, so that a caller that hangs up, or whose deadline
//! passes, does not leave it half done. What was begun finishes, within one `attempt_timeout`; nothing new begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::connect::{Attempts, Terms};
use crate::domain::{CreateParticipant, Name, Participant, Upstream, UpstreamToken};
use crate::error::{Error, Sent};
use crate::telemetry::Call;

/// A validated call of a known tenant, to the upstream that owns its instance.
#[derive(Debug)]
pub struct Order<P> {
    /// What is asked for.
    pub request: CreateParticipant,
    /// Where it goes.
    pub upstream: Arc<Upstream>,
    /// When the caller stops listening.
    pub deadline: Instant,
    /// For the log and the answer's metadata.
    pub call: Call,
    /// Held until the call has ended, also where its caller has left before.
    pub permit: P,
}

/// The participant, and whether an earlier call had made it.
#[derive(Debug, Clone)]
pub struct Created {
    /// What Connect handed back.
    pub participant: Participant,
    /// False only for the call that ran it.
    pub replayed: bool,
}

/// Runs calls.
#[derive(Debug)]
pub struct Gateway {
    upstreams: BTreeMap<Name, Arc<Attempts>>,
    tasks: TaskTracker,
}

impl Gateway {
    /// A gateway to these upstreams.
    #[must_use]
    pub fn new(upstreams: BTreeMap<Name, Arc<Attempts>>) -> Self {
        Self { upstreams, tasks: TaskTracker::new() }
    }

    /// Runs the call to its end.
    ///
    /// # Errors
    /// Why there is no participant.
    pub async fn create<P: Send + 'static>(&self, order: Order<P>) -> Result<Created, Error> {
        let Some(attempts) = self.upstreams.get(&order.upstream.name).cloned() else {
            let detail = format!("no client for upstream {}", order.upstream.name);
            return Err(Error::GatewayBug { detail, sent: Sent::No });
        };
        let left = CancellationToken::new();
        let task = self.tasks.spawn(run(attempts, order, left.clone()));
        let _leaves = left.drop_guard();
        task.await.unwrap_or_else(|error| Err(Error::GatewayBug { detail: error.to_string(), sent: Sent::Maybe }))
    }

    /// Waits until no call runs any more, with or without its caller.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn run<P>(attempts: Arc<Attempts>, order: Order<P>, left: CancellationToken) -> Result<Created, Error> {
    let Order { request, upstream, deadline, call, permit } = order;
    let token = upstream_token(&request)?;
    let terms =
        Terms { deadline, attempt_timeout: upstream.attempt_timeout, max_attempts: upstream.max_attempts, left };
    let participant = attempts.run(&request, &token, &terms, &call, async |_| Ok(())).await;
    drop(permit);
    participant.map(|participant| Created { participant, replayed: false })
}

/// The caller's own token, else a random one, the same over the attempts of this call.
fn upstream_token(request: &CreateParticipant) -> Result<UpstreamToken, Error> {
    let token = match &request.client_token {
        Some(token) => token.as_str().to_owned(),
        None => Uuid::new_v4().to_string(),
    };
    UpstreamToken::new(token).map_err(|bounds| Error::GatewayBug { detail: bounds.to_string(), sent: Sent::No })
}
