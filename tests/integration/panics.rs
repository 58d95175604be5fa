//! A panic ends one call, with GATEWAY_BUG. Other calls do not notice it, and another call can take
//! over what the first one held.
//!
//! A subscriber of the log panics at an event, so the gateway needs no code for these tests.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use participant_gateway::proto::quota_service_client::QuotaServiceClient;
use participant_gateway::proto::{CreateParticipantResponse, GetQuotaRequest};
use tonic::{Code, Status};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};

use crate::support::gateway::client;
use crate::support::process::Running;
use crate::support::redis::RedisServer;
use crate::support::status::seen;
use crate::support::{Front, gateway, http_get, of, request_with_token};

/// Panics once, at an event of this module and its children.
struct PanicsOnce<F> {
    module: &'static str,
    when: F,
    done: AtomicBool,
}

impl<F: Fn() -> bool + Send + Sync + 'static> PanicsOnce<F> {
    /// From now on, and on this thread: at the first event for which `when` holds.
    fn arm(module: &'static str, when: F) -> DefaultGuard {
        tracing::subscriber::set_default(Self { module, when, done: AtomicBool::new(false) })
    }
}

impl<F: Fn() -> bool + Send + Sync + 'static> Subscriber for PanicsOnce<F> {
    fn enabled(&self, event: &Metadata<'_>) -> bool {
        event.is_event() && event.target().starts_with(self.module)
    }

    fn event(&self, event: &Event<'_>) {
        if (self.when)() && !self.done.swap(true, Ordering::Relaxed) {
            panic!("on purpose, at {}", event.metadata().name());
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

const BUG: (Code, &str) = (Code::Internal, "GATEWAY_BUG");

async fn call(gateway: &Front, token: &str) -> Result<CreateParticipantResponse, Status> {
    let reply = gateway.call(request_with_token("sim-slow-100", token)).await;
    reply.map(tonic::Response::into_inner)
}

/// Other calls are served, and nothing is held for the one that ended.
async fn lives(gateway: &Front) {
    assert!(!call(gateway, "another").await.unwrap().replayed);
    assert_eq!(gateway.admin("/livez").await.0, 200);
    gateway.metric_is("participant_gateway_in_flight 0").await;
    assert_eq!(gateway.quota().await.in_flight, 0, "a lease was left behind");
}

#[tokio::test]
async fn a_call_that_panics_after_it_was_sent_is_a_bug_and_the_next_one_finds_its_participant() {
    let gateway = gateway().start().await;
    let journal = gateway.journal.clone();
    // The SDK has the answer in its hands.
    let _armed = PanicsOnce::arm("aws_smithy_runtime", move || journal.participant_count() > 0);
    let status = call(&gateway, "token-1").await.unwrap_err();
    assert_eq!(seen(&status), BUG);
    assert!(!status.message().contains("on purpose"), "{status:?}");

    let started = Instant::now();
    let again = call(&gateway, "token-1").await.unwrap();
    assert!(started.elapsed() < AT_ONCE, "the claim was left to its lease");
    assert!(!again.replayed, "an answer that nobody has seen was repeated");
    let made = gateway.journal.participants();
    assert_eq!(made.len(), 1);
    assert_eq!(again.participant_id, made[0].participant_id);
    assert!(call(&gateway, "token-1").await.unwrap().replayed);
    lives(&gateway).await;
}

#[tokio::test]
async fn a_duplicate_of_a_call_that_panics_runs_it_anew() {
    let gateway = gateway().start().await;
    let journal = gateway.journal.clone();
    let _armed = PanicsOnce::arm("aws_smithy_runtime", move || journal.participant_count() > 0);
    let started = Instant::now();
    let (one, other) = tokio::join!(call(&gateway, "token-1"), call(&gateway, "token-1"));
    let (bug, made) = match (one, other) {
        (Err(bug), Ok(made)) | (Ok(made), Err(bug)) => (bug, made),
        both => panic!("{both:?}"),
    };
    assert!(started.elapsed() < AT_ONCE, "the claim was left to its lease");
    assert_eq!(seen(&bug), BUG);
    assert_eq!(made.participant_id, gateway.journal.participants()[0].participant_id);
    assert_eq!(gateway.journal.participant_count(), 1);
    lives(&gateway).await;
}

#[tokio::test]
async fn a_call_that_panics_while_it_asks_the_store_is_a_bug_and_holds_nothing() {
    let server = RedisServer::start().await;
    let gateway = gateway().on_redis(&server.url(), "pg").start().await;
    let quota = async || {
        let ask = of("demo", GetQuotaRequest { instance_id: "instance-1".to_owned() });
        QuotaServiceClient::new(gateway.channel().await).get_quota(ask).await
    };
    call(&gateway, "token-0").await.unwrap();
    // It says that the connection has been lost, and holds a lock meanwhile.
    let link = "participant_gateway::admission::redis";
    for token in ["token-1", "token-2"] {
        let _armed = PanicsOnce::arm(link, || true);
        server.command(&["client", "kill", "type", "normal"]).await;
        let status = match token {
            "token-1" => call(&gateway, token).await.unwrap_err(),
            _ => quota().await.unwrap_err(),
        };
        assert_eq!(seen(&status), BUG);
        assert!(!call(&gateway, token).await.unwrap().replayed);
        quota().await.unwrap();
    }
    lives(&gateway).await;
}

/// Once as the gateway, in a process of its own, and once as its callers.
#[tokio::test]
async fn a_process_outlives_a_handler_that_panics() {
    const SERVES: &str = "SERVES_AND_PANICS_ONCE";
    if std::env::var_os(SERVES).is_some() {
        let gateway = gateway().start().await;
        let journal = gateway.journal.clone();
        let _armed = PanicsOnce::arm("aws_smithy_runtime", move || journal.participant_count() > 0);
        println!("serves {} {}", gateway.addr, gateway.admin);
        return std::future::pending().await;
    }
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["panics::a_process_outlives_a_handler_that_panics", "--exact", "--nocapture"]);
    program.env(SERVES, "1");
    let mut process = Running::start(program);
    let line = process.line_with("serves ").await;
    let addresses: Vec<_> =
        line.split(' ').rev().take(2).map(|word| word.parse().unwrap()).collect();
    let [admin, addr] = addresses[..] else { panic!("{line}") };

    let mut client = client(addr).await;
    let mut call = async |token: &str| {
        let call = of("demo", request_with_token("contact-1", token));
        client.create_participant(call).await.map(tonic::Response::into_inner)
    };
    assert_eq!(seen(&call("token-1").await.unwrap_err()), BUG);
    let started = Instant::now();
    assert!(!call("token-1").await.unwrap().replayed);
    assert!(started.elapsed() < AT_ONCE, "the claim was left to its lease");
    assert!(call("token-1").await.unwrap().replayed);
    // On the same connection.
    assert!(!call("token-2").await.unwrap().replayed);
    assert_eq!(http_get(admin, "/livez").await.0, 200);
    let metrics = http_get(admin, "/metrics").await.1;
    assert!(metrics.lines().any(|line| line == "participant_gateway_in_flight 0"));
}

/// A claim that is settled is free at once; one that is not, after a lease of three seconds.
const AT_ONCE: Duration = Duration::from_secs(2);
