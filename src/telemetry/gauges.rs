//! Values that are read at each scrape, and not counted on the way.

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::KeyValue;

use super::Metrics;
use super::metrics::of;
use super::names::{attribute as at, metric};
use crate::domain::Name;

/// The limits in force.
#[derive(Debug, Default)]
pub(crate) struct LimitFigures {
    /// The tenant, the upstream, the name of the limit, and its figure: per second, or in calls.
    pub tenants: Vec<(Name, Name, &'static str, f64)>,
    /// The upstream, the name of the limit, and its figure: per second, or in calls.
    pub upstreams: Vec<(Name, &'static str, f64)>,
}

impl Metrics {
    /// Shows the limits in force: of each tenant on each upstream, and of each upstream.
    pub(crate) fn show_limits(&self, limits: impl Fn() -> LimitFigures + Send + Sync + 'static) {
        let limits = Arc::new(limits);
        let tenants = Arc::clone(&limits);
        self.meter
            .f64_observable_gauge(metric::LIMIT)
            .with_description("A tenant's limits on an upstream, per second or in calls.")
            .with_callback(move |gauge| {
                for (tenant, upstream, limit, figure) in tenants().tenants {
                    let [tenant, upstream] = of(&tenant, &upstream);
                    gauge.observe(figure, &[tenant, upstream, KeyValue::new(at::LIMIT, limit)]);
                }
            })
            .build();
        self.meter
            .f64_observable_gauge(metric::UPSTREAM_LIMIT)
            .with_description("An upstream's budget, per second and in calls.")
            .with_callback(move |gauge| {
                for (upstream, limit, figure) in limits().upstreams {
                    let upstream = KeyValue::new(at::UPSTREAM, upstream.to_string());
                    gauge.observe(figure, &[upstream, KeyValue::new(at::LIMIT, limit)]);
                }
            })
            .build();
    }

    /// Shows every upstream's circuit: 0 closed, 1 half-open, 2 open.
    pub(crate) fn show_circuits(
        &self,
        states: impl Fn() -> Vec<(Name, u64)> + Send + Sync + 'static,
    ) {
        self.show_upstreams(metric::CIRCUIT, "0: closed, 1: half-open, 2: open.", states);
    }

    /// Shows how many calls of this process wait for their slots on each upstream.
    pub(crate) fn show_queues(
        &self,
        lengths: impl Fn() -> Vec<(Name, u64)> + Send + Sync + 'static,
    ) {
        self.show_upstreams(metric::QUEUE, "Calls that wait for their slots.", lengths);
    }

    fn show_upstreams(
        &self,
        name: &'static str,
        text: &'static str,
        states: impl Fn() -> Vec<(Name, u64)> + Send + Sync + 'static,
    ) {
        self.meter
            .u64_observable_gauge(name)
            .with_description(text)
            .with_callback(move |gauge| {
                for (upstream, state) in states() {
                    gauge.observe(state, &[KeyValue::new(at::UPSTREAM, upstream.to_string())]);
                }
            })
            .build();
    }

    /// Shows the calls in flight.
    pub(crate) fn show_in_flight(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        self.gauged(metric::IN_FLIGHT, "Calls in flight.", count);
    }

    /// Shows whether the store is lost, and how many results could not be written to it.
    pub(crate) fn show_store(
        &self,
        degraded: impl Fn() -> bool + Send + Sync + 'static,
        unsettled: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.gauged(metric::DEGRADED, "1 while the store is lost.", move || u64::from(degraded()));
        self.counted(
            metric::UNSETTLED,
            "Results that could not be written to the store.",
            unsettled,
        );
    }

    /// Shows when the certificate in use ends.
    pub(crate) fn show_certificate(&self, ends: impl Fn() -> SystemTime + Send + Sync + 'static) {
        self.meter
            .u64_observable_gauge(metric::CERTIFICATE)
            .with_unit("s")
            .with_description("When the certificate in use ends, in Unix time.")
            .with_callback(move |gauge| {
                let ends = ends().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                gauge.observe(ends.as_secs(), &[]);
            })
            .build();
    }

    pub(super) fn gauged(
        &self,
        name: &'static str,
        text: &'static str,
        value: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let gauge = self.meter.u64_observable_gauge(name).with_description(text);
        gauge.with_callback(move |gauge| gauge.observe(value(), &[])).build();
    }

    pub(super) fn counted(
        &self,
        name: &'static str,
        text: &'static str,
        value: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let counter = self.meter.u64_observable_counter(name).with_description(text);
        counter.with_callback(move |counter| counter.observe(value(), &[])).build();
    }
}
