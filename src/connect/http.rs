//! The SDK's HTTP client, with three additions: a limit on the size of a response, the progress of
//! a request, and headers for one request.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Limited;

/// Additional headers of a request.
pub(crate) type Headers = Arc<HashMap<String, String>>;

/// How far an attempt got. It never goes back: the furthest point counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Trail>);

#[derive(Debug, Default)]
struct Trail {
    /// The headers that the request hands on.
    headers: Headers,
    reached: AtomicU8,
    answer: OnceLock<(u16, Option<String>)>,
}

/// The points of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reached {
    /// Credentials are loading, or the request is being signed.
    Nothing,
    /// The request waits for a connection.
    Connecting,
    /// A connection has begun to take the request.
    Sending,
}

tokio::task_local! {
    /// The attempt that runs in this task.
    pub(crate) static PROGRESS: Progress;
}

impl Progress {
    /// The progress of an attempt whose request hands these headers on.
    #[must_use]
    pub(crate) fn handing_on(headers: Headers) -> Self {
        Self(Arc::new(Trail { headers, ..Trail::default() }))
    }

    /// The furthest point reached.
    #[must_use]
    pub(crate) fn reached(&self) -> Reached {
        match self.0.reached.load(Ordering::Acquire) {
            0 => Reached::Nothing,
            1 => Reached::Connecting,
            _ => Reached::Sending,
        }
    }

    /// The answer's status, and AWS's request id.
    #[must_use]
    pub(crate) fn answer(&self) -> Option<&(u16, Option<String>)> {
        self.0.answer.get()
    }

    fn reach(&self, point: Reached) {
        self.0.reached.fetch_max(point as u8, Ordering::Release);
    }
}

/// Puts the headers of [`Progress::handing_on`] into the request before it is signed: the signature
/// then covers them. The SDK's own way would build a config for each request.
#[derive(Debug)]
pub(crate) struct HandsOn;

impl Intercept for HandsOn {
    fn name(&self) -> &'static str {
        "HandsOn"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = PROGRESS.try_with(|progress| Arc::clone(&progress.0.headers));
        for (name, value) in headers.unwrap_or_default().iter() {
            // A header value that HTTP does not allow is left out. The call goes on.
            let _ = context.request_mut().headers_mut().try_insert(name.clone(), value.clone());
        }
        Ok(())
    }
}

/// An [`HttpClient`] that limits responses and notes progress.
#[derive(Debug)]
pub(crate) struct Bounded(pub SharedHttpClient);

impl HttpClient for Bounded {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(BoundedConnector(self.0.http_connector(settings, components)))
    }
}

#[derive(Debug)]
struct BoundedConnector(SharedHttpConnector);

impl HttpConnector for BoundedConnector {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let progress = PROGRESS.try_with(Clone::clone).unwrap_or_default();
        progress.reach(Reached::Connecting);
        let body = std::mem::replace(request.body_mut(), SdkBody::empty());
        *request.body_mut() = SdkBody::from_body_1_x(Watched { body, progress: progress.clone() });
        let response = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let response = response.await?;
            let id = response.headers().get("x-amzn-requestid").map(ToOwned::to_owned);
            let _ = progress.0.answer.set((response.status().as_u16(), id));
            Ok(response.map(|body| SdkBody::from_body_1_x(Limited::new(body, MAX_RESPONSE_BYTES))))
        })
    }
}

/// A request body that notes when a connection begins to take it: hyper asks for the body only
/// after it has a connection.
struct Watched {
    body: SdkBody,
    progress: Progress,
}

impl Body for Watched {
    type Data = <SdkBody as Body>::Data;
    type Error = <SdkBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.progress.reach(Reached::Sending);
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The SDK buffers whole bodies. Connect's answers are below 4 KiB.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;
