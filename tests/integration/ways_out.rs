//! The ways out of the process, in the field: proxies, private CAs, regions, every Redis.
//!
//! `cargo test --test integration ways_out -- --nocapture` prints what is seen of each.

mod aws;
mod aws_proxied;
mod environment;
mod key_sets;
mod network;
mod one_cpu;
mod otlp;
mod otlp_refused;
mod propagators;
mod proxy;
mod redis_iam;
mod redis_names;
mod redis_users;

pub use redis_users::{grant, password};

use std::net::SocketAddr;

use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use participant_gateway::simulator::{self, Journal, Options, Simulator};
use serde_json::{Value, json};
use tonic::transport::Endpoint;
use tonic_types::StatusExt;

use crate::identity_tls::{authority, issuer};
use crate::support::process::{self, Serving};
use crate::support::{of, request_with_token, set};

/// A row of the table that the command above prints.
fn row(tried: &str, seen: impl std::fmt::Display) {
    println!("| {tried} | {seen} |");
}

/// A simulator, and a config whose one upstream it is.
async fn simulator() -> (Value, Journal) {
    let simulator = Simulator::bind(([127, 0, 0, 1], 0).into(), Options::default()).await.unwrap();
    let (endpoint_url, journal) = (simulator.endpoint_url(), simulator.journal());
    tokio::spawn(simulator.run(std::future::pending()));
    (config(json!({ "endpoint_url": endpoint_url })), journal)
}

/// A config with one upstream, for one tenant that may do all.
fn config(upstream: Value) -> Value {
    let mut main = json!({
        "region": "us-east-1", "instances": ["*"], "rate": "1000/s", "burst": 1000, "max_attempts": 1,
    });
    for (key, value) in upstream.as_object().unwrap() {
        main[key] = value.clone();
    }
    json!({
        "identity": { "mode": "header" },
        "tenants": { "demo": { "instances": ["*"], "rate": "1000/s", "burst": 1000 } },
        "upstreams": { "main": main },
    })
}

/// Serves by the config, with the simulator's keys.
async fn serve(config: Value, environment: &[(&str, &str)]) -> Serving {
    serve_in(config, &[&KEYS[..], environment].concat()).await
}

/// Serves by the config, in this environment alone, on ports that the system picks.
async fn serve_in(mut config: Value, environment: &[(&str, &str)]) -> Serving {
    for section in ["server", "admin"] {
        let listen = format!("/{section}/listen");
        if config.pointer(&listen).is_none() {
            set(&mut config, &listen, "127.0.0.1:0".into());
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.to_string()).unwrap();
    process::serve(file.path(), environment).await
}

const KEYS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", simulator::ACCESS_KEY_ID),
    ("AWS_SECRET_ACCESS_KEY", simulator::SECRET_ACCESS_KEY),
];

/// A call of tenant `demo`: whether it was a replay, or the reason why not.
async fn call(addr: SocketAddr, token: &str) -> Result<bool, String> {
    let channel = Endpoint::from_shared(format!("http://{addr}"))
        .unwrap()
        .connect()
        .await
        .map_err(|error| error.to_string())?;
    let request = of("demo", request_with_token("contact-1", token));
    match ParticipantServiceClient::new(channel).create_participant(request).await {
        Ok(answer) => Ok(answer.into_inner().replayed),
        Err(status) => Err(status
            .get_details_error_info()
            .map_or_else(|| status.to_string(), |info| info.reason)),
    }
}

/// A call and its replay, which needs the store.
async fn call_and_replay(addr: SocketAddr, token: &str) -> Result<(), String> {
    let (first, second) = (call(addr, token).await?, call(addr, token).await?);
    if (first, second) == (false, true) { Ok(()) } else { Err(format!("{first}, {second}")) }
}

/// Problems and warnings of `check`: the exit code, and all that it printed.
fn check(config: &Value, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.to_string()).unwrap();
    let mut command = process::program();
    command
        .args(["check", "--config"])
        .arg(file.path())
        .envs(environment.iter().copied());
    let output = command.output().unwrap();
    (output.status.code(), process::printed(&output))
}
