//! The lines that `dev` prints, pasted into a shell, with the real grpcurl.

use serde_json::Value;

use crate::support::process::{Running, printed, program, shell, tool};

async fn dev() -> (Running, Vec<String>) {
    let mut dev = program();
    dev.args(["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let mut dev = Running::start(dev);
    dev.line_with("ready").await;
    let lines = dev.seen().iter().filter(|line| line.starts_with("grpcurl ")).cloned().collect();
    (dev, lines)
}

fn line<'a>(lines: &'a [String], text: &str) -> &'a str {
    lines
        .iter()
        .find(|line| line.contains(text))
        .unwrap_or_else(|| panic!("no line with {text}"))
}

#[tokio::test]
async fn the_printed_lines_work_when_pasted() {
    let Some(_) = tool("grpcurl") else { return };
    let (_dev, lines) = dev().await;
    let list = printed(&shell(line(&lines, " list")));
    for service in ["participantgateway.v1.ParticipantService", "grpc.health.v1.Health"] {
        assert!(list.contains(service), "{list}");
    }
    let described = printed(&shell(line(&lines, " describe")));
    assert!(described.contains("rpc CreateParticipant"), "{described}");

    let created = shell(line(&lines, "contact-1"));
    assert!(created.status.success(), "{}", printed(&created));
    let created: Value = serde_json::from_slice(&created.stdout).unwrap();
    assert!(!created["participantId"].as_str().unwrap().is_empty());
    assert!(
        !created["participantCredentials"]["participantToken"]
            .as_str()
            .unwrap()
            .is_empty()
    );

    let throttled = shell(line(&lines, "sim-throttled"));
    assert!(!throttled.status.success());
    let text = printed(&throttled);
    for part in [
        "ResourceExhausted",
        "google.rpc.RetryInfo",
        "\"retryDelay\": \"1s\"",
        "UPSTREAM_THROTTLED",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[tokio::test]
async fn both_versions_of_reflection_list_the_services() {
    use tonic_reflection::pb::{v1, v1alpha};
    let gateway = crate::support::gateway().start().await;
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client =
        v1::server_reflection_client::ServerReflectionClient::new(gateway.channel().await);
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let v1 = format!("{:?}", answers.message().await.unwrap());

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(gateway.channel().await);
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let v1alpha = format!("{:?}", answers.message().await.unwrap());

    for answer in [v1, v1alpha] {
        assert!(answer.contains("participantgateway.v1.ParticipantService"), "{answer}");
    }
}

#[tokio::test]
async fn health_answers_grpcurl() {
    let Some(_) = tool("grpcurl") else { return };
    let (_dev, lines) = dev().await;
    let address = line(&lines, " list").split(' ').nth(2).unwrap().to_owned();
    let health =
        printed(&shell(&format!("grpcurl -plaintext {address} grpc.health.v1.Health/Check")));
    assert!(health.contains("SERVING"), "{health}");
}

#[tokio::test]
async fn a_description_shows_the_limits_of_each_field_and_the_details_of_errors() {
    let Some(_) = tool("grpcurl") else { return };
    let (_dev, lines) = dev().await;
    let address = line(&lines, " list").split(' ').nth(2).unwrap().to_owned();
    let describe =
        |name: &str| printed(&shell(&format!("grpcurl -plaintext {address} describe {name}")));
    let request = describe("participantgateway.v1.CreateParticipantRequest");
    for part in ["at most 500 characters", "debug_redact = true", "field_behavior) = REQUIRED"] {
        assert!(request.contains(part), "no {part} in {request}");
    }
    for detail in ["ErrorInfo", "RetryInfo", "RequestInfo", "BadRequest", "QuotaFailure"] {
        let described = describe(&format!("google.rpc.{detail}"));
        assert!(described.contains("is a message"), "{described}");
    }
}
