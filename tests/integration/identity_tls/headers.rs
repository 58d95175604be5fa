//! Header mode behind meshes: Linkerd's `l5d-client-id`, Envoy's `x-forwarded-client-cert`.

use serde_json::json;
use tonic::{Code, Request, Status};

use super::UNAUTHENTICATED;
use crate::support::status::seen;
use crate::support::{Front, gateway, request};

async fn call(gateway: &Front, headers: &[(&'static str, &str)]) -> Result<(), Status> {
    let mut call = Request::new(request("contact-1"));
    for (name, value) in headers {
        call.metadata_mut().append(*name, value.parse().unwrap());
    }
    gateway.client().await.create_participant(call).await.map(drop)
}

#[tokio::test]
async fn a_header_value_is_a_subject_by_pattern_or_the_tenants_own_name() {
    let voice = json!({ "instances": ["*"], "rate": "10/s", "burst": 10,
        "subjects": ["bot.voice.serviceaccount.identity.linkerd.cluster.local", "bot.*"] });
    let gateway = gateway()
        .with("/identity/header", json!({ "name": "l5d-client-id" }))
        .with("/tenants/demo/subjects", json!(["bot.chat.serviceaccount.identity.*"]))
        .with("/tenants/voice", voice)
        .start()
        .await;
    for known in [
        "bot.chat.serviceaccount.identity.linkerd.cluster.local",
        "bot.voice.serviceaccount.identity.linkerd.cluster.local",
        "bot.other",
        "demo",
        "voice",
    ] {
        call(&gateway, &[("l5d-client-id", known)])
            .await
            .unwrap_or_else(|s| panic!("{known}: {s}"));
    }
    for nobody in ["bot", "other.chat", "demo2", "*"] {
        let status = call(&gateway, &[("l5d-client-id", nobody)]).await.unwrap_err();
        assert_eq!(seen(&status), UNKNOWN, "{nobody}");
    }
    let counted = gateway.admin("/metrics").await.1;
    let of = |tenant: &str| {
        counted.lines().any(|line| {
            line.contains("decisions_total")
                && line.contains("\"admitted\"")
                && line.contains(&format!("tenant=\"{tenant}\""))
                && line.ends_with(if tenant == "demo" { " 2" } else { " 3" })
        })
    };
    assert!(of("demo") && of("voice"), "{counted}");
}

#[tokio::test]
async fn envoys_header_names_the_caller_by_its_last_element() {
    let gateway = gateway()
        .with("/identity/header", json!({ "format": "xfcc" }))
        .with("/tenants/demo/subjects", json!(["spiffe://cluster.local/ns/chat/sa/*", "bot.corp"]))
        .start()
        .await;
    let forwarded = |value: &str| value.to_owned();
    for good in [
        // Istio's sidecar; Envoy with every detail; a gateway before the sidecar; no URI.
        forwarded(&format!(
            "{BY};Hash={HASH};Subject=\"\";URI=spiffe://cluster.local/ns/chat/sa/bot"
        )),
        format!(
            "{BY};Hash={HASH};Cert=\"-----BEGIN%20CERTIFICATE-----%0AMIIB%0A-----END%20CERTIFICATE-----%0A\";\
             Subject=\"CN=bot,O=\\\"a, b\\\"\";URI=spiffe://cluster.local/ns/chat/sa/bot;DNS=x.corp;DNS=y.corp"
        ),
        format!(
            "{BY};Hash={HASH};URI=spiffe://elsewhere/client,\
             {BY};Hash={HASH};Subject=\"\";URI=spiffe://cluster.local/ns/chat/sa/gateway"
        ),
        format!("{BY};Hash={HASH};Subject=\"CN=bot.corp\";URI=;DNS=bot.corp"),
    ] {
        call(&gateway, &[(XFCC, &good)]).await.unwrap_or_else(|s| panic!("{good}: {s}"));
    }
    let own = "URI=spiffe://cluster.local/ns/chat/sa/bot";
    let last = format!("{own},{BY};URI=spiffe://cluster.local/ns/other/sa/bot");
    assert_eq!(seen(&call(&gateway, &[(XFCC, &last)]).await.unwrap_err()), UNKNOWN);
    let two = format!("{own};{own}");
    assert_eq!(seen(&call(&gateway, &[(XFCC, &two)]).await.unwrap_err()), UNKNOWN);
    let open = format!("Subject=\"x,{BY};{own}");
    for bad in [
        &[(XFCC, own), (XFCC, own)][..],
        &[(XFCC, &open)],
        &[(XFCC, "spiffe://cluster.local/ns/chat/sa/bot")],
        &[(XFCC, "By=a;Hash=b")],
        &[("x-tenant-id", "demo")],
    ] {
        let status = call(&gateway, bad).await.unwrap_err();
        assert_eq!(seen(&status), UNAUTHENTICATED, "{bad:?}");
    }
}

const UNKNOWN: (Code, &str) = (Code::PermissionDenied, "TENANT_UNKNOWN");
const XFCC: &str = "x-forwarded-client-cert";
const BY: &str = "By=spiffe://cluster.local/ns/gw/sa/default";
const HASH: &str = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688";
