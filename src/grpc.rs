//! What callers see: the layers around every call, the services, and the one table of statuses.

mod decode;
pub mod layers;
mod participants;
mod quotas;
pub mod status;
mod timeout;

pub use participants::Participants;
pub use quotas::Quotas;
pub use timeout::Timeout;

/// The method as metrics and spans name it; nothing for health and reflection, which have neither.
#[must_use]
pub fn method(path: &str) -> Option<&'static str> {
    match path {
        CREATE_PARTICIPANT | GET_QUOTA => {
            let ours = if path == CREATE_PARTICIPANT { CREATE_PARTICIPANT } else { GET_QUOTA };
            Some(ours.trim_start_matches('/'))
        }
        _ if path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.") => None,
        // Callers choose the path: it would make as many series as they like.
        _ => Some("_OTHER"),
    }
}

/// Whether the path is a method of ours: one that asks for an identity, has a deadline and is
/// counted.
#[must_use]
pub fn is_ours(path: &str) -> bool {
    matches!(path, CREATE_PARTICIPANT | GET_QUOTA)
}

/// The full path of `CreateParticipant`, as it stands in the request's `:path`.
pub const CREATE_PARTICIPANT: &str = "/participantgateway.v1.ParticipantService/CreateParticipant";

/// The full path of `GetQuota`.
pub const GET_QUOTA: &str = "/participantgateway.v1.QuotaService/GetQuota";
