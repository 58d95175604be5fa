//! Gateways as processes of their own, over one Redis, one Connect and one collector. The links
//! between them can be cut, frozen and slowed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use participant_gateway::simulator::{self, Journal, Options, Simulator};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::links::Link;
use super::plan::Topology;
use super::servers::Servers;
use crate::support::process::{self, Running};
use crate::support::{http_get, key_file, try_http_get};
use crate::telemetry::collector::Collector;

/// Calls a second, and the burst.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub rate: f64,
    pub burst: f64,
}

pub const REPLICAS: usize = 3;

const TIGHT: Limit = Limit { rate: 12.0, burst: 9.0 };
const WIDE: Limit = Limit { rate: 6_000.0, burst: 6_000.0 };

/// The callers ask for more than `main` has. `odd` is for contacts at which Connect misbehaves.
pub const UPSTREAMS: [(&str, Limit); 3] = [("main", TIGHT), ("wide", WIDE), ("odd", WIDE)];

/// The rate of `alpha` and `beta` is less than what their callers ask for.
pub const TENANTS: [(&str, Limit); 4] = [
    ("alpha", Limit { rate: 10.0, burst: 9.0 }),
    ("beta", Limit { rate: 5.0, burst: 6.0 }),
    ("gamma", Limit { rate: 3_000.0, burst: 3_000.0 }),
    ("delta", Limit { rate: 3_000.0, burst: 3_000.0 }),
];

pub struct House {
    pub servers: tokio::sync::Mutex<Servers>,
    pub journal: Journal,
    pub replicas: Vec<Replica>,
    pub collector: Collector,
    _simulating: DropGuard,
}

/// One gateway, in one incarnation after another.
pub struct Replica {
    pub to_redis: Option<Link>,
    pub to_connect: Link,
    pub to_collector: Link,
    /// Where callers find it; nowhere while it is down.
    pub addr: Arc<Mutex<Option<SocketAddr>>>,
    admin: Mutex<SocketAddr>,
    running: tokio::sync::Mutex<Option<Running>>,
    /// Of calls, in its log.
    pub lines: AtomicU64,
    folder: TempDir,
}

impl House {
    pub async fn build(topology: Topology) -> Self {
        let servers = Servers::start(topology).await;
        // A Connect that forgets a ClientToken would make a second participant, and be right.
        let options = Options { max_participants: usize::MAX, ..Options::default() };
        let simulator = Simulator::bind(([127, 0, 0, 1], 0).into(), options).await.unwrap();
        let (connect, journal) = (simulator.addr(), simulator.journal());
        let simulating = CancellationToken::new();
        tokio::spawn(simulator.run(simulating.clone().cancelled_owned()));
        let collector = Collector::start().await;
        let mut replicas = Vec::new();
        for _ in 0..REPLICAS {
            let replica = Replica {
                to_redis: servers.link().await,
                to_connect: Link::to(connect).await,
                to_collector: Link::to(collector.addr).await,
                addr: Arc::default(),
                admin: Mutex::new(([127, 0, 0, 1], 0).into()),
                running: tokio::sync::Mutex::default(),
                lines: AtomicU64::default(),
                folder: TempDir::new().unwrap(),
            };
            let config = replica.config(&servers).to_string();
            std::fs::write(replica.folder.path().join("config.yaml"), config).unwrap();
            replica.start().await;
            replicas.push(replica);
        }
        let servers = tokio::sync::Mutex::new(servers);
        Self { servers, journal, replicas, collector, _simulating: simulating.drop_guard() }
    }

    /// The sum of a metric over all gateways.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for replica in &self.replicas {
            sum += replica.metric(name, "").await;
        }
        sum
    }
}

