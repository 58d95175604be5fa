//! The notes and the course of one call, which its steps share.
//!
//! The steps fill in the notes, for the answer's metadata and for the call's line in the log. The
//! notes decide nothing. The course decides the error of a call that is cut off.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use http::{HeaderMap, HeaderName};
use tracing::{Span, debug_span};
use uuid::{Builder, Uuid};

use crate::domain::Name;
use crate::sync::lock;

/// The notes of one call.
#[derive(Debug)]
pub struct Notes {
    request_id: String,
    previous_attempts: Option<u32>,
    tenant: OnceLock<Name>,
    upstream: OnceLock<Name>,
    course: Course,
    kept: Mutex<Kept>,
}

/// The course of a call so far: whether it was sent, and whether a repeat is safe.
#[derive(Debug)]
pub(crate) struct Course {
    repeatable: AtomicBool,
    attempts: AtomicU32,
}

#[derive(Debug, Default)]
struct Kept {
    disposition: Option<(Disposition, bool)>,
    levels: Option<RateLimit>,
    /// Why the caller was refused for its identity, and its subject if that is verified.
    refusal: Option<(&'static str, Option<String>)>,
    ended: Option<Ended>,
}

/// Admission's decision on a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The call went on.
    Admitted,
    /// The call got the result of an earlier one.
    Replayed,
    /// Its `client_token` was used with other content.
    Reused,
    /// The tenant's rate refused it.
    TenantRate,
    /// The limit of the tenant's calls in flight refused it.
    InFlight,
    /// The upstream's budget refused it.
    Budget,
}

impl Disposition {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Admitted,
        Self::Replayed,
        Self::Reused,
        Self::TenantRate,
        Self::InFlight,
        Self::Budget,
    ];

    /// Whether shadow enforcement may only report it. That is so for the tenant's own limits, and
    /// never for the upstream's budget.
    #[must_use]
    pub(crate) const fn may_be_shadowed(self) -> bool {
        match self {
            Self::TenantRate | Self::InFlight => true,
            Self::Admitted | Self::Replayed | Self::Reused | Self::Budget => false,
        }
    }

    /// Its name in the log and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Replayed => "replayed",
            Self::Reused => "reused",
            Self::TenantRate => "tenant_rate",
            Self::InFlight => "in_flight",
            Self::Budget => "budget",
        }
    }
}

/// The values of the `ratelimit-*` metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimit {
    /// The tenant's burst, in calls.
    pub limit: u32,
    /// The calls that its rate admits now.
    pub remaining: u32,
    /// Seconds until its bucket is full, rounded up; at least 1 when nothing remains.
    pub(crate) reset_s: u64,
}

/// The end of a call without a result.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// The name of the gRPC code, as the specification writes it.
    pub code: &'static str,
    /// The reason in `ErrorInfo`.
    pub reason: &'static str,
    /// Whether the call failed by a fault of the gateway or of Connect.
    pub(crate) is_fault: bool,
    /// The sentence that tells the caller what to do.
    pub sentence: &'static str,
    /// The error with all its causes: for the log only.
    pub detail: String,
}

