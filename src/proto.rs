//! The generated messages and services of `participantgateway.v1`.
//!
//! The `Debug` of what holds secrets or personal data is written here by hand: the generated one
//! would print them.

use std::fmt;

#[allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated")]
mod generated {
    tonic::include_proto!("participantgateway.v1");
}

pub use generated::*;

impl fmt::Debug for CreateParticipantRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateParticipantRequest")
            .field("instance_id", &self.instance_id)
            .field("contact_id", &REDACTED)
            .field("client_token", &REDACTED)
            .field("participant_details", &self.participant_details)
            .finish()
    }
}

impl fmt::Debug for ParticipantDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParticipantDetails")
            .field("participant_role", &self.participant_role)
            .field("display_name", &REDACTED)
            .field("participant_capabilities", &self.participant_capabilities)
            .finish()
    }
}

impl fmt::Debug for ParticipantCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParticipantCredentials")
            .field("participant_token", &REDACTED)
            .field("expiry", &self.expiry)
            .finish()
    }
}

/// The protos as a `FileDescriptorSet`, for server reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The proto package, which is also the domain of every `google.rpc.ErrorInfo`.
pub const PACKAGE: &str = "participantgateway.v1";
const REDACTED: &str = "[redacted]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_messages_do_not_print_secrets() {
        let response = CreateParticipantResponse {
            participant_credentials: Some(ParticipantCredentials {
                participant_token: "canary".to_owned(),
                expiry: None,
            }),
            ..Default::default()
        };
        let request = CreateParticipantRequest {
            contact_id: "canary".to_owned(),
            client_token: "canary".to_owned(),
            participant_details: Some(ParticipantDetails {
                display_name: "canary".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let printed = format!("{response:?} {request:?}");
        assert!(!printed.contains("canary"), "{printed}");
        assert!(printed.contains("participant_token"), "{printed}");
    }
}
