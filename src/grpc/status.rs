//! From errors to statuses: the one table of codes, reasons, sentences and details.
//!
//! An error travels inside a bare [`Status`] as its source; [`finish`], the outermost layer's last step, gives it its
//! face. So every error gets the request id and the tenant, wherever it arose, and tonic's own statuses pass by the
//! same place. The sentences tell the caller what to do. They are static: nothing of AWS, Redis or a host is in them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::is_ours;
use crate::error::{Error, Fault, Limit, Sent, UpstreamError, Violation};
use crate::proto::PACKAGE;
use crate::telemetry::Call;

/// Where a throttle does not say how long to wait, and where nothing else is known.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// What a call's answer says of it, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The gRPC code.
    pub code: Code,
    /// The `ErrorInfo` reason; empty for OK.
    pub reason: &'static str,
}

/// A status without a face: [`finish`] gives it code, sentence and details.
pub fn carrying(error: impl Into<Arc<Error>>) -> Status {
    let mut status = Status::unknown("");
    status.set_source(error.into());
    status
}

/// An answer for the error, not finished yet.
pub fn refuse(error: Error) -> Response<Body> {
    carrying(error).into_http()
}

/// Turns whatever the layers and services answered into what the caller sees. Returns the error too, for the log.
pub fn finish(response: Response<Body>, path: &str, call: &Call) -> (Response<Body>, Verdict, Option<Status>) {
    let Some(status) = unfinished(&response) else {
        return (response, Verdict { code: Code::Ok, reason: "" }, None);
    };
    let (code, reason, finished) = match typed(&status) {
        Some(error) => face(error, call),
        None => match tonics_own(&status, is_ours(path)) {
            Some(error) => face(&error, call),
            None => (status.code(), name(status.code()), with_details(&status, call)),
        },
    };
    (finished.into_http(), Verdict { code, reason }, Some(status))
}

/// The error inside the status, if it is one of ours.
#[must_use]
pub fn typed(status: &Status) -> Option<&Error> {
    std::error::Error::source(status)?.downcast_ref()
}

/// The code's name as gRPC's specification writes it.
#[must_use]
pub const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether a call that ends so has failed by our fault, or Connect's: an error of the server's span.
#[must_use]
pub const fn is_fault(code: Code) -> bool {
    match code {
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => false,
    }
}

fn unfinished(response: &Response<Body>) -> Option<Status> {
    if let Some(status) = response.extensions().get::<Status>() {
        return (status.code() != Code::Ok).then(|| status.clone());
    }
    Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
}

/// What tonic refuses by itself, before a handler runs. Statuses of health and reflection are left as they are.
fn tonics_own(status: &Status, is_ours: bool) -> Option<Error> {
    match status.code() {
        Code::Unimplemented if is_ours => Some(Error::UnsupportedEncoding),
        Code::Unimplemented => Some(Error::UnknownMethod),
        _ if !is_ours => None,
        // The only source of this code is the length prefix of a message over the limit: not a byte of it is buffered.
        Code::OutOfRange => Some(Error::RequestTooLarge),
        _ => Some(Error::MalformedRequest("unreadable message")),
    }
}

/// An error's row of the table.
struct Row {
    code: Code,
    reason: &'static str,
    message: &'static str,
    retry: Retry,
    details: Details,
}

enum Retry {
    Silent,
    After(Duration),
    Never,
}

enum Details {
    None,
    BadRequest(Vec<Violation>),
    Quota(Limit),
    ServiceQuota,
    Precondition,
    Resource,
}

