//! Faults as an operator meets them: each gateway is a process of its own, and all is seen from
//! outside. The rows: docs/design/guarantees.md.

mod claims;
mod connect;
mod credentials;
mod duplicates;
mod redis;

use std::time::{Duration, Instant};

use participant_gateway::proto::{CreateParticipantRequest, CreateParticipantResponse};
use tokio::task::JoinHandle;

use crate::support::gateway::Child;
use crate::support::{Plan, Reply, of, request_with_token};

/// Two gateways that share everything.
async fn two(plan: impl Fn() -> Plan) -> [Child; 2] {
    let first = plan().serve().await;
    let second = plan().beside(&first).serve().await;
    [first, second]
}

/// A call with this deadline, which is at Connect when this returns.
async fn begun(gateway: &Child, contact: &str, token: &str, time: Duration) -> JoinHandle<Reply> {
    let (mut client, before) = (gateway.client().await, gateway.journal.attempt_count());
    let mut call = of("demo", request_with_token(contact, token));
    call.set_timeout(time);
    let call = tokio::spawn(async move { client.create_participant(call).await });
    gateway.attempted(before + 1).await;
    call
}

async fn answered(gateway: &Child, contact: &str, token: &str) -> CreateParticipantResponse {
    gateway.call(request_with_token(contact, token)).await.unwrap().into_inner()
}

/// However often Connect was asked, it was asked for the same.
fn is_one_participant(gateway: &Child, answers: &[CreateParticipantResponse]) {
    let tokens = gateway.tokens();
    assert!(tokens.iter().all(|token| token.is_some() && *token == tokens[0]), "{tokens:?}");
    assert_eq!(gateway.journal.participant_count(), 1);
    let id = &gateway.journal.participants()[0].participant_id;
    assert!(answers.iter().all(|answer| answer.participant_id == *id), "{answers:?}");
}

/// One call with a deadline, and how long its answer took.
async fn timed(
    gateway: &Child,
    request: CreateParticipantRequest,
    time: Duration,
) -> (Reply, Duration) {
    let mut client = gateway.client().await;
    let mut call = of("demo", request);
    call.set_timeout(time);
    let started = Instant::now();
    (client.create_participant(call).await, started.elapsed())
}

const LONG: Duration = Duration::from_secs(10);
