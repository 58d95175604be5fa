//! The one table from an error to its code, reason, sentence and details. It has no wildcard: a new
//! error compiles only with a row of its own. docs/design/contract.md, "The table", has the rows
//! for callers.

use std::time::Duration;

use tonic::Code;

use crate::error::{Error, Fault, Limit, Sent, UpstreamError, Violation};

/// An error's row of the table.
pub(super) struct Row {
    pub code: Code,
    pub reason: &'static str,
    pub message: &'static str,
    /// The wait before a repeat; `None`: a repeat does not help, or is not safe.
    pub retry: Option<Duration>,
    pub details: Details,
}

pub(super) enum Details {
    None,
    BadRequest(Vec<Violation>),
    Quota(Limit),
    ServiceQuota,
    Precondition,
    Resource,
}

pub(super) fn row(error: &Error) -> Row {
    use Details as D;
    let row = |code, reason, message, retry, details| Row { code, reason, message, retry, details };
    match error {
        Error::Unauthenticated(_) => row(
            Code::Unauthenticated,
            "UNAUTHENTICATED",
            "The call carries no valid identity: send exactly one, of the kind that this gateway asks for.",
            None,
            D::None,
        ),
        Error::TenantUnknown(_) => row(
            Code::PermissionDenied,
            "TENANT_UNKNOWN",
            "The caller is no tenant of this gateway: ask its operators to add it.",
            None,
            D::None,
        ),
        Error::RequestTooLarge => row(
            Code::ResourceExhausted,
            "REQUEST_TOO_LARGE",
            "The request, or its metadata, is larger than this gateway accepts: make it smaller.",
            None,
            D::None,
        ),
        Error::MalformedRequest(_) => row(
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
            "The request cannot be read: check its encoding and its grpc-timeout.",
            None,
            D::None,
        ),
        Error::UnsupportedEncoding => row(
            Code::Unimplemented,
            "UNSUPPORTED_ENCODING",
            "The request is compressed: send it uncompressed.",
            None,
            D::None,
        ),
        Error::UnknownMethod => row(
            Code::Unimplemented,
            "UNKNOWN_METHOD",
            "There is no such method here: check the service's and the method's names.",
            None,
            D::None,
        ),
        Error::InvalidRequest(violations) => row(
            Code::InvalidArgument,
            "INVALID_REQUEST",
            "The request breaks rules: mend every field that the details name.",
            None,
            D::BadRequest(violations.clone()),
        ),
        Error::InstanceNotAllowed => row(
            Code::PermissionDenied,
            "INSTANCE_NOT_ALLOWED",
            "The caller may not use this instance: check instance_id, or ask the gateway's operators.",
            None,
            D::None,
        ),
        Error::RoleNotAllowed => row(
            Code::PermissionDenied,
            "ROLE_NOT_ALLOWED",
            "The caller may not ask for this role: check participant_role, or ask the gateway's operators.",
            None,
            D::None,
        ),
        Error::ClientTokenReused => row(
            Code::InvalidArgument,
            "CLIENT_TOKEN_REUSED",
            "The client_token was used with other content: make a new one for a new call.",
            None,
            D::BadRequest(vec![Violation::new(
                "client_token",
                "was used with other content before",
            )]),
        ),
        Error::ResultExpired => row(
            Code::FailedPrecondition,
            "RESULT_EXPIRED",
            "The call has run, and its credentials have expired: make a new client_token for a new participant.",
            None,
            D::Precondition,
        ),
        Error::RequestInProgress { retry_after } => row(
            Code::Aborted,
            "REQUEST_IN_PROGRESS",
            "The same call is still running: try again with the same client_token after the delay.",
            Some(*retry_after),
            D::None,
        ),
        Error::Limited { limit, retry_after } => {
            let (reason, message) = match limit {
                Limit::TenantRate => (
                    "TENANT_RATE_LIMITED",
                    "The caller is above its rate: try again after the delay.",
                ),
                Limit::TenantInFlight => (
                    "TENANT_IN_FLIGHT_LIMITED",
                    "The caller has too many calls in flight: await some, and try again after the delay.",
                ),
                Limit::UpstreamBudget => (
                    "UPSTREAM_BUDGET_EXHAUSTED",
                    "The account's quota is used up for now: try again after the delay.",
                ),
            };
            row(Code::ResourceExhausted, reason, message, Some(*retry_after), D::Quota(*limit))
        }
        Error::Overloaded => row(
            Code::ResourceExhausted,
            "OVERLOADED",
            "The gateway is overloaded: try again after the delay.",
            Some(DEFAULT_RETRY),
            D::None,
        ),
        Error::ShuttingDown { sent, repeatable } => {
            let is_safe = *repeatable || *sent == Sent::No;
            row(
                if is_safe { Code::Unavailable } else { Code::Internal },
                "SHUTTING_DOWN",
                if is_safe {
                    "This replica is shutting down: try again on another connection, with the same \
                     client_token."
                } else {
                    ONCE
                },
                is_safe.then_some(DEFAULT_RETRY),
                D::None,
            )
        }
        Error::StoreUnavailable(_) => row(
            Code::Unavailable,
            "STORE_UNAVAILABLE",
            "The gateway has lost its store: try again after the delay.",
            Some(DEFAULT_RETRY),
            D::None,
        ),
        Error::CircuitOpen { retry_after } => row(
            Code::Unavailable,
            "CIRCUIT_OPEN",
            "Amazon Connect has been failing, so nothing was sent: try again after the delay.",
            Some(*retry_after),
            D::None,
        ),
        Error::DeadlineExceeded { sent, repeatable } => {
            let is_safe = *repeatable || *sent == Sent::No;
            row(
                Code::DeadlineExceeded,
                "DEADLINE_EXCEEDED",
                if is_safe {
                    "The deadline has passed: try again with the same client_token and a longer one."
                } else {
                    ONCE
                },
                is_safe.then_some(DEFAULT_RETRY),
                D::None,
            )
        }
        Error::Upstream(error) => upstream_row(error),
        Error::GatewayBug { .. } => gateway_bug(),
    }
}

