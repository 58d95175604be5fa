//! What single answers say: of the right upstream, of damaged records, and of whether a repeat is
//! safe.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use participant_gateway::proto;
use participant_gateway::simulator::{Options, Simulator};
use serde_json::json;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use super::{Persisted, oks, over_redis, persistently, pushback, row, tenant, within, word};
use crate::support::redis::{RedisServer, text};
use crate::support::status::seen;
use crate::support::{Front, gateway, of, process, request, request_with_token};

fn remaining(answer: &tonic::Response<proto::CreateParticipantResponse>) -> u32 {
    answer
        .metadata()
        .get("ratelimit-remaining")
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joined_duplicate_is_told_the_levels_on_its_own_upstream() {
    let connect = Simulator::bind(([127, 0, 0, 1], 0).into(), Options::default()).await.unwrap();
    let url = connect.endpoint_url();
    tokio::spawn(connect.run(std::future::pending()));
    let other =
        json!({ "region": "eu-central-1", "instances": ["instance-2"], "endpoint_url": url });
    let plan = gateway()
        .with("/tenants/demo", tenant(&json!({ "rate": "1/h", "burst": 10 })))
        .with("/upstreams/other", other)
        .with("/upstreams/main/instances", json!(["instance-1"]));
    let (gateway, _redis) = over_redis(plan).await;
    for _ in 0..3 {
        gateway.call(request("contact-1")).await.unwrap();
    }
    let call = proto::CreateParticipantRequest {
        instance_id: "instance-2".to_owned(),
        ..request_with_token("sim-slow-500", "token-1")
    };
    let (first, second) = tokio::join!(gateway.call(call.clone()), gateway.call(call));
    let told = [remaining(&first.unwrap()), remaining(&second.unwrap())];
    row(
        "ratelimit-remaining is of the call's own upstream",
        "two upstreams, 7 of 10 left on the first; two duplicates on the second",
        format!("ratelimit-remaining of {} and {}", told[0], told[1]),
    );
    assert_eq!(told, [9, 9]);
}

/// The records that were not trusted, by cause.
async fn distrusted(gateway: &Front, cause: &str) -> u64 {
    let metrics = gateway.admin("/metrics").await.1;
    let cause = format!("cause=\"{cause}\"");
    let is_it = |line: &&str| {
        line.starts_with("participant_gateway_records_distrusted") && line.contains(&cause)
    };
    let lines = metrics.lines().filter(is_it);
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_not_trusted_is_counted_by_its_cause() {
    let server = RedisServer::start().await;
    let sealing = crate::support::key_file("sealing-1").display().to_string();
    let plan = |sealing: String| {
        gateway()
            .with("/idempotency/sealing_keys_file", sealing)
            .with("/store/redis/timeout", "5s")
            .on_redis(&server.url(), "pg")
    };
    let first = plan(sealing).start().await;
    for token in ["damaged", "forged", "sealed"] {
        first.call(request_with_token("contact-1", token)).await.unwrap();
        let redis::Value::Array(keys) = server.command(&["keys", "pg:{main}:record:*"]).await
        else {
            panic!("no keys")
        };
        for key in keys.iter().map(text) {
            match token {
                "damaged" => server.command(&["hset", &key, "times", "short"]).await,
                "forged" => {
                    // Not the one that is damaged.
                    let times = server.command(&["hstrlen", &key, "times"]).await;
                    if times != redis::Value::Int("short".len() as i64) {
                        server.command(&["hset", &key, "print", "another"]).await;
                    }
                    times
                }
                _ => redis::Value::Nil,
            };
        }
    }
    let fresh = crate::support::key_file("sealing-2").display().to_string();
    let second = plan(fresh).beside(&first).start().await;
    for token in ["damaged", "forged", "sealed"] {
        let answer = second.call(request_with_token("contact-1", token)).await;
        answer.unwrap_or_else(|status| panic!("{token}: {status:?}"));
    }
    let mut counts = Vec::new();
    for cause in ["malformed", "mac", "sealed"] {
        counts.push(distrusted(&second, cause).await);
    }
    row(
        "a record that is not trusted is counted by its cause",
        "a damaged record, a forged one, and one whose sealing key was dropped",
        format!("all OK; records.distrusted {counts:?} by malformed, mac, sealed"),
    );
    assert_eq!(counts, [1, 1, 1]);
    assert_eq!(first.journal.participant_count(), 3, "a participant was made twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_with_a_code_that_nobody_knows_is_a_throttle() {
    let answer = || async {
        let headers = [("x-amzn-errortype", "RequestRateTooHighException")];
        (axum::http::StatusCode::TOO_MANY_REQUESTS, headers, "{\"message\":\"slower\"}")
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let gateway = gateway()
        .with("/upstreams/main/endpoint_url", url)
        .with("/upstreams/main/max_attempts", 1)
        .start()
        .await;
    let status = gateway.call(request_with_token("contact-1", "token-1")).await.unwrap_err();
    row(
        "a 429 with an unknown code is a throttle",
        "Connect answers 429 with a code that nobody knows",
        format!("{:?} {}", status.code(), seen(&status).reason),
    );
    assert_eq!(seen(&status), (Code::ResourceExhausted, "UPSTREAM_THROTTLED"));
    assert_eq!(seen(&status).retry, Some(Duration::from_secs(1)));
    // Provably not executed: the token may be used for something else.
    let other = gateway.call(request_with_token("contact-2", "token-1")).await.unwrap_err();
    assert_eq!(seen(&other).reason, "UPSTREAM_THROTTLED");
}

#[test]
fn check_warns_of_two_upstreams_of_one_account() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let other = json!({
        "region": "us-east-1", "instances": ["instance-2"], "endpoint_url": "http://127.0.0.1:9",
    });
    gateway().with("/upstreams/other", other).write(file.path());
    let output = process::run(&["check", "--config", file.path().to_str().unwrap()]);
    let printed = process::printed(&output);
    let line = printed.lines().find(|line| line.contains("doubled"));
    row(
        "check warns that two upstreams of one account double the budget",
        "two upstreams with one region and role",
        line.unwrap_or("silence"),
    );
    assert!(line.is_some_and(|line| line.contains("upstreams.other.region")), "{printed}");
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_capabilities_are_the_same_as_none() {
    let (gateway, _redis) = over_redis(gateway()).await;
    gateway.call(request_with_token("contact-1", "token-1")).await.unwrap();
    let mut call = request_with_token("contact-1", "token-1");
    let details = call.participant_details.as_mut().unwrap();
    details.participant_capabilities = Some(proto::ParticipantCapabilities::default());
    let answer = gateway.call(call).await;
    row(
        "empty capabilities are the same content as none",
        "participant_capabilities: {} after a call without it, one token",
        word(&answer),
    );
    assert!(answer.unwrap().into_inner().replayed);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_failing_calls_use_up_nobody_elses_retries() {
    let plan = gateway()
        .with("/tenants/failing", tenant(&json!({})))
        .with("/upstreams/main/rate", "100000/s")
        .with("/upstreams/main/burst", 100_000);
    let (gateway, _redis) = over_redis(plan).await;
    let mut client = gateway.client().await;
    let time = Duration::from_secs(10);
    // Each needs two retries; four at a time, and a success after them, so that the circuit stays
    // closed once there are no retries left. A tenant has a hundred in ten seconds, and a fifth.
    let mut failed = false;
    for batch in 0..40 {
        let calls = (0..4).map(|number| {
            let mut client = client.clone();
            let call = request_with_token("sim-flaky-2", &format!("failing-{batch}-{number}"));
            async move { within(&mut client, "failing", call, time).await }
        });
        failed = oks(&join_all(calls).await) < 4;
        within(&mut client, "failing", request("contact-1"), time).await.unwrap();
        if failed {
            break;
        }
    }
    assert!(failed, "the failing tenant has retries without an end");
    let mut answers = Vec::new();
    for number in 0..5 {
        let call = request_with_token("sim-flaky-1", &format!("token-{number}"));
        answers.push(within(&mut client, "demo", call, time).await);
    }
    row(
        "each tenant has a retry budget of its own",
        "one tenant's calls fail until it has no retries; another's fail once each",
        format!("{} of {} of the other's are OK", oks(&answers), answers.len()),
    );
    assert_eq!(oks(&answers), answers.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_library_repeats_what_a_repeat_does_not_help() {
    let plan = gateway()
        .with("/server/max_request_bytes", 1024)
        .with("/upstreams/main/max_attempts", 1);
    let gateway = plan.start().await;
    let mut clients = [gateway.client().await];
    let mut large = request("contact-1");
    large.client_token = "x".repeat(2000);
    let mut seen_all = Vec::new();
    for (name, call) in [
        ("REQUEST_TOO_LARGE", large),
        ("sim-garbage", request("sim-garbage")),
        ("sim-internal", request("sim-internal")),
        ("sim-quota", request("sim-quota")),
        ("sim-conflict", request("sim-conflict")),
        ("INVALID_REQUEST", request("")),
        ("TENANT_UNKNOWN", request("contact-1")),
    ] {
        let tenant = if name == "TENANT_UNKNOWN" { "nobody" } else { "demo" };
        let before = gateway.journal.attempt_count();
        let time = Duration::from_secs(5);
        let Persisted { answer, attempts, .. } =
            persistently(&mut clients, tenant, &call, time, 5).await;
        let status = answer.unwrap_err();
        assert!(seen(&status).retry.is_none(), "{name}: {status:?}");
        assert_eq!((pushback(&status), attempts), (Some(-1), 1), "{name}: {status:?}");
        assert!(gateway.journal.attempt_count() - before <= 1, "{name}");
        seen_all.push(name);
    }
    // Errors of the services beside our own are no other.
    let mut health = HealthClient::new(gateway.channel().await);
    let unknown = HealthCheckRequest { service: "nobody".to_owned() };
    let status = health.check(unknown).await.unwrap_err();
    row(
        "no library repeats an error without RetryInfo",
        "errors without RetryInfo, under a policy that repeats much",
        format!(
            "one attempt each, pushback -1: {}; health's {:?}: {:?}",
            seen_all.join(", "),
            status.code(),
            pushback(&status)
        ),
    );
    assert_eq!((status.code(), pushback(&status)), (Code::NotFound, Some(-1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_of_connects_invites_a_repeat_where_a_token_makes_it_safe() {
    let gateway = gateway().start().await;
    let client = gateway.client().await;
    let begun = Instant::now();
    let calls = [request_with_token("sim-slow-60000", "token-1"), request("sim-slow-60000")];
    let calls = calls.map(|call| {
        let mut client = client.clone();
        async move { within(&mut client, "demo", call, Duration::from_secs(20)).await }
    });
    let mut told = Vec::new();
    for answer in join_all(calls).await {
        let status = answer.unwrap_err();
        assert_eq!(seen(&status), (Code::DeadlineExceeded, "UPSTREAM_TIMEOUT"));
        told.push(seen(&status).retry);
    }
    let took = begun.elapsed();
    // Three attempts of 3 s.
    assert!(took < Duration::from_secs(12), "{took:?}");
    row(
        "a timeout of Connect's has RetryInfo where a token makes a repeat safe",
        "Connect is silent, the deadline is 20 s, with a token and without one",
        format!("UPSTREAM_TIMEOUT at {took:.1?}, RetryInfo {:?} and {:?}", told[0], told[1]),
    );
    assert_eq!(told, [Some(Duration::from_secs(1)), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_must_send_a_client_token_is_told_so() {
    let plan = gateway().with("/tenants/demo/require_client_token", true);
    let (gateway, _redis) = over_redis(plan).await;
    let status = gateway.call(request("")).await.unwrap_err();
    let violations = status.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    let mut client = gateway.client().await;
    let answer = client
        .create_participant(of("demo", request_with_token("contact-1", "t")))
        .await;
    row(
        "require_client_token is told with all other violations",
        "a call without a token and without a contact; one with both",
        format!("{} of {fields:?}; {}", seen(&status).reason, word(&answer)),
    );
    assert_eq!(seen(&status), (Code::InvalidArgument, "INVALID_REQUEST"));
    assert_eq!(fields.len(), 2, "all violations are told together: {fields:?}");
    assert!(fields.contains(&"client_token"), "{fields:?}");
    answer.unwrap();
    assert_eq!(gateway.journal.attempt_count(), 1);
}
