//! The spans of a call: the caller's, those of its operations on Redis, and the one of Connect.
//!
//! Every call to a known method has a span, sampled or not. Its ids are in the log, and its context
//! goes on to Connect, even without any export. `tracing` does not make these spans: its spans cost
//! more, and cannot take a remote parent after they are entered.

use std::collections::HashMap;
use std::iter::once;
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::uri::Authority;
use opentelemetry::propagation::{Extractor, TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::{
    SpanId, SpanKind, Status, TraceContextExt, TraceId, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::task::futures::TaskLocalFuture;

use super::names::attribute as at;

/// Makes the spans of callers.
#[derive(Debug, Clone)]
pub(crate) struct Tracing(Arc<Maker>);

/// The parts that make spans, and the forms in which their contexts are handed on.
#[derive(Debug)]
struct Maker {
    tracer: SdkTracer,
    propagator: TextMapCompositePropagator,
}

/// A span, which ends with [`Span::end`] or with its last holder; empty if nothing is traced.
#[derive(Debug, Clone, Default)]
pub struct Span(Option<(Arc<Maker>, Context)>);

/// How an attempt at Connect ended, for its event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempted {
    /// `ok`, or the fault.
    pub outcome: &'static str,
    /// The answer's status, where there was one.
    pub status: Option<u16>,
    /// AWS's request id, if there was an answer.
    pub request_id: Option<String>,
}

/// The operations of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Decides a call.
    Admit,
    /// Looks whether there is a record.
    Exists,
    /// Closes a claim.
    Settle,
    /// Reads a tenant's levels.
    Quota,
    /// Checks that the store answers.
    Probe,
}

impl Operation {
    /// Its name as a span: the command, and its script if it runs one.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "EVALSHA admit",
            Self::Exists => "EXISTS",
            Self::Settle => "EVALSHA settle",
            Self::Quota => "EVALSHA quota",
            Self::Probe => "EVALSHA probe",
        }
    }

    /// Its attributes in metrics and spans.
    #[must_use]
    pub(crate) fn attributes(self) -> Vec<KeyValue> {
        let words = self.as_str().split(' ');
        let names = [at::DB_OPERATION, at::DB_PROCEDURE].into_iter();
        let named = names.zip(words).map(|(name, word)| KeyValue::new(name, word));
        once(KeyValue::new(at::DB_SYSTEM, "redis")).chain(named).collect()
    }
}

tokio::task_local! {
    static CURRENT: Span;
}

impl Tracing {
    pub(super) fn new(
        provider: &SdkTracerProvider,
        propagator: TextMapCompositePropagator,
    ) -> Self {
        let tracer = provider.tracer("participant_gateway");
        Self(Arc::new(Maker { tracer, propagator }))
    }

    /// Begins the span of a caller's call. The headers hold its parent, in the forms of
    /// `OTEL_PROPAGATORS`.
    #[must_use]
    pub(crate) fn server(
        &self,
        method: &'static str,
        headers: &HeaderMap,
        server: Option<&Authority>,
        peer: Option<SocketAddr>,
    ) -> Span {
        let parent = self.0.propagator.extract_with_context(&Context::new(), &Headers(headers));
        let span = begin(&self.0, &parent, method, SpanKind::Server);
        span.describe(|| {
            let mut attributes =
                vec![KeyValue::new(at::RPC_SYSTEM, "grpc"), KeyValue::new(at::RPC_METHOD, method)];
            if let Some(server) = server {
                attributes.push(KeyValue::new(at::SERVER_ADDRESS, server.host().to_owned()));
                attributes.extend(
                    server.port_u16().map(|port| KeyValue::new(at::SERVER_PORT, i64::from(port))),
                );
            }
            let peer = peer.map(|peer| peer.ip().to_canonical().to_string());
            attributes.extend(peer.map(|peer| KeyValue::new(at::PEER_ADDRESS, peer)));
            attributes
        });
        span
    }
}

impl Span {
    /// The call's trace and span, which are shown in hexadecimal.
    #[must_use]
    pub fn ids(&self) -> Option<(TraceId, SpanId)> {
        let span = self.0.as_ref()?.1.span();
        let context = span.span_context();
        context.is_valid().then(|| (context.trace_id(), context.span_id()))
    }

