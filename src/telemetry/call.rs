//! What belongs to one call from its first byte to its answer.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use http::HeaderMap;
use uuid::Uuid;

use super::Span;
use crate::domain::Name;
use crate::sync::lock;

/// Known from the first byte, and filled in on the way: for the answer's metadata and the call's
/// line in the log.
#[derive(Debug, Clone)]
pub struct Call(Arc<Notes>);

#[derive(Debug)]
struct Notes {
    request_id: String,
    tenant: OnceLock<Name>,
    upstream: OnceLock<Name>,
    span: OnceLock<Span>,
    retry_safe: AtomicBool,
    attempts: AtomicU32,
    admission: Mutex<Admission>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Admission {
    decision: Option<(Decision, bool)>,
    levels: Option<RateLimit>,
}

/// What admission decided of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It went on.
    Admitted,
    /// It got the first call's result.
    Replayed,
    /// Its `client_token` was used with other content.
    Reused,
    /// The tenant's rate.
    TenantRate,
    /// The tenant's calls in flight.
    InFlight,
    /// The upstream's budget.
    Budget,
}

impl Decision {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Admitted,
        Self::Replayed,
        Self::Reused,
        Self::TenantRate,
        Self::InFlight,
        Self::Budget,
    ];

    /// Whether shadow enforcement only reports it: the tenant's own limits are shadowed, the
    /// upstream's budget never.
    #[must_use]
    pub const fn may_be_shadowed(self) -> bool {
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

/// What the `ratelimit-*` metadata tells a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The tenant's burst.
    pub limit: u32,
    /// Calls that its rate admits now.
    pub remaining: u32,
    /// Seconds until its bucket is full, rounded up; at least 1 when nothing remains.
    pub reset_s: u64,
}

impl Call {
    /// A call with these headers: `x-request-id` is the caller's own where it is 1 to 128 visible
    /// ASCII characters.
    #[must_use]
    pub fn new(headers: &HeaderMap) -> Self {
        let own = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let own = own
            .filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
        Self(Arc::new(Notes {
            request_id: own.map_or_else(|| Uuid::new_v4().to_string(), ToOwned::to_owned),
            tenant: OnceLock::new(),
            upstream: OnceLock::new(),
            span: OnceLock::new(),
            retry_safe: AtomicBool::new(false),
            attempts: AtomicU32::new(0),
            admission: Mutex::default(),
        }))
    }

    /// Names the call, for the caller and the log.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// Who calls, once that is known.
    #[must_use]
    pub fn tenant(&self) -> Option<&Name> {
        self.0.tenant.get()
    }

    /// Where the call goes, once that is known.
    #[must_use]
    pub fn upstream(&self) -> Option<&Name> {
        self.0.upstream.get()
    }

    /// The caller's span; none where the call is not traced.
    #[must_use]
    pub fn span(&self) -> Span {
        self.0.span.get().cloned().unwrap_or_default()
    }

    /// Whether the same call may be sent again without a second participant: it has a
    /// `client_token`.
    #[must_use]
    pub fn retry_safe(&self) -> bool {
        self.0.retry_safe.load(Ordering::Relaxed)
    }

    /// Attempts at Connect so far.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts.load(Ordering::Relaxed)
    }

    /// Notes the caller.
    pub fn note_tenant(&self, tenant: &Name) {
        let _ = self.0.tenant.set(tenant.clone());
    }

    /// Notes the upstream.
    pub fn note_upstream(&self, upstream: &Name) {
        let _ = self.0.upstream.set(upstream.clone());
    }

    /// Notes the caller's span.
    pub fn note_span(&self, span: Span) {
        let _ = self.0.span.set(span);
    }

    /// Notes whether the call has a `client_token`.
    pub fn note_retry_safe(&self, safe: bool) {
        self.0.retry_safe.store(safe, Ordering::Relaxed);
    }

    /// What admission decided, and whether only in shadow; nothing where it was not asked.
    #[must_use]
    pub fn decision(&self) -> Option<(Decision, bool)> {
        self.admission(|admission| admission.decision)
    }

    /// The tenant's levels, once they are known.
    #[must_use]
    pub fn levels(&self) -> Option<RateLimit> {
        self.admission(|admission| admission.levels)
    }

    /// Notes what admission decided.
    pub fn decided(&self, decision: Decision) {
        self.admission(|admission| admission.decision = Some((decision, false)));
    }

    /// Notes a limit that was exceeded and let through.
    pub fn decided_in_shadow(&self, decision: Decision) {
        self.admission(|admission| admission.decision = Some((decision, true)));
    }

    /// Notes the tenant's levels.
    pub fn note_levels(&self, levels: RateLimit) {
        self.admission(|admission| admission.levels = Some(levels));
    }

    fn admission<T>(&self, with: impl FnOnce(&mut Admission) -> T) -> T {
        with(&mut lock(&self.0.admission))
    }

    /// Counts an attempt.
    pub fn attempted(&self) {
        self.0.attempts.fetch_add(1, Ordering::Relaxed);
    }
}

/// The header that names a call.
pub const REQUEST_ID: &str = "x-request-id";

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn a_request_id_of_visible_ascii_is_kept_and_any_other_replaced() {
        for kept in ["a", "req-1:2/3", &"x".repeat(128)] {
            assert_eq!(Call::new(&headers(REQUEST_ID, kept)).request_id(), kept);
        }
        for replaced in ["", "two words", &"x".repeat(129)] {
            let call = Call::new(&headers(REQUEST_ID, replaced));
            assert_ne!(call.request_id(), replaced);
            assert_eq!(call.request_id().len(), 36);
        }
    }
}
