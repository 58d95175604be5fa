//! Which calls are traced, and how the context of a trace is handed on.

use super::Reader;

/// Which calls are traced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Whether the caller's decision applies, where the caller made one.
    pub by_parent: bool,
    /// The share of the other calls: 0 to 1.
    pub ratio: f64,
}

/// A form of a trace's context in headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagator {
    /// W3C's `traceparent` and `tracestate`.
    TraceContext,
    /// W3C's `baggage`.
    Baggage,
    /// B3 in one header.
    B3,
    /// B3 in several headers.
    B3Multi,
    /// AWS X-Ray's `x-amzn-trace-id`.
    XRay,
}

impl Reader<'_> {
    /// `OTEL_TRACES_SAMPLER` has priority over the config.
    pub(super) fn sampling(&mut self, configured: f64) -> Sampling {
        let name = "OTEL_TRACES_SAMPLER";
        let ratio = self.ratio();
        let (by_parent, ratio) = match self.get(name).as_deref() {
            None => (true, configured),
            Some("always_on") => (false, 1.0),
            Some("always_off") => (false, 0.0),
            Some("traceidratio") => (false, ratio),
            Some("parentbased_always_on") => (true, 1.0),
            Some("parentbased_always_off") => (true, 0.0),
            Some("parentbased_traceidratio") => (true, ratio),
            Some(_) => {
                self.refuse(
                    name,
                    "always_on, always_off, traceidratio, or one of them after parentbased_",
                );
                (true, configured)
            }
        };
        Sampling { by_parent, ratio }
    }

    /// The specification's default is 1.
    fn ratio(&mut self) -> f64 {
        let name = "OTEL_TRACES_SAMPLER_ARG";
        let Some(value) = self.get(name) else { return 1.0 };
        let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.unwrap_or_else(|| {
            self.refuse(name, "a share from 0 to 1");
            1.0
        })
    }

    /// The specification's default is `tracecontext,baggage`.
    pub(super) fn propagators(&mut self) -> Vec<Propagator> {
        let name = "OTEL_PROPAGATORS";
        let Some(value) = self.get(name) else {
            return vec![Propagator::TraceContext, Propagator::Baggage];
        };
        let (mut found, mut is_none) = (Vec::new(), false);
        for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let propagator = match word {
                "tracecontext" => Propagator::TraceContext,
                "baggage" => Propagator::Baggage,
                "b3" => Propagator::B3,
                "b3multi" => Propagator::B3Multi,
                "xray" => Propagator::XRay,
                "none" => {
                    is_none = true;
                    continue;
                }
                _ => {
                    self.refuse(name, "tracecontext, baggage, b3, b3multi, xray, or none");
                    continue;
                }
            };
            if !found.contains(&propagator) {
                found.push(propagator);
            }
        }
        if is_none && !found.is_empty() {
            self.refuse(name, "none by itself, or propagators");
        }
        found
    }
}
