//! The file's shape: the one list of keys, defaults and scalar types. The JSON Schema is made from it.
//!
//! What is required is an `Option` here, so that [`super::resolve`] can name every missing key at once.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Count, Level, Listen, Period, Share, Span};

/// The whole file.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of sections")]
pub struct Config {
    /// The port that callers use.
    pub server: Server,
    /// The port that operators use.
    pub admin: Admin,
    /// How callers are known.
    #[schemars(required)]
    pub identity: Identity,
    /// Who may call, by name: `[a-z0-9][a-z0-9-]{0,62}`.
    #[schemars(required)]
    pub tenants: BTreeMap<String, Tenant>,
    /// The AWS accounts and regions behind the gateway, by name: `[a-z0-9][a-z0-9-]{0,62}`.
    #[schemars(required)]
    pub upstreams: BTreeMap<String, Upstream>,
    /// Where claims and levels live.
    pub store: Store,
    /// How retries are recognised.
    pub idempotency: Idempotency,
    /// What the gateway tells of itself.
    pub telemetry: Telemetry,
}

/// The port that callers use. A change needs a restart.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of server settings")]
pub struct Server {
    /// The address of the gRPC port.
    pub listen: Listen,
    /// TLS on the gRPC port; absent: plaintext, for use behind a mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// A call's deadline where the caller sends no `grpc-timeout`.
    pub default_timeout: Period,
    /// The longest deadline that a caller gets.
    pub max_timeout: Period,
    /// The largest request message, in bytes.
    pub max_request_bytes: Count,
    /// Calls in flight in this process, beyond which load is shed.
    pub max_in_flight: Count,
    /// Calls in flight on one connection.
    pub max_concurrent_streams: Count,
    /// After this (±10 %), a connection is told to go away, so that clients rebalance.
    pub max_connection_age: Period,
    /// How long calls in flight may finish after SIGTERM.
    pub drain_timeout: Period,
    /// Whether server reflection is served.
    pub reflection: bool,
}

/// TLS on the gRPC port.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of TLS files")]
pub struct ServerTls {
    /// The certificate chain, PEM.
    #[schemars(required)]
    pub cert_file: Option<String>,
    /// Its key, PEM.
    #[schemars(required)]
    pub key_file: Option<String>,
    /// The CA of client certificates, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<String>,
}

/// The port that operators use. A change needs a restart.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of admin settings")]
pub struct Admin {
    /// The address of the admin port.
    pub listen: Listen,
}

/// How callers are known. A change needs a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of identity settings")]
pub struct Identity {
    /// Required: choosing is the operator's duty.
    #[schemars(required)]
    pub mode: Option<IdentityMode>,
    /// For `mode: header`.
    pub header: HeaderIdentity,
    /// For `mode: jwt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtIdentity>,
}

/// How callers are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdentityMode {
    /// By a header that something in front sets.
    Header,
    /// By a bearer token.
    Jwt,
    /// By a client certificate.
    Mtls,
}

/// For `mode: header`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of header settings")]
pub struct HeaderIdentity {
    /// The header whose value is a tenant's name.
    pub name: String,
}

/// For `mode: jwt`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of JWT settings")]
pub struct JwtIdentity {
    /// The `iss` that tokens must have.
    #[schemars(required)]
    pub issuer: Option<String>,
    /// The `aud` that tokens must have.
    #[schemars(required)]
    pub audience: Option<String>,
    /// Where the key set is fetched; `http://` is allowed. One of `jwks_url` and `jwks_file` is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Where the key set is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<String>,
    /// The claim that holds the subject.
    pub subject_claim: SubjectClaim,
    /// The signature algorithms that are accepted.
    pub algorithms: Algorithms,
}

/// The claim that holds the subject.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SubjectClaim(pub String);

/// The signature algorithms that are accepted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Algorithms(pub Vec<Algorithm>);

