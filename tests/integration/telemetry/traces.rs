//! One call, one connected trace; and a collector that is gone costs no call anything.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tonic::Request;

use super::collector::{Collector, Seen};
use crate::support::raw::METHOD;
use crate::support::redis::RedisServer;
use crate::support::{
    ClosedPort, Fixture, Plan, gateway, of, request, request_with_token, until_within,
};

/// The caller's own span.
const PARENT: &str = "00f067aa0ba902b7";

fn traced(plan: Plan, collector: &Collector) -> Plan {
    plan.with("/telemetry/otlp/endpoint", collector.endpoint())
        .with("/telemetry/otlp/sample_ratio", 0.0)
}

/// A call with this trace id in a sampled `traceparent`.
fn within<T>(trace_id: &str, message: T) -> Request<T> {
    let mut request = of("demo", message);
    request
        .metadata_mut()
        .insert("traceparent", format!("00-{trace_id}-{PARENT}-01").parse().unwrap());
    request
}

fn trace_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn names(spans: &[Seen]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

/// The server span, which all others hang below.
fn server(spans: &[Seen]) -> &Seen {
    let server = spans.iter().find(|span| span.kind == SpanKind::Server).unwrap();
    assert_eq!(server.parent, PARENT);
    assert_eq!(server.name, METHOD.trim_start_matches('/'));
    assert_eq!(server.attribute("rpc.system.name"), "grpc");
    assert_eq!(server.attribute("rpc.method"), server.name);
    assert_eq!(server.attribute("server.address"), "127.0.0.1");
    assert_eq!(server.attribute("network.peer.address"), "127.0.0.1");
    for other in spans.iter().filter(|span| span.id != server.id) {
        assert_eq!(
            (other.parent.as_str(), other.kind),
            (server.id.as_str(), SpanKind::Client),
            "{other:?}"
        );
    }
    server
}

/// Ends the gateway, which exports what is left.
async fn end(gateway: &mut Fixture) {
    gateway.shut_down();
    (&mut gateway.running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_call_is_one_connected_trace() {
    let (collector, redis) = (Collector::start().await, RedisServer::shared().await);
    let prefix = uuid::Uuid::new_v4().to_string();
    let mut gateway = traced(gateway(), &collector).on_redis(&redis.url(), &prefix).start().await;
    let (mut client, id) = (gateway.client().await, trace_id());
    client
        .create_participant(within(&id, request_with_token("sim-flaky-1", "token")))
        .await
        .unwrap();
    let replay = trace_id();
    client
        .create_participant(within(&replay, request_with_token("sim-flaky-1", "token")))
        .await
        .unwrap();
    end(&mut gateway).await;

    let spans = collector.trace(&id, 5).await;
    let own = server(&spans);
    assert_eq!((own.attribute("rpc.response.status_code"), own.is_error), ("OK", false));
    assert_eq!(own.attribute("server.port"), gateway.addr.port().to_string());
    let mut of_redis = names(&spans);
    of_redis.retain(|name| name.starts_with("EVALSHA"));
    // The second admit pays for the second attempt.
    assert_eq!(of_redis, ["EVALSHA admit", "EVALSHA admit", "EVALSHA settle"]);
    let admit = spans.iter().find(|span| span.name == "EVALSHA admit").unwrap();
    assert_eq!(admit.attribute("db.system.name"), "redis");
    assert_eq!(admit.attribute("db.operation.name"), "EVALSHA");
    assert_eq!(admit.attribute("db.stored_procedure.name"), "admit");

    let connect = spans.iter().find(|span| span.name == "Connect.CreateParticipant").unwrap();
    for (key, value) in [
        ("rpc.system", "aws-api"),
        ("rpc.service", "Connect"),
        ("rpc.method", "CreateParticipant"),
        ("cloud.region", "us-east-1"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(connect.attribute(key), value, "{key}");
    }
    assert!(!connect.attribute("aws.request_id").is_empty() && !connect.is_error);
    let attempts: Vec<_> = connect
        .events
        .iter()
        .map(|(name, attributes)| (name.as_str(), attributes["outcome"].as_str()))
        .collect();
    assert_eq!(attempts, [("attempt", "internal"), ("attempt", "ok")]);

    let spans = collector.trace(&replay, 2).await;
    assert_eq!(server(&spans).attribute("rpc.response.status_code"), "OK");
    assert_eq!(names(&spans).iter().filter(|name| name.starts_with("Connect")).count(), 0);
    assert!(
        collector.metrics().iter().any(|name| name == "rpc.server.call.duration"),
        "{:?}",
        collector.metrics()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_context_goes_on_to_connect() {
    let collector = Collector::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let plan = gateway()
        .with("/upstreams/main/endpoint_url", endpoint)
        .with("/upstreams/main/max_attempts", 1);
    let mut gateway = traced(plan, &collector).start().await;
    let (mut client, id) = (gateway.client().await, trace_id());
    let call = tokio::spawn({
        let id = id.clone();
        async move { client.create_participant(within(&id, request("contact-1"))).await }
    });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = vec![0; 16 * 1024];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
    drop(stream);
    call.await.unwrap().unwrap_err();
    end(&mut gateway).await;

    let spans = collector.trace(&id, 2).await;
    let own = server(&spans);
    assert_eq!((own.attribute("error.type"), own.is_error), ("INTERNAL", true), "{own:?}");
    let connect = spans.iter().find(|span| span.name == "Connect.CreateParticipant").unwrap();
    assert_eq!((connect.attribute("error.type"), connect.is_error), ("unreachable", true));
    assert!(head.contains(&format!("traceparent: 00-{id}-{}-01\r\n", connect.id)), "{head}");
    let signed = head.lines().find(|line| line.starts_with("authorization:")).unwrap();
    assert!(signed.contains("traceparent"), "not under the signature: {signed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_joined_duplicates_have_a_span_of_their_own() {
    let collector = Collector::start().await;
    let mut gateway = traced(gateway(), &collector).start().await;
    let (mut client, refused, first, joined) =
        (gateway.client().await, trace_id(), trace_id(), trace_id());
    client.create_participant(within(&refused, request(""))).await.unwrap_err();
    let mut leader = gateway.client().await;
    let leading = tokio::spawn({
        let first = first.clone();
        async move {
            leader
                .create_participant(within(&first, request_with_token("sim-slow-300", "token")))
                .await
        }
    });
    gateway.attempted(1).await;
    client
        .create_participant(within(&joined, request_with_token("sim-slow-300", "token")))
        .await
        .unwrap();
    leading.await.unwrap().unwrap();
    // Not sampled: nobody asked for it, and the ratio is 0.
    client.create_participant(of("demo", request("contact-1"))).await.unwrap();
    let channel = gateway.channel().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    health
        .check(within(&trace_id(), tonic_health::pb::HealthCheckRequest::default()))
        .await
        .unwrap();
    end(&mut gateway).await;

    let spans = collector.trace(&refused, 1).await;
    let own = server(&spans);
    // The caller's fault, and so no error of this span's.
    assert_eq!(
        (own.attribute("rpc.response.status_code"), own.is_error),
        ("INVALID_ARGUMENT", false)
    );
    assert_eq!(spans.len(), 1);
    assert_eq!(collector.trace(&first, 2).await.len(), 2);
    let spans = collector.trace(&joined, 1).await;
    assert_eq!(names(&spans), [server(&spans).name.as_str()]);
    assert_eq!(collector.spans().len(), 4, "{:#?}", collector.spans());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_gone_costs_no_call_anything() {
    // Frozen: it accepts, and never answers.
    let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let down = ClosedPort::new();
    let (frozen_at, down_at) = (frozen.local_addr().unwrap(), down.addr());
    for addr in [frozen_at, down_at] {
        let mut gateway = gateway()
            .with("/telemetry/otlp/endpoint", format!("http://{addr}"))
            .with("/telemetry/otlp/sample_ratio", 1.0)
            .start()
            .await;
        let mut client = gateway.client().await;
        client.create_participant(of("demo", request("contact-1"))).await.unwrap();
        // More than a batch, so that an export is under way.
        for _ in 0..300 {
            let started = Instant::now();
            client.create_participant(of("demo", request("contact-1"))).await.unwrap();
            assert!(started.elapsed() < Duration::from_secs(1), "a call waited for the collector");
        }
        if addr == down_at {
            until_within(Duration::from_secs(15), "what was dropped is counted", async || {
                let series = super::series(&gateway).await;
                series["participant_gateway_telemetry_dropped_total"] >= 1.0
            })
            .await;
        }
        let started = Instant::now();
        end(&mut gateway).await;
        assert!(started.elapsed() < Duration::from_secs(5), "the end took {:?}", started.elapsed());
    }
    drop(frozen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_switches_export_on_and_says_how() {
    let collector = Collector::start().await;
    let mut gateway = gateway()
        .serve_in(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint()),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-token=secret"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=mine"),
            ("OTEL_TRACES_SAMPLER", "always_on"),
        ])
        .await;
    gateway.call(request("")).await.unwrap_err();
    let line: serde_json::Value =
        serde_json::from_str(&gateway.running.line_with("INVALID_ARGUMENT").await).unwrap();
    gateway.running.signal("TERM");
    let (code, _) = gateway.running.end().await;
    assert_eq!(code, Some(0));

    let spans = collector.spans();
    assert_eq!(spans.len(), 1);
    assert_eq!(
        (line["trace_id"].as_str(), line["span_id"].as_str()),
        (Some(&*spans[0].trace_id), Some(&*spans[0].id))
    );
    assert_eq!(collector.tokens(), ["secret"]);
    let resource = &collector.resources()[0];
    assert_eq!(resource["service.name"], "mine");
    assert_eq!(resource["deployment.environment.name"], "test");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
}
