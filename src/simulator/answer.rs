//! The answers to the client: Connect's error codes with their statuses, and good and bad bodies.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::json;
use uuid::Uuid;

use super::error::{ErrorCode, Failure};
use super::participants::Participant;

/// Bodies of a 200 that no client can use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Oddity {
    /// JSON that ends in the middle.
    Garbage,
    /// An answer without the participant token.
    NoToken,
    /// An answer without the participant id.
    NoId,
    /// A complete and valid answer after 10 MiB of blanks: only a limit on the size refuses it.
    Huge,
    /// A complete and valid answer with a member that is nested 100,000 deep.
    Nested,
}

/// An answer, without the headers that every answer has.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    error: Option<ErrorCode>,
    retry_after: Option<Duration>,
    body: Bytes,
}

impl Answer {
    pub(super) fn participant(participant: &Participant, expiry: &str) -> Self {
        let id = Some(&*participant.participant_id);
        Self::ok(participant_body(id, Some(participant.participant_token()), expiry))
    }

    pub(super) fn failure(failure: Failure, retry_after: Option<Duration>) -> Self {
        let (_, status) = failure.code.row();
        let retry_after = retry_after.filter(|_| failure.code == ErrorCode::Throttling);
        // The model's member is `Message`. AWS's common errors use `message`, and clients read
        // both.
        let body = json!({ "Message": failure.message }).to_string().into();
        Self { status, error: Some(failure.code), retry_after, body }
    }

    pub(super) fn odd(oddity: Oddity) -> Self {
        let (id, token, expiry) =
            (Some("simulated"), Some("simulated"), "2999-12-31T23:59:59.999Z");
        let whole = participant_body(id, token, expiry);
        Self::ok(match oddity {
            Oddity::Garbage => {
                r#"{"ParticipantId":"simulated","ParticipantCredentials":{"Partic"#.to_owned()
            }
            Oddity::NoToken => participant_body(id, None, expiry),
            Oddity::NoId => participant_body(None, token, expiry),
            Oddity::Huge => " ".repeat(HUGE_BYTES) + &whole,
            Oddity::Nested => {
                let (open, close) = ("[".repeat(NESTED_LEVELS), "]".repeat(NESTED_LEVELS));
                format!(r#"{{"Nested":{open}{close},{}"#, whole.trim_start_matches('{'))
            }
        })
    }

    /// The status is 200..=599, which [`super::magic::Magic`] checks. Any other becomes a 500.
    pub(super) fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, error: None, retry_after: None, body: Bytes::new() }
    }

    pub(super) fn ok(json: String) -> Self {
        Self { status: StatusCode::OK, error: None, retry_after: None, body: json.into() }
    }

    pub(super) fn status_code(&self) -> StatusCode {
        self.status
    }

    pub(super) fn error_name(&self) -> Option<&'static str> {
        self.error.map(ErrorCode::name)
    }

    /// The complete response. Its `Date` is `now`: SDKs learn from it how wrong their own clock is.
    pub(super) fn into_response(self, request_id: Uuid, now: Timestamp) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        insert(headers, HeaderName::from_static("x-amzn-requestid"), &request_id.to_string());
        if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&now) {
            insert(headers, DATE, &date);
        }
        if let Some(code) = self.error {
            headers.insert("x-amzn-errortype", HeaderValue::from_static(code.name()));
        }
        if let Some(wait) = self.retry_after {
            insert(
                headers,
                HeaderName::from_static("x-amz-retry-after"),
                &wait.as_millis().to_string(),
            );
        }
        response
    }
}

fn participant_body(id: Option<&str>, token: Option<&str>, expiry: &str) -> String {
    let mut credentials = json!({ "Expiry": expiry });
    if let Some(token) = token {
        credentials["ParticipantToken"] = token.into();
    }
    let mut body = json!({ "ParticipantCredentials": credentials });
    if let Some(id) = id {
        body["ParticipantId"] = id.into();
    }
    body.to_string()
}

// The values are digits, dates and UUIDs, so they are always valid header values.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

const HUGE_BYTES: usize = 10 * 1024 * 1024;
const NESTED_LEVELS: usize = 100_000;
