//! The SDK's HTTP client, with two things that it lacks: a limit on what a response may hold, and
//! word of how far a request got.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Limited;

/// How far an attempt got: never back, so the furthest point is what counts.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Trail>);

#[derive(Debug, Default)]
struct Trail {
    reached: AtomicU8,
    answer: OnceLock<(u16, Option<String>)>,
}

/// The points of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// Loading credentials, signing.
    Nothing,
    /// Waiting for a connection.
    Connecting,
    /// A connection has begun to take the request.
    Sending,
}

tokio::task_local! {
    /// The attempt that runs in this task.
    pub static PROGRESS: Progress;
}

impl Progress {
    /// The furthest point reached.
    #[must_use]
    pub fn reached(&self) -> Reached {
        match self.0.reached.load(Ordering::Acquire) {
            0 => Reached::Nothing,
            1 => Reached::Connecting,
            _ => Reached::Sending,
        }
    }

    /// The answer's status, and AWS's id of the request.
    #[must_use]
    pub fn answer(&self) -> Option<&(u16, Option<String>)> {
        self.0.answer.get()
    }

    fn reach(&self, point: Reached) {
        self.0.reached.fetch_max(point as u8, Ordering::Release);
    }
}

/// An [`HttpClient`] that limits responses and notes progress.
#[derive(Debug)]
pub struct Bounded(pub SharedHttpClient);

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

/// A request body that notes when a connection begins to take it: hyper asks for it only once it
/// has one.
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
