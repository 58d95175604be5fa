//! Several issuers in one gateway, each with a key set as platforms have it: by discovery behind a
//! private CA and a bearer token, in a file, and SPIFFE's without an issuer.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use participant_gateway::proto::participant_service_client::ParticipantServiceClient;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::UNAUTHENTICATED;
use super::authority::Authority;
use super::issuer::{Signer, claims, key_set};
use super::server::Server;
use crate::support::process::{printed, run};
use crate::support::status::{Seen, seen};
use crate::support::{Plan, gateway, key_file, request, until};

/// Three kinds of issuers, and the files of a gateway that knows them.
struct Platform {
    folder: TempDir,
    authority: Authority,
    /// A Kubernetes API server: a private CA, and no key set without a bearer token.
    cluster: Server,
}

impl Platform {
    async fn new(of_cluster: &[&Signer], in_file: &Signer, of_spiffe: &Signer) -> Self {
        let (folder, authority) = (TempDir::new().unwrap(), Authority::new());
        let cluster = Server::with(authority.server(4000)).await;
        let platform = Self { folder, authority, cluster };
        let issuer = platform.cluster.url();
        platform.cluster.wants("reader");
        platform.cluster.discovers(&issuer, &format!("{issuer}/openid/v1/jwks"));
        platform.serves(of_cluster);
        platform.write("ca.crt", &platform.authority.pem);
        platform.write("token", "reader\n");
        platform.write("keys.json", &key_set([in_file]));
        let mut svid = of_spiffe.jwk();
        svid["use"] = "jwt-svid".into();
        platform.write("bundle.json", &json!({ "keys": [svid], "spiffe_sequence": 1 }).to_string());
        platform
    }

    fn serves(&self, signers: &[&Signer]) {
        self.cluster.serves("/openid/v1/jwks", &key_set(signers.iter().copied()));
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// As a secret of Kubernetes' changes: by a rename.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn plan(&self) -> Plan {
        let entries = json!([
            { "issuer": self.cluster.url(), "audience": ["gateway", "gateway.corp"],
              "jwks_ca_file": self.path("ca.crt"), "jwks_token_file": self.path("token") },
            { "issuer": COGNITO, "audience": "app-1", "audience_claim": "client_id",
              "subject_claim": "client_id", "jwks_file": self.path("keys.json"),
              "algorithms": ["PS256"] },
            { "audience": "spiffe://corp/gateway", "jwks_file": self.path("bundle.json"),
              "algorithms": ["ES384"] },
        ]);
        let subjects = json!(["system:serviceaccount:chat:*", "app-1", "spiffe://corp/ns/chat/*"]);
        gateway()
            .with("/identity", json!({ "mode": "jwt", "jwt": entries }))
            .with("/tenants/demo/subjects", subjects)
            .with("/tenants/demo/instances", json!(["known"]))
            .with("/idempotency/root_key_file", key_file("root").to_str().unwrap())
    }

    fn of_cluster(&self, subject: &str) -> Value {
        with(subject, json!({ "iss": self.cluster.url(), "aud": ["gateway.corp"] }))
    }
}

