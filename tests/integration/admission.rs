//! Admission as callers see it, over both stores: limits, budget, shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use participant_gateway::proto;
use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use participant_gateway::proto::quota_service_client::QuotaServiceClient;
use serde_json::json;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use crate::support::gateway::over_both_stores;
use crate::support::status::{ratelimit, reason, seen};
use crate::support::{gateway, of, request, request_with_token, until, until_within};

#[tokio::test]
async fn a_tenant_above_its_rate_is_refused_and_admitted_at_the_hint() {
    let plan = || gateway().with("/tenants/demo/rate", "2/s").with("/tenants/demo/burst", 2);
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
        assert!(hint > Duration::ZERO && hint <= Duration::from_millis(500), "{hint:?}");
        assert_eq!(
            status.metadata().get("grpc-retry-pushback-ms").unwrap(),
            &hint.as_millis().to_string()
        );
        tokio::time::sleep(hint).await;
        call().await.expect("refused at its own hint");
    }
}

#[tokio::test]
async fn a_tenant_with_the_largest_burst_is_admitted() {
    for (gateway, _redis) in
        over_both_stores(|| gateway().with("/tenants/demo/burst", u32::MAX)).await
    {
        let mut client = gateway.client().await;
        client.create_participant(of("demo", request("contact-1"))).await.unwrap();
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
        assert_eq!(gateway.quota().await.in_flight, 2);
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
        let started = Instant::now();
        gateway.call(request("contact-1")).await.unwrap();
        gateway.call(request("contact-1")).await.expect("200 ms fit 500 ms");
        assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());

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
        assert_eq!(gateway.quota().await.upstream_factor, 1.0);
        let mut client = gateway.client().await;
        let call = tokio::spawn(async move {
            client.create_participant(of("demo", request("sim-throttled"))).await
        });
        gateway.attempted(1).await;
        // Connect asks for a second: the budget hears of the throttle before that.
        until("the budget is halved", async || gateway.quota().await.upstream_factor < 0.75).await;
        assert_eq!(gateway.journal.attempt_count(), 1, "only with the next attempt");
        call.await.unwrap().unwrap_err();
        let throttled = gateway.quota().await.upstream_factor;
        assert!(throttled < 0.75, "{throttled}");
        until_within(Duration::from_secs(1), "time mends it", async || {
            gateway.quota().await.upstream_factor > throttled
        })
        .await;
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
        let told: Vec<_> = [gateway.quota().await, gateway.quota().await].into();
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
        assert_eq!(gateway.quota().await.enforcement(), proto::Enforcement::Shadow);
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
        let greedy = Greedy::begin(gateway.client().await);
        until("the greedy tenant has taken all there is", async || greedy.refused() > 0).await;
        let (begun, before) = (Instant::now(), greedy.served());
        let mut modest = gateway.client().await;
        for _ in 0..10 {
            let started = Instant::now();
            modest
                .create_participant(of("modest", request("contact-1")))
                .await
                .expect("below its committed rate");
            tokio::time::sleep(Duration::from_millis(200).saturating_sub(started.elapsed())).await;
        }
        let (served, time) = (f64::from(greedy.served() - before), begun.elapsed().as_secs_f64());
        // 20/s less the modest tenant's 5/s.
        assert!(served > 15.0 * time * 0.8, "{served} calls in {time} s: a share was left unused");
        assert!(greedy.refused() > 1, "nobody pressed any more");
    }
}

/// Callers of tenant `demo` that ask for whatever they get, until they are dropped.
struct Greedy {
    served: Arc<AtomicU32>,
    refused: Arc<AtomicU32>,
    _callers: JoinSet<()>,
}

impl Greedy {
    fn begin(client: ParticipantServiceClient<Channel>) -> Self {
        let (served, refused) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let mut client = client.clone();
            let (served, refused) = (Arc::clone(&served), Arc::clone(&refused));
            callers.spawn(async move {
                loop {
                    match client.create_participant(of("demo", request("contact-1"))).await {
                        Ok(_) => served.fetch_add(1, Ordering::Relaxed),
                        Err(status) => {
                            assert_eq!(reason(&status), "UPSTREAM_BUDGET_EXHAUSTED");
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
        Self { served, refused, _callers: callers }
    }

    fn served(&self) -> u32 {
        self.served.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// More than the half a second's worth of 15/s that may queue.
const CALLERS: u32 = 24;
