//! The operator's commands on the configured store. They need no serving process.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::stores::redis_settings;
use crate::admission::redis::RedisStore;
use crate::admission::{
    Forgotten, RecordProof, RecordSeen, RecordState, StoreError, UpstreamLevels,
};
use crate::config::{Problem, Problems, Settings};
use crate::domain::{ClientToken, Name, Tenant, Upstream};

/// The configured Redis, for the operator's commands.
pub struct Operator {
    settings: Settings,
    store: RedisStore,
}

/// Why an operator's command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The store of the config is the memory of another process.
    #[error(transparent)]
    Config(Problems),
    /// The config has no such name.
    #[error("{0}")]
    UnknownName(String),
    /// The store gave no answer.
    #[error("{}", crate::error::chain(.0))]
    Store(StoreError),
    /// The store could not be set up.
    #[error(transparent)]
    SetUp(#[from] io::Error),
}

/// An upstream of the config with its levels, and the tenants that were asked for.
pub struct LevelTable {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The tenants, in the order of `levels.tenants`.
    pub tenants: Vec<Arc<Tenant>>,
    /// The levels in the store.
    pub levels: UpstreamLevels,
}

/// The state of a call in its record.
#[derive(Debug, Clone)]
pub struct CallRecord {
    /// The record's name: a keyed hash.
    pub name: String,
    /// When it was read, by the store's own clock.
    pub now: SystemTime,
    /// The state of the call.
    pub fate: Fate,
    /// When the record is forgotten.
    pub ends: Option<SystemTime>,
    stamp: Vec<u8>,
}

/// The state of a call, as far as a repeat of it is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// No record of the call is in the store.
    Absent,
    /// A gateway works on the call.
    InFlight {
        /// When its lease ends, unless it is renewed.
        until: SystemTime,
    },
    /// The call has a result.
    Done {
        /// When the gateway received the participant from Connect.
        created: SystemTime,
        /// The participant.
        participant_id: String,
        /// When its replay ends.
        until: SystemTime,
    },
    /// The call may have been executed. `why`: the fault of its record, if it has one.
    Uncertain {
        /// The reason, for printing.
        why: Option<&'static str>,
    },
    /// The result has expired, and cannot come back.
    Expired,
}

impl Operator {
    /// The commands for these settings. The first command connects.
    ///
    /// # Errors
    /// [`OperatorError::Config`] if the store is the memory of a process, and
    /// [`OperatorError::SetUp`].
    pub async fn new(settings: Settings) -> Result<Self, OperatorError> {
        let Some(redis) = redis_settings(&settings).await? else {
            let memory = serde_json::Value::from("memory");
            let expected = "redis, since of the memory store only its own process knows";
            let problem = Problem::new("store.kind", Some(&memory), expected);
            return Err(OperatorError::Config(problem.into()));
        };
        let store = RedisStore::new(redis).map_err(io::Error::other)?;
        Ok(Self { settings, store })
    }

    /// The levels of each upstream, with the tenants that may use it. `None`: all of them.
    ///
    /// # Errors
    /// [`OperatorError::UnknownName`], [`OperatorError::Store`].
    pub async fn levels(
        &self,
        tenant: Option<&str>,
        upstream: Option<&str>,
    ) -> Result<Vec<LevelTable>, OperatorError> {
        let tenant = tenant.map(|name| self.tenant(name)).transpose()?;
        let upstream = upstream.map(|name| self.upstream(name)).transpose()?;
        let mut all = Vec::new();
        for (name, of_config) in &self.settings.upstreams {
            if upstream.as_ref().is_some_and(|asked| asked.name != *name) {
                continue;
            }
            let used = self.settings.routes().filter(|(_, to)| *to == name);
            let tenants: Vec<_> = used
                .filter(|(user, _)| tenant.as_ref().is_none_or(|asked| asked.name == user.name))
                .filter_map(|(user, _)| self.settings.tenants.get(&user.name).cloned())
                .collect();
            let levels = self.levels_of(of_config, &tenants).await?;
            all.push(LevelTable { upstream: Arc::clone(of_config), tenants, levels });
        }
        Ok(all)
    }

    /// The state of the tenant's call with this token on the upstream.
    ///
    /// # Errors
    /// [`OperatorError::UnknownName`], [`OperatorError::Store`].
    pub async fn record(
        &self,
        tenant: &str,
        upstream: &str,
        token: &ClientToken,
    ) -> Result<CallRecord, OperatorError> {
        let (tenant, upstream) = (self.tenant(tenant)?, self.upstream(upstream)?);
        let name = self.settings.keys.record_name(&tenant.name, &upstream.name, token);
        let seen = answered(|| self.store.record(&upstream.name, &name)).await?;
        Ok(self.told(name.to_string(), seen))
    }

