//! The store that the config asks for.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};

use crate::admission::memory::MemoryStore;
use crate::admission::redis::{RedisSettings, RedisStore, SettingsError, TlsFiles, Topology};
use crate::admission::{
    Answer, Ask, Guarded, OnLoss, Quota, Scope, Settled, Settlement, Store, StoreError, StoreHealth,
};
use crate::config::shape;
use crate::domain::Name;
use crate::telemetry::Metrics;

use super::measured::Measured;

/// The store, and what guards it where it can be lost.
pub enum Stores {
    /// In this process.
    Memory(Arc<MemoryStore>),
    /// In Redis.
    Redis(Arc<Parts>),
}

/// What can be lost by itself: one server, or a cluster's node. There an upstream has a connection
/// of its own, too: while the client looks for a lost node it keeps every command on the connection
/// waiting, those to other nodes as well.
pub struct Parts(BTreeMap<Name, Arc<Guarded>>);

impl Stores {
    /// Takes the store into use. A Redis that is not there yet is no error: `on_loss` says what
    /// that means for calls.
    pub async fn start<'a>(
        config: &shape::Store,
        upstreams: impl Iterator<Item = &'a Name>,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Self> {
        match config.kind {
            shape::StoreKind::Memory => {
                metrics.show_store(|| false, || 0);
                Ok(Self::Memory(Arc::new(MemoryStore::new())))
            }
            shape::StoreKind::Redis => {
                let parts = Arc::new(
                    Parts::start(config, upstreams, metrics).await.map_err(io::Error::other)?,
                );
                let (one, other) = (Arc::downgrade(&parts), Arc::downgrade(&parts));
                metrics.show_store(
                    move || {
                        one.upgrade()
                            .is_some_and(|parts| parts.healths().any(|health| health.degraded()))
                    },
                    move || {
                        other.upgrade().map_or(0, |parts| {
                            parts.healths().map(|health| health.unsettled()).sum()
                        })
                    },
                );
                Ok(Self::Redis(parts))
            }
        }
    }

    /// What calls use.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => Arc::clone(store) as Arc<dyn Store>,
            Self::Redis(parts) => Arc::clone(parts) as Arc<dyn Store>,
        }
    }

    /// Whether calls can be served.
    pub fn readiness(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let parts = match self {
            Self::Memory(_) => None,
            Self::Redis(parts) => Some(Arc::clone(parts)),
        };
        move || parts.as_ref().is_none_or(|parts| parts.each().all(|part| part.ready()))
    }

    /// Waits for what is still being settled.
    pub async fn drain(&self, limit: Duration) {
        if let Self::Redis(parts) = self {
            let left: usize =
                join_all(parts.each().map(|part| part.drain(limit))).await.into_iter().sum();
            if left > 0 {
                tracing::warn!(left, "results are left unsettled");
            }
        }
    }
}

impl Parts {
    async fn start<'a>(
        config: &shape::Store,
        upstreams: impl Iterator<Item = &'a Name>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, SettingsError> {
        let guarded = async |upstream: &Name| {
            let on_loss = match config.on_loss {
                shape::OnLoss::Reject => OnLoss::Reject,
                shape::OnLoss::Local => OnLoss::Local {
                    replicas: NonZeroU32::new(config.replicas.get()).unwrap_or(NonZeroU32::MIN),
                    fresh: Box::new(|| Arc::new(MemoryStore::new())),
                },
            };
            let store = RedisStore::new(settings(&config.redis))?.probing(upstream);
            let store = Arc::new(Measured::new(store, Arc::clone(metrics)));
            Ok(Arc::new(Guarded::start(store, config.redis.timeout.get(), on_loss).await))
        };
        let names: Vec<_> = upstreams.collect();
        let parts = match (config.redis.topology, names.first()) {
            (shape::Topology::Cluster, _) => {
                try_join_all(names.iter().map(|name| guarded(name))).await?
            }
            (shape::Topology::Standalone | shape::Topology::Sentinel, Some(first)) => {
                vec![guarded(first).await?; names.len()]
            }
            (shape::Topology::Standalone | shape::Topology::Sentinel, None) => Vec::new(),
        };
        Ok(Self(names.into_iter().cloned().zip(parts).collect()))
    }

    /// Every part once.
    fn each(&self) -> impl Iterator<Item = &Arc<Guarded>> {
        let mut seen = Vec::new();
        self.0.values().filter(move |part| {
            let is_new = !seen.contains(&Arc::as_ptr(part));
            seen.push(Arc::as_ptr(part));
            is_new
        })
    }

    fn healths(&self) -> impl Iterator<Item = Arc<StoreHealth>> {
        self.each().map(|part| part.health())
    }

    fn of(&self, scope: &Scope) -> Result<&Guarded, StoreError> {
        let unknown = || StoreError {
            what: format!("no part for upstream {}", scope.upstream),
            source: None,
        };
        self.0.get(&scope.upstream).map(|part| &**part).ok_or_else(unknown)
    }
}

#[async_trait]
impl Store for Parts {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        self.of(&ask.scope)?.admit(ask).await
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        self.of(&settlement.scope)?.settle(settlement).await
    }

    async fn quota(&self, scope: &Scope) -> Result<Quota, StoreError> {
        self.of(scope)?.quota(scope).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        join_all(self.each().map(|part| part.probe())).await.into_iter().collect()
    }
}

fn settings(redis: &shape::Redis) -> RedisSettings {
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
        tls: TlsFiles {
            ca_file: tls.ca_file.map(Into::into),
            cert_file: tls.cert_file.map(Into::into),
            key_file: tls.key_file.map(Into::into),
        },
        key_prefix: redis.key_prefix.clone(),
        timeout: redis.timeout.get(),
    }
}
