//! What a caller does about an error.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The delay where the error names none: the gateway was not reached.
const UNHINTED: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A limit refused the call. Start no new calls for the delay, then repeat this one.
    SlowDown(Duration),
    /// Repeat the call after the delay, with the same `client_token`.
    RetryAfter(Duration),
    /// Fetch a new bearer token, then repeat the call with the same `client_token`.
    NewToken,
    /// A repeat would fail alike. Report the reason and the request id.
    Never,
}

/// An error as a caller sees it.
#[derive(Debug)]
pub struct Verdict {
    pub action: Action,
    pub code: Code,
    /// The gateway's; empty where the status is the library's own.
    pub reason: String,
    pub request_id: String,
    /// The fields that break a rule.
    pub fields: Vec<String>,
}

/// Reads an error of a call that had a `client_token`.
pub fn judge(failed: &Status) -> Verdict {
    let details = failed.get_error_details();
    let info = details.error_info();
    let code = code(failed);
    let refusal = info.and_then(|info| info.metadata.get("refusal")).map(String::as_str);
    let hint = details.retry_info().and_then(|retry| retry.retry_delay);
    let action = match (hint, refusal) {
        (Some(delay), _) if code == Code::ResourceExhausted => Action::SlowDown(delay),
        (Some(delay), _) => Action::RetryAfter(delay),
        (None, Some("expired" | "not_yet_valid")) => Action::NewToken,
        (None, _) if info.is_none() && is_passing(code) => Action::RetryAfter(UNHINTED),
        (None, _) => Action::Never,
    };
    let violations = details.bad_request().map(|bad| bad.field_violations.as_slice());
    Verdict {
        action,
        code,
        reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
        request_id: details.request_info().map(|it| it.request_id.clone()).unwrap_or_default(),
        fields: violations.unwrap_or_default().iter().map(|one| one.field.clone()).collect(),
    }
}

/// The status's code. Where a connection breaks, the other libraries say UNAVAILABLE. tonic says
/// UNKNOWN, "transport error", or, for a call that it had not sent yet, CANCELLED, "operation was
/// canceled". Where its own timer ends the call, it says CANCELLED, too.
pub fn code(failed: &Status) -> Code {
    match failed.code() {
        // What came from a server has no source.
        Code::Unknown if failed.source().is_some() => Code::Unavailable,
        Code::Cancelled if failed.message().starts_with("operation was canceled") => {
            Code::Unavailable
        }
        Code::Cancelled if failed.message() == "Timeout expired" => Code::DeadlineExceeded,
        code => code,
    }
}

/// The library's own statuses that a repeat may mend.
fn is_passing(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded)
}

/// The code's name as gRPC's specification writes it.
pub fn name(code: Code) -> &'static str {
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
