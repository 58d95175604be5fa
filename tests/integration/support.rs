//! Fixtures: a gateway over a simulated Connect, both real servers on ports that the system picks.

pub mod gateway;
pub mod process;
pub mod raw;
pub mod redis;
pub mod status;
pub mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use participant_gateway::proto;
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

pub use gateway::{Fixture, Front, Plan, gateway};

pub type Reply = Result<Response<proto::CreateParticipantResponse>, Status>;

/// A valid request without a client token.
pub fn request(contact: &str) -> proto::CreateParticipantRequest {
    proto::CreateParticipantRequest {
        instance_id: "instance-1".to_owned(),
        contact_id: contact.to_owned(),
        client_token: String::new(),
        participant_details: Some(proto::ParticipantDetails {
            participant_role: proto::ParticipantRole::CustomBot.into(),
            display_name: "Bot".to_owned(),
            participant_capabilities: None,
        }),
    }
}

/// The same with one.
pub fn request_with_token(contact: &str, token: &str) -> proto::CreateParticipantRequest {
    proto::CreateParticipantRequest { client_token: token.to_owned(), ..request(contact) }
}

/// Duplicates: one of them ran, and all have the same answer.
pub fn are_one_call(answers: &[proto::CreateParticipantResponse]) {
    let plain = |answer: &proto::CreateParticipantResponse| proto::CreateParticipantResponse {
        replayed: false,
        ..answer.clone()
    };
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(answers.iter().all(|answer| plain(answer) == plain(&answers[0])));
}

/// A call of the tenant's.
pub fn of<T>(tenant: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-tenant-id", tenant.parse::<MetadataValue<_>>().unwrap());
    request
}

/// A file with one key, the same for everybody in this process who asks by this name.
pub fn key_file(name: &str) -> PathBuf {
    static FOLDER: LazyLock<tempfile::TempDir> =
        LazyLock::new(|| tempfile::TempDir::new().unwrap());
    let file = FOLDER.path().join(name);
    if !file.exists() {
        let fresh = FOLDER.path().join(uuid::Uuid::new_v4().to_string());
        std::fs::write(&fresh, participant_gateway::admission::keygen().unwrap().as_bytes())
            .unwrap();
        // The first one stays, whoever was faster.
        let _ = std::fs::hard_link(&fresh, &file);
    }
    file
}

/// A port that refuses connections. It is bound, so that nobody else gets it meanwhile.
pub struct ClosedPort(tokio::net::TcpSocket);

impl ClosedPort {
    pub fn new() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self(socket)
    }

    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

/// Sets the key at a JSON pointer, and the mappings on the way.
pub fn set(value: &mut Value, pointer: &str, new: Value) {
    let mut at = value;
    for key in pointer.split('/').skip(1) {
        at = at.as_object_mut().unwrap().entry(key).or_insert_with(|| json!({}));
    }
    *at = new;
}

/// Waits for an event, and fails where it does not come.
pub async fn until(what: &str, happened: impl AsyncFnMut() -> bool) {
    until_within(PATIENCE, what, happened).await;
}

/// The same, for an event that was promised within this time.
pub async fn until_within(limit: Duration, what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !happened().await {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A plain HTTP/1.1 GET: status and body.
pub async fn http_get(addr: SocketAddr, path: &str) -> (u16, String) {
    try_http_get(addr, path).await.unwrap()
}

/// The same of a server that may have ended.
pub async fn try_http_get(addr: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(addr).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

/// How long anything may take that no time was promised for; generous, for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);
