//! Every upstream row of docs/design/contract.md, "The table": the real SDK, over a real socket,
//! against the simulator.

use std::time::Duration;

use participant_gateway::simulator::{Options, Throttle};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::raw::{METHOD, framed, post};
use crate::support::status::{Seen, reason, seen};
use crate::support::{ClosedPort, Fixture, gateway, of, request, request_with_token};

fn expected(code: Code, reason: &str, retry_ms: Option<u64>) -> Seen {
    // Without a delay, a negative pushback stops every client library's retries.
    let pushback = retry_ms.map_or_else(|| "-1".to_owned(), |millis| millis.to_string());
    let retry = retry_ms.map(Duration::from_millis);
    Seen { code, reason: reason.to_owned(), retry, pushback: Some(pushback) }
}

/// Calls with a token; checks the row and how many attempts it took.
async fn row(contact: &str, wanted: Seen, attempts: u64) -> (Fixture, Status) {
    let gateway = gateway().start().await;
    let status = gateway.call(request_with_token(contact, "token-1")).await.unwrap_err();
    assert_eq!(seen(&status), wanted, "{contact}");
    assert_eq!(gateway.journal.attempt_count(), attempts, "{contact}");
    (gateway, status)
}

#[tokio::test]
async fn refusals_of_connect_are_answered_after_one_attempt() {
    for (contact, code, reason, retry) in [
        ("sim-invalid", Code::InvalidArgument, "UPSTREAM_INVALID_REQUEST", None),
        ("sim-not-found", Code::NotFound, "CONTACT_OR_INSTANCE_NOT_FOUND", None),
        ("sim-conflict", Code::Aborted, "UPSTREAM_CONFLICT", None),
        ("sim-access-denied", Code::Internal, "UPSTREAM_AUTH_MISCONFIGURED", None),
        ("sim-expired-token", Code::Unavailable, "UPSTREAM_CREDENTIALS_STALE", Some(1000)),
        ("sim-garbage", Code::Internal, "UPSTREAM_BAD_RESPONSE", None),
        ("sim-no-token", Code::Internal, "UPSTREAM_BAD_RESPONSE", None),
        ("sim-no-id", Code::Internal, "UPSTREAM_BAD_RESPONSE", None),
        ("sim-huge", Code::Internal, "UPSTREAM_BAD_RESPONSE", None),
        ("sim-nested", Code::Internal, "UPSTREAM_BAD_RESPONSE", None),
        ("sim-status-200", Code::Internal, "UPSTREAM_BAD_RESPONSE", None),
        ("sim-unknown-error", Code::Unknown, "UPSTREAM_UNRECOGNIZED", None),
        ("sim-status-418", Code::Unknown, "UPSTREAM_UNRECOGNIZED", None),
        ("sim-status-400", Code::Unknown, "UPSTREAM_UNRECOGNIZED", None),
        ("sim-status-403", Code::Unknown, "UPSTREAM_UNRECOGNIZED", None),
        ("sim-status-404", Code::Unknown, "UPSTREAM_UNRECOGNIZED", None),
    ] {
        row(contact, expected(code, reason, retry), 1).await;
    }
}

#[tokio::test]
async fn a_used_up_quota_tells_clients_never_to_retry() {
    let wanted = Seen {
        code: Code::ResourceExhausted,
        reason: "SERVICE_QUOTA_EXCEEDED".to_owned(),
        retry: None,
        pushback: Some("-1".to_owned()),
    };
    let (_gateway, status) = row("sim-quota", wanted, 1).await;
    assert_eq!(status.get_details_quota_failure().unwrap().violations[0].subject, "upstream:main");
}

#[tokio::test]
async fn a_throttle_is_tried_once_more_and_then_handed_on_with_its_wait() {
    row("sim-throttled", expected(Code::ResourceExhausted, "UPSTREAM_THROTTLED", Some(1000)), 2)
        .await;
    row("sim-status-429", expected(Code::ResourceExhausted, "UPSTREAM_THROTTLED", Some(1000)), 2)
        .await;
}

