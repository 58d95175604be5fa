//! One token, one participant, as callers see it, over both stores: replays and duplicates.

use std::time::Duration;

use futures_util::future::join_all;
use participant_gateway::proto;
use participant_gateway::simulator::Options;
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::gateway::over_both_stores;
use crate::support::redis::RedisServer;
use crate::support::status::{ratelimit, reason, seen};
use crate::support::{are_one_call, gateway, of, request, request_with_token, until_within};

#[tokio::test]
async fn a_replay_returns_the_first_participant_and_charges_nothing() {
    for (gateway, _redis) in over_both_stores(|| gateway().with("/tenants/demo/rate", "1/h")).await
    {
        let first = gateway.call(request_with_token("contact-1", "token-1")).await.unwrap();
        let left = ratelimit(first.metadata()).1;
        let again = gateway.call(request_with_token("contact-1", "token-1")).await.unwrap();
        assert_eq!(ratelimit(again.metadata()).1, left);
        let (first, again) = (first.into_inner(), again.into_inner());
        assert!(!first.replayed && again.replayed);
        assert_eq!(proto::CreateParticipantResponse { replayed: false, ..again }, first);
        assert_eq!(gateway.journal.attempt_count(), 1);
    }
}

#[tokio::test]
async fn a_token_with_other_content_is_refused_without_saying_what_differs() {
    for (gateway, _redis) in over_both_stores(gateway).await {
        gateway.call(request_with_token("contact-1", "token-1")).await.unwrap();
        let mut other_name = request_with_token("contact-1", "token-1");
        other_name.participant_details.as_mut().unwrap().display_name = "Other".to_owned();
        let mut answers = Vec::new();
        for other in [request_with_token("contact-2", "token-1"), other_name] {
            let status = gateway.call(other).await.unwrap_err();
            assert_eq!(seen(&status), (Code::InvalidArgument, "CLIENT_TOKEN_REUSED"));
            let violations = status.get_details_bad_request().unwrap().field_violations;
            assert_eq!(violations[0].field, "client_token");
            answers.push((status.message().to_owned(), violations[0].description.clone()));
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(gateway.journal.attempt_count(), 1);
    }
}

#[tokio::test]
async fn two_tenants_with_one_token_are_independent() {
    let tenants = json!({ "instances": ["*"], "rate": "100/s", "burst": 100 });
    for (gateway, _redis) in
        over_both_stores(|| gateway().with("/tenants/other", tenants.clone())).await
    {
        let mut client = gateway.client().await;
        let mut call = async |tenant, contact| {
            client
                .create_participant(of(tenant, request_with_token(contact, "token-1")))
                .await
                .unwrap()
                .into_inner()
        };
        let (demo, other) = (call("demo", "contact-1").await, call("other", "contact-2").await);
        assert!(!demo.replayed && !other.replayed);
        assert_ne!(demo.participant_id, other.participant_id);
        let tokens = gateway.tokens();
        assert_ne!(tokens[0], tokens[1], "one tenant's token went out for another");
    }
}

#[tokio::test]
async fn sixty_four_duplicates_at_once_are_one_call_with_identical_answers() {
    for (gateway, _redis) in over_both_stores(gateway).await {
        let client = gateway.client().await;
        let calls = (0..64).map(|_| {
            let mut client = client.clone();
            async move {
                client
                    .create_participant(of("demo", request_with_token("sim-slow-200", "token-1")))
                    .await
            }
        });
        let answers: Vec<_> = join_all(calls)
            .await
            .into_iter()
            .map(|answer| answer.unwrap().into_inner())
            .collect();
        are_one_call(&answers);
        assert_eq!(gateway.journal.attempt_count(), 1);
    }
}

#[tokio::test]
async fn duplicates_of_a_throttled_call_share_its_end_where_none_of_them_could_wait_for_more() {
    let gateway = gateway().start().await;
    let client = gateway.client().await;
    // Connect asks for a second.
    let calls = (0..16).map(|_| {
        let mut client = client.clone();
        let mut call = of("demo", request_with_token("sim-throttled", "token-1"));
        call.metadata_mut().insert("grpc-timeout", "900m".parse().unwrap());
        async move { client.create_participant(call).await.unwrap_err() }
    });
    for status in join_all(calls).await {
        assert_eq!(reason(&status), "UPSTREAM_THROTTLED");
    }
    assert_eq!(gateway.journal.attempt_count(), 1);
}

#[tokio::test]
async fn a_duplicate_with_more_time_waits_for_what_the_first_one_could_not() {
    let slow = Options { latency: Duration::from_millis(150), ..Options::default() };
    let gateway = gateway().over(slow).start().await;
    let mut clients = [gateway.client().await, gateway.client().await];
    let call = |timeout: &str| {
        let mut call = of("demo", request_with_token("sim-throttled", "token-1"));
        call.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        call
    };
    let [first, second] = &mut clients;
    let (hasty, patient) = tokio::join!(first.create_participant(call("900m")), async {
        gateway.attempted(1).await;
        second.create_participant(call("8S")).await
    });
    for answer in [hasty, patient] {
        assert_eq!(reason(&answer.unwrap_err()), "UPSTREAM_THROTTLED");
    }
    // The first's; and the other's own with the one that a throttle is granted.
    assert_eq!(gateway.journal.attempt_count(), 3);
    let attempts = gateway.journal.attempts();
    let apart = attempts[1].received_at.duration_since(attempts[0].received_at);
    assert!(apart.as_millis() >= 990, "Connect's wait was not kept: {apart:?}");
}

#[tokio::test]
async fn a_duplicate_does_not_end_with_the_caller_that_ran_it() {
    for (gateway, _redis) in over_both_stores(gateway).await {
        let client = gateway.client().await;
        let call = |token: &'static str| {
            let mut client = client.clone();
            tokio::spawn(async move {
                client
                    .create_participant(of("demo", request_with_token("sim-flaky-1", token)))
                    .await
            })
        };
        let first = call("token-1");
        gateway.attempted(1).await;
        let second = call("token-1");
        first.abort();
        second.await.unwrap().expect("it got what the first caller left behind");
        assert_eq!(gateway.journal.participants().len(), 1);
    }
}

