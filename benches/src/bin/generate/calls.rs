//! Calls over HTTP/2, with the least of a gRPC client that can tell outcomes apart.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use participant_gateway_benches::{
    CreateParticipantRequest, ParticipantDetails, ParticipantRole, REPEATED, repeated,
};
use prost::Message;
use tokio::net::TcpStream;

use super::{Options, Token};

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// OK, and the first of its `client_token`.
    First,
    /// OK, and the result of an earlier one.
    Replayed,
    /// This code of gRPC's.
    Failed(u8),
    /// No answer that gRPC knows.
    Lost,
}

/// What all calls have in common.
#[derive(Clone)]
pub struct Template {
    uri: Uri,
    headers: HeaderMap,
    token: Token,
    /// The message of a call without a `client_token`.
    plain: Bytes,
    contact: String,
    /// Of all streams together.
    turn: Rc<Cell<u32>>,
}

/// The part of the answer that tells a replay.
#[derive(Message)]
struct Answer {
    #[prost(bool, tag = "4")]
    replayed: bool,
}

impl Template {
    pub fn new(options: &Options) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("user-agent", HeaderValue::from_static("grpc-bench/1"));
        for line in &options.header {
            let (name, value) = line.split_once(": ").expect("a header as `name: value`");
            let name: HeaderName = name.parse().expect("a header's name");
            headers.insert(name, value.parse().expect("a header's value"));
        }
        let uri = format!("http://{}{METHOD}", options.target).parse().expect("an address");
        let contact = options.contact.clone();
        let plain = framed(&contact, String::new());
        Self { uri, headers, token: options.token, plain, contact, turn: Rc::default() }
    }

    pub fn next(&self) -> (Request<()>, Bytes) {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().clone_from(&self.headers);
        let client_token = match self.token {
            // Unlike those of other processes, too.
            Token::Fresh => format!("{:020x}", fastrand::u64(..)),
            Token::Repeated => repeated(self.turn.replace((self.turn.get() + 1) % REPEATED)),
            Token::None => return (request, self.plain.clone()),
        };
        (request, framed(&self.contact, client_token))
    }
}

/// The message of a call, with its frame.
fn framed(contact: &str, client_token: String) -> Bytes {
    let message = CreateParticipantRequest {
        instance_id: "11111111-2222-3333-4444-555555555555".to_owned(),
        contact_id: contact.to_owned(),
        client_token,
        participant_details: Some(ParticipantDetails {
            participant_role: ParticipantRole::CustomBot.into(),
            display_name: "Support Bot".to_owned(),
            participant_capabilities: None,
        }),
    };
    let length = message.encoded_len();
    let mut framed = Vec::with_capacity(FRAME + length);
    framed.push(0);
    framed.extend_from_slice(&u32::try_from(length).expect("a short message").to_be_bytes());
    message.encode(&mut framed).expect("a vector grows");
    framed.into()
}

/// A connection that a task of its own keeps going.
#[derive(Clone)]
pub struct Connection(SendRequest<Bytes>);

impl Connection {
    pub async fn open(target: SocketAddr) -> Self {
        let stream = TcpStream::connect(target).await.expect("somebody who listens");
        stream.set_nodelay(true).expect("a socket");
        let (send, connection) = client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(stream)
            .await
            .expect("a peer that speaks HTTP/2");
        tokio::task::spawn_local(connection);
        Self(send)
    }

    pub async fn call(&mut self, request: Request<()>, body: Bytes) -> Outcome {
        self.try_call(request, body).await.unwrap_or(Outcome::Lost)
    }

    async fn try_call(&mut self, request: Request<()>, body: Bytes) -> Result<Outcome, h2::Error> {
        poll_fn(|context| self.0.poll_ready(context)).await?;
        let (response, mut stream) = self.0.send_request(request, false)?;
        stream.send_data(body, true)?;
        let response = response.await?;
        if let Some(code) = code(response.headers()) {
            return Ok(Outcome::Failed(code));
        }
        let mut body = response.into_body();
        let message = read(&mut body).await?;
        let trailers = body.trailers().await?.unwrap_or_default();
        Ok(match code(&trailers) {
            Some(0) => match message.get(FRAME..).map(Answer::decode) {
                Some(Ok(Answer { replayed: true })) => Outcome::Replayed,
                Some(Ok(Answer { replayed: false })) => Outcome::First,
                Some(Err(_)) | None => Outcome::Lost,
            },
            Some(code) => Outcome::Failed(code),
            None => Outcome::Lost,
        })
    }
}

/// The message with its frame: a single chunk, as a rule.
async fn read(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut message = Bytes::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        message = if message.is_empty() { chunk } else { [message, chunk].concat().into() };
    }
    if message.is_empty() { Err(Reason::PROTOCOL_ERROR.into()) } else { Ok(message) }
}

fn code(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

const METHOD: &str = "/participantgateway.v1.ParticipantService/CreateParticipant";

/// Bytes in front of a message: whether it is compressed, and its length.
const FRAME: usize = 5;

/// So large that answers never wait for the window.
const WINDOW: u32 = 1 << 24;