impl Replica {
    /// Begins an incarnation, and waits until it serves.
    pub async fn start(&self) {
        let keys = [
            ("AWS_ACCESS_KEY_ID", simulator::ACCESS_KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", simulator::SECRET_ACCESS_KEY),
        ];
        let serving = process::serve(&self.folder.path().join("config.yaml"), &keys).await;
        *self.admin.lock().unwrap() = serving.admin;
        *self.running.lock().await = Some(serving.running);
        *self.addr.lock().unwrap() = Some(serving.addr);
    }

    /// Ends it as SIGKILL does.
    pub async fn kill(&self) {
        *self.addr.lock().unwrap() = None;
        *self.running.lock().await = None;
    }

    /// Takes it out of the callers' sight, as Kubernetes does, and ends it by SIGTERM: the exit
    /// code.
    pub async fn terminate(&self) -> Option<i32> {
        *self.addr.lock().unwrap() = None;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let running = self.running.lock().await.take().unwrap();
        running.signal("TERM");
        running.end().await.0
    }

    pub async fn signal(&self, name: &str) {
        if let Some(running) = &*self.running.lock().await {
            running.signal(name);
        }
    }

    /// Reads its log, and keeps nothing of it but what tells of a panic, and how many calls there
    /// were.
    pub async fn panics(&self) -> Vec<String> {
        let mut running = self.running.lock().await;
        let mut lines = running.as_mut().map_or_else(Vec::new, Running::take);
        let calls = lines.iter().filter(|line| line.contains("\"duration\":")).count();
        self.lines.fetch_add(calls as u64, Ordering::Relaxed);
        lines.retain(|line| line.contains("panic"));
        lines
    }

    /// How many operations on Redis have failed; nothing while it is down or stopped.
    pub async fn errors_of_redis(&self) -> Option<f64> {
        (*self.addr.lock().unwrap())?;
        let admin = *self.admin.lock().unwrap();
        let asked = tokio::time::timeout(SOON, try_http_get(admin, "/metrics"));
        let (_, text) = asked.await.ok()?.ok()?;
        Some(sum(&text, "db_client_operation_duration_seconds_count", "error_type=\""))
    }

    /// The sum of a metric's series that hold this text; 0 where there is none.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let admin = *self.admin.lock().unwrap();
        let (_, text) = http_get(admin, "/metrics").await;
        sum(&text, name, label)
    }

    fn config(&self, servers: &Servers) -> Value {
        let rate = |limit: Limit| format!("{}/s", limit.rate);
        // Of `main`, by those who call it.
        let committed = |limit: Limit| if limit.rate < WIDE.rate / 2.0 { "2/s" } else { "0/s" };
        let tenants: serde_json::Map<_, _> = TENANTS
            .into_iter()
            .map(|(name, limit)| {
                let tenant = json!({
                    "instances": ["*"], "rate": rate(limit), "burst": limit.burst as u32,
                    "committed": committed(limit), "max_in_flight": 900,
                });
                (name.to_owned(), tenant)
            })
            .collect();
        let upstreams: serde_json::Map<_, _> = UPSTREAMS
            .into_iter()
            .map(|(name, limit)| {
                let upstream = json!({
                    "region": "us-east-1", "instances": [name], "rate": rate(limit),
                    "burst": limit.burst as u32, "attempt_timeout": "500ms", "max_wait": "300ms",
                    "endpoint_url": format!("http://{}", self.to_connect.addr),
                });
                (name.to_owned(), upstream)
            })
            .collect();
        json!({
            "server": { "listen": "127.0.0.1:0", "drain_timeout": "10s" },
            "admin": { "listen": "127.0.0.1:0" },
            "identity": { "mode": "header" },
            "tenants": tenants,
            "upstreams": upstreams,
            "store": {
                "kind": "redis", "replicas": REPLICAS,
                "redis": servers.config(self.to_redis.as_ref()),
            },
            "idempotency": { "root_key_file": key_file("root") },
            "telemetry": { "otlp": {
                "endpoint": format!("http://{}", self.to_collector.addr), "sample_ratio": 0.1,
            } },
        })
    }
}

/// The sum of a metric's series that hold the text.
fn sum(text: &str, name: &str, label: &str) -> f64 {
    let of_it = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(label);
    text.lines()
        .filter(of_it)
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// For a page of metrics.
const SOON: Duration = Duration::from_millis(500);
