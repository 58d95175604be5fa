//! `/metrics` as OpenMetrics, with the traces of calls as exemplars.
//!
//! OpenTelemetry's exporter and the registry behind it know neither. So the durations of calls are
//! kept a second time, by Prometheus's own client, which writes all of the text: those durations
//! from what it keeps, everything else from the other registry.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use prometheus::proto::{Histogram, LabelPair, MetricFamily, MetricType as Kind};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::names::{attribute as at, metric};
use crate::domain::Name;

/// The calls' durations, and what else there is.
pub(super) struct OpenMetrics {
    registry: Registry,
    calls: Calls,
    series: AtomicUsize,
}

type Calls = Family<Labels, HistogramWithExemplars<Trace>, Empty>;

/// Makes a histogram without a call in it.
type Empty = fn() -> HistogramWithExemplars<Trace>;

/// What tells the durations of calls apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Labels {
    /// As metrics name it.
    pub method: &'static str,
    /// The name of the gRPC code.
    pub code: &'static str,
    /// The call failed by our fault, or Connect's.
    pub(crate) is_fault: bool,
    /// The caller, if it is a tenant.
    pub tenant: Option<Name>,
}

/// The durations of calls with the same labels.
#[derive(Debug, Clone)]
pub(super) struct Durations(HistogramWithExemplars<Trace>);

/// The trace that a call belongs to, in hexadecimal.
#[derive(Debug)]
struct Trace(String);

/// Everything else that is gathered.
#[derive(Debug)]
struct Others(prometheus::Registry);

impl OpenMetrics {
    /// Over the registry of all metrics.
    pub(crate) fn new(others: prometheus::Registry) -> Self {
        let empty: Empty = || HistogramWithExemplars::new(super::metrics::CALLS.into_iter());
        let calls = Calls::new_with_constructor(empty);
        let mut registry = Registry::default();
        registry.register(calls_name(), "Calls of callers", calls.clone());
        registry.register_collector(Box::new(Others(others)));
        Self { registry, calls, series: AtomicUsize::new(0) }
    }

    /// The series of these labels.
    pub(crate) fn durations(&self, labels: Labels) -> Durations {
        Durations(self.calls.get_or_create_owned(&self.bounded(labels)))
    }

    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Beyond the bound, calls are counted without their tenants.
    fn bounded(&self, labels: Labels) -> Labels {
        if self.series.fetch_add(1, Relaxed) < super::metrics::TENANT_SERIES {
            return labels;
        }
        Labels { tenant: None, ..labels }
    }
}

impl Durations {
    /// A call has ended. `trace`: its trace, if that is sampled.
    pub(crate) fn record(&self, took: Duration, trace: Option<String>) {
        let at = trace.is_some().then(SystemTime::now);
        self.0.observe(took.as_secs_f64(), trace.map(Trace), at);
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let tenant = self.tenant.as_ref().map_or("", Name::as_str);
        let error = self.is_fault.then_some((at::ERROR_TYPE, self.code));
        let labels = [
            (at::RPC_METHOD, self.method),
            (at::RPC_STATUS, self.code),
            (at::RPC_SYSTEM, "grpc"),
            (at::TENANT, tenant),
        ];
        for (name, value) in error.into_iter().chain(labels) {
            (plain(name).as_str(), value).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

impl EncodeLabelSet for Trace {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("trace_id", self.0.as_str()).encode(encoder.encode_label())
    }
}

impl Collector for Others {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let calls = calls_name();
        self.0
            .gather()
            .iter()
            .filter(|family| family.name() != calls)
            .try_for_each(|family| encode_family(&mut encoder, family))
    }
}

fn encode_family(encoder: &mut DescriptorEncoder<'_>, family: &MetricFamily) -> fmt::Result {
    let (name, kind) = match family.get_field_type() {
        // The writer adds the ending.
        Kind::COUNTER => (family.name().trim_end_matches("_total"), MetricType::Counter),
        Kind::HISTOGRAM => (family.name(), MetricType::Histogram),
        Kind::GAUGE => (family.name(), MetricType::Gauge),
        // OpenTelemetry has none of them.
        Kind::SUMMARY | Kind::UNTYPED => return Ok(()),
    };
    let mut encoder = encoder.encode_descriptor(name, family.help(), None, kind)?;
    for metric in family.get_metric() {
        let labels: Vec<_> = metric.get_label().iter().map(pair).collect();
        let mut one = encoder.encode_family(&labels)?;
        match kind {
            MetricType::Counter => {
                let count = metric.get_counter().get_value();
                one.encode_counter::<NoLabelSet, f64, f64>(&count, None)?;
            }
            MetricType::Histogram => encode_histogram(&mut one, metric.get_histogram())?,
            _ => one.encode_gauge(&metric.get_gauge().get_value())?,
        }
    }
    Ok(())
}

/// The one counts what is in a bucket, the other all that is below its bound.
fn encode_histogram(encoder: &mut MetricEncoder<'_>, histogram: &Histogram) -> fmt::Result {
    let (sum, count) = (histogram.get_sample_sum(), histogram.get_sample_count());
    let mut below = 0;
    let mut buckets: Vec<_> = histogram
        .get_bucket()
        .iter()
        .map(|bucket| {
            let own = bucket.cumulative_count().saturating_sub(below);
            below = bucket.cumulative_count();
            (bucket.upper_bound(), own)
        })
        .collect();
    if buckets.last().is_none_or(|(bound, _)| bound.is_finite()) {
        buckets.push((f64::INFINITY, count.saturating_sub(below)));
    }
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

fn pair(label: &LabelPair) -> (&str, &str) {
    (label.name(), label.value())
}

/// As OpenTelemetry's exporter names it.
fn calls_name() -> String {
    format!("{}_seconds", plain(metric::SERVER_CALL))
}

fn plain(name: &str) -> String {
    name.replace('.', "_")
}