    /// Forgets the record, but never one in flight. `as_seen`: only if the record has not changed
    /// since it was read.
    ///
    /// # Errors
    /// [`OperatorError::UnknownName`], [`OperatorError::Store`].
    pub async fn forget(
        &self,
        upstream: &str,
        record: &CallRecord,
        as_seen: bool,
    ) -> Result<Forgotten, OperatorError> {
        let upstream = self.upstream(upstream)?;
        let stamp = if as_seen { record.stamp.as_slice() } else { &[] };
        answered(|| self.store.forget(&upstream.name, &record.name, stamp)).await
    }

    /// Asks in parts, each small enough for a short script.
    async fn levels_of(
        &self,
        upstream: &Upstream,
        tenants: &[Arc<Tenant>],
    ) -> Result<UpstreamLevels, OperatorError> {
        let all: Vec<_> = tenants.iter().map(AsRef::as_ref).collect();
        let (first, rest) = all.split_at(all.len().min(AT_A_TIME));
        let mut levels = answered(|| self.store.levels(upstream, first)).await?;
        for part in rest.chunks(AT_A_TIME) {
            let more = answered(|| self.store.levels(upstream, part)).await?;
            levels.tenants.extend(more.tenants);
        }
        Ok(levels)
    }

    /// The state that the gateway would derive from the record.
    fn told(&self, name: String, seen: RecordSeen) -> CallRecord {
        let RecordSeen { now, state, ends, stamp, proof } = seen;
        let keys = &self.settings.keys;
        let is_ours = proof.as_ref().is_some_and(|proof| {
            let RecordProof { version, fingerprint, upstream_token, mac } = proof;
            keys.verify(&name, *version, fingerprint, upstream_token, mac)
        });
        let foreign = Fate::Uncertain { why: Some("its record was written with another root key") };
        let fate = match state {
            RecordState::Absent => Fate::Absent,
            RecordState::InFlight { until } => Fate::InFlight { until },
            _ if proof.is_none() => Fate::Uncertain { why: Some("its record cannot be read") },
            _ if !is_ours => foreign,
            RecordState::Uncertain => Fate::Uncertain { why: None },
            RecordState::Expired => Fate::Expired,
            RecordState::Done { until, sealed } => {
                let print = proof.as_ref().map_or("", |proof| &proof.fingerprint);
                match keys.open(&name, print, &sealed) {
                    Ok(participant) => Fate::Done {
                        created: participant.create_time,
                        participant_id: participant.id,
                        until,
                    },
                    Err(_) => Fate::Uncertain { why: Some("no sealing key opens its result") },
                }
            }
        };
        CallRecord { name, now, fate, ends, stamp }
    }

    fn tenant(&self, name: &str) -> Result<Arc<Tenant>, OperatorError> {
        let known = self.settings.tenants.get(name).cloned();
        known.ok_or_else(|| unknown("tenant", name, self.settings.tenants.keys()))
    }

    fn upstream(&self, name: &str) -> Result<Arc<Upstream>, OperatorError> {
        let known = self.settings.upstreams.get(name).cloned();
        known.ok_or_else(|| unknown("upstream", name, self.settings.upstreams.keys()))
    }
}

impl Fate {
    /// The state in one word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::InFlight { .. } => "in_flight",
            Self::Done { .. } => "done",
            Self::Uncertain { .. } => "uncertain",
            Self::Expired => "expired",
        }
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a Name>) -> OperatorError {
    let mut known: Vec<_> = known.map(ToString::to_string).collect();
    let more = known.len().saturating_sub(MOST_NAMES);
    known.truncate(MOST_NAMES);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let text = format!("no {what} {name:?}: expected one of {}{more}", known.join(", "));
    OperatorError::UnknownName(text)
}

/// Asks until there is an answer, or until no answer can come. A first connection may take longer
/// than one round trip, and goes on meanwhile.
async fn answered<T, F: Future<Output = Result<T, StoreError>>>(
    ask: impl Fn() -> F,
) -> Result<T, OperatorError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(StoreError::TimedOut | StoreError::Moving) if Instant::now() < until => {
                sleep(PAUSE).await;
            }
            answer => return answer.map_err(OperatorError::Store),
        }
    }
}

/// The most tenants that one script reads: calls must not wait for it.
const AT_A_TIME: usize = 200;

/// The most names that an error lists.
const MOST_NAMES: usize = 20;

/// How long a command tries to reach the store.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
