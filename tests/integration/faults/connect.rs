//! Connect, and the way to it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use participant_gateway::simulator::{Options, Simulator, Throttle};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

use crate::support::redis::RedisServer;
use crate::support::status::seen;
use crate::support::{ClosedPort, gateway, request, request_with_token, until_within};

/// A load balancer's way with idle connections: it forgets them, says nothing, and resets them at
/// the next byte.
struct Forgetful {
    addr: SocketAddr,
    forgotten: Arc<AtomicU32>,
    resets: Arc<AtomicU32>,
}

impl Forgetful {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (forgotten, resets) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let this = Self { addr, forgotten: Arc::clone(&forgotten), resets: Arc::clone(&resets) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (forgotten, resets) = (Arc::clone(&forgotten), Arc::clone(&resets));
                tokio::spawn(pass_on(client, server, forgotten, resets));
            }
        });
        this
    }

    /// Forgets all connections of now.
    fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }
}

async fn pass_on(
    client: TcpStream,
    server: SocketAddr,
    forgotten: Arc<AtomicU32>,
    resets: Arc<AtomicU32>,
) {
    let at_start = forgotten.load(Ordering::Relaxed);
    let mut server = TcpStream::connect(server).await.unwrap();
    client.set_zero_linger().unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.split();
    let forth = async {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
            if forgotten.load(Ordering::Relaxed) != at_start {
                resets.fetch_add(1, Ordering::Relaxed);
                return;
            }
            to_server.write_all(&bytes[..length]).await.unwrap();
        }
    };
    let back = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    };
    tokio::select! { () = forth => {}, () = back => {} }
}

#[tokio::test]
async fn a_stale_pooled_connection_is_invisible() {
    let connect = Simulator::bind(([127, 0, 0, 1], 0).into(), Options::default()).await.unwrap();
    let journal = connect.journal();
    let proxy = Forgetful::before(connect.addr()).await;
    tokio::spawn(connect.run(std::future::pending()));
    let gateway = gateway()
        .with("/upstreams/main/endpoint_url", format!("http://{}", proxy.addr))
        .serve()
        .await;
    gateway.call(request("contact-1")).await.unwrap();
    for (stale, token) in (1..).zip(["token-1", "", "token-2", ""]) {
        proxy.forget();
        let started = Instant::now();
        let answer = gateway.call(request_with_token("contact-1", token)).await.unwrap();
        assert!(!answer.into_inner().replayed);
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        assert_eq!(proxy.resets.load(Ordering::Relaxed), stale, "no connection was stale");
        assert_eq!(journal.participant_count(), 1 + u64::from(stale));
    }
}

#[tokio::test]
async fn connect_that_cannot_be_reached_costs_neither_a_claim_nor_a_charge() {
    let redis = RedisServer::shared().await;
    let closed = ClosedPort::new();
    for url in [format!("http://{}", closed.addr()), "http://no-such-host.invalid".into()] {
        let prefix = uuid::Uuid::new_v4().to_string();
        let gateway = gateway()
            .with("/upstreams/main/endpoint_url", url.as_str())
            // Nothing comes back by time.
            .with("/tenants/demo/rate", "1/h")
            .with("/tenants/demo/burst", 10)
            .on_redis(&redis.url(), &prefix)
            .patient()
            .serve()
            .await;
        // The second has other content: no claim of the first one's is left.
        for contact in ["contact-1", "contact-2"] {
            let status = gateway.call(request_with_token(contact, "token-1")).await.unwrap_err();
            assert_eq!(seen(&status), (Code::Unavailable, "UPSTREAM_UNREACHABLE"), "{url}");
            assert!(seen(&status).retry.is_some());
        }
        let quota = gateway.quota().await;
        assert_eq!((quota.remaining, quota.in_flight), (10, 0), "{url}");
    }
}

/// How often Connect was asked, by a call that a fault of Connect's meets and that ends OK.
async fn attempts_of_one_call(contact: &str) -> u64 {
    let redis = RedisServer::shared().await;
    let prefix = uuid::Uuid::new_v4().to_string();
    let gateway = gateway().on_redis(&redis.url(), &prefix).patient().serve().await;
    let call = request_with_token(contact, "token-1");
    let (answer, _) = super::timed(&gateway, call, Duration::from_secs(5)).await;
    let answer = answer.unwrap().into_inner();
    assert!(!answer.replayed);
    super::is_one_participant(&gateway, &[answer]);
    gateway.journal.attempt_count()
}

#[tokio::test]
async fn a_reset_after_the_request_was_read_is_tried_again_and_makes_one_participant() {
    // Connect makes the participant, and resets the first connection.
    assert_eq!(attempts_of_one_call("sim-reset-1").await, 2);
}

