//! The file's shape: the one list of keys, defaults and scalar types. The JSON Schema is made from
//! these types.
//!
//! A required key is an `Option` here: [`super::resolve`] can then report every missing key at
//! once. The schema marks it as required by `extend`, because serde's default of a mapping makes
//! every key of it optional.

mod identity;
mod store;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Count, Level, Listen, Period, Share, Span};

use crate::domain::Name;

pub use identity::{Algorithm, HeaderFormat};
pub(crate) use identity::{HeaderIdentity, Identity, IdentityMode, JwtIdentity};

pub(crate) use store::{IamService, Idempotency, Redis, StoreKind};
pub use store::{OnLoss, Store, Topology};

/// The whole file.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of sections")]
#[schemars(extend("required" = ["identity", "tenants", "upstreams"]))]
pub struct Config {
    /// The port that callers use.
    pub(crate) server: Server,
    /// The port that operators use.
    pub(crate) admin: Admin,
    /// How the gateway identifies callers.
    pub(crate) identity: Identity,
    /// The callers, by name: `[a-z0-9][a-z0-9-]{0,62}`.
    #[schemars(extend("propertyNames" = { "pattern": Name::PATTERN }, "minProperties" = 1))]
    pub tenants: BTreeMap<String, Tenant>,
    /// The AWS accounts and regions behind the gateway, by name: `[a-z0-9][a-z0-9-]{0,62}`.
    #[schemars(extend("propertyNames" = { "pattern": Name::PATTERN }, "minProperties" = 1))]
    pub upstreams: BTreeMap<String, Upstream>,
    /// The place of claims and levels.
    pub store: Store,
    /// How the gateway recognises retries.
    pub(crate) idempotency: Idempotency,
    /// The log, the traces and the metrics.
    pub telemetry: Telemetry,
}

/// The port that callers use. A change needs a restart.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of server settings")]
pub(crate) struct Server {
    /// The address of the gRPC port.
    pub(crate) listen: Listen,
    /// TLS on the gRPC port; absent: plaintext, for use behind a mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<ServerTls>,
    /// A call's deadline if the caller sends no `grpc-timeout`.
    pub(crate) default_timeout: Period,
    /// The longest deadline that a caller gets.
    pub(crate) max_timeout: Period,
    /// The largest request message, in bytes.
    pub(crate) max_request_bytes: Count,
    /// The largest header list of a request, in bytes as HTTP/2 counts them (RFC 9113, section
    /// 6.5.2).
    #[schemars(extend("minimum" = MIN_HEADER_BYTES, "maximum" = MAX_HEADER_BYTES))]
    pub(crate) max_header_bytes: Count,
    /// The most calls in flight in this process; beyond it, load is shed.
    pub(crate) max_in_flight: Count,
    /// The most calls in flight on one connection.
    pub(crate) max_concurrent_streams: Count,
    /// The age (±10 %) at which a connection gets GOAWAY, so that clients rebalance.
    pub(crate) max_connection_age: Period,
    /// The time that calls in flight have to end after SIGTERM.
    pub(crate) drain_timeout: Period,
    /// Whether server reflection is served.
    pub reflection: bool,
}

/// TLS on the gRPC port.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of TLS files")]
#[schemars(extend("required" = ["cert_file", "key_file"]))]
pub(crate) struct ServerTls {
    /// The certificate chain, PEM.
    pub cert_file: Option<String>,
    /// Its key, PEM.
    pub key_file: Option<String>,
    /// The CA of client certificates, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<String>,
}

/// The port that operators use. A change needs a restart.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of admin settings")]
pub(crate) struct Admin {
    /// The address of the admin port.
    pub listen: Listen,
    /// Whether the page at `/` and `/status` are served.
    pub console: bool,
}

/// A caller, with limits of its own. Applied without a restart.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of tenant settings")]
#[schemars(extend("required" = ["instances", "rate", "burst"]))]
pub struct Tenant {
    /// JWT subjects, URI or DNS names of client certificates, or header values. A `*` at the end
    /// stands for any rest. In header mode the tenant's own name is also a subject.
    pub subjects: Vec<String>,
    /// The Connect instances it may name, or `["*"]`.
    #[schemars(length(min = 1))]
    pub instances: Option<Vec<String>>,
    /// The roles it may ask for.
    pub roles: Vec<Role>,
    /// Its ceiling, per upstream, over all replicas.
    pub rate: Option<Share>,
    /// The most calls it may start at once.
    pub(crate) burst: Option<Count>,
    /// Its guaranteed share of the upstream's budget.
    pub committed: Share,
    /// The most calls it may have in flight, per upstream, over all replicas.
    pub(crate) max_in_flight: Count,
    /// Whether a call without a `client_token` is refused: a repeat of it could make a second
    /// participant.
    pub require_client_token: bool,
    /// Whether its rate and in-flight limits refuse, or only report.
    pub enforcement: Enforcement,
}

