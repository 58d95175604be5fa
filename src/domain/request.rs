//! A call that has passed validation.

use std::fmt;

use super::{ClientToken, ContactId, DisplayName, InstanceId};

/// A validated request to add a participant to a live contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateParticipant {
    /// The Connect instance that holds the contact.
    pub instance_id: InstanceId,
    /// The contact that gets the participant.
    pub contact_id: ContactId,
    /// The caller's idempotency key. `None`: no retry of this call is recognised.
    pub client_token: Option<ClientToken>,
    /// The role of the participant.
    pub role: Role,
    /// The name that the other participants see.
    pub display_name: DisplayName,
    /// The media that a WebRTC participant may send; an empty message means the same as none.
    pub capabilities: Option<Capabilities>,
}

/// The roles that Connect's `CreateParticipant` accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A customer, of a WebRTC call.
    Customer,
    /// A bot of the caller's own, in a chat.
    CustomBot,
}

impl Role {
    /// Both roles.
    pub const ALL: [Self; 2] = [Self::CustomBot, Self::Customer];

    /// The name that Connect and the config use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "CUSTOMER",
            Self::CustomBot => "CUSTOM_BOT",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The media that a WebRTC participant may send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The participant may send video.
    pub video: bool,
    /// The participant may share a screen.
    pub screen_share: bool,
}