#[tokio::test]
async fn the_upstream_token_is_derived_and_the_same_after_everything_is_forgotten() {
    let server = RedisServer::start().await;
    let gateway = gateway().on_redis(&server.url(), "pg").start().await;
    let first = gateway
        .call(request_with_token("contact-1", "token-1"))
        .await
        .unwrap()
        .into_inner();
    server.command(&["flushall"]).await;
    let again = gateway
        .call(request_with_token("contact-1", "token-1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(gateway.journal.attempt_count(), 2);
    assert_eq!(gateway.journal.participants().len(), 1);
    assert_eq!(again.participant_id, first.participant_id);
    let tokens = gateway.tokens();
    assert_eq!(tokens[0], tokens[1]);
    assert_eq!(tokens[0].as_ref().unwrap().len(), 43);
    assert!(!tokens[0].as_ref().unwrap().contains("token-1"));
}

#[tokio::test]
async fn a_result_whose_credentials_have_expired_is_never_made_anew() {
    for (gateway, _redis) in over_both_stores(gateway).await {
        // A result ends 30 s before its credentials: this one has never begun.
        gateway.call(request_with_token("sim-expires-20000", "token-1")).await.unwrap();
        let status = gateway
            .call(request_with_token("sim-expires-20000", "token-1"))
            .await
            .unwrap_err();
        assert_eq!(seen(&status), (Code::FailedPrecondition, "RESULT_EXPIRED"));
        assert!(status.get_details_precondition_failure().is_some());
        assert_eq!(gateway.journal.attempt_count(), 1);

        gateway.call(request_with_token("sim-expires-31500", "token-2")).await.unwrap();
        assert!(
            gateway
                .call(request_with_token("sim-expires-31500", "token-2"))
                .await
                .unwrap()
                .into_inner()
                .replayed
        );
        let call = async || gateway.call(request_with_token("sim-expires-31500", "token-2")).await;
        until_within(Duration::from_secs(3), "the result has ended", async || {
            call().await.is_err_and(|status| reason(&status) == "RESULT_EXPIRED")
        })
        .await;
    }
}

#[tokio::test]
async fn a_refusal_releases_the_token_and_an_uncertain_end_keeps_its_content() {
    for (gateway, _redis) in
        over_both_stores(|| gateway().with("/upstreams/main/max_attempts", 1)).await
    {
        gateway.call(request_with_token("sim-not-found", "token-1")).await.unwrap_err();
        gateway
            .call(request_with_token("contact-1", "token-1"))
            .await
            .expect("a refused call kept its token");

        gateway.call(request_with_token("sim-flaky-1", "token-2")).await.unwrap_err();
        let status = gateway.call(request_with_token("contact-1", "token-2")).await.unwrap_err();
        assert_eq!(reason(&status), "CLIENT_TOKEN_REUSED");
        let retried = gateway
            .call(request_with_token("sim-flaky-1", "token-2"))
            .await
            .unwrap()
            .into_inner();
        assert!(!retried.replayed);
        let tokens = gateway.tokens();
        assert_eq!(tokens[2], tokens[3], "the retry went out with another token");
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_gets_the_participant_when_it_calls_again() {
    for (gateway, _redis) in over_both_stores(gateway).await {
        let mut client = gateway.client().await;
        let call = tokio::spawn(async move {
            client
                .create_participant(of("demo", request_with_token("sim-slow-300", "token-1")))
                .await
        });
        gateway.attempted(1).await;
        call.abort();
        let again = gateway
            .call(request_with_token("sim-slow-300", "token-1"))
            .await
            .unwrap()
            .into_inner();
        assert!(again.replayed);
        assert_eq!(gateway.journal.attempt_count(), 1);
        assert_eq!(gateway.quota().await.in_flight, 0);
    }
}

#[tokio::test]
async fn replays_are_answered_while_the_circuit_is_open() {
    for (gateway, _redis) in
        over_both_stores(|| gateway().with("/upstreams/main/max_attempts", 1)).await
    {
        gateway.call(request_with_token("contact-1", "token-1")).await.unwrap();
        for _ in 0..5 {
            gateway.call(request("sim-internal")).await.unwrap_err();
        }
        let before = gateway.quota().await;
        for refused in [request("contact-1"), request_with_token("contact-1", "token-2")] {
            assert_eq!(reason(&gateway.call(refused).await.unwrap_err()), "CIRCUIT_OPEN");
        }
        assert!(
            gateway
                .call(request_with_token("contact-1", "token-1"))
                .await
                .unwrap()
                .into_inner()
                .replayed
        );
        assert!(
            gateway.quota().await.remaining >= before.remaining,
            "what was not sent was charged"
        );
    }
}
