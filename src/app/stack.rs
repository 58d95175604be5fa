//! The stack that every request passes, as a list.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::ServiceBuilder;

use crate::config::{Settings, shape};
use crate::error::Error;
use crate::gateway::{Gateway, Levels, Places};
use crate::grpc::layers::{self, Answering, Deadlines, Identities, Opening, Reading, Shedding};
use crate::grpc::{CREATE_PARTICIPANT, GET_QUOTA, Participants, Quotas, status};
use crate::identity::Identity;
use crate::proto::DESCRIPTOR_SET;
use crate::proto::participant_service_server::ParticipantServiceServer;
use crate::proto::quota_service_server::QuotaServiceServer;
use crate::telemetry::{Metrics, Tracing};

/// What the stack stands on.
pub struct Stack<'a> {
    pub server: &'a shape::Server,
    pub settings: Arc<ArcSwap<Settings>>,
    pub gateway: Arc<Gateway>,
    pub identity: Identity,
    pub levels: Arc<Levels>,
    pub metrics: Arc<Metrics>,
    pub tracing: Tracing,
    /// One a call in flight.
    pub permits: Arc<Semaphore>,
    /// Cancelled when `server.drain_timeout` runs out.
    pub expired: CancellationToken,
}

impl Stack<'_> {
    /// Every service, behind every layer.
    pub fn router(self, health: HealthServer<impl Health>) -> io::Result<Router> {
        let Self {
            server,
            settings,
            gateway,
            identity,
            levels,
            metrics,
            tracing,
            permits,
            expired,
        } = self;
        let max_bytes = server.max_request_bytes.get() as usize;
        let deadlines =
            Deadlines { default: server.default_timeout.get(), max: server.max_timeout.get() };
        let shedding = Shedding { permits, metrics: Arc::clone(&metrics) };
        let reading =
            Reading { places: Places::default(), most: (server.max_in_flight.get() / 2).max(1) };
        let identities = Identities {
            identity,
            settings: Arc::clone(&settings),
            levels,
            metrics: Arc::clone(&metrics),
            reading,
        };

        // What only calls of ours pass, from the outside in.
        let participants = Participants::new(Arc::clone(&settings), Arc::clone(&gateway));
        let participants =
            ParticipantServiceServer::new(participants).max_decoding_message_size(max_bytes);
        let quotas = QuotaServiceServer::new(Quotas::new(settings, gateway))
            .max_decoding_message_size(max_bytes);
        let calls = Router::new()
            .route_service(CREATE_PARTICIPANT, participants)
            .route_service(GET_QUOTA, quotas)
            .layer(
                ServiceBuilder::new()
                    // First, so that it bounds everything behind it, a slow body included.
                    .layer(from_fn_with_state(deadlines, layers::deadline))
                    // Before any work is done: shedding must cost next to nothing.
                    .layer(from_fn_with_state(shedding, layers::shed))
                    // Last, so that the request is only read for callers that we know.
                    .layer(from_fn_with_state(Arc::new(identities), layers::identify)),
            );

        // What nobody is asked for an identity on, and is bounded all the same: by the deadline
        // until it is answered, and what then goes on for as long as it is listened to by its
        // places.
        let health = health.max_decoding_message_size(max_bytes);
        let check = Router::new()
            .route_service("/grpc.health.v1.Health/Check", health.clone())
            .layer(from_fn_with_state(deadlines, layers::deadline));
        let open = Opening {
            permits: Arc::new(Semaphore::new(OPEN_STREAMS)),
            peers: Places::default(),
            most: OPEN_STREAMS_OF_A_PEER,
            metrics: Arc::clone(&metrics),
        };
        let streams = open_streams(health, server.reflection, max_bytes)?
            .layer(from_fn_with_state(deadlines, layers::deadline))
            .layer(from_fn_with_state(open, layers::open));

        // What everything passes: it names the call, and gives each error of whatever is inside its
        // face.
        let answering = Answering { expired, metrics: Arc::clone(&metrics), tracing };
        Ok(calls
            .merge(check)
            .merge(streams)
            .fallback(async || status::refuse(Error::UnknownMethod).map(axum::body::Body::new))
            .layer(from_fn_with_state(answering, layers::answer)))
    }
}

/// What is streamed to anybody: health watches and, where it is on, server reflection in both
/// versions, since older clients know `v1alpha` only.
fn open_streams(
    health: HealthServer<impl Health>,
    reflection: bool,
    max_bytes: usize,
) -> io::Result<Router> {
    let router = Router::new().route_service("/grpc.health.v1.Health/{*method}", health);
    if !reflection {
        return Ok(router);
    }
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that grpcurl prints the details of errors instead of their bytes.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = builder()
        .build_v1()
        .map_err(io::Error::other)?
        .max_decoding_message_size(max_bytes);
    let v1alpha = builder()
        .build_v1alpha()
        .map_err(io::Error::other)?
        .max_decoding_message_size(max_bytes);
    Ok(router
        .route_service("/grpc.reflection.v1.ServerReflection/{*method}", v1)
        .route_service("/grpc.reflection.v1alpha.ServerReflection/{*method}", v1alpha))
}

/// Health watches and reflection streams that may be open at a time, in all and from one address:
/// by far more than probes and people need.
const OPEN_STREAMS: usize = 4096;
const OPEN_STREAMS_OF_A_PEER: u32 = 1024;
