//! Translates the SDK's errors into the gateway's own.
//!
//! AWS's error code decides, whatever the HTTP status is. The status decides only if no code is
//! known. Without an answer, the progress of the request decides.

use std::time::{Duration, SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_connect::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_connect::operation::RequestId;
use aws_sdk_connect::operation::create_participant::CreateParticipantError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

use super::http::Reached;
use crate::domain::{CreateParticipant, UpstreamToken};
use crate::error::{Cause, Fault, Sent, Source, UpstreamError, chain};

type Failure = SdkError<CreateParticipantError, HttpResponse>;

/// The error of an attempt that the SDK ended with an error at `now`.
pub(crate) fn failed(
    error: Failure,
    reached: Reached,
    now: SystemTime,
    request: &CreateParticipant,
    token: &UpstreamToken,
) -> UpstreamError {
    let answer = error.raw_response();
    let status = answer.map(|answer| answer.status().as_u16());
    let code = error.code().map(plain_code);
    let retry_after = answer
        .and_then(|answer| answer.headers().get("x-amz-retry-after"))
        .and_then(millis);
    let skewed = answer
        .and_then(|answer| answer.headers().get("date"))
        .is_some_and(|date| is_skewed(date, now));
    let request_id = error.request_id().map(ToOwned::to_owned);

    let (fault, sent) = match (&error, status) {
        (_, None) => unanswered(&error, reached),
        (SdkError::ResponseError(_), Some(200..=299)) => broken_success(&error),
        (_, Some(200..=299)) => (Fault::BadResponse, Sent::Answered),
        (_, Some(status)) => (refusal(code.as_deref(), status, skewed), Sent::Answered),
    };
    let source = Some(Source::from(Cause::from(describe(&error, status, request, token))));
    UpstreamError { code, request_id, retry_after, source, ..UpstreamError::new(fault, sent) }
}

/// The error of an attempt that reached its timeout.
pub(crate) fn timed_out(reached: Reached) -> UpstreamError {
    match reached {
        Reached::Nothing => UpstreamError::new(Fault::CredentialsUnavailable, Sent::No),
        Reached::Connecting => UpstreamError::new(Fault::Unreachable, Sent::No),
        Reached::Sending => UpstreamError::new(Fault::TimedOut, Sent::Maybe),
    }
}

/// AWS's request id, if the answer holds one.
pub(crate) fn request_id(answer: &impl RequestId) -> Option<String> {
    answer.request_id().map(ToOwned::to_owned)
}

fn unanswered(error: &Failure, reached: Reached) -> (Fault, Sent) {
    if reached == Reached::Sending {
        return (Fault::Unreachable, Sent::Maybe);
    }
    let fault = match find::<CredentialsError>(error) {
        Some(
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_),
        ) => Fault::CredentialsMissing,
        Some(_) => Fault::CredentialsUnavailable,
        None if matches!(error, SdkError::ConstructionFailure(_)) => Fault::NotBuilt,
        // The SDK waits only for credentials before it connects. That wait has its own timeout, and
        // its error does not name the cause.
        None if reached == Reached::Nothing => Fault::CredentialsUnavailable,
        None => Fault::Unreachable,
    };
    (fault, Sent::No)
}

/// A success with an unusable body: it was cut off, or is not Connect's.
fn broken_success(error: &Failure) -> (Fault, Sent) {
    let cut_off = find::<hyper::Error>(error).is_some() || find::<std::io::Error>(error).is_some();
    if cut_off { (Fault::Unreachable, Sent::Maybe) } else { (Fault::BadResponse, Sent::Answered) }
}

