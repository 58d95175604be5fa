//! The AWS client of one upstream.
//!
//! The SDK signs, sends and parses. It does not retry, because its retries cannot be charged to the
//! budget. It does not time attempts, because it cannot tell what was sent. The gateway does both.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::Region;
use aws_sdk_connect::config::retry::RetryConfig;
use aws_sdk_connect::config::timeout::TimeoutConfig;
use aws_sdk_connect::config::{IdentityCache, StalledStreamProtectionConfig};
use aws_sdk_connect::operation::create_participant::CreateParticipantOutput;
use aws_sdk_connect::types::{
    ParticipantCapabilities, ParticipantDetailsToAdd, ParticipantRole, ScreenShareCapability,
    VideoCapability,
};

use super::aws;
use super::credentials::{CredentialsState, Kept};
use super::http::{Bounded, HandsOn, PROGRESS, Progress};
use super::translate;
use crate::domain::{
    CreateParticipant, Participant, ParticipantToken, Role, Upstream, UpstreamToken,
};
use crate::egress::Egress;
use crate::error::{Cause, Fault, Sent, UpstreamError};

/// A pair of keys that is used without the credential chain, for the simulator.
#[derive(Clone)]
pub struct StaticCredentials {
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: String,
}

/// The AWS client of one upstream.
#[derive(Debug, Clone)]
pub struct Client {
    sdk: aws_sdk_connect::Client,
    credentials: Option<Kept>,
}

impl Client {
    /// Builds the client. The first call loads the credentials.
    ///
    /// # Errors
    /// If `AWS_CA_BUNDLE` holds no usable certificates.
    pub async fn new(
        upstream: &Upstream,
        egress: &Arc<Egress>,
        credentials: Option<StaticCredentials>,
    ) -> Result<Self, Cause> {
        let role = upstream.role_arn.as_deref();
        let external_id = upstream.external_id.as_deref();
        let role = role.map(|arn| aws::AssumedRole { arn, external_id });
        let (base, credentials) = aws::config(&upstream.region, egress, role, credentials).await?;
        let mut config = aws_sdk_connect::config::Builder::from(&base)
            .region(Region::new(upstream.region.clone()))
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder().connect_timeout(upstream.connect_timeout).build(),
            )
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .interceptor(HandsOn);
        if let Some(http) = base.http_client() {
            config = config.http_client(Bounded(http));
        }
        if let Some(url) = &upstream.endpoint_url {
            config = config.endpoint_url(url);
        }
        if upstream.endpoint_url.is_some() || aws::has_endpoint("CONNECT") {
            // The SDK refuses FIPS or dual-stack beside an endpoint. The endpoint is the more exact
            // setting.
            config = config.use_fips(false).use_dual_stack(false);
        }
        Ok(Self { sdk: aws_sdk_connect::Client::from_conf(config.build()), credentials })
    }

    /// What there is of its credentials, and when they end.
    #[must_use]
    pub(crate) fn credentials(&self) -> CredentialsState {
        self.credentials.as_ref().map_or(CredentialsState::NotLoaded, Kept::state)
    }

    /// One attempt, of `timeout` at most.
    ///
    /// # Errors
    /// The error that Connect answered, or how far the request got.
    pub async fn attempt(
        &self,
        request: &CreateParticipant,
        token: &UpstreamToken,
        timeout: Duration,
    ) -> Result<Participant, UpstreamError> {
        self.noted_attempt(request, token, timeout, &Progress::default()).await
    }

    /// The same as [`Client::attempt`], with a note of its result.
    ///
    /// # Errors
    /// The error that Connect answered, or how far the request got.
    pub(crate) async fn noted_attempt(
        &self,
        request: &CreateParticipant,
        token: &UpstreamToken,
        timeout: Duration,
        progress: &Progress,
    ) -> Result<Participant, UpstreamError> {
        let operation = self
            .sdk
            .create_participant()
            .instance_id(request.instance_id.as_str())
            .contact_id(request.contact_id.as_str())
            .client_token(token.as_str())
            .participant_details(details(request));
        // Boxed: the SDK's future is larger than all of ours, and would be moved with each of them.
        let sending = Box::pin(operation.send());
        match tokio::time::timeout(timeout, PROGRESS.scope(progress.clone(), sending)).await {
            Ok(Ok(output)) => participant(output),
            Ok(Err(error)) => {
                Err(translate::failed(error, progress.reached(), SystemTime::now(), request, token))
            }
            Err(_) => Err(translate::timed_out(progress.reached())),
        }
    }
}

fn details(request: &CreateParticipant) -> ParticipantDetailsToAdd {
    let role = match request.role {
        Role::Customer => ParticipantRole::Customer,
        Role::CustomBot => ParticipantRole::CustomBot,
    };
    let capabilities = request.capabilities.map(|capabilities| {
        ParticipantCapabilities::builder()
            .set_video(capabilities.video.then_some(VideoCapability::Send))
            .set_screen_share(capabilities.screen_share.then_some(ScreenShareCapability::Send))
            .build()
    });
    ParticipantDetailsToAdd::builder()
        .participant_role(role)
        .display_name(request.display_name.as_str())
        .set_participant_capabilities(capabilities)
        .build()
}

fn participant(output: CreateParticipantOutput) -> Result<Participant, UpstreamError> {
    let lacking = |what: &'static str| {
        let error = UpstreamError::new(Fault::BadResponse, Sent::Answered);
        UpstreamError { request_id: translate::request_id(&output), ..error }.caused_by(what)
    };
    let id = output
        .participant_id()
        .filter(|id| !id.is_empty())
        .ok_or_else(|| lacking("no participant id"))?;
    let credentials = output.participant_credentials().ok_or_else(|| lacking("no credentials"))?;
    let token = credentials.participant_token().filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| lacking("no participant token"))?;
    Ok(Participant {
        id: id.to_owned(),
        token: ParticipantToken::new(token.to_owned()),
        expiry: credentials
            .expiry()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .map(SystemTime::from),
        create_time: SystemTime::now(),
    })
}

/// Load balancers in front of AWS's services close an idle connection after 20 s or more. This
/// value is below that. Otherwise a request could meet a connection that is being closed, and would
/// have to be repeated (aws-sdk-rust#1417).
pub(super) const POOL_IDLE: Duration = Duration::from_secs(15);
