//! A gateway over a simulated Connect: in this process, or as a process of its own.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use participant_gateway::admission::redis::Layout;
use participant_gateway::app::{self, App};
use participant_gateway::config::{Level, Settings, Store, shape};
use participant_gateway::connect::StaticCredentials;
use participant_gateway::proto;
use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use participant_gateway::proto::quota_service_client::QuotaServiceClient;
use participant_gateway::simulator::{self, Journal, Options, Simulator};
use participant_gateway::telemetry;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};

use super::process::{self, Running};
use super::redis::RedisServer;
use super::{Reply, http_get, key_file, of, set, until};

/// A gateway to be.
pub struct Plan {
    config: Value,
    connect: Connect,
    secret: &'static str,
    layout: Layout,
}

/// Which Connect a gateway goes to.
enum Connect {
    Own(Options),
    OneOf(Simulated),
}

/// A Connect, which ends with the last gateway that goes to it.
#[derive(Clone)]
struct Simulated {
    endpoint_url: String,
    journal: Journal,
    _running: Arc<DropGuard>,
}

/// A gateway from outside: where it listens, and what Connect has seen of it.
pub struct Front {
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    pub journal: Journal,
    connect: Simulated,
}

/// A gateway in this process; it ends with the test.
pub struct Fixture {
    front: Front,
    pub running: JoinHandle<std::io::Result<()>>,
    shutdown: CancellationToken,
}

/// A gateway as a process of its own; it ends with the test.
pub struct Child {
    front: Front,
    pub running: Running,
    config: NamedTempFile,
}

/// A gateway with tenant `demo` for any instance, over a simulator without quirks.
pub fn gateway() -> Plan {
    let config = json!({
        "server": { "listen": "127.0.0.1:0" },
        "admin": { "listen": "127.0.0.1:0" },
        "identity": { "mode": "header" },
        "tenants": { "demo": { "instances": ["*"], "rate": "1000/s", "burst": 1000, "max_in_flight": 1000 } },
        "upstreams": {
            "main": { "region": "us-east-1", "instances": ["*"], "rate": "1000/s", "burst": 1000 },
        },
    });
    Plan {
        config,
        connect: Connect::Own(Options::default()),
        secret: simulator::SECRET_ACCESS_KEY,
        layout: Layout::Current,
    }
}

impl Plan {
    /// Sets the config's key at this JSON pointer.
    pub fn with(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        set(&mut self.config, pointer, value.into());
        self
    }

    /// Changes how Connect behaves.
    pub fn over(mut self, simulator: Options) -> Self {
        self.connect = Connect::Own(simulator);
        self
    }

    /// Goes to the same Connect as the other gateway.
    pub fn beside(mut self, other: &Front) -> Self {
        self.connect = Connect::OneOf(other.connect.clone());
        self
    }

    /// Keeps claims and levels in this Redis, below a prefix of the test's own.
    pub fn on_redis(self, url: &str, prefix: &str) -> Self {
        self.with("/store/kind", "redis")
            .with("/store/redis/urls", json!([url]))
            .with("/store/redis/key_prefix", prefix)
            .with("/idempotency/root_key_file", key_file("root").display().to_string())
    }

    /// However loaded the machine is, Redis counts as lost only where it is.
    pub fn patient(self) -> Self {
        self.with("/store/redis/timeout", "5s")
    }

    /// Signs with keys that the simulator does not know.
    pub fn with_wrong_keys(mut self) -> Self {
        self.secret = "wrong";
        self
    }

    /// Is of a release that knows these layouts of what is in Redis.
    pub fn of_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Writes the config to this file.
    pub fn write(&self, file: &Path) {
        std::fs::write(file, self.config.to_string()).unwrap();
    }

    /// Runs it in this process.
    pub async fn start(mut self) -> Fixture {
        let connect = self.connect_to().await;
        let credentials = StaticCredentials {
            access_key_id: simulator::ACCESS_KEY_ID.to_owned(),
            secret_access_key: self.secret.to_owned(),
        };
        let mut settings = Settings::parse(&self.config.to_string(), [])
            .unwrap_or_else(|problems| panic!("{problems}"));
        if let Store::Redis { settings: redis, .. } = &mut settings.store {
            redis.layout = self.layout;
        }
        let log_level = telemetry::init(shape::LogFormat::Text, Level::Error);
        let plan = app::Plan { settings, reload: None, credentials: Some(credentials), log_level };
        let app = App::bind(plan).await.unwrap();
        let (addr, admin) = (app.addr().unwrap(), app.admin_addr().unwrap());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(app.run(shutdown.clone().cancelled_owned()));
        // It has taken its ports and its store into use, or says that it waits for the store.
        until("it has started", async || {
            !http_get(admin, "/readyz").await.1.starts_with("starting")
        })
        .await;
        Fixture { front: Front::new(addr, admin, connect), running, shutdown }
    }

