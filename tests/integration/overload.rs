//! What overload, hang-ups, a stalled Redis and ends of gateways may not break, seen by callers.
//! `make limits` prints each promise with what is seen now.
//!
//! The bounds hold on a machine that does other things, too: where time decides, a promise of
//! seconds is tested by seconds, and one of a share by a share with some slack.

mod answers;
mod ends;
mod hints;
mod queue;
mod remembered;
mod shadow;
mod stalled;

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use participant_gateway::proto;
use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use participant_gateway::proto::quota_service_client::QuotaServiceClient;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::redis::RedisServer;
use crate::support::status::seen;
use crate::support::{Fixture, Front, Plan, Reply, of};

/// Prints a promise, what is seen of it now, and what was tried.
pub fn row(promise: &str, tried: &str, seen: impl Display) {
    println!("row: {promise}: {seen} [{tried}]");
}

/// Runs a scenario in which the pace decides, alone among its like.
async fn paced(scenario: impl AsyncFn()) {
    static ALONE: Mutex<()> = Mutex::const_new(());
    let _alone = ALONE.lock().await;
    repeated(scenario).await;
}

/// Runs a scenario in which time decides: anew where it fails while the machine had nothing to
/// spare, since then it has shown nothing.
async fn repeated(scenario: impl AsyncFn()) {
    for _ in 0..3 {
        let (begun, before) = (Instant::now(), idle());
        let Err(failure) = AssertUnwindSafe(scenario()).catch_unwind().await else { return };
        let spare = (idle() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        if spare > LEAST_SPARE {
            resume_unwind(failure);
        }
        println!("once more: {spare:.2} of a core was idle");
    }
    scenario().await;
}

/// How long the cores of this machine have had nothing to do: the fourth figure of /proc/stat, in
/// ticks of 10 ms (proc(5)).
pub fn idle() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    Duration::from_millis(10 * stat.split_whitespace().nth(4).unwrap().parse::<u64>().unwrap())
}

/// The plan over a Redis that counts as lost only where it is, however busy the machine.
async fn over_redis(plan: Plan) -> (Fixture, Arc<RedisServer>) {
    let server = RedisServer::shared().await;
    let prefix = uuid::Uuid::new_v4().to_string();
    let gateway = plan.on_redis(&server.url(), &prefix).with("/store/redis/timeout", "5s");
    (gateway.start().await, server)
}

/// A tenant that only the upstream's budget limits, unless these figures do.
fn tenant(figures: &Value) -> Value {
    let mut tenant = json!({
        "instances": ["*"], "rate": "1000/s", "burst": 1000, "max_in_flight": 1000,
    });
    tenant.as_object_mut().unwrap().extend(figures.as_object().unwrap().clone());
    tenant
}

type Client = ParticipantServiceClient<Channel>;

/// One call with a deadline.
async fn within(
    client: &mut Client,
    tenant: &str,
    request: proto::CreateParticipantRequest,
    time: Duration,
) -> Reply {
    let mut call = of(tenant, request);
    call.set_timeout(time);
    client.create_participant(call).await
}

/// What became of a call under a policy of retries.
struct Persisted {
    answer: Reply,
    attempts: usize,
    /// When the first attempt was refused, if it was.
    refused: Option<Instant>,
}

/// The call, as a client library makes it under a policy of so many attempts: UNAVAILABLE and
/// RESOURCE_EXHAUSTED are repeated, at the pushback where there is one, and never where that is
/// negative (gRFC A6). Each attempt goes to the next client.
async fn persistently(
    clients: &mut [Client],
    tenant: &str,
    request: &proto::CreateParticipantRequest,
    time: Duration,
    most: usize,
) -> Persisted {
    let deadline = Instant::now() + time;
    let mut refused = None;
    let mut backoff = Duration::from_millis(100);
    for attempt in 1.. {
        let left = deadline.saturating_duration_since(Instant::now());
        let client = attempt % clients.len();
        let answer = within(&mut clients[client], tenant, request.clone(), left).await;
        let Err(status) = &answer else { return Persisted { answer, attempts: attempt, refused } };
        refused = refused.or(Some(Instant::now()));
        // A connection that broke is UNAVAILABLE to other libraries. To tonic it is UNKNOWN, or
        // CANCELLED for a call that it had not sent yet.
        let is_broken =
            matches!(status.code(), Code::Unknown | Code::Cancelled) && status.details().is_empty();
        let is_repeated = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
        let is_repeated = is_repeated || is_broken;
        let wait = match pushback(status) {
            Some(millis) => u64::try_from(millis).ok().map(Duration::from_millis),
            None => Some(backoff),
        };
        backoff *= 2;
        match wait {
            Some(wait) if is_repeated && attempt < most && Instant::now() + wait < deadline => {
                tokio::time::sleep(wait).await;
            }
            _ => return Persisted { answer, attempts: attempt, refused },
        }
    }
    unreachable!("attempts are counted without an end")
}

/// `grpc-retry-pushback-ms`.
fn pushback(status: &Status) -> Option<i64> {
    status.metadata().get("grpc-retry-pushback-ms")?.to_str().unwrap().parse().ok()
}

/// How the call ended, in a word.
fn word(answer: &Reply) -> String {
    answer.as_ref().map_or_else(
        |status| {
            let code = status.code();
            tonic_types::StatusExt::get_details_error_info(status)
                .map_or_else(|| format!("{code:?}"), |info| info.reason)
        },
        |_| "OK".to_owned(),
    )
}

/// How many of them ended OK.
fn oks(answers: &[Reply]) -> usize {
    answers.iter().filter(|answer| answer.is_ok()).count()
}

/// The tenant's levels.
async fn quota(gateway: &Front, tenant: &str) -> Result<proto::GetQuotaResponse, Status> {
    let request = proto::GetQuotaRequest { instance_id: "instance-1".to_owned() };
    let mut client = QuotaServiceClient::new(gateway.channel().await);
    Ok(client.get_quota(of(tenant, request)).await?.into_inner())
}

/// The hint of an error that has one.
pub fn hint(status: &Status) -> Duration {
    seen(status).retry.unwrap_or_else(|| panic!("no RetryInfo: {status:?}"))
}

/// Of a core, on average: with less to spare, calls and answers wait for it.
pub const LEAST_SPARE: f64 = 0.3;
