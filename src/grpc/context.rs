//! The context that the steps pass to a handler, beside the message.

use std::sync::Arc;

use tokio::time::Instant;

use crate::call::Notes;
use crate::config::Settings;
use crate::domain::{InstanceId, Tenant};
use crate::error::Error;
use crate::gateway::Route;
use crate::places::Permit;
use crate::telemetry::Span;

/// A call with a known caller and a place in flight.
#[derive(Debug)]
pub(crate) struct Context {
    /// The tenant that calls.
    pub tenant: Arc<Tenant>,
    /// The settings by which the caller was identified. They decide the whole call.
    pub settings: Arc<Settings>,
    /// The notes that the steps share.
    pub notes: Arc<Notes>,
    /// The caller's span.
    pub span: Span,
    /// The caller's deadline.
    pub deadline: Instant,
    /// The call's place in flight.
    pub(crate) permit: Permit,
}

impl Context {
    /// The tenant and the upstream that owns the instance.
    pub(super) fn route(&self, instance: &InstanceId) -> Result<Route, Error> {
        let is_allowed = self.tenant.instances.contains(instance);
        let upstream = self.settings.upstream_of(instance).filter(|_| is_allowed);
        let upstream = Arc::clone(upstream.ok_or(Error::InstanceNotAllowed)?);
        self.notes.note_upstream(&upstream.name);
        let committed_burst = self.settings.committed_burst(&upstream.name);
        Ok(Route { tenant: Arc::clone(&self.tenant), upstream, committed_burst })
    }
}
