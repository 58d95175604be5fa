//! A gateway on this thread, and what it needs on others.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use participant_gateway::app::{App, Plan};
use participant_gateway::config::{Level, Settings, shape};
use participant_gateway::connect::StaticCredentials;
use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use participant_gateway::proto::{
    CreateParticipantRequest, CreateParticipantResponse, ParticipantDetails, ParticipantRole,
};
use participant_gateway::simulator::{self, Options, Simulator};
use participant_gateway::{admission, telemetry};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::Path;
use super::redis::RedisServer;

/// Where claims and levels are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Memory,
    Redis,
}

/// What a call costs the gateway's thread, on average.
pub struct Cost {
    pub allocations: f64,
    pub bytes: f64,
    pub kept: f64,
}

/// A gateway that runs while its thread waits for callers.
pub struct House {
    runtime: Runtime,
    callers: Sender<Round>,
    /// Calls that were made, so that each may have a `client_token` of its own.
    made: Cell<u64>,
    _redis: Option<RedisServer>,
    _root_key: NamedTempFile,
}

/// Calls for the callers' thread to make, one after another.
struct Round {
    path: Path,
    first: u64,
    done: oneshot::Sender<()>,
}

impl House {
    pub fn start(store: Store) -> Self {
        let redis = (store == Store::Redis).then(RedisServer::start);
        let root_key = NamedTempFile::new().unwrap();
        std::fs::write(root_key.path(), admission::keygen().unwrap().as_bytes()).unwrap();
        let store = match &redis {
            Some(redis) => {
                json!({ "kind": "redis", "redis": { "urls": [redis.url()], "timeout": "10s" } })
            }
            None => json!({ "kind": "memory" }),
        };
        let endless = json!({ "instances": ["*"], "rate": "1000000/s", "burst": 1_000_000 });
        let config = json!({
            "server": { "listen": "127.0.0.1:0" },
            "admin": { "listen": "127.0.0.1:0" },
            "identity": { "mode": "header" },
            "tenants": {
                "endless": endless,
                "limited": { "instances": ["*"], "rate": "1/d", "burst": 1 },
            },
            "upstreams": {
                "main": {
                    "region": "us-east-1", "instances": ["*"], "endpoint_url": simulator(),
                    "rate": "1000000/s", "burst": 1_000_000, "attempt_timeout": "10s",
                },
            },
            "store": store,
            "idempotency": { "root_key_file": root_key.path() },
        });
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let addr = runtime.block_on(gateway(&config.to_string()));
        let (callers, rounds) = channel();
        thread::spawn(move || make(&rounds, addr));
        Self { runtime, callers, made: Cell::new(1), _redis: redis, _root_key: root_key }
    }

    /// The median of several rounds: now and then a table of the gateway's grows.
    pub fn cost(&self, path: Path) -> Cost {
        self.round(path);
        self.round(path);
        let mut rounds: Vec<_> = (0..ROUNDS).map(|_| self.round(path)).collect();
        let mut median = |figure: fn(&Cost) -> f64| {
            rounds.sort_by(|one, other| figure(one).total_cmp(&figure(other)));
            figure(&rounds[ROUNDS / 2])
        };
        Cost {
            allocations: median(|cost| cost.allocations),
            bytes: median(|cost| cost.bytes),
            kept: median(|cost| cost.kept),
        }
    }

    fn round(&self, path: Path) -> Cost {
        let first = self.made.replace(self.made.get() + CALLS);
        let (done, all_done) = oneshot::channel();
        let counted = allocation_counter::measure(|| {
            self.callers.send(Round { path, first, done }).unwrap();
            self.runtime.block_on(all_done).expect("the callers' thread failed");
        });
        let of_each = |all: f64| all / CALLS as f64;
        Cost {
            allocations: of_each(counted.count_total as f64),
            bytes: of_each(counted.bytes_total as f64),
            kept: of_each(counted.bytes_current as f64),
        }
    }
}

/// Starts a gateway on the runtime of the thread.
async fn gateway(config: &str) -> SocketAddr {
    let settings = Settings::parse(config, []).unwrap_or_else(|problems| panic!("{problems}"));
    let log_level = telemetry::init(shape::LogFormat::Json, Level::Info);
    let credentials = Some(StaticCredentials {
        access_key_id: simulator::ACCESS_KEY_ID.to_owned(),
        secret_access_key: simulator::SECRET_ACCESS_KEY.to_owned(),
    });
    let app = App::bind(Plan { settings, reload: None, credentials, log_level })
        .await
        .unwrap();
    let addr = app.addr().unwrap();
    tokio::spawn(app.run(std::future::pending()));
    addr
}

/// Starts a simulated Connect on a thread of its own. Returns its address.
fn simulator() -> String {
    let (bound, address) = channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let local = ([127, 0, 0, 1], 0).into();
            let simulator = Simulator::bind(local, Options::default()).await.unwrap();
            bound.send(simulator.endpoint_url()).unwrap();
            simulator.run(std::future::pending()).await.unwrap();
        });
    });
    address.recv().unwrap()
}

/// Makes the rounds' calls, on a thread of its own.
fn make(rounds: &Receiver<Round>, addr: SocketAddr) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    let channel = runtime.block_on(async { endpoint.connect_lazy() });
    let mut client = ParticipantServiceClient::new(channel);
    while let Ok(Round { path, first, done }) = rounds.recv() {
        runtime.block_on(async {
            for number in first..first + CALLS {
                let answer = call(&mut client, path, number).await;
                // The very first calls of their kind go another way.
                assert!(number < first + 2 || took(path, &answer), "{path:?}: {answer:?}");
            }
        });
        let _ = done.send(());
    }
}

async fn call(
    client: &mut ParticipantServiceClient<Channel>,
    path: Path,
    number: u64,
) -> Result<Response<CreateParticipantResponse>, Status> {
    let client_token = match path {
        Path::New | Path::Refusal => format!("token-{number:012}"),
        Path::Replay => "one-and-the-same".to_owned(),
        Path::RememberedRefusal => String::new(),
    };
    let mut request = Request::new(CreateParticipantRequest {
        instance_id: "11111111-2222-3333-4444-555555555555".to_owned(),
        contact_id: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee".to_owned(),
        client_token,
        participant_details: Some(ParticipantDetails {
            participant_role: ParticipantRole::CustomBot.into(),
            display_name: "Support Bot".to_owned(),
            participant_capabilities: None,
        }),
    });
    let tenant = match path {
        Path::New | Path::Replay => "endless",
        Path::Refusal | Path::RememberedRefusal => "limited",
    };
    request.metadata_mut().insert("x-tenant-id", tenant.parse().unwrap());
    client.create_participant(request).await
}

/// Whether this answer is of a call that took this path.
fn took(path: Path, answer: &Result<Response<CreateParticipantResponse>, Status>) -> bool {
    match (path, answer) {
        (Path::New, Ok(answer)) => !answer.get_ref().replayed,
        (Path::Replay, Ok(answer)) => answer.get_ref().replayed,
        (Path::Refusal | Path::RememberedRefusal, Err(status)) => {
            status.code() == Code::ResourceExhausted
        }
        _ => false,
    }
}

/// Calls of a round.
const CALLS: u64 = 50;

/// Rounds that count.
const ROUNDS: usize = 7;
