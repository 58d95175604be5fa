//! The store that the config asks for.

use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::memory::MemoryStore;
use crate::admission::redis::{RedisSettings, RedisStore, TlsFiles, Topology};
use crate::admission::{Guarded, OnLoss, Store};
use crate::config::shape;
use crate::telemetry::Metrics;

use super::measured::Measured;

/// The store, and what guards it where it can be lost.
pub enum Stores {
    /// In this process.
    Memory(Arc<MemoryStore>),
    /// In Redis.
    Redis(Arc<Guarded>),
}

impl Stores {
    /// Takes the store into use. A Redis that is not there yet is no error: `on_loss` says what that means for calls.
    pub async fn start(config: &shape::Store, metrics: &Arc<Metrics>) -> io::Result<Self> {
        match config.kind {
            shape::StoreKind::Memory => {
                metrics.show_store(|| false, || 0);
                Ok(Self::Memory(Arc::new(MemoryStore::new())))
            }
            shape::StoreKind::Redis => {
                let store = RedisStore::new(settings(&config.redis)).map_err(io::Error::other)?;
                let on_loss = match config.on_loss {
                    shape::OnLoss::Reject => OnLoss::Reject,
                    shape::OnLoss::Local => OnLoss::Local {
                        replicas: NonZeroU32::new(config.replicas.get()).unwrap_or(NonZeroU32::MIN),
                        fresh: Box::new(|| Arc::new(MemoryStore::new())),
                    },
                };
                let store = Arc::new(Measured::new(store, Arc::clone(metrics)));
                let guarded = Guarded::start(store, config.redis.timeout.get(), on_loss).await;
                let (health, also) = (guarded.health(), guarded.health());
                metrics.show_store(move || health.degraded(), move || also.unsettled());
                Ok(Self::Redis(Arc::new(guarded)))
            }
        }
    }

    /// What calls use.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => Arc::clone(store) as Arc<dyn Store>,
            Self::Redis(guarded) => Arc::clone(guarded) as Arc<dyn Store>,
        }
    }

    /// Whether calls can be served.
    pub fn readiness(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let guarded = match self {
            Self::Memory(_) => None,
            Self::Redis(guarded) => Some(Arc::clone(guarded)),
        };
        move || guarded.as_ref().is_none_or(|guarded| guarded.ready())
    }

    /// Waits for what is still being settled.
    pub async fn drain(&self, limit: Duration) {
        if let Self::Redis(guarded) = self {
            let left = guarded.drain(limit).await;
            if left > 0 {
                tracing::warn!(left, "results are left unsettled");
            }
        }
    }
}

fn settings(redis: &shape::Redis) -> RedisSettings {
    let topology = match redis.topology {
        shape::Topology::Standalone => Topology::Standalone,
        shape::Topology::Sentinel => Topology::Sentinel { master: redis.sentinel_master.clone().unwrap_or_default() },
        shape::Topology::Cluster => Topology::Cluster,
    };
    let tls = redis.tls.clone().unwrap_or_default();
    RedisSettings {
        topology,
        urls: redis.urls.clone(),
        username: redis.username.clone(),
        password_file: redis.password_file.clone().map(Into::into),
        tls: TlsFiles {
            ca_file: tls.ca_file.map(Into::into),
            cert_file: tls.cert_file.map(Into::into),
            key_file: tls.key_file.map(Into::into),
        },
        key_prefix: redis.key_prefix.clone(),
        timeout: redis.timeout.get(),
    }
}
