//! A provider of credentials that is silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use participant_gateway::simulator::{self, Journal, Options, Simulator};
use serde_json::json;
use tokio::net::TcpListener;
use tonic::Code;

use crate::overload::row;
use crate::support::process::{self, Serving};
use crate::support::status::{reason, seen};
use crate::support::{Reply, of, request};

/// A container's credentials: for so long, and then nothing.
#[derive(Clone, Default)]
struct Provider {
    asked: Arc<AtomicU32>,
    silent: Arc<AtomicBool>,
}

impl Provider {
    async fn start(&self, life: Duration) -> String {
        let this = self.clone();
        let answer = async move || {
            this.asked.fetch_add(1, Ordering::Relaxed);
            if this.silent.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            let ends = jiff::Timestamp::now() + jiff::SignedDuration::try_from(life).unwrap();
            axum::Json(json!({
                "AccessKeyId": simulator::ACCESS_KEY_ID,
                "SecretAccessKey": simulator::SECRET_ACCESS_KEY,
                "Token": "session",
                "Expiration": format!("{ends:.0}"),
            }))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/credentials", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }
}

/// A gateway whose credentials are the provider's alone.
async fn serve(url: &str, attempt_timeout: &str) -> (Serving, Journal, tempfile::NamedTempFile) {
    serve_in(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)], attempt_timeout).await
}

/// A gateway whose credentials this environment names alone.
async fn serve_in(
    environment: &[(&str, &str)],
    attempt_timeout: &str,
) -> (Serving, Journal, tempfile::NamedTempFile) {
    let connect = Simulator::bind(([127, 0, 0, 1], 0).into(), Options::default()).await.unwrap();
    let (endpoint, journal) = (connect.endpoint_url(), connect.journal());
    tokio::spawn(connect.run(std::future::pending()));
    let file = tempfile::NamedTempFile::new().unwrap();
    crate::support::gateway()
        .with("/upstreams/main/endpoint_url", endpoint)
        .with("/upstreams/main/attempt_timeout", attempt_timeout)
        .with("/upstreams/main/max_attempts", 1)
        .write(file.path());
    let environment = [environment, &[("HOME", "/nowhere")]].concat();
    (process::serve(file.path(), &environment).await, journal, file)
}

async fn call(gateway: &Serving) -> (Reply, Duration) {
    let mut client = crate::support::gateway::client(gateway.addr).await;
    let started = Instant::now();
    let answer = client.create_participant(of("demo", request("contact-1"))).await;
    (answer, started.elapsed())
}

#[tokio::test]
async fn of_a_silent_provider_one_call_waits_and_the_others_hear_at_once() {
    let provider = Provider::default();
    provider.silent.store(true, Ordering::Relaxed);
    let url = provider.start(Duration::from_secs(3600)).await;
    let (gateway, journal, _file) = serve(&url, "500ms").await;
    let (first, waited) = call(&gateway).await;
    let others = join_all((0..8).map(|_| call(&gateway))).await;
    let longest = others.iter().map(|other| other.1).max().unwrap();
    row(
        "of a silent provider one call waits, and the others hear at once",
        "a container's credentials are silent, nine calls",
        format!("the first waited for {waited:.1?}, the others for {longest:.1?} at most"),
    );
    for (answer, _) in others.iter().chain([&(first, waited)]) {
        let status = answer.as_ref().unwrap_err();
        assert_eq!(seen(status), (Code::Unavailable, "UPSTREAM_CREDENTIALS_UNAVAILABLE"));
        assert!(seen(status).retry.is_some());
    }
    for (_, took) in &others {
        assert!(*took < Duration::from_millis(250), "{took:?}, as the first: {waited:?}");
    }
    assert_eq!((journal.attempt_count(), provider.asked.load(Ordering::Relaxed)), (0, 1));
}

#[tokio::test]
async fn credentials_of_a_few_seconds_serve_while_their_refresh_is_silent() {
    let provider = Provider::default();
    let life = Duration::from_secs(10);
    let url = provider.start(life).await;
    let (gateway, _journal, _file) = serve(&url, "3s").await;
    let loaded = Instant::now();
    call(&gateway).await.0.unwrap();
    provider.silent.store(true, Ordering::Relaxed);
    // Their end is rounded to a second, and near their end is near enough for a refresh.
    let mut served = 0;
    while loaded.elapsed() < life - Duration::from_secs(3) {
        let (answer, took) = call(&gateway).await;
        answer.unwrap_or_else(|status| panic!("{:?} after the load: {status:?}", loaded.elapsed()));
        assert!(took < Duration::from_secs(2), "it waited for the refresh: {took:?}");
        served += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let asked = provider.asked.load(Ordering::Relaxed);
    assert!(asked >= 2, "no refresh began in {:?}", loaded.elapsed());
    assert!(served >= 20, "{served} calls");
    row(
        "credentials serve until they end, while their refresh hangs",
        "credentials of 10 s, whose refresh is silent",
        format!("{served} calls OK in the first 7 s"),
    );
    // Then a call is refused, and in time.
    tokio::time::sleep((life + ROUNDING).saturating_sub(loaded.elapsed())).await;
    let (answer, took) = call(&gateway).await;
    let status = answer.unwrap_err();
    assert_eq!(seen(&status), (Code::Unavailable, "UPSTREAM_CREDENTIALS_UNAVAILABLE"));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn of_a_silent_metadata_service_one_call_of_five_waits() {
    // It takes connections, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    let environment = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
    let (gateway, journal, _file) = serve_in(&environment, "3s").await;
    let mut waits = Vec::new();
    for _ in 0..5 {
        let (answer, took) = call(&gateway).await;
        assert_eq!(reason(&answer.unwrap_err()), "UPSTREAM_CREDENTIALS_UNAVAILABLE");
        waits.push(took);
    }
    row(
        "of a silent provider one call waits, and the others hear at once",
        "a silent instance-metadata service, five calls one after another",
        format!("{waits:.1?}"),
    );
    let waited = waits.iter().filter(|took| **took >= Duration::from_millis(500)).count();
    assert_eq!((waited, journal.attempt_count()), (1, 0), "{waits:?}");
}

/// An end is rounded to a second, and is reckoned from when the provider answers.
const ROUNDING: Duration = Duration::from_millis(1500);
