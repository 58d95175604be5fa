//! Fixtures: a gateway over a simulated Connect, both real servers on ports that the system picks.

pub mod process;
pub mod raw;
pub mod redis;
pub mod status;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use participant_gateway::app::{App, Parts};
use participant_gateway::config::{Level, Settings, shape};
use participant_gateway::connect::StaticCredentials;
use participant_gateway::proto;
use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use participant_gateway::simulator::{self, Journal, Options, Simulator};
use participant_gateway::telemetry;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

pub type Reply = Result<Response<proto::CreateParticipantResponse>, Status>;

/// A gateway to be.
pub struct Plan {
    config: Value,
    connect: Connect,
    credentials: bool,
}

/// Which Connect a gateway goes to.
enum Connect {
    Own(Options),
    OneOf(String, Journal, DropGuardOf),
}

/// The simulator ends with the last gateway that goes to it.
type DropGuardOf = Arc<DropGuard>;

/// A gateway that serves, over a simulator of its own. Both end with it.
pub struct Fixture {
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    pub journal: Journal,
    pub running: JoinHandle<std::io::Result<()>>,
    pub endpoint_url: String,
    shutdown: CancellationToken,
    simulating: DropGuardOf,
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
    Plan { config, connect: Connect::Own(Options::default()), credentials: true }
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
    pub fn beside(mut self, other: &Fixture) -> Self {
        let simulating = Arc::clone(&other.simulating);
        self.connect =
            Connect::OneOf(other.endpoint_url.clone(), other.journal.clone(), simulating);
        self
    }

    /// Keeps claims and levels in this Redis, below a prefix of the test's own.
    pub fn on_redis(self, url: &str, prefix: &str) -> Self {
        self.with("/store/kind", "redis")
            .with("/store/redis/urls", json!([url]))
            .with("/store/redis/key_prefix", prefix)
            .with("/idempotency/root_key_file", key_file("root").display().to_string())
    }

    /// Signs with keys that the simulator does not know.
    pub fn with_wrong_keys(mut self) -> Self {
        self.credentials = false;
        self
    }

    pub async fn start(mut self) -> Fixture {
        let (endpoint_url, journal, simulating) = match self.connect {
            Connect::OneOf(endpoint_url, journal, simulating) => {
                (endpoint_url, journal, simulating)
            }
            Connect::Own(options) => {
                let simulator = Simulator::bind(([127, 0, 0, 1], 0).into(), options).await.unwrap();
                let (endpoint_url, journal) = (simulator.endpoint_url(), simulator.journal());
                let simulating = CancellationToken::new();
                tokio::spawn(simulator.run(simulating.clone().cancelled_owned()));
                (endpoint_url, journal, Arc::new(simulating.drop_guard()))
            }
        };
        if self.config.pointer("/upstreams/main/endpoint_url").is_none() {
            set(&mut self.config, "/upstreams/main/endpoint_url", endpoint_url.as_str().into());
        }
        let secret = if self.credentials { simulator::SECRET_ACCESS_KEY } else { "wrong" };
        let credentials = StaticCredentials {
            access_key_id: simulator::ACCESS_KEY_ID.to_owned(),
            secret_access_key: secret.to_owned(),
        };

        let settings = Settings::parse(&self.config.to_string(), [])
            .unwrap_or_else(|problems| panic!("{problems}"));
        let log_level = telemetry::init(shape::LogFormat::Text, Level::Error);
        let parts = Parts { settings, reload: None, credentials: Some(credentials), log_level };
        let app = App::bind(parts).await.unwrap();
        let (addr, admin) = (app.addr().unwrap(), app.admin_addr().unwrap());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(app.run(shutdown.clone().cancelled_owned()));
        until_ready(admin).await;
        Fixture { addr, admin, journal, running, endpoint_url, shutdown, simulating }
    }
}

impl Fixture {
    /// A connection of its own.
    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.addr))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub async fn client(&self) -> ParticipantServiceClient<Channel> {
        ParticipantServiceClient::new(self.channel().await)
    }

    /// One call of tenant `demo`, on a connection of its own.
    pub async fn call(&self, request: proto::CreateParticipantRequest) -> Reply {
        self.client().await.create_participant(of("demo", request)).await
    }

    /// Tells the gateway to end.
    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// The tokens that Connect has seen, an entry an attempt.
    pub fn tokens(&self) -> Vec<Option<String>> {
        self.journal
            .attempts()
            .iter()
            .map(|attempt| attempt.client_token.clone())
            .collect()
    }

    /// What the admin port answers.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        http_get(self.admin, path).await
    }

    /// Waits until Connect has seen this many attempts.
    pub async fn attempted(&self, count: u64) {
        until(|| self.journal.attempt_count() >= count).await;
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A valid request without a client token.
pub fn request(contact: &str) -> proto::CreateParticipantRequest {
    proto::CreateParticipantRequest {
        instance_id: "instance-1".to_owned(),
        contact_id: contact.to_owned(),
        client_token: String::new(),
        participant_details: Some(proto::ParticipantDetails {
            participant_role: proto::ParticipantRole::CustomBot.into(),
            display_name: "Bot".to_owned(),
            participant_capabilities: None,
        }),
    }
}

/// The same with one.
pub fn request_with_token(contact: &str, token: &str) -> proto::CreateParticipantRequest {
    proto::CreateParticipantRequest { client_token: token.to_owned(), ..request(contact) }
}

/// Duplicates: one of them ran, and all have the same answer.
pub fn are_one_call(answers: &[proto::CreateParticipantResponse]) {
    let plain = |answer: &proto::CreateParticipantResponse| proto::CreateParticipantResponse {
        replayed: false,
        ..answer.clone()
    };
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(answers.iter().all(|answer| plain(answer) == plain(&answers[0])));
}

/// A call of the tenant's.
pub fn of<T>(tenant: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-tenant-id", tenant.parse::<MetadataValue<_>>().unwrap());
    request
}

/// A file with one key, the same for everybody in this process who asks by this name.
pub fn key_file(name: &str) -> PathBuf {
    static FOLDER: LazyLock<tempfile::TempDir> =
        LazyLock::new(|| tempfile::TempDir::new().unwrap());
    let file = FOLDER.path().join(name);
    if !file.exists() {
        let fresh = FOLDER.path().join(uuid::Uuid::new_v4().to_string());
        std::fs::write(&fresh, participant_gateway::admission::keygen().unwrap().as_bytes())
            .unwrap();
        // The first one stays, whoever was faster.
        let _ = std::fs::hard_link(&fresh, &file);
    }
    file
}

/// Sets the key at a JSON pointer, and the mappings on the way.
pub fn set(value: &mut Value, pointer: &str, new: Value) {
    let mut at = value;
    for key in pointer.split('/').skip(1) {
        at = at.as_object_mut().unwrap().entry(key).or_insert_with(|| json!({}));
    }
    *at = new;
}

/// Waits for the event, and fails where it does not come.
pub async fn until(mut happened: impl FnMut() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .expect("it did not happen");
}

/// Waits until the process has taken its ports and its store into use, or said that it waits for
/// the store.
async fn until_ready(admin: SocketAddr) {
    while http_get(admin, "/readyz").await.1.starts_with("starting") {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A plain HTTP/1.1 GET: status and body.
pub async fn http_get(addr: SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
