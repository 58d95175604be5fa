//! The store of the config.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};

use super::measured::Measured;
use crate::admission::memory::MemoryStore;
use crate::admission::redis::{RedisSettings, RedisStore, SettingsError, Tokens, Topology};
use crate::admission::{
    Answer, Ask, Guarded, OnLoss, Scope, Settled, Settlement, Store, StoreError, StoreHealth,
    StoreLevels,
};
use crate::config::{self, Settings};
use crate::connect::{Cache, CacheTokens};
use crate::domain::Name;
use crate::error::Cause;
use crate::telemetry::Metrics;

/// The store, and its guards if it can be lost. Cheap to clone.
#[derive(Clone)]
pub(super) enum Stores {
    /// In this process.
    Memory(Arc<MemoryStore>),
    /// In Redis.
    Redis(Arc<PerUpstream>),
}

type GuardedRedis = Guarded<Measured, MemoryStore>;

/// One guard per failure domain: one server, or a node of a cluster. On a cluster each upstream
/// also has its own connection: redis-rs blocks *all* commands of a connection while it looks for
/// one lost node.
pub(super) struct PerUpstream(BTreeMap<Name, Arc<GuardedRedis>>);

impl Stores {
    /// Begins to use the store. A Redis that does not answer yet is no error: `on_loss` decides
    /// about calls meanwhile.
    pub(crate) async fn start(all: &Settings, metrics: &Arc<Metrics>) -> io::Result<Self> {
        let settings = redis_settings(all).await?;
        let (Some(settings), config::Store::Redis { on_loss, .. }) = (settings, &all.store) else {
            metrics.show_store(|| false, || 0);
            return Ok(Self::Memory(Arc::new(MemoryStore::new())));
        };
        let upstreams = all.upstreams.keys();
        let guards = PerUpstream::start(&settings, *on_loss, upstreams, metrics).await;
        let guards = Arc::new(guards.map_err(io::Error::other)?);
        // Weak references, because each guard holds the metrics.
        let (one, other) = (Arc::downgrade(&guards), Arc::downgrade(&guards));
        metrics.show_store(
            move || one.upgrade().is_some_and(|all| all.healths().any(|health| health.degraded())),
            move || {
                let unsettled =
                    |all: Arc<PerUpstream>| all.healths().map(|health| health.unsettled()).sum();
                other.upgrade().map_or(0, unsettled)
            },
        );
        Ok(Self::Redis(guards))
    }

    /// Whether calls can be served.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Redis(guards) => guards.each().all(|guard| guard.is_ready()),
        }
    }

    /// When a part of the store was lost, and how many results could not be written to it.
    pub(crate) fn losses(&self) -> (Option<SystemTime>, u64) {
        let Self::Redis(guards) = self else { return (None, 0) };
        let since = guards.healths().filter_map(|health| health.degraded_since()).min();
        (since, guards.healths().map(|health| health.unsettled()).sum())
    }

    /// Waits for the open settlements.
    pub(crate) async fn drain(&self, limit: Duration) {
        if let Self::Redis(guards) = self {
            let drained = join_all(guards.each().map(|guard| guard.drain(limit))).await;
            let left: usize = drained.into_iter().sum();
            if left > 0 {
                tracing::warn!(left, "results are left unsettled");
            }
        }
    }
}

impl Store for Stores {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        match self {
            Self::Memory(store) => store.admit(ask).await,
            Self::Redis(guards) => guards.of(&ask.scope)?.admit(ask).await,
        }
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        match self {
            Self::Memory(store) => store.settle(settlement).await,
            Self::Redis(guards) => guards.of(&settlement.scope)?.settle(settlement).await,
        }
    }

    async fn has_record(&self, scope: &Scope, name: &str) -> Result<bool, StoreError> {
        match self {
            Self::Memory(store) => store.has_record(scope, name).await,
            Self::Redis(guards) => guards.of(scope)?.has_record(scope, name).await,
        }
    }

    async fn levels_of(&self, scope: &Scope) -> Result<StoreLevels, StoreError> {
        match self {
            Self::Memory(store) => store.levels_of(scope).await,
            Self::Redis(guards) => guards.of(scope)?.levels_of(scope).await,
        }
    }

    fn may_stand(&self, ask: &Ask) -> bool {
        match self {
            Self::Memory(store) => store.may_stand(ask),
            Self::Redis(guards) => guards.of(&ask.scope).is_ok_and(|guard| guard.may_stand(ask)),
        }
    }
}

impl PerUpstream {
    async fn start<'a>(
        settings: &RedisSettings,
        on_loss: config::OnLoss,
        upstreams: impl Iterator<Item = &'a Name>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, SettingsError> {
        let guarded = async |upstream: &Name| {
            let on_loss = match on_loss {
                config::OnLoss::Reject => OnLoss::Reject,
                config::OnLoss::Local { replicas } => {
                    OnLoss::Local { replicas, fresh: Box::new(|| Arc::new(MemoryStore::new())) }
                }
            };
            let store = RedisStore::new(settings.clone())?.probing(upstream);
            let store = Measured::new(store, Arc::clone(metrics));
            Ok(Arc::new(Guarded::start(store, settings.timeout, on_loss).await))
        };
        let names: Vec<_> = upstreams.collect();
        let guards = match (&settings.topology, names.first()) {
            (Topology::Cluster, _) => try_join_all(names.iter().map(|name| guarded(name))).await?,
            (Topology::Standalone | Topology::Sentinel { .. }, Some(first)) => {
                vec![guarded(first).await?; names.len()]
            }
            (Topology::Standalone | Topology::Sentinel { .. }, None) => Vec::new(),
        };
        Ok(Self(names.into_iter().cloned().zip(guards).collect()))
    }

    /// Every guard, once.
    fn each(&self) -> impl Iterator<Item = &Arc<GuardedRedis>> {
        let mut seen = Vec::new();
        self.0.values().filter(move |guard| {
            let is_new = !seen.contains(&Arc::as_ptr(guard));
            seen.push(Arc::as_ptr(guard));
            is_new
        })
    }

    fn healths(&self) -> impl Iterator<Item = Arc<StoreHealth>> {
        self.each().map(|guard| guard.health())
    }

    fn of(&self, scope: &Scope) -> Result<&GuardedRedis, StoreError> {
        let guard = self.0.get(&scope.upstream).map(|guard| &**guard);
        guard.ok_or_else(|| StoreError::NoUpstream(scope.upstream.clone()))
    }
}

/// The settings of the configured Redis, with the source of its IAM tokens. `None`: the store is
/// this process's memory.
pub(super) async fn redis_settings(all: &Settings) -> io::Result<Option<RedisSettings>> {
    let config::Store::Redis { settings, iam, .. } = &all.store else { return Ok(None) };
    let mut settings = RedisSettings::clone(settings);
    if let Some(cache) = iam {
        let tokens = CacheTokens::new(of_aws(cache), &all.egress).await;
        let tokens = OfCache(tokens.map_err(io::Error::other)?);
        settings.tokens = Some(Arc::new(tokens));
    }
    Ok(Some(settings))
}

fn of_aws(iam: &config::RedisIam) -> Cache {
    Cache {
        name: iam.cache.clone(),
        username: iam.username.clone(),
        region: iam.region.clone(),
        service: iam.service,
        serverless: iam.serverless,
    }
}

/// The passwords of a cache that AWS runs.
struct OfCache(CacheTokens);

#[async_trait]
impl Tokens for OfCache {
    async fn token(&self) -> Result<String, Cause> {
        self.0.token().await
    }
}