fn face(error: &Error, call: &Call) -> (Code, &'static str, Status) {
    let Row { code, reason, message, retry, details } = row(error, call.retry_safe());
    let mut shown = base(reason, error, call);
    let mut metadata = HeaderMap::new();
    match retry {
        Retry::Silent => {}
        Retry::After(delay) => {
            // gRPC's clients read the pushback as a 32-bit number (gRFC A6).
            let millis = delay.as_nanos().div_ceil(1_000_000).clamp(1, i32::MAX as u128) as u64;
            shown.set_retry_info(Some(Duration::from_millis(millis)));
            metadata.insert(PUSHBACK, HeaderValue::from(millis));
        }
        Retry::Never => {
            metadata.insert(PUSHBACK, HeaderValue::from_static("-1"));
        }
    }
    let tenant = call.tenant().map_or_else(String::new, |tenant| format!("tenant:{tenant}"));
    let upstream = call.upstream().map_or_else(String::new, |upstream| format!("upstream:{upstream}"));
    match details {
        Details::None => {}
        Details::BadRequest(violations) => {
            let rows = violations.into_iter().map(|row| FieldViolation::new(row.field, row.description));
            shown.set_bad_request(rows.collect::<Vec<_>>());
        }
        Details::Quota(limit) => {
            let subject = if limit == Limit::UpstreamBudget { upstream } else { tenant };
            shown.add_quota_failure_violation(subject, message);
        }
        Details::ServiceQuota => {
            shown.add_quota_failure_violation(upstream, message);
        }
        Details::Precondition => {
            shown.add_precondition_failure_violation(reason, "client_token", message);
        }
        Details::Resource => {
            shown.set_resource_info("connect.amazonaws.com/Contact", "", "", message);
        }
    }
    let metadata = MetadataMap::from_headers(metadata);
    (code, reason, Status::with_error_details_and_metadata(code, message, shown, metadata))
}

fn with_details(status: &Status, call: &Call) -> Status {
    let mut shown = ErrorDetails::with_error_info(name(status.code()), PACKAGE, HashMap::new());
    shown.set_request_info(call.request_id(), "");
    Status::with_error_details_and_metadata(status.code(), status.message(), shown, status.metadata().clone())
}

fn base(reason: &'static str, error: &Error, call: &Call) -> ErrorDetails {
    let mut info = HashMap::new();
    let mut note = |key: &str, value: &str| info.insert(key.to_owned(), value.to_owned());
    if let Some(tenant) = call.tenant() {
        note("tenant", tenant.as_str());
    }
    match error {
        Error::Limited { limit, .. } => {
            note("limit", limit.as_str());
        }
        Error::Upstream(upstream) => {
            if let Some(code) = upstream.code.as_deref().filter(|code| is_plain(code)) {
                note("upstreamCode", code);
            }
            if let Some(id) = upstream.request_id.as_deref().filter(|id| is_plain(id)) {
                note("upstreamRequestId", id);
            }
        }
        _ => {}
    }
    let mut shown = ErrorDetails::with_error_info(reason, PACKAGE, info);
    shown.set_request_info(call.request_id(), "");
    shown
}

