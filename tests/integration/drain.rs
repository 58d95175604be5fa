//! The end: health first, GOAWAY, calls in flight finish, bounded by `drain_timeout`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use participant_gateway::proto;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::support::gateway::client;
use crate::support::status::reason;
use crate::support::{gateway, http_get, of, request, request_with_token, until};

#[tokio::test]
async fn a_call_in_flight_finishes_and_health_says_not_serving_meanwhile() {
    let mut gateway = gateway().start().await;
    let mut client = gateway.client().await;
    let channel = gateway.channel().await;
    let mut health = HealthClient::new(channel);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, ServingStatus::Serving as i32);

    let call = tokio::spawn(async move {
        client.create_participant(of("demo", request("sim-slow-500"))).await
    });
    gateway.attempted(1).await;
    gateway.shut_down();
    assert_eq!(watch.message().await.unwrap().unwrap().status, ServingStatus::NotServing as i32);
    assert_eq!(http_get(gateway.admin, "/readyz").await, (503, "draining\n".to_owned()));
    call.await.unwrap().expect("the call in flight was lost");
    drop((watch, health));
    (&mut gateway.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn callers_that_obey_goaway_see_no_error_while_one_replica_of_two_ends() {
    let (ending, staying) = (gateway().start().await, gateway().start().await);
    let shut_down = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU32::new(0));
    let callers = (0..16).map(|_| {
        let (shut_down, done) = (Arc::clone(&shut_down), Arc::clone(&done));
        let first = ending.addr;
        let second = staying.addr;
        tokio::spawn(async move {
            // As a load balancer does: new calls go elsewhere once the replica is no longer ready.
            let mut gateway = client(first).await;
            let mut moved = false;
            for _ in 0..60 {
                if !moved && shut_down.load(Ordering::Acquire) {
                    gateway = client(second).await;
                    moved = true;
                }
                let mut answer =
                    gateway.create_participant(of("demo", request("sim-slow-20"))).await;
                if answer.as_ref().is_err_and(was_not_taken) {
                    gateway = client(second).await;
                    moved = true;
                    answer = gateway.create_participant(of("demo", request("sim-slow-20"))).await;
                }
                answer.expect("a call was lost");
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    until("calls are on their way", async || done.load(Ordering::Relaxed) > 200).await;
    shut_down.store(true, Ordering::Release);
    ending.shut_down();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), 16 * 60);
    let sent = ending.journal.attempt_count() + staying.journal.attempt_count();
    assert_eq!(sent, 16 * 60, "what was not taken was sent all the same");
}

/// The call was on its way when the server named the last one that it takes (RFC 9113, section
/// 6.8). Other gRPC clients send it anew by themselves; tonic leaves that to its callers.
fn was_not_taken(status: &tonic::Status) -> bool {
    let cause = std::iter::successors(std::error::Error::source(status), |error| error.source());
    let mut http2 = cause.filter_map(|error| error.downcast_ref::<h2::Error>());
    http2.any(|error| {
        error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
    })
}

/// A call that the drain cuts off at Connect.
async fn cut_off(request: proto::CreateParticipantRequest) -> tonic::Status {
    let mut gateway = gateway().with("/server/drain_timeout", "300ms").start().await;
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.create_participant(of("demo", request)).await });
    gateway.attempted(1).await;
    let started = Instant::now();
    gateway.shut_down();
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(reason(&status), "SHUTTING_DOWN");
    (&mut gateway.running).await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    status
}

#[tokio::test]
async fn a_call_that_the_drain_cuts_off_is_told_to_come_again_only_with_a_client_token() {
    let status = cut_off(request_with_token("sim-slow-60000", "token-1")).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));

    let status = cut_off(request("sim-slow-60000")).await;
    assert_eq!(status.code(), Code::Internal, "a library would repeat it");
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
}

#[tokio::test]
async fn connections_without_a_call_do_not_hold_up_the_end() {
    let mut gateway = gateway().start().await;
    let _silent = tokio::net::TcpStream::connect(gateway.addr).await.unwrap();
    let mut health = HealthClient::new(gateway.channel().await);
    let _watch = health.watch(HealthCheckRequest::default()).await.unwrap();
    let started = Instant::now();
    gateway.shut_down();
    (&mut gateway.running).await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_goes_away_at_its_age_without_an_error() {
    let gateway = gateway().with("/server/max_connection_age", "200ms").start().await;
    let clients = futures_util::future::join_all((0..8).map(|_| gateway.client())).await;
    let calls = clients.into_iter().map(|mut client| async move {
        client
            .create_participant(of("demo", request("sim-slow-500")))
            .await
            .expect("its age cut a call off");
        // By now the connection has gone; the channel makes another.
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.create_participant(of("demo", request("contact-1"))).await
    });
    for answer in futures_util::future::join_all(calls).await {
        answer.unwrap();
    }
}
