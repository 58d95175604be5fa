//! Which lines the log shows: the config's level for the gateway's own, and `RUST_LOG` for the
//! libraries.
//!
//! A directive of `RUST_LOG` only adds lines. No library logs at a level at which it prints a body,
//! a header or a credential.

use std::env;
use std::ffi::OsString;

use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::config::Level;

/// The directives of `RUST_LOG`.
#[derive(Debug, Clone)]
pub struct Directives {
    /// The level for all targets; `OFF` if there is none.
    default: LevelFilter,
    /// The levels by the prefix of a target.
    targets: Vec<(String, LevelFilter)>,
    bad: Vec<String>,
}

impl Directives {
    /// Those of this process's environment.
    #[must_use]
    pub fn from_env() -> Self {
        let text = env::var_os("RUST_LOG").map(OsString::into_string);
        let text = text.map(|text| text.unwrap_or_else(|raw| raw.to_string_lossy().into_owned()));
        Self::parse(&text.unwrap_or_default())
    }

    /// Reads `target=level,target=level,level`. A part that is no directive is left out, and
    /// [`Directives::bad`] returns it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut read = Self { default: LevelFilter::OFF, targets: Vec::new(), bad: Vec::new() };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.parse::<Targets>() {
                // Spans and their fields are not part of this log.
                Ok(one) if !part.contains('[') => {
                    read.default =
                        read.default.max(one.default_level().unwrap_or(LevelFilter::OFF));
                    read.targets.extend(one);
                }
                _ => read.bad.push(part.to_owned()),
            }
        }
        read
    }

    /// Each directive that could not be read, with what was expected.
    pub fn bad(&self) -> impl Iterator<Item = String> {
        self.bad.iter().map(|bad| {
            format!("RUST_LOG: {bad:?} is ignored: expected target=level, such as hyper_util=debug")
        })
    }

    /// The filter of a log with this level.
    pub(super) fn filter(&self, level: Level) -> Targets {
        let level = match level {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        };
        let known = MOST.iter().map(|(target, _)| *target).chain([OWN, CALL]);
        let targets = known.chain(self.targets.iter().map(|(target, _)| target.as_str()));
        let filter = Targets::new().with_default(self.level_of("", level));
        filter.with_targets(targets.map(|target| (target, self.level_of(target, level))))
    }

    /// The level at which the target is logged.
    fn level_of(&self, target: &str, level: LevelFilter) -> LevelFilter {
        let is_own = target.starts_with(OWN);
        let of_config = if is_own { level } else { level.min(LevelFilter::INFO) };
        let heard = of_config.max(longest(&self.targets, target).unwrap_or(self.default));
        // A library's line during a call must carry the call's `request_id`.
        let names_libraries = self.default > level || !self.targets.is_empty();
        if target == CALL && names_libraries {
            heard.max(LevelFilter::DEBUG)
        } else if is_own {
            heard
        } else {
            heard.min(longest(&MOST, target).unwrap_or(LevelFilter::INFO))
        }
    }
}

/// The level of the longest of the prefixes that the target begins with.
fn longest(levels: &[(impl AsRef<str>, LevelFilter)], target: &str) -> Option<LevelFilter> {
    let fits = levels.iter().filter(|(prefix, _)| target.starts_with(prefix.as_ref()));
    fits.max_by_key(|(prefix, _)| prefix.as_ref().len()).map(|(_, level)| *level)
}

/// The gateway's own lines.
pub(super) const OWN: &str = "participant_gateway";

/// The span that identifies a call: see `Notes::log_span`.
const CALL: &str = "participant_gateway::call";

/// The most detailed level of each library, by the prefix of its targets. At TRACE the AWS SDK
/// prints bodies, the text that it signs, profiles and the commands of credential processes. HTTP/2
/// and TLS print frames and certificates there. A library that is not in this list logs up to INFO.
const MOST: [(&str, LevelFilter); 8] = [
    ("aws_", LevelFilter::DEBUG),
    ("h2", LevelFilter::DEBUG),
    ("hyper", LevelFilter::DEBUG),
    ("opentelemetry", LevelFilter::DEBUG),
    ("redis", LevelFilter::TRACE),
    ("rustls", LevelFilter::DEBUG),
    ("tonic", LevelFilter::DEBUG),
    ("tower", LevelFilter::TRACE),
];

#[cfg(test)]
mod tests {
    use tracing::Level as At;

    use super::*;

    fn hears(directives: &str, level: Level, target: &str, at: At) -> bool {
        Directives::parse(directives).filter(level).would_enable(target, &at)
    }

    #[test]
    fn the_level_is_the_gateways_own_and_libraries_are_heard_up_to_info() {
        for target in ["aws_smithy_runtime::client", "h2::codec", "redis::aio", "another"] {
            assert!(hears("", Level::Trace, target, At::INFO), "{target}");
            assert!(!hears("", Level::Trace, target, At::DEBUG), "{target}");
            assert!(!hears("", Level::Warn, target, At::INFO), "{target}");
        }
        assert!(hears("", Level::Debug, "participant_gateway::gateway", At::DEBUG));
        assert!(!hears("", Level::Info, "participant_gateway::call", At::DEBUG));
    }

    #[test]
    fn a_directive_adds_to_the_level_and_takes_nothing_away() {
        let hyper = "hyper_util::client";
        assert!(hears("hyper_util=debug", Level::Info, hyper, At::DEBUG));
        assert!(hears("hyper_util=off,error", Level::Info, hyper, At::INFO));
        assert!(hears("participant_gateway=warn", Level::Info, "participant_gateway", At::INFO));
        assert!(hears("participant_gateway::gateway=debug", Level::Info, CALL, At::DEBUG));
        assert!(hears("debug", Level::Info, "participant_gateway::net", At::DEBUG));
        assert!(hears("tower", Level::Error, "tower::retry", At::TRACE));
    }

    #[test]
    fn no_directive_lifts_a_library_above_what_it_may_say() {
        for directives in ["trace", "aws_=trace,h2=trace", "h=trace,a=trace,", "h2::codec=trace"] {
            for target in ["aws_sigv4::http_request", "h2::codec::framed_read", "another"] {
                assert!(!hears(directives, Level::Trace, target, At::TRACE), "{directives}");
            }
        }
        assert!(hears("h=debug", Level::Info, "h2::codec", At::DEBUG));
        assert!(!hears("another=trace", Level::Info, "another", At::DEBUG));
    }

    #[test]
    fn a_directive_that_cannot_be_read_is_named_and_the_rest_holds() {
        let text = "hyper_util=loud, h2=debug,call[request_id=1]=trace,redis=trace=1";
        let directives = Directives::parse(text);
        let bad: Vec<_> = directives.bad().collect();
        assert_eq!(bad.len(), 3, "{bad:?}");
        assert!(bad[0].contains("\"hyper_util=loud\"") && bad[1].contains("call["), "{bad:?}");
        assert!(directives.filter(Level::Info).would_enable("h2::codec", &At::DEBUG));
    }
}
