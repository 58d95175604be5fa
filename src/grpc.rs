//! The interface for callers: the steps around every call, the services, and the one table of
//! statuses.

mod context;
pub mod decode;
mod header_list;
mod line;
mod participants;
mod quotas;
pub mod status;
pub(crate) mod steps;
mod timeout;
pub(crate) mod unary;

pub(crate) use context::Context;
pub use line::Line;
pub(crate) use participants::Participants;
pub(crate) use quotas::Quotas;
pub use timeout::Timeout;

/// A method of the gateway: it requires an identity, has a deadline and is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// `ParticipantService.CreateParticipant`.
    CreateParticipant,
    /// `QuotaService.GetQuota`.
    GetQuota,
}

impl Method {
    /// The method of this path, as it stands in the request's `:path`.
    #[must_use]
    pub(crate) fn of(path: &str) -> Option<Self> {
        let methods = [Self::CreateParticipant, Self::GetQuota];
        let name = path.strip_prefix('/')?;
        methods.into_iter().find(|method| method.as_str() == name)
    }

    /// Its full name in metrics and spans.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::CreateParticipant => "participantgateway.v1.ParticipantService/CreateParticipant",
            Self::GetQuota => "participantgateway.v1.QuotaService/GetQuota",
        }
    }
}

/// Any other method in metrics and spans. Callers choose the path, so its series would have no
/// bound.
pub(crate) const OTHER_METHOD: &str = "_OTHER";
