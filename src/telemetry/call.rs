//! What belongs to one call from its first byte to its answer.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use http::HeaderMap;
use uuid::Uuid;

use crate::domain::Name;

/// Known from the first byte, and filled in on the way: for the answer's metadata and the call's line in the log.
#[derive(Debug, Clone)]
pub struct Call(Arc<Notes>);

#[derive(Debug)]
struct Notes {
    request_id: String,
    tenant: OnceLock<Name>,
    upstream: OnceLock<Name>,
    retry_safe: AtomicBool,
    attempts: AtomicU32,
}

impl Call {
    /// A call with these headers: `x-request-id` is the caller's own where it is 1 to 128 visible ASCII characters.
    #[must_use]
    pub fn new(headers: &HeaderMap) -> Self {
        let own = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let own = own.filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
        Self(Arc::new(Notes {
            request_id: own.map_or_else(|| Uuid::new_v4().to_string(), ToOwned::to_owned),
            tenant: OnceLock::new(),
            upstream: OnceLock::new(),
            retry_safe: AtomicBool::new(false),
            attempts: AtomicU32::new(0),
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

    /// Whether the same call may be sent again without a second participant: it has a `client_token`.
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
    pub fn is_of(&self, tenant: &Name) {
        let _ = self.0.tenant.set(tenant.clone());
    }

    /// Notes the upstream.
    pub fn goes_to(&self, upstream: &Name) {
        let _ = self.0.upstream.set(upstream.clone());
    }

    /// Notes whether the call has a `client_token`.
    pub fn is_retry_safe(&self, safe: bool) {
        self.0.retry_safe.store(safe, Ordering::Relaxed);
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
