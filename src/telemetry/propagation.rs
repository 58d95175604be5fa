//! How a trace's context is read from callers and handed on to Connect.

use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_aws::trace::XrayPropagator;
use opentelemetry_propagator_b3::{B3Encoding, Propagator as B3};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};

use crate::config::Propagator;

/// All of them in one: where several find a context, the last one's holds.
pub(super) fn of(propagators: &[Propagator]) -> TextMapCompositePropagator {
    let one = |propagator: &Propagator| -> Box<dyn TextMapPropagator + Send + Sync> {
        match propagator {
            Propagator::TraceContext => Box::new(TraceContextPropagator::new()),
            Propagator::Baggage => Box::new(BaggagePropagator::new()),
            Propagator::B3 => Box::new(B3::with_encoding(B3Encoding::SingleHeader)),
            Propagator::B3Multi => Box::new(B3::with_encoding(B3Encoding::MultipleHeader)),
            Propagator::XRay => Box::new(XrayPropagator::new()),
        }
    };
    TextMapCompositePropagator::new(propagators.iter().map(one).collect())
}