/// A role that Connect's `CreateParticipant` accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Role {
    /// A bot of the caller's own, in a chat.
    CustomBot,
    /// A customer, of a WebRTC call.
    Customer,
}

/// Whether a tenant's own limits refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// They refuse.
    Enforce,
    /// They are decided, counted and logged, but let through.
    Shadow,
}

/// One AWS account and region. Its rate, burst, max_wait, attempt_timeout and max_attempts apply
/// without a restart; the other keys need one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of upstream settings")]
#[schemars(extend("required" = ["region", "instances"]))]
pub struct Upstream {
    /// The AWS region.
    pub region: Option<String>,
    /// The Connect instances it owns, or `["*"]` on at most one upstream.
    #[schemars(length(min = 1))]
    pub instances: Option<Vec<String>>,
    /// Another endpoint than AWS's own: a simulator or a VPC endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// A role to assume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// The external id that the role's trust policy asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The account's quota for `CreateParticipant`, shared by every tenant and replica.
    pub rate: Share,
    /// The account's burst for `CreateParticipant`.
    pub(crate) burst: Count,
    /// The longest time that an admitted call may queue for its slot; its deadline may shorten it.
    pub max_wait: Span,
    /// The most time to establish a connection.
    pub(crate) connect_timeout: Period,
    /// The most time for one attempt.
    pub(crate) attempt_timeout: Period,
    /// The most attempts of one call; every attempt is charged to the budget.
    pub(crate) max_attempts: Count,
}

/// The log, the traces and the metrics.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of telemetry settings")]
pub struct Telemetry {
    /// The log, on standard output.
    pub log: Log,
    /// Traces and metrics by OTLP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) otlp: Option<Otlp>,
}

/// The log, on standard output.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of log settings")]
pub struct Log {
    /// The form of a log line. A change needs a restart.
    pub format: LogFormat,
    /// The minimum level that is logged. Applied without a restart.
    pub level: Level,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Readable text.
    Text,
}

/// Traces and metrics by OTLP.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of OTLP settings")]
pub(crate) struct Otlp {
    /// The collector, as `http(s)://host:port`.
    pub endpoint: Option<String>,
    /// Over gRPC, or over HTTP; absent: `OTEL_EXPORTER_OTLP_PROTOCOL`, or gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<OtlpProtocol>,
    /// The share of calls that is traced if the caller did not decide: 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: f64,
}

/// The protocol of OTLP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum OtlpProtocol {
    /// Over gRPC.
    #[default]
    #[serde(rename = "grpc")]
    Grpc,
    /// Protobuf over HTTP.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: Listen::everywhere(50051),
            tls: None,
            default_timeout: Period::from_secs(10),
            max_timeout: Period::from_secs(30),
            max_request_bytes: Count::of(65_536),
            max_header_bytes: Count::of(16_384),
            max_in_flight: Count::of(1024),
            max_concurrent_streams: Count::of(256),
            max_connection_age: Period::from_secs(30 * 60),
            drain_timeout: Period::from_secs(25),
            reflection: true,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: Listen::everywhere(9090), console: true }
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            subjects: Vec::new(),
            instances: None,
            roles: vec![Role::CustomBot, Role::Customer],
            rate: None,
            burst: None,
            committed: Share::zero(),
            max_in_flight: Count::of(64),
            require_client_token: false,
            enforcement: Enforcement::Enforce,
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            region: None,
            instances: None,
            endpoint_url: None,
            role_arn: None,
            external_id: None,
            rate: Share::per_second(2.0),
            burst: Count::of(5),
            max_wait: Span::from_millis(500),
            connect_timeout: Period::from_secs(1),
            attempt_timeout: Period::from_secs(3),
            max_attempts: Count::of(3),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Json, level: Level::Info }
    }
}

impl Default for Otlp {
    fn default() -> Self {
        Self { endpoint: None, protocol: None, sample_ratio: 0.1 }
    }
}

/// The bounds of `server.max_header_bytes`, in bytes.
pub(crate) const MIN_HEADER_BYTES: u32 = 4096;
/// The bounds of `server.max_header_bytes`, in bytes.
pub(crate) const MAX_HEADER_BYTES: u32 = 65_536;
