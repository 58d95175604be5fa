//! Figures and times, for printing.

use std::fmt;
use std::time::SystemTime;

/// A figure in five characters at most. It has two or three significant digits, and from 100 to
/// 99,999 all its digits.
pub struct Amount(pub f64);

/// A time in UTC, to a millisecond.
pub struct Time(pub SystemTime);

/// The distance of a time from another.
pub struct Away {
    /// The time.
    pub at: SystemTime,
    /// The other time.
    pub from: SystemTime,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = self.0;
        let size = amount.abs();
        if size >= 99_999.5 {
            let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
            let (unit, name) =
                units.into_iter().find(|(unit, _)| size >= 0.9995 * unit).unwrap_or((1e3, "k"));
            let places = if size / unit < 9.995 { 1 } else { 0 };
            return f.pad(&format!("{}{name}", plain(amount / unit, places)));
        }
        let places = match size {
            0.0..0.0995 => 3,
            0.0995..9.95 => 2,
            9.95..99.95 => 1,
            _ => 0,
        };
        f.pad(&plain(amount, places))
    }
}

/// Leaves out zeros at the end.
fn plain(amount: f64, places: usize) -> String {
    let text = format!("{amount:.places$}");
    let text = if places > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::try_from(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => f.write_str("-"),
        }
    }
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |duration: std::time::Duration| {
            let seconds = std::time::Duration::from_secs(duration.as_secs());
            let shown = if duration.as_secs() < 10 {
                std::time::Duration::from_millis(duration.as_millis() as u64)
            } else {
                seconds
            };
            humantime::format_duration(shown).to_string()
        };
        match self.at.duration_since(self.from) {
            Ok(ahead) => write!(f, "in {}", whole(ahead)),
            Err(past) => write!(f, "{} ago", whole(past.duration())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_takes_five_characters_at_most() {
        for (amount, shown) in [
            (0.0, "0"),
            (1.0 / 60.0, "0.017"),
            (0.0626, "0.063"),
            (0.5, "0.5"),
            (4.216, "4.22"),
            (9.999, "10"),
            (38.27, "38.3"),
            (99.99, "100"),
            (1000.4, "1000"),
            (99_999.0, "99999"),
            (100_000.0, "100k"),
            (1_234_567.0, "1.2M"),
            (999_600.0, "1M"),
            (4_294_967_295.0, "4.3G"),
            (-0.25, "-0.25"),
            (-0.000_01, "0"),
        ] {
            assert_eq!(Amount(amount).to_string(), shown);
            assert!(shown.len() <= 5);
        }
    }

    #[test]
    fn a_time_tells_how_far_it_is_away() {
        let from = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        let away = |millis| Away { at: from + std::time::Duration::from_millis(millis), from };
        assert_eq!(away(2_345).to_string(), "in 2s 345ms");
        assert_eq!(away(3_661_500).to_string(), "in 1h 1m 1s");
        assert_eq!(Away { at: from, from: away(90_250).at }.to_string(), "1m 30s ago");
        assert_eq!(Time(from).to_string(), "1970-01-12T13:46:40.000Z");
    }
}
