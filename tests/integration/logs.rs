//! The log: one line a call, every line JSON, no secret at any level.

use std::net::SocketAddr;

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::support::process::{Running, program};
use crate::support::{http_get, of, request_with_token};

/// The program over the simulator, each a process of its own.
struct Serving {
    gateway: Running,
    simulator: Running,
    addr: SocketAddr,
    admin: SocketAddr,
    _config: NamedTempFile,
}

fn serving(level: &str) -> Serving {
    serving_to(level, None)
}

/// Over another Connect than the simulator.
fn serving_to(level: &str, endpoint: Option<&str>) -> Serving {
    let mut simulate = program();
    simulate.args(["simulate", "--listen", "127.0.0.1:0"]);
    let mut simulator = Running::start(simulate);
    let config = NamedTempFile::new().unwrap();
    let text = format!(
        "server: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\nidentity: {{mode: header}}\n\
         tenants: {{demo: {{instances: ['*'], rate: 50/s, burst: 50}}}}\n\
         upstreams: {{main: {{region: us-east-1, instances: ['*'], rate: 50/s, burst: 50}}}}\n\
         telemetry: {{log: {{level: {level}}}}}\n"
    );
    std::fs::write(config.path(), text).unwrap();
    let mut serve = program();
    serve.args(["serve", "--config"]).arg(config.path());
    for name in ["AWS_ENDPOINT_URL_CONNECT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        serve.env(name, simulator.line_with(name).split_once('=').unwrap().1);
    }
    if let Some(endpoint) = endpoint {
        serve.env("AWS_ENDPOINT_URL_CONNECT", endpoint);
    }
    let mut gateway = Running::start(serve);
    let ready: Value = serde_json::from_str(&gateway.line_with("\"ready\"")).unwrap();
    let address = |field: &str| ready[field].as_str().unwrap().parse().unwrap();
    let (addr, admin) = (address("address"), address("admin_address"));
    Serving { gateway, simulator, addr, admin, _config: config }
}

async fn call(addr: SocketAddr, contact: &str) -> crate::support::Reply {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{addr}")).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut client =
        participant_gateway::proto::participant_service_client::ParticipantServiceClient::new(
            channel,
        );
    let mut request = request_with_token(contact, &format!("canary-client-token-{contact}"));
    request.participant_details.as_mut().unwrap().display_name = "canary-display-name".to_owned();
    let mut request = of("demo", request);
    request.metadata_mut().insert("x-request-id", "req-1".parse().unwrap());
    request
        .metadata_mut()
        .insert("authorization", "Bearer canary-bearer-token".parse().unwrap());
    client.create_participant(request).await
}

#[tokio::test]
async fn a_call_is_one_json_line_at_info() {
    let Serving { mut gateway, simulator: _simulator, addr, _config, .. } = serving("info");
    call(addr, "canary-contact").await.unwrap();
    let line: Value = serde_json::from_str(&gateway.line_with("req-1")).unwrap();
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

    call(addr, "sim-not-found").await.unwrap_err();
    let line: Value = serde_json::from_str(&gateway.next_with("req-1")).unwrap();
    assert_eq!(line["code"], "NOT_FOUND");
    assert_eq!(line["reason"], "CONTACT_OR_INSTANCE_NOT_FOUND");
    assert!(line["error"].as_str().unwrap().contains("ResourceNotFoundException"), "{line}");

    gateway.signal("TERM");
    let (code, lines) = gateway.end();
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
        let Serving { gateway, simulator: _simulator, addr, _config, .. } =
            serving_to("trace", Some(&endpoint));
        call(addr, "canary-contact").await.unwrap_err();
        gateway.signal("TERM");
        let (_, lines) = gateway.end();
        assert!(lines.iter().any(|line| line.contains("req-1")));
        assert!(!lines.join("\n").contains("canary"), "{status}: {lines:#?}");
    }
}

#[tokio::test]
async fn no_secret_is_logged_at_trace() {
    let Serving { gateway, simulator, addr, admin, _config } = serving("trace");
    let reply = call(addr, "canary-contact").await.unwrap().into_inner();
    let token = reply.participant_credentials.unwrap().participant_token;
    for contact in ["sim-garbage", "sim-no-token", "sim-internal", "sim-invalid"] {
        call(addr, contact).await.unwrap_err();
    }
    let (_, config) = http_get(admin, "/config").await;
    let secret = simulator
        .seen()
        .iter()
        .find_map(|line| line.split_once("SECRET_ACCESS_KEY="))
        .unwrap()
        .1
        .to_owned();

    gateway.signal("TERM");
    let (_, lines) = gateway.end();
    let log = lines.join("\n");
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the level had no effect");
    for (name, canary) in [
        ("client token", "canary-client-token"),
        ("bearer token", "canary-bearer-token"),
        ("display name", "canary-display-name"),
        ("contact id", "canary-contact"),
        ("participant token", &token),
        ("secret key", &secret),
    ] {
        assert!(!log.contains(canary), "the log holds the {name}");
        assert!(!config.contains(canary), "/config holds the {name}");
    }
}
