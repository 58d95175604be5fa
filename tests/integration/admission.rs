//! Admission as callers see it, over both stores: replays, duplicates, limits, shares.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use participant_gateway::proto;
use participant_gateway::proto::quota_service_client::QuotaServiceClient;
use participant_gateway::simulator::Options;
use serde_json::json;
use tonic::Code;
use tonic::metadata::MetadataMap;
use tonic_types::StatusExt;

use crate::support::redis::RedisServer;
use crate::support::status::{reason, seen};
use crate::support::{Fixture, Plan, are_one_call, gateway, of, request, request_with_token};

fn ratelimit(metadata: &MetadataMap) -> (u64, u64, u64) {
    let figure = |name| {
        metadata
            .get(name)
            .unwrap_or_else(|| panic!("no {name}"))
            .to_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    (figure("ratelimit-limit"), figure("ratelimit-remaining"), figure("ratelimit-reset"))
}

async fn quota(gateway: &Fixture) -> proto::GetQuotaResponse {
    let request = proto::GetQuotaRequest { instance_id: "instance-1".to_owned() };
    let mut client = QuotaServiceClient::new(gateway.channel().await);
    client.get_quota(of("demo", request)).await.unwrap().into_inner()
}

/// A gateway over each store.
async fn over_both_stores(
    plan: impl Fn() -> Plan,
) -> Vec<(Fixture, Option<std::sync::Arc<RedisServer>>)> {
    let server = RedisServer::shared().await;
    let prefix = uuid::Uuid::new_v4().to_string();
    let (memory, redis) =
        (plan(), plan().on_redis(&server.url(), &prefix).with("/store/redis/timeout", "5s"));
    vec![(memory.start().await, None), (redis.start().await, Some(server))]
}

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
        tokio::time::sleep(Duration::from_millis(50)).await;
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
        tokio::time::sleep(Duration::from_millis(1600)).await;
        let status = gateway
            .call(request_with_token("sim-expires-31500", "token-2"))
            .await
            .unwrap_err();
        assert_eq!(reason(&status), "RESULT_EXPIRED");
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
        assert_eq!(quota(&gateway).await.in_flight, 0);
    }
}

#[tokio::test]
async fn a_tenant_above_its_rate_is_refused_and_admitted_at_the_hint() {
    let plan = || gateway().with("/tenants/demo/rate", "5/s").with("/tenants/demo/burst", 2);
    for (gateway, _redis) in over_both_stores(plan).await {
        let mut client = gateway.client().await;
        let mut call = async || client.create_participant(of("demo", request("contact-1"))).await;
        for _ in 0..2 {
            call().await.unwrap();
        }
        let status = call().await.unwrap_err();
        assert_eq!(seen(&status), (Code::ResourceExhausted, "TENANT_RATE_LIMITED"));
        assert_eq!(status.get_details_error_info().unwrap().metadata["limit"], "tenant_rate");
        assert_eq!(
            status.get_details_quota_failure().unwrap().violations[0].subject,
            "tenant:demo"
        );
        let (limit, remaining, reset) = ratelimit(status.metadata());
        assert_eq!((limit, remaining), (2, 0));
        assert!(reset >= 1);
        let hint = status.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!(hint > Duration::ZERO && hint <= Duration::from_millis(200), "{hint:?}");
        assert_eq!(
            status.metadata().get("grpc-retry-pushback-ms").unwrap(),
            &hint.as_millis().to_string()
        );
        tokio::time::sleep(hint).await;
        call().await.expect("refused at its own hint");
    }
}

#[tokio::test]
async fn a_tenants_calls_in_flight_are_bounded() {
    for (gateway, _redis) in
        over_both_stores(|| gateway().with("/tenants/demo/max_in_flight", 2)).await
    {
        let client = gateway.client().await;
        let slow: Vec<_> = (0..2)
            .map(|_| {
                let mut client = client.clone();
                tokio::spawn(async move {
                    client.create_participant(of("demo", request("sim-slow-400"))).await
                })
            })
            .collect();
        gateway.attempted(2).await;
        let status = gateway.call(request("contact-1")).await.unwrap_err();
        assert_eq!(seen(&status), (Code::ResourceExhausted, "TENANT_IN_FLIGHT_LIMITED"));
        assert_eq!(quota(&gateway).await.in_flight, 2);
        for call in slow {
            call.await.unwrap().unwrap();
        }
        gateway.call(request("contact-1")).await.unwrap();
    }
}

