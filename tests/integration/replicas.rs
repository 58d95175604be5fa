//! Several gateways over one Redis and one Connect.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use prost::Message;
use tonic_types::StatusExt;

use crate::support::raw::{METHOD, framed, post};
use crate::support::redis::RedisServer;
use crate::support::status::reason;
use crate::support::{Fixture, Plan, are_one_call, gateway, of, request, request_with_token};

/// Three gateways that share everything.
async fn three(server: &RedisServer, plan: impl Fn() -> Plan) -> [Fixture; 3] {
    let prefix = uuid::Uuid::new_v4().to_string();
    let on_redis = || plan().on_redis(&server.url(), &prefix).patient();
    let first = on_redis().start().await;
    let second = on_redis().beside(&first).start().await;
    let third = on_redis().beside(&first).start().await;
    [first, second, third]
}

#[tokio::test]
async fn sixty_four_duplicates_over_three_gateways_make_one_participant() {
    let server = RedisServer::shared().await;
    let gateways = three(&server, gateway).await;
    let clients =
        [gateways[0].client().await, gateways[1].client().await, gateways[2].client().await];
    let calls = (0..64).map(|index| {
        let mut client = clients[index % 3].clone();
        async move {
            client
                .create_participant(of("demo", request_with_token("sim-slow-300", "token-1")))
                .await
        }
    });
    let answers: Vec<_> = join_all(calls)
        .await
        .into_iter()
        .map(|answer| answer.unwrap().into_inner())
        .collect();
    are_one_call(&answers);
    assert_eq!(gateways[0].journal.attempt_count(), 1);
}

#[tokio::test]
async fn a_duplicate_elsewhere_hears_of_the_one_in_flight_before_its_deadline() {
    let server = RedisServer::shared().await;
    let [first, second, _] = three(&server, gateway).await;
    let mut client = first.client().await;
    let running = tokio::spawn(async move {
        client
            .create_participant(of("demo", request_with_token("sim-slow-1500", "token-1")))
            .await
    });
    first.attempted(1).await;
    for gateway in [&first, &second] {
        let body = framed(0, &request_with_token("sim-slow-1500", "token-1").encode_to_vec());
        let status =
            post(gateway, METHOD, &[("x-tenant-id", "demo"), ("grpc-timeout", "400m")], body).await;
        assert_eq!(reason(&status), "REQUEST_IN_PROGRESS");
        let hint = status.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!(hint > Duration::ZERO && hint <= Duration::from_secs(1), "{hint:?}");
    }
    running.await.unwrap().unwrap();
    assert_eq!(first.journal.attempt_count(), 1);
}

#[tokio::test]
async fn three_gateways_admit_what_one_would() {
    let server = RedisServer::shared().await;
    // So deep a bucket that a machine that stalls for seconds does not let it run over.
    let plan = || gateway().with("/tenants/demo/rate", "20/s").with("/tenants/demo/burst", 100);
    let gateways = three(&server, plan).await;
    let mut clients = Vec::new();
    for gateway in &gateways {
        for _ in 0..3 {
            clients.push(gateway.client().await);
        }
    }
    let span = Duration::from_secs(8);
    let callers = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            let (started, mut sent) = (Instant::now(), Vec::new());
            while started.elapsed() < span {
                let at = Instant::now();
                if client.create_participant(of("demo", request("contact-1"))).await.is_ok() {
                    sent.push(at);
                } else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            sent
        })
    });
    let ends = join_all(callers.collect::<Vec<_>>()).await;
    let sent: Vec<_> = ends.into_iter().flat_map(Result::unwrap).collect();
    // The bucket was full with the first call, so that is where its time begins.
    let time = *sent.iter().max().unwrap() - *sent.iter().min().unwrap();
    let most = 20.0 * time.as_secs_f64() + 100.0;
    let off = sent.len() as f64 - most;
    assert!(off.abs() <= 0.01 * most + 1.0, "{} admitted of {most}", sent.len());
}

#[tokio::test]
async fn a_call_that_a_killed_gateway_left_is_finished_by_another_after_its_lease() {
    let server = RedisServer::start().await;
    let other = gateway().on_redis(&server.url(), "pg").patient().start().await;
    let doomed = gateway()
        .on_redis(&server.url(), "pg")
        .with("/upstreams/main/attempt_timeout", "100ms")
        .beside(&other)
        .serve()
        .await;
    let mut client = doomed.client().await;
    let mut call = of("demo", request_with_token("sim-slow-90", "token-1"));
    call.set_timeout(Duration::from_millis(500));
    let cut = tokio::spawn(async move { client.create_participant(call).await });
    other.attempted(1).await;
    doomed.running.signal("KILL");
    cut.await.unwrap().unwrap_err();

    // The lease is the caller's 500 ms, the attempt's 100 ms and 2 s.
    let reply = other
        .call(request_with_token("sim-slow-90", "token-1"))
        .await
        .unwrap()
        .into_inner();
    assert!(!reply.replayed);
    assert_eq!(other.journal.participants().len(), 1);
    assert_eq!(reply.participant_id, other.journal.participants()[0].participant_id);
    assert_eq!(other.tokens()[0], other.tokens()[1]);
}

#[tokio::test]
async fn sealing_keys_rotate_without_losing_a_result() {
    let server = RedisServer::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let keys: Vec<_> = (0..2)
        .map(|_| participant_gateway::admission::keygen().unwrap().to_string())
        .collect();
    let write = |lines: &[&String]| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(file.path(), text).unwrap();
    };
    let start = async |beside: Option<&Fixture>| {
        let plan = gateway().on_redis(&server.url(), "pg").patient();
        let plan = plan.with("/idempotency/sealing_keys_file", file.path().display().to_string());
        match beside {
            Some(other) => plan.beside(other).start().await,
            None => plan.start().await,
        }
    };
    write(&[&keys[0]]);
    let old = start(None).await;
    let first = old.call(request_with_token("contact-1", "token-1")).await.unwrap().into_inner();

    write(&[&keys[1], &keys[0]]);
    let both = start(Some(&old)).await;
    let replay = both
        .call(request_with_token("contact-1", "token-1"))
        .await
        .unwrap()
        .into_inner();
    assert!(replay.replayed);
    assert_eq!(old.journal.attempt_count(), 1);

    // Nobody can open it any more: the call runs anew, and Connect recognises its token.
    write(&[&keys[1]]);
    let new = start(Some(&old)).await;
    let again = new.call(request_with_token("contact-1", "token-1")).await.unwrap().into_inner();
    assert!(!again.replayed);
    assert_eq!(again.participant_id, first.participant_id);
    assert_eq!(old.tokens()[0], old.tokens()[1], "the upstream token changed with the sealing key");
    assert!(
        new.call(request_with_token("contact-1", "token-1"))
            .await
            .unwrap()
            .into_inner()
            .replayed
    );
}
