//! Redis is lost before, during and after the upstream call; and comes back.

use std::time::{Duration, Instant};

use participant_gateway::proto;
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::redis::{RedisCluster, RedisServer, free_port};
use crate::support::status::{reason, seen};
use crate::support::{Plan, gateway, of, request, request_with_token, until, until_within};

fn rejecting(plan: Plan) -> Plan {
    plan.with("/store/on_loss", "reject")
}

#[tokio::test]
async fn a_gateway_starts_without_redis_and_serves_by_its_own_limits() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    let gateway = gateway().on_redis(&url, "pg").start().await;
    assert_eq!(gateway.admin("/readyz").await.0, 200);
    let started = Instant::now();
    let first = gateway
        .call(request_with_token("contact-1", "token-1"))
        .await
        .unwrap()
        .into_inner();
    let again = gateway
        .call(request_with_token("contact-1", "token-1"))
        .await
        .unwrap()
        .into_inner();
    assert!(again.replayed && again.participant_id == first.participant_id);
    assert!(started.elapsed() < Duration::from_millis(800), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_gateway_that_rejects_is_not_ready_until_redis_was_reached_once() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    let gateway = rejecting(gateway()).on_redis(&url, "pg").start().await;
    assert_eq!(gateway.admin("/readyz").await.0, 503);
    let mut health = tonic_health::pb::health_client::HealthClient::new(gateway.channel().await);
    let told = health
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner()
        .status;
    assert_eq!(told, tonic_health::pb::health_check_response::ServingStatus::NotServing as i32);
    let status = gateway.call(request("contact-1")).await.unwrap_err();
    assert_eq!(seen(&status), (Code::Unavailable, "STORE_UNAVAILABLE"));
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));
    assert_eq!(gateway.journal.attempt_count(), 0);
}

#[tokio::test]
async fn losing_redis_unreadies_nobody_and_its_return_needs_no_restart() {
    let mut server = RedisServer::start().await;
    let gateway = rejecting(gateway()).on_redis(&server.url(), "pg").start().await;
    gateway.call(request("contact-1")).await.unwrap();
    server.kill();
    for _ in 0..5 {
        let started = Instant::now();
        let status = gateway.call(request("contact-1")).await.unwrap_err();
        assert_eq!(reason(&status), "STORE_UNAVAILABLE");
        assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());
    }
    assert_eq!(gateway.admin("/readyz").await.0, 200);

    server.restart().await;
    until_within(Duration::from_secs(2), "redis is back in use", async || {
        gateway.call(request("contact-1")).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn redis_killed_before_a_call_leaves_it_served() {
    let mut server = RedisServer::start().await;
    let gateway = gateway().on_redis(&server.url(), "pg").start().await;
    server.kill();
    let started = Instant::now();
    gateway.call(request("contact-1")).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(800), "{:?}", started.elapsed());
}

#[tokio::test]
async fn redis_killed_during_the_upstream_call_loses_neither_the_answer_nor_the_promise() {
    let mut server = RedisServer::start().await;
    let gateway = gateway().on_redis(&server.url(), "pg").start().await;
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move {
        client
            .create_participant(of("demo", request_with_token("sim-slow-400", "token-1")))
            .await
    });
    gateway.attempted(1).await;
    server.kill();
    let first = call.await.unwrap().unwrap().into_inner();

    server.restart().await;
    let again = gateway
        .call(request_with_token("sim-slow-400", "token-1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.participant_id, first.participant_id);
    assert_eq!(gateway.journal.participants().len(), 1);
    let tokens = gateway.tokens();
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
}

#[tokio::test]
async fn a_frozen_redis_holds_back_no_answer_and_is_paid_for_once() {
    let server = RedisServer::start().await;
    let gateway = gateway().on_redis(&server.url(), "pg").start().await;
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move {
        let started = Instant::now();
        let reply = client
            .create_participant(of("demo", request_with_token("sim-slow-200", "token-1")))
            .await;
        (reply, started.elapsed())
    });
    gateway.attempted(1).await;
    server.pause();
    let (reply, elapsed) = call.await.unwrap();
    reply.unwrap();
    assert!(
        elapsed < Duration::from_millis(900),
        "the answer waited for the settlement: {elapsed:?}"
    );

    for _ in 0..3 {
        gateway.call(request("contact-1")).await.unwrap();
    }
    let started = Instant::now();
    for _ in 0..10 {
        gateway.call(request("contact-1")).await.unwrap();
    }
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "each call waits for the lost store: {:?}",
        started.elapsed()
    );
    server.resume();

    // The settlement was made up for in the background: the result is there again, without a second
    // attempt.
    let attempts = gateway.journal.attempt_count();
    let replayed = async || {
        let reply = gateway.call(request_with_token("sim-slow-200", "token-1")).await;
        reply.is_ok_and(|reply| reply.into_inner().replayed)
    };
    until_within(Duration::from_secs(10), "the result is settled", replayed).await;
    assert!(gateway.journal.attempt_count() <= attempts + 1);
    assert_eq!(
        gateway
            .journal
            .participants()
            .iter()
            .filter(|made| made.call.contact_id == "sim-slow-200")
            .count(),
        1
    );
}

