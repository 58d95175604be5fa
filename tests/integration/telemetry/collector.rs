//! An OTLP receiver in this process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use crate::support::until;

/// What has arrived.
#[derive(Clone)]
pub struct Collector {
    pub addr: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    metrics: Arc<Mutex<Vec<String>>>,
    resources: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
    tokens: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let collector = Self {
            addr,
            spans: Arc::default(),
            metrics: Arc::default(),
            resources: Arc::default(),
            tokens: Arc::default(),
        };
        let (traces, metrics) = (collector.clone(), collector.clone());
        let serving = tonic::transport::Server::builder()
            .add_service(
                TraceServiceServer::new(traces).accept_compressed(CompressionEncoding::Gzip),
            )
            .add_service(MetricsServiceServer::new(metrics))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        collector
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn metrics(&self) -> Vec<String> {
        self.metrics.lock().unwrap().clone()
    }

    /// The resources of traces, a map an export.
    pub fn resources(&self) -> Vec<BTreeMap<String, String>> {
        self.resources.lock().unwrap().clone()
    }

    /// What `x-collector-token` held, an entry an export of traces.
    pub fn tokens(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }

    pub fn spans(&self) -> Vec<Seen> {
        self.spans.lock().unwrap().iter().map(Seen::of).collect()
    }

    /// Forgets all that has arrived, and returns how many spans there were.
    pub fn forget(&self) -> usize {
        self.metrics.lock().unwrap().clear();
        self.resources.lock().unwrap().clear();
        self.tokens.lock().unwrap().clear();
        std::mem::take(&mut *self.spans.lock().unwrap()).len()
    }

    /// The trace's spans, by name, once its server span has arrived with as many others.
    pub async fn trace(&self, trace_id: &str, count: usize) -> Vec<Seen> {
        let of_trace = || {
            let mut spans = self.spans();
            spans.retain(|span| span.trace_id == trace_id);
            spans.sort_by_key(|span| span.started);
            spans
        };
        until("the trace has arrived", async || of_trace().len() >= count).await;
        of_trace()
    }
}

/// A span as the collector sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub trace_id: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub kind: SpanKind,
    pub attributes: BTreeMap<String, String>,
    pub events: Vec<(String, BTreeMap<String, String>)>,
    pub is_error: bool,
    started: u64,
}

impl Seen {
    fn of(span: &Span) -> Self {
        Self {
            trace_id: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            name: span.name.clone(),
            kind: span.kind(),
            attributes: attributes(&span.attributes),
            events: span
                .events
                .iter()
                .map(|event| (event.name.clone(), attributes(&event.attributes)))
                .collect(),
            is_error: span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error),
            started: span.start_time_unix_nano,
        }
    }

    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let token = request
            .metadata()
            .get("x-collector-token")
            .and_then(|token| token.to_str().ok());
        self.tokens.lock().unwrap().extend(token.map(ToOwned::to_owned));
        let resources = request.into_inner().resource_spans;
        let about = resources
            .iter()
            .filter_map(|spans| spans.resource.as_ref())
            .map(|of| attributes(&of.attributes));
        self.resources.lock().unwrap().extend(about);
        let spans = resources
            .into_iter()
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans);
        self.spans.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let resources = request.into_inner().resource_metrics;
        let metrics = resources
            .into_iter()
            .flat_map(|resource| resource.scope_metrics)
            .flat_map(|scope| scope.metrics);
        self.metrics.lock().unwrap().extend(metrics.map(|metric| metric.name));
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}
