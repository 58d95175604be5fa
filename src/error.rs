//! Everything that can go wrong with a call, as one closed set.
//!
//! Policy. A variant says *what happened*, whether the request *was sent*, and *how long to wait*;
//! it never says how it looks on the wire. [`crate::grpc::status`] is the one table from here to
//! gRPC's codes, and it matches without a wildcard, so that a new variant does not compile until
//! somebody has chosen its code, reason and sentence. The text of a source (AWS, Redis, the
//! network) is for the log. It never reaches a caller.

mod refusal;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::OutOfBounds;

pub use refusal::{Refusal, RefusalKind};

/// The text and chain of a failure below us: for the log only. Shared, since duplicates of a call
/// get the same error.
pub type Source = Arc<dyn std::error::Error + Send + Sync>;

/// A failure below us that is still on its way up.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error with all that is below it, in one line of a log.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Why a call has no participant.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No credentials of the caller, or bad ones.
    #[error("unauthenticated: {0}")]
    Unauthenticated(Refusal),
    /// Good credentials of nobody we know.
    #[error("no such tenant: {0}")]
    TenantUnknown(Refusal),
    /// Larger than `server.max_request_bytes`.
    #[error("request too large")]
    RequestTooLarge,
    /// Not readable as protobuf, or a `grpc-timeout` that is none.
    #[error("malformed request: {0}")]
    MalformedRequest(&'static str),
    /// Compressed in a way that is not spoken here; compression is off.
    #[error("unsupported encoding of the request")]
    UnsupportedEncoding,
    /// No such method or service.
    #[error("unknown method")]
    UnknownMethod,
    /// The request breaks rules of the contract: all of them are listed.
    #[error("{} field violations", .0.len())]
    InvalidRequest(Vec<Violation>),
    /// Not on the tenant's list, or on nobody's: callers cannot tell which.
    #[error("instance not allowed")]
    InstanceNotAllowed,
    /// Not on the tenant's list.
    #[error("role not allowed")]
    RoleNotAllowed,
    /// The same `client_token` came with other content before.
    #[error("client token reused with other content")]
    ClientTokenReused,
    /// The result's credentials have expired within the retention.
    #[error("result expired")]
    ResultExpired,
    /// A duplicate was still in flight when the wait ended.
    #[error("duplicate in progress, its lease ends in {retry_after:?}")]
    RequestInProgress {
        /// The rest of the lease, at most 1 s.
        retry_after: Duration,
    },
    /// A limit of ours.
    #[error("{limit:?} exhausted for {retry_after:?}")]
    Limited {
        /// Which one.
        limit: Limit,
        /// That limit's own wait, without jitter.
        retry_after: Duration,
    },
    /// Too many calls in this process.
    #[error("overloaded")]
    Overloaded,
    /// `server.drain_timeout` ran out.
    #[error("shutting down")]
    ShuttingDown {
        /// Whether Connect may have seen the call.
        sent: Sent,
        /// The call has a `client_token`: a repeat makes no second participant.
        repeatable: bool,
    },
    /// The store is lost, and `store.on_loss` says reject.
    #[error("store unavailable")]
    StoreUnavailable(#[source] Source),
    /// The upstream's circuit is open.
    #[error("circuit open, next probe in {retry_after:?}")]
    CircuitOpen {
        /// Until the next probe.
        retry_after: Duration,
    },
    /// The caller's deadline passed in the gateway.
    #[error("deadline exceeded, sent: {sent:?}")]
    DeadlineExceeded {
        /// Whether Connect may have seen the call.
        sent: Sent,
        /// The call has a `client_token`: a repeat makes no second participant.
        repeatable: bool,
    },
    /// Connect, or the way to it, failed.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A bug of ours.
    #[error("bug: {detail}")]
    GatewayBug {
        /// For the log.
        detail: String,
        /// Whether Connect may have seen the call.
        sent: Sent,
    },
}

/// Which limit of ours refused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The tenant's rate.
    TenantRate,
    /// The tenant's calls in flight.
    TenantInFlight,
    /// The upstream's budget: the account's quota, over all tenants.
    UpstreamBudget,
}

