//! An upstream with a role of its own: assumed at a real socket that speaks STS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use participant_gateway::simulator;
use tonic::Status;

use crate::support::gateway::Child;
use crate::support::status::reason;
use crate::support::{Front, gateway, request_with_token, until};

/// Hands out the simulator's key, and keeps what it was asked.
#[derive(Clone)]
struct Sts {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    /// How long it takes, and for how long its credentials are valid.
    mood: Arc<Mutex<(Duration, Duration)>>,
}

impl Sts {
    async fn start(takes: Duration, life: Duration) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let sts = Self { addr, asked: Arc::default(), mood: Arc::new(Mutex::new((takes, life))) };
        let (asked, mood) = (Arc::clone(&sts.asked), Arc::clone(&sts.mood));
        let router = axum::Router::new().fallback(async move |form: String| {
            asked.lock().unwrap().push(form);
            let (takes, life) = *mood.lock().unwrap();
            tokio::time::sleep(takes).await;
            ([("content-type", "text/xml")], credentials(life))
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        sts
    }

    fn turns(&self, takes: Duration) {
        self.mood.lock().unwrap().0 = takes;
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// As the AWS STS API Reference shows the answer to AssumeRole.
fn credentials(life: Duration) -> String {
    let ends = jiff::Timestamp::now() + jiff::SignedDuration::try_from(life).unwrap();
    format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><AssumedRoleUser>\
         <AssumedRoleId>AROA:participant-gateway</AssumedRoleId><Arn>arn:aws:sts::123456789012:assumed-role/r/s</Arn>\
         </AssumedRoleUser><Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>canary-session</SessionToken><Expiration>{:.0}</Expiration></Credentials></AssumeRoleResult>\
         <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleResponse>",
        simulator::ACCESS_KEY_ID,
        simulator::SECRET_ACCESS_KEY,
        ends,
    )
}

async fn serve(sts: &Sts) -> Child {
    let plan = gateway()
        .with("/upstreams/main/role_arn", "arn:aws:iam::123456789012:role/connect")
        .with("/upstreams/main/external_id", "gateway-1")
        .with("/upstreams/main/attempt_timeout", "500ms")
        .with("/upstreams/main/max_attempts", 1);
    let sts = format!("http://{}", sts.addr);
    // The gateway's own, which STS alone gets to see.
    let own = [("AWS_ACCESS_KEY_ID", "BASEKEY"), ("AWS_SECRET_ACCESS_KEY", "base-secret")];
    plan.serve_in(&[&own[..], &[("AWS_ENDPOINT_URL_STS", &sts)]].concat()).await
}

async fn call(gateway: &Front, token: &str) -> Result<(), Status> {
    gateway.call(request_with_token("contact-1", token)).await.map(drop)
}

#[tokio::test]
async fn a_role_is_assumed_with_its_external_id_once_for_many_calls() {
    let sts = Sts::start(Duration::ZERO, Duration::from_secs(3600)).await;
    let gateway = serve(&sts).await;
    for number in 0..3 {
        call(&gateway, &format!("token-{number}")).await.unwrap();
    }
    let asked = sts.asked.lock().unwrap().clone();
    let [form] = asked.as_slice() else { panic!("{asked:?}") };
    for part in [
        "Action=AssumeRole",
        "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fconnect",
        "ExternalId=gateway-1",
        "RoleSessionName=participant-gateway",
    ] {
        assert!(form.contains(part), "{part} is not in {form}");
    }
    assert_eq!(gateway.journal.participant_count(), 3);
}

#[tokio::test]
async fn credentials_that_take_longer_than_an_attempt_come_all_the_same() {
    let sts = Sts::start(Duration::from_millis(1_200), Duration::from_secs(3600)).await;
    let gateway = serve(&sts).await;
    let status = call(&gateway, "token-1").await.unwrap_err();
    assert_eq!(reason(&status), "UPSTREAM_CREDENTIALS_UNAVAILABLE");
    until("credentials are there", async || call(&gateway, "token-1").await.is_ok()).await;
    assert_eq!(sts.count(), 1, "each attempt began anew");
}

#[tokio::test]
async fn credentials_that_are_valid_serve_while_their_refresh_hangs() {
    // So close to their end that they are loaded anew, ten seconds after the last load at the
    // earliest.
    let sts = Sts::start(Duration::ZERO, Duration::from_secs(120)).await;
    let gateway = serve(&sts).await;
    call(&gateway, "token-1").await.unwrap();
    sts.turns(Duration::from_secs(3600));
    let begun = std::time::Instant::now();
    let mut fresh = (2..).map(|number| format!("token-{number}"));
    while sts.count() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(30), "no refresh began");
        call(&gateway, &fresh.next().unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    for token in fresh.take(4) {
        let started = std::time::Instant::now();
        call(&gateway, &token).await.unwrap();
        assert!(started.elapsed() < Duration::from_millis(450), "{:?}", started.elapsed());
    }
}
