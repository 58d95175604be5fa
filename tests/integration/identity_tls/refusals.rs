//! Refused callers, as an operator finds them in the log and in the metrics, and as they hear of it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::issuer::{AUDIENCE, ISSUER, Signer, claims, key_set};
use super::{BOT, Files, SPIFFE, mtls};
use crate::support::gateway::Child;
use crate::support::{Plan, gateway, of, request};

/// One call with this metadata, named so that its line can be found.
async fn call(channel: &Channel, id: &str, metadata: &[(&'static str, &str)]) -> Status {
    let mut call = Request::new(request("contact-1"));
    call.metadata_mut().insert("x-request-id", id.parse().unwrap());
    for (name, value) in metadata {
        call.metadata_mut().append(*name, value.parse().unwrap());
    }
    ParticipantServiceClient::new(channel.clone())
        .create_participant(call)
        .await
        .expect_err("the call was taken")
}

/// The line of the call, and what its refusal is said to be.
async fn line(gateway: &mut Child, id: &str) -> (Value, String) {
    let line = gateway.running.next_with(&format!("\"{id}\"")).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    let peer: SocketAddr = line["peer"].as_str().unwrap().parse().unwrap();
    assert!(peer.ip().is_loopback() && peer.port() > 0, "{line}");
    let refusal = line["refusal"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned();
    (line, refusal)
}

fn with(changes: Value) -> Value {
    let mut claims = claims(BOT, SystemTime::now());
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

/// Tokens behind a key set in a file, and an issuer whose set is not there.
fn of_tokens(folder: &TempDir, signer: &Signer) -> Plan {
    let keys = folder.path().join("keys.json");
    std::fs::write(&keys, key_set([signer])).unwrap();
    let entries = json!([
        { "issuer": ISSUER, "audience": AUDIENCE, "jwks_file": keys },
        { "issuer": "https://down", "audience": AUDIENCE, "jwks_file": "/nowhere/keys.json" },
    ]);
    gateway()
        .with("/identity", json!({ "mode": "jwt", "jwt": entries }))
        .with("/tenants/demo/subjects", json!([BOT]))
}

#[tokio::test]
async fn every_kind_of_a_tokens_refusal_is_in_the_log_and_nothing_that_nobody_verified() {
    let (signer, stranger) = (Signer::new("a", "ES256"), Signer::new("a", "ES256"));
    let folder = TempDir::new().unwrap();
    let mut gateway = of_tokens(&folder, &signer).serve().await;
    gateway.running.line_with("key set loaded").await;
    gateway.running.line_with("key set not loaded").await;
    let channel = gateway.channel().await;

    let good = signer.token(&with(json!({})));
    let canary = json!({ "sub": "canary", "iss": ISSUER, "exp": 9e9, "aud": AUDIENCE });
    let mut unnamed = with(json!({}));
    unnamed.as_object_mut().unwrap().remove("sub");
    let not_canary = json!({ "alg": "ES256", "kid": "canary" });
    let rows = [
        ("missing", vec![], None),
        ("duplicate", vec![good.clone(), good.clone()], None),
        ("malformed", vec!["canary.canary.canary".to_owned()], None),
        ("malformed", vec![signer.token(&json!({ "iss": ISSUER, "sub": BOT }))], Some(BOT)),
        ("algorithm", vec![stranger.token_with(&json!({ "alg": "none" }), &canary)], None),
        ("algorithm", vec![signer.token_with(&json!({ "alg": "HS256" }), &canary)], None),
        ("unknown_key", vec![stranger.token_with(&not_canary, &canary)], None),
        ("no_keys", vec![stranger.token(&with(json!({ "iss": "https://down" })))], None),
        ("signature", vec![stranger.token(&canary)], None),
        ("expired", vec![signer.token(&with(json!({ "exp": 1 })))], Some(BOT)),
        ("not_yet_valid", vec![signer.token(&with(json!({ "nbf": 9e9 })))], Some(BOT)),
        ("issuer", vec![signer.token(&with(json!({ "iss": "canary" })))], None),
        ("audience", vec![signer.token(&with(json!({ "aud": "other" })))], Some(BOT)),
        ("subject", vec![signer.token(&unnamed)], None),
        ("unknown_tenant", vec![signer.token(&with(json!({ "sub": "nobody" })))], Some("nobody")),
    ];
    for (index, (kind, tokens, subject)) in rows.iter().enumerate() {
        let id = format!("call-{index}-");
        let values: Vec<_> = tokens.iter().map(|token| format!("Bearer {token}")).collect();
        let metadata: Vec<_> =
            values.iter().map(|value| ("authorization", value.as_str())).collect();
        let status = call(&channel, &id, &metadata).await;
        let (line, refusal) = line(&mut gateway, &id).await;
        assert_eq!(refusal, *kind, "{line}");
        assert_eq!(line["subject"].as_str(), *subject, "{line}");
        let code = match *kind {
            "unknown_tenant" => Code::PermissionDenied,
            _ => Code::Unauthenticated,
        };
        assert_eq!(status.code(), code, "{line}");
        let told = status.get_details_error_info().unwrap().metadata.get("refusal").cloned();
        let is_told = ["expired", "not_yet_valid", "audience"].contains(kind);
        assert_eq!(told.as_deref(), is_told.then_some(*kind), "{line}");
    }
    gateway.running.signal("TERM");
    let (_, lines) = gateway.running.end().await;
    assert!(!lines.iter().any(|line| line.contains("canary")), "{lines:#?}");
}

#[tokio::test]
async fn a_refused_certificate_is_in_the_log_with_its_names() {
    let files = Files::new();
    let voice = json!({ "subjects": ["spiffe://corp/ns/voice/sa/bot"], "instances": ["*"],
                        "rate": "10/s", "burst": 10 });
    let plan = files
        .under(mtls())
        .with("/tenants/demo/subjects", json!(["spiffe://corp/ns/chat/*"]))
        .with("/tenants/voice", voice);
    let mut gateway = plan.serve().await;
    let ambiguous = [SPIFFE, "spiffe://corp/ns/voice/sa/bot"];
    let stranger = "spiffe://corp/ns/other/sa/bot";
    for (id, names, kind, subject) in [
        ("call-a", None, "no_certificate", None),
        ("call-b", Some(&ambiguous[..]), "ambiguous", Some(ambiguous.join(", "))),
        ("call-c", Some(&[stranger]), "unknown_tenant", Some(stranger.to_owned())),
    ] {
        let pair = names.map(|names| files.authority.client(names));
        let channel = files.channel(&gateway, pair.as_ref()).await.unwrap();
        call(&channel, id, &[]).await;
        let (line, refusal) = line(&mut gateway, id).await;
        assert_eq!((&*refusal, line["subject"].as_str()), (kind, subject.as_deref()), "{line}");
    }
}

#[tokio::test]
async fn every_kind_of_refusal_is_counted_from_zero() {
    let gateway = gateway().start().await;
    let count = async |kind: &str| {
        let (_, metrics) = gateway.admin("/metrics").await;
        let series = format!("participant_gateway_identity_refusals_total{{reason=\"{kind}\"}} ");
        let value: Option<u64> =
            metrics.lines().find_map(|line| line.strip_prefix(&*series)?.parse().ok());
        value.unwrap_or_else(|| panic!("{series} is not in:\n{metrics}"))
    };
    for kind in KINDS {
        assert_eq!(count(kind).await, 0, "{kind}");
    }
    let mut client = gateway.client().await;
    client.create_participant(Request::new(request("c"))).await.unwrap_err();
    client.create_participant(of("nobody", request("c"))).await.unwrap_err();
    let mut twice = of("demo", request("c"));
    twice.metadata_mut().append("x-tenant-id", "demo".parse().unwrap());
    client.create_participant(twice).await.unwrap_err();
    for kind in KINDS {
        let expected = ["missing", "unknown_tenant", "duplicate"].contains(&kind);
        assert_eq!(count(kind).await, u64::from(expected), "{kind}");
    }
}

#[tokio::test]
async fn an_expired_token_is_told_so_and_a_new_one_is_taken() {
    let signer = Signer::new("a", "ES256");
    let endpoint = super::KeyEndpoint::serving(&key_set([&signer])).await;
    let gateway = super::jwt(&endpoint.url()).start().await;
    let mut expired = claims(BOT, SystemTime::now() - Duration::from_secs(7200));
    expired["nbf"] = 0.into();
    let refused = super::with_tokens(&gateway, &[&signer.token(&expired)], "instance-1").await;
    let info = refused.unwrap_err().get_details_error_info().unwrap();
    assert_eq!(info.metadata.get("refusal").map(String::as_str), Some("expired"));
    let fresh = signer.token(&claims(BOT, SystemTime::now()));
    super::with_tokens(&gateway, &[&fresh], "instance-1").await.unwrap();
}

const KINDS: [&str; 15] = [
    "missing",
    "duplicate",
    "malformed",
    "algorithm",
    "unknown_key",
    "no_keys",
    "signature",
    "expired",
    "not_yet_valid",
    "issuer",
    "audience",
    "subject",
    "no_certificate",
    "unknown_tenant",
    "ambiguous",
];