impl Limit {
    /// Its name in `ErrorInfo` and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TenantRate => "tenant_rate",
            Self::TenantInFlight => "in_flight",
            Self::UpstreamBudget => "budget",
        }
    }
}

/// Whether a request was sent: the fact that a safe retry needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    /// Not a byte of it.
    No,
    /// Some of it, or all, and no answer that settles what became of it.
    Maybe,
    /// All of it, and Connect's answer says what became of it.
    Answered,
}

/// What an ended call means for its idempotency record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aftermath {
    /// Provably not executed: forget the record. `unsent`: not a byte went out, so the tenant's
    /// charge goes back too.
    Release {
        /// Nothing was sent.
        unsent: bool,
    },
    /// It may have been executed: keep fingerprint and upstream token.
    Uncertain,
}

/// One broken rule of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The proto field's path, such as `participant_details.display_name`.
    pub field: &'static str,
    /// What was expected, without the caller's value.
    pub description: String,
}

impl Violation {
    /// A broken rule, in words.
    pub fn new(field: &'static str, description: impl Into<String>) -> Self {
        Self { field, description: description.into() }
    }

    /// A text of the wrong length.
    #[must_use]
    pub fn length(field: &'static str, bounds: OutOfBounds) -> Self {
        Self::new(field, bounds.to_string())
    }
}

/// A failure of Connect, or of the way to it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("upstream failed: {fault:?}, sent: {sent:?}, code: {code:?}, request id: {request_id:?}")]
pub struct UpstreamError {
    /// What it was.
    pub fault: Fault,
    /// Whether Connect may have seen the attempt.
    pub sent: Sent,
    /// An earlier attempt of the same call may have been executed, whatever became of this one.
    pub earlier_uncertain: bool,
    /// Something was sent in an earlier attempt of the same call, even where this one sent nothing.
    pub earlier_sent: bool,
    /// The time of the next attempt, if only the caller's deadline or hang-up prevented it.
    pub due: Option<Instant>,
    /// The call has a `client_token`: a repeat makes no second participant.
    pub repeatable: bool,
    /// AWS's error code, where the answer held one.
    pub code: Option<String>,
    /// AWS's request id, where the answer held one.
    pub request_id: Option<String>,
    /// How long Connect asks to wait (`x-amz-retry-after`), where it says so.
    pub retry_after: Option<Duration>,
    /// For the log.
    #[source]
    pub source: Option<Source>,
}

/// The kinds of upstream failure, a row each of docs/design/contract.md, "The table".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// `InvalidRequestException`, `ValidationException`.
    InvalidRequest,
    /// `ResourceNotFoundException`: the contact or the instance.
    NotFound,
    /// `ConflictException`.
    Conflict,
    /// `ServiceQuotaExceededException`: a limit that waiting does not mend.
    QuotaExceeded,
    /// `ThrottlingException` and its like.
    Throttled,
    /// `InternalServiceException`, 5xx and 408.
    Internal,
    /// AWS refuses the gateway's own credentials.
    AuthMisconfigured,
    /// AWS says that the credentials are out of date.
    CredentialsStale,
    /// AWS refuses the signature, and its clock and ours differ: the next attempt is signed with
    /// the right time.
    ClockSkew,
    /// There are no credentials at all.
    CredentialsMissing,
    /// A provider of credentials failed or timed out.
    CredentialsUnavailable,
    /// Refused, DNS, TLS (nothing sent), or lost after sending.
    Unreachable,
    /// The request could not be built: a bug of ours.
    NotBuilt,
    /// A success that cannot be read, or that lacks the participant's id or token.
    BadResponse,
    /// The attempt timed out.
    TimedOut,
    /// Any other code or status.
    Unrecognized,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::InvalidRequest,
        Self::NotFound,
        Self::Conflict,
        Self::QuotaExceeded,
        Self::Throttled,
        Self::Internal,
        Self::AuthMisconfigured,
        Self::CredentialsStale,
        Self::ClockSkew,
        Self::CredentialsMissing,
        Self::CredentialsUnavailable,
        Self::Unreachable,
        Self::NotBuilt,
        Self::BadResponse,
        Self::TimedOut,
        Self::Unrecognized,
    ];

    /// Its name in metrics and spans.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Throttled => "throttled",
            Self::Internal => "internal",
            Self::AuthMisconfigured => "auth_misconfigured",
            Self::CredentialsStale => "credentials_stale",
            Self::ClockSkew => "clock_skew",
            Self::CredentialsMissing => "credentials_missing",
            Self::CredentialsUnavailable => "credentials_unavailable",
            Self::Unreachable => "unreachable",
            Self::NotBuilt => "not_built",
            Self::BadResponse => "bad_response",
            Self::TimedOut => "timed_out",
            Self::Unrecognized => "unrecognized",
        }
    }
}