impl Notes {
    /// The notes of a call with these headers: `x-request-id` is the caller's own if it is 1 to 128
    /// visible ASCII characters.
    #[must_use]
    pub fn new(headers: &HeaderMap) -> Self {
        let own = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok());
        let own = own
            .filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
        Self {
            request_id: own.map_or_else(new_request_id, ToOwned::to_owned),
            previous_attempts: previous_attempts(headers),
            tenant: OnceLock::new(),
            upstream: OnceLock::new(),
            course: Course { repeatable: AtomicBool::new(true), attempts: AtomicU32::new(0) },
            kept: Mutex::default(),
        }
    }

    /// The call's request id, for the caller and the log.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// A span that adds the call's `request_id` to the lines inside it. It costs nothing unless
    /// steps are logged.
    #[must_use]
    pub(crate) fn log_span(&self) -> Span {
        debug_span!("call", request_id = self.request_id)
    }

    /// The attempts that the client's library made before this one, if it reports them.
    #[must_use]
    pub fn previous_attempts(&self) -> Option<u32> {
        self.previous_attempts
    }

    /// The caller, once it is known.
    #[must_use]
    pub fn tenant(&self) -> Option<&Name> {
        self.tenant.get()
    }

    /// The upstream, once it is known.
    #[must_use]
    pub fn upstream(&self) -> Option<&Name> {
        self.upstream.get()
    }

    /// The course of the call so far.
    #[must_use]
    pub(crate) const fn course(&self) -> &Course {
        &self.course
    }

    /// Admission's decision on the call, and whether it applied only in shadow; `None` before the
    /// decision.
    #[must_use]
    pub(crate) fn disposition(&self) -> Option<(Disposition, bool)> {
        lock(&self.kept).disposition
    }

    /// The tenant's levels on the call's upstream, once they are known.
    #[must_use]
    pub(crate) fn levels(&self) -> Option<RateLimit> {
        lock(&self.kept).levels
    }

    /// Takes the end of the call, if it has no result. Its line in the log is the only reader.
    #[must_use]
    pub(crate) fn take_ended(&self) -> Option<Ended> {
        lock(&self.kept).ended.take()
    }

    /// Why the caller was refused for its identity, and its subject if that is verified.
    #[must_use]
    pub fn refusal(&self) -> Option<(&'static str, Option<String>)> {
        lock(&self.kept).refusal.clone()
    }

    /// Notes the caller.
    pub fn note_tenant(&self, tenant: &Name) {
        let _ = self.tenant.set(tenant.clone());
    }

    /// Notes the upstream.
    pub fn note_upstream(&self, upstream: &Name) {
        let _ = self.upstream.set(upstream.clone());
    }

    /// Notes admission's decision. `shadow`: a limit was exceeded, and the call let through.
    pub fn note_disposition(&self, disposition: Disposition, shadow: bool) {
        lock(&self.kept).disposition = Some((disposition, shadow));
    }

    /// Notes the tenant's levels on the call's upstream.
    pub(crate) fn note_levels(&self, levels: RateLimit) {
        lock(&self.kept).levels = Some(levels);
    }

    /// Notes why the caller was refused for its identity, and its subject if that is verified.
    pub(crate) fn note_refusal(&self, kind: &'static str, subject: Option<&str>) {
        lock(&self.kept).refusal = Some((kind, subject.map(ToOwned::to_owned)));
    }

    /// Notes how the call ended. The last note counts, and the outermost step writes it.
    pub(crate) fn note_ended(&self, ended: Ended) {
        lock(&self.kept).ended = Some(ended);
    }
}

impl Course {
    /// Whether the caller may safely repeat the call. So it is until the call is known to have no
    /// `client_token`.
    #[must_use]
    pub(crate) fn is_repeatable(&self) -> bool {
        self.repeatable.load(Ordering::Relaxed)
    }

    /// Attempts at Connect that have begun.
    #[must_use]
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// The call is known: whether it has a `client_token`.
    pub(crate) fn set_repeatable(&self, repeatable: bool) {
        self.repeatable.store(repeatable, Ordering::Relaxed);
    }

    /// An attempt begins.
    pub(crate) fn count_attempt(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }
}

/// A random UUID. The generator is the thread's own: the system's costs a system call.
fn new_request_id() -> String {
    let id = Builder::from_random_bytes(rand::random()).into_uuid();
    id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
}

/// gRPC's own count of a call's earlier attempts ("gRPC Retry Design").
fn previous_attempts(headers: &HeaderMap) -> Option<u32> {
    headers.get(&PREVIOUS_ATTEMPTS)?.to_str().ok()?.parse().ok()
}

/// The header of a call's request id.
pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

static PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.clone(), value.parse().unwrap())])
    }

    #[test]
    fn a_request_id_of_visible_ascii_is_kept_and_any_other_replaced() {
        for kept in ["a", "req-1:2/3", &"x".repeat(128)] {
            assert_eq!(Notes::new(&headers(&REQUEST_ID, kept)).request_id(), kept);
        }
        for replaced in ["", "two words", &"x".repeat(129)] {
            let notes = Notes::new(&headers(&REQUEST_ID, replaced));
            assert_ne!(notes.request_id(), replaced);
            assert_eq!(notes.request_id().len(), 36);
        }
    }

    #[test]
    fn previous_attempts_are_a_number_or_absent() {
        let said = |value| Notes::new(&headers(&PREVIOUS_ATTEMPTS, value));
        assert_eq!(said("2").previous_attempts(), Some(2));
        for absent in ["", "two", "-1", "1.5", "99999999999"] {
            assert_eq!(said(absent).previous_attempts(), None, "{absent}");
        }
        assert_eq!(Notes::new(&HeaderMap::new()).previous_attempts(), None);
    }
}
