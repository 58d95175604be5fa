//! The simulator's clock, which tests may set wrong.

use jiff::{SignedDuration, Timestamp};

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    offset: SignedDuration,
}

impl Clock {
    /// A clock that runs `offset` seconds ahead of the machine's.
    pub(super) fn ahead_by(offset: i64) -> Self {
        Self { offset: SignedDuration::from_secs(offset) }
    }

    pub(super) fn now(self) -> Timestamp {
        let end = if self.offset.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::now().checked_add(self.offset).unwrap_or(end)
    }
}

/// The model's format of times: `yyyy-MM-ddThh:mm:ss.SSSZ`.
pub(super) fn iso_8601(time: Timestamp) -> String {
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_always_carry_milliseconds() {
        let formatted = |time: &str| iso_8601(time.parse().expect("a timestamp"));
        assert_eq!(formatted("2019-11-08T02:41:28Z"), "2019-11-08T02:41:28.000Z");
        assert_eq!(formatted("2019-11-08T02:41:28.172999Z"), "2019-11-08T02:41:28.172Z");
    }

    #[test]
    fn an_absurd_offset_ends_at_the_end_of_time() {
        assert_eq!(Clock::ahead_by(i64::MAX).now(), Timestamp::MAX);
        assert_eq!(Clock::ahead_by(i64::MIN).now(), Timestamp::MIN);
    }
}
