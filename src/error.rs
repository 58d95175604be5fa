//! Every error of a call, as one closed set.
//!
//! Policy. A variant says *what happened*, whether the request *was sent*, and *how long to wait*.
//! It never says how it looks on the wire. [`crate::grpc::status`] holds the one table from these
//! errors to gRPC's codes. The table matches without a wildcard: a new variant compiles only with a
//! code, a reason and a sentence. The text of a source (AWS, Redis, the network) is for the log,
//! and never reaches a caller.

mod refusal;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::OutOfBounds;

pub use refusal::Refusal;
pub(crate) use refusal::RefusalKind;

/// The text and the causes of a failure in a lower layer: for the log only. Shared, because
/// duplicates of a call get the same error.
pub(crate) type Source = Arc<dyn std::error::Error + Send + Sync>;

/// A failure of a lower layer, before it becomes an [`Error`].
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error with all its causes, in one line of the log.
#[must_use]
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    // Most are shorter, so that the text is allocated once.
    let mut chain = String::with_capacity(128);
    let _always_fits = write!(chain, "{error}");
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let _always_fits = write!(chain, ": {cause}");
    }
    chain
}

/// Why a call has no participant.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The caller's credentials are missing or bad.
    #[error("unauthenticated: {0}")]
    Unauthenticated(Refusal),
    /// The caller's credentials are good, but belong to no tenant.
    #[error("no such tenant: {0}")]
    TenantUnknown(Refusal),
    /// Larger than `server.max_request_bytes`.
    #[error("request too large")]
    RequestTooLarge,
    /// The message is no protobuf of its type, or the `grpc-timeout` is not valid.
    #[error("malformed request: {0}")]
    MalformedRequest(&'static str),
    /// The message is compressed. The gateway supports no compression.
    #[error("unsupported encoding of the request")]
    UnsupportedEncoding,
    /// No such method or service.
    #[error("unknown method")]
    UnknownMethod,
    /// The request breaks rules of the contract: the list holds all of them.
    #[error("{} field violations", .0.len())]
    InvalidRequest(Vec<Violation>),
    /// The instance is not on the tenant's list, or on no list: callers cannot tell which.
    #[error("instance not allowed")]
    InstanceNotAllowed,
    /// The role is not on the tenant's list.
    #[error("role not allowed")]
    RoleNotAllowed,
    /// An earlier call used the same `client_token` with other content.
    #[error("client token reused with other content")]
    ClientTokenReused,
    /// The credentials of the stored result have expired within the retention.
    #[error("result expired")]
    ResultExpired,
    /// The first call with this `client_token` was still in flight when the wait of the duplicate
    /// ended.
    #[error("duplicate in progress, its lease ends in {retry_after:?}")]
    RequestInProgress {
        /// The rest of the lease, at most 1 s.
        retry_after: Duration,
    },
    /// A limit of the gateway refused the call.
    #[error("{limit:?} exhausted for {retry_after:?}")]
    Limited {
        /// The limit that refused it.
        limit: Limit,
        /// The wait of that limit, without jitter.
        retry_after: Duration,
    },
    /// Too many calls are in flight in this process.
    #[error("overloaded")]
    Overloaded,
    /// `server.drain_timeout` ended.
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
        /// The time until the next probe.
        retry_after: Duration,
    },
    /// The caller's deadline passed while the gateway had the call.
    #[error("deadline exceeded, sent: {sent:?}")]
    DeadlineExceeded {
        /// Whether Connect may have seen the call.
        sent: Sent,
        /// The call has a `client_token`: a repeat makes no second participant.
        repeatable: bool,
    },
    /// Connect, or the connection to it, failed.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A bug of the gateway.
    #[error("bug: {detail}")]
    GatewayBug {
        /// The text for the log.
        detail: String,
        /// Whether Connect may have seen the call.
        sent: Sent,
    },
}

/// The limit of the gateway that refused a call.
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

/// Whether a request was sent: a safe retry depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    /// No byte of the request was sent.
    No,
    /// Some bytes were sent, or all, and no answer says what happened.
    Maybe,
    /// All bytes were sent, and Connect's answer says what happened.
    Answered,
}

