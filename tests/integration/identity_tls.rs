//! Who may call, over real connections: tokens, certificates, and their change while calls run.

#[path = "../../src/net/tls/tests/authority.rs"]
#[allow(dead_code, reason = "shared with the unit tests")]
pub mod authority;
#[path = "../../src/identity/jwt/tests/issuer.rs"]
#[allow(dead_code, reason = "shared with the unit tests")]
pub mod issuer;

#[path = "../../src/identity/jwt/tests/server.rs"]
#[allow(dead_code, reason = "shared with the unit tests")]
mod server;

mod headers;
mod https_keys;
mod issuers;
mod refusals;

use std::fs;
use std::time::{Duration, SystemTime};

use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use serde_json::json;
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use crate::support::process::{printed, shell, tool};
use crate::support::status::seen;
use crate::support::{Front, Plan, gateway, of, request};
use authority::{Authority, Pair};
use issuer::{AUDIENCE, Endpoint as KeyEndpoint, ISSUER, Signer, claims, key_set};

const BOT: &str = "system:serviceaccount:chat:bot";
const SPIFFE: &str = "spiffe://corp/ns/chat/sa/bot";

/// The files of a TLS server, and the CA behind them.
struct Files {
    folder: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: TempDir::new().unwrap(), authority: Authority::new() };
        files.authority.server(4000).write(files.folder.path());
        fs::write(files.folder.path().join("ca.crt"), &files.authority.pem).unwrap();
        files
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn under(&self, plan: Plan) -> Plan {
        let tls = json!({ "cert_file": self.path("tls.crt"), "key_file": self.path("tls.key"),
                          "client_ca_file": self.path("ca.crt") });
        plan.with("/server/tls", tls)
    }

    async fn channel(
        &self,
        gateway: &Front,
        shows: Option<&Pair>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.authority.pem));
        if let Some(pair) = shows {
            tls = tls.identity(Identity::from_pem(&pair.cert, &pair.key));
        }
        let url = format!("https://localhost:{}", gateway.addr.port());
        Endpoint::from_shared(url)?.tls_config(tls)?.connect().await
    }

    /// One call over a connection of its own; `None` where there was no connection to be had.
    async fn call(&self, gateway: &Front, shows: Option<&Pair>) -> Option<Result<(), Status>> {
        let channel = self.channel(gateway, shows).await.ok()?;
        let called = ParticipantServiceClient::new(channel)
            .create_participant(Request::new(request("c")))
            .await;
        Some(called.map(drop))
    }
}

fn mtls() -> Plan {
    gateway()
        .with("/identity/mode", "mtls")
        .with("/tenants/demo/subjects", json!([SPIFFE]))
}

fn jwt(key_set_url: &str) -> Plan {
    gateway()
        .with("/identity/mode", "jwt")
        .with(
            "/identity/jwt",
            json!({ "issuer": ISSUER, "audience": AUDIENCE, "jwks_url": key_set_url }),
        )
        .with("/tenants/demo/subjects", json!([BOT]))
}

/// A call of one contact with these bearer tokens, and the tenant's name in a header that must not
/// count.
async fn with_tokens(gateway: &Front, tokens: &[&str], instance: &str) -> Result<(), Status> {
    let mut message = request("contact-1");
    instance.clone_into(&mut message.instance_id);
    let mut call = of("demo", message);
    for token in tokens {
        call.metadata_mut()
            .append("authorization", format!("Bearer {token}").parse().unwrap());
    }
    gateway.client().await.create_participant(call).await.map(drop)
}

const UNAUTHENTICATED: (Code, &str) = (Code::Unauthenticated, "UNAUTHENTICATED");

#[tokio::test]
async fn only_a_good_token_gets_a_participant_whatever_the_tenant_header_says() {
    let (signer, stranger) = (Signer::new("a", "RS256"), Signer::new("a", "RS256"));
    let endpoint = KeyEndpoint::serving(&key_set([&signer])).await;
    let gateway = jwt(&endpoint.url()).start().await;
    let now = SystemTime::now();
    let good = signer.token(&claims(BOT, now));
    with_tokens(&gateway, &[&good], "instance-1").await.unwrap();

    let mut expired = claims(BOT, now - Duration::from_secs(7200));
    expired["nbf"] = 0.into();
    let mut foreign = claims(BOT, now);
    foreign["aud"] = "another".into();
    let tampered = format!("{}x", &good[..good.len() - 1]);
    for tokens in [
        &[][..],
        &[&*good, &*good],
        &[&*tampered],
        &[&*signer.token(&expired)],
        &[&*signer.token(&foreign)],
        &[&*stranger.token(&claims(BOT, now))],
    ] {
        let status = with_tokens(&gateway, tokens, "instance-1").await.unwrap_err();
        assert_eq!(seen(&status), UNAUTHENTICATED, "{tokens:?}");
    }
    let nobody = with_tokens(&gateway, &[&signer.token(&claims("demo", now))], "instance-1")
        .await
        .unwrap_err();
    assert_eq!(seen(&nobody), (Code::PermissionDenied, "TENANT_UNKNOWN"));
    assert_eq!(gateway.journal.attempt_count(), 1);
}

#[tokio::test]
async fn another_tenants_instance_looks_like_nobodys() {
    let signer = Signer::new("a", "ES256");
    let endpoint = KeyEndpoint::serving(&key_set([&signer])).await;
    let other =
        json!({ "subjects": ["other"], "instances": ["theirs"], "rate": "1/s", "burst": 1 });
    let plan = jwt(&endpoint.url())
        .with("/tenants/demo/instances", json!(["own"]))
        .with("/tenants/other", other);
    let gateway = plan.with("/upstreams/main/instances", json!(["own", "theirs"])).start().await;
    let token = signer.token(&claims(BOT, SystemTime::now()));
    with_tokens(&gateway, &[&token], "own").await.unwrap();
    let theirs = with_tokens(&gateway, &[&token], "theirs").await.unwrap_err();
    let nobodys = with_tokens(&gateway, &[&token], "nobodys").await.unwrap_err();
    assert_eq!(theirs.message(), nobodys.message());
    assert_eq!(seen(&theirs), seen(&nobodys));
}

