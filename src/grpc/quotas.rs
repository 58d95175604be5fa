//! `QuotaService`: a tenant's own limits, free of charge.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tonic::{Request, Response, Status};

use super::participants::{from_layer, route};
use super::status::carrying;
use crate::config::Settings;
use crate::domain::{Enforcement, InstanceId, Tenant};
use crate::error::{Error, Violation};
use crate::gateway::Gateway;
use crate::proto::quota_service_server::QuotaService;
use crate::proto::{self, GetQuotaRequest, GetQuotaResponse};
use crate::telemetry::Call;

/// `QuotaService`.
#[derive(Clone)]
pub struct Quotas {
    settings: Arc<ArcSwap<Settings>>,
    gateway: Arc<Gateway>,
}

impl Quotas {
    /// The service over these settings, which may change, and this gateway.
    #[must_use]
    pub const fn new(settings: Arc<ArcSwap<Settings>>, gateway: Arc<Gateway>) -> Self {
        Self { settings, gateway }
    }

    async fn quota(
        &self,
        request: Request<GetQuotaRequest>,
    ) -> Result<GetQuotaResponse, Arc<Error>> {
        let (_, extensions, message) = request.into_parts();
        let tenant: Arc<Tenant> = from_layer(&extensions)?;
        let call: Call = from_layer(&extensions)?;
        let instance = InstanceId::new(message.instance_id).map_err(|bounds| {
            Error::InvalidRequest(vec![Violation::length("instance_id", bounds)])
        })?;
        let settings = self.settings.load_full();
        let route = route(&settings, tenant, &instance)?;
        call.note_upstream(&route.upstream.name);

        let quota = self.gateway.quota(&route, &call).await?;
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

#[tonic::async_trait]
impl QuotaService for Quotas {
    async fn get_quota(
        &self,
        request: Request<GetQuotaRequest>,
    ) -> Result<Response<GetQuotaResponse>, Status> {
        Ok(Response::new(self.quota(request).await.map_err(carrying)?))
    }
}
