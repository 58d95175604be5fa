//! Routes, bounded bodies, and the order of the checks of a request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use uuid::Uuid;

use super::Options;
use super::account::{Account, Decision, Outcome};
use super::answer::Answer;
use super::clock::Clock;
use super::error::{ErrorCode, Failure};
use super::journal::{Attempt, Journal};
use super::signature;
use super::wire::Body;

/// Asks the server to reset the connection instead of answering.
#[derive(Debug, thiserror::Error)]
#[error("the connection is to be reset")]
pub(super) struct Reset;

#[derive(Debug)]
pub(super) struct Api {
    account: Arc<Account>,
    journal: Journal,
    clock: Clock,
    latency: Duration,
    retry_after: Option<Duration>,
}

impl Api {
    pub(super) fn new(options: Options) -> Self {
        let account = Arc::new(Account::new(options.throttle, options.max_participants));
        Self {
            journal: Journal::new(Arc::clone(&account)),
            account,
            clock: Clock::ahead_by(options.clock_offset),
            latency: options.latency,
            retry_after: options.retry_after,
        }
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(super) async fn respond(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Reset> {
        let request_id = Uuid::new_v4();
        let answer = match (request.method(), request.uri().path()) {
            // The operation has no query. `aws-sigv4` would have to canonicalize a stranger's
            // query.
            (&Method::POST, signature::PATH) if request.uri().query().is_none() => {
                self.create(request, request_id).await?
            }
            (&Method::GET, "/_sim/participants") => Answer::ok(self.participants()),
            _ => Answer::failure(
                Failure::new(ErrorCode::UnknownOperation, "There is no such operation."),
                None,
            ),
        };
        Ok(answer.into_response(request_id, self.clock.now()))
    }

    fn participants(&self) -> String {
        // Plain data, which always serializes to JSON.
        serde_json::to_string(
            &self.account.participants().iter().map(AsRef::as_ref).collect::<Vec<_>>(),
        )
        .unwrap_or_default()
    }

    async fn create(&self, request: Request<Incoming>, request_id: Uuid) -> Result<Answer, Reset> {
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Failure::new(
                ErrorCode::RequestEntityTooLarge,
                "The request body is too large.",
            )),
            // The client has left.
            Err(_) => return Err(Reset),
        };
        let mut attempt = Attempt::new(self.clock.now(), request_id, &head.headers);
        let Decision { outcome, delay } = self.judge(&head, body, &mut attempt);
        let answer = outcome.into_answer(self.retry_after);
        attempt.status = answer.as_ref().map(|answer| answer.status_code().as_u16());
        attempt.error = answer.as_ref().and_then(Answer::error_name);
        tracing::debug!(%request_id, status = attempt.status, error = attempt.error, "simulated a participant");
        self.journal.record(attempt);
        let delay = self.latency.saturating_add(delay);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        answer.ok_or(Reset)
    }

    /// Checks size, signature, JSON and model, then the account: the same order as AWS's front end
    /// and the service.
    fn judge(&self, head: &Parts, body: Result<Bytes, Failure>, attempt: &mut Attempt) -> Decision {
        let now = attempt.received_at;
        let call = body.and_then(|bytes| {
            let body = Body::parse(&bytes);
            // A wrong signature also counts: tests of credentials count attempts.
            if let Ok(body) = &body {
                attempt.instance_id.clone_from(&body.instance_id);
                attempt.contact_id.clone_from(&body.contact_id);
                attempt.client_token.clone_from(&body.client_token);
                attempt.display_name = body.display_name().cloned();
            }
            signature::verify(head, &bytes, now)?;
            body?.validate()
        });
        match call {
            Ok(call) => self.account.decide(call, now),
            Err(failure) => Decision { outcome: Outcome::Failed(failure), delay: Duration::ZERO },
        }
    }
}

// The largest call that satisfies the model is under 10 KiB.
const MAX_BODY_BYTES: usize = 256 * 1024;