fn refusal(code: Option<&str>, status: u16, skewed: bool) -> Fault {
    let Some(code) = code else { return refusal_by_status(status) };
    match code {
        "InvalidRequestException" | "ValidationException" | "ValidationError" => {
            Fault::InvalidRequest
        }
        "ResourceNotFoundException" => Fault::NotFound,
        "ConflictException" => Fault::Conflict,
        "ServiceQuotaExceededException" => Fault::QuotaExceeded,
        "InternalFailure"
        | "InternalServerError"
        | "InternalServiceException"
        | "ServiceUnavailable" => Fault::Internal,
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => Fault::CredentialsStale,
        code if is_signature(code) && skewed => Fault::ClockSkew,
        "RequestTimeTooSkewed" => Fault::CredentialsStale,
        code if is_signature(code) || is_auth(code) => Fault::AuthMisconfigured,
        code if is_throttle(code) => Fault::Throttled,
        _ => refusal_by_status(status),
    }
}

/// Without a known code, only these statuses are clear.
fn refusal_by_status(status: u16) -> Fault {
    match status {
        408 | 500.. => Fault::Internal,
        429 => Fault::Throttled,
        _ => Fault::Unrecognized,
    }
}

/// Refusals that a wrong clock can cause.
fn is_signature(code: &str) -> bool {
    matches!(
        code,
        "AccessDenied"
            | "AccessDeniedException"
            | "InvalidSignatureException"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch"
    )
}

/// Refusals of the gateway's own credentials (AWS, "Common error types").
fn is_auth(code: &str) -> bool {
    matches!(
        code,
        "AuthFailure"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "NotAuthorized"
            | "OptInRequired"
            | "UnauthorizedException"
            | "UnrecognizedClient"
            | "UnrecognizedClientException"
    )
}

/// The throttling codes of the AWS SDKs (SDKs and Tools reference, "Retry behavior").
fn is_throttle(code: &str) -> bool {
    matches!(
        code,
        "BandwidthLimitExceeded"
            | "EC2ThrottledException"
            | "LimitExceeded"
            | "LimitExceededException"
            | "PriorRequestNotComplete"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "SlowDown"
            | "ThrottledException"
            | "Throttling"
            | "ThrottlingException"
            | "TooManyRequests"
            | "TooManyRequestsException"
            | "TransactionInProgressException"
    )
}

/// The code alone: some services put a namespace before it, or a URL after it.
fn plain_code(code: &str) -> String {
    let code = code.rsplit('#').next().unwrap_or(code);
    code.split(':').next().unwrap_or(code).to_owned()
}

fn millis(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_millis)
}

fn is_skewed(date: &str, now: SystemTime) -> bool {
    let Some(theirs) = DateTime::from_str(date, Format::HttpDate)
        .ok()
        .and_then(|at| SystemTime::try_from(at).ok())
    else {
        return false;
    };
    let apart = now.duration_since(theirs).unwrap_or_else(|ahead| ahead.duration());
    apart > SKEW
}

/// For the log. No error of the SDK is printed by Debug: Debug would show the body, with any
/// credential in it.
fn describe(
    error: &Failure,
    status: Option<u16>,
    request: &CreateParticipant,
    token: &UpstreamToken,
) -> String {
    match status {
        None => chain(error),
        Some(200..=299) => "a success that cannot be read".to_owned(),
        Some(status) => match error.message() {
            Some(message) => format!("HTTP {status}, {}", redact(message, request, token)),
            None => format!("HTTP {status}, without a message"),
        },
    }
}

/// AWS's messages repeat the values that they refuse. The log must not show them.
fn redact(message: &str, request: &CreateParticipant, token: &UpstreamToken) -> String {
    let callers = request.client_token.as_ref().map(|token| token.as_str());
    let (contact, name) = (request.contact_id.as_str(), request.display_name.as_str());
    let secrets = [Some(contact), Some(name), callers, Some(token.as_str())];
    let secrets = || secrets.iter().flatten();
    // So short a value may stand by chance anywhere in a sentence.
    if secrets().any(|secret| secret.len() < 4) {
        return "its message is withheld".to_owned();
    }
    secrets().fold(message.to_owned(), |message, secret| message.replace(secret, "[redacted]"))
}

fn find<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref())
}

/// Beyond this difference, a refused signature may be caused by the clock: AWS refuses a signature
/// that is 5 minutes off.
const SKEW: Duration = Duration::from_secs(4 * 60);
