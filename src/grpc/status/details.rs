//! The details of an error: `google.rpc.Status`, as it stands in `grpc-status-details-bin`
//! (<https://google.aip.dev/193>).
//!
//! They are a large part of what a refusal costs. So their fields are appended to one buffer, with
//! the numbers of `google/rpc/status.proto` and `google/rpc/error_details.proto`, and the generated
//! types are not filled in.

use std::time::Duration;

use prost::Message;
use tonic::Code;
use tonic_types::pb::{RetryInfo, Status};

use super::table::{Details, Row};
use crate::call::Notes;
use crate::domain::Name;
use crate::error::{Error, Limit};
use crate::proto::PACKAGE;

/// The bytes of the error's `google.rpc.Status`, with a delay of this many milliseconds.
pub(super) fn of(row: &Row, millis: Option<u64>, error: &Error, notes: &Notes) -> Vec<u8> {
    let mut status = Fields::of_status(row.code, row.message);
    if let Some(millis) = millis {
        let delay = prost_types::Duration::try_from(Duration::from_millis(millis)).ok();
        status.detail("RetryInfo", |info| info.numbers(&RetryInfo { retry_delay: delay }));
    }
    status.detail("ErrorInfo", |info| {
        info.text(1, row.reason);
        info.text(2, PACKAGE);
        metadata(error, notes, |key, value| {
            info.message(3, |entry| {
                entry.text(1, key);
                entry.text(2, value);
            });
        });
    });
    special(&mut status, row, notes);
    status.detail("RequestInfo", |info| info.text(1, notes.request_id()));
    status.0
}

/// The same for a status of health or reflection, which has no row.
pub(super) fn of_others(code: Code, name: &str, message: &str, notes: &Notes) -> Vec<u8> {
    let mut status = Fields::of_status(code, message);
    status.detail("ErrorInfo", |info| {
        info.text(1, name);
        info.text(2, PACKAGE);
    });
    status.detail("RequestInfo", |info| info.text(1, notes.request_id()));
    status.0
}

/// The detail that only some errors have.
fn special(status: &mut Fields, row: &Row, notes: &Notes) {
    match &row.details {
        Details::None => {}
        Details::BadRequest(violations) => status.detail("BadRequest", |request| {
            for violation in violations {
                request.message(1, |shown| {
                    shown.text(1, violation.field);
                    shown.text(2, &violation.description);
                });
            }
        }),
        // The message holds the rest.
        Details::Quota(Limit::TenantRate) => {
            quota(status, "tenant", notes.tenant(), "calls per second");
        }
        Details::Quota(Limit::TenantInFlight) => {
            quota(status, "tenant", notes.tenant(), "calls in flight");
        }
        Details::Quota(Limit::UpstreamBudget) => {
            quota(status, "upstream", notes.upstream(), "attempts per second");
        }
        Details::ServiceQuota => quota(status, "upstream", notes.upstream(), row.message),
        Details::Precondition => status.detail("PreconditionFailure", |failure| {
            failure.message(1, |violation| {
                violation.text(1, row.reason);
                violation.text(2, "client_token");
                violation.text(3, row.message);
            });
        }),
        Details::Resource => status.detail("ResourceInfo", |contact| {
            contact.text(1, "connect.amazonaws.com/Contact");
            contact.text(4, row.message);
        }),
    }
}

fn quota(status: &mut Fields, kind: &str, name: Option<&Name>, description: &str) {
    let subject = name.map_or_else(String::new, |name| [kind, ":", name.as_str()].concat());
    status.detail("QuotaFailure", |failure| {
        failure.message(1, |violation| {
            violation.text(1, &subject);
            violation.text(2, description);
        });
    });
}

/// The pairs of `ErrorInfo.metadata`.
fn metadata(error: &Error, notes: &Notes, mut show: impl FnMut(&str, &str)) {
    if let Some(tenant) = notes.tenant() {
        show("tenant", tenant.as_str());
    }
    match error {
        Error::Limited { limit, .. } => show("limit", limit.as_str()),
        Error::Unauthenticated(refusal) | Error::TenantUnknown(refusal) => {
            if let Some(kind) = refusal.kind.shown() {
                show("refusal", kind);
            }
        }
        Error::Upstream(upstream) => {
            if let Some(code) = upstream.code.as_deref().filter(|code| is_plain(code)) {
                show("upstreamCode", code);
            }
            if let Some(id) = upstream.request_id.as_deref().filter(|id| is_plain(id)) {
                show("upstreamRequestId", id);
            }
        }
        _ => {}
    }
}

