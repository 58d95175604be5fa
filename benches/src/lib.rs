//! What the baselines of docs/performance.md share: the service, and a server for it.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a baseline that cannot start says why, and ends"
)]

pub mod serve;

#[allow(clippy::all, missing_docs, reason = "generated")]
mod generated {
    tonic::include_proto!("participantgateway.v1");
}

use std::time::SystemTime;

pub use generated::participant_service_server::{ParticipantService, ParticipantServiceServer};
pub use generated::{
    CreateParticipantRequest, CreateParticipantResponse, ParticipantCredentials,
    ParticipantDetails, ParticipantRole,
};
use tonic::{Request, Status};

/// A canned answer of the usual size.
#[must_use]
pub fn canned(replayed: bool) -> CreateParticipantResponse {
    let now = SystemTime::now();
    CreateParticipantResponse {
        participant_id: "c4a3b1f2-0d5e-4f6a-8b7c-9d0e1f2a3b4c".to_owned(),
        participant_credentials: Some(ParticipantCredentials {
            participant_token: "t".repeat(256),
            expiry: Some(now.into()),
        }),
        create_time: Some(now.into()),
        replayed,
    }
}

/// One of the `client_token`s of replays.
#[must_use]
pub fn repeated(number: u32) -> String {
    format!("repeated-{number:011}")
}

/// So many of them that calls with the same one are not in flight together: a gateway would answer
/// these by one question to Redis.
pub const REPEATED: u32 = 2_000;

/// The tenant that the call's metadata names.
#[must_use]
pub fn tenant<T>(request: &Request<T>) -> &str {
    let named = request.metadata().get("x-tenant-id");
    named.and_then(|name| name.to_str().ok()).unwrap_or_default()
}

/// A refusal with nothing but its code and sentence.
#[must_use]
pub fn refused() -> Status {
    Status::resource_exhausted("the tenant's rate is exceeded")
}
