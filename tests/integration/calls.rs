//! Calls that succeed, and those that are refused before anything is sent.

use participant_gateway::proto;
use serde_json::json;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::support::status::{reason, seen};
use crate::support::{gateway, of, request, request_with_token};

#[tokio::test]
async fn a_call_returns_the_participant_that_connect_created() {
    let gateway = gateway().start().await;
    let reply = gateway
        .call(request_with_token("contact-1", "token-1"))
        .await
        .unwrap()
        .into_inner();

    let made = gateway.journal.participants();
    assert_eq!(made.len(), 1);
    assert_eq!(reply.participant_id, made[0].participant_id);
    let credentials = reply.participant_credentials.unwrap();
    assert_eq!(credentials.participant_token, made[0].participant_token());
    assert_eq!(credentials.expiry.unwrap().seconds, made[0].expiry.as_second());
    assert!(reply.create_time.is_some());
    assert!(!reply.replayed);
}

#[tokio::test]
async fn capabilities_reach_connect() {
    let gateway = gateway().start().await;
    let mut webrtc = request("contact-1");
    let details = webrtc.participant_details.as_mut().unwrap();
    details.participant_role = proto::ParticipantRole::Customer.into();
    details.participant_capabilities = Some(proto::ParticipantCapabilities {
        video: proto::VideoCapability::Send.into(),
        screen_share: proto::ScreenShareCapability::Unspecified.into(),
    });
    gateway.call(webrtc).await.unwrap();
    let made = gateway.journal.participants();
    assert!(made[0].call.video && !made[0].call.screen_share, "{:?}", made[0].call);
}

#[tokio::test]
async fn an_expiry_that_is_no_time_is_left_unset() {
    let gateway = gateway().start().await;
    let reply = gateway.call(request("sim-bad-expiry")).await.unwrap().into_inner();
    assert_eq!(reply.participant_credentials.unwrap().expiry, None);
}

#[tokio::test]
async fn every_answer_carries_a_request_id_and_the_callers_own_is_kept() {
    let gateway = gateway().start().await;
    let mut client = gateway.client().await;
    for contact in ["contact-1", "sim-invalid"] {
        let mut call = of("demo", request(contact));
        call.metadata_mut().insert("x-request-id", "mine-1".parse().unwrap());
        let id = match client.create_participant(call).await {
            Ok(reply) => reply.metadata().get("x-request-id").cloned(),
            Err(status) => {
                assert_eq!(status.get_details_request_info().unwrap().request_id, "mine-1");
                status.metadata().get("x-request-id").cloned()
            }
        };
        assert_eq!(id.unwrap(), "mine-1");
    }
    let reply = client.create_participant(of("demo", request("contact-1"))).await.unwrap();
    assert_eq!(reply.metadata().get("x-request-id").unwrap().len(), 36);
}

#[tokio::test]
async fn callers_without_exactly_one_identity_are_unauthenticated() {
    let gateway = gateway().start().await;
    let mut client = gateway.client().await;
    let status = client.create_participant(Request::new(request("contact-1"))).await.unwrap_err();
    assert_eq!(seen(&status), (Code::Unauthenticated, "UNAUTHENTICATED"));

    let mut twice = of("demo", request("contact-1"));
    twice.metadata_mut().append("x-tenant-id", "demo".parse().unwrap());
    let status = client.create_participant(twice).await.unwrap_err();
    assert_eq!(seen(&status), (Code::Unauthenticated, "UNAUTHENTICATED"));

    let status = client.create_participant(of("nobody", request("contact-1"))).await.unwrap_err();
    assert_eq!(seen(&status), (Code::PermissionDenied, "TENANT_UNKNOWN"));
    assert_eq!(gateway.journal.attempt_count(), 0);
}

#[tokio::test]
async fn all_violations_come_together_and_before_any_permission() {
    let gateway = gateway().with("/tenants/demo/instances", json!(["other"])).start().await;
    let status = gateway
        .call(proto::CreateParticipantRequest {
            instance_id: "i".repeat(101),
            contact_id: String::new(),
            client_token: "t".repeat(501),
            participant_details: Some(proto::ParticipantDetails {
                participant_role: proto::ParticipantRole::Agent.into(),
                display_name: "ü".repeat(257),
                participant_capabilities: Some(proto::ParticipantCapabilities {
                    video: 7,
                    screen_share: 7,
                }),
            }),
        })
        .await
        .unwrap_err();
    assert_eq!(seen(&status), (Code::InvalidArgument, "INVALID_REQUEST"));
    let violations = status.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "instance_id",
            "contact_id",
            "client_token",
            "participant_details.participant_role",
            "participant_details.display_name",
            "participant_details.participant_capabilities.video",
            "participant_details.participant_capabilities.screen_share",
        ]
    );
    assert!(violations.iter().all(|violation| !violation.description.is_empty()));
    assert!(status.details().len() <= 4096, "{} bytes of details", status.details().len());
}

#[tokio::test]
async fn an_instance_of_another_tenant_and_one_of_nobody_get_the_same_answer() {
    let gateway = gateway()
        .with("/upstreams/main/instances", json!(["instance-1", "instance-2"]))
        .with("/tenants/demo/instances", json!(["instance-1", "instance-3"]))
        .start()
        .await;
    let mut answers = Vec::new();
    for instance in ["instance-2", "instance-3", "instance-4"] {
        let status = gateway
            .call(proto::CreateParticipantRequest {
                instance_id: instance.to_owned(),
                ..request("contact-1")
            })
            .await
            .unwrap_err();
        assert_eq!(reason(&status), "INSTANCE_NOT_ALLOWED");
        answers.push((status.code(), status.message().to_owned()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    gateway.call(request("contact-1")).await.unwrap();
    assert_eq!(gateway.journal.attempt_count(), 1);
}

#[tokio::test]
async fn a_role_that_is_not_on_the_tenants_list_is_refused() {
    let gateway = gateway().with("/tenants/demo/roles", json!(["CUSTOMER"])).start().await;
    let status = gateway.call(request("contact-1")).await.unwrap_err();
    assert_eq!(seen(&status), (Code::PermissionDenied, "ROLE_NOT_ALLOWED"));
}

#[tokio::test]
async fn the_same_token_goes_out_with_every_attempt_of_a_call() {
    let gateway = gateway().start().await;
    gateway.call(request("sim-flaky-2")).await.unwrap();
    let tokens = gateway.tokens();
    assert_eq!(tokens.len(), 3);
    assert!(tokens[0].is_some() && tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");

    gateway.call(request("contact-1")).await.unwrap();
    assert_ne!(gateway.tokens()[3], tokens[0], "two calls without a token shared one");
}

#[tokio::test]
async fn health_and_reflection_ask_for_no_identity() {
    use tonic_health::pb::health_client::HealthClient;
    let gateway = gateway().start().await;
    let mut health = HealthClient::new(gateway.channel().await);
    for service in ["", "participantgateway.v1.ParticipantService"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status;
        assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving as i32);
    }
    let unknown = tonic_health::pb::HealthCheckRequest { service: "nobody".to_owned() };
    let status = health.check(unknown).await.unwrap_err();
    assert_eq!(seen(&status), (Code::NotFound, "NOT_FOUND"));
}
