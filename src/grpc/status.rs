//! From errors to statuses: the one table of codes, reasons, sentences and details.
//!
//! [`of`] turns an error into a status where it occurs, because the details hold the request id and
//! the tenant. [`finish`], the last step, translates the refusals of tonic itself. The sentences
//! tell the caller what to do. They are static: they hold no text of AWS, of Redis or of a host.

mod table;

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response};
use tonic::body::Body;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::call::{Ended, Notes};
use crate::error::{Error, Limit, chain};
use crate::proto::PACKAGE;
use table::{Details, Row, row};

/// The error's status. Also notes how the call ended.
pub fn of(error: &Error, notes: &Notes) -> Status {
    let Row { code, reason, message, retry, details } = row(error);
    notes.note_ended(Ended {
        code: name(code),
        reason,
        is_fault: is_fault(code),
        sentence: message,
        detail: chain(error),
    });
    let mut shown = base(reason, error, notes);
    let mut metadata = HeaderMap::new();
    match retry {
        Some(delay) => {
            // gRPC's clients read the pushback as a 32-bit number (gRFC A6).
            let millis = delay.as_nanos().div_ceil(1_000_000).clamp(1, i32::MAX as u128) as u64;
            shown.set_retry_info(Some(Duration::from_millis(millis)));
            metadata.insert(PUSHBACK, HeaderValue::from(millis));
        }
        // A negative pushback stops the retries of every client library.
        None => {
            metadata.insert(PUSHBACK, HeaderValue::from_static(NEVER));
        }
    }
    add_details(&mut shown, details, reason, message, notes);
    let metadata = MetadataMap::from_headers(metadata);
    Status::with_error_details_and_metadata(code, message, shown, metadata)
}

/// The status of a call that has no notes: a bug.
pub fn bare(error: Error) -> Status {
    Status::new(row(&error).code, row(&error).message)
}

/// An answer for the error.
pub fn refuse(error: &Error, notes: &Notes) -> Response<Body> {
    of(error, notes).into_http()
}

/// Translates an answer that tonic gave without a handler of the gateway. `is_ours`: the method has
/// such a handler, and its statuses are already translated.
pub fn finish(response: Response<Body>, is_ours: bool, notes: &Notes) -> Response<Body> {
    if notes.ended().is_some() {
        return response;
    }
    let Some(status) = status_of(&response) else { return response };
    match tonics_own(&status, is_ours) {
        Some(error @ Error::UnsupportedEncoding) => {
            let mut shown = of(&error, notes);
            shown
                .metadata_mut()
                .insert(ACCEPT_ENCODING, MetadataValue::from_static("identity,gzip"));
            shown.into_http()
        }
        Some(error) => refuse(&error, notes),
        None => {
            let (code, reason) = (name(status.code()), name(status.code()));
            let is_fault = is_fault(status.code());
            let detail = status.message().to_owned();
            notes.note_ended(Ended { code, reason, is_fault, sentence: "", detail });
            with_details(&status, notes).into_http()
        }
    }
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

/// Whether such a code means a fault of the gateway or of Connect: an error of the server's span.
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

/// The status of a tonic service's answer, if it is an error.
fn status_of(response: &Response<Body>) -> Option<Status> {
    let status = response.extensions().get::<Status>().cloned();
    let status = status.or_else(|| Status::from_header_map(response.headers()))?;
    (status.code() != Code::Ok).then_some(status)
}

/// The refusals of tonic itself, before a handler runs. Statuses of health and reflection stay as
/// they are.
fn tonics_own(status: &Status, is_ours: bool) -> Option<Error> {
    match status.code() {
        Code::Unimplemented if is_ours || status.metadata().contains_key(ACCEPT_ENCODING) => {
            Some(Error::UnsupportedEncoding)
        }
        Code::Unimplemented => Some(Error::UnknownMethod),
        // Each code has only one source: a length prefix over the limit, whose message is not
        // buffered, or a message that inflates beyond it.
        Code::OutOfRange | Code::ResourceExhausted => Some(Error::RequestTooLarge),
        _ if !is_ours => None,
        _ => Some(Error::MalformedRequest("unreadable message")),
    }
}

fn add_details(
    shown: &mut ErrorDetails,
    details: Details,
    reason: &str,
    message: &str,
    notes: &Notes,
) {
    let tenant = notes.tenant().map_or_else(String::new, |tenant| format!("tenant:{tenant}"));
    let upstream = notes
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
            // The message holds the rest, and every byte of a refusal is encoded twice.
            let (subject, description) = match limit {
                Limit::TenantRate => (tenant, "calls per second"),
                Limit::TenantInFlight => (tenant, "calls in flight"),
                Limit::UpstreamBudget => (upstream, "attempts per second"),
            };
            shown.add_quota_failure_violation(subject, description);
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
}

fn with_details(status: &Status, notes: &Notes) -> Status {
    let mut shown = ErrorDetails::with_error_info(name(status.code()), PACKAGE, HashMap::new());
    shown.set_request_info(notes.request_id(), "");
    let mut metadata = status.metadata().clone();
    metadata.insert(PUSHBACK, MetadataValue::from_static(NEVER));
    Status::with_error_details_and_metadata(status.code(), status.message(), shown, metadata)
}

fn base(reason: &'static str, error: &Error, notes: &Notes) -> ErrorDetails {
    let mut info = HashMap::new();
    let mut note = |key: &str, value: &str| info.insert(key.to_owned(), value.to_owned());
    if let Some(tenant) = notes.tenant() {
        note("tenant", tenant.as_str());
    }
    match error {
        Error::Limited { limit, .. } => {
            note("limit", limit.as_str());
        }
        Error::Unauthenticated(refusal) | Error::TenantUnknown(refusal) => {
            if let Some(kind) = refusal.kind.shown() {
                note("refusal", kind);
            }
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
    shown.set_request_info(notes.request_id(), "");
    shown
}

/// Whether a word of AWS's can be shown: a code or an id, but never a sentence, an ARN or a host.
fn is_plain(word: &str) -> bool {
    (1..=128).contains(&word.len())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The encodings of requests that are read (gRPC over HTTP/2, "Message-Accept-Encoding").
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// The pushback of an error without a delay.
const NEVER: &str = "-1";
