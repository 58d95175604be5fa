//! The config's scalar values. Each type says what it expects, in its error and in its schema.

mod one_or_many;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::domain::Rate;

pub(crate) use one_or_many::OneOrMany;

/// A span of time above zero: `250ms`, `10s`, `24h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Period(Duration);

/// A span of time that may be zero: `0ms`, `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// A whole number from 1 to 4,294,967,295.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Count(u32);

/// A rate: a decimal and `/s`, `/m`, `/h` or `/d`. May be zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64, Per);

/// An address to listen on: an IP address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(SocketAddr);

/// The minimum level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Calls that fail because of a fault in the gateway or its config.
    Error,
    /// Events that need an operator's attention.
    Warn,
    /// One line per call.
    Info,
    /// The steps of each decision.
    Debug,
    /// Everything, but no secrets.
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Per {
    Second,
    Minute,
    Hour,
    Day,
}

impl Period {
    /// For defaults.
    #[must_use]
    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// For defaults.
    #[must_use]
    pub(crate) const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The span of time.
    #[must_use]
    pub(crate) const fn get(self) -> Duration {
        self.0
    }
}

impl Span {
    /// For defaults.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The span of time.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Count {
    /// For defaults. Zero becomes 1.
    #[must_use]
    pub(crate) const fn of(count: u32) -> Self {
        Self(if count == 0 { 1 } else { count })
    }

    /// The number.
    #[must_use]
    pub(crate) const fn get(self) -> u32 {
        self.0
    }
}

impl Share {
    /// For defaults: this many per second.
    #[must_use]
    pub const fn per_second(figure: f64) -> Self {
        Self(figure, Per::Second)
    }

    /// For defaults: `0/s`.
    #[must_use]
    pub fn zero() -> Self {
        Self(0.0, Per::Second)
    }

    /// The rate.
    #[must_use]
    pub fn get(self) -> Rate {
        Rate::new(self.0 / self.1.seconds()).unwrap_or_default()
    }

    /// Reads a text such as `20/s`. `None` where the text is no rate.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (figure, per) = text.rsplit_once('/')?;
        let per = match per {
            "s" => Per::Second,
            "m" => Per::Minute,
            "h" => Per::Hour,
            "d" => Per::Day,
            _ => return None,
        };
        let decimal = !figure.is_empty()
            && figure.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && figure.bytes().any(|b| b.is_ascii_digit());
        let figure: f64 = decimal.then(|| figure.parse().ok())??;
        figure.is_finite().then_some(Self(figure, per))
    }
}

impl Listen {
    /// For defaults: a port on every address, IPv6 and IPv4.
    #[must_use]
    pub(crate) const fn everywhere(port: u16) -> Self {
        Self(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
    }

    /// The address.
    #[must_use]
    pub(crate) const fn get(self) -> SocketAddr {
        self.0
    }

    /// Whether this address also takes the other one: `[::]` takes the port on every address,
    /// `0.0.0.0` on every IPv4 address.
    #[must_use]
    pub(crate) fn takes(self, other: Self) -> bool {
        let (ours, theirs) = (self.0.ip(), other.0.ip());
        let is_taken = match ours {
            _ if ours == theirs => true,
            IpAddr::V6(ours) => ours.is_unspecified(),
            IpAddr::V4(ours) => ours.is_unspecified() && theirs.is_ipv4(),
        };
        is_taken && self.0.port() == other.0.port() && self.0.port() != 0
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

impl Level {
    /// The level as `tracing` defines it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Per {
    const fn seconds(self) -> f64 {
        match self {
            Self::Second => 1.0,
            Self::Minute => 60.0,
            Self::Hour => 3600.0,
            Self::Day => 86_400.0,
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.1 {
            Per::Second => "s",
            Per::Minute => "m",
            Per::Hour => "h",
            Per::Day => "d",
        };
        write!(f, "{}/{per}", self.0)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| *duration <= MAX_PERIOD)
}

macro_rules! text_value {
    ($type:ident, $expected:expr, $pattern:expr, $parse:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        let parse: fn(&str) -> Option<$type> = $parse;
                        parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": format!("Takes {}.", $expected) })
            }
        }
    };
}

text_value!(Period, PERIOD, DURATION_PATTERN, |text| duration(text)
    .filter(|d| !d.is_zero())
    .map(Period));
text_value!(Span, SPAN, DURATION_PATTERN, |text| duration(text).map(Span));
text_value!(Share, SHARE, r"^([0-9]+\.?[0-9]*|\.[0-9]+)/[smhd]$", Share::parse);
text_value!(Listen, LISTEN, r"^.+:[0-9]{1,5}$", |text| text.parse().ok().map(Listen));

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(COUNT)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Count, E> {
                u32::try_from(number)
                    .ok()
                    .filter(|number| *number > 0)
                    .map(Count)
                    .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
            }
        }
        deserializer.deserialize_u64(Number).map_err(D::Error::custom)
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl JsonSchema for Count {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 4_294_967_295_u32 })
    }
}

const MAX_PERIOD: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const PERIOD: &str = "a duration above zero and at most a year, such as 250ms, 10s or 24h";
const SPAN: &str = "a duration of at most a year, such as 0ms, 250ms or 10s";
const COUNT: &str = "a whole number from 1 to 4294967295";
const SHARE: &str = "a rate: a decimal and /s, /m, /h or /d, such as 20/s, 0.5/s or 300/m";
const LISTEN: &str =
    "an IP address and a port, such as [::]:50051 (IPv6 and IPv4) or 127.0.0.1:50051";
const DURATION_PATTERN: &str = r"^ *([0-9]+(\.[0-9]+)? *[a-zA-Zµ]+ *)+$";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_decimal_and_a_unit() {
        assert_eq!(Share::parse("20/s").unwrap().get().per_second(), 20.0);
        assert_eq!(Share::parse("300/m").unwrap().get().per_second(), 5.0);
        assert_eq!(Share::parse("1.5/h").unwrap().get().per_second(), 1.5 / 3600.0);
        assert_eq!(Share::parse("43200/d").unwrap().get().per_second(), 0.5);
        assert_eq!(Share::parse("0/s").unwrap().get().per_second(), 0.0);
        for bad in [
            "20", "20/w", "/s", "./s", "-1/s", "1e3/s", "inf/s", "NaN/s", " 1/s", "1 /s", "1/s/s",
            "",
        ] {
            assert!(Share::parse(bad).is_none(), "{bad} was taken");
        }
    }

    #[test]
    fn a_rate_is_shown_as_it_was_written() {
        for text in ["20/s", "300/m", "1.5/h", "2/d", "0/s"] {
            assert_eq!(Share::parse(text).unwrap().to_string(), text);
        }
    }
}
