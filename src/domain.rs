//! The subject of the gateway, without its transport: validated calls, tenants, upstreams,
//! participants.
//!
//! Pure: no I/O, no clock, no framework. A value of these types keeps every rule of the contract,
//! so other modules need not check it again.

mod participant;
mod request;
mod tenant;
mod text;
mod upstream;

pub use participant::{Participant, ParticipantToken};
pub use request::{Capabilities, CreateParticipant, Role};
pub use tenant::{Enforcement, Instances, Rate, Tenant, TenantLimits, share_burst};
pub use text::{ClientToken, ContactId, DisplayName, InstanceId, Name, OutOfBounds, UpstreamToken};
pub use upstream::Upstream;
