//! The keys under `store` and `idempotency`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::{Count, Period};

/// The place of claims and levels. A change needs a restart.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of store settings")]
pub struct Store {
    /// In this process, or in Redis for more than one replica.
    pub(crate) kind: StoreKind,
    /// For `kind: redis`.
    pub(crate) redis: Redis,
    /// The behaviour while Redis is lost: local limits, or refusal.
    pub(crate) on_loss: OnLoss,
    /// The most replicas that run; with `on_loss: local`, each then enforces 1/replicas of every
    /// limit.
    pub(crate) replicas: Count,
}

/// In this process, or in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreKind {
    /// In this process: for one replica.
    Memory,
    /// In Redis.
    Redis,
}

/// For `kind: redis`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of Redis settings")]
pub(crate) struct Redis {
    /// How the servers are arranged.
    pub topology: Topology,
    /// The URLs of the servers: `redis://` or, for TLS, `rediss://`; `valkey://` and `valkeys://`
    /// mean the same.
    pub urls: Vec<String>,
    /// The name of the master that the sentinels watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_master: Option<String>,
    /// The sentinels' ACL user. Without it and a password of theirs, a sentinel that asks for
    /// authentication gets `username` and the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_username: Option<String>,
    /// The file that holds the sentinels' password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_password_file: Option<String>,
    /// The ACL user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// Instead of a password: the IAM authentication of ElastiCache or MemoryDB, for `username`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) iam: Option<RedisIam>,
    /// The TLS files, for `rediss://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<RedisTls>,
    /// The prefix of every key.
    pub key_prefix: String,
    /// The most time for one round trip, whatever the state of the connection.
    pub(crate) timeout: Period,
}

/// IAM authentication, by a signed token for each connection.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of IAM settings")]
#[schemars(extend("required" = ["cache"]))]
pub(crate) struct RedisIam {
    /// The cache's name: a replication group, a serverless cache, or a MemoryDB cluster.
    pub cache: Option<String>,
    /// Its AWS region; absent: `AWS_REGION`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The service of the cache.
    pub service: IamService,
    /// Whether it is a serverless cache.
    pub serverless: bool,
}

/// The service of the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IamService {
    /// Amazon ElastiCache.
    #[default]
    ElastiCache,
    /// Amazon MemoryDB.
    MemoryDb,
}

/// The TLS files, for `rediss://`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of TLS files")]
pub(crate) struct RedisTls {
    /// The servers' CA, PEM; absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// The gateway's client certificate, PEM.
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

/// The behaviour while Redis is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnLoss {
    /// Each replica applies 1/replicas of every limit by itself.
    Local,
    /// Calls are refused.
    Reject,
}

/// How the gateway recognises retries.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of idempotency settings")]
pub(crate) struct Idempotency {
    /// How long a `client_token` is remembered.
    pub retention: Period,
    /// The file of one base64 32-byte key. It must never change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_key_file: Option<String>,
    /// The file of base64 32-byte keys, one per line. The first seals, and every key opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealing_keys_file: Option<String>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreKind::Memory,
            redis: Redis::default(),
            on_loss: OnLoss::Local,
            replicas: Count::of(1),
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            topology: Topology::Standalone,
            urls: vec!["redis://127.0.0.1:6379".to_owned()],
            sentinel_master: None,
            sentinel_username: None,
            sentinel_password_file: None,
            username: None,
            password_file: None,
            iam: None,
            tls: None,
            key_prefix: "pg".to_owned(),
            timeout: Period::from_millis(250),
        }
    }
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            retention: Period::from_secs(24 * 60 * 60),
            root_key_file: None,
            sealing_keys_file: None,
        }
    }
}