#[tokio::test]
async fn a_throttles_own_wait_is_the_hint() {
    let throttle = Some(Throttle { rate_per_second: 0.01, burst: 1.0 });
    let simulator =
        Options { throttle, retry_after: Some(Duration::from_millis(1234)), ..Options::default() };
    let gateway = gateway().over(simulator).start().await;
    gateway.call(request("contact-1")).await.unwrap();
    let status = gateway.call(request("contact-1")).await.unwrap_err();
    assert_eq!(seen(&status), expected(Code::ResourceExhausted, "UPSTREAM_THROTTLED", Some(1234)));
}

#[tokio::test]
async fn failures_of_connect_are_tried_again_and_invite_a_retry_only_with_a_client_token() {
    for contact in ["sim-internal", "sim-status-503", "sim-status-408"] {
        let (gateway, status) =
            row(contact, expected(Code::Unavailable, "UPSTREAM_ERROR", Some(1000)), 3).await;
        assert_eq!(status.get_details_error_info().unwrap().metadata["tenant"], "demo");
        let status = gateway.call(request(contact)).await.unwrap_err();
        assert_eq!(seen(&status), expected(Code::Internal, "UPSTREAM_ERROR", None), "{contact}");
    }
    let (gateway, _) =
        row("sim-reset", expected(Code::Unavailable, "UPSTREAM_UNREACHABLE", Some(1000)), 3).await;
    let status = gateway.call(request("sim-reset")).await.unwrap_err();
    assert_eq!(seen(&status), expected(Code::Internal, "UPSTREAM_UNREACHABLE", None));
}

