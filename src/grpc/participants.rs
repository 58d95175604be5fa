//! `ParticipantService`: glue between what came over the wire and the call's life.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use http::Extensions;
use tonic::{Request, Response, Status};

use super::layers::{Deadline, Permit};
use super::status::carrying;
use crate::config::Settings;
use crate::domain::{CreateParticipant, InstanceId, Participant, Tenant};
use crate::error::{Error, Sent};
use crate::gateway::{Created, Gateway, Order, Route};
use crate::proto::participant_service_server::ParticipantService;
use crate::proto::{CreateParticipantRequest, CreateParticipantResponse, ParticipantCredentials};
use crate::telemetry::Call;

/// `ParticipantService`.
#[derive(Clone)]
pub struct Participants {
    settings: Arc<ArcSwap<Settings>>,
    gateway: Arc<Gateway>,
}

impl Participants {
    /// The service over these settings, which may change, and this gateway.
    #[must_use]
    pub const fn new(settings: Arc<ArcSwap<Settings>>, gateway: Arc<Gateway>) -> Self {
        Self { settings, gateway }
    }

    async fn create(
        &self,
        request: Request<CreateParticipantRequest>,
    ) -> Result<Created, Arc<Error>> {
        let (_, extensions, message) = request.into_parts();
        let tenant: Arc<Tenant> = from_layer(&extensions)?;
        let call: Call = from_layer(&extensions)?;
        let Deadline(deadline) = from_layer(&extensions)?;
        let permit: Permit = from_layer(&extensions)?;

        let request = CreateParticipant::try_from(message)?;
        call.note_retry_safe(request.client_token.is_some());
        let settings = self.settings.load();
        let route = route(&settings, tenant, &request.instance_id)?;
        if !route.tenant.roles.contains(&request.role) {
            return Err(Error::RoleNotAllowed.into());
        }
        call.note_upstream(&route.upstream.name);
        let retention = settings.shape.idempotency.retention.get();
        drop(settings);
        self.gateway
            .create(Order { request, route, retention, deadline, call, permit })
            .await
    }
}

#[tonic::async_trait]
impl ParticipantService for Participants {
    async fn create_participant(
        &self,
        request: Request<CreateParticipantRequest>,
    ) -> Result<Response<CreateParticipantResponse>, Status> {
        let created = self.create(request).await.map_err(carrying)?;
        Ok(Response::new(created.into()))
    }
}

impl From<Created> for CreateParticipantResponse {
    fn from(created: Created) -> Self {
        let Participant { id, token, expiry, create_time } = created.participant;
        Self {
            participant_id: id,
            participant_credentials: Some(ParticipantCredentials {
                participant_token: token.expose().to_owned(),
                expiry: expiry.map(timestamp),
            }),
            create_time: Some(timestamp(create_time)),
            replayed: created.replayed,
        }
    }
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp::from(time)
}

/// The tenant's way to the upstream that owns the instance.
pub(super) fn route(
    settings: &Settings,
    tenant: Arc<Tenant>,
    instance: &InstanceId,
) -> Result<Route, Error> {
    let allowed = tenant.instances.contains(instance);
    let upstream = settings
        .upstream_of(instance)
        .filter(|_| allowed)
        .ok_or(Error::InstanceNotAllowed)?;
    let committed_burst = settings.committed_burst(&upstream.name);
    Ok(Route { tenant, upstream: Arc::clone(upstream), committed_burst })
}

/// What a layer has put beside the request. The layers are there for every method of ours, so its
/// absence is a bug.
pub(super) fn from_layer<T: Clone + Send + Sync + 'static>(
    extensions: &Extensions,
) -> Result<T, Error> {
    extensions.get::<T>().cloned().ok_or_else(|| Error::GatewayBug {
        detail: format!("no layer provides {}", std::any::type_name::<T>()),
        sent: Sent::No,
    })
}
