//! The export by OTLP, and the propagation of a trace's context: `telemetry.otlp`, and
//! OpenTelemetry's own variables.
//!
//! The variables mean what OpenTelemetry's specification says ("OpenTelemetry Environment Variable
//! Specification", "OTLP Exporter Configuration"). A value that cannot be honoured is a problem of
//! its variable. The specification would ignore it.

mod exporter;
mod sampling;

use std::time::Duration;

use super::environment::Environment;
use super::problem::{Problem, Problems};
use super::shape::{self, Config};

pub(crate) use exporter::{Exporter, Protocol};
pub(crate) use sampling::{Propagator, Sampling};

/// The signals that leave, their destinations, and the sampling.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// `None`: no traces are exported.
    pub traces: Option<Exporter>,
    /// `None`: no metrics are pushed.
    pub metrics: Option<Exporter>,
    /// Which calls are traced.
    pub sampling: Sampling,
    /// The forms in which a trace's context is read and handed on, in this order.
    pub propagators: Vec<Propagator>,
    /// The most spans that wait for their export. Further spans are dropped and counted.
    pub max_queue_spans: usize,
    /// The most spans in one export; not more than `max_queue_spans`.
    pub max_batch_spans: usize,
}

/// A kind of data that is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
}

/// Reads all keys and variables, and adds a problem for each that cannot be honoured.
pub(super) fn resolve(config: &Config, environment: &Environment, problems: &mut Problems) -> Otlp {
    let default = shape::Otlp::default();
    let configured = config.telemetry.otlp.as_ref().unwrap_or(&default);
    let mut reader = Reader { environment, problems };
    let is_disabled = reader.is_true("OTEL_SDK_DISABLED");
    let traces = reader.exporter(Signal::Traces, configured);
    let metrics = reader.exporter(Signal::Metrics, configured);
    let sampling = reader.sampling(configured.sample_ratio);
    let propagators = reader.propagators();
    reader.resource();
    for name in ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_METRIC_EXPORT_INTERVAL"] {
        // The library reads the values. Here they are only checked.
        let _ = reader.millis(name);
    }
    let temporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    reader.one_of(temporality, &["cumulative", "delta", "lowmemory"]);
    let histograms = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    reader.one_of(histograms, &["explicit_bucket_histogram"]);
    let queue = reader.count("OTEL_BSP_MAX_QUEUE_SIZE");
    let batch = reader.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE");
    let max_queue_spans = queue.unwrap_or(MAX_QUEUE);
    let max_batch_spans = batch.unwrap_or(MAX_BATCH.min(max_queue_spans));
    if max_batch_spans > max_queue_spans {
        reader.refuse(
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
            format!("at most OTEL_BSP_MAX_QUEUE_SIZE, {max_queue_spans}"),
        );
    }
    Otlp {
        traces: traces.filter(|_| !is_disabled),
        metrics: metrics.filter(|_| !is_disabled),
        sampling,
        propagators,
        max_queue_spans,
        max_batch_spans,
    }
}

/// Reads variables, and reports those that cannot be honoured.
struct Reader<'a> {
    environment: &'a Environment,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    /// Leaves the value out: a header's value is secret, and an endpoint's may be.
    fn refuse(&mut self, variable: &str, expected: impl Into<String>) {
        self.problems.add(Problem::new(variable, None, expected));
    }

    fn get(&self, variable: &str) -> Option<String> {
        self.environment.get(variable).map(|value| value.trim().to_owned())
    }

    fn is_true(&mut self, variable: &str) -> bool {
        match self.get(variable).map(|value| value.to_lowercase()).as_deref() {
            Some("true") => true,
            None | Some("false") => false,
            Some(_) => {
                self.refuse(variable, "true or false");
                false
            }
        }
    }

    /// Checks a word that the library reads by itself.
    fn one_of(&mut self, variable: &str, known: &[&str]) {
        if let Some(value) = self.get(variable)
            && !known.contains(&value.to_lowercase().as_str())
        {
            self.refuse(variable, known.join(" or "));
        }
    }

    fn count(&mut self, variable: &str) -> Option<usize> {
        let value = self.get(variable)?;
        let count = value.parse().ok().filter(|count| *count > 0);
        if count.is_none() {
            self.refuse(variable, "a whole number of at least 1");
        }
        count
    }

    fn millis(&mut self, variable: &str) -> Option<Duration> {
        let value = self.get(variable)?;
        let millis = value.parse().ok().filter(|millis| *millis > 0);
        if millis.is_none() {
            self.refuse(variable, "a time in milliseconds, as a whole number of at least 1");
        }
        millis.map(Duration::from_millis)
    }

    /// The library takes the pairs that it can read, and drops the others in silence.
    fn resource(&mut self) {
        let Some(pairs) = self.get("OTEL_RESOURCE_ATTRIBUTES") else { return };
        let is_pair =
            |pair: &str| pair.split_once('=').is_some_and(|(key, _)| !key.trim().is_empty());
        if !pairs.split(',').filter(|pair| !pair.trim().is_empty()).all(is_pair) {
            self.refuse("OTEL_RESOURCE_ATTRIBUTES", "key=value,key=value");
        }
    }
}

const MAX_QUEUE: usize = 4096;
const MAX_BATCH: usize = 512;
