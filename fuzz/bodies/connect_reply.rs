//! Connect's replies, read by the client that the service uses, over a real socket. So the whole
//! way from the bytes to an outcome is tested, and none of it has to be public.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use participant_gateway::connect::{Client, StaticCredentials};
use participant_gateway::domain::{
    ContactId, CreateParticipant, DisplayName, InstanceId, Instances, Name, Rate, Role, Upstream,
    UpstreamToken,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// A reply is a participant with an id and a token, or an error, and soon.
pub fn connect_reply(data: &[u8]) {
    static WORLD: LazyLock<World> = LazyLock::new(World::new);
    let Some((status, rest)) = data.split_first_chunk::<2>() else { return };
    let status = 200 + u16::from_be_bytes(*status) % 400;
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let error_type: String = rest[..end]
        .iter()
        .filter(|byte| byte.is_ascii_graphic())
        .map(|byte| char::from(*byte))
        .collect();
    let body = rest.get(end + 1..).unwrap_or_default();

    let world = &*WORLD;
    let head = format!(
        "HTTP/1.1 {status} -\r\nx-amzn-errortype: {error_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    *world.reply.lock().unwrap() = [head.as_bytes(), body].concat();
    let token = UpstreamToken::new("token").unwrap();
    let attempt = world.client.attempt(&world.request, &token, Duration::from_secs(5));
    match world.runtime.block_on(attempt) {
        Ok(participant) => {
            assert!(!participant.id.is_empty() && !participant.token.expose().is_empty())
        }
        Err(error) => assert!(!format!("{error}").is_empty()),
    }
}

struct World {
    runtime: Runtime,
    client: Client,
    request: CreateParticipant,
    reply: Arc<Mutex<Vec<u8>>>,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let upstream = Upstream {
            name: Name::parse("main").unwrap(),
            region: "us-east-1".to_owned(),
            instances: Instances::Any,
            endpoint_url: Some(format!("http://{}", listener.local_addr().unwrap())),
            role_arn: None,
            external_id: None,
            rate: Rate::new(1.0).unwrap(),
            burst: 1,
            max_wait: Duration::ZERO,
            connect_timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(5),
            max_attempts: 1,
        };
        let keys = StaticCredentials {
            access_key_id: "id".to_owned(),
            secret_access_key: "secret".to_owned(),
        };
        let client = runtime
            .block_on(Client::new(&upstream, &Arc::default(), Some(keys)))
            .expect("there is no file of certificates");
        let reply = Arc::<Mutex<Vec<u8>>>::default();
        let replies = Arc::clone(&reply);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&replies)));
            }
        });
        let request = CreateParticipant {
            instance_id: InstanceId::new("instance").unwrap(),
            contact_id: ContactId::new("contact").unwrap(),
            client_token: None,
            role: Role::CustomBot,
            display_name: DisplayName::new("Bot").unwrap(),
            capabilities: None,
        };
        Self { runtime, client, request, reply }
    }
}

/// Answers each request of a connection with the reply of the time.
async fn serve(mut stream: TcpStream, reply: Arc<Mutex<Vec<u8>>>) {
    let mut seen = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes).await {
            Ok(read) if read > 0 => seen.extend_from_slice(&bytes[..read]),
            _ => return,
        }
        if is_whole(&seen) {
            seen.clear();
            let reply = reply.lock().unwrap().clone();
            if stream.write_all(&reply).await.is_err() {
                return;
            }
        }
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
    });
    body.len() >= length.unwrap_or(0)
}
