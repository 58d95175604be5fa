//! The parts that all AWS clients share: the egress, the region and the credentials.

use std::sync::Arc;

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;

use super::credentials::Kept;
use super::route;
use super::sdk::StaticCredentials;
use crate::egress::Egress;
use crate::error::Cause;

/// A role, and the external id that its trust policy asks for.
pub(super) struct AssumedRole<'a> {
    pub arn: &'a str,
    pub external_id: Option<&'a str>,
}

/// The SDK's config. The services that give credentials are asked in the region `AWS_REGION`, or
/// else in this one. The credentials are cached, and loaded at their first use.
///
/// # Errors
/// If `AWS_CA_BUNDLE` holds no usable certificates.
pub(super) async fn config(
    region: &str,
    egress: &Arc<Egress>,
    role: Option<AssumedRole<'_>>,
    credentials: Option<StaticCredentials>,
) -> Result<(SdkConfig, Option<Kept>), Cause> {
    let own = set("AWS_REGION").unwrap_or_else(|| region.to_owned());
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(own))
        .http_client(route::client(egress)?);
    if has_endpoint("STS") {
        // The SDK's rules refuse a FIPS or dual-stack endpoint beside a custom one.
        loader = loader.use_fips(false).use_dual_stack(false);
    }
    if let Some(StaticCredentials { access_key_id, secret_access_key }) = credentials {
        loader = loader.credentials_provider(Credentials::new(
            access_key_id,
            secret_access_key,
            None,
            None,
            "static",
        ));
    }
    let base = loader.load().await;
    let base = match role {
        Some(role) => assume(role, base).await,
        None => base,
    };
    let Some(provider) = base.credentials_provider() else { return Ok((base, None)) };
    let kept = Kept::new(provider);
    let provider = SharedCredentialsProvider::new(kept.clone());
    Ok((base.into_builder().credentials_provider(provider).build(), Some(kept)))
}

async fn assume(role: AssumedRole<'_>, base: SdkConfig) -> SdkConfig {
    let mut provider = AssumeRoleProvider::builder(role.arn)
        .session_name("participant-gateway")
        .configure(&base);
    if let Some(external_id) = role.external_id {
        provider = provider.external_id(external_id);
    }
    let provider = provider.build().await;
    base.into_builder()
        .credentials_provider(SharedCredentialsProvider::new(provider))
        .build()
}

/// Whether the environment names an endpoint for the service.
pub(super) fn has_endpoint(service: &str) -> bool {
    let ignored = set("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let names = ["AWS_ENDPOINT_URL".to_owned(), format!("AWS_ENDPOINT_URL_{service}")];
    !ignored && names.iter().any(|name| set(name).is_some())
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
