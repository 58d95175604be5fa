//! The generated messages and services of `participantgateway.v1`.
//!
//! The `Debug` of messages with secrets or personal data is written by hand here: the generated one
//! would print them.

use std::fmt;
use std::marker::PhantomData;

use tonic::codec::BufferSettings;
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

#[allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated")]
mod generated {
    tonic::include_proto!("participantgateway.v1");
}

pub use generated::*;

/// tonic's codec for protobuf, with buffers of the size of our messages: its own begin with 8 KiB
/// for each message in and each message out.
#[derive(Debug)]
pub(crate) struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: prost::Message + Send + 'static,
    U: prost::Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(buffers())
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

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

/// What a buffer has room for at first: most messages. A larger one makes it grow.
const BUFFER_BYTES: usize = 1024;

/// From how many bytes on a stream of messages is sent: tonic's own figure.
const YIELD_BYTES: usize = 32 * 1024;

/// The protos as a `FileDescriptorSet`, for server reflection.
pub(crate) const DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The proto package, which is also the domain of every `google.rpc.ErrorInfo`.
pub(crate) const PACKAGE: &str = "participantgateway.v1";
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
