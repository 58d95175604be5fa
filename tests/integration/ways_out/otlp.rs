//! OTLP as OpenTelemetry's variables have it, against collectors on real sockets.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::json;

use super::authority::Authority;
use super::{call, row, serve, simulator};
use crate::support::tls::mutual_tls_before;
use crate::support::{set, until};
use crate::telemetry::collector::Collector;

/// A path, headers, and what was in the body once it was inflated.
type Post = (String, BTreeMap<String, String>, Vec<u8>);

/// A collector of OTLP over HTTP.
#[derive(Clone)]
pub struct Posted {
    pub addr: SocketAddr,
    all: Arc<Mutex<Vec<Post>>>,
}

impl Posted {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let posted = Self { addr: listener.local_addr().unwrap(), all: Arc::default() };
        let all = Arc::clone(&posted.all);
        let answer = async move |uri: http::Uri, headers: http::HeaderMap, body: Bytes| {
            let mut inflated = Vec::new();
            match headers.get("content-encoding").map(http::HeaderValue::as_bytes) {
                Some(b"gzip") => {
                    flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut inflated).unwrap();
                }
                _ => inflated.extend(body),
            }
            let headers = headers.iter().map(|(name, value)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            });
            all.lock().unwrap().push((uri.path().to_owned(), headers.collect(), inflated));
        };
        let router = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        posted
    }

    pub fn paths(&self) -> Vec<String> {
        let mut paths: Vec<_> = self.all.lock().unwrap().iter().map(|one| one.0.clone()).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// The headers of what was first posted to the path, and the names of its spans or metrics.
    fn first(&self, path: &str) -> (BTreeMap<String, String>, Vec<String>) {
        let all = self.all.lock().unwrap();
        let (_, headers, body) = all.iter().find(|one| one.0 == path).unwrap().clone();
        let names = match path {
            path if path.ends_with("metrics") => ExportMetricsServiceRequest::decode(&body[..])
                .unwrap()
                .resource_metrics
                .into_iter()
                .flat_map(|resource| resource.scope_metrics)
                .flat_map(|scope| scope.metrics)
                .map(|metric| metric.name)
                .collect(),
            _ => ExportTraceServiceRequest::decode(&body[..])
                .unwrap()
                .resource_spans
                .into_iter()
                .flat_map(|resource| resource.scope_spans)
                .flat_map(|scope| scope.spans)
                .map(|span| span.name)
                .collect(),
        };
        (headers, names)
    }
}

/// So that nothing is waited for.
const OFTEN: [(&str, &str); 3] = [
    ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
    ("OTEL_TRACES_SAMPLER", "always_on"),
];

#[tokio::test]
async fn protobuf_over_http_by_gzip_for_the_one_signal_that_has_an_endpoint() {
    let (config, _) = simulator().await;
    let posted = Posted::start().await;
    let endpoint = format!("http://{}/own/traces", posted.addr);
    let environment = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=a%20b"),
    ];
    let gateway = serve(config, &[&OFTEN[..], &environment].concat()).await;
    call(gateway.addr, "token-1").await.unwrap();
    until("it is exported", async || !posted.paths().is_empty()).await;
    let (headers, spans) = posted.first("/own/traces");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(
        (headers["content-encoding"].as_str(), headers["x-token"].as_str()),
        ("gzip", "a b")
    );
    assert!(spans.iter().any(|span| span.ends_with("CreateParticipant")), "{spans:?}");
    gateway.running.signal("TERM");
    let (code, _) = gateway.running.end().await;
    // The end of the process exports what is left, and there are no metrics in it.
    assert_eq!((code, posted.paths()), (Some(0), vec!["/own/traces".to_owned()]));
    row("only …_TRACES_ENDPOINT, http/protobuf, gzip", "traces by gzip, no metrics");
}

#[tokio::test]
async fn the_configs_endpoint_has_otlps_paths_over_http() {
    let (mut config, _) = simulator().await;
    let posted = Posted::start().await;
    let otlp =
        json!({ "endpoint": format!("http://{}", posted.addr), "protocol": "http/protobuf" });
    set(&mut config, "/telemetry", json!({ "otlp": otlp }));
    let gateway = serve(config, &OFTEN).await;
    call(gateway.addr, "token-1").await.unwrap();
    until("it is exported", async || posted.paths().len() == 2).await;
    assert_eq!(posted.paths(), ["/v1/metrics", "/v1/traces"]);
    let (headers, metrics) = posted.first("/v1/metrics");
    assert!(!headers.contains_key("content-encoding") && !metrics.is_empty());
    row("`telemetry.otlp.protocol: http/protobuf`", "/v1/traces and /v1/metrics");
}

#[tokio::test]
async fn a_signal_whose_exporter_is_none_is_not_pushed() {
    let (config, _) = simulator().await;
    for (variable, value) in [
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        let (collector, endpoint) = {
            let collector = Collector::start().await;
            let endpoint = collector.endpoint();
            (collector, endpoint)
        };
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
            (variable, value),
        ];
        let gateway = serve(config.clone(), &[&OFTEN[..], &environment].concat()).await;
        call(gateway.addr, variable).await.unwrap();
        let is_traced = variable == "OTEL_METRICS_EXPORTER";
        until("it is exported", async || {
            if is_traced { !collector.spans().is_empty() } else { !collector.metrics().is_empty() }
        })
        .await;
        gateway.running.signal("TERM");
        let _ = gateway.running.end().await;
        assert_eq!(
            (collector.spans().is_empty(), collector.metrics().is_empty()),
            (!is_traced, is_traced)
        );
        row(
            &format!("{variable}={value}"),
            if is_traced { "traces alone" } else { "metrics alone" },
        );
    }
}

#[tokio::test]
async fn a_collector_that_wants_a_certificate_is_shown_one_over_both_protocols() {
    let (config, _) = simulator().await;
    let authority = Authority::new();
    let shown = authority.client(&["spiffe://corp/gateway"]);
    let dir = tempfile::tempdir().unwrap();
    shown.write(dir.path());
    std::fs::write(dir.path().join("ca.crt"), &authority.pem).unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (ca, certificate, key) = (file("ca.crt"), file("tls.crt"), file("tls.key"));
    let (over_grpc, over_http) = (Collector::start().await, Posted::start().await);
    for (protocol, plain) in [("grpc", over_grpc.addr), ("http/protobuf", over_http.addr)] {
        let addr = mutual_tls_before(plain, &authority.server(4000), Some(&authority)).await;
        let endpoint = format!("https://localhost:{}", addr.port());
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", &ca),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &certificate),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key),
            ("OTEL_METRICS_EXPORTER", "none"),
        ];
        let gateway = serve(config.clone(), &[&OFTEN[..], &environment].concat()).await;
        call(gateway.addr, protocol).await.unwrap();
        match protocol {
            "grpc" => until("it is exported", async || !over_grpc.spans().is_empty()).await,
            _ => until("it is exported", async || over_http.paths() == ["/v1/traces"]).await,
        }
        row(&format!("CLIENT_CERTIFICATE and CLIENT_KEY, {protocol}"), "shown, and taken");
    }
}
