//! `QuotaService`: reads a tenant's own limits without a charge.

use std::sync::Arc;

use super::context::Context;
use super::decode;
use crate::admission::Store;
use crate::domain::Enforcement;
use crate::error::Error;
use crate::gateway::Gateway;
use crate::proto::{self, GetQuotaRequest, GetQuotaResponse};

/// `QuotaService`.
pub(crate) struct Quotas<S>(Arc<Gateway<S>>);

impl<S: Store> Quotas<S> {
    /// The service over this gateway.
    #[must_use]
    pub(crate) const fn new(gateway: Arc<Gateway<S>>) -> Self {
        Self(gateway)
    }

    /// The limits and levels of the caller's tenant.
    ///
    /// # Errors
    /// Every error of a call that has been read.
    pub(crate) async fn get(
        &self,
        context: &Context,
        message: GetQuotaRequest,
    ) -> Result<GetQuotaResponse, Error> {
        let instance = decode::quota(message)?;
        let route = context.route(&instance)?;
        let Context { notes, span, settings, .. } = context;
        let quota = self.0.quota(&route, notes, span).await?;
        let limits = &route.tenant.limits;
        let enforcement = match limits.enforcement {
            Enforcement::Enforce => proto::Enforcement::Enforce,
            Enforcement::Shadow => proto::Enforcement::Shadow,
        };
        Ok(GetQuotaResponse {
            rate_per_second: limits.rate.per_second(),
            burst: limits.burst,
            committed_per_second: limits.committed.per_second(),
            remaining: quota.remaining,
            time_until_full: prost_types::Duration::try_from(quota.until_full).ok(),
            in_flight: quota.in_flight,
            in_flight_limit: limits.max_in_flight,
            upstream_factor: quota.factor,
            enforcement: enforcement.into(),
            config_version: settings.version.clone(),
        })
    }
}