#[tokio::test]
async fn a_client_certificate_is_its_tenant_and_health_needs_none() {
    let files = Files::new();
    let gateway = files.under(mtls()).start().await;
    let client = files.authority.client(&[SPIFFE]);
    assert!(files.call(&gateway, Some(&client)).await.unwrap().is_ok());

    let none = files.call(&gateway, None).await.unwrap().unwrap_err();
    assert_eq!(seen(&none), UNAUTHENTICATED);
    let stranger = files
        .call(&gateway, Some(&files.authority.client(&["spiffe://corp/x"])))
        .await
        .unwrap();
    assert_eq!(seen(&stranger.unwrap_err()), (Code::PermissionDenied, "TENANT_UNKNOWN"));
    for pair in
        [Authority::new().client(&[SPIFFE]), files.authority.client_between(&[SPIFFE], 2020, 2021)]
    {
        // With TLS 1.3 a client learns of the refusal only with its first call.
        let refused = files.call(&gateway, Some(&pair)).await;
        assert!(refused.is_none_or(|called| {
            called.is_err_and(|status| status.code() != Code::Unauthenticated)
        }));
    }
    let channel = files.channel(&gateway, None).await.unwrap();
    let check = tonic_health::pb::HealthCheckRequest { service: String::new() };
    tonic_health::pb::health_client::HealthClient::new(channel)
        .check(check)
        .await
        .unwrap();
    assert_eq!(gateway.journal.attempt_count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_calls_with_its_certificate() {
    let Some(_) = tool("grpcurl") else { return };
    let files = Files::new();
    let gateway = files.under(mtls()).start().await;
    fs::create_dir(files.path("client")).unwrap();
    files.authority.client(&[SPIFFE]).write(&files.folder.path().join("client"));
    let call = |identity: &str| {
        let message = json!({ "instance_id": "i", "contact_id": "c", "participant_details":
            { "participant_role": "PARTICIPANT_ROLE_CUSTOM_BOT", "display_name": "Bot" } });
        let line = format!(
            "grpcurl -cacert {} {identity} -d '{message}' localhost:{} \
             participantgateway.v1.ParticipantService/CreateParticipant",
            files.path("ca.crt"),
            gateway.addr.port(),
        );
        tokio::task::block_in_place(|| printed(&shell(&line)))
    };
    let own =
        format!("-cert {} -key {}", files.path("client/tls.crt"), files.path("client/tls.key"));
    assert!(call(&own).contains("participantToken"), "{}", call(&own));
    assert!(call("").contains("Unauthenticated"), "{}", call(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_served_without_a_failed_call() {
    let files = Files::new();
    let gateway = files.under(mtls()).start().await;
    let client = files.authority.client(&[SPIFFE]);
    let kept = files.channel(&gateway, Some(&client)).await.unwrap();
    let ends = || {
        let line = format!(
            "openssl s_client -connect 127.0.0.1:{} -alpn h2 </dev/null 2>/dev/null | openssl x509 -noout -enddate",
            gateway.addr.port()
        );
        tokio::task::block_in_place(|| printed(&shell(&line)))
    };
    assert!(ends().contains("4000"), "{}", ends());
    files.authority.server(3000).write(files.folder.path());
    let started = std::time::Instant::now();
    while !ends().contains("3000") {
        assert!(started.elapsed() < Duration::from_secs(10), "the old certificate is still served");
        assert!(files.call(&gateway, Some(&client)).await.unwrap().is_ok());
        let call = ParticipantServiceClient::new(kept.clone())
            .create_participant(Request::new(request("c")))
            .await;
        call.expect("an open connection lost a call");
    }
    fs::write(files.path("tls.key"), "broken").unwrap();
    gateway
        .metric_is("participant_gateway_config_reloads_total{result=\"failure\"} 1")
        .await;
    assert!(files.call(&gateway, Some(&client)).await.unwrap().is_ok(), "a broken key was taken");
    let (_, metrics) = gateway.admin("/metrics").await;
    for shown in [
        // 3000-01-01.
        "participant_gateway_certificate_expiry_seconds 32503680000",
        "participant_gateway_config_reloads_total{result=\"success\"} 1",
        "participant_gateway_config_reloads_total{result=\"failure\"} 1",
    ] {
        assert!(metrics.lines().any(|line| line == shown), "{shown} is not in:\n{metrics}");
    }
}

#[tokio::test]
async fn a_slow_handshake_is_ended_after_ten_seconds_and_holds_up_nobody() {
    use tokio::io::AsyncReadExt;
    let files = Files::new();
    let gateway = files.under(mtls()).start().await;
    let client = files.authority.client(&[SPIFFE]);
    let mut slow = Vec::new();
    for _ in 0..500 {
        slow.push(tokio::net::TcpStream::connect(gateway.addr).await.unwrap());
    }
    let started = std::time::Instant::now();
    assert!(files.call(&gateway, Some(&client)).await.unwrap().is_ok());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    for mut stream in slow {
        let ended = tokio::time::timeout(Duration::from_secs(14), stream.read(&mut [0; 64])).await;
        assert!(ended.is_ok(), "a silent connection was held");
    }
    assert!(started.elapsed() >= Duration::from_secs(9), "{:?}", started.elapsed());
}
