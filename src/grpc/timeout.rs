//! The caller's deadline on the wire.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::error::Error;

/// The value of the caller's `grpc-timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// The header is absent.
    Absent,
    /// A valid timeout.
    Of(Duration),
    /// The value is no timeout.
    Malformed,
}

impl Timeout {
    /// Reads `grpc-timeout`: 1 to 8 digits and a unit (gRPC over HTTP/2, "Requests").
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(&TIMEOUT).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => {
                value.to_str().ok().and_then(parse).map_or(Self::Malformed, Self::Of)
            }
            (Some(_), Some(_)) => Self::Malformed,
        }
    }

    /// Refuses a timeout that cannot be read.
    ///
    /// # Errors
    /// [`Error::MalformedRequest`].
    pub(crate) fn check(self) -> Result<(), Error> {
        match self {
            Self::Malformed => Err(Error::MalformedRequest("grpc-timeout")),
            Self::Absent | Self::Of(_) => Ok(()),
        }
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let figure: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(figure * 3600)),
        "M" => Some(Duration::from_secs(figure * 60)),
        "S" => Some(Duration::from_secs(figure)),
        "m" => Some(Duration::from_millis(figure)),
        "u" => Some(Duration::from_micros(figure)),
        "n" => Some(Duration::from_nanos(figure)),
        _ => None,
    }
}

static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(
                Timeout::of(&headers("grpc-timeout", text)),
                Timeout::Of(expected),
                "{text}"
            );
        }
        for text in ["", "S", "1", "1s", "123456789S", "-1S", "1.5S", "1 S", "١S", "é"] {
            assert_eq!(Timeout::of(&headers("grpc-timeout", text)), Timeout::Malformed, "{text}");
        }
        assert_eq!(Timeout::of(&HeaderMap::new()), Timeout::Absent);
    }
}