/// The effect of an ended call on its idempotency record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aftermath {
    /// Provably not executed: the record is forgotten. `unsent`: no byte was sent, so the tenant
    /// also gets its charge back.
    Release {
        /// Nothing was sent.
        unsent: bool,
    },
    /// It may have been executed: the record keeps its fingerprint and its upstream token.
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
    pub(crate) fn new(field: &'static str, description: impl Into<String>) -> Self {
        Self { field, description: description.into() }
    }

    /// A text of the wrong length, in characters.
    #[must_use]
    pub(crate) fn length(field: &'static str, bounds: OutOfBounds) -> Self {
        Self::new(field, bounds.to_string())
    }
}

/// A failure of Connect, or of the connection to it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("upstream failed: {fault:?}, sent: {sent:?}, code: {code:?}, request id: {request_id:?}")]
pub struct UpstreamError {
    /// The kind of the failure.
    pub(crate) fault: Fault,
    /// Whether Connect may have seen the attempt.
    pub sent: Sent,
    /// An earlier attempt of the same call may have been executed, whatever the result of this one.
    pub(crate) earlier_uncertain: bool,
    /// An earlier attempt of the same call sent bytes, even if this one sent none.
    pub(crate) earlier_sent: bool,
    /// The time of the next attempt, if only the caller's deadline or hang-up prevented it.
    pub due: Option<Instant>,
    /// The call has a `client_token`: a repeat makes no second participant.
    pub(crate) repeatable: bool,
    /// AWS's error code, where the answer held one.
    pub code: Option<String>,
    /// AWS's request id, where the answer held one.
    pub request_id: Option<String>,
    /// The wait that Connect asks for (`x-amz-retry-after`), where it does.
    pub retry_after: Option<Duration>,
    /// The causes, for the log.
    #[source]
    pub source: Option<Source>,
}

/// The kinds of upstream failure, one for each row of docs/design/contract.md, "The table".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// `InvalidRequestException`, `ValidationException`.
    InvalidRequest,
    /// `ResourceNotFoundException`: the contact or the instance.
    NotFound,
    /// `ConflictException`.
    Conflict,
    /// `ServiceQuotaExceededException`: a limit that waiting does not lift.
    QuotaExceeded,
    /// `ThrottlingException` and similar codes.
    Throttled,
    /// `InternalServiceException`, 5xx and 408.
    Internal,
    /// AWS refuses the gateway's own credentials.
    AuthMisconfigured,
    /// AWS says that the credentials are out of date.
    CredentialsStale,
    /// AWS refuses the signature, and the two clocks differ: the next attempt is signed with the
    /// right time.
    ClockSkew,
    /// There are no credentials at all.
    CredentialsMissing,
    /// A provider of credentials failed or timed out.
    CredentialsUnavailable,
    /// Refused, DNS or TLS (no byte sent), or lost after sending.
    Unreachable,
    /// The request could not be built: a bug of ours.
    NotBuilt,
    /// A success that cannot be read, or without the participant's id or token.
    BadResponse,
    /// The attempt timed out.
    TimedOut,
    /// Any other code or status.
    Unrecognized,
}

impl Fault {
    /// All kinds.
    pub(crate) const ALL: [Self; 16] = [
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
    pub(crate) const fn as_str(self) -> &'static str {
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
    /// A failure without any further facts.
    #[must_use]
    pub(crate) const fn new(fault: Fault, sent: Sent) -> Self {
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

    /// The same failure, with its cause.
    #[must_use]
    pub(crate) fn caused_by(mut self, source: impl Into<Cause>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// Whether Connect may have executed this attempt, or an earlier one of the call.
    #[must_use]
    pub(crate) fn may_have_executed(&self) -> bool {
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
    /// Why the caller was refused for its identity; `None` for other errors.
    #[must_use]
    pub(crate) const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Unauthenticated(refusal) | Self::TenantUnknown(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The effect of the error on the idempotency record of its call.
    #[must_use]
    pub(crate) fn aftermath(&self) -> Aftermath {
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
