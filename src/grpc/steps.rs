//! The steps before a method of the gateway, each a plain function. `app/stack.rs` has their order,
//! and the reasons for it.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts as Head;
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Timeout;
use super::header_list::header_list_bytes;
use crate::call::{Course, Notes};
use crate::config::Settings;
use crate::domain::{Name, Tenant};
use crate::error::{Error, Refusal, Sent};
use crate::identity::Identity;
use crate::net::Peer;
use crate::places::{Permit, Place, Places};
use crate::telemetry::Metrics;

/// The bounds of a call's deadline, from the config.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// The deadline of a caller that sends no `grpc-timeout`.
    pub default: Duration,
    /// The longest deadline that a caller gets.
    pub max: Duration,
}

impl Deadlines {
    /// The deadline of a caller with this timeout, or with none that can be read. The latter is
    /// reported once the caller is identified.
    #[must_use]
    pub(crate) fn after(&self, timeout: Timeout) -> Instant {
        let timeout = match timeout {
            Timeout::Of(timeout) => timeout,
            Timeout::Absent | Timeout::Malformed => self.default,
        };
        Instant::now() + timeout.min(self.max)
    }
}

/// The error of a call that has no answer when its deadline passes, or when the drain ends.
pub(crate) async fn over(deadline: Instant, expired: &CancellationToken, course: &Course) -> Error {
    let has_expired = tokio::select! {
        () = sleep_until(deadline) => false,
        () = expired.cancelled() => true,
    };
    let sent = if course.attempts() > 0 { Sent::Maybe } else { Sent::No };
    let repeatable = course.is_repeatable();
    if has_expired {
        Error::ShuttingDown { sent, repeatable }
    } else {
        Error::DeadlineExceeded { sent, repeatable }
    }
}

/// Refuses a header list over `server.max_header_bytes`.
///
/// # Errors
/// [`Error::RequestTooLarge`].
pub(crate) fn bound_headers(head: &Head, max_bytes: usize) -> Result<(), Error> {
    if header_list_bytes(head) > max_bytes { Err(Error::RequestTooLarge) } else { Ok(()) }
}

/// Sheds load beyond `server.max_in_flight`.
///
/// # Errors
/// [`Error::Overloaded`].
pub(crate) fn shed(permits: &Arc<Semaphore>, metrics: &Metrics) -> Result<Permit, Error> {
    match Arc::clone(permits).try_acquire_owned() {
        Ok(permit) => Ok(Arc::new(permit)),
        Err(_) => {
            metrics.count_shed();
            Err(Error::Overloaded)
        }
    }
}

/// The identification of callers.
#[derive(Debug)]
pub(crate) struct Identities {
    /// The mode.
    pub identity: Identity,
    /// The present config, with its tenants.
    pub settings: Arc<ArcSwap<Settings>>,
    /// The calls per tenant whose caller is known, and whose message is still being read.
    pub reading: Places<Name>,
    /// The most such calls of one tenant. Without this bound, a tenant that sends half requests
    /// could fill `max_in_flight` before its limits are checked.
    pub(crate) most_reading: u32,
}

impl Identities {
    /// Finds the tenant.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::TenantUnknown`].
    pub(crate) async fn identify(
        &self,
        head: &Head,
        peer: &Peer,
        notes: &Notes,
        metrics: &Metrics,
    ) -> Result<(Arc<Tenant>, Arc<Settings>), Error> {
        let settings = self.settings.load_full();
        let tenant = self.identity.tenant(&head.headers, &peer.shown, &settings).await;
        let tenant = tenant.inspect_err(|error| {
            if let Some(Refusal { kind, subject, .. }) = error.refusal() {
                metrics.count_refusal(kind.as_str());
                notes.note_refusal(kind.as_str(), subject.as_deref());
            }
        })?;
        notes.note_tenant(&tenant.name);
        Ok((tenant, settings))
    }

    /// A place for a request whose message will be read.
    ///
    /// # Errors
    /// [`Error::Overloaded`].
    pub(crate) fn read(&self, tenant: &Tenant, metrics: &Metrics) -> Result<Place<Name>, Error> {
        self.reading.enter(&tenant.name, self.most_reading).ok_or_else(|| {
            metrics.count_shed();
            Error::Overloaded
        })
    }
}

/// The bounds on streams that require no identity.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    /// One permit per open stream.
    pub(crate) permits: Arc<Semaphore>,
    /// The open streams by the peer's address.
    pub(crate) peers: Places<IpAddr>,
    /// The most open streams of one peer.
    pub most: u32,
}

/// The places that an open stream holds.
pub(crate) type Opened = (tokio::sync::OwnedSemaphorePermit, Place<IpAddr>);

impl Opening {
    /// A place for a stream.
    ///
    /// # Errors
    /// [`Error::Overloaded`].
    pub(crate) fn open(&self, peer: IpAddr, metrics: &Metrics) -> Result<Opened, Error> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok();
        let opened = permit.zip(self.peers.enter(&peer, self.most));
        opened.ok_or_else(|| {
            metrics.count_shed();
            Error::Overloaded
        })
    }
}

/// A POST of `application/grpc`, perhaps `+proto` (gRPC over HTTP/2, "Requests").
///
/// # Errors
/// The status in HTTP's terms for anything else.
pub(crate) fn is_grpc(head: &Head) -> Result<(), StatusCode> {
    if head.method != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if matches!(kind, "application/grpc" | "application/grpc+proto") {
        Ok(())
    } else {
        Err(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    }
}

/// A body, with a place that is held until the body has ended.
#[derive(Debug)]
pub(crate) struct HeldBody<B, T> {
    body: B,
    _held: T,
}

impl<B, T> HeldBody<B, T> {
    /// Holds `held` as long as the body.
    pub(crate) const fn new(body: B, held: T) -> Self {
        Self { body, _held: held }
    }
}

impl<B: Body<Data = Bytes> + Unpin, T: Unpin> Body for HeldBody<B, T> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        poller: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(poller)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
