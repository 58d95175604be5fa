//! Three gateways as processes of their own, over one Redis and one Connect, each with links of its
//! own to both.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use participant_gateway::simulator::{self, Journal, Options, Simulator};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::links::Link;
use crate::support::process::{self, Running};
use crate::support::redis::RedisServer;
use crate::support::{http_get, key_file};

/// The limits of the run: calls a second, and the burst.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub rate: f64,
    pub burst: f64,
}

pub const REPLICAS: usize = 3;
pub const BUDGET: Limit = Limit { rate: 12.0, burst: 8.0 };
pub const TENANTS: [(&str, Limit); 2] =
    [("alpha", Limit { rate: 10.0, burst: 10.0 }), ("beta", Limit { rate: 5.0, burst: 5.0 })];

pub struct House {
    pub redis: RedisServer,
    pub journal: Journal,
    pub replicas: Vec<Replica>,
    _simulating: DropGuard,
}

/// One gateway, in one incarnation after another.
pub struct Replica {
    pub to_redis: Link,
    pub to_connect: Link,
    /// Where callers find it; nowhere while it is down.
    pub addr: Arc<Mutex<Option<SocketAddr>>>,
    pub admin: SocketAddr,
    running: Option<Running>,
    folder: TempDir,
}

impl House {
    pub async fn build() -> Self {
        let redis = RedisServer::start().await;
        let simulator =
            Simulator::bind(([127, 0, 0, 1], 0).into(), Options::default()).await.unwrap();
        let (connect, journal) = (simulator.addr(), simulator.journal());
        let simulating = CancellationToken::new();
        tokio::spawn(simulator.run(simulating.clone().cancelled_owned()));
        let mut replicas = Vec::new();
        for _ in 0..REPLICAS {
            let to_redis = Link::to(([127, 0, 0, 1], redis.port()).into()).await;
            let to_connect = Link::to(connect).await;
            let folder = TempDir::new().unwrap();
            std::fs::write(
                folder.path().join("config.yaml"),
                config(&to_redis, &to_connect).to_string(),
            )
            .unwrap();
            let nowhere = ([127, 0, 0, 1], 0).into();
            let mut replica = Replica {
                to_redis,
                to_connect,
                addr: Arc::default(),
                admin: nowhere,
                running: None,
                folder,
            };
            replica.start().await;
            replicas.push(replica);
        }
        Self { redis, journal, replicas, _simulating: simulating.drop_guard() }
    }
}

impl Replica {
    /// Begins an incarnation, and waits until it serves.
    pub async fn start(&mut self) {
        let keys = [
            ("AWS_ACCESS_KEY_ID", simulator::ACCESS_KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", simulator::SECRET_ACCESS_KEY),
        ];
        let serving = process::serve(&self.folder.path().join("config.yaml"), &keys).await;
        self.admin = serving.admin;
        *self.addr.lock().unwrap() = Some(serving.addr);
        self.running = Some(serving.running);
    }

    /// Ends it as SIGKILL does.
    pub fn kill(&mut self) {
        *self.addr.lock().unwrap() = None;
        self.running = None;
    }

    /// Takes it out of the callers' sight, as Kubernetes does, and ends it by SIGTERM: the exit
    /// code.
    pub async fn terminate(&mut self) -> Option<i32> {
        *self.addr.lock().unwrap() = None;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let running = self.running.take().unwrap();
        running.signal("TERM");
        running.end().await.0
    }

    /// The sum of a metric's series that hold this text; 0 where there is none.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let (_, text) = http_get(self.admin, "/metrics").await;
        let of_it =
            |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(label);
        text.lines()
            .filter(of_it)
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }
}

fn config(to_redis: &Link, to_connect: &Link) -> Value {
    let rate = |limit: Limit| format!("{}/s", limit.rate);
    let tenants: serde_json::Map<_, _> = TENANTS
        .into_iter()
        .map(|(name, limit)| {
            let tenant = json!({
                "instances": ["*"], "rate": rate(limit), "burst": limit.burst as u32, "committed": "2/s",
            });
            (name.to_owned(), tenant)
        })
        .collect();
    json!({
        "server": { "listen": "127.0.0.1:0", "drain_timeout": "10s" },
        "admin": { "listen": "127.0.0.1:0" },
        "identity": { "mode": "header" },
        "tenants": tenants,
        "upstreams": { "main": {
            "region": "us-east-1", "instances": ["*"], "rate": rate(BUDGET), "burst": BUDGET.burst as u32,
            "endpoint_url": format!("http://{}", to_connect.addr), "attempt_timeout": "500ms", "max_wait": "300ms",
        } },
        "store": { "kind": "redis", "replicas": REPLICAS, "redis": { "urls": [format!("redis://{}", to_redis.addr)] } },
        "idempotency": { "root_key_file": key_file("root") },
    })
}
