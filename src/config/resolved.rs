//! The sections that need no rule across keys, as the program uses them: plain values instead of
//! the types of the file.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::{Environment, shape};
use crate::admission::redis::{Layout, RedisSettings, SentinelLogin, TlsFiles, Topology};

/// The port that callers use.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// The address of the gRPC port.
    pub listen: SocketAddr,
    /// The files of TLS on the port; `None`: plaintext.
    pub(crate) tls: Option<ServerTls>,
    /// A call's deadline if the caller sends no `grpc-timeout`.
    pub default_timeout: Duration,
    /// The longest deadline that a caller gets.
    pub max_timeout: Duration,
    /// The largest request message, in bytes.
    pub max_request_bytes: usize,
    /// The largest header list of a request, in bytes as HTTP/2 counts them.
    pub max_header_bytes: u32,
    /// The most calls in flight in this process; beyond it, load is shed.
    pub max_in_flight: u32,
    /// The most calls in flight on one connection.
    pub max_concurrent_streams: u32,
    /// The age (±10 %) at which a connection gets GOAWAY.
    pub max_connection_age: Duration,
    /// The time that calls in flight have to end after SIGTERM.
    pub drain_timeout: Duration,
    /// Whether server reflection is served.
    pub reflection: bool,
}

/// The files of TLS on the gRPC port.
#[derive(Debug, Clone)]
pub(crate) struct ServerTls {
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The CA of client certificates, PEM.
    pub(crate) client_ca: Option<PathBuf>,
}

/// The place of claims and levels.
#[derive(Debug, Clone)]
pub enum Store {
    /// In this process.
    Memory,
    /// In Redis.
    Redis {
        /// How Redis is reached, without the IAM tokens of `iam`.
        settings: Box<RedisSettings>,
        /// IAM authentication, where it is configured.
        iam: Option<RedisIam>,
        /// The behaviour while Redis is lost.
        on_loss: OnLoss,
    },
}

/// IAM authentication at a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisIam {
    /// The cache's name.
    pub cache: String,
    /// The user of the cache.
    pub username: String,
    /// Its AWS region.
    pub region: String,
    /// Whose cache it is, as signatures name it: `elasticache` or `memorydb`.
    pub service: &'static str,
    /// Whether it is a serverless cache.
    pub serverless: bool,
}

/// The behaviour while Redis is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// Each replica decides calls by itself, at 1/replicas of every limit.
    Local {
        /// The most replicas that run at once.
        replicas: NonZeroU32,
    },
    /// Calls are refused.
    Reject,
}

impl From<&shape::Server> for Server {
    fn from(server: &shape::Server) -> Self {
        Self {
            listen: server.listen.get(),
            tls: server.tls.as_ref().and_then(ServerTls::of),
            default_timeout: server.default_timeout.get(),
            max_timeout: server.max_timeout.get(),
            max_request_bytes: server.max_request_bytes.get() as usize,
            max_header_bytes: server.max_header_bytes.get(),
            max_in_flight: server.max_in_flight.get(),
            max_concurrent_streams: server.max_concurrent_streams.get(),
            max_connection_age: server.max_connection_age.get(),
            drain_timeout: server.drain_timeout.get(),
            reflection: server.reflection,
        }
    }
}

impl ServerTls {
    /// `None` if a file is missing from the config; the resolver reports that.
    #[must_use]
    pub(crate) fn of(tls: &shape::ServerTls) -> Option<Self> {
        Some(Self {
            cert: tls.cert_file.as_ref()?.into(),
            key: tls.key_file.as_ref()?.into(),
            client_ca: tls.client_ca_file.as_ref().map(Into::into),
        })
    }
}

impl Store {
    /// The store of a config in which the resolver has found no problem.
    pub(super) fn new(store: &shape::Store, environment: &Environment) -> Self {
        match store.kind {
            shape::StoreKind::Memory => Self::Memory,
            shape::StoreKind::Redis => Self::Redis {
                settings: Box::new(redis(&store.redis)),
                iam: iam(&store.redis, environment),
                on_loss: match store.on_loss {
                    shape::OnLoss::Reject => OnLoss::Reject,
                    shape::OnLoss::Local => OnLoss::Local {
                        replicas: NonZeroU32::new(store.replicas.get()).unwrap_or(NonZeroU32::MIN),
                    },
                },
            },
        }
    }
}

fn iam(redis: &shape::Redis, environment: &Environment) -> Option<RedisIam> {
    let iam = redis.iam.as_ref()?;
    let region = iam.region.as_deref().or_else(|| environment.get("AWS_REGION"));
    Some(RedisIam {
        cache: iam.cache.clone()?,
        username: redis.username.clone()?,
        region: region?.to_owned(),
        service: match iam.service {
            shape::IamService::ElastiCache => "elasticache",
            shape::IamService::MemoryDb => "memorydb",
        },
        serverless: iam.serverless,
    })
}

fn redis(redis: &shape::Redis) -> RedisSettings {
    let topology = match redis.topology {
        shape::Topology::Standalone => Topology::Standalone,
        shape::Topology::Sentinel => {
            Topology::Sentinel { master: redis.sentinel_master.clone().unwrap_or_default() }
        }
        shape::Topology::Cluster => Topology::Cluster,
    };
    let tls = redis.tls.clone().unwrap_or_default();
    RedisSettings {
        topology,
        urls: redis.urls.clone(),
        username: redis.username.clone(),
        password_file: redis.password_file.clone().map(Into::into),
        tokens: None,
        sentinel: SentinelLogin {
            username: redis.sentinel_username.clone(),
            password_file: redis.sentinel_password_file.clone().map(Into::into),
        },
        tls: TlsFiles {
            ca_file: tls.ca_file.map(Into::into),
            cert_file: tls.cert_file.map(Into::into),
            key_file: tls.key_file.map(Into::into),
        },
        key_prefix: redis.key_prefix.clone(),
        timeout: redis.timeout.get(),
        layout: Layout::default(),
    }
}