#[tokio::test]
async fn a_call_queues_for_its_slot_up_to_max_wait() {
    let plan = || gateway().with("/upstreams/main/rate", "5/s").with("/upstreams/main/burst", 1);
    for (gateway, _redis) in over_both_stores(plan).await {
        gateway.call(request("contact-1")).await.unwrap();
        let started = Instant::now();
        gateway.call(request("contact-1")).await.expect("200 ms fit 500 ms");
        assert!(started.elapsed() >= Duration::from_millis(100), "{:?}", started.elapsed());

        let client = gateway.client().await;
        let calls = (0..8).map(|_| {
            let mut client = client.clone();
            async move { client.create_participant(of("demo", request("contact-1"))).await }
        });
        let answers = join_all(calls).await;
        let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        assert!((4..8).contains(&refused.len()), "{} refused", refused.len());
        for status in refused {
            assert_eq!(reason(&status), "UPSTREAM_BUDGET_EXHAUSTED");
            assert_eq!(
                status.get_details_quota_failure().unwrap().violations[0].subject,
                "upstream:main"
            );
            assert!(status.get_details_retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
        }
    }
}

#[tokio::test]
async fn every_attempt_is_charged_to_the_budget() {
    let plan = || {
        gateway()
            .with("/upstreams/main/rate", "1/h")
            .with("/upstreams/main/burst", 2)
            .with("/upstreams/main/max_wait", "0ms")
    };
    for (gateway, _redis) in over_both_stores(plan).await {
        let status = gateway.call(request_with_token("sim-internal", "token-1")).await.unwrap_err();
        // The third attempt does not fit the budget: the last one's error is the answer.
        assert_eq!(reason(&status), "UPSTREAM_ERROR");
        assert_eq!(gateway.journal.attempt_count(), 2);
        let status = gateway.call(request("contact-1")).await.unwrap_err();
        assert_eq!(reason(&status), "UPSTREAM_BUDGET_EXHAUSTED");
    }
}

#[tokio::test]
async fn a_throttle_halves_the_budget_and_time_mends_it() {
    for (gateway, _redis) in over_both_stores(gateway).await {
        assert_eq!(quota(&gateway).await.upstream_factor, 1.0);
        let mut client = gateway.client().await;
        let call = tokio::spawn(async move {
            client.create_participant(of("demo", request("sim-throttled"))).await
        });
        gateway.attempted(1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let at_once = quota(&gateway).await.upstream_factor;
        assert!(at_once < 0.75, "the budget hears of a throttle only after the wait: {at_once}");
        call.await.unwrap().unwrap_err();
        let throttled = quota(&gateway).await.upstream_factor;
        assert!(throttled < 0.75, "{throttled}");
        tokio::time::sleep(Duration::from_millis(600)).await;
        let later = quota(&gateway).await.upstream_factor;
        assert!(later > throttled, "{throttled} then {later}");
    }
}

#[tokio::test]
async fn quotas_are_told_free_of_charge() {
    let plan = || {
        gateway()
            .with(
                "/tenants/demo",
                json!({ "instances": ["*"], "rate": "60/m", "burst": 3, "committed": "30/m" }),
            )
            .with("/tenants/demo/max_in_flight", 7)
    };
    for (gateway, _redis) in over_both_stores(plan).await {
        gateway.call(request("contact-1")).await.unwrap();
        let told: Vec<_> = [quota(&gateway).await, quota(&gateway).await].into();
        for quota in &told {
            assert_eq!(
                (quota.rate_per_second, quota.burst, quota.committed_per_second),
                (1.0, 3, 0.5)
            );
            assert_eq!((quota.remaining, quota.in_flight, quota.in_flight_limit), (2, 0, 7));
            assert_eq!(quota.enforcement(), proto::Enforcement::Enforce);
            assert!(!quota.config_version.is_empty());
            assert!(quota.time_until_full.as_ref().unwrap().nanos > 0);
        }
        let unknown = proto::GetQuotaRequest { instance_id: String::new() };
        let mut client = QuotaServiceClient::new(gateway.channel().await);
        let status = client.get_quota(of("demo", unknown)).await.unwrap_err();
        assert_eq!(reason(&status), "INVALID_REQUEST");
    }
}

#[tokio::test]
async fn a_tenant_in_shadow_is_let_through_and_told_its_limits() {
    let plan = || {
        gateway()
            .with("/tenants/demo/rate", "1/h")
            .with("/tenants/demo/burst", 1)
            .with("/tenants/demo/enforcement", "shadow")
    };
    for (gateway, _redis) in over_both_stores(plan).await {
        for _ in 0..3 {
            let reply = gateway.call(request("contact-1")).await.expect("a shadow refused");
            assert_eq!(ratelimit(reply.metadata()).1, 0);
        }
        assert_eq!(quota(&gateway).await.enforcement(), proto::Enforcement::Shadow);
    }
}

#[tokio::test]
async fn a_shadow_hides_no_limit_of_the_upstream() {
    let plan = || {
        gateway()
            .with("/tenants/demo/rate", "1/h")
            .with("/tenants/demo/burst", 1)
            .with("/tenants/demo/enforcement", "shadow")
            .with("/upstreams/main/rate", "1/h")
            .with("/upstreams/main/burst", 1)
    };
    for (gateway, _redis) in over_both_stores(plan).await {
        gateway.call(request("contact-1")).await.unwrap();
        let status = gateway.call(request("contact-1")).await.unwrap_err();
        assert_eq!(reason(&status), "UPSTREAM_BUDGET_EXHAUSTED");
    }
}

#[tokio::test]
async fn every_answer_whose_upstream_is_known_tells_the_levels_on_it() {
    for (gateway, _redis) in over_both_stores(|| gateway().with("/tenants/demo/burst", 9)).await {
        let invalid = gateway.call(proto::CreateParticipantRequest::default()).await.unwrap_err();
        assert!(invalid.metadata().get("ratelimit-limit").is_none(), "of which upstream?");
        let upstream = gateway.call(request("sim-not-found")).await.unwrap_err();
        assert_eq!(ratelimit(upstream.metadata()).0, 9);
        let mut client = gateway.client().await;
        let nobody =
            client.create_participant(of("nobody", request("contact-1"))).await.unwrap_err();
        assert!(nobody.metadata().get("ratelimit-limit").is_none());
    }
}

#[tokio::test]
async fn a_greedy_tenant_cannot_push_another_below_its_committed_rate() {
    let plan = || {
        gateway()
            .with(
                "/tenants/modest",
                json!({ "instances": ["*"], "rate": "50/s", "burst": 50, "committed": "5/s" }),
            )
            .with("/upstreams/main/rate", "20/s")
            .with("/upstreams/main/burst", 20)
    };
    for (gateway, _redis) in over_both_stores(plan).await {
        let client = gateway.client().await;
        let greedy: Vec<_> = (0..8)
            .map(|_| {
                let mut client = client.clone();
                tokio::spawn(async move {
                    loop {
                        let _ = client.create_participant(of("demo", request("contact-1"))).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut modest = gateway.client().await;
        for _ in 0..10 {
            let started = Instant::now();
            modest
                .create_participant(of("modest", request("contact-1")))
                .await
                .expect("below its committed rate");
            tokio::time::sleep(Duration::from_millis(200).saturating_sub(started.elapsed())).await;
        }
        for task in greedy {
            task.abort();
        }
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
        let before = quota(&gateway).await;
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
            quota(&gateway).await.remaining >= before.remaining,
            "what was not sent was charged"
        );
    }
}