    /// Runs it as a process of its own.
    pub async fn serve(self) -> Child {
        self.serve_in(&[]).await
    }

    /// The same, with more in its environment.
    pub async fn serve_in(self, environment: &[(&str, &str)]) -> Child {
        self.serve_by(process::program(), environment).await
    }

    /// The same, by a command that starts the program with the arguments that follow.
    pub async fn serve_by(
        mut self,
        command: std::process::Command,
        environment: &[(&str, &str)],
    ) -> Child {
        let connect = self.connect_to().await;
        let file = NamedTempFile::new().unwrap();
        self.write(file.path());
        let keys = [
            ("AWS_ACCESS_KEY_ID", simulator::ACCESS_KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", self.secret),
        ];
        let environment = [&keys[..], environment].concat();
        let serving = process::serve_by(command, file.path(), &environment).await;
        let front = Front::new(serving.addr, serving.admin, connect);
        Child { front, running: serving.running, config: file }
    }

    /// Its Connect, which it goes to unless its config names another.
    async fn connect_to(&mut self) -> Simulated {
        let connect = match std::mem::replace(&mut self.connect, Connect::Own(Options::default())) {
            Connect::OneOf(connect) => connect,
            Connect::Own(options) => Simulated::start(options).await,
        };
        if self.config.pointer("/upstreams/main/endpoint_url").is_none() {
            let url = connect.endpoint_url.as_str().into();
            set(&mut self.config, "/upstreams/main/endpoint_url", url);
        }
        connect
    }
}

impl Simulated {
    async fn start(options: Options) -> Self {
        let simulator = Simulator::bind(([127, 0, 0, 1], 0).into(), options).await.unwrap();
        let (endpoint_url, journal) = (simulator.endpoint_url(), simulator.journal());
        let running = CancellationToken::new();
        tokio::spawn(simulator.run(running.clone().cancelled_owned()));
        Self { endpoint_url, journal, _running: Arc::new(running.drop_guard()) }
    }
}

impl Front {
    fn new(addr: SocketAddr, admin: SocketAddr, connect: Simulated) -> Self {
        Self { addr, admin, journal: connect.journal.clone(), connect }
    }

    /// A connection of its own.
    pub async fn channel(&self) -> Channel {
        channel(self.addr).await
    }

    pub async fn client(&self) -> ParticipantServiceClient<Channel> {
        client(self.addr).await
    }

    /// One call of tenant `demo`, on a connection of its own.
    pub async fn call(&self, request: proto::CreateParticipantRequest) -> Reply {
        self.client().await.create_participant(of("demo", request)).await
    }

    /// The tokens that Connect has seen, an entry an attempt.
    pub fn tokens(&self) -> Vec<Option<String>> {
        self.journal
            .attempts()
            .iter()
            .map(|attempt| attempt.client_token.clone())
            .collect()
    }

    /// The quota of tenant `demo`.
    pub async fn quota(&self) -> proto::GetQuotaResponse {
        let request = proto::GetQuotaRequest { instance_id: "instance-1".to_owned() };
        let mut client = QuotaServiceClient::new(self.channel().await);
        client.get_quota(of("demo", request)).await.unwrap().into_inner()
    }

    /// What the admin port answers.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        http_get(self.admin, path).await
    }

    /// Waits until this line stands in `/metrics`.
    pub async fn metric_is(&self, line: &str) {
        until(line, async || self.admin("/metrics").await.1.lines().any(|shown| shown == line))
            .await;
    }

    /// Waits until Connect has seen this many attempts.
    pub async fn attempted(&self, count: u64) {
        until("attempts at Connect", async || self.journal.attempt_count() >= count).await;
    }
}

impl Fixture {
    /// Tells the gateway to end.
    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }
}

impl Child {
    /// The file that it serves by.
    pub fn config(&self) -> &Path {
        self.config.path()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Deref for Fixture {
    type Target = Front;

    fn deref(&self) -> &Front {
        &self.front
    }
}

impl Deref for Child {
    type Target = Front;

    fn deref(&self) -> &Front {
        &self.front
    }
}

/// A gateway over each store, and the Redis of the second one.
pub async fn over_both_stores(plan: impl Fn() -> Plan) -> Vec<(Fixture, Option<Arc<RedisServer>>)> {
    let server = RedisServer::shared().await;
    let prefix = uuid::Uuid::new_v4().to_string();
    let (memory, redis) = (plan(), plan().on_redis(&server.url(), &prefix).patient());
    vec![(memory.start().await, None), (redis.start().await, Some(server))]
}

/// A connection of its own to a gateway at this address.
pub async fn channel(addr: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{addr}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

pub async fn client(addr: SocketAddr) -> ParticipantServiceClient<Channel> {
    ParticipantServiceClient::new(channel(addr).await)
}
