//! `/metrics` as OpenMetrics, read by Prometheus itself.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::process::{Running, tool};
use crate::support::{Fixture, gateway, http_get, of, request, until};

async fn scrape(gateway: &Fixture, accept: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(gateway.admin).await.unwrap();
    let head = format!(
        "GET /metrics HTTP/1.1\r\nhost: gateway\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
    (kind.to_owned(), body.to_owned())
}

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0";

/// A call with a trace that its caller samples.
async fn traced(gateway: &Fixture) {
    let mut call = of("demo", request("contact-1"));
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01").parse().unwrap();
    call.metadata_mut().insert("traceparent", parent);
    gateway.client().await.create_participant(call).await.unwrap();
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Series to values, without exemplars; figures that differ from scrape to scrape are left out.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let parsed = lines.map(|line| {
        let plain = line.split(" # ").next().unwrap();
        let (name, value) = plain.rsplit_once(' ').unwrap();
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let mut labels: Vec<_> = labels.trim_end_matches('}').split("\",").collect();
        labels.iter_mut().for_each(|label| *label = label.trim_end_matches('"'));
        // OpenMetrics writes whole bounds with a decimal.
        let mut labels: Vec<_> = labels.iter().map(|label| label.trim_end_matches(".0")).collect();
        labels.sort_unstable();
        (format!("{name} {labels:?}"), value.parse().unwrap())
    });
    let is_steady = |name: &str| !name.starts_with("process_") && !name.contains("alive_tasks");
    parsed.filter(|(name, _)| is_steady(name)).collect()
}

#[tokio::test]
async fn both_formats_tell_the_same_and_openmetrics_the_trace_besides() {
    let gateway = gateway().start().await;
    traced(&gateway).await;
    gateway.call(request("sim-not-found")).await.unwrap_err();
    gateway.call(request("sim-internal")).await.unwrap_err();
    let (kind, plain) = scrape(&gateway, "*/*").await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let (kind, open) = scrape(&gateway, OPENMETRICS).await;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.ends_with("# EOF\n"));
    let (plain, told) = (series(&plain), series(&open));
    assert!(plain.len() > 100, "{}", plain.len());
    for (name, value) in &plain {
        let other = told.get(name).unwrap_or_else(|| panic!("{name} is not in:\n{open}"));
        assert!((value - other).abs() < 1e-9, "{name}: {value} and {other}");
    }
    assert_eq!(plain.len(), told.len());
    let exemplars: Vec<_> = open.lines().filter(|line| line.contains(" # {")).collect();
    let [exemplar] = exemplars[..] else { panic!("{exemplars:#?}") };
    assert!(exemplar.starts_with("rpc_server_call_duration_seconds_bucket{"), "{exemplar}");
    assert!(exemplar.contains(&format!("# {{trace_id=\"{TRACE}\"}} ")), "{exemplar}");
}

#[tokio::test]
async fn prometheus_scrapes_the_exemplars() {
    let Some(mut prometheus) = tool("../prometheus/usr/bin/prometheus") else { return };
    let gateway = gateway().start().await;
    traced(&gateway).await;
    let folder = tempfile::TempDir::new().unwrap();
    let config = folder.path().join("prometheus.yml");
    let targets = gateway.admin;
    std::fs::write(
        &config,
        format!("global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: gateway, static_configs: [{{targets: ['{targets}']}}]}}]\n"),
    )
    .unwrap();
    // Its log goes to standard error; the tests' reader has standard output.
    let port = crate::support::redis::free_port();
    prometheus.args(["--enable-feature=exemplar-storage"]);
    prometheus.arg(format!("--config.file={}", config.display()));
    prometheus.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    prometheus.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    prometheus.arg("--log.level=error");
    let _running = Running::start(prometheus);
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    until("Prometheus answers", async || tokio::net::TcpStream::connect(address).await.is_ok())
        .await;
    let ask = async |path: &str| -> Value {
        let (_, body) = http_get(address, path).await;
        // A long answer comes in chunks.
        let json = body.split('{').collect::<Vec<_>>().join("{");
        let (start, end) = (json.find('{').unwrap_or(0), json.rfind('}').map_or(0, |end| end + 1));
        serde_json::from_str(&json[start..end]).unwrap_or(Value::Null)
    };
    let query = "/api/v1/query_exemplars?query=rpc_server_call_duration_seconds_bucket&start=0&end=9999999999";
    until("Prometheus has the exemplar", async || ask(query).await.to_string().contains(TRACE))
        .await;
    let up = ask("/api/v1/query?query=up").await;
    assert_eq!(up["data"]["result"][0]["value"][1], "1", "{up}");
}
