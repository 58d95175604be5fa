//! The export by OTLP: in batches, from its own threads, and never at the cost of a call.
//!
//! If a collector is down or slow, or hangs, only spans are lost, and the loss is counted.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
    SpanProcessor,
};

use super::{Metrics, Tracing, otlp, propagation};
use crate::config::{Otlp, Sampling};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The metrics and traces, with their exporters.
#[derive(Debug)]
pub struct Telemetry {
    /// The counters and histograms.
    pub metrics: Arc<Metrics>,
    /// The source of spans.
    pub(crate) tracing: Tracing,
    spans: SdkTracerProvider,
    meters: SdkMeterProvider,
}

impl Telemetry {
    /// Starts the metrics, the traces and the exporters.
    ///
    /// # Errors
    /// If an exporter cannot be built.
    pub fn start(config: &Otlp) -> Result<Self, BoxError> {
        let dropped = Arc::new(AtomicU64::new(0));
        let resource = resource();
        let mut spans = SdkTracerProvider::builder().with_resource(resource.clone());
        if let Some(to) = &config.traces {
            let queue = Queue::new(otlp::spans(to)?, config, Arc::clone(&dropped));
            spans = spans.with_sampler(sampler(config.sampling)).with_span_processor(queue);
        } else {
            spans = spans.with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
        }
        let mut reader = None;
        if let Some(to) = &config.metrics {
            let exporter =
                Counted { exporter: otlp::metrics(to)?, dropped: Dropped::new(&dropped) };
            reader = Some(PeriodicReader::builder(exporter).build());
        }
        let spans = spans.build();
        let (metrics, meters) = Metrics::new(resource, reader, dropped)?;
        let tracing = Tracing::new(&spans, propagation::of(&config.propagators));
        Ok(Self { metrics: Arc::new(metrics), tracing, spans, meters })
    }

    /// Exports the rest, for two seconds at most. It does not run on the runtime, which the
    /// exporters need meanwhile.
    pub async fn shut_down(self) {
        let Self { spans, meters, .. } = self;
        let of_spans = off_the_runtime(move || spans.shutdown_with_timeout(FLUSH));
        let of_meters = off_the_runtime(move || meters.shutdown_with_timeout(FLUSH));
        let both = async { tokio::join!(of_spans, of_meters) };
        if tokio::time::timeout(FLUSH, both).await.is_err() {
            tracing::warn!("telemetry is left unexported");
        }
    }
}

/// Uses a thread of its own: the runtime's end would wait for a thread of the runtime.
async fn off_the_runtime(work: impl FnOnce() -> OTelSdkResult + Send + 'static) {
    let (done, waiting) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = done.send(work());
    });
    let _ = waiting.await;
}

fn sampler(sampling: Sampling) -> Sampler {
    let of_its_own = if sampling.ratio >= 1.0 {
        Sampler::AlwaysOn
    } else if sampling.ratio <= 0.0 {
        Sampler::AlwaysOff
    } else {
        Sampler::TraceIdRatioBased(sampling.ratio)
    };
    if sampling.by_parent { Sampler::ParentBased(Box::new(of_its_own)) } else { of_its_own }
}

/// The environment's attributes of this process have priority over the gateway's.
fn resource() -> Resource {
    let ours = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.name", "participant-gateway"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => {
            ours.with_attribute(KeyValue::new("service.name", name)).build()
        }
        _ => ours.build(),
    }
}

/// Counts the data that did not arrive. Of several failures in a row, only the first is logged.
#[derive(Debug)]
struct Dropped {
    count: Arc<AtomicU64>,
    failing: AtomicBool,
}

impl Dropped {
    fn new(count: &Arc<AtomicU64>) -> Self {
        Self { count: Arc::clone(count), failing: AtomicBool::new(false) }
    }

    fn note(&self, exported: &OTelSdkResult, lost: usize) {
        match exported {
            Ok(()) => self.failing.store(false, Relaxed),
            Err(error) => {
                self.count.fetch_add(lost as u64, Relaxed);
                if !self.failing.swap(true, Relaxed) {
                    tracing::warn!(%error, "telemetry is not exported");
                }
            }
        }
    }
}

/// A bound on the waiting spans that counts the spans that it drops: the library's own bound drops
/// in silence.
#[derive(Debug)]
struct Queue {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    most: usize,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    fn new(exporter: SpanExporter, config: &Otlp, dropped: Arc<AtomicU64>) -> Self {
        let waiting = Arc::new(AtomicUsize::new(0));
        let exporter =
            Taking { exporter, waiting: Arc::clone(&waiting), dropped: Dropped::new(&dropped) };
        let most = config.max_queue_spans;
        // A span leaves the library's queue before `waiting` goes down. So that queue is never full,
        // and the library never drops a span.
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(most)
            .with_max_export_batch_size(config.max_batch_spans)
            .build();
        Self { batches: BatchSpanProcessor::new(exporter, config), waiting, most, dropped }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.waiting.fetch_add(1, Relaxed) >= self.most {
            self.waiting.fetch_sub(1, Relaxed);
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        self.batches.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

#[derive(Debug)]
struct Taking {
    exporter: SpanExporter,
    waiting: Arc<AtomicUsize>,
    dropped: Dropped,
}

impl opentelemetry_sdk::trace::SpanExporter for Taking {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.waiting.fetch_sub(count, Relaxed);
        let exported = self.exporter.export(batch).await;
        self.dropped.note(&exported, count);
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Counts metrics that were not exported.
struct Counted {
    exporter: MetricExporter,
    dropped: Dropped,
}

impl PushMetricExporter for Counted {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let exported = self.exporter.export(metrics).await;
        self.dropped
            .note(&exported, metrics.scope_metrics().map(|scope| scope.metrics().count()).sum());
        exported
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

/// The longest time that the last export may delay the end of the process.
const FLUSH: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Tracer, TracerProvider};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_does_not_fit_the_queue_is_dropped_at_once_and_counted() {
        // The listener accepts, and never answers.
        let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", frozen.local_addr().unwrap());
        let config = serde_json::json!({
            "identity": { "mode": "header" },
            "tenants": { "demo": { "instances": ["*"], "rate": "1/s", "burst": 1 } },
            "upstreams": { "main": { "region": "us-east-1", "instances": ["*"] } },
            "telemetry": { "otlp": { "endpoint": endpoint, "sample_ratio": 1.0 } },
        });
        let otlp = crate::config::Settings::parse(&config.to_string(), []).unwrap().otlp;
        let max_queue = otlp.max_queue_spans;
        let dropped = Arc::new(AtomicU64::new(0));
        let exporter = otlp::spans(otlp.traces.as_ref().unwrap()).unwrap();
        let queue = Queue::new(exporter, &otlp, Arc::clone(&dropped));
        let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
        let tracer = provider.tracer("test");
        let (count, started) = (3 * max_queue, std::time::Instant::now());
        for _ in 0..count {
            drop(tracer.start("span"));
        }
        assert!(started.elapsed() < FLUSH, "a span waited: {:?}", started.elapsed());
        // At most one batch is being sent.
        let lost = dropped.load(Relaxed) as usize;
        assert!((count - max_queue - 512..=count - max_queue).contains(&lost), "{lost} of {count}");
        off_the_runtime(move || provider.shutdown_with_timeout(Duration::from_millis(100))).await;
    }
}