/// A word of AWS's that can be shown: a code or an id, never a sentence, an ARN or a host.
fn is_plain(word: &str) -> bool {
    (1..=128).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

const PUSHBACK: &str = "grpc-retry-pushback-ms";

fn row(error: &Error, retry_safe: bool) -> Row {
    use Details as D;
    use Retry::{After, Silent};
    let row = |code, reason, message, retry, details| Row { code, reason, message, retry, details };
    match error {
        Error::Unauthenticated(_) => row(
            Code::Unauthenticated,
            "UNAUTHENTICATED",
            "The call carries no valid identity: send exactly one, of the kind that this gateway asks for.",
            Silent,
            D::None,
        ),
        Error::TenantUnknown(_) => row(
            Code::PermissionDenied,
            "TENANT_UNKNOWN",
            "The caller is no tenant of this gateway: ask its operators to add it.",
            Silent,
            D::None,
        ),
        Error::RequestTooLarge => row(
            Code::ResourceExhausted,
            "REQUEST_TOO_LARGE",
            "The request is larger than this gateway accepts: make it smaller.",
            Silent,
            D::None,
        ),
        Error::MalformedRequest(_) => row(
            Code::InvalidArgument,
            "MALFORMED_REQUEST",
            "The request cannot be read: check its encoding and its grpc-timeout.",
            Silent,
            D::None,
        ),
        Error::UnsupportedEncoding => row(
            Code::Unimplemented,
            "UNSUPPORTED_ENCODING",
            "The request is compressed: send it uncompressed.",
            Silent,
            D::None,
        ),
        Error::UnknownMethod => row(
            Code::Unimplemented,
            "UNKNOWN_METHOD",
            "There is no such method here: check the service's and the method's names.",
            Silent,
            D::None,
        ),
        Error::InvalidRequest(violations) => row(
            Code::InvalidArgument,
            "INVALID_REQUEST",
            "The request breaks rules: mend every field that the details name.",
            Silent,
            D::BadRequest(violations.clone()),
        ),
        Error::InstanceNotAllowed => row(
            Code::PermissionDenied,
            "INSTANCE_NOT_ALLOWED",
            "The caller may not use this instance: check instance_id, or ask the gateway's operators.",
            Silent,
            D::None,
        ),
        Error::RoleNotAllowed => row(
            Code::PermissionDenied,
            "ROLE_NOT_ALLOWED",
            "The caller may not ask for this role: check participant_role, or ask the gateway's operators.",
            Silent,
            D::None,
        ),
        Error::ClientTokenReused => row(
            Code::InvalidArgument,
            "CLIENT_TOKEN_REUSED",
            "The client_token was used with other content: make a new one for a new call.",
            Silent,
            D::BadRequest(vec![Violation::new("client_token", "was used with other content before")]),
        ),
        Error::ResultExpired => row(
            Code::FailedPrecondition,
            "RESULT_EXPIRED",
            "The call has run, and its credentials have expired: make a new client_token for a new participant.",
            Silent,
            D::Precondition,
        ),
        Error::RequestInProgress { retry_after } => row(
            Code::Aborted,
            "REQUEST_IN_PROGRESS",
            "The same call is still running: try again with the same client_token after the delay.",
            After(*retry_after),
            D::None,
        ),
        Error::Limited { limit, retry_after } => {
            let (reason, message) = match limit {
                Limit::TenantRate => {
                    ("TENANT_RATE_LIMITED", "The caller is above its rate: try again after the delay.")
                }
                Limit::TenantInFlight => (
                    "TENANT_IN_FLIGHT_LIMITED",
                    "The caller has too many calls in flight: await some, and try again after the delay.",
                ),
                Limit::UpstreamBudget => {
                    ("UPSTREAM_BUDGET_EXHAUSTED", "The account's quota is used up for now: try again after the delay.")
                }
            };
            row(Code::ResourceExhausted, reason, message, After(*retry_after), D::Quota(*limit))
        }
        Error::Overloaded => row(
            Code::ResourceExhausted,
            "OVERLOADED",
            "The gateway is overloaded: try again after the delay.",
            After(DEFAULT_RETRY),
            D::None,
        ),
        Error::ShuttingDown => row(
            Code::Unavailable,
            "SHUTTING_DOWN",
            "This replica is shutting down: try again on another connection, with the same client_token.",
            After(DEFAULT_RETRY),
            D::None,
        ),
        Error::StoreUnavailable(_) => row(
            Code::Unavailable,
            "STORE_UNAVAILABLE",
            "The gateway has lost its store: try again after the delay.",
            After(DEFAULT_RETRY),
            D::None,
        ),
        Error::CircuitOpen { retry_after } => row(
            Code::Unavailable,
            "CIRCUIT_OPEN",
            "Amazon Connect has been failing, so nothing was sent: try again after the delay.",
            After(*retry_after),
            D::None,
        ),
        Error::DeadlineExceeded { .. } => row(
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
            "The deadline has passed: try again with the same client_token and a longer one.",
            Silent,
            D::None,
        ),
        Error::Upstream(error) => upstream_row(error, retry_safe),
        Error::GatewayBug { .. } => row(
            Code::Internal,
            "GATEWAY_BUG",
            "The gateway has a bug: tell its operators the request id.",
            Silent,
            D::None,
        ),
    }
}

fn upstream_row(error: &UpstreamError, retry_safe: bool) -> Row {
    use Details as D;
    use Retry::{After, Never, Silent};
    let row = |code, reason, message, retry, details| Row { code, reason, message, retry, details };
    // Without a client_token, a call that may have been executed must not be sent again: neither the code nor a hint
    // may invite it.
    let repeatable = retry_safe || !error.may_have_executed();
    let unavailable = if repeatable { Code::Unavailable } else { Code::Internal };
    let retry = |delay| if repeatable { After(delay) } else { Silent };
    match error.fault {
        Fault::InvalidRequest => row(
            Code::InvalidArgument,
            "UPSTREAM_INVALID_REQUEST",
            "Amazon Connect refuses the request: check that the contact is live and of the kind that the role needs.",
            Silent,
            D::None,
        ),
        Fault::NotFound => row(
            Code::NotFound,
            "CONTACT_OR_INSTANCE_NOT_FOUND",
            "Amazon Connect knows no such contact or instance: check contact_id and instance_id.",
            Silent,
            D::Resource,
        ),
        Fault::Conflict => row(
            Code::Aborted,
            "UPSTREAM_CONFLICT",
            "Amazon Connect reports a conflict: look at the contact's state, and try again after the delay.",
            retry(DEFAULT_RETRY),
            D::None,
        ),
        Fault::QuotaExceeded => row(
            Code::ResourceExhausted,
            "SERVICE_QUOTA_EXCEEDED",
            "A quota of Amazon Connect that waiting does not mend is used up: do not retry.",
            Never,
            D::ServiceQuota,
        ),
        Fault::Throttled => row(
            Code::ResourceExhausted,
            "UPSTREAM_THROTTLED",
            "Amazon Connect throttles the account: try again after the delay.",
            retry(error.retry_after.unwrap_or(DEFAULT_RETRY)),
            D::None,
        ),
        Fault::Internal => row(
            unavailable,
            "UPSTREAM_ERROR",
            "Amazon Connect failed, and may have executed the call: retry only with the same client_token.",
            retry(DEFAULT_RETRY),
            D::None,
        ),
        Fault::AuthMisconfigured => row(
            Code::Internal,
            "UPSTREAM_AUTH_MISCONFIGURED",
            "Amazon Connect refuses the gateway's own credentials: tell the gateway's operators.",
            Silent,
            D::None,
        ),
        Fault::ClockSkew | Fault::CredentialsStale => row(
            unavailable,
            "UPSTREAM_CREDENTIALS_STALE",
            "The gateway's own credentials or clock are out of date: try again after the delay.",
            retry(DEFAULT_RETRY),
            D::None,
        ),
        Fault::CredentialsMissing => row(
            Code::Internal,
            "UPSTREAM_CREDENTIALS_UNAVAILABLE",
            "The gateway has no AWS credentials: tell the gateway's operators.",
            Silent,
            D::None,
        ),
        Fault::CredentialsUnavailable => row(
            unavailable,
            "UPSTREAM_CREDENTIALS_UNAVAILABLE",
            "The gateway cannot load its AWS credentials for now: try again after the delay.",
            retry(DEFAULT_RETRY),
            D::None,
        ),
        Fault::Unreachable => {
            let message = if error.sent == Sent::No {
                "Amazon Connect cannot be reached, and nothing was sent: try again after the delay."
            } else {
                "The connection to Amazon Connect was lost: retry only with the same client_token."
            };
            row(unavailable, "UPSTREAM_UNREACHABLE", message, retry(DEFAULT_RETRY), D::None)
        }
        Fault::BadResponse => row(
            Code::Internal,
            "UPSTREAM_BAD_RESPONSE",
            "Amazon Connect's answer cannot be read: tell the gateway's operators the request id.",
            Silent,
            D::None,
        ),
        Fault::TimedOut => row(
            Code::DeadlineExceeded,
            "UPSTREAM_TIMEOUT",
            "Amazon Connect did not answer in time: retry only with the same client_token.",
            Silent,
            D::None,
        ),
        Fault::Unrecognized => row(
            Code::Unknown,
            "UPSTREAM_UNRECOGNIZED",
            "Amazon Connect answered with an error that the gateway does not know: tell its operators the request id.",
            Silent,
            D::None,
        ),
    }
}