#[tokio::test]
async fn a_flushed_script_cache_is_invisible() {
    let server = RedisServer::start().await;
    let gateway = rejecting(gateway()).on_redis(&server.url(), "pg").start().await;
    for _ in 0..3 {
        gateway.call(request("contact-1")).await.unwrap();
        server.command(&["script", "flush"]).await;
    }
}

#[tokio::test]
async fn a_wrong_password_counts_as_a_lost_redis() {
    let server = RedisServer::with_password("right").await;
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "wrong\n").unwrap();
    let plan = rejecting(gateway())
        .with("/store/redis/password_file", password.path().display().to_string());
    let gateway = plan.on_redis(&server.url(), "pg").start().await;
    assert_eq!(reason(&gateway.call(request("contact-1")).await.unwrap_err()), "STORE_UNAVAILABLE");

    // The file is read again for each connection, so that it can be mended.
    std::fs::write(password.path(), "right\n").unwrap();
    until_within(Duration::from_secs(5), "the right password is used", async || {
        gateway.call(request("contact-1")).await.is_ok()
    })
    .await;
    assert_eq!(gateway.journal.attempt_count(), 1);
}

#[tokio::test]
async fn a_slot_on_its_way_to_another_node_loses_nothing_and_refuses_nobody() {
    let cluster = RedisCluster::start().await;
    let plan = rejecting(gateway()).with("/store/redis/topology", "cluster");
    let plan = plan.on_redis("", "pg").with("/store/redis/urls", json!(cluster.urls()));
    let gateway = plan.patient().start().await;
    let first = gateway
        .call(request_with_token("contact-1", "token-1"))
        .await
        .unwrap()
        .into_inner();
    let slot = cluster.slot("pg:{main}:u").await;
    let from = cluster.owner(&slot).await;
    let to = (from + 1) % 3;

    cluster.begin_move(&slot, from, to).await;
    let mut client = gateway.client().await;
    let calls = tokio::spawn(async move {
        let mut answers = Vec::new();
        for number in 2..8 {
            let call = of("demo", request_with_token("contact-1", &format!("token-{number}")));
            answers.push(client.create_participant(call).await);
        }
        answers
    });
    until("Redis has asked for patience, and more than once", async || {
        let (_, metrics) = gateway.admin("/metrics").await;
        let mut counts = metrics.lines().filter_map(|line| line.rsplit_once(' '));
        counts.any(|(series, count)| {
            series.starts_with("db_client_operation_duration_seconds_count")
                && series.contains("error_type=\"TRYAGAIN\"")
                && count.parse::<u32>().unwrap() >= 3
        })
    })
    .await;
    assert!(!calls.is_finished(), "the slot's move went unnoticed");
    cluster.end_move(&slot, from, to).await;
    for answer in calls.await.unwrap() {
        assert!(!answer.unwrap().into_inner().replayed);
    }
    let again = gateway
        .call(request_with_token("contact-1", "token-1"))
        .await
        .unwrap()
        .into_inner();
    assert!(again.replayed && again.participant_id == first.participant_id);
    assert_eq!(gateway.journal.attempt_count(), 7);
    assert!(
        gateway
            .admin("/metrics")
            .await
            .1
            .contains("participant_gateway_store_degraded 0")
    );
}

#[tokio::test]
async fn an_upstream_whose_node_is_well_does_not_hear_of_anothers_loss() {
    let cluster = RedisCluster::start().await;
    for node in cluster.nodes() {
        node.command(&["config", "set", "cluster-require-full-coverage", "no"]).await;
    }
    // Two upstreams with slots of two nodes.
    let other = async || {
        let main = cluster.owner(&cluster.slot("pg:{main}:u").await).await;
        for number in 0..100 {
            let name = format!("other-{number}");
            if cluster.owner(&cluster.slot(&format!("pg:{{{name}}}:u")).await).await != main {
                return (name, main);
            }
        }
        panic!("all on one node");
    };
    let (name, lost) = other().await;
    let plan = rejecting(gateway()).with("/store/redis/topology", "cluster");
    let plan = plan.on_redis("", "pg").with("/store/redis/urls", json!(cluster.urls()));
    let plan = plan.with(
        &format!("/upstreams/{name}"),
        json!({ "region": "us-east-1", "instances": ["other"] }),
    );
    let gateway = plan.start().await;
    let mut second = request("contact-1");
    second.instance_id = "other".to_owned();
    let mut client = gateway.client().await;
    let mut reaches = async |message: &proto::CreateParticipantRequest| {
        let status = client.create_participant(of("demo", message.clone())).await.unwrap_err();
        reason(&status)
    };
    // Nobody listens at its endpoint: that it came so far is what counts.
    assert_ne!(reaches(&second).await, "STORE_UNAVAILABLE");

    cluster.nodes()[lost].pause();
    for _ in 0..4 {
        assert_eq!(reaches(&request("contact-1")).await, "STORE_UNAVAILABLE");
    }
    let started = Instant::now();
    for _ in 0..3 {
        assert_ne!(reaches(&second).await, "STORE_UNAVAILABLE");
    }
    assert!(
        gateway
            .admin("/metrics")
            .await
            .1
            .contains("participant_gateway_store_degraded 1")
    );
    // The lost node stays lost, whatever the others answer: no call pays for it again.
    while started.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        assert_eq!(reaches(&request("contact-1")).await, "STORE_UNAVAILABLE");
        assert!(asked.elapsed() < Duration::from_millis(200), "{:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.nodes()[lost].resume();
}
