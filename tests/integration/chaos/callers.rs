//! Callers that keep their client_token over retries, hang up, come twice, and record what they
//! get.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
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
use uuid::Uuid;

use super::house::House;
use super::ledger::{Ledger, Times};
use crate::support::{of, request_with_token};

/// One call, whichever gateway serves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    pub tenant: &'static str,
    pub upstream: &'static str,
    /// Empty: none.
    pub token: String,
    /// Names tenant, upstream, token and content: what may become one participant, and no more.
    pub content: String,
    contact: &'static str,
}

/// What became of a call.
#[derive(Debug, Clone)]
pub enum End {
    Made {
        participant_id: Uuid,
        /// A hash of it.
        participant_token: u64,
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

/// Addresses that change.
type Addresses = Vec<Arc<Mutex<Option<SocketAddr>>>>;

/// Without deadlines of its own, unlike tonic's channel.
#[derive(Clone)]
pub struct Caller {
    http: Client<HttpConnector, tonic::body::Body>,
    addresses: Addresses,
    pub ledger: Ledger,
    /// Callers above the limits call without a pause.
    pub eager: Arc<AtomicBool>,
}

/// What a caller asks for, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Habit {
    /// Above the limits of `main`; else within those of `wide`.
    pub tight: bool,
    /// The longest pause between two calls, in milliseconds.
    pub pause_ms: u64,
}

impl Caller {
    pub fn of(house: &House, ledger: Ledger) -> Self {
        let addresses = house.replicas.iter().map(|replica| Arc::clone(&replica.addr)).collect();
        let mut http = hyper_util::client::legacy::connect::HttpConnector::new();
        http.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).http2_only(true).build(http);
        Self { http, addresses, ledger, eager: Arc::default() }
    }

    /// Makes the call, at this replica unless it is down; nothing where all are.
    pub async fn call(
        &self,
        call: &Call,
        replica: usize,
        deadline: Duration,
        leaves: Option<Duration>,
    ) -> Option<End> {
        let up = |index: usize| Some((index, (*self.addresses[index].lock().unwrap())?));
        let all = self.addresses.len();
        let (replica, addr) = (0..all).find_map(|offset| up((replica + offset) % all))?;
        let origin = format!("http://{addr}").parse().unwrap();
        let mut client = ParticipantServiceClient::with_origin(self.http.clone(), origin);
        let mut message = request_with_token(call.contact, &call.token);
        call.upstream.clone_into(&mut message.instance_id);
        message
            .participant_details
            .as_mut()
            .unwrap()
            .display_name
            .clone_from(&call.content);
        let mut request = of(call.tenant, message);
        request.set_timeout(deadline);
        let times = Times { started: Instant::now(), deadline };
        let answer = tokio::time::timeout(
            leaves.unwrap_or(deadline + NEVER),
            client.create_participant(request),
        )
        .await;
        let end = match answer {
            Ok(Ok(reply)) => End::of(&reply.into_inner()),
            Ok(Err(status)) => match status.get_details_error_info() {
                Some(info) => End::Refused { code: status.code(), reason: info.reason },
                None => End::Broken,
            },
            Err(_) => End::Left,
        };
        self.ledger.book().heard(call, replica, times, &end);
        Some(end)
    }

    /// Calls until told to stop; what it does depends on the seed alone, when on the machine.
    pub async fn run(self, habit: Habit, seed: u64, stop: CancellationToken) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let begun = Instant::now();
        while !stop.is_cancelled() {
            let is_eager = habit.tight && self.eager.load(Ordering::Relaxed);
            let call = if is_eager {
                Call::fresh(["alpha", "beta"][rng.usize(..2)], "main", &mut rng)
            } else {
                Call::any(habit, &mut rng, begun.elapsed())
            };
            let tries = if call.token.is_empty() { 1 } else { rng.u32(1..4) };
            for _ in 0..tries {
                let deadline = Duration::from_millis(rng.u64(200..2_500));
                let leaves = (rng.u8(..) < 12).then(|| Duration::from_millis(rng.u64(0..100)));
                match self.call(&call, rng.usize(..3), deadline, leaves).await {
                    Some(End::Made { .. }) => break,
                    _ => tokio::time::sleep(Duration::from_millis(rng.u64(20..200))).await,
                }
            }
            let pause = Duration::from_millis(rng.u64(habit.pause_ms / 4..=habit.pause_ms));
            tokio::time::sleep(if is_eager { EAGER_PAUSE } else { pause }).await;
        }
    }
}

