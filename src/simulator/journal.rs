//! The attempts that the simulator received and the participants that it created, for tests that
//! count.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use uuid::Uuid;

use super::account::Account;
use super::participants::Participant;

/// A request to create a participant, whatever its result.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// When its body was read, by the simulator's own clock.
    pub received_at: Timestamp,
    /// The `x-amzn-RequestId` of its answer.
    pub request_id: Uuid,
    /// The value that was sent; `None` if the body was unreadable.
    pub instance_id: Option<String>,
    /// The value that was sent; `None` if the body was unreadable.
    pub contact_id: Option<String>,
    /// The value that was sent; `None` if the body was unreadable.
    pub client_token: Option<String>,
    /// The value that was sent; `None` if the body was unreadable.
    pub display_name: Option<String>,
    /// The answer's HTTP status; `None` if the connection was reset.
    pub status: Option<u16>,
    /// The answer's `x-amzn-ErrorType`.
    pub error: Option<&'static str>,
    headers: Box<str>,
}

impl Attempt {
    pub(super) fn new(received_at: Timestamp, request_id: Uuid, headers: &HeaderMap) -> Self {
        Self {
            received_at,
            request_id,
            instance_id: None,
            contact_id: None,
            client_token: None,
            display_name: None,
            status: None,
            error: None,
            headers: lines(headers),
        }
    }

    /// The first request header of that name, in any case, if its value is visible ASCII. Headers
    /// with credentials (`authorization`, `x-amz-security-token`) are not kept.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value))
    }
}

/// A handle on the attempts and participants: cheap to clone, readable at any time.
#[derive(Clone, Debug)]
pub struct Journal {
    account: Arc<Account>,
    attempts: Arc<Mutex<Attempts>>,
}

#[derive(Debug, Default)]
struct Attempts {
    recent: VecDeque<Arc<Attempt>>,
    count: u64,
}

impl Journal {
    pub(super) fn new(account: Arc<Account>) -> Self {
        Self { account, attempts: Arc::default() }
    }

    /// The latest participants, in the order of their creation.
    pub fn participants(&self) -> Vec<Arc<Participant>> {
        self.account.participants()
    }

    /// The number of participants created since the start.
    pub fn participant_count(&self) -> u64 {
        self.account.participant_count()
    }

    /// The attempts in the order in which they took effect: the latest 100,000.
    pub fn attempts(&self) -> Vec<Arc<Attempt>> {
        self.lock().recent.iter().cloned().collect()
    }

    /// The number of attempts since the start.
    pub fn attempt_count(&self) -> u64 {
        self.lock().count
    }

    pub(super) fn record(&self, attempt: Attempt) {
        let mut attempts = self.lock();
        if attempts.recent.len() >= MAX_ATTEMPTS {
            attempts.recent.pop_front();
        }
        attempts.recent.push_back(Arc::new(attempt));
        attempts.count += 1;
    }

    #[expect(clippy::disallowed_methods, reason = "the simulator imports nothing of ours")]
    fn lock(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// One copied string: each HeaderMap would keep the whole read buffer of its connection alive, up to
// 100,000 of them.
fn lines(headers: &HeaderMap) -> Box<str> {
    let mut lines = String::new();
    for (name, value) in headers {
        if let Ok(value) = value.to_str()
            && name != AUTHORIZATION
            && name != "x-amz-security-token"
        {
            lines.extend([name.as_str(), ":", value, "\n"]);
        }
    }
    lines.into_boxed_str()
}

const MAX_ATTEMPTS: usize = 100_000;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn headers_are_kept_but_for_credentials() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_static("00-1-2-01"));
        headers.insert("host", HeaderValue::from_static("127.0.0.1:1"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("secret"));
        headers.insert("x-amz-security-token", HeaderValue::from_static("secret"));
        let attempt = Attempt::new(Timestamp::UNIX_EPOCH, Uuid::nil(), &headers);
        assert_eq!(attempt.header("TraceParent"), Some("00-1-2-01"));
        assert_eq!(attempt.header("host"), Some("127.0.0.1:1"));
        assert!(!format!("{attempt:?}").contains("secret"));
    }
}