fn with(subject: &str, changes: Value) -> Value {
    let mut claims = claims(subject, SystemTime::now());
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// How a call with this token ends, for an instance that is not the tenant's: nothing is sent.
async fn ends(channel: &Channel, token: &str) -> Seen {
    let mut call = Request::new(request("contact-1"));
    call.metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut client = ParticipantServiceClient::new(channel.clone());
    seen(&client.create_participant(call).await.unwrap_err())
}

#[tokio::test]
async fn every_kind_of_issuer_is_accepted_by_check_and_its_callers_by_the_gateway() {
    let (cluster, file, spiffe) =
        (Signer::new("c", "RS256"), Signer::new("f", "PS256"), Signer::new("s", "ES384"));
    let platform = Platform::new(&[&cluster], &file, &spiffe).await;
    let config = platform.path("config.json");
    platform.plan().write(config.as_ref());
    let checked = run(&["check", "--config", &config]);
    assert_eq!(printed(&checked).trim(), format!("{config} is valid"));
    assert_eq!(checked.status.code(), Some(0));

    let mut gateway = platform.plan().serve().await;
    let issuer = format!("\"issuer\":\"{}\"", platform.cluster.url());
    let line = gateway.running.line_with(&issuer).await;
    assert!(line.contains("key set loaded"), "{line}");
    let channel = gateway.channel().await;
    let of_cluster = platform.of_cluster("system:serviceaccount:chat:bot");
    let of_file = with("user", json!({ "iss": COGNITO, "aud": null, "client_id": "app-1" }));
    let of_spiffe = with(
        "spiffe://corp/ns/chat/sa/bot",
        json!({ "iss": null, "aud": "spiffe://corp/gateway" }),
    );
    for (signer, claims) in [(&cluster, &of_cluster), (&file, &of_file), (&spiffe, &of_spiffe)] {
        assert_eq!(ends(&channel, &signer.token(claims)).await, KNOWN, "{claims}");
        for stranger in [&cluster, &file, &spiffe] {
            let is_own = std::ptr::eq(stranger, signer);
            let ended = ends(&channel, &stranger.token(claims)).await;
            assert_eq!(ended == UNAUTHENTICATED, !is_own, "{}: {claims}", stranger.id);
        }
    }
    let nobody = platform.of_cluster("system:serviceaccount:chatter:bot");
    let unknown = (Code::PermissionDenied, "TENANT_UNKNOWN");
    assert_eq!(ends(&channel, &cluster.token(&nobody)).await, unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_of_a_key_set_changes_under_load_without_a_failed_call() {
    let old = Signer::new("old", "RS256");
    let (second, third) = (Signer::new("second", "RS256"), Signer::new("third", "RS256"));
    let (file, renewed) = (Signer::new("f", "PS256"), Signer::new("f2", "PS256"));
    let platform = Platform::new(&[&old], &file, &Signer::new("s", "ES384")).await;
    let gateway = platform.plan().serve().await;
    let channel = gateway.channel().await;
    let claims = platform.of_cluster("system:serviceaccount:chat:bot");
    let good = old.token(&claims);
    let ends_known = async |token: &str| ends(&channel, token).await == KNOWN;
    until("the keys are there", async || ends_known(&good).await).await;

    let (load, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let caller = {
        let (load, calls, channel, good) =
            (Arc::clone(&load), Arc::clone(&calls), channel.clone(), good.clone());
        tokio::spawn(async move {
            while load.load(Ordering::Relaxed) {
                assert_eq!(ends(&channel, &good).await, KNOWN, "a good token was refused");
                calls.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    };

    // The set in a file.
    let of_file = with("user", json!({ "iss": COGNITO, "client_id": "app-1" }));
    platform.write("keys.json", &key_set([&file, &renewed]));
    until("the file's new key", async || ends_known(&renewed.token(&of_file)).await).await;
    assert!(ends_known(&file.token(&of_file)).await);

    // The bearer token: the server wants a new one with the next set.
    platform.cluster.wants("reader-2");
    platform.write("token", "reader-2");
    platform.serves(&[&old, &second]);
    until("the key behind a new token", async || ends_known(&second.token(&claims)).await).await;

    // The CA: the server shows a certificate of a new one.
    let authority = Authority::new();
    platform.cluster.shows(authority.server(4000));
    platform.write("ca.crt", &authority.pem);
    platform.serves(&[&old, &second, &third]);
    until("the key behind a new CA", async || ends_known(&third.token(&claims)).await).await;

    load.store(false, Ordering::Relaxed);
    caller.await.unwrap();
    assert!(calls.load(Ordering::Relaxed) > 100);
}

const KNOWN: (Code, &str) = (Code::PermissionDenied, "INSTANCE_NOT_ALLOWED");
const COGNITO: &str = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE";