/// An asymmetric signature algorithm (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "named by the RFC")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// A caller, with limits of its own. Applied without a restart.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of tenant settings")]
pub struct Tenant {
    /// JWT subjects, or URI or DNS names of client certificates. Ignored in header mode, where the tenant's own name
    /// is its subject.
    pub subjects: Vec<String>,
    /// The Connect instances it may name, or `["*"]`.
    #[schemars(required)]
    pub instances: Option<Vec<String>>,
    /// The roles it may ask for.
    pub roles: Vec<Role>,
    /// Its ceiling, per upstream, over all replicas.
    #[schemars(required)]
    pub rate: Option<Share>,
    /// The most calls it may start at once.
    #[schemars(required)]
    pub burst: Option<Count>,
    /// Its guaranteed share of the upstream's budget.
    pub committed: Share,
    /// The most calls it may have in flight, per upstream, over all replicas.
    pub max_in_flight: Count,
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

/// One AWS account and region. Rates apply without a restart; the rest needs one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of upstream settings")]
pub struct Upstream {
    /// The AWS region.
    #[schemars(required)]
    pub region: Option<String>,
    /// The Connect instances it owns, or `["*"]` on at most one upstream.
    #[schemars(required)]
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
    /// The account's burst for it.
    pub burst: Count,
    /// How long an admitted call may queue for its slot, deadline permitting.
    pub max_wait: Span,
    /// For establishing a connection.
    pub connect_timeout: Period,
    /// For one attempt.
    pub attempt_timeout: Period,
    /// The most attempts of one call; every attempt is charged to the budget.
    pub max_attempts: Count,
}

/// Where claims and levels live. A change needs a restart.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of store settings")]
pub struct Store {
    /// In this process, or in Redis for more than one replica.
    pub kind: StoreKind,
    /// For `kind: redis`.
    pub redis: Redis,
    /// What a lost Redis means: local limits, or refusal.
    pub on_loss: OnLoss,
    /// The most replicas that run; with `on_loss: local`, each then enforces 1/replicas of every limit.
    pub replicas: Count,
}

/// In this process, or in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In this process: for one replica.
    Memory,
    /// In Redis.
    Redis,
}

/// For `kind: redis`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of Redis settings")]
pub struct Redis {
    /// How the servers are arranged.
    pub topology: Topology,
    /// Where they are: `redis://` or, for TLS, `rediss://`.
    pub urls: Vec<String>,
    /// The name of the master that the sentinels watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_master: Option<String>,
    /// The ACL user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// The TLS files, for `rediss://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
    /// What every key begins with.
    pub key_prefix: String,
    /// For one round trip, whatever the connection is doing.
    pub timeout: Period,
}

/// The TLS files, for `rediss://`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of TLS files")]
pub struct RedisTls {
    /// The servers' CA, PEM; absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Our certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// Its key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
}

/// How the Redis servers are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// One server.
    Standalone,
    /// A master that sentinels watch.
    Sentinel,
    /// Redis Cluster.
    Cluster,
}

/// What a lost Redis means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnLoss {
    /// Local limits at 1/replicas.
    Local,
    /// Calls are refused.
    Reject,
}

/// How retries are recognised.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of idempotency settings")]
pub struct Idempotency {
    /// How long a `client_token` is remembered.
    pub retention: Period,
    /// One base64 32-byte key, which stays for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_key_file: Option<String>,
    /// A key a line: the first seals, all open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealing_keys_file: Option<String>,
}

/// What the gateway tells of itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of telemetry settings")]
pub struct Telemetry {
    /// The log, on standard output.
    pub log: Log,
    /// Traces and metrics by OTLP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<Otlp>,
}

/// The log, on standard output.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of log settings")]
pub struct Log {
    /// A change needs a restart.
    pub format: LogFormat,
    /// Applied without a restart.
    pub level: Level,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Traces and metrics by OTLP over gRPC.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of OTLP settings")]
pub struct Otlp {
    /// `http(s)://host:port`.
    pub endpoint: Option<String>,
    /// The share of calls that is traced where the caller did not decide: 0 to 1.
    pub sample_ratio: f64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: Listen::everywhere(50051),
            tls: None,
            default_timeout: Period::from_secs(10),
            max_timeout: Period::from_secs(30),
            max_request_bytes: Count::of(65_536),
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
        Self { listen: Listen::everywhere(9090) }
    }
}

impl Default for HeaderIdentity {
    fn default() -> Self {
        Self { name: "x-tenant-id".to_owned() }
    }
}

impl Default for SubjectClaim {
    fn default() -> Self {
        Self("sub".to_owned())
    }
}

impl Default for Algorithms {
    fn default() -> Self {
        Self(vec![Algorithm::RS256, Algorithm::ES256])
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

impl Default for Store {
    fn default() -> Self {
        Self { kind: StoreKind::Memory, redis: Redis::default(), on_loss: OnLoss::Local, replicas: Count::of(1) }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            topology: Topology::Standalone,
            urls: vec!["redis://127.0.0.1:6379".to_owned()],
            sentinel_master: None,
            username: None,
            password_file: None,
            tls: None,
            key_prefix: "pg".to_owned(),
            timeout: Period::from_millis(250),
        }
    }
}

impl Default for Idempotency {
    fn default() -> Self {
        Self { retention: Period::from_secs(24 * 60 * 60), root_key_file: None, sealing_keys_file: None }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Json, level: Level::Info }
    }
}

impl Default for Otlp {
    fn default() -> Self {
        Self { endpoint: None, sample_ratio: 0.1 }
    }
}
