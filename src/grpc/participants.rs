//! `ParticipantService`: connects the messages to the life of a call.

use std::sync::Arc;
use std::time::SystemTime;

use super::context::Context;
use super::decode;
use crate::admission::Store;
use crate::domain::Participant;
use crate::error::Error;
use crate::gateway::{Created, Gateway, Order};
use crate::proto::{CreateParticipantRequest, CreateParticipantResponse, ParticipantCredentials};

/// `ParticipantService`.
pub(crate) struct Participants<S>(Arc<Gateway<S>>);

impl<S: Store> Participants<S> {
    /// The service over this gateway.
    #[must_use]
    pub(crate) const fn new(gateway: Arc<Gateway<S>>) -> Self {
        Self(gateway)
    }

    /// Creates a participant, or finds the one that an earlier call made.
    ///
    /// # Errors
    /// Every error of a call that has been read.
    pub(crate) async fn create(
        &self,
        context: Context,
        message: CreateParticipantRequest,
    ) -> Result<CreateParticipantResponse, Error> {
        self.0.create(order(context, message)?).await.map(Into::into)
    }
}

/// The call that a message asks for. A function of its own: the future of a call would keep room
/// for all that is moved here.
fn order(context: Context, message: CreateParticipantRequest) -> Result<Box<Order>, Error> {
    let request = decode::create_participant(message, context.tenant.requires_client_token)?;
    let route = context.route(&request.instance_id)?;
    if !route.tenant.roles.contains(&request.role) {
        return Err(Error::RoleNotAllowed);
    }
    let Context { settings, notes, span, deadline, permit, .. } = context;
    let (keys, retention) = (settings.keys.clone(), settings.retention);
    Ok(Box::new(Order { request, route, keys, retention, deadline, notes, span, permit }))
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
