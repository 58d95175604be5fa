//! The exporter of one signal: its destination, its protocol and its trust.

use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Reader, Signal};
use crate::config::shape;

/// The destination of a signal, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exporter {
    /// A URL with its scheme; with `http/protobuf` it includes the path.
    pub endpoint: String,
    /// The protocol of the export.
    pub(crate) protocol: Protocol,
    /// The most time for one export.
    pub timeout: Duration,
    /// Whether the export is compressed.
    pub gzip: bool,
    /// The certificate authorities, PEM. `None`: the system's roots.
    pub ca: Option<Vec<u8>>,
    /// The client certificate that the collector gets.
    pub identity: Option<ClientCertificate>,
}

/// The config and the environment use the same words.
pub(crate) type Protocol = shape::OtlpProtocol;

/// A client's certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, with its chain.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

/// Leaves the key out.
impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

impl Signal {
    fn infix(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
        }
    }

    /// The signal's path of OTLP over HTTP.
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// The variable that also bounds one export of the signal.
    fn bound(self) -> &'static str {
        match self {
            Self::Traces => "OTEL_BSP_EXPORT_TIMEOUT",
            Self::Metrics => "OTEL_METRIC_EXPORT_TIMEOUT",
        }
    }
}

impl Reader<'_> {
    /// The exporter. `None` where the signal is not exported: there is no endpoint, and no variable
    /// asks for `otlp` by name.
    pub(super) fn exporter(&mut self, signal: Signal, otlp: &shape::Otlp) -> Option<Exporter> {
        let asked = self.is_asked_for(signal);
        let protocol = self.protocol(signal, otlp.protocol);
        let endpoint = self.endpoint(signal, otlp.endpoint.as_deref(), protocol);
        let gzip = self.gzip(signal);
        let timeout = self.of(signal, "TIMEOUT").and_then(|(name, _)| self.millis(&name));
        let bound = self.millis(signal.bound()).unwrap_or(Duration::MAX);
        let timeout = timeout.unwrap_or(TIMEOUT).min(bound);
        self.headers(signal);
        let ca = self.pem(signal, "CERTIFICATE", "certificates", |pem| {
            CertificateDer::pem_slice_iter(pem).next().is_some_and(|first| first.is_ok())
        });
        let identity = self.identity(signal);
        let default = match protocol {
            Protocol::Grpc => "http://localhost:4317".to_owned(),
            Protocol::HttpProtobuf => format!("http://localhost:4318{}", signal.path()),
        };
        let endpoint = match asked {
            Some(false) => None,
            None => endpoint,
            Some(true) => Some(endpoint.unwrap_or(default)),
        }?;
        Some(Exporter { endpoint, protocol, timeout, gzip, ca, identity })
    }

    /// The signal's own variable, or else the variable for all signals.
    fn of(&self, signal: Signal, option: &str) -> Option<(String, String)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{option}", signal.infix());
        let [own, all] = [own, format!("OTEL_EXPORTER_OTLP_{option}")]
            .map(|name| self.get(&name).map(|value| (name, value)));
        own.or(all)
    }

    /// The answer of `OTEL_TRACES_EXPORTER` or `OTEL_METRICS_EXPORTER`, where it is set.
    fn is_asked_for(&mut self, signal: Signal) -> Option<bool> {
        let name = format!("OTEL_{}_EXPORTER", signal.infix());
        let value = self.get(&name)?;
        let (mut pushes, mut is_scraped, mut is_none) = (false, false, false);
        for exporter in value.split(',').map(str::trim).filter(|exporter| !exporter.is_empty()) {
            match (exporter, signal) {
                ("otlp", _) => pushes = true,
                ("none", _) => is_none = true,
                // `/metrics` is always served.
                ("prometheus", Signal::Metrics) => is_scraped = true,
                (_, Signal::Traces) => self.refuse(&name, "otlp or none"),
                (_, Signal::Metrics) => self.refuse(&name, "otlp, prometheus, or none"),
            }
        }
        if is_none && (pushes || is_scraped) {
            self.refuse(&name, "none by itself, or exporters");
        }
        Some(pushes)
    }

    fn protocol(&mut self, signal: Signal, configured: Option<Protocol>) -> Protocol {
        let own = format!("OTEL_EXPORTER_OTLP_{}_PROTOCOL", signal.infix());
        let (name, value) = match (self.get(&own), configured) {
            (Some(value), _) => (own, value),
            (None, Some(configured)) => return configured,
            (None, None) => match self.get(PROTOCOL) {
                Some(value) => (PROTOCOL.to_owned(), value),
                None => return Protocol::default(),
            },
        };
        match value.as_str() {
            "grpc" => Protocol::Grpc,
            "http/protobuf" => Protocol::HttpProtobuf,
            _ => {
                self.refuse(&name, "grpc or http/protobuf");
                Protocol::default()
            }
        }
    }

    /// The signal's own variable has priority over the config. The config has priority over the
    /// variable for all signals.
    fn endpoint(
        &mut self,
        signal: Signal,
        configured: Option<&str>,
        protocol: Protocol,
    ) -> Option<String> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.infix());
        let is_insecure = match self.of(signal, "INSECURE") {
            Some((name, _)) => self.is_true(&name),
            None => false,
        };
        // Over HTTP, the signal's own variable holds the whole URL, path included.
        let (name, value, path) = match (self.get(&own), configured, self.get(ENDPOINT)) {
            (Some(value), _, _) => (own, value, ""),
            // `resolve` has checked the key of the config.
            (None, Some(configured), _) => (String::new(), configured.to_owned(), signal.path()),
            (None, None, Some(value)) => (ENDPOINT.to_owned(), value, signal.path()),
            (None, None, None) => return None,
        };
        let value = match protocol {
            // A gRPC endpoint may have no scheme.
            Protocol::Grpc if !value.contains("://") => {
                format!("{}://{value}", if is_insecure { "http" } else { "https" })
            }
            Protocol::Grpc => value,
            Protocol::HttpProtobuf => format!("{}{path}", value.trim_end_matches('/')),
        };
        let is_url = value.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        if !is_url && !name.is_empty() {
            self.refuse(&name, "http://host:port or https://host:port");
        }
        is_url.then_some(value)
    }

    fn gzip(&mut self, signal: Signal) -> bool {
        match self.of(signal, "COMPRESSION") {
            None => false,
            Some((_, value)) if value == "none" => false,
            Some((_, value)) if value == "gzip" => true,
            Some((name, _)) => {
                self.refuse(&name, "gzip or none");
                false
            }
        }
    }

    /// The library reads the headers, and drops a pair that is no header in silence.
    fn headers(&mut self, signal: Signal) {
        let Some((name, value)) = self.of(signal, "HEADERS") else { return };
        let is_header = |pair: &str| {
            pair.split_once('=').is_some_and(|(key, value)| {
                http::HeaderName::try_from(key.trim()).is_ok()
                    && http::HeaderValue::from_str(value.trim()).is_ok()
            })
        };
        if !value.split(',').filter(|pair| !pair.trim().is_empty()).all(is_header) {
            self.refuse(&name, "name=value,name=value: headers, percent-encoded");
        }
    }

    fn identity(&mut self, signal: Signal) -> Option<ClientCertificate> {
        let certificate = self.pem(signal, "CLIENT_CERTIFICATE", "certificates", |pem| {
            CertificateDer::pem_slice_iter(pem).next().is_some_and(|first| first.is_ok())
        });
        let key = self
            .pem(signal, "CLIENT_KEY", "a key", |pem| PrivateKeyDer::from_pem_slice(pem).is_ok());
        let names = ["CLIENT_CERTIFICATE", "CLIENT_KEY"].map(|option| self.of(signal, option));
        match (certificate, key, names) {
            (Some(certificate), Some(key), _) => Some(ClientCertificate { certificate, key }),
            (_, _, [Some((name, _)), None] | [None, Some((name, _))]) => {
                self.refuse(&name, "the client's certificate and its key, both");
                None
            }
            _ => None,
        }
    }

    fn pem(
        &mut self,
        signal: Signal,
        option: &str,
        what: &str,
        is_good: impl Fn(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let (name, file) = self.of(signal, option)?;
        match std::fs::read(&file) {
            Ok(pem) if is_good(&pem) => Some(pem),
            Ok(_) => {
                self.refuse(&name, format!("a file with {what}, PEM"));
                None
            }
            Err(error) => {
                self.refuse(&name, format!("a readable file: {error}"));
                None
            }
        }
    }
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

/// The specification's default.
const TIMEOUT: Duration = Duration::from_secs(10);
