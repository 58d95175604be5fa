//! What the steps in front of a handler hand it, beside the message.

use std::sync::Arc;

use http::Extensions;
use tokio::time::Instant;

use crate::call::Notes;
use crate::config::Settings;
use crate::domain::{InstanceId, Tenant};
use crate::error::{Error, Sent};
use crate::gateway::Route;
use crate::places::Permit;
use crate::telemetry::Span;

/// A call whose caller is known, and that has a place in flight.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who calls.
    pub tenant: Arc<Tenant>,
    /// The settings that the caller was known by; all of the call is decided by them.
    pub settings: Arc<Settings>,
    /// What the steps tell each other.
    pub notes: Arc<Notes>,
    /// The caller's span.
    pub span: Span,
    /// When the caller stops listening.
    pub deadline: Instant,
    /// The call's place in flight.
    pub permit: Permit,
}

impl Context {
    /// Takes it from beside the message. The steps put it there for every method of ours, so its
    /// absence is a bug.
    pub(super) fn take(extensions: &mut Extensions) -> Result<Self, Error> {
        extensions.remove().ok_or_else(|| Error::GatewayBug {
            detail: "no step has put a context beside the request".to_owned(),
            sent: Sent::No,
        })
    }

    /// The tenant's way to the upstream that owns the instance.
    pub(super) fn route(&self, instance: &InstanceId) -> Result<Route, Error> {
        let is_allowed = self.tenant.instances.contains(instance);
        let upstream = self.settings.upstream_of(instance).filter(|_| is_allowed);
        let upstream = Arc::clone(upstream.ok_or(Error::InstanceNotAllowed)?);
        self.notes.note_upstream(&upstream.name);
        let committed_burst = self.settings.committed_burst(&upstream.name);
        Ok(Route { tenant: Arc::clone(&self.tenant), upstream, committed_burst })
    }
}