#[tokio::test]
async fn an_error_of_connects_and_then_a_success_are_one_success_to_the_caller() {
    assert_eq!(attempts_of_one_call("sim-flaky-1").await, 2);
}

#[tokio::test]
async fn a_storm_of_throttles_stays_under_the_budget_and_passes() {
    const TIME: Duration = Duration::from_secs(4);
    let throttle = Throttle { rate_per_second: 1.0, burst: 1.0 };
    let gateway = gateway()
        .over(Options {
            throttle: Some(throttle),
            retry_after: Some(Duration::from_millis(200)),
            ..Options::default()
        })
        .with("/upstreams/main/rate", "20/s")
        .with("/upstreams/main/burst", 10)
        .serve()
        .await;
    let started = Instant::now();
    let client = gateway.client().await;
    let callers = (0..8).map(|_| {
        let mut client = client.clone();
        async move {
            let mut refused = Vec::new();
            while started.elapsed() < TIME {
                let call = crate::support::of("demo", request("contact-1"));
                match client.create_participant(call).await {
                    Ok(_) => {}
                    Err(status) => refused.push(seen(&status)),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            refused
        }
    });
    let refused: Vec<_> = join_all(callers).await.into_iter().flatten().collect();
    let (attempts, time) = (gateway.journal.attempt_count() as f64, started.elapsed());
    let lowest = gateway.quota().await.upstream_factor;
    for refused in &refused {
        assert_eq!(refused.code, Code::ResourceExhausted, "{refused:?}");
        assert!(refused.retry.is_some(), "{refused:?}");
    }
    assert!(refused.iter().any(|refused| refused.reason == "UPSTREAM_THROTTLED"), "{refused:?}");
    // The factor halves once a second: of the whole budget, half is used at most.
    let budget = 20.0 * time.as_secs_f64() + 10.0;
    println!("{attempts} attempts of {budget} in {time:?}, the factor is {lowest}");
    assert!(attempts <= 0.6 * budget, "{attempts} attempts of {budget}");
    assert!(lowest <= 0.25, "the factor is {lowest}");
    until_within(Duration::from_secs(20), "the factor recovers without a call", async || {
        gateway.quota().await.upstream_factor >= 0.75
    })
    .await;
}

/// What Connect answers now, with status 200.
type Answer = Arc<Mutex<String>>;

async fn connect_that_says(answer: &Answer) -> String {
    let answer = Arc::clone(answer);
    let says = async move || {
        let body = answer.lock().unwrap().clone();
        ([("content-type", "application/json")], body)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(says);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn replies_that_no_client_can_read_are_bounded_and_spoil_no_token() {
    let good = json!({
        "ParticipantId": "participant-1",
        "ParticipantCredentials": {
            "ParticipantToken": "a-token", "Expiry": "2099-01-01T00:00:00.000Z",
        },
    });
    let good = good.to_string();
    let nested = format!("{{\"Nested\":{}{},", "[".repeat(100_000), "]".repeat(100_000));
    let (answer, redis) = (Answer::default(), RedisServer::shared().await);
    let gateway = gateway()
        .with("/upstreams/main/endpoint_url", connect_that_says(&answer).await)
        .on_redis(&redis.url(), &uuid::Uuid::new_v4().to_string())
        .patient()
        .serve()
        .await;
    answer.lock().unwrap().clone_from(&good);
    gateway.call(request("contact-1")).await.unwrap();
    let before = gateway.running.resident_mib();
    for (name, bad) in [
        ("empty", String::new()),
        ("truncated", good[..good.len() / 2].to_owned()),
        ("without a token", good.replace("ParticipantToken", "Other")),
        ("without an id", good.replace("ParticipantId", "Other")),
        ("of 10 MB", " ".repeat(10 << 20) + &good),
        ("nested", nested + &good[1..]),
    ] {
        let call = || gateway.call(request_with_token("contact-1", name));
        *answer.lock().unwrap() = bad;
        for answer in join_all([call(), call(), call(), call()]).await {
            let status = answer.unwrap_err();
            assert_eq!(seen(&status), (Code::Internal, "UPSTREAM_BAD_RESPONSE"), "{name}");
        }
        answer.lock().unwrap().clone_from(&good);
        for replayed in [false, true] {
            let answer = call().await.unwrap_or_else(|status| panic!("{name}: {status:?}"));
            assert_eq!(answer.into_inner().replayed, replayed, "{name}");
        }
    }
    let grown = gateway.running.resident_mib().saturating_sub(before);
    println!("{grown} MiB more");
    assert!(grown < 64, "{grown} MiB more");
}
