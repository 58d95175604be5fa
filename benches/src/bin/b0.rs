//! B0: tonic with a canned answer. Usage: `b0 HOST:PORT`.

use participant_gateway_benches::serve::serve;
use participant_gateway_benches::{
    CreateParticipantRequest, CreateParticipantResponse, ParticipantService,
    ParticipantServiceServer, canned, refused, tenant,
};
use tonic::{Request, Response, Status};

struct Canned;

#[tonic::async_trait]
impl ParticipantService for Canned {
    async fn create_participant(
        &self,
        request: Request<CreateParticipantRequest>,
    ) -> Result<Response<CreateParticipantResponse>, Status> {
        match tenant(&request) {
            "limited" => Err(refused()),
            _ => Ok(Response::new(canned(!request.get_ref().client_token.is_empty()))),
        }
    }
}

#[tokio::main]
async fn main() {
    serve(ParticipantServiceServer::new(Canned)).await;
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
