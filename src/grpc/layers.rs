//! The layers around every call. [`crate::app`] puts them in order, and says why in that order.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};

use super::status::{self, Verdict};
use super::{Timeout, is_ours, method};
use crate::config::Settings;
use crate::domain::Name;
use crate::error::{Error, Sent, chain};
use crate::gateway::{Levels, Places};
use crate::identity::Identity;
use crate::net::Peer;
use crate::telemetry::{Call, Metrics, REQUEST_ID, RateLimit, Tracing};

/// A place among the calls in flight. Whoever works for the call holds one, also after its caller
/// has left.
pub type Permit = Arc<OwnedSemaphorePermit>;

/// When the caller stops listening.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

/// Deadlines, from the config.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Where the caller sends no `grpc-timeout`.
    pub default: Duration,
    /// The longest that a caller gets.
    pub max: Duration,
}

/// What every call is answered with.
#[derive(Debug, Clone)]
pub struct Answering {
    /// Cancelled when `server.drain_timeout` runs out.
    pub expired: CancellationToken,
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
    /// Where their spans come from.
    pub tracing: Tracing,
}

/// What sheds load.
#[derive(Debug, Clone)]
pub struct Shedding {
    /// One a call in flight.
    pub permits: Arc<Semaphore>,
    /// Where what is shed is counted.
    pub metrics: Arc<Metrics>,
}

/// What bounds the streams that nobody is asked for an identity on.
#[derive(Debug, Clone)]
pub struct Opening {
    /// One an open stream.
    pub permits: Arc<Semaphore>,
    /// By the peer's address.
    pub peers: Places<IpAddr>,
    /// The most for one peer.
    pub most: u32,
    /// Where what is shed is counted.
    pub metrics: Arc<Metrics>,
}

/// Requests that are still being read, and whose caller is known. One that sends its requests by
/// halves could otherwise take every place before any limit of its own is asked.
#[derive(Debug, Clone)]
pub struct Reading {
    /// By tenant.
    pub places: Places<Name>,
    /// The most for one tenant.
    pub most: u32,
}

/// What identifies callers.
#[derive(Debug)]
pub struct Identities {
    /// The mode.
    pub identity: Identity,
    /// The tenants, as they are now.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Their levels, as this replica knows them.
    pub levels: Arc<Levels>,
    /// Where refusals are counted.
    pub metrics: Arc<Metrics>,
    /// What may be on its way of each tenant's requests.
    pub reading: Reading,
}

/// Gives the call its name, catches what panics, gives every error its face, counts the call and
/// writes its line in the log.
pub async fn answer(
    State(answering): State<Answering>,
    mut request: Request,
    next: Next,
) -> Response {
    let call = Call::new(request.headers());
    if let Err(refused) = is_grpc(&request) {
        return (refused, [(REQUEST_ID, call.request_id())], "this port speaks gRPC\n")
            .into_response();
    }
    let path = request.uri().path().to_owned();
    let Answering { expired, metrics, tracing } = &answering;
    if let Some(method) = method(&path) {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
        call.note_span(tracing.server(method, request.headers(), request.uri().authority(), peer));
    }
    let mut line = Line {
        call: &call,
        metrics,
        method: method(&path),
        started: Instant::now(),
        is_written: false,
    };
    request.extensions_mut().insert(call.clone());

    let answered = tokio::select! {
        answered = AssertUnwindSafe(next.run(request)).catch_unwind() => answered.unwrap_or_else(|panic| bug(&*panic)),
        () = expired.cancelled(), if is_ours(&path) => refuse(Error::ShuttingDown),
    };
    let (mut finished, verdict, status) = status::finish(answered.map(Body::new), &path, &call);
    if let Ok(id) = HeaderValue::from_str(call.request_id()) {
        finished.headers_mut().insert(REQUEST_ID, id);
    }
    if let Some(RateLimit { limit, remaining, reset_s }) = call.levels() {
        finished.headers_mut().insert("ratelimit-limit", limit.into());
        finished.headers_mut().insert("ratelimit-remaining", remaining.into());
        finished.headers_mut().insert("ratelimit-reset", reset_s.into());
    }
    line.write(verdict, status.as_ref());
    finished.map(axum::body::Body::new)
}

/// Bounds the call by the caller's `grpc-timeout`, the default and the maximum. The answer is
/// DEADLINE_EXCEEDED, at the deadline. A `grpc-timeout` that cannot be read is reported once the
/// caller is known.
pub async fn deadline(
    State(deadlines): State<Deadlines>,
    mut request: Request,
    next: Next,
) -> Response {
    let timeout = match Timeout::of(request.headers()) {
        Timeout::Of(timeout) => timeout,
        Timeout::Absent | Timeout::Malformed => deadlines.default,
    };
    let deadline = Instant::now() + timeout.min(deadlines.max);
    request.extensions_mut().insert(Deadline(deadline));
    if timeout.is_zero() {
        return refuse(Error::DeadlineExceeded { sent: Sent::No });
    }
    let answered = tokio::time::timeout_at(deadline, next.run(request)).await;
    answered.unwrap_or_else(|_| refuse(Error::DeadlineExceeded { sent: Sent::Maybe }))
}

