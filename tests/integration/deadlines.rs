//! A call ends at its caller's deadline, with DEADLINE_EXCEEDED and never CANCELLED.

use std::time::{Duration, Instant};

use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::raw::{METHOD, framed, post};
use crate::support::status::{reason, seen};
use crate::support::{Fixture, gateway, of, request, request_with_token};

/// A call with this `grpc-timeout`, of a client that does not give up by itself.
async fn within(gateway: &Fixture, timeout: &str, contact: &str) -> Status {
    let body = framed(0, &request(contact).encode_to_vec());
    post(gateway, METHOD, &[("x-tenant-id", "demo"), ("grpc-timeout", timeout)], body).await
}

#[tokio::test]
async fn a_call_is_answered_at_its_deadline() {
    let gateway = gateway().start().await;
    let started = Instant::now();
    let status = within(&gateway, "200m", "sim-slow-60000").await;
    let elapsed = started.elapsed();
    assert_eq!(seen(&status), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert!(
        elapsed >= Duration::from_millis(200) && elapsed < Duration::from_millis(400),
        "{elapsed:?}"
    );
}

#[tokio::test]
async fn no_call_of_many_at_their_deadline_is_cancelled() {
    let gateway = gateway().start().await;
    let calls = (0..200).map(async |index| {
        within(&gateway, &format!("{}m", 20 + index % 40), "sim-slow-60000").await
    });
    for status in futures_util::future::join_all(calls).await {
        assert_eq!(reason(&status), "DEADLINE_EXCEEDED", "{status:?}");
    }
}

#[tokio::test]
async fn a_deadline_that_has_passed_sends_nothing() {
    let gateway = gateway().start().await;
    let status = within(&gateway, "0m", "contact-1").await;
    assert_eq!(reason(&status), "DEADLINE_EXCEEDED");
    assert_eq!(gateway.journal.attempt_count(), 0);
}

#[tokio::test]
async fn the_default_applies_where_the_caller_sends_no_timeout_and_the_maximum_to_all() {
    let gateway = gateway()
        .with("/server/default_timeout", "100ms")
        .with("/server/max_timeout", "300ms")
        .with("/idempotency/retention", "1h")
        .start()
        .await;
    let mut client = gateway.client().await;
    for (timeout, least, most) in [(None, 100, 280), (Some("1H"), 300, 600)] {
        let started = Instant::now();
        let status = match timeout {
            Some(timeout) => within(&gateway, timeout, "sim-slow-60000").await,
            None => client
                .create_participant(of("demo", request("sim-slow-60000")))
                .await
                .unwrap_err(),
        };
        let elapsed = started.elapsed().as_millis();
        assert_eq!(reason(&status), "DEADLINE_EXCEEDED");
        assert!((least..most).contains(&elapsed), "{elapsed} ms for {timeout:?}");
    }
}

#[tokio::test]
async fn a_malformed_timeout_is_refused_once_the_caller_is_known() {
    let gateway = gateway().start().await;
    for timeout in ["1", "S", "123456789S", "1.5S", "-1S", "1x"] {
        let status = within(&gateway, timeout, "contact-1").await;
        assert_eq!(seen(&status), (Code::InvalidArgument, "MALFORMED_REQUEST"), "{timeout}");
    }
    let status = post(&gateway, METHOD, &[("grpc-timeout", "1x")], framed(0, &[])).await;
    assert_eq!(reason(&status), "UNAUTHENTICATED");
}

#[tokio::test]
async fn the_last_attempts_error_is_answered_at_once_where_another_does_not_fit() {
    let gateway = gateway().start().await;
    // A throttle's second attempt would come a second later.
    let started = Instant::now();
    let status = within(&gateway, "990m", "sim-throttled").await;
    assert_eq!(reason(&status), "UPSTREAM_THROTTLED");
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_stop_the_attempt_that_runs_and_starts_no_other() {
    let gateway = gateway().with("/upstreams/main/attempt_timeout", "300ms").start().await;
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move {
        client
            .create_participant(of("demo", request_with_token("sim-slow-60000", "token-1")))
            .await
    });
    gateway.attempted(1).await;
    call.abort();
    // The first attempt may run for 300 ms, a second would follow at once.
    gateway.metric_is("participant_gateway_in_flight 0").await;
    assert_eq!(gateway.journal.attempt_count(), 1);
}

#[tokio::test]
async fn places_come_back_when_the_work_ends_and_not_when_its_caller_leaves() {
    let gateway = gateway()
        .with("/server/max_in_flight", 4)
        .with("/upstreams/main/attempt_timeout", "300ms")
        .with("/upstreams/main/max_attempts", 1)
        .start()
        .await;
    let client = gateway.client().await;
    let call = |contact: &'static str| {
        let mut client = client.clone();
        tokio::spawn(async move { client.create_participant(of("demo", request(contact))).await })
    };
    let slow: Vec<_> = (0..4).map(|_| call("sim-slow-60000")).collect();
    gateway.attempted(4).await;
    for caller in &slow {
        caller.abort();
    }
    let status = call("contact-1").await.unwrap().unwrap_err();
    assert_eq!(seen(&status), (Code::ResourceExhausted, "OVERLOADED"));
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));

    let started = Instant::now();
    loop {
        let together: Vec<_> = (0..4).map(|_| call("sim-slow-50")).collect();
        let answers = futures_util::future::join_all(together).await;
        if answers.into_iter().all(|answer| answer.unwrap().is_ok()) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "a place was lost");
    }
}
