//! The exporters of OTLP: over gRPC by the library's own client, over HTTP by the gateway's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::tonic_types::transport::{
    Certificate, ClientTlsConfig, Identity as TonicIdentity,
};
use opentelemetry_otlp::{
    Compression, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;

use crate::config::{OtlpExporter, OtlpProtocol};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Sends spans. Must be called inside a tokio runtime.
pub(super) fn spans(to: &OtlpExporter) -> Result<SpanExporter, BoxError> {
    match to.protocol {
        OtlpProtocol::Grpc => {
            let exporter = SpanExporter::builder().with_tonic();
            let exporter = exporter.with_endpoint(&to.endpoint).with_timeout(to.timeout);
            Ok(over_grpc(exporter, to).build()?)
        }
        OtlpProtocol::HttpProtobuf => {
            let exporter = SpanExporter::builder().with_http();
            let exporter = exporter.with_endpoint(&to.endpoint).with_timeout(to.timeout);
            let exporter = exporter.with_protocol(Protocol::HttpBinary);
            Ok(over_http(exporter, to)?.build()?)
        }
    }
}

/// Sends metrics. Must be called inside a tokio runtime.
pub(super) fn metrics(to: &OtlpExporter) -> Result<MetricExporter, BoxError> {
    match to.protocol {
        OtlpProtocol::Grpc => {
            let exporter = MetricExporter::builder().with_tonic();
            let exporter = exporter.with_endpoint(&to.endpoint).with_timeout(to.timeout);
            Ok(over_grpc(exporter, to).build()?)
        }
        OtlpProtocol::HttpProtobuf => {
            let exporter = MetricExporter::builder().with_http();
            let exporter = exporter.with_endpoint(&to.endpoint).with_timeout(to.timeout);
            let exporter = exporter.with_protocol(Protocol::HttpBinary);
            Ok(over_http(exporter, to)?.build()?)
        }
    }
}

fn over_grpc<B: WithTonicConfig>(mut exporter: B, to: &OtlpExporter) -> B {
    if to.gzip {
        exporter = exporter.with_compression(Compression::Gzip);
    }
    if !to.endpoint.starts_with("https://") {
        return exporter;
    }
    let tls = ClientTlsConfig::new();
    let tls = match &to.ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(ca)),
        None => tls.with_enabled_roots(),
    };
    let tls = match &to.identity {
        Some(shown) => tls.identity(TonicIdentity::from_pem(&shown.certificate, &shown.key)),
        None => tls,
    };
    exporter.with_tls_config(tls)
}

fn over_http<B: WithHttpConfig>(mut exporter: B, to: &OtlpExporter) -> Result<B, BoxError> {
    if to.gzip {
        exporter = exporter.with_compression(Compression::Gzip);
    }
    let client = Poster { client: client(to)?, timeout: to.timeout, runtime: Handle::current() };
    Ok(exporter.with_http_client(client))
}

/// Posts on the runtime: exports begin on the library's own threads, which have no runtime.
#[derive(Debug)]
struct Poster {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Poster {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        let exchange = async move {
            let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
            Ok::<_, HttpError>(Response::from_parts(head, body.to_bytes()))
        };
        let exchange = async move { tokio::time::timeout(timeout, exchange).await };
        self.runtime.spawn(exchange).await??
    }
}

fn client(
    to: &OtlpExporter,
) -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, BoxError> {
    let mut roots = RootCertStore::empty();
    match &to.ca {
        Some(ca) => {
            let certificates: Vec<_> =
                CertificateDer::pem_slice_iter(ca).collect::<Result<_, _>>()?;
            roots.add_parsable_certificates(certificates);
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let tls = match &to.identity {
        Some(shown) => {
            let chain = CertificateDer::pem_slice_iter(&shown.certificate);
            let key = PrivateKeyDer::from_pem_slice(&shown.key)?;
            tls.with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?
        }
        None => tls.with_no_client_auth(),
    };
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// A collector's answer is short; a longer one is from another server.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
