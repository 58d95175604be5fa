//! Why a connection was refused before its first call, as far as the libraries report it.

use std::error::Error;
use std::io;

use h2::Reason;

/// Why the gateway's HTTP/2 ended a connection; `None` if the peer or the network ended it.
///
/// HTTP/2 may also refuse a single stream, for example for a malformed `:authority`. h2 resets it,
/// and reports nothing.
pub(super) fn by_http2(error: &hyper::Error) -> Option<&'static str> {
    let mut source = Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            let own = error.is_library() && error.is_go_away();
            let io = error.get_io().is_some_and(is_late);
            return if io { Some(PREFACE) } else { error.reason().filter(|_| own).map(name) };
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return is_late(error).then_some(PREFACE);
        }
        source = cause.source();
    }
    None
}

/// The preface did not arrive in time. The kernel's own timeout, of a peer that is gone, has no text
/// inside; h2 drops its number.
fn is_late(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut && error.get_ref().is_some()
}

/// The code's name in RFC 9113, section 7.
fn name(reason: Reason) -> &'static str {
    match reason {
        Reason::PROTOCOL_ERROR => "protocol_error",
        Reason::FLOW_CONTROL_ERROR => "flow_control_error",
        Reason::SETTINGS_TIMEOUT => "settings_timeout",
        Reason::STREAM_CLOSED => "stream_closed",
        Reason::FRAME_SIZE_ERROR => "frame_size_error",
        Reason::COMPRESSION_ERROR => "compression_error",
        Reason::ENHANCE_YOUR_CALM => "enhance_your_calm",
        _ => "other",
    }
}

/// All reasons.
pub(crate) const REASONS: [&str; 11] = [
    CERTIFICATE,
    HANDSHAKE,
    PREFACE,
    "protocol_error",
    "flow_control_error",
    "settings_timeout",
    "stream_closed",
    "frame_size_error",
    "compression_error",
    "enhance_your_calm",
    "other",
];

/// A certificate that is not trusted, and any other handshake that failed.
pub(super) const CERTIFICATE: &str = "certificate";
pub(super) const HANDSHAKE: &str = "handshake";
/// The HTTP/2 preface did not arrive in time.
const PREFACE: &str = "preface";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_gone_is_not_one_that_sent_no_preface() {
        let late = io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 preface");
        assert!(is_late(&late));
        let etimedout = 110;
        for gone in [io::ErrorKind::TimedOut.into(), io::Error::from_raw_os_error(etimedout)] {
            assert_eq!(gone.kind(), io::ErrorKind::TimedOut);
            assert!(!is_late(&gone), "{gone:?}");
        }
    }
}
