//! All that is behind the gRPC port, as one service: the steps of a call to the gateway's own
//! methods, and the services beside them.

use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use http::request::Parts as Head;
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::Service;
use tracing::Instrument;

use crate::admission::Store;
use crate::call::{Notes, REQUEST_ID, RateLimit};
use crate::config::{Server, Settings};
use crate::error::{Error, Sent};
use crate::gateway::Gateway;
use crate::grpc::status::{self, number, of_one_call};
use crate::grpc::steps::{self, Deadlines, HeldBody, Identities, Opening};
use crate::grpc::{Context, Line, Method, OTHER_METHOD, Participants, Quotas, Timeout, unary};
use crate::identity::Identity;
use crate::net::{Handler, Peer, REFUSED};
use crate::places::Places;
use crate::proto::DESCRIPTOR_SET;
use crate::telemetry::{Metrics, Span, Tracing};

pub(super) struct Parts<'a, S> {
    pub server: &'a Server,
    pub settings: Arc<ArcSwap<Settings>>,
    pub gateway: Arc<Gateway<S>>,
    pub identity: Identity,
    pub metrics: Arc<Metrics>,
    pub tracing: Tracing,
    /// One permit per call in flight.
    pub(crate) permits: Arc<Semaphore>,
    /// Cancelled when `server.drain_timeout` runs out.
    pub expired: CancellationToken,
}

/// Everything behind the gRPC port.
pub(super) struct Stack<S: Store> {
    participants: Participants<S>,
    quotas: Quotas<S>,
    /// Health and reflection.
    beside: Routes,
    max_header_bytes: usize,
    max_request_bytes: usize,
    permits: Arc<Semaphore>,
    deadlines: Deadlines,
    identities: Identities,
    opening: Opening,
    expired: CancellationToken,
    metrics: Arc<Metrics>,
    tracing: Tracing,
}

impl<S: Store> Stack<S> {
    pub(crate) fn new(parts: Parts<'_, S>, health: HealthServer<impl Health>) -> io::Result<Self> {
        let Parts { server, settings, gateway, identity, metrics, tracing, permits, expired } =
            parts;
        metrics.start_refused_connections(REFUSED);
        let most = server.max_request_bytes;
        // Many clients compress by one switch for all their calls.
        let gzip = CompressionEncoding::Gzip;
        let health = health.max_decoding_message_size(most).accept_compressed(gzip);
        Ok(Self {
            participants: Participants::new(Arc::clone(&gateway)),
            quotas: Quotas::new(gateway),
            beside: with_reflection(Routes::new(health), server.reflection, most)?,
            max_header_bytes: server.max_header_bytes as usize,
            max_request_bytes: most,
            permits,
            deadlines: Deadlines { default: server.default_timeout, max: server.max_timeout },
            identities: Identities {
                identity,
                settings,
                reading: Places::default(),
                most_reading: (server.max_in_flight / 2).max(1),
            },
            opening: Opening {
                permits: Arc::new(Semaphore::new(OPEN_STREAMS)),
                peers: Places::default(),
                most: OPEN_STREAMS_OF_A_PEER,
            },
            expired,
            metrics,
            tracing,
        })
    }

    /// A call to one of the gateway's own methods, from the outside to the inside.
    async fn call(
        &self,
        method: Method,
        head: &Head,
        body: Incoming,
        peer: &Peer,
    ) -> Response<Body> {
        // The call has its request id from here on, and every answer carries it.
        let notes = Arc::new(Notes::new(&head.headers));
        let span = self.span(method.as_str(), head, peer);
        // Every call has one line in the log, even if its caller leaves before the answer.
        let line = Line::begin(method.as_str(), &notes, &span, peer, &self.metrics);
        let admitted = self.admitted(method, head, body, peer, &notes, &span);
        // Pinned here, since the next lines would move all of it.
        let admitted = pin!(admitted.instrument(notes.log_span()));
        // A panic ends its own call, and not the connection.
        let answered = AssertUnwindSafe(admitted);
        let response = match answered.catch_unwind().await.unwrap_or_else(|panic| Err(bug(&panic)))
        {
            Ok(response) => response,
            Err(error) => status::refuse(&error, &notes),
        };
        line.write();
        labelled(response, &notes)
    }

    async fn admitted(
        &self,
        method: Method,
        head: &Head,
        body: Incoming,
        peer: &Peer,
        notes: &Arc<Notes>,
        span: &Span,
    ) -> Result<Response<Body>, Error> {
        // The first step: a larger header list would cost more in each step that follows.
        steps::bound_headers(head, self.max_header_bytes)?;
        // Before any work: shedding must cost almost nothing.
        let permit = steps::shed(&self.permits, &self.metrics)?;
        // Bounds all that follows, including a slow body.
        let timeout = Timeout::of(&head.headers);
        let deadline = self.deadlines.after(timeout);
        let served = async {
            // Before the body is read: the gateway reads bodies of known callers only.
            let (tenant, settings) =
                self.identities.identify(head, peer, notes, &self.metrics).await?;
            // Only a known caller is told what is wrong with its request.
            timeout.check()?;
            // Half-sent requests of one tenant must not take every place.
            let place = self.identities.read(&tenant, &self.metrics)?;
            let (headers, body) = (&head.headers, HeldBody::new(body, place));
            let most = self.max_request_bytes;
            let (notes, span) = (Arc::clone(notes), span.clone());
            let context = Context { tenant, settings, notes, span, deadline, permit };
            match method {
                Method::CreateParticipant => {
                    let message = unary::read(headers, body, most).await?;
                    let created = self.participants.create(context, message).await?;
                    Ok(unary::answer(created))
                }
                Method::GetQuota => {
                    let message = unary::read(headers, body, most).await?;
                    let quota = Box::pin(self.quotas.get(&context, message)).await?;
                    Ok(unary::answer(quota))
                }
            }
        };
        tokio::select! {
            biased;
            served = served => served,
            error = steps::over(deadline, &self.expired, notes.course()) => Err(error),
        }
    }

