//! A client that says exactly what a test wants it to say.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::Status;

use super::Front;

pub const METHOD: &str = "/participantgateway.v1.ParticipantService/CreateParticipant";

/// Posts raw bytes as one gRPC message stream, and returns the status. Unlike tonic's channel, it
/// has no deadline of its own.
pub async fn post(gateway: &Front, path: &str, headers: &[(&str, &str)], body: Bytes) -> Status {
    let stream = TcpStream::connect(gateway.addr).await.unwrap();
    // Otherwise the message waits up to 40 ms for the acknowledgement of what precedes it.
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{}{path}", gateway.addr))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    assert!(head.headers.contains_key("x-request-id"), "no x-request-id");
    let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
    Status::from_header_map(&head.headers)
        .or_else(|| Status::from_header_map(&trailers))
        .expect("no status")
}

/// One length-prefixed message.
pub fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(flag);
    bytes.put_u32(message.len().try_into().unwrap());
    bytes.put_slice(message);
    bytes.freeze()
}
