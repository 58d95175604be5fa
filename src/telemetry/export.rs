//! What leaves by OTLP: in batches, from threads of their own, and never at a call's cost.
//!
//! A collector that is down, slow or frozen costs spans, which are counted, and nothing else.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig};
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

use super::{Metrics, Tracing};
use crate::config::shape::Otlp;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the gateway tells of itself, and where to.
#[derive(Debug)]
pub struct Telemetry {
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
    /// Where spans come from.
    pub tracing: Tracing,
    spans: SdkTracerProvider,
    meters: SdkMeterProvider,
}

impl Telemetry {
    /// Starts it. Without an endpoint, in the config or in `OTEL_EXPORTER_OTLP_ENDPOINT`, nothing
    /// is exported.
    ///
    /// # Errors
    /// Where the exporters cannot be built: an endpoint or a file of the environment's that is
    /// none.
    pub fn start(config: Option<&Otlp>) -> Result<Self, Failure> {
        let dropped = Arc::new(AtomicU64::new(0));
        let resource = resource();
        let default = Otlp::default();
        let otlp = config.unwrap_or(&default);
        let mut spans = SdkTracerProvider::builder().with_resource(resource.clone());
        let mut reader = None;
        if is_on(otlp) {
            // Where the environment names a sampler, the library follows it.
            if env::var_os("OTEL_TRACES_SAMPLER").is_none() {
                let ratio = Sampler::TraceIdRatioBased(otlp.sample_ratio);
                spans = spans.with_sampler(Sampler::ParentBased(Box::new(ratio)));
            }
            spans =
                spans.with_span_processor(Queue::new(span_exporter(otlp)?, Arc::clone(&dropped)));
            let exporter =
                Counted { exporter: metric_exporter(otlp)?, dropped: Dropped::new(&dropped) };
            reader = Some(PeriodicReader::builder(exporter).build());
        } else {
            spans = spans.with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
        }
        let spans = spans.build();
        let (metrics, meters) = Metrics::new(resource, reader, dropped)?;
        let tracing = Tracing::new(&spans);
        Ok(Self { metrics: Arc::new(metrics), tracing, spans, meters })
    }

    /// Exports what is left, for two seconds at most. Not on the runtime: the exporters need it
    /// meanwhile.
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

/// A thread of its own, and not one of the runtime's, whose end would wait for it.
async fn off_the_runtime(work: impl FnOnce() -> OTelSdkResult + Send + 'static) {
    let (done, waiting) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = done.send(work());
    });
    let _ = waiting.await;
}

fn is_on(otlp: &Otlp) -> bool {
    let set = |name: &str| env::var(name).is_ok_and(|value| !value.trim().is_empty());
    let disabled =
        env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.trim().eq_ignore_ascii_case("true"));
    !disabled && (otlp.endpoint.is_some() || set("OTEL_EXPORTER_OTLP_ENDPOINT"))
}

/// What the environment says of this process goes before what we say.
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

fn span_exporter(otlp: &Otlp) -> Result<SpanExporter, Failure> {
    let mut exporter = SpanExporter::builder().with_tonic();
    if let Some(endpoint) = &otlp.endpoint {
        exporter = exporter.with_endpoint(endpoint);
    }
    if let Some(tls) = tls(otlp)? {
        exporter = exporter.with_tls_config(tls);
    }
    Ok(exporter.build()?)
}

fn metric_exporter(otlp: &Otlp) -> Result<MetricExporter, Failure> {
    let mut exporter = MetricExporter::builder().with_tonic();
    if let Some(endpoint) = &otlp.endpoint {
        exporter = exporter.with_endpoint(endpoint);
    }
    if let Some(tls) = tls(otlp)? {
        exporter = exporter.with_tls_config(tls);
    }
    Ok(exporter.build()?)
}

/// The system's roots, or those of `OTEL_EXPORTER_OTLP_CERTIFICATE`, which the library does not
/// read.
fn tls(otlp: &Otlp) -> Result<Option<ClientTlsConfig>, Failure> {
    let endpoint = otlp
        .endpoint
        .clone()
        .or_else(|| env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok())
        .unwrap_or_default();
    if !endpoint.trim().starts_with("https://") {
        return Ok(None);
    }
    let tls = ClientTlsConfig::new();
    let Some(file) = env::var_os("OTEL_EXPORTER_OTLP_CERTIFICATE") else {
        return Ok(Some(tls.with_enabled_roots()));
    };
    let roots =
        std::fs::read(&file).map_err(|error| format!("OTEL_EXPORTER_OTLP_CERTIFICATE: {error}"))?;
    Ok(Some(tls.ca_certificate(Certificate::from_pem(roots))))
}

/// What did not arrive; the log hears of the first of several failures only.
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

/// A bound on what waits, which counts what it drops: the library's own drops in silence.
#[derive(Debug)]
struct Queue {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    fn new(exporter: SpanExporter, dropped: Arc<AtomicU64>) -> Self {
        let waiting = Arc::new(AtomicUsize::new(0));
        let exporter =
            Taking { exporter, waiting: Arc::clone(&waiting), dropped: Dropped::new(&dropped) };
        // Above our own bound, so that it is never what drops.
        let config = BatchConfigBuilder::default().with_max_queue_size(2 * MAX_QUEUE).build();
        Self { batches: BatchSpanProcessor::new(exporter, config), waiting, dropped }
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
        if self.waiting.fetch_add(1, Relaxed) >= MAX_QUEUE {
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

/// Spans that wait for their export; any more are dropped and counted.
const MAX_QUEUE: usize = 4096;

/// The longest that the last export may hold up the end of the process.
const FLUSH: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Tracer, TracerProvider};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_does_not_fit_the_queue_is_dropped_at_once_and_counted() {
        // It accepts, and never answers.
        let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Some(format!("http://{}", frozen.local_addr().unwrap()));
        let otlp = Otlp { endpoint, sample_ratio: 1.0 };
        let dropped = Arc::new(AtomicU64::new(0));
        let queue = Queue::new(span_exporter(&otlp).unwrap(), Arc::clone(&dropped));
        let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
        let tracer = provider.tracer("test");
        let (count, started) = (3 * MAX_QUEUE, std::time::Instant::now());
        for _ in 0..count {
            drop(tracer.start("span"));
        }
        assert!(started.elapsed() < FLUSH, "a span waited: {:?}", started.elapsed());
        // One batch at most is on its way.
        let lost = dropped.load(Relaxed) as usize;
        assert!((count - MAX_QUEUE - 512..=count - MAX_QUEUE).contains(&lost), "{lost} of {count}");
        off_the_runtime(move || provider.shutdown_with_timeout(Duration::from_millis(100))).await;
    }
}
