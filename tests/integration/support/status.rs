//! What a caller can tell of an error.

use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// An error of the gateway's. Compares with `(code, reason)` as well.
#[derive(Debug, PartialEq)]
pub struct Seen {
    pub code: Code,
    pub reason: String,
    /// `google.rpc.RetryInfo`.
    pub retry: Option<Duration>,
    /// `grpc-retry-pushback-ms`.
    pub pushback: Option<String>,
}

impl PartialEq<(Code, &str)> for Seen {
    fn eq(&self, (code, reason): &(Code, &str)) -> bool {
        self.code == *code && self.reason == *reason
    }
}

/// Reads the error, and holds what is true of every error of the gateway's.
pub fn seen(status: &Status) -> Seen {
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "participantgateway.v1");
    assert!(!status.get_details_request_info().expect("no RequestInfo").request_id.is_empty());
    assert!(status.details().len() <= 4096, "{} bytes of details", status.details().len());
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    Seen {
        code: status.code(),
        reason: info.reason,
        retry: status.get_details_retry_info().and_then(|info| info.retry_delay),
        pushback: pushback.map(|value| value.to_str().unwrap().to_owned()),
    }
}

/// The reason alone.
pub fn reason(status: &Status) -> String {
    seen(status).reason
}

/// `ratelimit-limit`, `ratelimit-remaining` and `ratelimit-reset`.
pub fn ratelimit(metadata: &MetadataMap) -> (u64, u64, u64) {
    let figure = |name| {
        metadata
            .get(name)
            .unwrap_or_else(|| panic!("no {name}"))
            .to_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    (figure("ratelimit-limit"), figure("ratelimit-remaining"), figure("ratelimit-reset"))
}
