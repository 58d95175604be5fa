//! B4: tonic and one EVALSHA of two rate limiters (GCRA) and the read of a record: the least that a
//! shared admission can cost. Usage: `b4 HOST:PORT REDIS_URL`.

#![allow(clippy::expect_used, reason = "a baseline that cannot start says why, and ends")]

use participant_gateway_benches::serve::{argument, serve};
use participant_gateway_benches::{
    CreateParticipantRequest, CreateParticipantResponse, ParticipantService,
    ParticipantServiceServer, REPEATED, canned, refused, repeated, tenant,
};
use prost::Message;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, Script};
use tonic::{Request, Response, Status};

struct Admitting {
    redis: MultiplexedConnection,
    script: Script,
}

#[tonic::async_trait]
impl ParticipantService for Admitting {
    async fn create_participant(
        &self,
        request: Request<CreateParticipantRequest>,
    ) -> Result<Response<CreateParticipantResponse>, Status> {
        let tenant = tenant(&request);
        // The time from one call to the next, and how far ahead of it calls may come, in µs.
        let (interval, ahead) = if tenant == "limited" { (600e6, 0.0) } else { (0.1, 1e6) };
        let (admitted, record): (bool, Option<Vec<u8>>) = self
            .script
            .key(format!("b4:upstream:{tenant}"))
            .key(format!("b4:tenant:{tenant}"))
            .key(format!("b4:record:{}", request.get_ref().client_token))
            .arg(interval)
            .arg(ahead)
            .invoke_async(&mut self.redis.clone())
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        if !admitted {
            return Err(refused());
        }
        let record = record.ok_or_else(|| Status::internal("there is no record"))?;
        CreateParticipantResponse::decode(&*record)
            .map(Response::new)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

#[tokio::main]
async fn main() {
    let address = argument(2).into_connection_info().expect("an address of Redis");
    let address = address.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut redis = Client::open(address)
        .expect("an address of Redis")
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .expect("a Redis that answers");
    let mut records = redis::pipe();
    for number in 0..REPEATED {
        let record = canned(true).encode_to_vec();
        records.set(format!("b4:record:{}", repeated(number)), record).ignore();
    }
    let () = records.query_async(&mut redis).await.expect("a Redis that can be written");
    let admitting = Admitting { redis, script: Script::new(include_str!("b4.lua")) };
    serve(ParticipantServiceServer::new(admitting)).await;
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