#[tokio::test]
async fn a_connection_lost_after_sending_is_tried_again_with_the_same_token_and_makes_one_participant()
 {
    let gateway = gateway().start().await;
    let reply = gateway
        .call(request_with_token("sim-reset-2", "token-1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(gateway.journal.attempt_count(), 3);
    let made = gateway.journal.participants();
    assert_eq!(made.len(), 1);
    assert_eq!(reply.participant_id, made[0].participant_id);
}

#[tokio::test]
async fn nothing_is_sent_where_connect_cannot_be_reached() {
    let closed = ClosedPort::new();
    let nobody = closed.addr();
    for url in [
        format!("http://{nobody}"),
        "http://no-such-host.invalid".to_owned(),
        format!("https://{nobody}"),
    ] {
        let gateway = gateway().with("/upstreams/main/endpoint_url", url.as_str()).start().await;
        // Also without a token: what was not sent may be repeated.
        let status = gateway.call(request("contact-1")).await.unwrap_err();
        assert_eq!(
            seen(&status),
            expected(Code::Unavailable, "UPSTREAM_UNREACHABLE", Some(1000)),
            "{url}"
        );
    }
}

#[tokio::test]
async fn wrong_keys_are_the_gateways_own_fault() {
    let gateway = gateway().with_wrong_keys().start().await;
    let status = gateway.call(request("contact-1")).await.unwrap_err();
    assert_eq!(seen(&status), expected(Code::Internal, "UPSTREAM_AUTH_MISCONFIGURED", None));
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["upstreamCode"], "InvalidSignatureException");
    assert!(!info.metadata["upstreamRequestId"].is_empty());
}

#[tokio::test]
async fn a_clock_that_is_off_is_mended_within_the_call() {
    for clock_offset in [600, -600] {
        let gateway = gateway().over(Options { clock_offset, ..Options::default() }).start().await;
        gateway.call(request("contact-1")).await.unwrap();
        assert_eq!(gateway.journal.attempt_count(), 2, "{clock_offset}");
        gateway.call(request("contact-1")).await.unwrap();
        assert_eq!(gateway.journal.attempt_count(), 3, "the client forgot what it had learnt");
    }
}

#[tokio::test]
async fn an_attempt_that_times_out_is_tried_again_while_the_deadline_allows() {
    let gateway = gateway()
        .with("/upstreams/main/attempt_timeout", "150ms")
        .with("/upstreams/main/max_attempts", 2)
        .start()
        .await;
    let status = gateway.call(request_with_token("sim-slow-60000", "token-1")).await.unwrap_err();
    assert_eq!(seen(&status), expected(Code::DeadlineExceeded, "UPSTREAM_TIMEOUT", Some(1000)));
    gateway.attempted(2).await;
    assert_eq!(gateway.journal.attempt_count(), 2);
}

#[tokio::test]
async fn five_failed_calls_open_the_circuit_and_a_probe_closes_it() {
    let gateway = gateway().with("/upstreams/main/max_attempts", 1).start().await;
    let mut client = gateway.client().await;
    for _ in 0..5 {
        client
            .create_participant(of("demo", request("sim-internal")))
            .await
            .unwrap_err();
    }
    let status = client.create_participant(of("demo", request("contact-1"))).await.unwrap_err();
    let Seen { code, reason, retry, .. } = seen(&status);
    assert_eq!((code, reason.as_str()), (Code::Unavailable, "CIRCUIT_OPEN"));
    assert_eq!(gateway.journal.attempt_count(), 5, "a call went out through an open circuit");

    tokio::time::sleep(retry.unwrap()).await;
    client.create_participant(of("demo", request("contact-1"))).await.unwrap();
}

#[tokio::test]
async fn callers_without_time_for_a_retry_see_a_failed_call_all_the_same() {
    let gateway = gateway().start().await;
    let (mut failures, mut late) = (0, 0);
    loop {
        // The next attempt would come after 50 ms at the earliest.
        let headers = [("x-tenant-id", "demo"), ("grpc-timeout", "60m")];
        let body = framed(0, &request("sim-internal").encode_to_vec());
        match reason(&post(&gateway, METHOD, &headers, body).await).as_str() {
            "UPSTREAM_ERROR" => failures += 1,
            // The machine is so busy that the deadline came first.
            "DEADLINE_EXCEEDED" => late += 1,
            "CIRCUIT_OPEN" => break,
            other => panic!("{other}"),
        }
        assert!(failures <= 5, "the circuit stayed closed");
        assert!(late < 100, "every call is late");
    }
    assert!(failures > 0, "no call failed");
}

#[tokio::test]
async fn callers_that_leave_after_one_failure_open_no_circuit_for_others() {
    let gateway = gateway().start().await;
    let client = gateway.client().await;
    for index in 1..=6 {
        let mut client = client.clone();
        let request = request_with_token("sim-flaky-1", &format!("token-{index}"));
        let call =
            tokio::spawn(async move { client.create_participant(of("demo", request)).await });
        gateway.attempted(index).await;
        call.abort();
    }
    gateway.metric_is("participant_gateway_in_flight 0").await;
    assert_eq!(gateway.journal.attempt_count(), 6, "a call that nobody waits for was tried again");
    gateway.call(request("contact-1")).await.expect("refused for what others did");
}

#[tokio::test]
async fn neither_throttles_nor_refusals_open_the_circuit() {
    let gateway = gateway().with("/upstreams/main/max_attempts", 1).start().await;
    for contact in ["sim-throttled", "sim-invalid", "sim-not-found", "sim-quota"] {
        for _ in 0..6 {
            gateway.call(request(contact)).await.unwrap_err();
        }
    }
    gateway.call(request("contact-1")).await.unwrap();
}

#[tokio::test]
async fn no_text_of_connects_reaches_a_caller() {
    for contact in
        ["sim-invalid", "sim-access-denied", "sim-internal", "sim-not-found", "sim-quota"]
    {
        let gateway = gateway().start().await;
        let status = gateway.call(request_with_token(contact, "token-canary")).await.unwrap_err();
        let all = format!("{status:?} {}", String::from_utf8_lossy(status.details()));
        for word in [contact, "canary", "127.0.0.1", "arn:", "SIMULATOR", "Simulat", "simulat"] {
            assert!(!all.contains(word), "{word} in {all}");
        }
    }
}
