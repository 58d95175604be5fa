//! From errors to statuses: the one table of codes, reasons, sentences and details.
//!
//! [`refuse`] answers an error. [`finish`] translates the errors of health and reflection, whose
//! servers are tonic's.
//! The sentences tell the caller what to do. They are static: they hold no text of AWS, of Redis or
//! of a host.

mod details;
mod table;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::call::{Ended, Notes};
use crate::error::{Error, chain};
use table::row;

/// An answer for the error: headers alone, without a body (gRPC over HTTP/2, "Trailers-Only"). Also
/// notes how the call ended.
pub fn refuse(error: &Error, notes: &Notes) -> Response<Body> {
    let row = row(error);
    notes.note_ended(Ended {
        code: name(row.code),
        reason: row.reason,
        is_fault: is_fault(row.code),
        sentence: row.message,
        detail: chain(error),
    });
    // gRPC's clients read the pushback as a 32-bit number (gRFC A6).
    let millis = row
        .retry
        .map(|delay| delay.as_nanos().div_ceil(1_000_000).clamp(1, i32::MAX as u128) as u64);
    let shown = BASE64_STANDARD_NO_PAD.encode(details::of(&row, millis, error, notes));
    // Room for what every answer has: the map is allocated once.
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(&STATUS, number(row.code as u64));
    headers.insert(&MESSAGE, HeaderValue::from_static(row.message));
    headers.insert(&PUSHBACK, millis.map_or(NEVER, number));
    if let Ok(shown) = HeaderValue::try_from(shown) {
        headers.insert(&DETAILS, of_one_call(shown));
    }
    if matches!(error, Error::UnsupportedEncoding) {
        headers.insert(&ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip"));
    }
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = headers;
    response
}

/// Translates an answer of health or reflection that is an error.
pub(crate) fn finish(response: Response<Body>, notes: &Notes) -> Response<Body> {
    let Some(status) = status_of(&response) else { return response };
    if let Some(error) = tonics_own(&status) {
        return refuse(&error, notes);
    }
    let (code, reason) = (name(status.code()), name(status.code()));
    let is_fault = is_fault(status.code());
    let detail = status.message().to_owned();
    notes.note_ended(Ended { code, reason, is_fault, sentence: "", detail });
    let mut response = with_details(&status, notes).into_http();
    if let Some(shown) = response.headers_mut().get_mut(&DETAILS) {
        shown.set_sensitive(true);
    }
    response
}

/// Marks a value that differs from call to call. HPACK would store it without any use (RFC 7541,
/// section 6.2.3), and drop values that every call repeats.
pub(crate) fn of_one_call(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// A number, which is allocated once. `HeaderValue::from` allocates it twice.
pub(crate) fn number(number: u64) -> HeaderValue {
    HeaderValue::try_from(number.to_string()).unwrap_or_else(|_| HeaderValue::from(number))
}

/// The code's name as gRPC's specification writes it.
#[must_use]
pub(crate) const fn name(code: Code) -> &'static str {
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
pub(crate) const fn is_fault(code: Code) -> bool {
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

/// The refusals of tonic itself, before a handler runs. Statuses of the handlers stay as they are.
fn tonics_own(status: &Status) -> Option<Error> {
    match status.code() {
        Code::Unimplemented if status.metadata().contains_key(ACCEPT_ENCODING.as_str()) => {
            Some(Error::UnsupportedEncoding)
        }
        Code::Unimplemented => Some(Error::UnknownMethod),
        code if is_too_large(code) => Some(Error::RequestTooLarge),
        _ => None,
    }
}

/// Whether tonic refuses a message by this code for its size. Each code has only one source: a
/// length prefix over the limit, whose message is not buffered, or a message that inflates beyond
/// it.
pub(super) const fn is_too_large(code: Code) -> bool {
    matches!(code, Code::OutOfRange | Code::ResourceExhausted)
}

fn with_details(status: &Status, notes: &Notes) -> Status {
    let (code, message) = (status.code(), status.message());
    let shown = details::of_others(code, name(code), message, notes);
    let mut headers = status.metadata().clone().into_headers();
    headers.insert(&PUSHBACK, NEVER);
    let metadata = MetadataMap::from_headers(headers);
    Status::with_details_and_metadata(code, message, shown.into(), metadata)
}

static STATUS: HeaderName = HeaderName::from_static("grpc-status");
static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
static PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The encodings of requests that are read (gRPC over HTTP/2, "Message-Accept-Encoding").
static ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// The pushback of an error without a delay: it stops the retries of every client library.
const NEVER: HeaderValue = HeaderValue::from_static("-1");

/// As many as an error has at most, with those of `app/stack.rs`, and some to spare.
const HEADERS: usize = 12;
