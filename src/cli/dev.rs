//! `dev` and `simulate`: the gateway and a simulated Amazon Connect on a laptop.
#![cfg(feature = "simulator")]

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use participant_gateway::app::{App, Plan};
use participant_gateway::config::{Level, Settings, Share, shape};
use participant_gateway::connect::StaticCredentials;
use participant_gateway::simulator::{Options, Simulator, Throttle, reachable};
use participant_gateway::telemetry;
use tokio_util::sync::CancellationToken;

use super::{Failure, print, shutdown};

/// Serve with nothing installed.
#[derive(Debug, Args)]
pub struct Dev {
    /// The address of the gRPC port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// The address of the admin port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    admin_listen: SocketAddr,
    /// A Redis to keep claims and limits in; absent: this process's memory
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

/// Serve the simulated Amazon Connect by itself.
#[derive(Debug, Args)]
pub struct Simulate {
    /// The address of the simulator
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Throttle like an account with this quota; absent: never
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<Share>,
    /// The burst of that quota
    #[arg(long, default_value_t = 5, requires = "rate", value_parser = clap::value_parser!(u32).range(1..))]
    burst: u32,
    /// The delay of every answer
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = humantime::parse_duration)]
    latency: Duration,
}

impl Dev {
    /// Serves until a signal.
    pub async fn run(self) -> Result<(), Failure> {
        let log_level = telemetry::init(shape::LogFormat::Text, Level::Info);
        let shutdown = shutdown()?;
        let simulator = Simulator::bind(([127, 0, 0, 1], 0).into(), Options::default()).await?;
        let settings = self.settings(&simulator.endpoint_url())?;
        let credentials = Some(StaticCredentials {
            access_key_id: simulator.access_key_id().to_owned(),
            secret_access_key: simulator.secret_access_key().to_owned(),
        });
        let app = App::bind(Plan { settings, reload: None, credentials, log_level }).await?;
        print(greeting(app.addr()?, app.admin_addr()?, &simulator))?;

        let stopped = CancellationToken::new();
        let simulating = tokio::spawn(simulator.run(stopped.clone().cancelled_owned()));
        app.run(shutdown).await?;
        stopped.cancel();
        let _ = simulating.await;
        Ok(())
    }

    fn settings(&self, endpoint_url: &str) -> Result<Settings, Failure> {
        let config = serde_json::json!({
            "server": { "listen": self.listen },
            "admin": { "listen": self.admin_listen },
            "identity": { "mode": "header" },
            "tenants": { "demo": { "instances": ["*"], "rate": "50/s", "burst": 100 } },
            "upstreams": {
                "simulator": {
                    "region": "us-east-1",
                    "instances": ["*"],
                    "endpoint_url": endpoint_url,
                    "rate": "50/s",
                    "burst": 100,
                },
            },
            "store": match &self.redis {
                Some(url) => serde_json::json!({ "kind": "redis", "redis": { "urls": [url] } }),
                None => serde_json::json!({ "kind": "memory" }),
            },
            "telemetry": { "log": { "format": "text" } },
        });
        Ok(Settings::for_development(&config.to_string())?)
    }
}

impl Simulate {
    /// Serves until a signal.
    pub async fn run(self) -> Result<(), Failure> {
        let _ = telemetry::init(shape::LogFormat::Text, Level::Info);
        let shutdown = shutdown()?;
        let burst = f64::from(self.burst);
        let throttle = self
            .rate
            .map(|rate| Throttle { rate_per_second: rate.get().per_second(), burst });
        let options = Options { latency: self.latency, throttle, ..Options::default() };
        let simulator = Simulator::bind(self.listen, options).await.map_err(|error| {
            std::io::Error::new(error.kind(), format!("cannot listen on {}: {error}", self.listen))
        })?;
        print(simulator.exports())?;
        Ok(simulator.run(shutdown).await?)
    }
}

fn rate(text: &str) -> Result<Share, String> {
    let rate = Share::parse(text).filter(|rate| rate.get().per_second() > 0.0);
    rate.ok_or_else(|| "expected a rate above zero, such as 2/s or 30/m".to_owned())
}

/// The text for the first calls. Every line works when it is pasted into a shell.
fn greeting(address: SocketAddr, admin: SocketAddr, simulator: &Simulator) -> String {
    let (address, admin) = (reachable(address), reachable(admin));
    let exports = simulator.exports();
    let method = "participantgateway.v1.ParticipantService/CreateParticipant";
    let call = |contact: &str, token: &str| {
        let details = r#""participant_details": {"participant_role": "PARTICIPANT_ROLE_CUSTOM_BOT", "display_name": "Bot"}"#;
        let request = format!(
            r#"{{"instance_id": "demo", "contact_id": "{contact}", "client_token": "{token}", {details}}}"#
        );
        format!("grpcurl -plaintext -H 'x-tenant-id: demo' -d '{request}' {address} {method}")
    };
    format!(
        "\
# The console: http://{admin}/

# Amazon Connect is simulated here. For other AWS clients:
{exports}

# What is served:
grpcurl -plaintext {address} list
grpcurl -plaintext {address} describe participantgateway.v1.ParticipantService

# A participant:
{participant}

# An error, with its details; other contacts that misbehave: sim-invalid, sim-not-found, sim-quota, sim-slow-2000, …
{throttled}

# For operators:
curl http://{admin}/readyz
",
        participant = call("contact-1", "token-1"),
        throttled = call("sim-throttled", "token-2"),
    )
}
