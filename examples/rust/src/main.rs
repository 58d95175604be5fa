//! Creates participants, reads quotas and checks health. Prints a line of JSON for each call.

mod channel;
mod retry;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use channel::{Caller, Channels, Failure};
use proto::participant_service_client::ParticipantServiceClient;
use proto::quota_service_client::QuotaServiceClient;
use proto::{CreateParticipantRequest, GetQuotaRequest, ParticipantDetails, ParticipantRole};
use retry::Retries;
use verdict::{Action, judge, name};

#[allow(clippy::pedantic, reason = "generated")]
mod proto {
    tonic::include_proto!("participantgateway.v1");
}

#[derive(Debug, Clone, Parser)]
struct Arguments {
    command: Command,
    /// The gateway
    #[arg(long, default_value = "127.0.0.1:50051")]
    target: String,
    /// The shared file
    #[arg(long, default_value = "../service-config.json")]
    service_config: PathBuf,
    #[command(flatten)]
    caller: Caller,
    /// The Connect instance
    #[arg(long, default_value = "demo")]
    instance: String,
    /// The contact
    #[arg(long, default_value = "contact-1")]
    contact: String,
    /// `CUSTOM_BOT` or CUSTOMER
    #[arg(long, default_value = "CUSTOM_BOT")]
    role: String,
    /// The display name
    #[arg(long, default_value = "Bot")]
    name: String,
    /// The idempotency key; absent: a new one
    #[arg(long)]
    client_token: Option<String>,
    /// Whose health; absent: the whole gateway's
    #[arg(long, default_value = "")]
    service: String,
    /// A call's deadline
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
    /// The time between two starts
    #[arg(long, default_value_t = 0)]
    every_ms: u64,
    /// Give the calls up after that time
    #[arg(long)]
    cancel_after_ms: Option<u64>,
    /// How many calls
    #[arg(long, default_value_t = 1)]
    calls: usize,
    /// Compress the requests
    #[arg(long)]
    gzip: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Command {
    Create,
    Quota,
    Health,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let channels = Channels::open(&arguments.target, &arguments.caller).await?;
    match arguments.command {
        Command::Create => create_all(channels, arguments).await,
        Command::Quota => {
            emit(
                &quota(channels.of(0, 0), &arguments)
                    .await
                    .unwrap_or_else(|failed| judged(&failed)),
            );
            Ok(())
        }
        Command::Health => {
            emit(
                &health(channels.of(0, 0), &arguments)
                    .await
                    .unwrap_or_else(|failed| judged(&failed)),
            );
            Ok(())
        }
    }
}

async fn create_all(channels: Channels, arguments: Arguments) -> Result<(), Failure> {
    let retries = Retries::of(&std::fs::read_to_string(&arguments.service_config)?)?;
    let retries = Arc::new(retries);
    // The idempotency key. A repeat of a call must have the same.
    let token = arguments.client_token.clone();
    let token = token.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let client =
        Client { channels, caller: arguments.caller.clone(), retries, gzip: arguments.gzip };
    let mut calls = JoinSet::new();
    for number in 0..arguments.calls {
        let token = if arguments.calls > 1 { format!("{token}-{number}") } else { token.clone() };
        let request = request(&arguments, token)?;
        let call = create(client.clone(), request, arguments.timeout_ms);
        let patience = arguments.cancel_after_ms.map_or(Duration::MAX, Duration::from_millis);
        calls.spawn(async move {
            // A call is cancelled by dropping it.
            let cancelled = json!({"verdict": "never", "code": "CANCELLED", "reason": ""});
            let mut line = timeout(patience, call).await.unwrap_or(cancelled);
            line["call"] = number.into();
            emit(&line);
        });
        sleep(Duration::from_millis(arguments.every_ms)).await;
    }
    calls.join_all().await;
    Ok(())
}

fn request(
    arguments: &Arguments,
    client_token: String,
) -> Result<CreateParticipantRequest, Failure> {
    let role = format!("PARTICIPANT_ROLE_{}", arguments.role);
    let role = ParticipantRole::from_str_name(&role).ok_or("unknown role")?;
    Ok(CreateParticipantRequest {
        instance_id: arguments.instance.clone(),
        contact_id: arguments.contact.clone(),
        client_token,
        participant_details: Some(ParticipantDetails {
            participant_role: role.into(),
            display_name: arguments.name.clone(),
            participant_capabilities: None,
        }),
    })
}

/// What calls are made with.
#[derive(Clone)]
struct Client {
    channels: Channels,
    caller: Caller,
    retries: Arc<Retries>,
    gzip: bool,
}

async fn create(client: Client, request: CreateParticipantRequest, timeout_ms: u64) -> Value {
    let turn = client.channels.turn();
    let attempt = |made: usize, left: Duration| {
        let channel = client.channels.of(turn, made);
        let mut stub = ParticipantServiceClient::with_interceptor(channel, client.caller.clone());
        if client.gzip {
            stub = stub.send_compressed(CompressionEncoding::Gzip);
        }
        let mut request = Request::new(request.clone());
        request.set_timeout(left);
        async move { stub.create_participant(request).await }
    };
    match client.retries.run(Duration::from_millis(timeout_ms), attempt).await {
        Ok(answer) => json!({
            "verdict": "done",
            "participant_id": answer.get_ref().participant_id,
            "replayed": answer.get_ref().replayed,
            "request_id": text(answer.metadata(), "x-request-id"),
            "remaining": remaining(answer.metadata()),
        }),
        Err(failed) => judged(&failed),
    }
}

async fn quota(channel: Channel, arguments: &Arguments) -> Result<Value, Status> {
    let mut client = QuotaServiceClient::with_interceptor(channel, arguments.caller.clone());
    let request =
        with_timeout(GetQuotaRequest { instance_id: arguments.instance.clone() }, arguments);
    let quota = client.get_quota(request).await?.into_inner();
    Ok(json!({
        "verdict": "done",
        "rate_per_second": quota.rate_per_second,
        "burst": quota.burst,
        "remaining": quota.remaining,
        "in_flight_limit": quota.in_flight_limit,
    }))
}

async fn health(channel: Channel, arguments: &Arguments) -> Result<Value, Status> {
    let mut client = HealthClient::new(channel);
    if arguments.gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let request =
        with_timeout(HealthCheckRequest { service: arguments.service.clone() }, arguments);
    let answer = client.check(request).await?.into_inner();
    Ok(json!({"verdict": "done", "health": answer.status().as_str_name()}))
}

fn with_timeout<T>(message: T, arguments: &Arguments) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_millis(arguments.timeout_ms));
    request
}

fn judged(failed: &Status) -> Value {
    let verdict = judge(failed);
    let (action, delay) = match verdict.action {
        Action::SlowDown(delay) => ("slow_down", delay),
        Action::RetryAfter(delay) => ("retry_after", delay),
        Action::NewToken => ("new_token", Duration::ZERO),
        Action::Never => ("never", Duration::ZERO),
    };
    json!({
        "verdict": action,
        "delay_ms": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        "code": name(verdict.code),
        "reason": verdict.reason,
        "request_id": verdict.request_id,
        "fields": verdict.fields,
        "message": failed.message(),
        // An error has its metadata in the trailers, which tonic keeps in the status.
        "remaining": remaining(failed.metadata()),
    })
}

/// The calls that the tenant's rate admits now.
fn remaining(metadata: &MetadataMap) -> Option<u32> {
    text(metadata, "ratelimit-remaining")?.parse().ok()
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key)?.to_str().ok()
}

fn emit(line: &Value) {
    println!("{line}");
}