    /// Health and reflection, which require no identity; and methods that do not exist.
    async fn beside(&self, head: Head, body: Incoming, peer: &Peer) -> Response<Body> {
        let notes = Arc::new(Notes::new(&head.headers));
        let bounded = steps::bound_headers(&head, self.max_header_bytes);
        let path = head.uri.path();
        let is_known = path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.");
        if !is_known {
            let span = self.span(OTHER_METHOD, &head, peer);
            let line = Line::begin(OTHER_METHOD, &notes, &span, peer, &self.metrics);
            let error = bounded.err().unwrap_or(Error::UnknownMethod);
            let response = status::refuse(&error, &notes);
            line.write();
            return labelled(response, &notes);
        }
        let deadline = self.deadlines.after(Timeout::of(&head.headers));
        let opened = bounded.and_then(|()| match path {
            "/grpc.health.v1.Health/Check" => Ok(None),
            // A stream holds its place for as long as it is open.
            _ => self.opening.open(peer.address.ip(), &self.metrics).map(Some),
        });
        let answered = match opened {
            Ok(opened) => {
                let request = Request::from_parts(head, body);
                let served = AssertUnwindSafe(self.beside.clone().call(request)).catch_unwind();
                match timeout_at(deadline, served).await {
                    Ok(Ok(Ok(served))) => {
                        Ok(served.map(|body| Body::new(HeldBody::new(body, opened))))
                    }
                    Ok(Ok(Err(never))) => match never {},
                    Ok(Err(panic)) => Err(bug(&panic)),
                    Err(_) => Err(Error::DeadlineExceeded { sent: Sent::No, repeatable: true }),
                }
            }
            Err(error) => Err(error),
        };
        let response = match answered {
            Ok(response) => status::finish(response, &notes),
            Err(error) => status::refuse(&error, &notes),
        };
        labelled(response, &notes)
    }

    fn span(&self, method: &'static str, head: &Head, peer: &Peer) -> Span {
        let authority = head.uri.authority();
        self.tracing.server(method, &head.headers, authority, Some(peer.address))
    }
}

impl<S: Store> Handler for Arc<Stack<S>> {
    type Body = Body;

    fn answer(
        &self,
        request: Request<Incoming>,
        peer: Arc<Peer>,
    ) -> impl Future<Output = Response<Body>> + Send + use<S> {
        let stack = Self::clone(self);
        let (head, body) = request.into_parts();
        async move {
            if let Err(refused) = steps::is_grpc(&head) {
                return not_grpc(refused, &Notes::new(&head.headers));
            }
            match Method::of(head.uri.path()) {
                Some(method) => stack.call(method, &head, body, &peer).await,
                // Boxed: calls to the gateway's own methods would carry its memory.
                None => Box::pin(stack.beside(head, body, &peer)).await,
            }
        }
    }

    fn refused(&self, reason: &'static str) {
        self.metrics.count_refused_connection(reason);
    }
}

/// Server reflection in both versions: older clients know `v1alpha` only.
fn with_reflection(routes: Routes, reflection: bool, most: usize) -> io::Result<Routes> {
    if !reflection {
        return Ok(routes);
    }
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let gzip = CompressionEncoding::Gzip;
    let v1 = builder().build_v1().map_err(io::Error::other)?;
    let v1alpha = builder().build_v1alpha().map_err(io::Error::other)?;
    Ok(routes
        .add_service(v1.max_decoding_message_size(most).accept_compressed(gzip))
        .add_service(v1alpha.max_decoding_message_size(most).accept_compressed(gzip)))
}

/// The answer with the metadata that every answer has.
fn labelled(mut response: Response<Body>, notes: &Notes) -> Response<Body> {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(notes.request_id()) {
        headers.insert(&REQUEST_ID, of_one_call(id));
    }
    if let Some(RateLimit { limit, remaining, reset_s }) = notes.levels() {
        headers.insert(&LIMIT, number(limit.into()));
        headers.insert(&REMAINING, of_one_call(number(remaining.into())));
        headers.insert(&RESET, of_one_call(number(reset_s)));
    }
    response
}

/// An answer for a request that is not gRPC, as an HTTP status.
fn not_grpc(refused: http::StatusCode, notes: &Notes) -> Response<Body> {
    let body = http_body_util::Full::from("this port speaks gRPC\n");
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = refused;
    labelled(response, notes)
}

fn bug(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let detail = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Error::GatewayBug { detail, sent: Sent::Maybe }
}

static LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
static REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The most health watches and reflection streams that may be open at once, in all and from one
/// address. Probes and people need far fewer.
const OPEN_STREAMS: usize = 4096;
const OPEN_STREAMS_OF_A_PEER: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::stores::Stores;
    use crate::gateway::Order;

    /// Of the future that an async function of so many arguments returns, in bytes.
    fn of_two<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    fn of_three<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// A future is moved when it is made and when it is spawned. Raise a bound on purpose only.
    #[test]
    fn the_futures_on_a_calls_path_are_small() {
        let stack = of_three(<Arc<Stack<Stores>> as Handler>::answer as fn(&'static _, _, _) -> _);
        let gateway = of_two(Gateway::<Stores>::create as fn(&'static Arc<_>, Box<Order>) -> _);
        assert!(stack <= 2304, "{stack} bytes from the stream to the answer");
        assert!(gateway <= 896, "{gateway} bytes from the order to the outcome");
    }
}
