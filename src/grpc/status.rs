//! From errors to statuses: the one table of codes, reasons, sentences and details.
//!
//! An error travels inside a bare [`Status`] as its source; [`finish`], the outermost layer's last
//! step, gives it its face. So every error gets the request id and the tenant, wherever it arose,
//! and tonic's own statuses pass by the same place. The sentences tell the caller what to do. They
//! are static: nothing of AWS, Redis or a host is in them.

mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::is_ours;
use crate::error::{Error, Limit};
use crate::proto::PACKAGE;
use crate::telemetry::Call;
use table::{Details, Retry, Row, row};

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

/// Turns whatever the layers and services answered into what the caller sees. Returns the error
/// too, for the log.
pub fn finish(
    response: Response<Body>,
    path: &str,
    call: &Call,
) -> (Response<Body>, Verdict, Option<Status>) {
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

/// Whether a call that ends so has failed by our fault, or Connect's: an error of the server's
/// span.
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

/// What tonic refuses by itself, before a handler runs. Statuses of health and reflection are left
/// as they are.
fn tonics_own(status: &Status, is_ours: bool) -> Option<Error> {
    match status.code() {
        Code::Unimplemented if is_ours => Some(Error::UnsupportedEncoding),
        Code::Unimplemented => Some(Error::UnknownMethod),
        // The only source of this code is the length prefix of a message over the limit: not a byte
        // of it is buffered.
        Code::OutOfRange => Some(Error::RequestTooLarge),
        _ if !is_ours => None,
        _ => Some(Error::MalformedRequest("unreadable message")),
    }
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
    let upstream = call
        .upstream()
        .map_or_else(String::new, |upstream| format!("upstream:{upstream}"));
    match details {
        Details::None => {}
        Details::BadRequest(violations) => {
            let rows = violations
                .into_iter()
                .map(|row| FieldViolation::new(row.field, row.description));
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
    Status::with_error_details_and_metadata(
        status.code(),
        status.message(),
        shown,
        status.metadata().clone(),
    )
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
    (1..=128).contains(&word.len())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

const PUSHBACK: &str = "grpc-retry-pushback-ms";