const fn gateway_bug() -> Row {
    Row {
        code: Code::Internal,
        reason: "GATEWAY_BUG",
        message: "The gateway has a bug: tell its operators the request id.",
        retry: None,
        details: Details::None,
    }
}

fn upstream_row(error: &UpstreamError) -> Row {
    use Details as D;
    let row = |code, reason, message, retry, details| Row { code, reason, message, retry, details };
    // Without a client_token, a call that may have been executed must not be sent again. Neither
    // the code nor a hint may suggest it.
    let repeatable = error.repeatable || !error.may_have_executed();
    let unavailable = if repeatable { Code::Unavailable } else { Code::Internal };
    let retry = |delay| if repeatable { Some(delay) } else { None };
    let sentence = |message| if repeatable { message } else { ONCE };
    match error.fault {
        Fault::InvalidRequest => row(
            Code::InvalidArgument,
            "UPSTREAM_INVALID_REQUEST",
            "Amazon Connect refuses the request: check that the contact is live and of the kind that the role needs.",
            None,
            D::None,
        ),
        Fault::NotFound => row(
            Code::NotFound,
            "CONTACT_OR_INSTANCE_NOT_FOUND",
            "Amazon Connect knows no such contact or instance: check contact_id and instance_id.",
            None,
            D::Resource,
        ),
        // No delay: the caller must look at the contact first.
        Fault::Conflict => row(
            Code::Aborted,
            "UPSTREAM_CONFLICT",
            sentence("Amazon Connect reports a conflict: look at the contact's state first."),
            None,
            D::None,
        ),
        Fault::QuotaExceeded => row(
            Code::ResourceExhausted,
            "SERVICE_QUOTA_EXCEEDED",
            "A quota of Amazon Connect that waiting does not mend is used up: do not retry.",
            None,
            D::ServiceQuota,
        ),
        Fault::Throttled => row(
            Code::ResourceExhausted,
            "UPSTREAM_THROTTLED",
            sentence("Amazon Connect throttles the account: try again after the delay."),
            retry(error.retry_after.unwrap_or(DEFAULT_RETRY)),
            D::None,
        ),
        Fault::Internal => row(
            unavailable,
            "UPSTREAM_ERROR",
            sentence(
                "Amazon Connect failed, and may have executed the call: retry only with the same client_token.",
            ),
            retry(DEFAULT_RETRY),
            D::None,
        ),
        Fault::AuthMisconfigured => row(
            Code::Internal,
            "UPSTREAM_AUTH_MISCONFIGURED",
            "Amazon Connect refuses the gateway's own credentials: tell the gateway's operators.",
            None,
            D::None,
        ),
        Fault::ClockSkew | Fault::CredentialsStale => row(
            unavailable,
            "UPSTREAM_CREDENTIALS_STALE",
            sentence(
                "The gateway's own credentials or clock are out of date: try again after the delay.",
            ),
            retry(DEFAULT_RETRY),
            D::None,
        ),
        Fault::CredentialsMissing => row(
            Code::Internal,
            "UPSTREAM_CREDENTIALS_UNAVAILABLE",
            "The gateway has no AWS credentials: tell the gateway's operators.",
            None,
            D::None,
        ),
        Fault::CredentialsUnavailable => row(
            unavailable,
            "UPSTREAM_CREDENTIALS_UNAVAILABLE",
            sentence(
                "The gateway cannot load its AWS credentials for now: try again after the delay.",
            ),
            retry(DEFAULT_RETRY),
            D::None,
        ),
        Fault::Unreachable => {
            let message = if error.may_have_executed() {
                "The connection to Amazon Connect was lost: retry only with the same client_token."
            } else {
                "Amazon Connect cannot be reached, and nothing was executed: try again after the delay."
            };
            row(
                unavailable,
                "UPSTREAM_UNREACHABLE",
                sentence(message),
                retry(DEFAULT_RETRY),
                D::None,
            )
        }
        Fault::BadResponse => row(
            Code::Internal,
            "UPSTREAM_BAD_RESPONSE",
            "Amazon Connect's answer cannot be read: tell the gateway's operators the request id.",
            None,
            D::None,
        ),
        Fault::NotBuilt => gateway_bug(),
        Fault::TimedOut => row(
            Code::DeadlineExceeded,
            "UPSTREAM_TIMEOUT",
            sentence(
                "Amazon Connect did not answer in time: retry only with the same client_token.",
            ),
            retry(DEFAULT_RETRY),
            D::None,
        ),
        Fault::Unrecognized => row(
            Code::Unknown,
            "UPSTREAM_UNRECOGNIZED",
            "Amazon Connect answered with an error that the gateway does not know: tell its operators the request id.",
            None,
            D::None,
        ),
    }
}

/// The wait after a throttle that does not say how long to wait, and where no other wait is known.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// The sentence for a call without a client_token that may have been executed.
const ONCE: &str = "It may have been executed, and without a client_token a retry may make a \
                    second participant.";

#[cfg(test)]
mod tests {
    /// `grpc-message` escapes `%` and all but printable ASCII (gRPC over HTTP/2, "Responses").
    #[test]
    fn every_sentence_is_a_header_as_it_stands() {
        let (table, _) = include_str!("table.rs").split_once("#[cfg(test)]").unwrap();
        assert!(table.is_ascii());
        for escaped in ["%", "\\n", "\\t", "\\u"] {
            assert!(!table.contains(escaped), "{escaped}");
        }
    }
}
