//! The details of an error: `google.rpc.Status`, as it stands in `grpc-status-details-bin`
//! (<https://google.aip.dev/193>).
//!
//! They are encoded without the intermediate types of tonic-types: they are a large part of what a
//! refusal costs.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use tonic::Code;
use tonic_types::pb::{
    BadRequest, ErrorInfo, PreconditionFailure, QuotaFailure, RequestInfo, ResourceInfo, RetryInfo,
    Status, bad_request, precondition_failure, quota_failure,
};

use super::table::{Details, Row};
use crate::call::Notes;
use crate::error::{Error, Limit};
use crate::proto::PACKAGE;

/// The bytes of the error's `google.rpc.Status`, with a delay of this many milliseconds.
pub(super) fn of(row: &Row, millis: Option<u64>, error: &Error, notes: &Notes) -> Vec<u8> {
    let Row { code, reason, message, .. } = row;
    let mut details = Vec::with_capacity(4);
    if let Some(millis) = millis {
        let delay = prost_types::Duration::try_from(Duration::from_millis(millis)).ok();
        details.push(any("RetryInfo", &RetryInfo { retry_delay: delay }));
    }
    let info = ErrorInfo {
        reason: (*reason).to_owned(),
        domain: PACKAGE.to_owned(),
        metadata: metadata(error, notes),
    };
    details.push(any("ErrorInfo", &info));
    details.extend(special(row, notes));
    details.push(request(notes));
    status(*code, message, details)
}

/// The same for a status of health or reflection, which has no row.
pub(super) fn of_others(code: Code, name: &str, message: &str, notes: &Notes) -> Vec<u8> {
    let info =
        ErrorInfo { reason: name.to_owned(), domain: PACKAGE.to_owned(), metadata: HashMap::new() };
    status(code, message, vec![any("ErrorInfo", &info), request(notes)])
}

fn status(code: Code, message: &str, details: Vec<Any>) -> Vec<u8> {
    Status { code: code.into(), message: message.to_owned(), details }.encode_to_vec()
}

fn request(notes: &Notes) -> Any {
    let request_id = notes.request_id().to_owned();
    any("RequestInfo", &RequestInfo { request_id, serving_data: String::new() })
}

/// The detail that only some errors have.
fn special(row: &Row, notes: &Notes) -> Option<Any> {
    let tenant = || notes.tenant().map_or_else(String::new, |tenant| format!("tenant:{tenant}"));
    let upstream = || {
        notes
            .upstream()
            .map_or_else(String::new, |upstream| format!("upstream:{upstream}"))
    };
    let detail = match &row.details {
        Details::None => return None,
        Details::BadRequest(violations) => {
            let violation = |row: &crate::error::Violation| bad_request::FieldViolation {
                field: row.field.to_string(),
                description: row.description.to_string(),
                ..Default::default()
            };
            let field_violations = violations.iter().map(violation).collect();
            any("BadRequest", &BadRequest { field_violations })
        }
        Details::Quota(limit) => {
            // The message holds the rest.
            let (subject, description) = match limit {
                Limit::TenantRate => (tenant(), "calls per second"),
                Limit::TenantInFlight => (tenant(), "calls in flight"),
                Limit::UpstreamBudget => (upstream(), "attempts per second"),
            };
            quota(subject, description)
        }
        Details::ServiceQuota => quota(upstream(), row.message),
        Details::Precondition => {
            let violation = precondition_failure::Violation {
                r#type: row.reason.to_owned(),
                subject: "client_token".to_owned(),
                description: row.message.to_owned(),
            };
            any("PreconditionFailure", &PreconditionFailure { violations: vec![violation] })
        }
        Details::Resource => {
            let contact = ResourceInfo {
                resource_type: "connect.amazonaws.com/Contact".to_owned(),
                description: row.message.to_owned(),
                ..Default::default()
            };
            any("ResourceInfo", &contact)
        }
    };
    Some(detail)
}

fn quota(subject: String, description: &str) -> Any {
    let violation = quota_failure::Violation {
        subject,
        description: description.to_owned(),
        ..Default::default()
    };
    any("QuotaFailure", &QuotaFailure { violations: vec![violation] })
}

fn metadata(error: &Error, notes: &Notes) -> HashMap<String, String> {
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
    info
}

/// Whether a word of AWS's can be shown: a code or an id, but never a sentence, an ARN or a host.
fn is_plain(word: &str) -> bool {
    (1..=128).contains(&word.len())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn any(name: &str, detail: &impl Message) -> Any {
    Any { type_url: [GOOGLE_RPC, name].concat(), value: detail.encode_to_vec() }
}

const GOOGLE_RPC: &str = "type.googleapis.com/google.rpc.";
