//! The route of the SDK's requests: through the proxy, or direct.
//!
//! The SDK has one HTTP client for all requests. The metadata services of containers and instances
//! are on the host's own network. A proxy cannot reach them.

use std::sync::Arc;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use http::Uri;

use super::sdk::POOL_IDLE;
use crate::egress::Egress;
use crate::error::Cause;

/// The SDK's client, over the egress.
///
/// # Errors
/// If `AWS_CA_BUNDLE` holds no usable certificates.
pub(super) fn client(egress: &Arc<Egress>) -> Result<SharedHttpClient, Cause> {
    let mut trusted = TrustStore::default();
    if let Some(bundle) = egress.ca_bundle() {
        trusted.add_pem_certificate(bundle);
    }
    let tls = TlsContext::builder().with_trust_store(trusted).build()?;
    let proxied = |scheme| {
        let Some(url) = egress.proxy_url(scheme) else { return Ok::<_, Cause>(None) };
        Ok(Some(one(tls.clone(), ProxyConfig::all(url.to_owned())?)))
    };
    let (http, https) = (proxied("http")?, proxied("https")?);
    let direct = one(tls.clone(), ProxyConfig::disabled());
    if http.is_none() && https.is_none() {
        return Ok(direct);
    }
    let metadata = metadata(|name| std::env::var(name).ok());
    let egress = Arc::clone(egress);
    Ok(SharedHttpClient::new(Routed { direct, http, https, egress, metadata: metadata.into() }))
}

fn one(tls: TlsContext, proxy: ProxyConfig) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
            .tls_context(tls.clone())
            .proxy_config(proxy.clone())
            .pool_idle_timeout(POOL_IDLE);
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.build()
    })
}

#[derive(Debug)]
struct Routed {
    direct: SharedHttpClient,
    http: Option<SharedHttpClient>,
    https: Option<SharedHttpClient>,
    egress: Arc<Egress>,
    metadata: Arc<[Place]>,
}

impl HttpClient for Routed {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let of = |client: &SharedHttpClient| client.http_connector(settings, components);
        SharedHttpConnector::new(RoutedConnector {
            direct: of(&self.direct),
            http: self.http.as_ref().map(of),
            https: self.https.as_ref().map(of),
            egress: Arc::clone(&self.egress),
            metadata: Arc::clone(&self.metadata),
        })
    }
}

#[derive(Debug)]
struct RoutedConnector {
    direct: SharedHttpConnector,
    http: Option<SharedHttpConnector>,
    https: Option<SharedHttpConnector>,
    egress: Arc<Egress>,
    metadata: Arc<[Place]>,
}

impl HttpConnector for RoutedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let proxied = request.uri().parse::<Uri>().ok().and_then(|uri| {
            let is_metadata = self.metadata.iter().any(|place| place.is_of(&uri));
            let by = if uri.scheme_str() == Some("http") { &self.http } else { &self.https };
            by.as_ref().filter(|_| !is_metadata && self.egress.proxy_for(&uri).is_some())
        });
        proxied.unwrap_or(&self.direct).call(request)
    }
}

/// A host, and its port where only one port counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    port: Option<u16>,
}

impl Place {
    fn is_of(&self, uri: &Uri) -> bool {
        uri.host() == Some(self.host.as_str())
            && (self.port.is_none() || self.port == uri.port_u16())
    }
}

/// The addresses of the metadata services: AWS's own, or the ones that the environment names
/// instead. Source: AWS SDKs and Tools Reference Guide, "Container credential provider" and "IMDS
/// credential provider".
fn metadata(variable: impl Fn(&str) -> Option<String>) -> Vec<Place> {
    let well_known = WELL_KNOWN.iter().map(|host| Place { host: (*host).to_owned(), port: None });
    let named = ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_SERVICE_ENDPOINT"];
    let named = named.iter().filter_map(|name| {
        let uri: Uri = variable(name)?.parse().ok()?;
        Some(Place { host: uri.host()?.to_owned(), port: uri.port_u16() })
    });
    well_known.chain(named).collect()
}

const WELL_KNOWN: [&str; 5] =
    ["169.254.169.254", "169.254.170.2", "169.254.170.23", "[fd00:ec2::254]", "[fd00:ec2::23]"];