    /// The call's trace in hexadecimal, if it is sampled: then it can be looked up.
    #[must_use]
    pub(crate) fn sampled_trace(&self) -> Option<String> {
        let span = self.recorded()?.span();
        Some(span.span_context().trace_id().to_string())
    }

    /// The headers that hand the context on.
    #[must_use]
    pub fn headers(&self) -> HashMap<String, String> {
        let mut headers = HashMap::new();
        if let Some((maker, context)) = &self.0 {
            maker.propagator.inject_context(context, &mut headers);
            headers.retain(|_, value| !value.is_empty());
        }
        headers
    }

    /// Runs a future with this span as the parent of operations on the store.
    #[must_use]
    pub fn scope<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self, work)
    }

    /// Begins the span of the call at Connect. If this span is not recorded, it stands for both:
    /// nobody would see the other.
    #[must_use]
    pub fn connect(&self, region: &str) -> Self {
        self.child("Connect.CreateParticipant", || {
            vec![
                KeyValue::new(at::RPC_SYSTEM_OF_CONNECT, "aws-api"),
                KeyValue::new(at::RPC_SERVICE, "Connect"),
                KeyValue::new(at::RPC_METHOD, "CreateParticipant"),
                KeyValue::new(at::REGION, region.to_owned()),
            ]
        })
    }

    /// Notes an attempt at Connect that has ended.
    pub(crate) fn attempted(&self, number: u32, attempted: &Attempted) {
        let Some(context) = self.recorded() else { return };
        let mut attributes = answered(attempted);
        attributes.push(KeyValue::new(at::ATTEMPT, i64::from(number)));
        attributes.push(KeyValue::new(at::OUTCOME, attempted.outcome));
        context.span().add_event("attempt", attributes);
    }

    /// Notes the end of the call at Connect, with its last attempt.
    pub(crate) fn settled(&self, last: &Attempted) {
        self.describe(|| answered(last));
        self.end((last.outcome != "ok").then_some(last.outcome));
    }

    /// Notes the end of the caller's call. `fault`: its code means a fault of the gateway or of
    /// Connect.
    pub fn answered(&self, code: &'static str, fault: bool) {
        self.describe(|| vec![KeyValue::new(at::RPC_STATUS, code)]);
        self.end(fault.then_some(code));
    }

    /// Begins the span of an operation on Redis, below the span of [`Span::scope`]. That one may have
    /// ended: a call may go on without its caller. If it is not recorded, it stands for both.
    #[must_use]
    pub(crate) fn operation(operation: Operation) -> Self {
        CURRENT
            .try_with(|parent| parent.child(operation.as_str(), || operation.attributes()))
            .unwrap_or_default()
    }

    /// Ends the span, with the error if there was one.
    pub fn end(&self, fault: Option<&'static str>) {
        let Some(context) = self.recorded() else { return };
        let span = context.span();
        if let Some(fault) = fault {
            span.set_attribute(KeyValue::new(at::ERROR_TYPE, fault));
            span.set_status(Status::error(""));
        }
        span.end();
    }

    fn child(&self, name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) -> Self {
        match &self.0 {
            Some((maker, parent)) if self.recorded().is_some() => {
                let span = begin(maker, parent, name, SpanKind::Client);
                span.describe(attributes);
                span
            }
            _ => self.clone(),
        }
    }

    /// Adds attributes, and computes them only if the span is recorded.
    fn describe(&self, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if let Some(context) = self.recorded() {
            context.span().set_attributes(attributes());
        }
    }

    /// The span's context, if the span is recorded. None of our samplers records a span without
    /// sampling it. To ask the span itself would take a lock, and to end it a look at the clock.
    fn recorded(&self) -> Option<&Context> {
        let (_, context) = self.0.as_ref()?;
        context.span().span_context().is_sampled().then_some(context)
    }
}

fn begin(maker: &Arc<Maker>, parent: &Context, name: &'static str, kind: SpanKind) -> Span {
    let tracer = &maker.tracer;
    let span = tracer.span_builder(name).with_kind(kind);
    let context = parent.with_span(tracer.build_with_context(span, parent));
    Span(Some((Arc::clone(maker), context)))
}

fn answered(attempted: &Attempted) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(4);
    attributes
        .extend(attempted.status.map(|status| KeyValue::new(at::HTTP_STATUS, i64::from(status))));
    attributes.extend(attempted.request_id.clone().map(|id| KeyValue::new(at::AWS_REQUEST_ID, id)));
    attributes
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