impl UpstreamError {
    /// A failure of which nothing else is known.
    #[must_use]
    pub const fn new(fault: Fault, sent: Sent) -> Self {
        Self {
            fault,
            sent,
            earlier_uncertain: false,
            earlier_sent: false,
            due: None,
            repeatable: false,
            code: None,
            request_id: None,
            retry_after: None,
            source: None,
        }
    }

    /// The same, with what is below it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Cause>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// Whether Connect may have executed this attempt, or an earlier one of the call.
    #[must_use]
    pub fn may_have_executed(&self) -> bool {
        self.earlier_uncertain || self.attempt_may_have_executed()
    }

    fn attempt_may_have_executed(&self) -> bool {
        match self.fault {
            Fault::Internal | Fault::BadResponse | Fault::Unrecognized => true,
            Fault::Unreachable | Fault::TimedOut => self.sent != Sent::No,
            Fault::InvalidRequest
            | Fault::NotFound
            | Fault::Conflict
            | Fault::QuotaExceeded
            | Fault::Throttled
            | Fault::AuthMisconfigured
            | Fault::CredentialsStale
            | Fault::ClockSkew
            | Fault::CredentialsMissing
            | Fault::CredentialsUnavailable
            | Fault::NotBuilt => false,
        }
    }
}

impl Error {
    /// Why the caller was refused for its identity, if it was.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Unauthenticated(refusal) | Self::TenantUnknown(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// What the error means for the idempotency record of its call.
    #[must_use]
    pub fn aftermath(&self) -> Aftermath {
        match self {
            Self::Upstream(upstream) if upstream.may_have_executed() => Aftermath::Uncertain,
            Self::Upstream(upstream) => {
                Aftermath::Release { unsent: upstream.sent == Sent::No && !upstream.earlier_sent }
            }
            Self::DeadlineExceeded { sent, .. }
            | Self::ShuttingDown { sent, .. }
            | Self::GatewayBug { sent, .. } => match sent {
                Sent::No => Aftermath::Release { unsent: true },
                Sent::Maybe | Sent::Answered => Aftermath::Uncertain,
            },
            Self::Unauthenticated(_)
            | Self::TenantUnknown(_)
            | Self::RequestTooLarge
            | Self::MalformedRequest(_)
            | Self::UnsupportedEncoding
            | Self::UnknownMethod
            | Self::InvalidRequest(_)
            | Self::InstanceNotAllowed
            | Self::RoleNotAllowed
            | Self::ClientTokenReused
            | Self::ResultExpired
            | Self::RequestInProgress { .. }
            | Self::Limited { .. }
            | Self::Overloaded
            | Self::StoreUnavailable(_)
            | Self::CircuitOpen { .. } => Aftermath::Release { unsent: true },
        }
    }
}
