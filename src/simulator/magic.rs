//! Contact ids that make the simulator fail, so that a person can cause every error with one call.

use std::time::Duration;

use super::answer::Oddity;
use super::error::ErrorCode;

/// The behaviour that a magic contact id asks for. Some variants create a participant like an
/// ordinary call, and say so. The others ignore ClientToken and throttling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Magic {
    /// Answers with this error.
    Fail(ErrorCode),
    /// Answers 200 with a body that no client can use.
    Odd(Oddity),
    /// Answers with this status and no body.
    Status(u16),
    /// Resets the connection; nothing is created.
    Reset,
    /// Creates at once, resets the connection this many times for a ClientToken, then answers.
    ResetFirst(u32),
    /// Fails this many times for a ClientToken, then creates.
    Flaky(u32),
    /// Creates at once, and answers after this long.
    Slow(Duration),
    /// Creates a participant whose credentials expire after this long.
    Expires(Duration),
    /// Creates a participant, and returns its expiry in an invalid format.
    BadExpiry,
}

impl Magic {
    /// `None` for an ordinary contact id. An id that is almost magic (`sim-slow-abc`, `sim-other`)
    /// is ordinary.
    pub(super) fn parse(contact_id: &str) -> Option<Self> {
        let name = contact_id.strip_prefix("sim-")?;
        Self::named(name).or_else(|| {
            let (name, number) = name.rsplit_once('-')?;
            // A u32 of milliseconds is 49 days: adding it cannot overflow a time.
            Self::numbered(name, number.parse().ok()?)
        })
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "invalid" => Self::Fail(ErrorCode::InvalidRequest),
            "not-found" => Self::Fail(ErrorCode::ResourceNotFound),
            "conflict" => Self::Fail(ErrorCode::Conflict),
            "quota" => Self::Fail(ErrorCode::ServiceQuotaExceeded),
            "throttled" => Self::Fail(ErrorCode::Throttling),
            "internal" => Self::Fail(ErrorCode::InternalService),
            "access-denied" => Self::Fail(ErrorCode::AccessDenied),
            "expired-token" => Self::Fail(ErrorCode::ExpiredToken),
            "unknown-error" => Self::Fail(ErrorCode::Teapot),
            "reset" => Self::Reset,
            "garbage" => Self::Odd(Oddity::Garbage),
            "no-token" => Self::Odd(Oddity::NoToken),
            "no-id" => Self::Odd(Oddity::NoId),
            "huge" => Self::Odd(Oddity::Huge),
            "nested" => Self::Odd(Oddity::Nested),
            "bad-expiry" => Self::BadExpiry,
            _ => return None,
        })
    }

    fn numbered(name: &str, number: u32) -> Option<Self> {
        Some(match name {
            "slow" => Self::Slow(Duration::from_millis(number.into())),
            "expires" => Self::Expires(Duration::from_millis(number.into())),
            "flaky" => Self::Flaky(number),
            "reset" => Self::ResetFirst(number),
            "status" => Self::Status(
                u16::try_from(number).ok().filter(|status| (200..600).contains(status))?,
            ),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_ids_are_read_with_their_numbers() {
        let cases = [
            ("sim-quota", Magic::Fail(ErrorCode::ServiceQuotaExceeded)),
            ("sim-slow-1500", Magic::Slow(Duration::from_millis(1500))),
            ("sim-expires-0", Magic::Expires(Duration::ZERO)),
            ("sim-flaky-2", Magic::Flaky(2)),
            ("sim-reset", Magic::Reset),
            ("sim-reset-1", Magic::ResetFirst(1)),
            ("sim-status-503", Magic::Status(503)),
            ("sim-no-token", Magic::Odd(Oddity::NoToken)),
        ];
        for (contact_id, magic) in cases {
            assert_eq!(Magic::parse(contact_id), Some(magic), "{contact_id}");
        }
    }

    #[test]
    fn anything_else_is_an_ordinary_contact() {
        let ordinary = [
            "",
            "sim-",
            "sim-other",
            "SIM-RESET",
            "sim-reset ",
            "sim-slow",
            "sim-slow-",
            "sim-slow-abc",
            "sim-slow--1",
            "sim-slow-4294967296",
            "sim-status-199",
            "sim-status-600",
            "a-sim-reset",
        ];
        for contact_id in ordinary {
            assert_eq!(Magic::parse(contact_id), None, "{contact_id}");
        }
    }
}
