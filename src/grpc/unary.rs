//! The message of a unary call, and its answer, by tonic's codecs (gRPC over HTTP/2, "Requests" and
//! "Responses").
//!
//! tonic's generated servers do the same. They box a call three times, and answer an error by
//! headers that the gateway would only replace.

use std::future::ready;

use bytes::Bytes;
use futures_util::stream::once;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Body as HttpBody;
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{
    Codec as _, CompressionEncoding, EncodeBody, SingleMessageCompressionOverride, Streaming,
};

use super::status::is_too_large;
use crate::error::Error;
use crate::proto::Codec;

/// The message of a request, once its body has ended. `most`: its size in bytes, also where it is
/// compressed.
///
/// # Errors
/// [`Error::UnsupportedEncoding`], [`Error::RequestTooLarge`], [`Error::MalformedRequest`].
pub(crate) async fn read<M, B>(headers: &HeaderMap, body: B, most: usize) -> Result<M, Error>
where
    M: Message + Default + 'static,
    B: HttpBody<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let decoder = Codec::<(), M>::default().decoder();
    let encoding = encoding(headers)?;
    let mut messages = Streaming::new_request(decoder, body, encoding, Some(most));
    let message = messages.message().await.map_err(unreadable)?;
    let message = message.ok_or(Error::MalformedRequest("no message"))?;
    // A body that is longer than its message counts, too.
    messages.trailers().await.map_err(unreadable)?;
    Ok(message)
}

/// The answer with this message.
pub(crate) fn answer<M: Message + 'static>(message: M) -> Response<Body> {
    let encoder = Codec::<M, ()>::default().encoder();
    let messages = once(ready(Ok(message)));
    let inherit = SingleMessageCompressionOverride::Inherit;
    let body = EncodeBody::new_server(encoder, messages, None, inherit, None);
    let mut response = Response::new(Body::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// How the message is compressed. Many clients compress by one switch for all their calls.
fn encoding(headers: &HeaderMap) -> Result<Option<CompressionEncoding>, Error> {
    match headers.get(&ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(CompressionEncoding::Gzip)),
        Some(_) => Err(Error::UnsupportedEncoding),
    }
}

fn unreadable(status: Status) -> Error {
    if is_too_large(status.code()) {
        Error::RequestTooLarge
    } else {
        Error::MalformedRequest("unreadable message")
    }
}

static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
