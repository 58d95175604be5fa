//! Connect's `CreateParticipant` as a gRPC method, with nothing between. It is no module of the
//! library, which would link the AWS SDK into every baseline.

use std::time::SystemTime;

use aws_config::BehaviorVersion;
use aws_sdk_connect::Client;
use aws_sdk_connect::types::{ParticipantDetailsToAdd, ParticipantRole as Role};
use aws_smithy_types::date_time::{DateTime, Format};
use participant_gateway_benches::{
    CreateParticipantRequest, CreateParticipantResponse, ParticipantCredentials,
    ParticipantService, ParticipantServiceServer,
};
use prost_types::Timestamp;
use tonic::{Request, Response, Status};

struct Naive(Client);

#[tonic::async_trait]
impl ParticipantService for Naive {
    async fn create_participant(
        &self,
        request: Request<CreateParticipantRequest>,
    ) -> Result<Response<CreateParticipantResponse>, Status> {
        let request = request.into_inner();
        let details = request.participant_details.unwrap_or_default();
        let details = ParticipantDetailsToAdd::builder()
            .participant_role(Role::CustomBot)
            .display_name(details.display_name)
            .build();
        let token = Some(request.client_token).filter(|token| !token.is_empty());
        let answer = self
            .0
            .create_participant()
            .instance_id(request.instance_id)
            .contact_id(request.contact_id)
            .set_client_token(token)
            .participant_details(details)
            .send()
            .await
            .map_err(|error| Status::unknown(format!("{error:?}")))?;
        let credentials = answer.participant_credentials.map(|given| ParticipantCredentials {
            expiry: given.expiry().and_then(timestamp),
            participant_token: given.participant_token.unwrap_or_default(),
        });
        Ok(Response::new(CreateParticipantResponse {
            participant_id: answer.participant_id.unwrap_or_default(),
            participant_credentials: credentials,
            create_time: Some(SystemTime::now().into()),
            replayed: false,
        }))
    }
}

fn timestamp(text: &str) -> Option<Timestamp> {
    let time = DateTime::from_str(text, Format::DateTime).ok()?;
    Some(Timestamp { seconds: time.secs(), nanos: time.subsec_nanos().try_into().ok()? })
}

/// Serves until the process is ended.
pub async fn serve() {
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let naive = Naive(Client::new(&config));
    participant_gateway_benches::serve::serve(ParticipantServiceServer::new(naive)).await;
}
