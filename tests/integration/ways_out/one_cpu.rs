//! A gateway that has one CPU: one thread serves, exports and drains.

use serde_json::json;

use super::otlp::Posted;
use super::{KEYS, call_and_replay, row, simulator};
use crate::support::process::{program_on_one_cpu, serve_by};
use crate::support::redis::RedisServer;
use crate::telemetry::collector::Collector;

/// The exporters' next turn is far away, so what arrives is what the end of the process sends.
#[tokio::test]
async fn a_gateway_on_one_cpu_serves_and_exports_the_rest_when_it_ends() {
    let (mut config, _) = simulator().await;
    let redis = RedisServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (root, file) = (folder.path().join("root"), folder.path().join("config.yaml"));
    std::fs::write(&root, participant_gateway::admission::keygen().unwrap().as_bytes()).unwrap();
    for section in ["server", "admin"] {
        config[section] = json!({ "listen": "127.0.0.1:0" });
    }
    config["store"] = json!({ "kind": "redis", "redis": { "urls": [redis.url()] } });
    config["idempotency"] = json!({ "root_key_file": root });
    std::fs::write(&file, config.to_string()).unwrap();
    let (over_grpc, over_http) = (Collector::start().await, Posted::start().await);
    for (protocol, addr) in [("grpc", over_grpc.addr), ("http/protobuf", over_http.addr)] {
        let endpoint = format!("http://{addr}");
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_TRACES_SAMPLER", "always_on"),
            ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "600000"),
        ];
        let environment = [&KEYS[..], &environment].concat();
        let gateway = serve_by(program_on_one_cpu(), &file, &environment).await;
        call_and_replay(gateway.addr, protocol).await.unwrap();
        gateway.running.signal("TERM");
        let (code, lines) = gateway.running.end().await;
        assert_eq!(code, Some(0), "{lines:#?}");
        match protocol {
            "grpc" => assert!(!over_grpc.spans().is_empty() && !over_grpc.metrics().is_empty()),
            _ => assert_eq!(over_http.paths(), ["/v1/metrics", "/v1/traces"]),
        }
        row(&format!("one CPU, {protocol}"), "served, drained, and exported to the end");
    }
}