/// Whether a word of AWS's can be shown: a code or an id, but never a sentence, an ARN or a host.
fn is_plain(word: &str) -> bool {
    (1..=128).contains(&word.len())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The fields of a message in protobuf's wire format
/// (<https://protobuf.dev/programming-guides/encoding/>). Field numbers are at most 15.
struct Fields(Vec<u8>);

impl Fields {
    /// A `google.rpc.Status` without details so far.
    fn of_status(code: Code, message: &str) -> Self {
        let mut status = Self(Vec::with_capacity(BYTES));
        status.numbers(&Status { code: code.into(), ..Default::default() });
        status.text(2, message);
        status
    }

    /// A further `google.protobuf.Any` among the details of a `google.rpc.Status`.
    fn detail(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.message(3, |any| {
            any.message(1, |url| {
                url.0.extend_from_slice(GOOGLE_RPC);
                url.0.extend_from_slice(name.as_bytes());
            });
            any.message(2, fill);
        });
    }

    /// The fields of a generated message: it costs nothing where they are numbers.
    fn numbers(&mut self, message: &impl Message) {
        let _always_fits = message.encode(&mut self.0);
    }

    /// A string. An empty one is the same as none.
    fn text(&mut self, number: u8, text: &str) {
        if !text.is_empty() {
            self.message(number, |field| field.0.extend_from_slice(text.as_bytes()));
        }
    }

    /// A field whose bytes are written by `fill`.
    fn message(&mut self, number: u8, fill: impl FnOnce(&mut Self)) {
        // The length stands before the bytes, and is known after them. Mostly it is one byte.
        self.0.extend_from_slice(&[number << 3 | LENGTH_DELIMITED, 0]);
        let start = self.0.len();
        fill(self);
        let end = self.0.len();
        let _always_fits = prost::encode_length_delimiter(end - start, &mut self.0);
        let first = self.0.remove(end);
        self.0[start - 1] = first;
        let others = self.0.len() - end;
        self.0[start..].rotate_right(others);
    }
}

/// A wire type of protobuf.
const LENGTH_DELIMITED: u8 = 2;

const GOOGLE_RPC: &[u8] = b"type.googleapis.com/google.rpc.";

/// Room for the details of most errors, so that they are allocated once.
const BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use tonic_types::pb::{BadRequest, ErrorInfo};

    use super::*;
    use crate::error::Violation;
    use crate::grpc::status::table::row;

    #[test]
    fn details_of_any_length_are_read_as_the_generated_types() {
        // The prefix of a length takes one byte up to 127, two up to 16,383, then three.
        for length in [0, 1, 127, 128, 16_383, 16_384, 70_000] {
            let description = "x".repeat(length);
            let error = Error::InvalidRequest(vec![
                Violation::new("contact_id", description.clone()),
                Violation::new("client_token", "short"),
            ]);
            let bytes = of(&row(&error), None, &error, &Notes::new(&HeaderMap::new()));
            let status = Status::decode(bytes.as_slice()).unwrap();
            assert_eq!(status.code, i32::from(Code::InvalidArgument));
            let named = |name: &str| {
                let url = format!("type.googleapis.com/google.rpc.{name}");
                &status.details.iter().find(|any| any.type_url == url).unwrap().value[..]
            };
            let violations = BadRequest::decode(named("BadRequest")).unwrap().field_violations;
            let violations: Vec<_> =
                violations.iter().map(|seen| (&*seen.field, &*seen.description)).collect();
            assert_eq!(violations, [("contact_id", &*description), ("client_token", "short")]);
            let info = ErrorInfo::decode(named("ErrorInfo")).unwrap();
            assert_eq!((&*info.reason, &*info.domain), ("INVALID_REQUEST", PACKAGE));
        }
    }
}