impl Call {
    /// A call without a token, or with one of the tokens that this period uses. Some calls have
    /// other content than their token's first.
    fn any(habit: Habit, rng: &mut fastrand::Rng, time: Duration) -> Self {
        let tenants = if habit.tight { ["alpha", "beta"] } else { ["gamma", "delta"] };
        let tenant = tenants[rng.usize(..2)];
        let upstream = match (rng.u8(..), habit.tight) {
            (0..30, _) => "odd",
            (_, true) => "main",
            (_, false) => "wide",
        };
        if rng.u8(..) < 80 && upstream != "odd" {
            return Self::fresh(tenant, upstream, rng);
        }
        // A period lasts for some calls of each caller.
        let fashion = time.as_millis() as u64 / (2 * habit.pause_ms).clamp(10, 250);
        let number = fashion + rng.u64(..4);
        let variant = u8::from(rng.u8(..) < 12);
        let contact = match upstream {
            "odd" => ODD[number as usize % ODD.len()],
            _ => ["sim-slow-60", "contact-1", "contact-2", "contact-3"][number as usize % 4],
        };
        let token = format!("token-{number}");
        let content = format!("{tenant}/{upstream}/{token}/{variant}");
        Self { tenant, upstream, content, token, contact }
    }

    /// A call that nobody has made before.
    pub fn fresh(tenant: &'static str, upstream: &'static str, rng: &mut fastrand::Rng) -> Self {
        let content = format!("{tenant}/{upstream}/none/{:016x}", rng.u64(..));
        Self { tenant, upstream, content, token: String::new(), contact: "contact-1" }
    }

    /// The same with a token of its own.
    pub fn fresh_with_token(
        tenant: &'static str,
        upstream: &'static str,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let call = Self::fresh(tenant, upstream, rng);
        Self { token: call.content.clone(), ..call }
    }
}

impl End {
    fn of(reply: &proto::CreateParticipantResponse) -> Self {
        let mut hasher = DefaultHasher::new();
        reply
            .participant_credentials
            .as_ref()
            .unwrap()
            .participant_token
            .hash(&mut hasher);
        Self::Made {
            participant_id: reply.participant_id.parse().unwrap(),
            participant_token: hasher.finish(),
            replayed: reply.replayed,
        }
    }

    pub const fn is_made(&self) -> bool {
        matches!(self, Self::Made { .. })
    }

    pub const fn is_replayed(&self) -> bool {
        matches!(self, Self::Made { replayed: true, .. })
    }

    /// In the closing line.
    pub fn word(&self) -> String {
        match self {
            Self::Made { replayed: false, .. } => "made".to_owned(),
            Self::Made { replayed: true, .. } => "replayed".to_owned(),
            Self::Refused { reason, .. } => reason.clone(),
            Self::Broken => "broken".to_owned(),
            Self::Left => "left".to_owned(),
        }
    }
}

/// A caller without an answer gives up so long after its deadline, for the run to end.
const NEVER: Duration = Duration::from_secs(60);

const EAGER_PAUSE: Duration = Duration::from_millis(40);

/// Contacts at which Connect misbehaves.
const ODD: [&str; 16] = [
    "sim-flaky-1",
    "sim-reset-1",
    "sim-slow-60",
    "sim-flaky-2",
    "sim-reset",
    "sim-internal",
    "sim-slow-400",
    "sim-garbage",
    "sim-no-token",
    "sim-quota",
    "sim-not-found",
    "sim-conflict",
    "sim-status-503",
    "sim-bad-expiry",
    "sim-nested",
    "sim-throttled",
];
