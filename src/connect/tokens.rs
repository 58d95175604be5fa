//! IAM authentication at a cache: a presigned URL serves as the password.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use http::Request;

use super::aws;
use crate::egress::Egress;
use crate::error::Cause;

#[derive(Debug, Clone)]
pub(crate) struct Cache {
    /// The replication group, serverless cache or MemoryDB cluster.
    pub name: String,
    /// The user of the cache.
    pub username: String,
    /// Its AWS region.
    pub region: String,
    /// `elasticache` or `memorydb`.
    pub service: &'static str,
    /// Whether it is a serverless cache.
    pub serverless: bool,
}

/// Makes tokens with the gateway's own credentials.
#[derive(Debug)]
pub(crate) struct CacheTokens {
    cache: Cache,
    credentials: Option<SharedCredentialsProvider>,
}

impl CacheTokens {
    /// The first token loads the credentials.
    ///
    /// # Errors
    /// If `AWS_CA_BUNDLE` holds no usable certificates.
    pub(crate) async fn new(cache: Cache, egress: &Arc<Egress>) -> Result<Self, Cause> {
        let (config, _) = aws::config(&cache.region, egress, None, None).await?;
        Ok(Self { credentials: config.credentials_provider(), cache })
    }

    /// A new token, valid for 15 minutes.
    ///
    /// # Errors
    /// If there are no credentials, or the cache's name is not valid.
    pub(crate) async fn token(&self) -> Result<String, Cause> {
        let provider = self.credentials.as_ref().ok_or("no credentials are configured")?;
        let credentials = provider.provide_credentials().await?;
        signed(&self.cache, credentials, SystemTime::now())
    }
}

/// ElastiCache User Guide, "Authenticating with IAM": `Action=connect` on the cache's name, presigned
/// for 15 minutes, without the scheme.
fn signed(cache: &Cache, credentials: Credentials, now: SystemTime) -> Result<String, Cause> {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("Action", "connect")
        .append_pair("User", &cache.username)
        .extend_pairs(cache.serverless.then_some(("ResourceType", "ServerlessCache")))
        .finish();
    let uri = format!("http://{}/?{query}", cache.name.to_lowercase());
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(LIFE);
    let identity = credentials.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&cache.region)
        .name(cache.service)
        .time(now)
        .settings(settings)
        .build()?
        .into();
    let request = SignableRequest::new("GET", &uri, std::iter::empty(), SignableBody::Bytes(&[]))?;
    let (instructions, _) = sign(request, &params)?.into_parts();
    let mut signed = Request::get(&uri).body(())?;
    instructions.apply_to_request_http1x(&mut signed);
    let signed = signed.uri().to_string();
    Ok(signed.strip_prefix("http://").unwrap_or(&signed).to_owned())
}

/// The longest life that ElastiCache and MemoryDB accept.
const LIFE: Duration = Duration::from_secs(15 * 60);
