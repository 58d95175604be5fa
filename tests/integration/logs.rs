//! The log: one line a call, every line JSON, no secret at any level.

mod secrets;
mod steps;

use participant_gateway::{proto, simulator};
use serde_json::Value;

use crate::support::gateway::Child;
use crate::support::{Front, Plan, gateway, of, request_with_token};

async fn serving(level: &str, plan: Plan) -> Child {
    plan.with("/telemetry/log/level", level).serve().await
}

async fn call(gateway: &Front, contact: &str) -> crate::support::Reply {
    gateway.client().await.create_participant(asking(contact)).await
}

/// A request with the request id `req-1`, and with what no line may show.
fn asking(contact: &str) -> tonic::Request<proto::CreateParticipantRequest> {
    let mut request = request_with_token(contact, &format!("canary-client-token-{contact}"));
    request.participant_details.as_mut().unwrap().display_name = "canary-display-name".to_owned();
    let mut request = of("demo", request);
    request.metadata_mut().insert("x-request-id", "req-1".parse().unwrap());
    request
        .metadata_mut()
        .insert("authorization", "Bearer canary-bearer-token".parse().unwrap());
    request
}

#[tokio::test]
async fn a_call_is_one_json_line_at_info() {
    let mut gateway = serving("info", gateway()).await;
    call(&gateway, "canary-contact").await.unwrap();
    let line: Value = serde_json::from_str(&gateway.running.line_with("req-1").await).unwrap();
    for (field, expected) in [
        ("request_id", "req-1"),
        ("tenant", "demo"),
        ("upstream", "main"),
        ("decision", "admitted"),
        ("code", "OK"),
        ("level", "INFO"),
    ] {
        assert_eq!(line[field], expected, "{field} in {line}");
    }
    assert_eq!(line["attempts"], 1);
    for (field, length) in [("trace_id", 32), ("span_id", 16)] {
        let id = line[field].as_str().unwrap();
        assert!(
            id.len() == length && id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{field} in {line}"
        );
    }
    assert!(line["duration"].as_f64().unwrap() > 0.0);

    call(&gateway, "sim-not-found").await.unwrap_err();
    let line: Value = serde_json::from_str(&gateway.running.next_with("req-1").await).unwrap();
    assert_eq!(line["code"], "NOT_FOUND");
    assert_eq!(line["reason"], "CONTACT_OR_INSTANCE_NOT_FOUND");
    assert!(line["error"].as_str().unwrap().contains("ResourceNotFoundException"), "{line}");

    gateway.running.signal("TERM");
    let (code, lines) = gateway.running.end().await;
    assert_eq!(code, Some(0));
    assert_eq!(lines.iter().filter(|line| line.contains("req-1")).count(), 2);
    for line in &lines {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

/// A Connect that answers every request with this body and status.
async fn connect_that_says(status: &'static str, body: &'static str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 16 * 1024];
            let _ = stream.read(&mut request).await;
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    endpoint
}

#[tokio::test]
async fn neither_a_credential_that_cannot_be_used_nor_an_echo_is_logged() {
    for (status, body) in [
        (
            "200 OK",
            r#"{"ParticipantId":"p","ParticipantCredentials":{"ParticipantToken":"canary-token","Expiry":5}}"#,
        ),
        (
            "200 OK",
            r#"{"ParticipantId":"p","ParticipantCredentials":{"ParticipantToken":"canary-token"}}}"#,
        ),
        (
            "400 Bad Request",
            r#"{"__type":"InvalidRequestException","message":"name Dr \"Q\" canary-contact is bad"}"#,
        ),
    ] {
        let endpoint = connect_that_says(status, body).await;
        let plan = gateway().with("/upstreams/main/endpoint_url", endpoint);
        let gateway = serving("trace", plan).await;
        call(&gateway, "canary-contact").await.unwrap_err();
        gateway.running.signal("TERM");
        let (_, lines) = gateway.running.end().await;
        assert!(lines.iter().any(|line| line.contains("req-1")));
        assert!(!lines.join("\n").contains("canary"), "{status}: {lines:#?}");
    }
}

#[tokio::test]
async fn no_secret_is_logged_at_trace() {
    let gateway = serving("trace", gateway()).await;
    let reply = call(&gateway, "canary-contact").await.unwrap().into_inner();
    let token = reply.participant_credentials.unwrap().participant_token;
    for contact in ["sim-garbage", "sim-no-token", "sim-internal", "sim-invalid"] {
        call(&gateway, contact).await.unwrap_err();
    }
    let (_, config) = gateway.admin("/config").await;

    gateway.running.signal("TERM");
    let (_, lines) = gateway.running.end().await;
    let log = lines.join("\n");
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the level had no effect");
    for (name, canary) in [
        ("client token", "canary-client-token"),
        ("bearer token", "canary-bearer-token"),
        ("display name", "canary-display-name"),
        ("contact id", "canary-contact"),
        ("participant token", &token),
        ("secret key", simulator::SECRET_ACCESS_KEY),
    ] {
        assert!(!log.contains(canary), "the log holds the {name}");
        assert!(!config.contains(canary), "/config holds the {name}");
    }
}
