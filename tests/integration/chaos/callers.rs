//! Callers that keep their client_token over retries, hang up, come twice, and write down what they
//! hear.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use participant_gateway::proto;
use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt;

use super::house::{House, TENANTS};
use crate::support::{of, request_with_token};

/// One call, but for who serves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    pub tenant: &'static str,
    /// Empty: none.
    pub token: String,
    /// Names tenant, token and content: what may become one participant, and no more.
    pub content: String,
    contact: &'static str,
}

/// What became of a call.
#[derive(Debug, Clone)]
pub enum End {
    Made {
        participant_id: String,
        participant_token: String,
        replayed: bool,
    },
    Refused {
        code: Code,
        reason: String,
    },
    /// The connection broke.
    Broken,
    /// The caller hung up.
    Left,
}

/// One call, as its caller saw it.
#[derive(Debug, Clone)]
pub struct Event {
    pub call: Call,
    pub replica: usize,
    pub deadline: Duration,
    pub took: Duration,
    pub end: End,
}

pub type History = Arc<Mutex<Vec<Event>>>;

/// Addresses that change.
pub type Addresses = Vec<Arc<Mutex<Option<SocketAddr>>>>;

/// Without deadlines of its own, unlike tonic's channel.
#[derive(Clone)]
pub struct Caller {
    http: Client<HttpConnector, tonic::body::Body>,
    addresses: Addresses,
    pub history: History,
}

impl Caller {
    pub fn of(house: &House) -> Self {
        let addresses = house.replicas.iter().map(|replica| Arc::clone(&replica.addr)).collect();
        let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { http, addresses, history: History::default() }
    }

    /// Makes the call, at this replica unless it is down; nothing where all are.
    pub async fn call(
        &self,
        call: &Call,
        replica: usize,
        deadline: Duration,
        leaves: Option<Duration>,
    ) -> Option<Event> {
        let up = |index: usize| Some((index, (*self.addresses[index].lock().unwrap())?));
        let all = self.addresses.len();
        let (replica, addr) = (0..all).find_map(|offset| up((replica + offset) % all))?;
        let origin = format!("http://{addr}").parse().unwrap();
        let mut client = ParticipantServiceClient::with_origin(self.http.clone(), origin);
        let mut message = request_with_token(call.contact, &call.token);
        message.instance_id.clone_from(&call.content);
        let mut request = of(call.tenant, message);
        request.set_timeout(deadline);
        let started = Instant::now();
        let answer = tokio::time::timeout(
            leaves.unwrap_or(Duration::MAX),
            client.create_participant(request),
        )
        .await;
        let end = match answer {
            Ok(Ok(reply)) => End::of(reply.into_inner()),
            Ok(Err(status)) => match status.get_details_error_info() {
                Some(info) => End::Refused { code: status.code(), reason: info.reason },
                None => End::Broken,
            },
            Err(_) => End::Left,
        };
        let event = Event { call: call.clone(), replica, deadline, took: started.elapsed(), end };
        self.history.lock().unwrap().push(event.clone());
        Some(event)
    }

    /// Calls until told to stop; what it does depends on the seed alone, when on the machine.
    pub async fn run(self, seed: u64, stop: CancellationToken) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let begun = Instant::now();
        while !stop.is_cancelled() {
            let call = Call::any(&mut rng, begun.elapsed());
            let tries = if call.token.is_empty() { 1 } else { rng.u32(1..4) };
            for _ in 0..tries {
                let deadline = Duration::from_millis(rng.u64(200..2_500));
                let leaves = (rng.u8(..) < 12).then(|| Duration::from_millis(rng.u64(0..100)));
                match self
                    .call(&call, rng.usize(..3), deadline, leaves)
                    .await
                    .map(|event| event.end)
                {
                    Some(End::Made { .. }) => break,
                    _ => tokio::time::sleep(Duration::from_millis(rng.u64(20..200))).await,
                }
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(20..80))).await;
        }
    }
}

impl Call {
    /// A call without a token, or with one of those that are in fashion at this time, some of them
    /// with content that is not the token's own.
    fn any(rng: &mut fastrand::Rng, time: Duration) -> Self {
        let tenant = TENANTS[rng.usize(..TENANTS.len())].0;
        if rng.u8(..) < 80 {
            return Self::fresh(tenant, rng);
        }
        let number = time.as_secs() * 4 + rng.u64(..4);
        let variant = u8::from(rng.u8(..) < 12);
        let contact = match number % 6 {
            0 => "sim-flaky-1",
            1 => "sim-slow-60",
            _ => "contact-1",
        };
        let token = format!("token-{number}");
        Self { tenant, content: format!("{tenant}/{token}/{variant}"), token, contact }
    }

    /// A call that nobody has made before.
    pub fn fresh(tenant: &'static str, rng: &mut fastrand::Rng) -> Self {
        let content = format!("{tenant}/none/{:016x}", rng.u64(..));
        Self { tenant, content, token: String::new(), contact: "contact-1" }
    }
}

impl End {
    fn of(reply: proto::CreateParticipantResponse) -> Self {
        Self::Made {
            participant_id: reply.participant_id,
            participant_token: reply.participant_credentials.unwrap().participant_token,
            replayed: reply.replayed,
        }
    }

    pub const fn is_made(&self) -> bool {
        matches!(self, Self::Made { .. })
    }
}