/// Sheds load beyond `server.max_in_flight`.
pub async fn shed(State(shedding): State<Shedding>, mut request: Request, next: Next) -> Response {
    let Ok(permit) = shedding.permits.try_acquire_owned() else {
        shedding.metrics.shed();
        return refuse(Error::Overloaded);
    };
    let permit: Permit = Arc::new(permit);
    request.extensions_mut().insert(Arc::clone(&permit));
    next.run(request).await
}

/// Finds the tenant. Then, and not before, a malformed `grpc-timeout` is refused.
pub async fn identify(
    State(identities): State<Arc<Identities>>,
    mut request: Request,
    next: Next,
) -> Response {
    let settings = identities.settings.load_full();
    let tenant = match identities
        .identity
        .tenant(request.headers(), request.extensions(), &settings)
        .await
    {
        Ok(tenant) => tenant,
        Err(error) => {
            match error {
                Error::Unauthenticated(_) => identities.metrics.refused("UNAUTHENTICATED"),
                Error::TenantUnknown(_) => identities.metrics.refused("TENANT_UNKNOWN"),
                _ => {}
            }
            return refuse(error);
        }
    };
    if let Some(call) = request.extensions().get::<Call>() {
        call.note_tenant(&tenant.name);
        call.note_levels(identities.levels.estimate(&tenant));
    }
    if Timeout::of(request.headers()) == Timeout::Malformed {
        return refuse(Error::MalformedRequest("grpc-timeout"));
    }
    let Reading { places, most } = &identities.reading;
    let Some(place) = places.enter(&tenant.name, *most) else {
        identities.metrics.shed();
        return refuse(Error::Overloaded);
    };
    request.extensions_mut().insert(tenant);
    next.run(request.map(|body| keeping(place, body))).await
}

/// Bounds the streams that nobody is asked for an identity on: each holds a place for as long as it
/// is open.
pub async fn open(State(opening): State<Opening>, request: Request, next: Next) -> Response {
    let Opening { permits, peers, most, metrics } = opening;
    let peer = request
        .extensions()
        .get::<Peer>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    let (Ok(permit), Some(place)) = (permits.try_acquire_owned(), peers.enter(&peer, most)) else {
        metrics.shed();
        return refuse(Error::Overloaded);
    };
    next.run(request).await.map(|body| keeping((permit, place), body))
}

/// The body, with something that is held until it has ended.
fn keeping<T: Send + 'static>(held: T, body: axum::body::Body) -> axum::body::Body {
    axum::body::Body::new(body.map_frame(move |frame| {
        let _ = &held;
        frame
    }))
}

/// A POST of `application/grpc`, perhaps `+proto` (gRPC over HTTP/2, "Requests"): anything else is
/// answered in HTTP's terms.
fn is_grpc(request: &Request) -> Result<(), StatusCode> {
    if request.method() != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if matches!(kind, "application/grpc" | "application/grpc+proto") {
        Ok(())
    } else {
        Err(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    }
}

fn refuse(error: Error) -> Response {
    status::refuse(error).map(axum::body::Body::new)
}

fn bug(panic: &(dyn Any + Send)) -> Response {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let detail = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    refuse(Error::GatewayBug { detail, sent: Sent::Maybe })
}

/// The call's line in the log, which is written also where the caller leaves before the answer.
struct Line<'a> {
    call: &'a Call,
    metrics: &'a Metrics,
    /// Nothing for health and reflection, which are neither counted nor logged.
    method: Option<&'static str>,
    started: Instant,
    is_written: bool,
}

impl Line<'_> {
    fn write(&mut self, verdict: Verdict, status: Option<&Status>) {
        if std::mem::replace(&mut self.is_written, true) {
            return;
        }
        let Some(method) = self.method else { return };
        let fault = status::is_fault(verdict.code);
        self.call.span().answered(status::name(verdict.code), fault);
        self.metrics.called(
            method,
            status::name(verdict.code),
            fault,
            self.call.tenant(),
            self.started.elapsed(),
        );
        let error = status
            .and_then(status::typed)
            .map(|error| chain(error))
            .or_else(|| status.map(|status| status.message().into()));
        let decision = self.call.decision();
        let (trace_id, span_id) = self.call.span().ids().unzip();
        tracing::info!(
            request_id = self.call.request_id(),
            tenant = self.call.tenant().map(|name| name.as_str()),
            upstream = self.call.upstream().map(|name| name.as_str()),
            decision = decision.map(|(decision, _)| decision.as_str()),
            enforcement = decision.and_then(|(_, shadow)| shadow.then_some("shadow")),
            code = status::name(verdict.code),
            reason = verdict.reason,
            duration = self.started.elapsed().as_secs_f64(),
            attempts = self.call.attempts(),
            trace_id,
            span_id,
            error,
            "call"
        );
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.write(Verdict { code: Code::Cancelled, reason: "" }, None);
    }
}
